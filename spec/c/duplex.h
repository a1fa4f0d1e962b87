/* SPDX-License-Identifier: MIT */
/* Giving calls to a worker and hearing of them, for the C specs of duplex jobs.
 */
#ifndef SPEC_C_DUPLEX_H
#define SPEC_C_DUPLEX_H

#include "run_job.h"

#include "engine/duplex.h"
#include "process/child.h"
#include "process/serving.h"

#define S (1000 * MS)

/* ------------------------------------------------------------- the worker */

static int __attribute__((unused))
tell(struct fm__serving *serving, uint64_t call, enum fm__tell_what what)
{
    struct fm__tell head = {.call = call, .what = (uint8_t)what};

    return fm__serving_tell(serving, &head, NULL, NULL);
}

/* The data first, then what they are. */
static int __attribute__((unused))
tell_data(struct fm__serving *serving, uint64_t call, enum fm__tell_what what,
          const void *data, size_t len)
{
    struct fm__sink *sink = &serving->outbox->sink;
    int rc = sink->restart(sink, 0);

    if (rc == 0)
        rc = fm__sink_write(sink, data, len);
    return rc < 0 ? rc : tell(serving, call, what);
}

static int __attribute__((unused)) echo(struct fm__serving *serving)
{
    CHECK_INT(serving->tag, 77 + serving->tray.pieces.len);
    return tell_data(serving, serving->call, FM__TELL_VALUE,
                     serving->tray.pieces.data, serving->tray.pieces.len);
}

/* Take and answer until the order to leave comes. */
static int __attribute__((unused))
serve(struct fm__serving *serving, int (*answer)(struct fm__serving *serving))
{
    int rc = tell(serving, 0, FM__TELL_READY);

    while (rc >= 0 && !fm__serving_must_leave(serving)) {
        rc = fm__serving_take(serving);
        if (rc == 0)
            rc = fm__serving_sleep(serving, S);
        else if (rc > 0)
            rc = answer(serving);
    }
    fm__buffer_done(&serving->tray.pieces);
    return rc;
}

static int __attribute__((unused)) serve_echo(fm_child *child, void *ud)
{
    (void)ud;
    return serve(fm__child_get_serving(child), echo);
}

/* -------------------------------------------------------------- the parent */

static fm_future *__attribute__((unused))
hire(fm_engine *engine, const struct fm_job_opts *opts, fm_job_fn fn, void *ud)
{
    fm_future *worker = NULL;

    CHECK_INT(fm__spawn_duplex(engine, opts, fn, ud, &worker), 0);
    return worker;
}

/* The next message; false when the worker has ended without one. */
static bool __attribute__((unused))
hear(fm_engine *engine, fm_future *worker, struct fm__message *message)
{
    for (;;) {
        int rc = fm__duplex_hear(worker, message);

        CHECK(rc >= 0);
        if (rc > 0)
            return true;
        if (fm_future_get_state(worker) == FM_SETTLED)
            return false;
        rc = fm_engine_step(engine, -1);
        CHECK(rc >= 0 || rc == -EINTR);
    }
}

static void __attribute__((unused))
wait_ready(fm_engine *engine, fm_future *worker)
{
    struct fm__message message;

    CHECK(hear(engine, worker, &message));
    CHECK_INT(message.what, FM__TELL_READY);
    CHECK_INT(message.call, 0);
}

static int __attribute__((unused))
give_bytes(fm_future *worker, const void *data, size_t len, uint64_t *ret_call)
{
    const struct fm__gift gift = {.data = data, .len = len, .tag = 77 + len};

    return fm__duplex_give(worker, &gift, ret_call);
}

static uint64_t __attribute__((unused))
give(fm_future *worker, const char *text)
{
    uint64_t call = 0;

    CHECK_INT(give_bytes(worker, text, strlen(text), &call), 1);
    CHECK(call != 0);
    return call;
}

/* It ends by itself, and well. */
static void __attribute__((unused))
dismiss(fm_engine *engine, fm_future *worker)
{
    fm__duplex_order_leave(worker);
    CHECK_INT(wait_for(engine, worker)->kind, FM_VALUE);
    fm_future_unref(worker);
}

#endif
