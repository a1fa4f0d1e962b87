/* SPDX-License-Identifier: MIT */
/* Hosts that reap every process, that signals interrupt all the time, that have
 * several engines in several threads. */
#include "jobs.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#include <sys/timerfd.h>
#endif

#include "os/sys.h"

static atomic_bool is_over;
static atomic_int n_stolen;

static int exit_three(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    _exit(3);
}

/* Before Linux 6.15 the kernel cannot tell a status that the host has taken. */
static void expect(const struct fm_outcome *outcome, enum fm_kind kind)
{
    if (outcome->kind != FM_NO_RESULT || atomic_load(&n_stolen) == 0)
        CHECK_INT(outcome->kind, kind);
}

/* Jobs with every kind of end, three at a time. */
static void run_jobs(int rounds)
{
    struct fm_engine_opts opts = {.on_threads = FM_THREADS_IGNORE};
    struct fm_job_opts brief = {.timeout_ns = 20 * MS, .grace_ns = -1};
    fm_engine *engine;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    for (int i = 0; i < rounds; i++) {
        int sig = SIGKILL;
        fm_future *value = spawn(engine, NULL, say_hello, NULL);
        fm_future *code = spawn(engine, NULL, exit_three, NULL);
        fm_future *killed = spawn(engine, NULL, raise_signal, &sig);

        is_hello(wait_for(engine, value));
        expect(wait_for(engine, code), FM_EXIT);
        expect(wait_for(engine, killed), FM_SIGNAL);
        fm_future_unref(value);
        fm_future_unref(code);
        fm_future_unref(killed);
    }
    for (int i = 0; i < 3; i++) {
        fm_future *late = spawn(engine, &brief, hang, NULL);

        CHECK_INT(wait_for(engine, late)->kind, FM_TIMEOUT);
        fm_future_unref(late);
    }
    fm_engine_free(engine);
}

static void *reap_everything(void *ud)
{
    (void)ud;
    while (!atomic_load(&is_over)) {
        if (waitpid(-1, NULL, WNOHANG) > 0)
            atomic_fetch_add(&n_stolen, 1);
    }
    return NULL;
}

TEST(a_thread_that_reaps_every_process_costs_no_outcome)
{
    pthread_t thread;

    atomic_store(&n_stolen, 1); /* from the first one on */
    CHECK_INT(pthread_create(&thread, NULL, reap_everything, NULL), 0);
    run_jobs(40);
    atomic_store(&is_over, true);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK(atomic_load(&n_stolen) > 1);
}

static void reap_in_handler(int sig)
{
    int saved = errno;

    (void)sig;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        atomic_fetch_add(&n_stolen, 1);
    errno = saved;
}

TEST(a_handler_that_reaps_every_process_costs_no_outcome)
{
    struct sigaction action = {.sa_handler = reap_in_handler};

    atomic_store(&n_stolen, 1);
    CHECK_INT(sigaction(SIGCHLD, &action, NULL), 0);
    run_jobs(40);
    action.sa_handler = SIG_DFL;
    CHECK_INT(sigaction(SIGCHLD, &action, NULL), 0);
    CHECK(atomic_load(&n_stolen) > 1);
}

TEST(a_host_that_waits_for_no_child_loses_no_outcome)
{
    struct sigaction action = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};

    atomic_store(&n_stolen, 1);
    CHECK_INT(sigaction(SIGCHLD, &action, NULL), 0);
    run_jobs(20);
}

static void on_alarm(int sig)
{
    (void)sig;
}

#ifdef __linux__
static int n_asked;

/* The kernel, while it has not yet let go of the process. */
static int tell_late(int pidfd, void *info)
{
    if (++n_asked > 3)
        return fm__sys_real.pidfd_get_info(pidfd, info);
    memset(info, 0, sizeof(uint64_t)); /* its mask: nothing is told */
    return 0;
}

TEST(a_status_that_the_kernel_will_tell_soon_is_asked_for_again)
{
    struct sigaction action = {.sa_handler = SIG_IGN};
    fm_engine *engine = new_engine();
    fm_future *future;

    CHECK_INT(sigaction(SIGCHLD, &action, NULL), 0);
    fm__sys.pidfd_get_info = tell_late;
    future = spawn(engine, NULL, exit_three, NULL);
    atomic_store(&n_stolen, 1);
    expect(wait_for(engine, future), FM_EXIT);
    CHECK(n_asked == 0 || n_asked == 4); /* 0: a build without pidfds */
    fm_future_unref(future);
    fm_engine_free(engine);
}
#endif

TEST(signals_all_the_time_stop_nothing)
{
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval often = {{0, 500}, {0, 500}};
    struct fm_job_opts capture = {.output = FM_OUTPUT_CAPTURE};
    fm_engine *engine = new_engine();
    int pieces = 50;
    fm_future *future;

    CHECK_INT(sigaction(SIGALRM, &action, NULL), 0);
    CHECK_INT(setitimer(ITIMER_REAL, &often, NULL), 0);
    run_jobs(40);
    future = spawn(engine, &capture, say_much, &pieces);
    CHECK_INT(wait_for(engine, future)->len, 50 * 100001);
    fm_future_unref(future);
    future = spawn(engine, NULL, hang, NULL);
    fm_engine_free(engine);
    CHECK_INT(fm_future_get_outcome(future)->kind, FM_CLOSED);
    fm_future_unref(future);
    memset(&often, 0, sizeof often);
    CHECK_INT(setitimer(ITIMER_REAL, &often, NULL), 0);
}

static void *run_some(void *ud)
{
    (void)ud;
    run_jobs(30);
    return NULL;
}

TEST(threads_have_engines_side_by_side)
{
    pthread_t threads[3];

    for (int i = 0; i < 3; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, run_some, NULL), 0);
    for (int i = 0; i < 3; i++)
        CHECK_INT(pthread_join(threads[i], NULL), 0);
}

static FILE *held;

static void *hold_a_stream(void *ud)
{
    flockfile(held);
    (void)fputs("of the host", held);
    atomic_store(&is_over, true);
    for (;;)
        (void)pause();
    return ud;
}

TEST(a_stream_that_another_thread_holds_delays_no_child)
{
    struct fm_engine_opts opts = {.on_threads = FM_THREADS_IGNORE};
    struct fm_job_opts job = {.timeout_ns = 10000 * MS};
    fm_future *future;
    fm_engine *engine;
    pthread_t thread;

    held = fopen("/dev/null", "we");
    CHECK(held != NULL);
    CHECK_INT(pthread_create(&thread, NULL, hold_a_stream, NULL), 0);
    while (!atomic_load(&is_over))
        (void)usleep(100);
    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    future = spawn(engine, &job, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
    _exit(0); /* exit() would wait for the stream */
}

static void must_not_warn(const char *message, void *ud)
{
    (void)ud;
    CHECK_STR(message, "no warning");
}

#ifdef __linux__
struct left {
    pid_t in_group, out_of_it;
};

static pid_t fork_pausing(bool leaves)
{
    int ready[2];
    pid_t pid;
    char c;

    if (pipe2(ready, O_CLOEXEC) < 0)
        return -1;
    pid = fork();
    if (pid == 0) {
        if (leaves)
            (void)setsid();
        (void)close(ready[0]);
        (void)close(ready[1]);
        for (;;)
            (void)pause();
    }
    (void)close(ready[1]);
    (void)!read(ready[0], &c, 1);
    (void)close(ready[0]);
    return pid;
}

static int leave_two(fm_child *child, void *ud)
{
    struct left left = {fork_pausing(false), fork_pausing(true)};

    (void)ud;
    return fm_child_write(child, &left, sizeof left);
}

/* As process 1 of a container is.  It has a child of its own, too. */
TEST(a_host_that_orphans_come_to_gets_only_those_that_left_their_group)
{
    fm_engine *engine = new_engine();
    pid_t own = fork_pausing(false);
    const struct fm_outcome *outcome;
    fm_future *future;
    struct left left;

    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    future = spawn(engine, NULL, leave_two, NULL);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_VALUE);
    memcpy(&left, outcome->data, sizeof left);
    fm_future_unref(future);
    /* Neither a zombie nor a stranger to us. */
    CHECK_INT(kill(left.in_group, 0), -1);
    CHECK_INT(errno, ESRCH);
    CHECK_INT(waitpid(left.out_of_it, NULL, WNOHANG), 0);
    CHECK_INT(kill(left.out_of_it, SIGKILL), 0);
    CHECK_INT(kill(own, SIGKILL), 0);
    for (int i = 0; i < 5; i++) {
        future = spawn(engine, NULL, leave_a_grandchild, NULL);
        is_hello(wait_for(engine, future));
        fm_future_unref(future);
    }
    CHECK_INT(waitpid(left.out_of_it, NULL, 0), left.out_of_it);
    CHECK_INT(waitpid(own, NULL, 0), own);
    fm_engine_free(engine);
}

/* ----------------------------------------------------------------- timers */

static volatile sig_atomic_t n_ticks;

static void count_tick(int sig)
{
    (void)sig;
    n_ticks++;
}

static int64_t ns_left(const struct itimerval *timer)
{
    return (timer->it_value.tv_sec * INT64_C(1000000) +
            timer->it_value.tv_usec) *
           1000;
}

/* What the kernel tells is 0 when a timer is not set. */
static int tell_timers(fm_child *child, void *ud)
{
    struct itimerval timers[2];
    struct itimerspec shared;
    int64_t left[3];

    if (getitimer(ITIMER_REAL, &timers[0]) < 0 ||
        getitimer(ITIMER_VIRTUAL, &timers[1]) < 0 ||
        timerfd_gettime(*(int *)ud, &shared) < 0)
        return -errno;
    left[0] = ns_left(&timers[0]);
    left[1] = ns_left(&timers[1]);
    left[2] = shared.it_value.tv_sec;
    return fm_child_write(child, left, sizeof left);
}

/* A job's own alarm; its handler is the job's, not the host's. */
static int be_woken(fm_child *child, void *ud)
{
    struct itimerval soon = {.it_value = {0, 2000}};
    sigset_t none;

    (void)sigemptyset(&none);
    n_ticks = 0;
    if (signal(SIGALRM, count_tick) == SIG_ERR ||
        setitimer(ITIMER_REAL, &soon, NULL) < 0)
        return -errno;
    while (n_ticks == 0)
        (void)usleep(1000);
    return say_hello(child, ud);
}

static int wait_for_an_alarm(fm_child *child, void *ud)
{
    struct itimerval soon = {.it_value = {0, 2000}};

    (void)setitimer(ITIMER_REAL, &soon, NULL);
    return hang(child, ud);
}

TEST(timers_of_the_host_stay_its_own_and_those_of_a_job_its_own)
{
    struct fm_job_opts timed = {.timeout_ns = 30000 * MS};
    struct itimerval hour = {.it_value = {3600, 0}}, left;
    struct itimerspec day = {.it_value = {86400, 0}};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    const struct fm_outcome *outcome;
    struct itimerspec posix_left;
    fm_engine *engine = new_engine();
    fm_future *future;
    timer_t timer;

    (void)alarm(0);
    CHECK_INT(setitimer(ITIMER_REAL, &hour, NULL), 0);
    CHECK_INT(setitimer(ITIMER_VIRTUAL, &hour, NULL), 0);
    CHECK_INT(timerfd_settime(fd, 0, &day, NULL), 0);
    CHECK_INT(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    CHECK_INT(timer_settime(timer, 0, &day, NULL), 0);
    future = spawn(engine, NULL, tell_timers, &fd);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_VALUE);
    /* A child has none of the first two; a timerfd is shared, as a file. */
    CHECK_INT(((const int64_t *)outcome->data)[0], 0);
    CHECK_INT(((const int64_t *)outcome->data)[1], 0);
    CHECK(((const int64_t *)outcome->data)[2] > 86000);
    fm_future_unref(future);
    future = spawn(engine, &timed, be_woken, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    future = spawn(engine, &timed, wait_for_an_alarm, NULL);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_SIGNAL);
    CHECK_INT(outcome->signal, SIGALRM);
    fm_future_unref(future);
    /* All of them run on here. */
    CHECK_INT(getitimer(ITIMER_REAL, &left), 0);
    CHECK(left.it_value.tv_sec > 3000);
    CHECK_INT(getitimer(ITIMER_VIRTUAL, &left), 0);
    CHECK(left.it_value.tv_sec > 3000);
    CHECK_INT(timer_gettime(timer, &posix_left), 0);
    CHECK(posix_left.it_value.tv_sec > 86000);
    CHECK_INT(timer_delete(timer), 0);
    (void)close(fd);
    fm_engine_free(engine);
}

TEST(a_host_that_has_become_another_user_still_ends_its_children)
{
    struct fm_engine_opts opts = {.on_warning = must_not_warn};
    fm_engine *engine;
    fm_future *future;

    if (geteuid() != 0)
        return;
    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    future = spawn(engine, NULL, hang, NULL);
    wait_running(engine, future);
    CHECK_INT(setresuid(65534, 65534, 65534), 0);
    CHECK_INT(fm_future_cancel(future, 0), 1);
    CHECK_INT(wait_for(engine, future)->kind, FM_CANCELLED);
    fm_future_unref(future);
    future = spawn(engine, NULL, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
}
#endif
