/* SPDX-License-Identifier: MIT */
/* What callbacks, hooks and hosts do at moments that do not suit the engine. */
#include "jobs.h"

#include <pthread.h>

#include "os/sys.h"

static void count_call(fm_future *future, void *ud)
{
    CHECK_INT(fm_future_get_state(future), FM_SETTLED);
    ++*(int *)ud;
}

/* ---------------------------------------------------- the engine's end */

TEST(a_future_outlives_its_engine_and_says_so)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, say_hello, NULL);
    int calls = 0;

    is_hello(wait_for(engine, future));
    fm_engine_free(engine);
    CHECK_INT(fm_future_on_settle(future, count_call, &calls), FM_ECLOSED);
    CHECK_INT(fm_future_cancel(future, 0), 0);
    is_hello(fm_future_get_outcome(future));
    fm_future_unref(future);
    CHECK_INT(calls, 0);
}

static void free_engine(fm_future *future, void *ud)
{
    (void)future;
    fm_engine_free(ud);
}

TEST(a_callback_may_free_the_engine_that_steps)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, say_hello, NULL);
    fm_future *other = spawn(engine, NULL, hang, NULL);

    CHECK_INT(fm_future_on_settle(future, free_engine, engine), 0);
    while (fm_future_get_state(future) != FM_SETTLED)
        CHECK(fm_engine_step(engine, -1) >= 0);
    CHECK_INT(fm_future_get_outcome(other)->kind, FM_CLOSED);
    fm_future_unref(future);
    fm_future_unref(other);
}

TEST(a_callback_may_free_the_engine_that_closes)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, hang, NULL);

    CHECK_INT(fm_future_on_settle(future, free_engine, engine), 0);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    CHECK_INT(fm_future_get_outcome(future)->kind, FM_CLOSED);
    fm_future_unref(future);
}

static void free_ud(void *ud)
{
    fm_engine_free(ud);
}

TEST(letting_go_of_a_jobs_data_may_free_the_engine)
{
    fm_engine *engine = new_engine();
    struct fm_job_opts opts = {.ud_free = free_ud};
    fm_future *future = spawn(engine, &opts, say_hello, engine);

    is_hello(wait_for(engine, future));
    fm_future_unref(future);
}

static void free_when_warned(const char *message, void *ud)
{
    (void)message;
    fm_engine_free(*(fm_engine **)ud);
}

static void *wait_for_ever(void *ud)
{
    (void)ud;
    for (;;)
        (void)pause();
    return NULL;
}

TEST(a_warning_may_free_the_engine_that_spawns)
{
    fm_engine *engine;
    struct fm_engine_opts opts = {.on_warning = free_when_warned,
                                  .ud = &engine};
    fm_future *future = NULL;
    pthread_t thread;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    CHECK_INT(pthread_create(&thread, NULL, wait_for_ever, NULL), 0);
    CHECK_INT(fm_spawn(engine, NULL, hang, NULL, &future), 0);
    CHECK_INT(fm_future_get_outcome(future)->kind, FM_CLOSED);
    fm_future_unref(future);
}

/* ----------------------------------------------------- cancelling early */

static int cancel_it(void *ud)
{
    fm_future **future = ud;

    if (*future)
        (void)fm_future_cancel(*future, 0);
    return 0;
}

static int give_back(void *ud)
{
    --*(int *)ud;
    return 0;
}

static int take(void *ud)
{
    ++*(int *)ud;
    return 0;
}

TEST(a_hook_may_cancel_the_job_that_is_about_to_be_forked)
{
    struct fm_engine_opts opts = {.max_children = 1};
    fm_future *first, *second = NULL;
    struct fm_engine_stats stats;
    fm_engine *engine;
    int calls = 0, taken = 0;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    CHECK(fm_at_fork(engine, cancel_it, NULL, NULL, &second) > 0);
    CHECK(fm_at_fork(engine, take, give_back, NULL, &taken) > 0);
    first = spawn(engine, NULL, say_hello, NULL);
    second = spawn(engine, NULL, say_hello, NULL);
    CHECK_INT(fm_future_on_settle(second, count_call, &calls), 0);
    is_hello(wait_for(engine, first));
    CHECK_INT(wait_for(engine, second)->kind, FM_CANCELLED);
    CHECK_INT(calls, 1);
    CHECK_INT(taken, 0);
    fm_engine_get_stats(engine, &stats);
    CHECK_INT(stats.spawned, 1);
    CHECK_INT(stats.settled, 2);
    CHECK_INT(stats.running, 0);
    fm_future_unref(first);
    fm_future_unref(second);
    fm_engine_free(engine);
}

/* ------------------------------------------------------ after the reap */

static int late_kills;
static bool is_reaped;
static fm_future *printing;

static int kill_nothing(int fd, int sig, siginfo_t *info, unsigned flags)
{
    (void)fd;
    (void)sig;
    (void)info;
    (void)flags;
    errno = EINVAL; /* as before Linux 6.9 */
    return -1;
}

static int watched_kill(pid_t pid, int sig)
{
    if (is_reaped && sig != 0)
        late_kills++;
    return fm__sys_real.kill(pid, sig);
}

static int watched_wait(int fd, siginfo_t *info, int options,
                        struct rusage *usage)
{
    int rc = fm__sys_real.pidfd_wait(fd, info, options, usage);

    if (rc == 0 && info->si_pid != 0)
        is_reaped = true;
    return rc;
}

static pid_t watched_wait4(pid_t pid, int *status, int options,
                           struct rusage *usage)
{
    pid_t done = fm__sys_real.wait4(pid, status, options, usage);

    is_reaped = is_reaped || done > 0;
    return done;
}

static void cancel_at_rest(int stream, const char *line, size_t len, void *ud)
{
    (void)stream;
    (void)ud;
    if (len == 4 && memcmp(line, "rest", 4) == 0) {
        CHECK(is_reaped);
        (void)fm_future_cancel(printing, 0);
    }
}

static int print_and_end(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    (void)!write(1, "line\nrest", 9);
    _exit(3);
}

TEST(no_number_is_signalled_after_its_process_was_reaped)
{
    struct fm_job_opts opts = {.output = FM_OUTPUT_LINES,
                               .on_line = cancel_at_rest};
    fm_engine *engine = new_engine();

    fm__sys.pidfd_send_signal = kill_nothing;
    fm__sys.pidfd_wait = watched_wait;
    fm__sys.wait4 = watched_wait4;
    fm__sys.kill = watched_kill;
    printing = spawn(engine, &opts, print_and_end, NULL);
    CHECK_INT(wait_for(engine, printing)->kind, FM_EXIT);
    CHECK_INT(late_kills, 0);
    fm_future_unref(printing);
    fm_engine_free(engine);
}

/* ----------------------------------------------- an engine in a child */

/* As some C libraries do: memory that was freed last is given out first. */
static void *calloc_again(size_t n, size_t size)
{
    void *p = fm__sys_real.malloc(n * size);

    return p ? memset(p, 0, n * size) : NULL;
}

static int free_and_make_anew(fm_child *child, void *ud)
{
    fm_engine *mine;
    fm_future *future;
    int calls = 0;

    (void)child;
    fm__sys.calloc = calloc_again;
    fm_engine_free(*(fm_engine **)ud);
    CHECK_INT(fm_engine_new(NULL, &mine), 0);
    CHECK(fm_at_fork(mine, take, NULL, NULL, &calls) > 0);
    future = spawn(mine, NULL, say_hello, NULL);
    is_hello(wait_for(mine, future));
    CHECK_INT(calls, 1);
    fm_future_unref(future);
    fm_engine_free(mine);
    return 0;
}

static pid_t test_process;

static int only_in_the_parent(void *ud)
{
    (void)ud;
    CHECK_INT(getpid(), test_process);
    return 0;
}

TEST(hooks_of_an_engine_end_with_it_in_a_child_too)
{
    fm_engine *engine = new_engine();
    fm_future *future;

    test_process = getpid();
    CHECK(fm_at_fork(engine, only_in_the_parent, NULL, NULL, NULL) > 0);
    future = spawn(engine, NULL, free_and_make_anew, &engine);
    CHECK_INT(wait_for(engine, future)->kind, FM_VALUE);
    fm_future_unref(future);
    fm_engine_free(engine);
}
