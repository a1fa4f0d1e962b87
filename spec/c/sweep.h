/* SPDX-License-Identifier: MIT */
/*
 * Every call that the engine makes fails: the k-th one of each entry of the
 * table, for every k that a scenario reaches, in the parent and in the child,
 * once and from then on, with each of its errors.  Whatever happens: one
 * outcome, its own or a typed failure, soon; nothing is left, and the next call
 * works, of the same engine too when the fault is past.
 *
 * FORK_MAP_FULL=1 leaves no k out.
 */
#ifndef SPEC_C_SWEEP_H
#define SPEC_C_SWEEP_H

#define TEST_SECONDS 280
#include "jobs.h"

#include "faults.h"

#include <time.h>

#define RUN_NS (2000 * MS)
#define ERRORS_MAX 4

/* The errors that an entry may fail with, and does not lie by: an ECHILD or
 * ESRCH that is not true would have to be believed.  Those that cannot fail
 * have none. */
static const struct entry {
    int call;
    int errors[ERRORS_MAX];
} entries[] = {
    {FAULT_malloc, {ENOMEM}},
    {FAULT_calloc, {ENOMEM}},
    {FAULT_realloc, {ENOMEM}},
    {FAULT_fork, {EAGAIN, ENOMEM}},
    {FAULT_pipe2, {EMFILE, ENFILE}},
    {FAULT_fcntl, {EMFILE, EINVAL}},
    {FAULT_close, {EINTR, EIO}},
    {FAULT_dup2, {EMFILE, EINTR}},
    {FAULT_count_unread, {EINVAL}},
    {FAULT_dup3, {EMFILE, EINTR}},
    {FAULT_open, {EMFILE, ENOENT, EINTR}},
    {FAULT_fstat, {EIO}},
    {FAULT_read, {EINTR, EIO, FAULT_SHORT}},
    {FAULT_write, {EINTR, EIO, FAULT_SHORT}},
    {FAULT_poll, {EINTR, ENOMEM}},
    {FAULT_mmap, {ENOMEM}},
    {FAULT_munmap, {ENOMEM}},
    {FAULT_madvise, {ENOMEM, EINVAL}},
    {FAULT_kill, {EPERM}},
    {FAULT_kill_if_any, {EPERM}},
    {FAULT_setpgid, {EPERM}},
    {FAULT_getpgid, {EPERM}},
    {FAULT_ftruncate, {ENOMEM}},
    {FAULT_socketpair, {EMFILE, ENFILE}},
    {FAULT_sendmsg, {EINTR, EAGAIN, ENOBUFS, FAULT_SHORT}},
    {FAULT_recvmsg, {EINTR, ENOMEM, FAULT_SHORT}},
    {FAULT_shutdown, {ENOTCONN}},
    {FAULT_execve, {ENOENT, EACCES, ENOMEM}},
    {FAULT_sigaction, {EINVAL}},
    {FAULT_pthread_sigmask, {EINVAL}},
    {FAULT_sigaltstack, {EPERM}},
    {FAULT_setrlimit, {EPERM}},
    {FAULT_getrlimit, {EINVAL}},
    {FAULT_getrusage, {EINVAL}},
    {FAULT_setpriority, {EACCES}},
    {FAULT_getpriority, {ESRCH}},
    {FAULT_nanosleep, {EINTR}},
    {FAULT_timer_create, {EAGAIN}},
    {FAULT_timer_settime, {EINVAL}},
    {FAULT_wait_look, {EINTR}},
    {FAULT_wait4, {EINTR}},
#ifdef __linux__
    {FAULT_eventfd, {EMFILE, ENOMEM}},
    {FAULT_epoll_create1, {EMFILE, ENOMEM}},
    {FAULT_epoll_ctl, {ENOMEM, ENOSPC}},
    {FAULT_epoll_wait, {EINTR, EINVAL}},
    {FAULT_timerfd_create, {EMFILE}},
    {FAULT_timerfd_settime, {EINVAL}},
    {FAULT_pidfd_open, {EMFILE, ENOMEM, ENOSYS, EPERM}},
    {FAULT_pidfd_send_signal, {EPERM, ENOSYS, EINVAL}},
    {FAULT_pidfd_get_info, {ENOTTY}},
    {FAULT_pidfd_wait, {EINTR, EINVAL}},
    {FAULT_fcntl_own, {EPERM}},
    {FAULT_futex, {EINTR, EAGAIN, ENOSYS}},
    {FAULT_prctl, {EINVAL}},
    {FAULT_membarrier, {EPERM}},
    {FAULT_getdents64, {EIO, ENOMEM}},
    {FAULT_close_range, {ENOSYS, ENOMEM}},
    {FAULT_seccomp, {EINVAL, ENOMEM}},
    {FAULT_memfd_create, {EMFILE, ENOMEM}},
    {FAULT_fork_sibling, {EAGAIN, ENOMEM}},
    {FAULT_start_beside, {EAGAIN, ENOMEM}},
#endif
};

#define N_ENTRIES (sizeof entries / sizeof entries[0])

/* --------------------------------------------------------------- scenarios */

struct scenario {
    fm_job_fn fn;
    bool (*is_own)(const struct fm_outcome *outcome);
    struct fm_job_opts opts;
    bool is_cancelled, is_polled;
    unsigned kinds; /* of failures that may come of faults */
    /* Instead of a call of fn. */
    void (*run)(const struct scenario *scenario, bool is_faultless);
};

#define KINDS                                                                  \
    (FM_KIND_BIT(FM_SPAWN) | FM_KIND_BIT(FM_CLOSED) | FM_KIND_BIT(FM_LIMIT))

static bool __attribute__((unused))
is_hello_own(const struct fm_outcome *outcome)
{
    return outcome->kind == FM_VALUE && outcome->len == 5 &&
           memcmp(outcome->data, "hello", 5) == 0;
}

static const struct scenario plain = {
    .fn = say_hello, .is_own = is_hello_own, .kinds = KINDS};

/* ---------------------------------------------------------------- one run */

static char what[128]; /* runs now */

static int64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 * MS + ts.tv_nsec;
}

static _Noreturn void complain(const char *text, long long found)
{
    char line[256];

    (void)snprintf(line, sizeof line, "%s: %s (%lld)", what, text, found);
    test_fail(__FILE__, __LINE__, line);
}

static void expect(bool is_right, const char *text, long long found)
{
    if (!is_right)
        complain(text, found);
}

static void on_hang(int sig)
{
    (void)sig;
    (void)!write(2, what, strlen(what));
    (void)!write(2, ": hangs\n", 8);
    _exit(1);
}

struct stock {
    int fds;
    long blocks, mappings;
};

static struct stock take_stock(void)
{
    struct stock stock = {0, fault_blocks, fault_mappings};

    for (int fd = 0; fd < 128; fd++)
        stock.fds += fcntl(fd, F_GETFD) >= 0;
    return stock;
}

static void count_settled(fm_future *future, void *ud)
{
    (void)future;
    ++*(int *)ud;
}

static long kinds_seen[FM_KIND_COUNT], n_refused;

/* The engine is used once more, before it is closed. */
static bool calls_again;

static void judge(const struct scenario *scenario,
                  const struct fm_outcome *outcome, bool is_faultless)
{
    bool is_own = scenario->is_own(outcome);

    expect(is_own || !is_faultless, "failed without a fault", outcome->kind);
    expect(is_own || (scenario->kinds & FM_KIND_BIT(outcome->kind)),
           outcome->message ? outcome->message : "not its value",
           outcome->kind);
    kinds_seen[outcome->kind]++;
}

/* Step until it has settled or the engine says that it cannot. */
static void step_until_settled(fm_engine *engine, const fm_future *future,
                               int64_t until)
{
    int rc = 0;

    while (fm_future_get_state(future) != FM_SETTLED && now_ns() < until &&
           (rc >= 0 || rc == -EINTR))
        rc = fm_engine_step(engine, until - now_ns());
}

/* A fault that is past leaves an engine that works. */
static void call_again(fm_engine *engine)
{
    fm_future *future = NULL;
    int rc;

    fault_disarm();
    rc = fm_spawn(engine, &plain.opts, plain.fn, NULL, &future);
    expect(rc == 0, "next call of the same engine", rc);
    step_until_settled(engine, future, now_ns() + RUN_NS);
    expect(fm_future_get_state(future) == FM_SETTLED, "next call hangs", 0);
    judge(&plain, fm_future_get_outcome(future), true);
    fm_future_unref(future);
}

static void run_call(const struct scenario *scenario, bool is_faultless)
{
    int64_t until = now_ns() + RUN_NS;
    fm_engine *engine = NULL;
    fm_future *future = NULL;
    int n_settled = 0;
    int rc = fm_engine_new(NULL, &engine);

    if (rc == 0)
        rc = fm_spawn(engine, &scenario->opts, scenario->fn, NULL, &future);
    expect(rc <= 0 && (rc == 0 || !is_faultless), "code", rc);
    if (rc < 0) {
        n_refused++;
        fm_engine_free(engine);
        return;
    }
    rc = fm_future_on_settle(future, count_settled, &n_settled);
    expect(rc == 0, "fm_future_on_settle", rc);
    if (scenario->is_polled)
        (void)fm_engine_fd(engine);
    if (scenario->is_cancelled)
        (void)fm_future_cancel(future, -1);
    step_until_settled(engine, future, until);
    if (calls_again)
        call_again(engine);
    fm_engine_free(engine);
    expect(now_ns() < until, "took too long", (now_ns() - until) / MS);
    expect(n_settled == 1, "settled", n_settled);
    judge(scenario, fm_future_get_outcome(future), is_faultless);
    fm_future_unref(future);
}

static void check_nothing_left(const struct stock *before)
{
    struct stock after = take_stock();

    expect(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "child left", 0);
    expect(after.fds == before->fds, "descriptors", after.fds - before->fds);
    expect(after.blocks == before->blocks, "blocks",
           after.blocks - before->blocks);
    expect(after.mappings == before->mappings, "mappings",
           after.mappings - before->mappings);
}

static void run_scenario(const struct scenario *scenario, bool is_faultless)
{
    if (scenario->run)
        scenario->run(scenario, is_faultless);
    else
        run_call(scenario, is_faultless);
}

static bool run_with(const struct scenario *scenario, const struct fault *next)
{
    struct stock before = take_stock();
    bool reached;

    (void)snprintf(what, sizeof what, "%s %lu %s in the %s, %s",
                   fault_names[next->call], next->k,
                   next->error == FAULT_SHORT ? "short"
                                              : fm_err_name(-next->error),
                   next->in_child ? "child" : "parent",
                   next->is_sticky ? "for good" : "once");
    (void)alarm(20);
    fault_arm(next);
    run_scenario(scenario, false);
    reached = fault_page->reached;
    fault_disarm();
    check_nothing_left(&before);
    (void)strncat(what, ", next call", sizeof what - strlen(what) - 1);
    run_call(&plain, true);
    check_nothing_left(&before);
    return reached;
}

/* --------------------------------------------------------------- the sweep */

static long n_runs, n_reached;
static bool is_full;
static unsigned long used[2][FAULT_COUNT]; /* without a fault */

/* In full: every k, until one is not reached.  Else the first few k and some
 * more of those that a run without a fault reaches. */
static void sweep_error(const struct scenario *scenario, struct fault next)
{
    next.k = 1;
    while (is_full || next.k <= used[next.in_child][next.call]) {
        n_runs++;
        if (!run_with(scenario, &next))
            return;
        n_reached++;
        next.k += is_full || next.k < 4 ? 1 : 32;
    }
}

static void sweep_entry(const struct scenario *scenario,
                        const struct entry *entry)
{
    for (int i = 0; i < ERRORS_MAX && entry->errors[i] != 0; i++) {
        for (int how = 0; how < 6; how++) {
            struct fault next = {.call = entry->call,
                                 .error = entry->errors[i],
                                 .is_sticky = how % 3 == 1,
                                 .in_child = how >= 3};

            calls_again = how % 3 == 2;
            if (is_full || !calls_again || i == 0)
                sweep_error(scenario, next);
        }
        calls_again = false;
    }
}

static void __attribute__((unused)) sweep(const struct scenario *scenario)
{
    const struct fault none = {.call = FAULT_COUNT};
    long n_calls = 0;

    is_full = getenv("FORK_MAP_FULL") != NULL;
    (void)signal(SIGALRM, on_hang);
    fault_install();
    fault_arm(&none);
    run_scenario(scenario, true);
    for (int i = 0; i < FAULT_COUNT; i++) {
        used[0][i] = fault_page->calls[0][i];
        used[1][i] = fault_page->calls[1][i];
        n_calls += (long)(used[0][i] + used[1][i]);
    }
    for (size_t i = 0; i < N_ENTRIES; i++) {
        if (used[0][entries[i].call] + used[1][entries[i].call] > 0)
            sweep_entry(scenario, &entries[i]);
    }
    fm__sys = fm__sys_real;
    (void)munmap(fault_page, sizeof *fault_page);
    (void)printf("     %ld calls, %ld runs, %ld faults, %ld refused", n_calls,
                 n_runs, n_reached, n_refused);
    for (int i = 0; i < FM_KIND_COUNT; i++) {
        if (kinds_seen[i] > 0)
            (void)printf(", %ld %s", kinds_seen[i],
                         fm_kind_name((enum fm_kind)i));
    }
    (void)printf("\n");
}

#endif
