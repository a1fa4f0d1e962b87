/* SPDX-License-Identifier: MIT */
/* Children that SIGKILL does not end, as if they hung in the kernel. */
#include "jobs.h"
#include "told_clock.h"

#include "os/sys.h"

/* ------------------------------------------------------------ helpers */

static bool is_immortal; /* SIGKILL is taken, and nothing comes of it */

static int kill_in_vain(pid_t pid, int sig)
{
    return is_immortal && sig == SIGKILL ? 0 : fm__sys_real.kill(pid, sig);
}

#ifdef __linux__
static int signal_in_vain(int pidfd, int sig, siginfo_t *info, unsigned flags)
{
    return is_immortal && sig == SIGKILL
               ? 0
               : fm__sys_real.pidfd_send_signal(pidfd, sig, info, flags);
}
#endif

static bool has_no_memory;

static void *give_nothing(size_t n, size_t size)
{
    if (!has_no_memory)
        return fm__sys_real.calloc(n, size);
    errno = ENOMEM;
    return NULL;
}

static int n_warnings;

static void count_warning(const char *message, void *ud)
{
    (void)ud;
    CHECK(strstr(message, "does not end") != NULL);
    n_warnings++;
}

static unsigned count_parked(const fm_engine *engine)
{
    struct fm_engine_stats stats;

    fm_engine_get_stats(engine, &stats);
    return stats.parked;
}

static int print_and_hang(fm_child *child, void *ud)
{
    (void)printf("here\n");
    (void)fflush(stdout);
    return hang(child, ud);
}

static void become_immortal(void)
{
    fm__sys.kill = kill_in_vain;
#ifdef __linux__
    fm__sys.pidfd_send_signal = signal_in_vain;
#endif
    fm__sys.clock_gettime = told_clock;
    fm__sys.calloc = give_nothing;
    is_immortal = true;
}

/* A job that was killed in vain; its child is known by its number. */
static fm_future *spawn_immortal(fm_engine **ret_engine, pid_t *ret_pid)
{
    struct fm_engine_opts opts = {.on_warning = count_warning};
    struct fm_job_opts captured = {.output = FM_OUTPUT_CAPTURE,
                                   .retries = 9,
                                   .retry_on = FM_KIND_BIT(FM_CANCELLED)};
    fm_engine *engine;
    fm_future *future;

    become_immortal();
    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    future = spawn(engine, &captured, print_and_hang, NULL);
    wait_running(engine, future);
    *ret_pid = fm_future_get_pid(future);
    CHECK(*ret_pid > 0);
    (void)fm_engine_step(engine, 20 * MS); /* what it prints is read */
    CHECK_INT(fm_future_cancel(future, 0), 1);
    CHECK(fm_engine_step(engine, MS) >= 0);
    CHECK_INT(fm_future_get_state(future), FM_RUNNING);
    *ahead_ns = 2 * FM__NS_PER_S;
    *ret_engine = engine;
    return future;
}

static void is_cancelled(const struct fm_outcome *outcome, pid_t pid)
{
    CHECK_INT(outcome->kind, FM_CANCELLED);
    CHECK_INT(outcome->attempt, 1);
    CHECK_INT(outcome->pid, pid);
    CHECK_INT(outcome->exit_code, -1);
    CHECK_STR(outcome->last.where, "here.c:1");
    CHECK_INT(outcome->output[0].len, 5);
}

static void still_works(fm_engine *engine)
{
    fm_future *future = spawn(engine, NULL, say_hello, NULL);

    is_hello(wait_for(engine, future));
    fm_future_unref(future);
}

/* The kernel was told to end it when its engine let go of it; nobody has
 * waited for it. */
static void was_killed_by_the_lifeline(pid_t pid)
{
    int status;

    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status));
    CHECK_INT(WTERMSIG(status), SIGKILL);
}

/* -------------------------------------------------------------- tests */

TEST(a_child_that_sigkill_does_not_end_keeps_no_outcome_from_coming)
{
    fm_engine *engine;
    pid_t pid;
    fm_future *future = spawn_immortal(&engine, &pid);

    is_cancelled(wait_for(engine, future), pid);
    CHECK_INT(n_warnings, 1);
    CHECK_INT(count_parked(engine), 1);
    CHECK_INT(fm_future_get_pid(future), 0);
    fm_future_unref(future);
    is_immortal = false;
    still_works(engine);
    CHECK_INT(count_parked(engine), 1);
    CHECK(fm_engine_timeout(engine) <= 100 * MS); /* it is looked after */
    CHECK_INT(kill(pid, SIGKILL), 0);
    while (count_parked(engine) > 0)
        CHECK(fm_engine_step(engine, 10 * MS) >= 0);
    still_works(engine);
    fm_engine_free(engine);
}

TEST(a_child_that_cannot_be_looked_after_for_lack_of_memory_is_later)
{
    fm_engine *engine;
    pid_t pid;
    fm_future *future = spawn_immortal(&engine, &pid);

    has_no_memory = true;
    CHECK(fm_engine_step(engine, 10 * MS) >= 0);
    CHECK_INT(fm_future_get_state(future), FM_RUNNING);
    CHECK_INT(n_warnings, 0);
    has_no_memory = false;
    is_cancelled(wait_for(engine, future), pid);
    CHECK_INT(count_parked(engine), 1);
    fm_future_unref(future);
    CHECK_INT(kill(pid, SIGKILL), 0);
    while (count_parked(engine) > 0)
        CHECK(fm_engine_step(engine, 10 * MS) >= 0);
    fm_engine_free(engine);
}

/* A child steps out of its group when it has said all: it stays there. */
static int stay_in_the_group(pid_t pid, pid_t group)
{
    if (pid == 0 && group != 0)
        (void)raise(SIGSTOP);
    return fm__sys_real.setpgid(pid, group);
}

TEST(a_whole_result_counts_though_its_child_does_not_end)
{
    struct fm_engine_opts opts = {.on_warning = count_warning};
    fm_engine *engine;
    fm_future *future;
    pid_t pid;

    become_immortal();
    fm__sys.setpgid = stay_in_the_group;
    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    future = spawn(engine, NULL, say_hello, NULL);
    pid = fm_future_get_pid(future);
    while (fm_future_get_state(future) != FM_DRAINING)
        CHECK(fm_engine_step(engine, MS) >= 0);
    for (int i = 0; i < 3; i++) { /* leave, end, be parked */
        *ahead_ns += 2 * FM__NS_PER_S;
        (void)fm_engine_step(engine, MS);
    }
    is_hello(wait_for(engine, future));
    CHECK_INT(count_parked(engine), 1);
    fm_future_unref(future);
    fm_engine_free(engine);
    was_killed_by_the_lifeline(pid);
}

TEST(an_engine_that_closes_leaves_a_parked_child_to_the_kernel)
{
    fm_engine *engine;
    pid_t pid;
    fm_future *future = spawn_immortal(&engine, &pid);

    is_cancelled(wait_for(engine, future), pid);
    fm_future_unref(future);
    CHECK_INT(count_parked(engine), 1);
    fm_engine_free(engine);
    was_killed_by_the_lifeline(pid);
}

static void closes_with_an_immortal(bool is_without_memory)
{
    fm_engine *engine;
    pid_t pid;
    fm_future *future = spawn_immortal(&engine, &pid);

    *ahead_ns = 0;
    has_no_memory = is_without_memory;
    CHECK_INT(fm_engine_close(engine, 0), 0);
    is_cancelled(fm_future_get_outcome(future), pid);
    CHECK_INT(n_warnings, 1);
    CHECK_INT(count_parked(engine), 0);
    fm_future_unref(future);
    fm_engine_free(engine);
    was_killed_by_the_lifeline(pid);
}

TEST(an_engine_closes_though_sigkill_does_not_end_a_child)
{
    closes_with_an_immortal(false);
}

TEST(an_engine_closes_on_an_immortal_child_without_memory_too)
{
    closes_with_an_immortal(true);
}
