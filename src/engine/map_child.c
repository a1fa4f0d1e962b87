/* SPDX-License-Identifier: MIT */
/* A map in the process of one of its workers: the job that runs its body, and
 * the verbs of the body. */
#include <errno.h>
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
    fm__source_keep_tray(member);
    rc = fm__worker_init(&worker, child, &member->crew);
    if (rc < 0)
        return rc;
    worker.opts = opts;
    rc = opts->fn(&worker, opts->ud);
    return rc == FM_ECLOSED ? 0 : rc;
}

/* The item's value is longer than limits.result. */
static int exceed(fm_worker *worker)
{
    int rc;

    fm__worker_begin(worker);
    rc = fm__worker_write_texts(worker, "result",
                                "the child exceeded limits.result");
    return rc < 0 ? rc : fm__worker_end(worker, FM__RECORD_EXCEED, 0);
}

int fm_worker_next(fm_worker *worker, uint64_t *ret_index)
{
    int rc = 0;

    if (!worker->is_ready) {
        worker->is_ready = true;
        rc = fm__worker_put(worker, FM__RECORD_READY, 0, 0, 0);
        if (worker->timed) /* from now on its items are */
            fm__worker_wake_parent(worker);
    }
    if (!worker->said)
        fm__worker_settle_output(worker);
    if (rc == 0 && !worker->said)
        rc = fm__worker_end(worker, FM__RECORD_VALUE, (unsigned)worker->format);
    if (rc == FM_ELIMIT)
        rc = exceed(worker);
    if (rc == 0)
        rc = fm__worker_next(worker);
    if (rc > 0) {
        worker->format = 0;
        *ret_index = fm__worker_index(worker);
    }
    return rc;
}

int fm_worker_get_item(fm_worker *worker, const void **ret_data,
                       size_t *ret_len)
{
    int rc = fm__worker_fetch(worker);

    if (rc < 0)
        return rc;
    *ret_len = worker->items.pieces.len;
    *ret_data = *ret_len > 0 ? worker->items.pieces.data : (const void *)"";
    return worker->item_format;
}

/* Outside of an item, and after its last word, bytes would become another
 * one's. */
int fm_worker_write(fm_worker *worker, const void *data, size_t len)
{
    int rc;

    if (worker->said)
        return FM_EBUSY;
    rc = fm__sink_write(&worker->sink, data, len);
    if (rc == FM_ELIMIT && exceed(worker) < 0)
        rc = FM_ECLOSED;
    return rc;
}

int fm_worker_set_format(fm_worker *worker, int format)
{
    if (worker->said)
        return FM_EBUSY;
    return worker->sink.restart(&worker->sink, format & 0xff);
}

int fm_worker_fail(fm_worker *worker, const char *message,
                   const char *traceback)
{
    int rc;

    if (worker->said)
        return 0;
    fm__worker_settle_output(worker);
    fm__worker_begin(worker);
    rc = fm__worker_write_texts(worker, message, traceback);
    return rc < 0 ? rc : fm__worker_end(worker, FM__RECORD_FAIL, 0);
}

int fm_worker_emit(fm_worker *worker, const void *data, size_t len, int format)
{
    int rc = 0;

    if (worker->said || worker->open || worker->total > 0)
        return FM_EBUSY;
    rc = fm__sink_write(&worker->sink, data, len);
    if (rc < 0) {
        fm__worker_begin(worker); /* it is not the item's value */
        return rc;
    }
    return fm__worker_end(worker, FM__RECORD_EVENT, (unsigned)format & 0xff);
}

int fm_worker_stop(fm_worker *worker, const void *data, size_t len, int format)
{
    int rc;

    if (worker->said)
        return FM_EBUSY;
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

/* ------------------------------------------------- items with own processes */

static void ignore_warning(const char *message, void *ud)
{
    (void)message;
    (void)ud;
}

static int open_engine(fm_worker *worker)
{
    struct fm_engine_opts opts = FM_ENGINE_OPTS_INIT;

    if (worker->engine)
        return 0;
    /* The map was within its bounds, which are the host's affair; here there is
     * one thread. */
    opts.max_children = 1;
    opts.max_depth = fm__child_depth() + 1;
    opts.on_threads = FM_THREADS_IGNORE;
    opts.on_warning = ignore_warning;
    return fm_engine_new(&opts, &worker->engine);
}

int fm__worker_get_engine(fm_worker *worker, fm_engine **ret_engine)
{
    int rc = open_engine(worker);

    if (rc == 0)
        *ret_engine = worker->engine;
    return rc;
}

/* What of the map's options is the item's process's; the worker has the
 * others, and its descriptors are those that it may have. */
static struct fm_job_opts item_opts(const fm_worker *worker)
{
    const struct fm_job_opts *all = &worker->opts->job;
    struct fm_job_opts opts;

    memset(&opts, 0, sizeof opts);
    opts.name = all->name;
    opts.grace_ns = all->grace_ns;
    if (worker->opts->isolate == FM_ISOLATE_ITEM) {
        opts.timeout_ns = all->timeout_ns;
        opts.limits = all->limits;
    }
    opts.limits.result = all->limits.result;
    opts.has_seed = all->has_seed;
    opts.seed = all->seed;
    opts.seed_index = fm__worker_index(worker);
    opts.keep_stdin = true;
    return opts;
}

static void fill_end(struct fm__item_end *end, const struct fm_outcome *outcome)
{
    memset(end, 0, sizeof *end);
    end->kind = (int32_t)outcome->kind;
    end->error_code = outcome->error_code;
    end->signal = outcome->signal;
    end->exit_code = outcome->exit_code;
    end->pid = outcome->pid;
    end->wall_ns = outcome->usage.wall_ns;
    end->user_ns = outcome->usage.user_ns;
    end->sys_ns = outcome->usage.sys_ns;
    end->max_rss = outcome->usage.max_rss;
    end->is_known = outcome->last.known;
    end->elapsed_ns = outcome->last.elapsed_ns;
    memcpy(end->where, outcome->last.where,
           strnlen(outcome->last.where, sizeof end->where - 1));
}

static const char *second_text(const struct fm_outcome *outcome)
{
    if (outcome->path)
        return outcome->path;
    return outcome->limit ? outcome->limit : outcome->traceback;
}

/* Pass on what became of the item's process. */
static int report(fm_worker *worker, const struct fm_outcome *outcome)
{
    struct fm__sink *sink = &worker->sink;
    struct fm__item_end end;
    int rc;

    fm__worker_settle_output(worker);
    fm__worker_begin(worker);
    if (outcome->kind == FM_VALUE) {
        rc = fm__sink_write(sink, outcome->data, outcome->len);
        return rc < 0 ? rc
                      : fm__worker_end(worker, FM__RECORD_VALUE,
                                       (unsigned)outcome->format & 0xff);
    }
    fill_end(&end, outcome);
    rc = fm__worker_write_texts(worker, outcome->message, second_text(outcome));
    if (rc == 0)
        rc = fm__sink_write(sink, &end, sizeof end);
    if (rc == 0 && outcome->kind == FM_ERROR)
        rc = fm__sink_write(sink, outcome->data, outcome->len);
    return rc < 0 ? rc
                  : fm__worker_end(worker, FM__RECORD_ENDED,
                                   (unsigned)outcome->format & 0xff);
}

/* What the item's process says beside its result goes to the map. */
static void pass_on(const struct fm__inbox *inbox, int what, void *ud)
{
    fm_worker *worker = ud;
    int rc = fm__sink_write(&worker->sink, inbox->data, inbox->len);

    if (rc == 0)
        (void)fm__worker_end(
            worker, what == FM__ASIDE_STOP ? FM__RECORD_STOP : FM__RECORD_EVENT,
            (unsigned)inbox->format & 0xff);
}

int fm_worker_run_item(fm_worker *worker, fm_job_fn fn, void *ud)
{
    struct fm_job_opts opts = item_opts(worker);
    fm_future *future = NULL;
    int rc = open_engine(worker);

    if (rc == 0)
        rc = fm_spawn(worker->engine, &opts, fn, ud, &future);
    if (rc < 0 || !future)
        return rc;
    future->on_aside = pass_on; /* it is heard in steps only */
    future->aside_ud = worker;
    future->inbox.on_aside = pass_on;
    future->inbox.aside_ud = worker;
    while (fm_future_get_state(future) != FM_SETTLED) {
        rc = fm_engine_step(worker->engine, -1);
        if (rc < 0 && rc != -EINTR)
            break;
    }
    rc = FM_ECLOSED;
    if (fm_future_get_state(future) == FM_SETTLED)
        rc = report(worker, fm_future_get_outcome(future));
    fm_future_unref(future);
    return rc;
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
