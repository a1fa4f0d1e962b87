/* SPDX-License-Identifier: MIT */
/* What is asked for twice, or late: cancels, closes, callbacks. */
#include "jobs.h"

#include <time.h>

#include "engine/engine.h"
#include "os/clock.h"
#include "os/sys.h"

#define HOUR (3600000 * MS)

static int ignore_sigterm(fm_child *child, void *ud)
{
    (void)signal(SIGTERM, SIG_IGN);
    return hang(child, ud);
}

/* It hears no SIGTERM any more. */
static fm_future *spawn_deaf(fm_engine *engine)
{
    struct fm_job_opts opts = {.grace_ns = HOUR};
    const struct timespec nap = {0, 100000};
    fm_future *future = spawn(engine, &opts, ignore_sigterm, NULL);

    while (atomic_load(&future->channel->flight->notes) == 0)
        (void)nanosleep(&nap, NULL);
    return future;
}

static void is_over_in_an_hour(const fm_future *future)
{
    int64_t wait = fm__attempt_next_time(future) - fm__clock_now();

    CHECK(wait > HOUR / 2);
    CHECK(wait <= HOUR);
}

TEST(a_second_cancel_shortens_the_grace_and_does_not_prolong_it)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn_deaf(engine);

    CHECK(fm_engine_step(engine, 0) >= 0);
    CHECK_INT(fm_future_cancel(future, -1), 1);
    is_over_in_an_hour(future);
    CHECK_INT(fm_future_cancel(future, 2 * HOUR), 0);
    is_over_in_an_hour(future);
    CHECK_INT(fm_future_cancel(future, 20 * MS), 0);
    CHECK_INT(wait_for(engine, future)->kind, FM_CANCELLED);
    CHECK_INT(fm_future_get_outcome(future)->signal, 0);
    CHECK_INT(fm_future_cancel(future, 0), 0);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(a_cancel_without_grace_ends_a_job_that_is_in_its_grace)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn_deaf(engine);

    CHECK_INT(fm_future_cancel(future, -1), 1);
    CHECK_INT(fm_future_cancel(future, 0), 0);
    CHECK_INT(wait_for(engine, future)->kind, FM_CANCELLED);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(a_close_shortens_the_grace_of_a_job_that_was_cancelled)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn_deaf(engine);

    CHECK_INT(fm_future_cancel(future, -1), 1);
    CHECK_INT(fm_engine_close(engine, 20 * MS), 0);
    CHECK_INT(fm_future_get_outcome(future)->kind, FM_CANCELLED);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(a_close_does_not_prolong_the_grace_of_a_job)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn_deaf(engine);

    CHECK_INT(fm_future_cancel(future, 20 * MS), 1);
    CHECK_INT(fm_engine_close(engine, HOUR), 0);
    CHECK_INT(fm_future_get_outcome(future)->kind, FM_CANCELLED);
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* A child steps out of its group when it has said all: it stays there. */
static int stay_in_the_group(pid_t pid, pid_t group)
{
    if (pid == 0 && group != 0)
        (void)raise(SIGSTOP);
    return fm__sys_real.setpgid(pid, group);
}

TEST(a_result_that_was_whole_before_a_cancel_wins)
{
    fm_engine *engine = new_engine();
    fm_future *future;
    siginfo_t info;

    fm__sys.setpgid = stay_in_the_group;
    future = spawn(engine, NULL, say_hello, NULL);
    CHECK_INT(waitid(P_PID, (id_t)fm_future_get_pid(future), &info,
                     WSTOPPED | WNOWAIT),
              0);
    CHECK_INT(fm_future_cancel(future, 0), 1); /* the engine has not looked */
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
}

static int n_called;

static void count_call(fm_future *future, void *ud)
{
    (void)ud;
    CHECK_INT(fm_future_get_state(future), FM_SETTLED);
    CHECK_INT(fm_future_get_pid(future), 0);
    n_called++;
}

TEST(a_callback_for_what_has_just_settled_is_called_once)
{
    struct fm_engine_opts opts = {.max_children = 1};
    fm_future *first, *second;
    fm_engine *engine;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    first = spawn(engine, NULL, hang, NULL);
    second = spawn(engine, NULL, say_hello, NULL);
    CHECK_INT(fm_future_cancel(second, 0), 1);
    CHECK_INT(fm_future_get_state(second), FM_SETTLED);
    CHECK_INT(fm_future_on_settle(second, count_call, NULL), 0);
    CHECK_INT(n_called, 0);
    CHECK_INT(fm_engine_step(engine, -1), 1);
    CHECK_INT(n_called, 1);
    CHECK_INT(fm_future_cancel(first, 0), 1);
    (void)wait_for(engine, first);
    CHECK_INT(n_called, 1);
    fm_future_unref(first);
    fm_future_unref(second);
    fm_engine_free(engine);
}

static void close_in_a_child(fm_future *future, void *ud)
{
    int *ret_status = ud;
    pid_t pid = fork();

    /* There no callback of the engine runs: the engine is not there. */
    if (pid == 0)
        _exit(fm_engine_close(future->engine, 0) == 0 ? 7 : 1);
    CHECK_INT(waitpid(pid, ret_status, 0), pid);
    CHECK_INT(fm_engine_close(future->engine, 0), FM_EBUSY);
}

TEST(a_process_that_a_callback_forks_may_close_what_it_inherits)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, say_hello, NULL);
    int status = 0;

    CHECK_INT(fm_future_on_settle(future, close_in_a_child, &status), 0);
    is_hello(wait_for(engine, future));
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), 7);
    fm_future_unref(future);
    future = spawn(engine, NULL, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
}
