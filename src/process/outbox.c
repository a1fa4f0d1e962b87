/* SPDX-License-Identifier: MIT */
/* The child's side of a conversation; see outbox.h. */
#include "process/outbox.h"

#include <string.h>

#include "fork_map.h"
#include "os/clock.h"
#include "os/sys.h"
#include "os/word.h"

/* A frame is handed over when it has grown so long, so that the parent copies
 * while the child goes on writing. */
#define FRAME_TARGET 65536

/* How long a full ring is slept on before the parent is looked for. */
#define FULL_NAP_NS (100 * FM__NS_PER_MS)

int fm__outbox_wake_parent(struct fm__outbox *outbox)
{
    int rc = 0;

    if (fm__ring_must_ring(&outbox->ring))
        rc = fm__bell_ring(&outbox->bell);
    if (rc < 0)
        fm__ring_must_still_ring(&outbox->ring);
    return rc;
}

int fm__outbox_wait_room(struct fm__outbox *outbox, size_t need)
{
    uint32_t value;

    if (!fm__ring_starve(&outbox->ring, need, &value))
        return 0;
    if (fm__outbox_wake_parent(outbox) < 0)
        return FM_ECLOSED; /* the job has closed the bell: nobody will come */
    fm__word_wait(&outbox->ring.shared->room, value, FULL_NAP_NS);
    return fm__sys.getppid() == outbox->parent ? 0 : FM_ECLOSED;
}

/* The parent need not hear of every frame: only when it would be kept busy,
 * or when the child has to wait for it. */
static void ring_if_filling(struct fm__outbox *outbox)
{
    if (fm__ring_used(&outbox->ring) >= outbox->ring.size / 4)
        (void)fm__outbox_wake_parent(outbox);
}

/* Copy bytes into the ring, waiting for room as often as needed. */
static int copy_in(struct fm__outbox *outbox, const void *data, size_t len)
{
    const unsigned char *p = data;

    while (len > 0) {
        unsigned char *room;
        size_t n = fm__ring_window(&outbox->ring, &room);

        if (n == 0) {
            int rc = fm__outbox_wait_room(outbox, 1);

            if (rc < 0)
                return rc;
            continue;
        }
        n = n < len ? n : len;
        memcpy(room, p, n);
        fm__ring_commit(&outbox->ring, n);
        p += n;
        len -= n;
    }
    ring_if_filling(outbox);
    return 0;
}

static void fill_head(struct fm__outbox *outbox, unsigned char *at,
                      enum fm__frame_type type, size_t len)
{
    struct fm__frame_head head;

    memset(&head, 0, sizeof head);
    head.magic = FM__FRAME_MAGIC;
    head.type = (uint8_t)type;
    head.len = (uint32_t)len;
    head.job = outbox->job;
    memcpy(at, &head, sizeof head);
}

/* Hand over the open data frame, if it holds anything.  Afterwards the sink
 * has no window. */
static int flush(struct fm__outbox *outbox)
{
    size_t len;
    int rc = 0;

    if (!outbox->frame)
        return 0;
    len = (size_t)(outbox->sink.next - outbox->frame) - FM__FRAME_HEAD;
    if (len > 0) {
        fill_head(outbox, outbox->frame, FM__FRAME_DATA, len);
        outbox->total += len;
        if (outbox->bounced) {
            rc = copy_in(outbox, outbox->frame, FM__FRAME_HEAD + len);
        } else {
            fm__ring_commit(&outbox->ring, FM__FRAME_HEAD + len);
            ring_if_filling(outbox);
        }
    }
    outbox->frame = NULL;
    outbox->sink.next = NULL;
    outbox->sink.end = NULL;
    return rc;
}

/* Open a data frame where there is room: in the ring, or, near its end, in
 * the bounce buffer. */
static int open_frame(struct fm__outbox *outbox)
{
    unsigned char *room;
    size_t n = fm__ring_window(&outbox->ring, &room);

    while (n == 0) {
        int rc = fm__outbox_wait_room(outbox, 1);

        if (rc < 0)
            return rc;
        n = fm__ring_window(&outbox->ring, &room);
    }
    outbox->bounced = n < FM__OUTBOX_BOUNCE;
    if (outbox->bounced) {
        room = outbox->bounce;
        n = sizeof outbox->bounce;
    }
    if (n > FRAME_TARGET)
        n = FRAME_TARGET;
    outbox->frame = room;
    outbox->sink.next = room + FM__FRAME_HEAD;
    outbox->sink.end = room + n;
    return 0;
}

static int outbox_more(struct fm__sink *sink)
{
    struct fm__outbox *outbox = (struct fm__outbox *)sink;
    int rc = outbox->closed ? FM_ECLOSED : flush(outbox);

    if (rc == 0 && outbox->limit != 0 && outbox->total > outbox->limit)
        rc = FM_ELIMIT;
    return rc < 0 ? rc : open_frame(outbox);
}

static int outbox_restart(struct fm__sink *sink, int format)
{
    struct fm__outbox *outbox = (struct fm__outbox *)sink;
    unsigned char tag = (unsigned char)format;

    return fm__outbox_put(outbox, FM__FRAME_FORMAT, &tag, sizeof tag);
}

void fm__outbox_init(struct fm__outbox *outbox, const struct fm__ring *ring,
                     const struct fm__bell *bell, int parent, uint64_t job)
{
    memset(outbox, 0, offsetof(struct fm__outbox, bounce));
    fm__ring_init(&outbox->ring, ring->shared, ring->data, ring->size);
    outbox->bell = *bell;
    outbox->parent = parent;
    outbox->job = job;
    outbox->sink.more = outbox_more;
    outbox->sink.restart = outbox_restart;
}

static bool drops_data(enum fm__frame_type type)
{
    return type == FM__FRAME_FORMAT || type == FM__FRAME_FAIL ||
           type == FM__FRAME_REFUSE || type == FM__FRAME_EXCEED ||
           type == FM__FRAME_START_FAILED;
}

int fm__outbox_put(struct fm__outbox *outbox, enum fm__frame_type type,
                   const void *payload, size_t len)
{
    unsigned char head[FM__FRAME_HEAD];
    int rc;

    if (outbox->closed)
        return FM_ECLOSED;
    if (drops_data(type) && outbox->frame)
        outbox->sink.next = outbox->frame + FM__FRAME_HEAD;
    rc = flush(outbox);
    if (rc < 0)
        return rc;
    if (drops_data(type))
        outbox->total = 0;
    fill_head(outbox, head, type, len);
    rc = copy_in(outbox, head, sizeof head);
    return rc < 0 ? rc : copy_in(outbox, payload, len);
}

struct text {
    const char *head, *tail;
    size_t head_len, tail_len;
};

static const char gap[] = "\n... (cut) ...\n";

/* A long text keeps its beginning and its end. */
static struct text cut(const char *text)
{
    struct text t = {text ? text : "", "", 0, 0};
    size_t len = strlen(t.head);

    t.head_len = len;
    if (len > FM__FRAME_TEXT_MAX) {
        t.head_len = FM__FRAME_TEXT_MAX / 2;
        t.tail_len = FM__FRAME_TEXT_MAX / 2 - (sizeof gap - 1);
        t.tail = t.head + len - t.tail_len;
    }
    return t;
}

static size_t cut_len(const struct text *t)
{
    return t->tail_len > 0 ? FM__FRAME_TEXT_MAX - 1 : t->head_len;
}

static int copy_text(struct fm__outbox *outbox, const struct text *t)
{
    int rc = copy_in(outbox, t->head, t->head_len);

    if (rc == 0 && t->tail_len > 0)
        rc = copy_in(outbox, gap, sizeof gap - 2);
    return rc < 0 ? rc : copy_in(outbox, t->tail, t->tail_len);
}

int fm__outbox_put_pair(struct fm__outbox *outbox, enum fm__frame_type type,
                        const char *first, const char *second)
{
    struct text a = cut(first), b = cut(second);
    uint32_t first_len = (uint32_t)cut_len(&a);
    unsigned char head[FM__FRAME_HEAD];
    int rc;

    if (outbox->closed)
        return FM_ECLOSED;
    if (outbox->frame)
        outbox->sink.next = outbox->frame + FM__FRAME_HEAD;
    rc = flush(outbox);
    if (rc < 0)
        return rc;
    outbox->total = 0;
    fill_head(outbox, head, type, sizeof first_len + first_len + cut_len(&b));
    rc = copy_in(outbox, head, sizeof head);
    if (rc == 0)
        rc = copy_in(outbox, &first_len, sizeof first_len);
    if (rc == 0)
        rc = copy_text(outbox, &a);
    return rc < 0 ? rc : copy_text(outbox, &b);
}

int fm__outbox_put_aside(struct fm__outbox *outbox, enum fm__aside what)
{
    unsigned char byte = (unsigned char)what;
    int rc = fm__outbox_put(outbox, FM__FRAME_ASIDE, &byte, sizeof byte);

    if (rc < 0)
        return rc;
    outbox->total = 0;
    return fm__outbox_wake_parent(outbox);
}

/* Bytes of data since the last restart, with those that the sink holds. */
static uint64_t count_data(const struct fm__outbox *outbox)
{
    uint64_t open = 0;

    if (outbox->frame)
        open = (uint64_t)(outbox->sink.next - outbox->frame) - FM__FRAME_HEAD;
    return outbox->total + open;
}

int fm__outbox_put_tell(struct fm__outbox *outbox, struct fm__tell *tell,
                        const char *first, const char *second)
{
    struct text a = cut(first), b = cut(second);
    unsigned char head[FM__FRAME_HEAD];
    int rc;

    if (outbox->closed)
        return FM_ECLOSED;
    if (outbox->limit != 0 && count_data(outbox) > outbox->limit) {
        rc = outbox->sink.restart(&outbox->sink, 0);
        return rc < 0 ? rc : FM_ELIMIT;
    }
    rc = flush(outbox);
    if (rc < 0)
        return rc;
    outbox->total = 0;
    memset(tell->zero, 0, sizeof tell->zero);
    tell->first_len = (uint32_t)cut_len(&a);
    fill_head(outbox, head, FM__FRAME_TELL,
              sizeof *tell + tell->first_len + cut_len(&b));
    rc = copy_in(outbox, head, sizeof head);
    if (rc == 0)
        rc = copy_in(outbox, tell, sizeof *tell);
    if (rc == 0)
        rc = copy_text(outbox, &a);
    return rc < 0 ? rc : copy_text(outbox, &b);
}

int fm__outbox_end(struct fm__outbox *outbox)
{
    uint64_t total;
    int rc = outbox->closed ? FM_ECLOSED : flush(outbox);

    if (rc < 0)
        return rc;
    total = outbox->total;
    rc = fm__outbox_put(outbox, FM__FRAME_END, &total, sizeof total);
    outbox->closed = true;
    return rc;
}
