/* SPDX-License-Identifier: MIT */
/*
 * One attempt of a job, from its start (start.c) to its outcome.
 *
 *   pump    STARTING -> RUNNING when the recorder says so; ring to inbox;
 *           END seen: RUNNING -> DRAINING
 *   finish  process gone: -> DRAINING, last bytes, reap, decide,
 *           -> SETTLED or BACKOFF
 *   time    what has lasted too long is asked to end, killed, parked
 */
#include <poll.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/line.h"
#include "engine/map.h"
#include "engine/template.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/sys.h"
#include "os/word.h"

/* A child that has said all it has to say leaves at once.  One that does not by
 * then is stopped, or has lied: it is killed, what it said counts. */
#define LEAVE_NS (100 * FM__NS_PER_MS)

/* Between two attempts to park a child. */
#define PARK_RETRY_NS (100 * FM__NS_PER_MS)

/* Bytes moved from one ring in one step. */
#define PUMP_MAX (8 * FM__RING_SIZE)

/* ---------------------------------------------------------- resources */

static void unwatch(fm_engine *engine, int fd)
{
    if (fd >= 0)
        fm__poller_remove(&engine->poller, fd);
}

void fm__attempt_close_output(fm_future *future, int i)
{
    struct fm__output *output = &future->outputs[i];

    if (output->read_fd < 0)
        return;
    unwatch(future->engine, output->read_fd);
    fm__output_forget_child_end(output);
    fm__fd_close(&output->read_fd);
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

    if (future->member)
        fm__member_note_line(future->member);
    future->opts.on_line(stream, line, len, future->opts.on_line_ud);
    fm__callback_end(future->engine, before);
}

static void pump_output(fm_future *future, int i, size_t most)
{
    if (future->outputs[i].read_fd >= 0 &&
        !fm__output_pump(&future->outputs[i], most, hear_line, future))
        fm__attempt_close_output(future, i);
}

static void pump_outputs(fm_future *future)
{
    for (int i = 0; i < 2; i++)
        pump_output(future, i, SIZE_MAX);
}

/* Nothing more is to come but the end of the process. */
static void begin_draining(fm_future *future, int64_t at)
{
    if (fm__future_enter(future, FM_DRAINING) &&
        future->stop != FM__STOP_FORCED && at < future->next_at)
        future->next_at = at;
}

void fm__attempt_expect_end(fm_future *future, int64_t now, int64_t ns)
{
    if (future->state == FM_QUEUED || future->state == FM_BACKOFF ||
        future->is_asked)
        (void)fm__future_cancel(future, 0);
    else
        begin_draining(future, fm__clock_after(now, ns));
}

static bool has_outputs(const fm_future *future)
{
    return future->outputs[0].read_fd >= 0 || future->outputs[1].read_fd >= 0;
}

/* A worker ends no item before what it printed was read.  So what lies in the
 * pipes now was printed in one item, and when the ring has been read after
 * this moment, it is the one that the worker is in.  What comes later may be
 * of the next. */
static void pump_member(fm_future *future)
{
    bool has_spoken = fm__member_has_spoken(future->member);
    size_t most[2] = {0, 0};

    for (int i = 0; i < 2; i++) {
        int n = 0;

        if (future->outputs[i].read_fd >= 0)
            n = fm__sys.count_unread(future->outputs[i].read_fd);
        most[i] = n < 0 || future->is_gone ? SIZE_MAX : (size_t)n;
    }
    fm__member_drain(future->member, PUMP_MAX);
    for (int i = 0; i < 2; i++) {
        if (most[i] > 0)
            pump_output(future, i, most[i]);
    }
    if (has_spoken)
        fm__member_was_heard(future->member);
}

static void pump_job(fm_future *future)
{
    size_t most = PUMP_MAX;

    if (future->duplex)
        most = fm__duplex_room(future, most);
    drain_ring(future, most);
    if (has_outputs(future))
        pump_outputs(future);
    if (future->duplex && future->duplex->n_pours > 0 && !future->is_gone)
        fm__duplex_pour(future);
}

/* A worker has closed its end. */
static bool is_at_end(int fd)
{
    struct pollfd poll = {.fd = fd, .events = POLLIN};

    return fd >= 0 && fm__sys.poll(&poll, 1, 0) > 0 &&
           (poll.revents & POLLIN) == 0;
}

void fm__attempt_hear(fm_future *future, int i, int64_t now)
{
    fm__attempt_pump(future, now);
    if (future->member && is_at_end(future->outputs[i].read_fd))
        fm__attempt_close_output(future, i);
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
    if (future->member) {
        pump_member(future);
    } else {
        pump_job(future);
    }
    if (future->inbox.ending == FM__ENDING_BROKEN)
        fm__future_stop(future, FM__STOP_FORCED, FM_PROTOCOL, now);
    else if (future->inbox.ending != FM__ENDING_OPEN)
        begin_draining(future, fm__clock_after(now, LEAVE_NS));
}

/* ------------------------------------------------------------- finish */

static bool wants_retry(const fm_future *future)
{
    return future->attempt <= future->opts.retries &&
           (future->opts.retry_on & FM_KIND_BIT(future->outcome.kind)) &&
           !future->engine->closed && !future->is_cancelled &&
           !(future->origin && fm__template_is_lost(future->origin));
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
    int64_t pause = fm__job_get_pause(&future->opts, future->attempt);

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
        fm__attempt_close_output(future, i);
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
    if (future->duplex)
        fm__duplex_close(future->duplex);
    fm__slot_give(future);
}

void fm__attempt_finish(fm_future *future, int64_t now)
{
    struct fm__exit_status status;
    bool group_empty = false;
    pid_t pid = future->pid.pid;

    if (future->is_asked)
        return;
    if (future->serves && fm__pid_is_gone(&future->pid))
        fm__template_hear_all(future->serves);
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

void fm__attempt_park(fm_engine *engine, struct fm__parked *parked)
{
    parked->next = engine->parked;
    engine->parked = parked;
    engine->stats.parked++;
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
        fm__template_lose_channel(parked->channel);
        fm__attempt_park(engine, parked);
    } else {
        forsake(future);
    }
    future->pid = (struct fm__pid)FM__PID_INIT;
    future->channel = NULL;
    if (future->duplex)
        fm__duplex_close(future->duplex);
    fm__slot_give(future);
    fm__future_settle(future);
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
            fm__attempt_end_start(future, now);
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
