/* SPDX-License-Identifier: MIT */
/* Attempts after the first: when they come, and what keeps them from coming. */
#include "jobs.h"
#include "told_clock.h"

#include <time.h>

#include "engine/engine.h"
#include "os/sys.h"

#define HOUR (3600000 * MS)

/* ------------------------------------------------------------ helpers */

static int crash(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    return raise(SIGKILL);
}

static void step_until(fm_engine *engine, const fm_future *future,
                       enum fm_state state)
{
    while (fm_future_get_state(future) != state) {
        int rc = fm_engine_step(engine, MS);

        CHECK(rc >= 0 || rc == -EINTR);
    }
}

static uint64_t count_spawned(const fm_engine *engine)
{
    struct fm_engine_stats stats;

    fm_engine_get_stats(engine, &stats);
    return stats.spawned;
}

/* Exactly one attempt was made, and came to that. */
static void was_the_last(fm_engine *engine, fm_future *future,
                         enum fm_kind kind)
{
    const struct fm_outcome *outcome = wait_for(engine, future);

    CHECK_STR(fm_kind_name(outcome->kind), fm_kind_name(kind));
    CHECK_INT(outcome->attempt, 1);
    CHECK_INT(count_spawned(engine), 1);
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* ------------------------------------------------------------- pauses */

/* How long an attempt that has just failed pauses, to the hour. */
static void pauses_for(fm_engine *engine, const fm_future *future, long hours)
{
    int64_t pause;

    CHECK(fm_engine_step(engine, 0) >= 0); /* out of the pause before */
    step_until(engine, future, FM_BACKOFF);
    pause = fm_engine_timeout(engine);
    CHECK(pause <= hours * HOUR);
    CHECK(pause > hours * HOUR - HOUR / 2);
}

static void pauses_double(fm_engine *engine, struct fm_job_opts *opts)
{
    fm_future *future;

    fm__sys.clock_gettime = told_clock;
    opts->retries = 3;
    opts->backoff_ns = HOUR;
    future = spawn(engine, opts, crash, NULL);
    for (long hours = 1; hours <= 4; hours *= 2) {
        pauses_for(engine, future, hours);
        *ahead_ns += hours * HOUR;
    }
    CHECK_INT(wait_for(engine, future)->attempt, 4);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(the_pause_before_an_attempt_is_twice_the_one_before)
{
    struct fm_job_opts opts = {.name = "again"};

    pauses_double(new_engine(), &opts);
}

TEST(the_pauses_of_a_job_that_cannot_be_forked_double_too)
{
    struct fm_job_opts opts = {.retry_on = FM_KIND_BIT(FM_SPAWN)};
    fm_engine *engine = new_engine();

    fm_engine_forbid_direct(engine);
    pauses_double(engine, &opts);
}

TEST(a_pause_that_no_clock_can_count_does_not_end)
{
    struct fm_job_opts opts = {.retries = 9, .backoff_ns = INT64_MAX / 2 + 1};
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, &opts, crash, NULL);

    fm__sys.clock_gettime = told_clock;
    step_until(engine, future, FM_BACKOFF);
    *ahead_ns = opts.backoff_ns + 1000 * MS;
    CHECK(fm_engine_step(engine, 0) >= 0);
    step_until(engine, future, FM_BACKOFF);
    CHECK_INT(count_spawned(engine), 2);
    CHECK_INT(fm_engine_timeout(engine), -1);
    CHECK_INT(fm_future_cancel(future, 0), 1);
    CHECK_INT(wait_for(engine, future)->kind, FM_CANCELLED);
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* ------------------------------------------------------- what stops them */

TEST(a_cancel_in_the_pause_is_the_end_of_all_attempts)
{
    struct fm_job_opts opts = {.retries = 9, .backoff_ns = HOUR};
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, &opts, crash, NULL);

    step_until(engine, future, FM_BACKOFF);
    CHECK_INT(fm_future_cancel(future, -1), 1);
    was_the_last(engine, future, FM_CANCELLED);
}

TEST(a_close_in_the_pause_is_the_end_of_all_attempts)
{
    struct fm_job_opts opts = {.retries = 9, .backoff_ns = HOUR};
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, &opts, crash, NULL);

    step_until(engine, future, FM_BACKOFF);
    CHECK_INT(fm_engine_close(engine, -1), 0);
    was_the_last(engine, future, FM_CLOSED);
}

/* What it leaves with when it is asked to end would be tried again. */
static int exit_when_asked(fm_child *child, void *ud)
{
    sigset_t term;
    int sig;

    (void)ud;
    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &term, NULL);
    fm_child_note(child, "ready");
    (void)sigwait(&term, &sig);
    fm_child_exit(child, 3);
}

static fm_future *spawn_who_exits(fm_engine *engine)
{
    struct fm_job_opts opts = {.retries = 9, .grace_ns = HOUR};
    fm_future *future = spawn(engine, &opts, exit_when_asked, NULL);
    const struct timespec nap = {0, 100000};

    step_until(engine, future, FM_RUNNING);
    while (atomic_load(&future->channel->flight->notes) == 0)
        (void)nanosleep(&nap, NULL);
    return future;
}

TEST(a_job_that_exits_when_it_is_cancelled_is_not_tried_again)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn_who_exits(engine);

    CHECK_INT(fm_future_cancel(future, -1), 1);
    was_the_last(engine, future, FM_EXIT);
}

TEST(a_job_that_exits_when_its_engine_closes_is_not_tried_again)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn_who_exits(engine);

    CHECK_INT(fm_engine_close(engine, -1), 0);
    was_the_last(engine, future, FM_EXIT);
}

static int ignore_sigterm(fm_child *child, void *ud)
{
    (void)signal(SIGTERM, SIG_IGN);
    return hang(child, ud);
}

TEST(a_job_that_is_cancelled_in_the_grace_of_its_timeout_is_not_tried_again)
{
    struct fm_job_opts opts = {.retries = 9,
                               .retry_on = FM_KIND_BIT(FM_TIMEOUT),
                               .timeout_ns = 20 * MS,
                               .grace_ns = HOUR};
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, &opts, ignore_sigterm, NULL);
    const struct timespec past = {0, 100 * MS};

    step_until(engine, future, FM_RUNNING);
    (void)nanosleep(&past, NULL);
    /* The first step asks it where it is, the second asks it to end. */
    CHECK(fm_engine_step(engine, 20 * MS) >= 0);
    CHECK(fm_engine_step(engine, 20 * MS) >= 0);
    CHECK_INT(fm_future_cancel(future, 50 * MS), 0);
    was_the_last(engine, future, FM_TIMEOUT);
}

static int fail(fm_child *child, void *ud)
{
    (void)ud;
    return fm_child_fail(child, "no", NULL);
}

/* A child steps out of its group when it has said all: it stays there. */
static int stay_in_the_group(pid_t pid, pid_t group)
{
    if (pid == 0 && group != 0)
        (void)raise(SIGSTOP);
    return fm__sys_real.setpgid(pid, group);
}

TEST(a_job_that_is_cancelled_when_its_failure_is_whole_is_not_tried_again)
{
    struct fm_job_opts opts = {.retries = 9, .retry_on = FM_KIND_BIT(FM_ERROR)};
    fm_engine *engine = new_engine();
    fm_future *future;

    fm__sys.setpgid = stay_in_the_group;
    future = spawn(engine, &opts, fail, NULL);
    step_until(engine, future, FM_DRAINING);
    CHECK_INT(fm_future_cancel(future, -1), 0);
    was_the_last(engine, future, FM_ERROR);
}
