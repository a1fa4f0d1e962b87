/* SPDX-License-Identifier: MIT */
/* What holds between a fork and its job, and for an engine in a process that
 * did not make it. */
#include "jobs.h"
#ifdef FM_TESTING
#include "told_clock.h"
#endif

#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

#include "engine/engine.h"
#include "os/sys.h"

/* ------------------------------------------------------------ the gate */

static long written_before;

static int wait_a_little(void *ud)
{
    struct timespec pause_time = {0, 50 * MS};

    (void)ud;
    (void)nanosleep(&pause_time, NULL);
    written_before = mark_size();
    return 0;
}

static int mark_and_say_hello(fm_child *child, void *ud)
{
    write_mark();
    return say_hello(child, ud);
}

TEST(a_job_does_not_begin_before_its_parent_is_ready_for_its_end)
{
    fm_engine *engine = new_engine();
    fm_future *future;

    make_mark();
    CHECK(fm_at_fork(engine, NULL, wait_a_little, NULL, NULL) >= 0);
    future = spawn(engine, NULL, mark_and_say_hello, NULL);
    is_hello(wait_for(engine, future));
    CHECK_INT(written_before, 0);
    CHECK_INT(mark_size(), 1);
    (void)unlink(mark);
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* ------------------------------------------------------------- signals */

static bool is_raising;

static void raise_in_child(void)
{
    if (is_raising)
        (void)raise(SIGWINCH);
}

static void mark_signal(int sig)
{
    (void)sig;
    write_mark();
}

TEST(a_signal_right_after_the_fork_runs_no_handler_of_the_host)
{
    struct sigaction action = {.sa_handler = mark_signal};
    fm_engine *engine = new_engine();
    fm_future *future;

    make_mark();
    CHECK_INT(sigaction(SIGWINCH, &action, NULL), 0);
    CHECK_INT(pthread_atfork(NULL, NULL, raise_in_child), 0);
    is_raising = true;
    future = spawn(engine, NULL, say_hello, NULL);
    is_raising = false;
    is_hello(wait_for(engine, future));
    CHECK_INT(mark_size(), 0);
    (void)unlink(mark);
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* ------------------------------------------------------- its deadline */

static int never_return(void *ud)
{
    (void)ud;
    for (;;)
        (void)pause();
    return 0;
}

#ifdef FM_TESTING
TEST(a_child_that_hangs_in_its_start_is_ended_and_told_apart)
{
    fm_engine *engine = new_engine();
    const struct fm_outcome *outcome;
    fm_future *future;

    CHECK(fm_at_fork(engine, NULL, NULL, never_return, NULL) >= 0);
    fm__sys.clock_gettime = told_clock;
    future = spawn(engine, NULL, say_hello, NULL);
    CHECK(fm_engine_step(engine, 50 * MS) >= 0);
    CHECK_INT(fm_future_get_state(future), FM_STARTING);
    *ahead_ns = 6 * FM__NS_PER_S;
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_SPAWN);
    CHECK_INT(outcome->error_code, -ETIMEDOUT);
    fm_future_unref(future);
    fm_engine_free(engine);
}
#endif

/* ------------------------------------------------------------- the end */

static int leave_a_grandchild_and_die(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    if (fork() == 0) {
        for (;;)
            (void)pause();
    }
    return raise(SIGKILL);
}

TEST(what_a_killed_child_has_started_ends_with_it)
{
    fm_engine *engine = new_engine();
    struct pollfd end;
    fm_future *future;
    int fds[2];
    char c;

    CHECK_INT(pipe(fds), 0);
    future = spawn(engine, NULL, leave_a_grandchild_and_die, NULL);
    (void)close(fds[1]);
    CHECK_INT(wait_for(engine, future)->kind, FM_SIGNAL);
    end = (struct pollfd){.fd = fds[0], .events = POLLIN};
    CHECK_INT(poll(&end, 1, 5000), 1);
    CHECK_INT(read(fds[0], &c, 1), 0);
    (void)close(fds[0]);
    fm_future_unref(future);
    fm_engine_free(engine);
}

static int ignore_term_and_hang(fm_child *child, void *ud)
{
    (void)signal(SIGTERM, SIG_IGN);
    return hang(child, ud);
}

TEST(a_cancelled_child_that_ignores_it_is_killed_after_its_grace)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, ignore_term_and_hang, NULL);
    const struct fm_outcome *outcome;

    wait_running(engine, future);
    CHECK(fm_engine_step(engine, 50 * MS) >= 0); /* deaf by now */
    CHECK_INT(fm_future_cancel(future, 100 * MS), 1);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_CANCELLED);
    CHECK(outcome->usage.wall_ns >= 100 * MS);
    fm_future_unref(future);
    fm_engine_free(engine);
}

static int stop_itself(fm_child *child, void *ud)
{
    (void)raise(SIGSTOP);
    return hang(child, ud);
}

TEST(a_stopped_child_hears_that_it_is_asked_to_end)
{
    struct fm_job_opts opts = {.timeout_ns = 50 * MS, .grace_ns = 40000 * MS};
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, &opts, stop_itself, NULL);
    const struct fm_outcome *outcome = wait_for(engine, future);

    CHECK_INT(outcome->kind, FM_TIMEOUT);
    CHECK(outcome->usage.wall_ns < 20000 * MS); /* without SIGKILL */
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* ------------------------------------------------- in another process */

/* 0 when the engine, its future running, is closed to this process. */
static int try_it(fm_engine *engine, fm_future *future)
{
    fm_future *other;

    return fm_engine_step(engine, 0) == FM_ECLOSED &&
                   fm_engine_fd(engine) == FM_ECLOSED &&
                   fm_future_cancel(future, 0) == FM_ECLOSED &&
                   fm_spawn(engine, NULL, say_hello, NULL, &other) == FM_ECLOSED
               ? 0
               : 1;
}

static void is_closed_in(pid_t (*fork_it)(void), bool has_number)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, hang, NULL);
    pid_t pid = fork_it();
    int status;

    if (pid == 0) {
        if (has_number)
            engine->pid = getpid();
        _exit(try_it(engine, future));
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_INT(status, 0);
    CHECK_INT(fm_future_cancel(future, 0), 1);
    CHECK_INT(wait_for(engine, future)->kind, FM_CANCELLED);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(an_engine_is_closed_in_a_forked_process)
{
    is_closed_in(fork, false);
}

TEST(an_engine_is_closed_in_a_process_that_has_its_makers_number)
{
    is_closed_in(fork, true);
}

#ifdef SYS_clone
static pid_t fork_without_handlers(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

TEST(an_engine_is_closed_in_a_process_that_no_handler_of_fork_has_seen)
{
    is_closed_in(fork_without_handlers, false);
}
#endif
