/* SPDX-License-Identifier: MIT */
/*
 * What an ended attempt amounts to.  Decided once, in this order:
 *
 *   1. END was whole: what the child said (value, error, encode, limit).
 *   2. The child could not start, or left by exit().
 *   3. We ended it: why.
 *   4. The kernel ended it: a limit of the job, or a signal.
 *   5. It sent bytes that are not ours, or ended within a frame.
 *   6. Its exit status.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/map.h"
#include "os/clock.h"
#include "os/pid.h"
#include "os/signals.h"
#include "process/limits.h"

static void set(fm_future *future, enum fm_kind kind, const char *message)
{
    future->outcome.kind = kind;
    future->outcome.message = message;
}

#define SAY(future, ...)                                                       \
    (void)snprintf((future)->message, sizeof(future)->message, __VA_ARGS__)

static void set_data(fm_future *future)
{
    const struct fm__inbox *inbox = &future->inbox;

    future->outcome.data = inbox->data;
    future->outcome.len = inbox->len;
    future->outcome.format = inbox->format;
}

/* The child's own word, END included. */
static void decide_said(fm_future *future)
{
    struct fm_outcome *outcome = &future->outcome;
    const struct fm__inbox *inbox = &future->inbox;

    switch (inbox->verdict) {
    case FM__VERDICT_NONE:
        outcome->kind = FM_VALUE;
        set_data(future);
        break;
    case FM__VERDICT_FAILED:
        set(future, FM_ERROR, inbox->first);
        outcome->traceback = inbox->second[0] ? inbox->second : NULL;
        set_data(future);
        break;
    case FM__VERDICT_REFUSED:
        set(future, FM_ENCODE, inbox->second);
        outcome->path = inbox->first;
        break;
    case FM__VERDICT_EXCEEDED:
        set(future, FM_LIMIT, inbox->second);
        outcome->limit = inbox->first;
        break;
    }
}

static void decide_spawn(fm_future *future, int rc, const char *step)
{
    future->outcome.error_code = rc;
    SAY(future, "the child could not be started: %s: %s (%s)", step,
        fm_strerror(rc), fm_err_name(rc));
    set(future, FM_SPAWN, future->message);
}

static void decide_exit(fm_future *future, int code)
{
    if (code < 0) {
        future->outcome.exit_code = -1;
        set(future, FM_NO_RESULT,
            "the child called exit() and gave no result; its C library does "
            "not tell the code");
        return;
    }
    future->outcome.exit_code = code;
    if (code == 0) {
        set(future, FM_NO_RESULT,
            "the child ended with code 0 and gave no result");
        return;
    }
    SAY(future, "the child exited with code %d before its result was whole",
        code);
    set(future, FM_EXIT, future->message);
}

static void decide_limit(fm_future *future, const char *limit)
{
    future->outcome.limit = limit;
    SAY(future, "the child exceeded limits.%s", limit);
    set(future, FM_LIMIT, future->message);
}

/* That of a worker's items is the map's affair. */
static int64_t timeout_of(const fm_future *future)
{
    return future->member ? future->member->map->opts.job.timeout_ns
                          : future->opts.timeout_ns;
}

static void decide_stopped(fm_future *future)
{
    switch (future->stop_kind) {
    case FM_TIMEOUT:
        SAY(future, "the %s took longer than its timeout of %.6g s",
            future->member ? "item" : "call", (double)timeout_of(future) / 1e9);
        set(future, FM_TIMEOUT, future->message);
        break;
    case FM_CANCELLED:
        set(future, FM_CANCELLED, "the job was cancelled");
        break;
    case FM_CLOSED:
        set(future, FM_CLOSED, "the engine was closed");
        break;
    default: /* FM_SPAWN; bytes that are wrong are an ending of their own */
        decide_spawn(future, future->spawn_rc, future->spawn_step);
        break;
    }
}

static void decide_signal(fm_future *future, int sig)
{
    const char *name = fm__signal_name(sig);

    future->outcome.signal = sig;
    if (name)
        SAY(future, "the child was ended by signal %d (%s)", sig, name);
    else
        SAY(future, "the child was ended by signal %d", sig);
    set(future, FM_SIGNAL, future->message);
}

/* A part of the result came, and not its end. */
static bool is_cut_short(const struct fm__inbox *inbox)
{
    return inbox->len > 0 || !fm__inbox_is_between(inbox);
}

/* A child of a template that could not have its channel: its code is errno. */
static bool has_no_channel(const fm_future *future,
                           const struct fm__exit_status *status)
{
    return future->origin && status->known && status->signal == 0 &&
           status->exit_code > 0 &&
           !fm__flight_has_begun(future->channel->flight);
}

static void decide_by_status(fm_future *future,
                             const struct fm__exit_status *status)
{
    /* What a worker has used is that of many items, or calls. */
    int64_t used =
        future->member || future->duplex ? 0 : status->user_ns + status->sys_ns;
    const char *limit =
        fm__limits_name(&future->opts.limits, status->signal, used);

    if (limit) {
        decide_limit(future, limit);
        future->outcome.signal = status->signal;
    } else if (status->signal != 0) {
        decide_signal(future, status->signal);
    } else if (!status->known) {
        set(future, FM_NO_RESULT,
            "the child ended without a result; its status was taken by the "
            "host and the kernel cannot tell it");
    } else if (has_no_channel(future, status)) {
        decide_spawn(future, -status->exit_code, "channel");
    } else if (status->exit_code == 0 && is_cut_short(&future->inbox)) {
        set(future, FM_PROTOCOL, "the child ended in the middle of its result");
    } else {
        decide_exit(future, status->exit_code);
    }
}

static void decide_broken(fm_future *future,
                          const struct fm__exit_status *status)
{
    if (future->inbox.over_limit) {
        decide_limit(future, "result");
        return;
    }
    if (future->inbox.no_memory) { /* the host's own limit, not the child's */
        future->outcome.limit = "result";
        set(future, FM_LIMIT, "not enough memory to take the result");
        return;
    }
    if (status->known)
        future->outcome.signal = status->signal;
    set(future, FM_PROTOCOL, "the child sent bytes that are not a result");
}

static void fill_last(fm_future *future)
{
    struct fm_last *last = &future->outcome.last;

    last->known = true;
    last->elapsed_ns = future->outcome.usage.wall_ns;
    last->max_rss = future->outcome.usage.max_rss;
    fm__flight_read(future->channel->flight, last->where);
}

void fm__outcome_decide(fm_future *future, const struct fm__exit_status *status)
{
    struct fm_outcome *outcome = &future->outcome;

    outcome->name = future->opts.name;
    outcome->attempt = future->attempt;
    outcome->exit_code =
        status->known && status->signal == 0 ? status->exit_code : -1;
    outcome->usage.user_ns = status->user_ns;
    outcome->usage.sys_ns = status->sys_ns;
    outcome->usage.max_rss = status->max_rss;
    fill_last(future);
    switch (future->inbox.ending) {
    case FM__ENDING_ENDED:
        decide_said(future);
        return;
    case FM__ENDING_NOT_STARTED:
        decide_spawn(future, future->inbox.code, future->inbox.first);
        return;
    case FM__ENDING_EXITED:
        decide_exit(future, future->inbox.code == FM__CODE_UNKNOWN
                                ? -1
                                : future->inbox.code & 0xff);
        return;
    case FM__ENDING_BROKEN:
        decide_broken(future, status);
        return;
    case FM__ENDING_OPEN:
        break;
    }
    if (future->stop != FM__STOP_NONE)
        decide_stopped(future);
    else
        decide_by_status(future, status);
}

void fm__outcome_set_plain(fm_future *future, enum fm_kind kind, int rc,
                           const char *message)
{
    memset(&future->outcome, 0, sizeof future->outcome);
    future->outcome.name = future->opts.name;
    future->outcome.attempt = future->attempt;
    future->outcome.exit_code = -1;
    if (kind == FM_SPAWN)
        decide_spawn(future, rc, message);
    else
        set(future, kind, message);
}
