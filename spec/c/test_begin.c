/* SPDX-License-Identifier: MIT */
/* Children on their way to the job: steps that fail, and deadlines that come
 * at the worst moment. */
#include "jobs.h"
#include "told_clock.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/resource.h>
#include <time.h>

#include "engine/engine.h"
#include "os/sys.h"

#define LATER_NS (6 * FM__NS_PER_S) /* than the start deadline allows */

static pid_t host;

static bool is_child(void)
{
    return getpid() != host;
}

/* ------------------------------------------------------ steps that fail */

/* Of many: the lifeline is looked at alone. */
static int refuse_poll(struct pollfd *fds, unsigned long n, int timeout_ms)
{
    if (!is_child() || n == 1)
        return fm__sys_real.poll(fds, n, timeout_ms);
    errno = EINVAL;
    return -1;
}

static int refuse_open(const char *path, int flags, mode_t mode)
{
    if (!is_child())
        return fm__sys_real.open(path, flags, mode);
    errno = EMFILE;
    return -1;
}

static int refuse_getrlimit(int resource, struct rlimit *limit)
{
    if (!is_child())
        return fm__sys_real.getrlimit(resource, limit);
    errno = EPERM;
    return -1;
}

/* All are set to their defaults before, which is not refused. */
static int refuse_handler(int sig, const struct sigaction *new,
                          struct sigaction *old)
{
    if (!is_child() || !new || new->sa_handler == SIG_DFL ||
        new->sa_handler == SIG_IGN)
        return fm__sys_real.sigaction(sig, new, old);
    errno = EPERM;
    return -1;
}

static int refuse_getpriority(int which, int who)
{
    (void)which;
    (void)who;
    errno = EPERM;
    return -1;
}

/* The step and EPERM, and the next call works. */
static void expect_step(const struct fm_job_opts *opts, const char *step)
{
    const struct fm_outcome *outcome;
    fm_engine *engine;
    fm_future *future;

    host = getpid();
    engine = new_engine();
    future = spawn(engine, opts, say_hello, NULL);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_SPAWN);
    CHECK_INT(outcome->error_code, -EPERM);
    CHECK(strstr(outcome->message, step) != NULL);
    fm__sys = fm__sys_real;
    fm_future_unref(future);
    future = spawn(engine, NULL, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(a_child_that_cannot_tell_which_descriptors_it_has_says_so)
{
    struct fm_job_opts opts = {.has_keep_fds = true};

    fm__sys.poll = refuse_poll;
    fm__sys.open = refuse_open;
    fm__sys.getrlimit = refuse_getrlimit;
    expect_step(&opts, "keep_fds");
}

TEST(a_child_that_cannot_be_sampled_says_so)
{
    fm__sys.sigaction = refuse_handler;
    expect_step(NULL, "sampler");
}

TEST(a_child_whose_priority_is_not_told_says_so)
{
    struct fm_job_opts opts = {.nice = 1};

    fm__sys.getpriority = refuse_getpriority;
    expect_step(&opts, "nice");
}

static int tell_priority(fm_child *child, void *ud)
{
    int priority = getpriority(PRIO_PROCESS, 0);

    (void)ud;
    return fm_child_write(child, &priority, sizeof priority);
}

TEST(a_priority_of_minus_one_is_no_error)
{
    struct fm_job_opts opts = {.nice = 3};
    const struct fm_outcome *outcome;
    int priority, before = getpriority(PRIO_PROCESS, 0);
    fm_engine *engine;
    fm_future *future;

    if (setpriority(PRIO_PROCESS, 0, -1) < 0)
        return; /* only root may */
    engine = new_engine();
    future = spawn(engine, &opts, tell_priority, NULL);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, sizeof priority);
    memcpy(&priority, outcome->data, sizeof priority);
    CHECK_INT(priority, 2);
    fm_future_unref(future);
    fm_engine_free(engine);
    (void)setpriority(PRIO_PROCESS, 0, before);
}

#ifdef __GLIBC__
static bool is_full;

/* In place of the C library's: it has room for so many handlers, and no memory
 * for more.  The names are given: NOLINTBEGIN(bugprone-reserved-identifier) */
int on_exit(void (*__func)(int __status, void *__arg), void *__arg)
{
    int (*real)(void (*)(int, void *), void *);

    if (is_full)
        return -1;
    *(void **)&real = dlsym(RTLD_NEXT, "on_exit");
    return real(__func, __arg);
}
/* NOLINTEND(bugprone-reserved-identifier) */

TEST(a_child_that_cannot_hear_of_exit_says_so)
{
    const struct fm_outcome *outcome;
    fm_engine *engine = new_engine();
    fm_future *future;

    is_full = true;
    future = spawn(engine, NULL, say_hello, NULL);
    is_full = false;
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_SPAWN);
    CHECK_INT(outcome->error_code, -ENOMEM);
    CHECK(strstr(outcome->message, "exit handler") != NULL);
    fm_future_unref(future);
    fm_engine_free(engine);
}
#endif

/* -------------------------------------------- a mapping that is not theirs */

static void *fork_a_stranger(void *ud)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    CHECK_INT(waitpid(pid, NULL, 0), pid);
    return ud;
}

static int refuse_madvise(void *p, size_t len, int advice)
{
    (void)p;
    (void)len;
    (void)advice;
    errno = ENOMEM;
    return -1;
}

/* Another thread forks just before, which closes what is offered to this
 * child, and then it cannot be opened again. */
static pid_t fork_too_late(void)
{
    pthread_t thread;
    pid_t pid;

    CHECK_INT(pthread_create(&thread, NULL, fork_a_stranger, NULL), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    fm__sys.madvise = refuse_madvise;
    pid = fm__sys_real.fork();
    if (pid != 0)
        fm__sys.madvise = fm__sys_real.madvise;
    return pid;
}

static int mark_and_say_hello(fm_child *child, void *ud)
{
    write_mark();
    return say_hello(child, ud);
}

TEST(a_child_that_does_not_get_its_channel_does_not_begin_its_job)
{
    fm_engine *engine = new_engine();
    const struct fm_outcome *outcome;
    fm_future *future;

    make_mark();
    fm__sys.fork = fork_too_late;
    future = spawn(engine, NULL, mark_and_say_hello, NULL);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_EXIT);
    CHECK_INT(mark_size(), 0);
    fm__sys = fm__sys_real;
    fm_future_unref(future);
    future = spawn(engine, NULL, mark_and_say_hello, NULL);
    is_hello(wait_for(engine, future));
    CHECK_INT(mark_size(), 1);
    CHECK_INT(unlink(mark), 0);
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* ------------------------------------------------------------ deadlines */

static int never_return(void *ud)
{
    (void)ud;
    for (;;)
        (void)pause();
    return 0;
}

TEST(a_timeout_ends_a_child_that_has_not_begun_its_job)
{
    struct fm_job_opts opts = {.timeout_ns = 20 * MS};
    fm_engine *engine = new_engine();
    fm_future *future;

    CHECK(fm_at_fork(engine, NULL, NULL, never_return, NULL) >= 0);
    future = spawn(engine, &opts, say_hello, NULL);
    CHECK_INT(wait_for(engine, future)->kind, FM_TIMEOUT);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(a_job_that_begins_when_its_start_deadline_comes_is_left_alone)
{
    const struct timespec nap = {0, 100000};
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, say_hello, NULL);

    while (!fm__flight_has_begun(future->channel->flight))
        (void)nanosleep(&nap, NULL);
    CHECK_INT(fm_future_get_state(future), FM_STARTING);
    /* The engine has looked, it had not begun; now the time is over. */
    fm__attempt_check_time(future, future->started_at + LATER_NS);
    CHECK_INT(fm_future_get_state(future), FM_STARTING);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
}

static int gate[2];

static int wait_at_gate(void *ud)
{
    char byte;

    (void)ud;
    (void)!read(gate[0], &byte, 1);
    return 0;
}

static int kill_in_vain(pid_t pid, int sig)
{
    return sig == SIGKILL ? 0 : fm__sys_real.kill(pid, sig);
}

#ifdef __linux__
static int signal_in_vain(int pidfd, int sig, siginfo_t *info, unsigned flags)
{
    return sig == SIGKILL
               ? 0
               : fm__sys_real.pidfd_send_signal(pidfd, sig, info, flags);
}
#endif

static int refuse(void *ud)
{
    (void)ud;
    return -EPERM;
}

/* Both are killed too, but that may come late. */
TEST(a_child_whose_gate_is_not_opened_leaves_by_itself)
{
    fm_engine *engine = new_engine();
    const struct fm_outcome *outcome;
    fm_future *future;

    make_mark();
    CHECK(fm_at_fork(engine, NULL, refuse, NULL, NULL) >= 0);
    fm__sys.kill = kill_in_vain;
#ifdef __linux__
    fm__sys.pidfd_send_signal = signal_in_vain;
#endif
    future = spawn(engine, NULL, mark_and_say_hello, NULL);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_SPAWN);
    CHECK_INT(outcome->error_code, -EPERM);
    CHECK_INT(mark_size(), 0);
    CHECK_INT(unlink(mark), 0);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(a_child_that_was_given_up_does_not_begin_its_job)
{
    fm_engine *engine = new_engine();
    const struct fm_outcome *outcome;
    fm_future *future;

    make_mark();
    CHECK_INT(pipe(gate), 0);
    CHECK(fm_at_fork(engine, NULL, NULL, wait_at_gate, NULL) >= 0);
    fm__sys.clock_gettime = told_clock;
    fm__sys.kill = kill_in_vain;
#ifdef __linux__
    fm__sys.pidfd_send_signal = signal_in_vain;
#endif
    future = spawn(engine, NULL, mark_and_say_hello, NULL);
    *ahead_ns = LATER_NS;
    CHECK(fm_engine_step(engine, 0) >= 0);
    CHECK_INT(fm_future_get_state(future), FM_STARTING);
    CHECK_INT(write(gate[1], "x", 1), 1);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_SPAWN);
    CHECK_INT(outcome->error_code, -ETIMEDOUT);
    CHECK_INT(mark_size(), 0);
    CHECK_INT(unlink(mark), 0);
    CHECK_INT(close(gate[0]) + close(gate[1]), 0);
    fm_future_unref(future);
    fm_engine_free(engine);
}
