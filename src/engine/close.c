/* SPDX-License-Identifier: MIT */
/*
 * The end of an engine: nothing starts any more, what runs is ended, and the
 * loop goes on until it has ended or is past ending.
 */
#include <errno.h>

#include "engine/engine.h"
#include "engine/template.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/sys.h"

/* What close adds to the longest grace before it leaves a child behind. */
#define CLOSE_EXTRA_NS (FM__NS_PER_S / 2)

static void stop_everything(fm_engine *engine, int64_t grace_ns)
{
    int64_t now = fm__clock_now();

    fm__templates_close(engine);
    while (engine->queue.first || engine->waiting.first) {
        fm_future *future =
            engine->queue.first ? engine->queue.first : engine->waiting.first;

        fm__outcome_set_plain(future, FM_CLOSED, 0, "the engine was closed");
        fm__future_settle(future);
    }
    for (unsigned i = 0; i < engine->n_slots; i++) {
        fm_future *future = engine->slots[i];

        if (!future || future->inbox.ending == FM__ENDING_ENDED)
            continue;
        if (future->is_asked) {
            fm__attempt_withdraw(future, FM_CLOSED, "the engine was closed");
            continue;
        }
        fm__future_stop(future,
                        grace_ns == 0 ? FM__STOP_FORCED : FM__STOP_ASKED,
                        FM_CLOSED, now);
        if (grace_ns > 0 && future->stop == FM__STOP_ASKED &&
            future->next_at > fm__clock_after(now, grace_ns))
            future->next_at = fm__clock_after(now, grace_ns);
    }
}

static int64_t longest_grace(const fm_engine *engine)
{
    int64_t longest = 0;

    for (unsigned i = 0; i < engine->n_slots; i++) {
        if (engine->slots[i]) {
            int64_t grace = fm__future_grace(engine->slots[i]);

            longest = grace > longest ? grace : longest;
        }
    }
    return longest;
}

/* What SIGKILL did not end within the bound is given up on. */
static void abandon_rest(fm_engine *engine)
{
    for (unsigned i = 0; i < engine->n_slots; i++) {
        fm_future *future = engine->slots[i];

        if (!future)
            continue;
        fm__future_stop(future, FM__STOP_FORCED, FM_CLOSED, fm__clock_now());
        future->next_at = 0;
        (void)fm__attempt_check_time(future, fm__clock_now());
    }
    fm__attempt_reap_parked(engine, true);
}

static void run_down(fm_engine *engine, int64_t grace_ns)
{
    /* Between two steps of an engine whose poller fails. */
    const struct timespec nap = fm__clock_spec(FM__NS_PER_MS);
    int64_t bound = grace_ns >= 0 ? grace_ns : longest_grace(engine);
    int64_t until;

    stop_everything(engine, grace_ns);
    until = fm__clock_after(fm__clock_now(),
                            fm__clock_after(bound, CLOSE_EXTRA_NS));
    while (engine->n_running > 0 || engine->due.first) {
        int64_t now = fm__clock_now();
        int rc;

        if (now >= until)
            break;
        rc = fm__engine_step(engine, until - now);
        if (rc < 0 && rc != -EINTR)
            (void)fm__sys.nanosleep(&nap, NULL);
    }
    abandon_rest(engine);
    (void)fm__engine_run_due(engine);
}

/* In a child: the descriptors were buried, the processes are not ours. */
static void forget(fm_engine *engine)
{
    fm__watchers_drop(engine);
    engine->bell = (struct fm__bell)FM__BELL_INIT;
    engine->poller.fd = -1;
    engine->poller.timer_fd = -1;
    engine->null_fd = -1;
    engine->closed = true;
    fm__hooks_forget(engine);
}

static void close_engine(fm_engine *engine, int64_t grace_ns)
{
    if (engine->closed)
        return;
    if (!fm__engine_is_ours(engine)) {
        forget(engine);
        return;
    }
    engine->closed = true;
    run_down(engine, grace_ns);
    fm__templates_drop(engine);
    fm__engine_close_parts(engine);
    fm__hooks_forget(engine);
    fm__fds_close();
}

/* An engine of ours, or a callback of it, runs further up the stack. */
static bool is_busy(const fm_engine *engine)
{
    return (engine->in_callback || engine->is_at_work) &&
           fm__engine_is_ours(engine);
}

int fm_engine_close(fm_engine *engine, int64_t grace_ns)
{
    if (is_busy(engine))
        return engine->closed ? 0 : FM_EBUSY;
    (void)fm__engine_enter(engine);
    close_engine(engine, grace_ns);
    fm__engine_leave(engine);
    return 0;
}

void fm_engine_free(fm_engine *engine)
{
    if (!engine)
        return;
    if (is_busy(engine)) {
        engine->free_after_callback = true;
        return;
    }
    (void)fm__engine_enter(engine);
    close_engine(engine, -1);
    fm__engine_exit(engine);
    fm__engine_unref(engine);
}

void fm__engine_unref(fm_engine *engine)
{
    if (--engine->refs == 0)
        fm__engine_release(engine);
}
