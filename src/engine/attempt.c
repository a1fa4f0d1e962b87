/* SPDX-License-Identifier: MIT */
/*
 * One attempt of a job: a child from before its fork to its outcome.
 *
 *   start   QUEUED -> STARTING, slot, channel, output, fork, pid, gate open
 *   pump    STARTING -> RUNNING when the recorder says so; ring to inbox;
 *           END seen: RUNNING -> DRAINING
 *   finish  process gone: -> DRAINING, last bytes, reap, decide,
 *           -> SETTLED or BACKOFF
 *
 * Whatever fails between fork and gate ends like any other stop: SIGKILL and
 * the ordinary finish, so nothing is waited for on the spot.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/map.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/proc.h"
#include "os/sys.h"
#include "os/word.h"
#include "process/child.h"
#include "process/locks.h"

/* A child that has not begun its job by then hangs in its start-up. */
#define START_NS (5 * FM__NS_PER_S)

/* One that takes locks by then has found one that another thread held at the
 * fork, and another fork has better luck: it is tried soon at first, each time
 * later, as the machine may just be slow; and after so many times without
 * asking for locks that the job may not need. */
#define LOST_NS (5 * FM__NS_PER_MS)
#define LOST_MAX 12

/* A child that has said all it has to say leaves at once.  One that does not by
 * then is stopped, or has lied: it is killed, what it said counts. */
#define LEAVE_NS (100 * FM__NS_PER_MS)

/* Between two attempts to park a child. */
#define PARK_RETRY_NS (100 * FM__NS_PER_MS)

/* Bytes moved from one ring in one step. */
#define PUMP_MAX (8 * FM__RING_SIZE)

/* ---------------------------------------------------------- resources */

static void free_slot(fm_future *future)
{
    fm_engine *engine = future->engine;

    engine->slots[future->slot] = NULL;
    engine->n_running--;
}

static void unwatch(fm_engine *engine, int fd)
{
    if (fd >= 0)
        fm__poller_remove(&engine->poller, fd);
}

static void close_output(fm_future *future, int i)
{
    struct fm__output *output = &future->outputs[i];

    if (output->read_fd < 0)
        return;
    unwatch(future->engine, output->read_fd);
    fm__output_forget_child_end(output);
    fm__fd_close(&output->read_fd);
}

static uint64_t tag_of(const fm_future *future, enum fm__tag kind)
{
    return (uint64_t)future->slot * 4 + (uint64_t)kind;
}

/* -------------------------------------------------------------- start */

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
    if (engine->forbids_direct)
        return FM_EFORBIDDEN;
    if (fm__child_depth() >= engine->opts.max_depth)
        return FM_EDEPTH;
    return check_threads(engine);
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
static void abandon(fm_future *future)
{
    close_output(future, 0);
    close_output(future, 1);
    fm__channel_give(future->engine, future->channel, true);
    future->channel = NULL;
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

/* A worker of a map shares a page with the others of the map. */
static int fork_now(fm_future *future, const struct fm__launch *launch,
                    pid_t *ret_pid)
{
    int rc = future->member ? fm__member_prepare(future->member) : 0;

    if (rc == 0)
        rc = fm__child_fork(launch, ret_pid);
    if (future->member)
        fm__member_forked(future->member);
    return rc;
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
    launch.parent_group = fm__sys.getpgrp();
    launch.null_fd = engine->null_fd;
    launch.ring_at_end = engine->blind;
    launch.tries_locks = tries_locks(future);
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
    /* Here and in the child: whoever comes first, no signal to the group
     * can come before it exists.  The child may have ended: no error then. */
    (void)fm__sys.setpgid(pid, pid);
    for (int i = 0; i < 2; i++)
        fm__output_forget_child_end(&future->outputs[i]);
    future->spawn_step = "pidfd";
    rc = fm__pid_open(&future->pid, pid);
    if (rc == 0 && fm__pid_fd(&future->pid) >= 0) {
        future->spawn_step = "poller";
        rc = fm__poller_add(&engine->poller, fm__pid_fd(&future->pid),
                            tag_of(future, FM__TAG_PID));
        if (rc < 0) /* its end is asked for, not told */
            fm__fd_close(&future->pid.fd);
    }
    if (fm__pid_fd(&future->pid) < 0)
        engine->blind = true;
    for (int i = 0; rc == 0 && i < 2; i++) {
        if (future->outputs[i].read_fd >= 0)
            rc = fm__poller_add(
                &engine->poller, future->outputs[i].read_fd,
                tag_of(future, i == 0 ? FM__TAG_STDOUT : FM__TAG_STDERR));
    }
    if (rc < 0)
        return rc;
    future->spawn_step = "at_fork hook";
    return run_hooks(engine, fm__hooks_parent);
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
    fm__output_done(&future->outputs[0]);
    fm__output_done(&future->outputs[1]);
}

/* Returns 0 when a child was made, whatever becomes of it; a negative code
 * when none was, with everything given back. */
int fm__attempt_start(fm_future *future)
{
    fm_engine *engine = future->engine;
    int64_t now;
    pid_t pid;
    int rc;

    begin_attempt(future);
    rc = check_policy(future);
    if (rc == 0)
        rc = open_outputs(future);
    if (rc == 0) {
        future->spawn_step = "channel";
        rc = fm__channel_take(engine, &future->channel);
    }
    if (rc == 0)
        rc = fm__slot_take(engine, future);
    if (rc < 0) {
        abandon(future);
        return rc;
    }
    rc = fork_child(future, &pid);
    if (rc < 0) {
        free_slot(future);
        abandon(future);
        return rc;
    }
    now = fm__clock_now();
    engine->stats.spawned++;
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
    return 0;
}

/* --------------------------------------------------------------- pump */

/* Take what the ring holds, at most about `most` bytes.  What is not ours ends
 * the inbox as broken. */
static void drain_ring(fm_future *future, size_t most)
{
    struct fm__ring *ring = &future->channel->ring;
    size_t taken = 0;
    int rc = 0;

    while (rc == 0 && taken < most && future->inbox.ending == FM__ENDING_OPEN) {
        const unsigned char *data;
        long n = fm__ring_peek(ring, &data);

        if (n == 0)
            break;
        if (n < 0) {
            future->inbox.ending = FM__ENDING_BROKEN;
            break;
        }
        rc = fm__inbox_feed(&future->inbox, data, (size_t)n);
        if (fm__ring_consume(ring, (size_t)n))
            fm__word_wake(&ring->shared->room);
        taken += (size_t)n;
    }
}

static void hear_line(int stream, const char *line, size_t len, void *ud)
{
    fm_future *future = ud;
    struct fm__entry before = fm__callback_begin(future->engine);

    future->opts.on_line(stream, line, len, future->opts.on_line_ud);
    fm__callback_end(future->engine, before);
}

static void pump_outputs(fm_future *future)
{
    for (int i = 0; i < 2; i++) {
        if (future->outputs[i].read_fd >= 0 &&
            !fm__output_pump(&future->outputs[i], hear_line, future))
            close_output(future, i);
    }
}

/* Nothing more is to come but the end of the process. */
static void begin_draining(fm_future *future, int64_t now)
{
    int64_t at = fm__clock_after(now, LEAVE_NS);

    if (fm__future_enter(future, FM_DRAINING) &&
        future->stop != FM__STOP_FORCED && at < future->next_at)
        future->next_at = at;
}

void fm__attempt_pump(fm_future *future, int64_t now)
{
    struct fm__flight *flight = future->channel->flight;

    if (future->state == FM_STARTING && fm__flight_has_begun(flight)) {
        (void)fm__future_enter(future, FM_RUNNING);
        future->lost_locks = 0;
        if (future->stop == FM__STOP_NONE)
            future->next_at = FM__NEVER;
    }
    if (future->member)
        fm__member_drain(future->member, PUMP_MAX);
    else
        drain_ring(future, PUMP_MAX);
    if (future->outputs[0].read_fd >= 0 || future->outputs[1].read_fd >= 0)
        pump_outputs(future);
    if (future->inbox.ending == FM__ENDING_BROKEN)
        fm__future_stop(future, FM__STOP_FORCED, FM_PROTOCOL, now);
    else if (future->inbox.ending != FM__ENDING_OPEN)
        begin_draining(future, now);
}

/* ------------------------------------------------------------- finish */

static bool wants_retry(const fm_future *future)
{
    return future->attempt <= future->opts.retries &&
           (future->opts.retry_on & FM_KIND_BIT(future->outcome.kind)) &&
           !future->engine->closed && !future->is_cancelled;
}

static void try_again_at(fm_future *future, int64_t at)
{
    (void)fm__future_enter(future, FM_BACKOFF);
    future->next_at = at;
    fm__list_remove(future);
    fm__list_append(&future->engine->waiting, future);
}

/* Pauses double with each attempt. */
static void back_off(fm_future *future, int64_t now)
{
    int64_t pause = future->opts.backoff_ns;

    for (unsigned i = 1; i < future->attempt && pause < FM__NEVER / 2; i++)
        pause *= 2;
    try_again_at(future, fm__clock_after(now, pause));
}

/* The job has not begun: it is the same attempt. */
static void start_over(fm_future *future, int64_t now)
{
    future->starts_over = false;
    future->attempt--;
    try_again_at(future, now);
}

void fm__attempt_conclude(fm_future *future, int64_t now)
{
    if (future->starts_over)
        start_over(future, now);
    else if (wants_retry(future))
        back_off(future, now);
    else
        fm__future_settle(future);
}

static void finish_outputs(fm_future *future)
{
    pump_outputs(future);
    for (int i = 0; i < 2; i++) {
        close_output(future, i);
        fm__output_finish(&future->outputs[i], hear_line, future);
        fm__output_get(&future->outputs[i], &future->outcome.output[i]);
    }
}

static void release_child(fm_future *future, bool group_empty)
{
    fm_engine *engine = future->engine;

    unwatch(engine, fm__pid_fd(&future->pid));
    fm__pid_close(&future->pid);
    fm__channel_give(engine, future->channel, group_empty);
    future->channel = NULL;
    free_slot(future);
}

void fm__attempt_finish(fm_future *future, int64_t now)
{
    struct fm__exit_status status;
    bool group_empty = false;
    pid_t pid = future->pid.pid;

    if (fm__pid_reap(&future->pid, &status, &group_empty) == 0)
        return;
    future->is_gone = true;
    fm__attempt_pump(future, now);
    if (future->state == FM_STARTING)
        (void)fm__future_enter(future, FM_RUNNING);
    (void)fm__future_enter(future, FM_DRAINING);
    memset(&future->outcome, 0, sizeof future->outcome);
    future->outcome.pid = pid;
    future->outcome.usage.wall_ns = now - future->started_at;
    fm__outcome_decide(future, &status);
    finish_outputs(future);
    release_child(future, group_empty);
    fm__attempt_conclude(future, now);
}

/* --------------------------------------------------------------- time */

int64_t fm__attempt_next_time(const fm_future *future)
{
    int64_t at = future->next_at;

    if (future->stop == FM__STOP_NONE && future->timeout_at < at)
        at = future->timeout_at;
    return at;
}

/* The same without the memory for that, when the engine closes and could not
 * look after the process anyway: with its channel the lifeline goes, which
 * kills whatever can be killed. */
static void forsake(fm_future *future)
{
    fm__pid_close(&future->pid);
    fm__channel_give(future->engine, future->channel, false);
}

/* SIGKILL did not end it: it hangs in the kernel.  Its future settles now, the
 * process is looked after until it can be reaped. */
static void park(fm_future *future, int64_t now)
{
    fm_engine *engine = future->engine;
    struct fm__parked *parked = fm__sys.calloc(1, sizeof *parked);
    struct fm__exit_status status;

    future->next_at = fm__clock_after(now, PARK_RETRY_NS);
    if (!parked && !engine->closed)
        return; /* tried again soon */
    fm__engine_warn(engine, "fork_map: a child does not end although it was "
                            "killed; it is left to itself");
    memset(&status, 0, sizeof status);
    (void)fm__future_enter(future, FM_DRAINING);
    memset(&future->outcome, 0, sizeof future->outcome);
    future->outcome.pid = future->pid.pid;
    future->outcome.usage.wall_ns = now - future->started_at;
    fm__outcome_decide(future, &status);
    finish_outputs(future);
    unwatch(engine, fm__pid_fd(&future->pid));
    if (parked) {
        parked->pid = future->pid;
        parked->channel = future->channel;
        parked->next = engine->parked;
        engine->parked = parked;
        engine->stats.parked++;
    } else {
        forsake(future);
    }
    future->pid = (struct fm__pid)FM__PID_INIT;
    future->channel = NULL;
    free_slot(future);
    fm__future_settle(future);
}

/* The child should have begun by now.  It is condemned before it is killed, so
 * that no job begins twice. */
static void end_start(fm_future *future, int64_t now)
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

void fm__attempt_check_time(fm_future *future, int64_t now)
{
    if (now < fm__attempt_next_time(future))
        return;
    if (future->state == FM_DRAINING && future->stop != FM__STOP_FORCED) {
        fm__future_stop(future, FM__STOP_FORCED, FM_PROTOCOL, now);
        return;
    }
    switch (future->stop) {
    case FM__STOP_NONE:
        /* next_at is that of the start, and NEVER once the job runs. */
        if (now >= future->next_at)
            end_start(future, now);
        else
            fm__future_stop(future, FM__STOP_SAMPLING, FM_TIMEOUT, now);
        break;
    case FM__STOP_SAMPLING:
        fm__future_stop(future, FM__STOP_ASKED, FM_TIMEOUT, now);
        break;
    case FM__STOP_ASKED:
        fm__future_stop(future, FM__STOP_FORCED, future->stop_kind, now);
        break;
    case FM__STOP_FORCED:
        park(future, now);
        break;
    }
}

void fm__attempt_reap_parked(fm_engine *engine, bool give_up)
{
    struct fm__parked **link = &engine->parked;

    while (*link) {
        struct fm__parked *parked = *link;
        struct fm__exit_status status;
        bool group_empty;

        if (fm__pid_reap(&parked->pid, &status, &group_empty) == 0 &&
            !give_up) {
            link = &parked->next;
            continue;
        }
        *link = parked->next;
        engine->stats.parked--;
        fm__pid_close(&parked->pid);
        fm__channel_give(engine, parked->channel, false);
        fm__sys.free(parked);
    }
}
