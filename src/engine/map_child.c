/* SPDX-License-Identifier: MIT */
/* A map in the process of one of its workers: the job that runs its body, and
 * the verbs of the body. */
#include <string.h>

#include "engine/bind.h"
#include "engine/map.h"
#include "os/memory.h"
#include "process/child.h"

/* The board is the map's; what this process forks has nothing to do with it. */
int fm__member_main(fm_child *child, void *ud)
{
    const struct fm__member *member = ud;
    const struct fm_map_opts *opts = &member->map->opts;
    struct fm_worker worker;
    int rc;

    (void)fm__memory_inherit(member->crew.board, FM__BOARD_SIZE, false);
    fm__worker_init(&worker, child, &member->crew);
    rc = opts->fn(&worker, opts->ud);
    return rc == FM_ECLOSED ? 0 : rc;
}

int fm_worker_next(fm_worker *worker, uint64_t *ret_index)
{
    int rc = 0;

    if (!worker->is_ready) {
        worker->is_ready = true;
        rc = fm__worker_put(worker, FM__RECORD_READY, 0, 0, 0);
    }
    if (rc == 0 && !worker->said)
        rc = fm__worker_end(worker, FM__RECORD_VALUE, (unsigned)worker->format);
    if (rc == 0)
        rc = fm__worker_next(worker);
    if (rc > 0)
        *ret_index = fm__worker_index(worker);
    return rc;
}

int fm_worker_write(fm_worker *worker, const void *data, size_t len)
{
    return fm__sink_write(&worker->sink, data, len);
}

int fm_worker_set_format(fm_worker *worker, int format)
{
    return worker->sink.restart(&worker->sink, format & 0xff);
}

int fm_worker_fail(fm_worker *worker, const char *message,
                   const char *traceback)
{
    int rc;

    if (worker->said)
        return 0;
    fm__worker_begin(worker);
    rc = fm__worker_write_texts(worker, message, traceback);
    return rc < 0 ? rc : fm__worker_end(worker, FM__RECORD_FAIL, 0);
}

int fm_worker_emit(fm_worker *worker, const void *data, size_t len, int format)
{
    int rc = 0;

    if (worker->open || worker->total > 0)
        return FM_EBUSY;
    rc = fm__sink_write(&worker->sink, data, len);
    return rc < 0 ? rc
                  : fm__worker_end(worker, FM__RECORD_EVENT,
                                   (unsigned)format & 0xff);
}

int fm_worker_stop(fm_worker *worker, const void *data, size_t len, int format)
{
    int rc;

    fm__worker_begin(worker);
    rc = fm__sink_write(&worker->sink, data, len);
    return rc < 0 ? rc
                  : fm__worker_end(worker, FM__RECORD_STOP,
                                   (unsigned)format & 0xff);
}

void fm_worker_set_detail(fm_worker *worker, uint64_t detail)
{
    atomic_store_explicit(&worker->post->detail, detail, memory_order_relaxed);
}

unsigned fm_worker_get_id(const fm_worker *worker)
{
    return worker->crew->id;
}

unsigned fm_worker_get_attempt(const fm_worker *worker)
{
    return worker->attempt;
}

void fm_worker_get_seed(const fm_worker *worker, uint64_t ret_seed[2])
{
    const struct fm_job_opts *opts = fm_child_get_opts(worker->child);

    if (opts->has_seed)
        fm__seed_words(opts->seed, fm__worker_index(worker), ret_seed);
    else
        fm_child_get_seed(worker->child, ret_seed);
}

fm_child *fm_worker_get_child(const fm_worker *worker)
{
    return worker->child;
}
