/* SPDX-License-Identifier: MIT */
/* The bytes that a worker of a map says, in pieces; see worker.h. */
#include <string.h>

#include "process/worker.h"

/* A piece is begun where so much fits. */
#define PIECE_MIN (FM__RECORD_HEAD + 4 * FM__SINK_ROOM)

/* Contiguous room for a piece. */
static int find_room(struct fm_worker *worker, size_t *ret_len)
{
    struct fm__ring *ring = worker->ring;

    for (;;) {
        size_t to_end = ring->size - ((size_t)ring->at & (ring->size - 1));
        size_t need = to_end < PIECE_MIN ? to_end : PIECE_MIN;
        size_t room;
        int rc = fm__worker_wait_room(worker, need);

        if (rc < 0)
            return rc;
        if (need == PIECE_MIN) {
            room = ring->size - (size_t)(ring->at - ring->far);
            *ret_len = room < to_end ? room : to_end;
            return 0;
        }
        fm__record_put(fm__worker_at(worker), FM__RECORD_PAD, 0,
                       (uint32_t)(to_end - FM__RECORD_HEAD), 0);
        fm__worker_commit(worker, to_end);
    }
}

/* Publish the open piece under a head of this kind. */
static void close_piece(struct fm_worker *worker, unsigned kind,
                        unsigned detail)
{
    unsigned char *payload = worker->open + FM__RECORD_HEAD;
    uint32_t len = (uint32_t)(worker->sink.next - payload);

    worker->total += len;
    fm__record_put(worker->open, kind, detail, len, worker->total);
    worker->open = NULL;
    worker->sink.next = NULL;
    worker->sink.end = NULL;
    fm__worker_commit(worker, FM__RECORD_HEAD + fm__record_padded(len));
}

static int worker_more(struct fm__sink *sink)
{
    struct fm_worker *worker = (struct fm_worker *)sink;
    size_t room;
    int rc;

    if (worker->open && sink->next > worker->open + FM__RECORD_HEAD) {
        close_piece(worker, FM__RECORD_DATA, 0);
        fm__worker_wake_if_due(worker);
    }
    if (worker->total > worker->most)
        return FM_ELIMIT;
    rc = find_room(worker, &room);
    if (rc < 0)
        return rc;
    if (room > FM__RECORD_HEAD + FM__RECORD_PAYLOAD_MAX)
        room = FM__RECORD_HEAD + FM__RECORD_PAYLOAD_MAX;
    worker->open = fm__worker_at(worker);
    sink->next = worker->open + FM__RECORD_HEAD;
    sink->end = worker->open + room;
    return 0;
}

static int drop(struct fm_worker *worker)
{
    worker->open = NULL;
    worker->sink.next = NULL;
    worker->sink.end = NULL;
    if (worker->total == 0)
        return 0;
    worker->total = 0;
    return fm__worker_put(worker, FM__RECORD_DROP, 0, 0, 0);
}

static int worker_restart(struct fm__sink *sink, int format)
{
    struct fm_worker *worker = (struct fm_worker *)sink;

    worker->format = format;
    return drop(worker);
}

void fm__worker_begin(struct fm_worker *worker)
{
    uint64_t limit = worker->crew->limit;

    worker->format = 0;
    worker->most = limit > 0 ? limit : UINT64_MAX;
    if (worker->open || worker->total > 0)
        (void)drop(worker);
}

static bool is_over_limit(const struct fm_worker *worker)
{
    uint64_t len = worker->total;

    if (worker->open)
        len += (uint64_t)(worker->sink.next - worker->open) - FM__RECORD_HEAD;
    return worker->crew->limit > 0 && len > worker->crew->limit;
}

static bool ends_item(unsigned kind)
{
    return kind != FM__RECORD_EVENT && kind != FM__RECORD_STOP;
}

int fm__worker_end(struct fm_worker *worker, unsigned kind, unsigned detail)
{
    int rc = 0;

    if (kind == FM__RECORD_VALUE && is_over_limit(worker))
        return FM_ELIMIT;
    if (ends_item(kind))
        worker->said = true;
    if (worker->open)
        close_piece(worker, kind, detail);
    else
        rc = fm__worker_put(worker, kind, detail, 0, worker->total);
    worker->total = 0;
    /* A value can wait for the next tick; the others change what is done. */
    if (rc == 0 && kind != FM__RECORD_VALUE)
        fm__worker_wake_parent(worker);
    return rc;
}

static int write_text(struct fm_worker *worker, const char *text, size_t len)
{
    uint32_t n = (uint32_t)len;
    int rc = fm__sink_write(&worker->sink, &n, sizeof n);

    return rc < 0 ? rc : fm__sink_write(&worker->sink, text, len);
}

int fm__worker_write_texts(struct fm_worker *worker, const char *first,
                           const char *second)
{
    uint64_t detail = atomic_load(&worker->post->detail);
    int rc;

    /* They are no part of a result. */
    if (worker->most < UINT64_MAX - FM__RECORD_TEXTS_MAX)
        worker->most += FM__RECORD_TEXTS_MAX;
    rc = fm__sink_write(&worker->sink, &detail, sizeof detail);
    if (rc == 0)
        rc = write_text(worker, first ? first : "",
                        first ? strnlen(first, FM__FRAME_TEXT_MAX) : 0);
    if (rc < 0)
        return rc;
    return write_text(worker, second ? second : "",
                      second ? strnlen(second, FM__FRAME_TEXT_MAX) : 0);
}

void fm__worker_open_sink(struct fm_worker *worker)
{
    worker->sink.more = worker_more;
    worker->sink.restart = worker_restart;
}
