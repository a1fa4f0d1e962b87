/* SPDX-License-Identifier: MIT */
/*
 * The start of an attempt: QUEUED -> STARTING, with slot, channel, output, fork
 * and pid, until the gate is open.
 *
 * Whatever fails between fork and gate ends like any other stop: SIGKILL and
 * the ordinary finish, so nothing is waited for on the spot.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/line.h"
#include "engine/map.h"
#include "engine/template.h"
#include "os/clock.h"
#include "os/exec.h"
#include "os/fds.h"
#include "os/proc.h"
#include "os/sys.h"
#include "process/child.h"
#include "process/lifeline.h"
#include "process/locks.h"

/* A child that has not begun its job by then hangs in its start-up. */
#define START_NS (5 * FM__NS_PER_S)

/* One that takes locks by then has found one that another thread held at the
 * fork, and another fork has better luck: it is tried soon at first, each time
 * later, as the machine may just be slow; and after so many times without
 * asking for locks that the job may not need. */
#define LOST_NS (5 * FM__NS_PER_MS)
#define LOST_MAX 12

static uint64_t tag_of(const fm_future *future, enum fm__tag kind)
{
    return (uint64_t)future->slot * 4 + (uint64_t)kind;
}

static int check_threads(fm_engine *engine)
{
    char text[160];
    unsigned n;

    if (engine->opts.on_threads == FM_THREADS_IGNORE)
        return 0;
    n = fm__proc_count_threads();
    if (n != 1 && engine->opts.on_threads == FM_THREADS_REFUSE)
        return FM_ETHREADS; /* also when it is not known */
    if (n <= 1)
        return 0;
    if (!engine->warned_threads) {
        engine->warned_threads = true;
        (void)snprintf(text, sizeof text,
                       "fork_map: this process has %u threads; a child that "
                       "needs a lock which one of them holds will hang until "
                       "its timeout",
                       n);
        fm__engine_warn(engine, text);
    }
    return 0;
}

static int check_policy(fm_future *future)
{
    fm_engine *engine = future->engine;

    future->spawn_step = "policy";
    if (fm__child_depth() >= engine->opts.max_depth)
        return FM_EDEPTH;
    if (future->origin || future->argv)
        return 0; /* the host is not copied */
    return engine->forbids_direct ? FM_EFORBIDDEN : check_threads(engine);
}

static int open_outputs(fm_future *future)
{
    int rc;

    future->spawn_step = "output";
    rc = fm__output_open(&future->outputs[0], future->opts.output, 1);
    if (rc == 0)
        rc = fm__output_open(&future->outputs[1], future->opts.output, 2);
    return rc;
}

/* Nothing was forked: give all back. */
static void abandon(fm_future *future, bool reusable)
{
    fm__attempt_close_output(future, 0);
    fm__attempt_close_output(future, 1);
    fm__channel_give(future->engine, future->channel, reusable);
    future->channel = NULL;
    if (future->duplex)
        fm__duplex_close(future->duplex);
}

/* Hooks are callbacks of the loop: they may not wait. */
static int run_hooks(fm_engine *engine, int (*hooks)(fm_engine *engine))
{
    struct fm__entry before = fm__callback_begin(engine);
    int rc = hooks(engine);

    fm__callback_end(engine, before);
    return rc;
}

static bool tries_locks(const fm_future *future)
{
    return future->lost_locks < LOST_MAX && fm__locks_are_suspect();
}

static int64_t lost_ns(const fm_future *future)
{
    return LOST_NS << future->lost_locks / 3;
}

/* A worker of a map shares a page with the others of the map; what is given
 * calls has a desk. */
static int fork_now(fm_future *future, const struct fm__launch *launch,
                    pid_t *ret_pid)
{
    int rc = future->member ? fm__member_prepare(future->member) : 0;

    if (rc == 0)
        rc = fm__child_fork(launch, ret_pid);
    if (future->member)
        fm__member_forked(future->member);
    if (future->duplex)
        fm__duplex_keep(future->duplex);
    return rc;
}

static int open_desk(fm_future *future, struct fm__launch *launch)
{
    struct fm__duplex *duplex = future->duplex;
    int rc = fm__duplex_open(duplex);

    if (rc < 0)
        return rc;
    launch->desk = duplex->desk;
    launch->desk_bell = duplex->bell;
    return 0;
}

static int fork_child(fm_future *future, pid_t *ret_pid)
{
    fm_engine *engine = future->engine;
    struct fm__launch launch;
    int rc;

    memset(&launch, 0, sizeof launch);
    launch.channel = future->channel;
    launch.bell = &engine->bell;
    launch.opts = &future->opts;
    launch.outputs = future->outputs;
    launch.fn = future->fn;
    launch.ud = future->ud;
    launch.child_hooks = fm__hooks_child;
    launch.hooks_ud = engine;
    launch.job = future->job;
    memcpy(launch.seed, future->seed, sizeof launch.seed);
    launch.attempt = future->attempt;
    launch.parent_group = fm__sys.getpgid(0);
    launch.null_fd = engine->null_fd;
    launch.ring_at_end = engine->blind;
    launch.tries_locks = tries_locks(future);
    launch.is_worker = future->member || future->duplex;
    launch.depth = fm__child_depth();
    launch.socket = future->socket;
    launch.desk_fd = -1;
    future->spawn_step = "desk";
    rc = future->duplex ? open_desk(future, &launch) : 0;
    if (rc < 0)
        return rc;
    future->spawn_step = "at_fork hook";
    rc = run_hooks(engine, fm__hooks_before);
    if (rc < 0)
        return rc;
    future->spawn_step = "fork";
    if (future->state == FM_SETTLED)
        rc = -ECANCELED; /* by a hook, or by who was warned */
    else
        rc = fork_now(future, &launch, ret_pid);
    if (rc < 0) {
        (void)run_hooks(engine, fm__hooks_parent);
        return rc;
    }
    return 0;
}

/* Make the child's end heard.  The child waits at its gate. */
static int watch_child(fm_future *future, pid_t pid)
{
    fm_engine *engine = future->engine;
    int rc;

    future->pid.pid = pid;
    future->pid.fd = -1;
    future->pid.has_siblings = future->serves != NULL;
    /* Here and in the child: whoever comes first, no signal to the group
     * can come before it exists.  The child may have ended: no error then. */
    (void)fm__sys.setpgid(pid, pid);
    /* Where this fails there still is the child's own lifeline. */
    (void)fm__lifeline_anchor(&future->channel->anchor, pid);
    for (int i = 0; i < 2; i++)
        fm__output_forget_child_end(&future->outputs[i]);
    future->spawn_step = "pidfd";
    rc = fm__pid_open(&future->pid, pid);
    if (rc == 0 && fm__pid_fd(&future->pid) >= 0) {
        future->spawn_step = "poller";
        rc = fm__poller_add(&engine->poller, fm__pid_fd(&future->pid),
                            FM__POLL_IN, tag_of(future, FM__TAG_PID));
        if (rc < 0) /* its end is asked for, not told */
            fm__fd_close(&future->pid.fd);
    }
    if (fm__pid_fd(&future->pid) < 0)
        engine->blind = true;
    for (int i = 0; rc == 0 && i < 2; i++) {
        if (future->outputs[i].read_fd >= 0)
            rc = fm__poller_add(
                &engine->poller, future->outputs[i].read_fd, FM__POLL_IN,
                tag_of(future, i == 0 ? FM__TAG_STDOUT : FM__TAG_STDERR));
    }
    if (rc < 0 || future->origin || future->argv)
        return rc;
    future->spawn_step = "at_fork hook";
    return run_hooks(engine, fm__hooks_parent);
}

void fm__attempt_give_back(fm_future *future, bool reusable)
{
    fm__slot_give(future);
    abandon(future, reusable);
}

/* The child is there, at its gate if it has one. */
void fm__attempt_launched(fm_future *future, pid_t pid)
{
    int64_t now = fm__clock_now();
    int rc;

    fm__fd_close(&future->socket);
    future->engine->stats.spawned++;
    future->started_at = now;
    if (future->opts.timeout_ns > 0)
        future->timeout_at = fm__clock_after(now, future->opts.timeout_ns);
    future->next_at =
        fm__clock_after(now, tries_locks(future) ? lost_ns(future) : START_NS);
    (void)fm__future_enter(future, FM_STARTING);
    rc = watch_child(future, pid);
    if (rc < 0) {
        future->spawn_rc = rc;
        fm__flight_set_gate(future->channel->flight, FM__GATE_REFUSED);
        fm__future_stop(future, FM__STOP_FORCED, FM_SPAWN, now);
    } else {
        fm__flight_set_gate(future->channel->flight, FM__GATE_OPEN);
    }
}

/* STARTING, and over without a process. */
static void end_without_process(fm_future *future)
{
    fm__attempt_give_back(future, false);
    (void)fm__future_enter(future, FM_DRAINING);
}

void fm__attempt_unmade(fm_future *future, enum fm_kind kind, int rc,
                        const char *message)
{
    end_without_process(future);
    fm__outcome_set_plain(future, kind, rc,
                          message ? message : future->spawn_step);
    fm__attempt_conclude(future, fm__clock_now());
}

void fm__attempt_withdraw(fm_future *future, enum fm_kind kind,
                          const char *message)
{
    fm__template_forsake(future);
    end_without_process(future);
    fm__outcome_set_plain(future, kind, 0, message);
    fm__future_settle(future);
}

void fm__attempt_refused(fm_future *future, const struct fm_outcome *outcome)
{
    if (future->state == FM_STARTING)
        (void)fm__future_enter(future, FM_DRAINING);
    future->outcome = *outcome;
    future->outcome.name = future->opts.name;
    future->outcome.attempt = future->attempt;
    fm__future_settle(future);
}

/* A program runs no code of ours before it executes: its job has begun, and the
 * lifeline is armed from here. */
static int exec_child(fm_future *future, pid_t *ret_pid)
{
    struct fm__exec exec = {.argv = future->argv,
                            .fd = future->socket,
                            .null_fd = future->engine->null_fd};
    pid_t pid;

    future->spawn_step = future->argv[0];
    pid = fm__exec_start(&exec);
    if (pid < 0)
        return pid;
    (void)fm__flight_enter(future->channel->flight, FM__STAGE_START,
                           FM__STAGE_RUN);
    (void)fm__lifeline_anchor(&future->channel->lifeline, pid);
    *ret_pid = pid;
    return 0;
}

static int make_child(fm_future *future, pid_t *ret_pid)
{
    int rc;

    if (future->origin) {
        future->spawn_step = "template";
        return fm__template_ask(future);
    }
    if (future->argv)
        return exec_child(future, ret_pid);
    if (future->socket >= 0)
        fm__fd_keep(future->socket, true);
    rc = fork_child(future, ret_pid);
    if (future->socket >= 0)
        fm__fd_keep(future->socket, false);
    return rc;
}

static void begin_attempt(fm_future *future)
{
    future->attempt++;
    future->stop = FM__STOP_NONE;
    future->stop_kind = FM_VALUE;
    future->is_gone = false;
    future->is_withheld = false;
    future->starts_over = false;
    future->spawn_rc = 0;
    future->next_at = FM__NEVER;
    future->timeout_at = FM__NEVER;
    fm__inbox_done(&future->inbox);
    fm__inbox_init(&future->inbox, future->job, future->opts.limits.result);
    future->inbox.on_aside = future->on_aside;
    future->inbox.aside_ud = future->aside_ud;
    if (future->duplex)
        fm__duplex_attach(future);
    fm__output_done(&future->outputs[0]);
    fm__output_done(&future->outputs[1]);
}

/* Returns 0 when a child was made, whatever becomes of it; a negative code
 * when none was, with everything given back. */
int fm__attempt_start(fm_future *future)
{
    fm_engine *engine = future->engine;
    pid_t pid = 0;
    int rc;

    begin_attempt(future);
    rc = check_policy(future);
    if (rc == 0)
        rc = open_outputs(future);
    if (rc == 0) {
        future->spawn_step = "channel";
        rc = future->origin
                 ? fm__template_take_channel(future->origin, &future->channel)
                 : fm__channel_take(engine, &future->channel);
    }
    if (rc == 0)
        rc = fm__slot_take(engine, future);
    if (rc < 0) {
        abandon(future, true);
        return rc;
    }
    rc = make_child(future, &pid);
    if (rc < 0) {
        fm__attempt_give_back(future, true);
        return rc;
    }
    if (future->origin) {
        (void)fm__future_enter(future, FM_STARTING);
        return 0; /* its pid comes later */
    }
    fm__attempt_launched(future, pid);
    return 0;
}

/* The child should have begun by now.  It is condemned before it is killed, so
 * that no job begins twice. */
void fm__attempt_end_start(fm_future *future, int64_t now)
{
    struct fm__flight *flight = future->channel->flight;
    int64_t end = fm__clock_after(future->started_at, START_NS);

    if (fm__flight_condemn(flight, FM__STAGE_TRYING)) {
        future->lost_locks++;
        future->starts_over = true;
    } else if (now < end) {
        future->next_at = fm__clock_after(now, LOST_NS);
        return;
    } else if (!fm__flight_condemn(flight, FM__STAGE_START)) {
        future->next_at = FM__NEVER; /* it has begun just now */
        return;
    }
    future->spawn_rc = -ETIMEDOUT;
    future->spawn_step = "start (deadlocked?)";
    fm__future_stop(future, FM__STOP_FORCED, FM_SPAWN, now);
}
