/* SPDX-License-Identifier: MIT */
/* The future: its state machine, its stop request, its public face. */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/line.h"
#include "engine/map.h"
#include "engine/template.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/sys.h"

#define TO(state) (1u << (state))

#define GRACE_DEFAULT_NS FM__NS_PER_S
#define SAMPLE_WAIT_NS (10 * FM__NS_PER_MS)

/* How long after SIGKILL a child may take before it is parked. */
#define PARK_NS FM__NS_PER_S

#define CANCELLED_EARLY "the job was cancelled before it started"

/* One row per state: where it may go next.  SETTLED has none. */
static const unsigned next_states[] = {
    [FM_QUEUED] = TO(FM_STARTING) | TO(FM_BACKOFF) | TO(FM_SETTLED),
    [FM_STARTING] = TO(FM_RUNNING) | TO(FM_DRAINING),
    [FM_RUNNING] = TO(FM_DRAINING),
    [FM_DRAINING] = TO(FM_BACKOFF) | TO(FM_SETTLED),
    [FM_BACKOFF] = TO(FM_QUEUED) | TO(FM_SETTLED),
    [FM_SETTLED] = 0,
};

static const char *const stop_names[] = {
    [FM__STOP_NONE] = "stop none",
    [FM__STOP_SAMPLING] = "stop sampling",
    [FM__STOP_ASKED] = "stop asked",
    [FM__STOP_FORCED] = "stop forced",
};

/* The only writer of future->state.  Returns false, changing nothing, for a
 * move that is not in the table. */
bool fm__future_enter(fm_future *future, enum fm_state to)
{
    if (!(next_states[future->state] & TO(to)))
        return false;
    fm__trace(future, fm__state_name(future->state), fm__state_name(to));
    future->state = to;
    return true;
}

int64_t fm__future_grace(const fm_future *future)
{
    if (future->opts.grace_ns == 0)
        return GRACE_DEFAULT_NS;
    return future->opts.grace_ns > 0 ? future->opts.grace_ns : 0;
}

void fm__future_drop_ud(fm_future *future)
{
    void (*ud_free)(void *) = future->opts.ud_free;

    future->opts.ud_free = NULL;
    if (ud_free) {
        fm_engine *engine = future->engine;
        struct fm__entry before = fm__callback_begin(engine);

        ud_free(future->ud);
        fm__callback_end(engine, before);
    }
}

/* The outcome is decided and stored, the process reaped, the slot free: let go
 * of the job and queue its callback.  Never runs it here. */
void fm__future_settle(fm_future *future)
{
    fm_engine *engine = future->engine;

    if (!fm__future_enter(future, FM_SETTLED))
        return;
    fm__list_remove(future);
    fm__future_drop_ud(future);
    fm__fd_close(&future->socket);
    engine->stats.settled++;
    fm__list_append(&engine->due, future);
    if (future->member)
        fm__member_settled(future->member);
    if (future->serves)
        fm__template_ended(future->serves);
}

static void send(fm_future *future, int sig)
{
    int rc;

    /* Reaped: its number may be a stranger's by now. */
    if (future->is_gone)
        return;
    rc = fm__pid_signal_group(&future->pid, sig);
    if (rc < 0)
        rc = fm__pid_signal(&future->pid, sig);
    /* The host has given up the rights that it had at the fork.  The child has
     * them: it asked the kernel to kill it when nobody holds this. */
    if (rc == -EPERM && sig == SIGKILL)
        fm__lifeline_close(&future->channel->lifeline);
}

static void enter_stop(fm_future *future, enum fm__stop to, int64_t at)
{
    fm__trace(future, stop_names[future->stop], stop_names[to]);
    future->stop = to;
    future->next_at = at;
}

/* The only writer of future->stop: asks, then forces, never back.  The first
 * reason stays. */
void fm__future_stop(fm_future *future, enum fm__stop to, enum fm_kind kind,
                     int64_t now)
{
    if (future->starts_over && kind != FM_SPAWN) {
        future->starts_over = false; /* it is being killed already */
        future->stop_kind = kind;
    }
    if (future->stop >= to)
        return;
    if (future->stop == FM__STOP_NONE)
        future->stop_kind = kind;
    switch (to) {
    case FM__STOP_SAMPLING: {
        uint32_t sig = atomic_load(&future->channel->flight->sampler);

        /* Only what the recorder uses: the word is the child's. */
        if (sig == SIGPROF)
            (void)fm__pid_signal(&future->pid, SIGPROF);
        enter_stop(future, to, fm__clock_after(now, SAMPLE_WAIT_NS));
        break;
    }
    case FM__STOP_ASKED:
        send(future, SIGTERM);
        send(future, SIGCONT); /* a stopped process hears nothing else */
        enter_stop(future, to, fm__clock_after(now, fm__future_grace(future)));
        break;
    case FM__STOP_FORCED:
        send(future, SIGKILL);
        enter_stop(future, to, fm__clock_after(now, PARK_NS));
        break;
    case FM__STOP_NONE:
        break;
    }
}

fm_future *fm_future_ref(fm_future *future)
{
    future->refs++;
    return future;
}

void fm_future_unref(fm_future *future)
{
    fm_engine *engine;

    if (!future || --future->refs > 0)
        return;
    engine = future->engine;
    fm__duplex_free(future->duplex);
    fm__inbox_done(&future->inbox);
    fm__output_done(&future->outputs[0]);
    fm__output_done(&future->outputs[1]);
    fm__sys.free((char *)future->opts.name);
    fm__sys.free((int *)future->opts.keep_fds);
    fm__work_done(future);
    fm__future_free(engine, future);
    fm__engine_unref(engine);
}

enum fm_state fm_future_get_state(const fm_future *future)
{
    return future->state;
}

const struct fm_outcome *fm_future_get_outcome(const fm_future *future)
{
    return future->state == FM_SETTLED ? &future->outcome : NULL;
}

pid_t fm_future_get_pid(const fm_future *future)
{
    return future->is_gone ? 0 : future->pid.pid;
}

int fm_future_on_settle(fm_future *future, fm_settle_cb cb, void *ud)
{
    fm_engine *engine = future->engine;

    if (engine->closed || !fm__engine_is_ours(engine))
        return FM_ECLOSED;
    if (future->on_settle)
        return -EEXIST;
    if (!fm__engine_enter(engine))
        return FM_EBUSY;
    future->on_settle = cb;
    future->on_settle_ud = ud;
    if (future->state == FM_SETTLED && !future->list)
        fm__list_append(&engine->due, fm_future_ref(future));
    fm__engine_leave(engine);
    return 0;
}

/* Never started: settles without a process. */
static void cancel_early(fm_future *future)
{
    fm__outcome_set_plain(future, FM_CANCELLED, 0, CANCELLED_EARLY);
    fm__future_settle(future);
}

int fm__future_cancel(fm_future *future, int64_t grace_ns)
{
    int64_t now = fm__clock_now();
    enum fm__stop before = future->starts_over ? FM__STOP_NONE : future->stop;
    int64_t kill_at;

    if (future->state == FM_QUEUED || future->state == FM_BACKOFF) {
        cancel_early(future);
        return 1;
    }
    future->is_cancelled = true;
    if (future->is_asked) {
        fm__attempt_withdraw(future, FM_CANCELLED, CANCELLED_EARLY);
        return 1;
    }
    if (future->inbox.ending == FM__ENDING_ENDED)
        return 0; /* whole before we asked */
    if (grace_ns == 0) {
        fm__future_stop(future, FM__STOP_FORCED, FM_CANCELLED, now);
        return before == FM__STOP_NONE;
    }
    fm__future_stop(future, FM__STOP_ASKED, FM_CANCELLED, now);
    kill_at = fm__clock_after(now, grace_ns > 0 ? grace_ns
                                                : fm__future_grace(future));
    if (future->stop == FM__STOP_ASKED &&
        (before != FM__STOP_ASKED || kill_at < future->next_at))
        future->next_at = kill_at;
    return before == FM__STOP_NONE;
}

int fm_future_cancel(fm_future *future, int64_t grace_ns)
{
    fm_engine *engine = future->engine;
    int rc;

    if (future->state == FM_SETTLED)
        return 0;
    if (!fm__engine_is_ours(engine))
        return FM_ECLOSED;
    if (!fm__engine_enter(engine))
        return FM_EBUSY;
    rc = fm__future_cancel(future, grace_ns);
    fm__engine_leave(engine);
    return rc;
}
