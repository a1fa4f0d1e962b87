/* SPDX-License-Identifier: MIT */
/* Faults in what is beside a call, or in many at once: see sweep.h. */
#include "sweep.h"

#include <sys/resource.h>

/* ------------------------------------------------------------ many at once */

#define MANY 60

/* More jobs than an engine has room for in itself, with more descriptors than
 * the registry has. */
static void run_many(void)
{
    struct fm_engine_opts engine_opts = {.max_children = MANY};
    struct fm_job_opts opts = {.grace_ns = -1};
    fm_future *futures[MANY];
    fm_engine *engine = NULL;
    int n = 0;

    if (fm_engine_new(&engine_opts, &engine) < 0)
        return;
    while (n < MANY && fm_spawn(engine, &opts, hang, NULL, &futures[n]) == 0)
        n++;
    fm_engine_free(engine);
    for (int i = 0; i < n; i++) {
        const struct fm_outcome *outcome = fm_future_get_outcome(futures[i]);

        expect(outcome->kind == FM_CLOSED || outcome->kind == FM_SPAWN, "kind",
               outcome->kind);
        fm_future_unref(futures[i]);
    }
}

/* Calls `run` with the k-th call of `call` failing, for every k that it
 * reaches; the next call works each time. */
static void sweep_alone(void (*run)(void), int call, int error,
                        unsigned long every)
{
    struct fault next = {.call = call, .error = error, .k = 1};
    bool reached = true;

    for (int sticky = 0; sticky < 2; sticky++) {
        next.is_sticky = sticky > 0;
        for (next.k = 1; reached; next.k += every) {
            struct stock before = take_stock();

            (void)snprintf(what, sizeof what, "%s %lu %s", fault_names[call],
                           next.k, sticky ? "for good" : "once");
            (void)alarm(20);
            fault_arm(&next);
            run();
            reached = fault_page->reached;
            fault_disarm();
            check_nothing_left(&before);
            run_call(&plain, true);
            check_nothing_left(&before);
        }
        reached = true;
    }
}

TEST(a_lack_of_anything_among_many_jobs_costs_at_most_their_outcomes)
{
    unsigned long every = getenv("FORK_MAP_FULL") ? 1 : 23;

    (void)signal(SIGALRM, on_hang);
    fault_install();
    sweep_alone(run_many, FAULT_realloc, ENOMEM, 1);
    sweep_alone(run_many, FAULT_malloc, ENOMEM, every);
    sweep_alone(run_many, FAULT_calloc, ENOMEM, every);
    sweep_alone(run_many, FAULT_mmap, ENOMEM, every);
    sweep_alone(run_many, FAULT_pipe2, EMFILE, every);
    sweep_alone(run_many, FAULT_fork, EAGAIN, every);
    fm__sys = fm__sys_real;
}

/* ------------------------------------------------------- beside the calls */

static int nothing(void *ud)
{
    (void)ud;
    return 0;
}

static void run_hooks_and_prepare(void)
{
    struct fm_prepare_report report;
    fm_engine *engine = NULL;
    int id, rc;

    rc = fm_prepare(&report);
    expect(rc <= 0, "fm_prepare", rc);
    id = fm_at_fork(NULL, nothing, nothing, nothing, NULL);
    rc = fm_engine_new(NULL, &engine);
    if (rc == 0) {
        (void)fm_at_fork(engine, nothing, nothing, nothing, NULL);
        (void)fm_engine_fd(engine);
        (void)fm_engine_timeout(engine);
    }
    fm_engine_free(engine);
    if (id >= 0)
        fm_at_fork_remove(id);
}

TEST(a_fault_in_prepare_or_hooks_is_told_and_leaves_nothing)
{
    (void)signal(SIGALRM, on_hang);
    fault_install();
    for (size_t i = 0; i < N_ENTRIES; i++) {
        for (int j = 0; j < ERRORS_MAX && entries[i].errors[j] != 0; j++)
            sweep_alone(run_hooks_and_prepare, entries[i].call,
                        entries[i].errors[j], 1);
    }
    fm__sys = fm__sys_real;
}

/* ------------------------------------------------------------ descriptors */

static int close_all_and_say_much(fm_child *child, void *ud)
{
    for (int fd = 3; fd < 256; fd++)
        (void)close(fd);
    return say_much(child, ud);
}

/* Its parent sleeps, or does not. */
static void is_whole_or_told(const struct fm_outcome *outcome)
{
    if (outcome->kind == FM_VALUE)
        CHECK_INT(outcome->len, (size_t)30 * 100001);
    else
        CHECK_INT(outcome->kind, FM_EXIT);
}

TEST(a_job_that_closes_the_bell_and_says_more_than_fits_does_not_hang)
{
    int n = 30;

    for (int i = 0; i < 5; i++)
        run_job(NULL, close_all_and_say_much, &n, is_whole_or_told);
}

/* -------------------------------------------------------------- processes */

static void limit_processes(rlim_t n)
{
    struct rlimit limit;

    CHECK_INT(getrlimit(RLIMIT_NPROC, &limit), 0);
    limit.rlim_cur = n < limit.rlim_max ? n : limit.rlim_max;
    CHECK_INT(setrlimit(RLIMIT_NPROC, &limit), 0);
}

static void is_eagain(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_SPAWN);
    CHECK_INT(outcome->error_code, -EAGAIN);
    CHECK_INT(outcome->pid, 0);
}

/* The kernel does not count for root. */
#define NOBODY 65534

TEST(a_user_who_may_have_no_more_processes_is_told_eagain)
{
    struct fm_job_opts retried = {.retries = 2,
                                  .retry_on = FM_KIND_BIT(FM_SPAWN)};

    if (geteuid() == 0) {
        CHECK_INT(setgid(NOBODY), 0);
        CHECK_INT(setuid(NOBODY), 0);
    }
    limit_processes(1);
    run_job(NULL, say_hello, NULL, is_eagain);
    run_job(&retried, say_hello, NULL, is_eagain);
    limit_processes(RLIM_INFINITY);
    run_job(NULL, say_hello, NULL, is_hello);
}
