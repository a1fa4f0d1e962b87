/* SPDX-License-Identifier: MIT */
/* The engine: several jobs, hooks, hosts of many kinds, children of children.
 */
#include "jobs.h"

#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include "os/sys.h"

/* ------------------------------------------------------------- memory */

static void *alloc_shared(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    CHECK(p != MAP_FAILED);
    return p;
}

static void free_shared(void *p)
{
    CHECK_INT(munmap(p, 8192), 0);
}

TEST(an_engine_is_refused_in_memory_that_children_share)
{
    fm_engine *engine;

    fm__sys.malloc = alloc_shared;
    fm__sys.free = free_shared;
    CHECK_INT(fm_engine_new(NULL, &engine), FM_ESHARED);
    fm__sys = fm__sys_real;
    CHECK_INT(fm_engine_new(NULL, &engine), 0);
    fm_engine_free(engine);
}

/* -------------------------------------------------- several at one time */

static void count_call(fm_future *future, void *ud)
{
    CHECK_INT(fm_future_get_state(future), FM_SETTLED);
    ++*(int *)ud;
}

TEST(jobs_beyond_max_children_queue_and_each_settles_once)
{
    struct fm_engine_opts opts = {.max_children = 3};
    fm_engine *engine;
    int calls = 0;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    for (int i = 0; i < 50; i++) {
        fm_future *future = spawn(engine, NULL, say_hello, NULL);
        struct fm_engine_stats stats;

        CHECK_INT(fm_future_on_settle(future, count_call, &calls), 0);
        CHECK_INT(fm_future_on_settle(future, count_call, &calls), -EEXIST);
        fm_engine_get_stats(engine, &stats);
        CHECK(stats.running <= 3);
        fm_future_unref(future);
    }
    while (calls < 50)
        CHECK(fm_engine_step(engine, -1) >= 0);
    CHECK_INT(fm_engine_step(engine, -1), 0);
    CHECK_INT(calls, 50);
    fm_engine_free(engine);
}

TEST(cancel_ends_a_running_job_and_a_queued_one)
{
    struct fm_engine_opts opts = {.max_children = 1};
    fm_future *running, *queued;
    fm_engine *engine;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    running = spawn(engine, NULL, hang, NULL);
    queued = spawn(engine, NULL, say_hello, NULL);
    CHECK_INT(fm_future_get_state(queued), FM_QUEUED);
    CHECK_INT(fm_future_cancel(queued, -1), 1);
    CHECK_INT(fm_future_cancel(queued, -1), 0);
    CHECK_INT(fm_future_cancel(running, -1), 1);
    CHECK_INT(fm_future_cancel(running, 0), 0);
    CHECK_INT(wait_for(engine, running)->kind, FM_CANCELLED);
    CHECK_INT(wait_for(engine, queued)->kind, FM_CANCELLED);
    CHECK_INT(fm_future_get_outcome(queued)->pid, 0);
    fm_future_unref(running);
    fm_future_unref(queued);
    fm_engine_free(engine);
}

TEST(closing_an_engine_settles_what_runs_and_what_waits)
{
    struct fm_engine_opts opts = {.max_children = 2};
    fm_future *futures[4];
    fm_engine *engine;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    for (int i = 0; i < 4; i++)
        futures[i] = spawn(engine, NULL, hang, NULL);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(fm_future_get_state(futures[i]), FM_SETTLED);
        CHECK_INT(fm_future_get_outcome(futures[i])->kind, FM_CLOSED);
        fm_future_unref(futures[i]);
    }
    CHECK_INT(fm_spawn(engine, NULL, hang, NULL, &futures[0]), FM_ECLOSED);
    CHECK_INT(fm_engine_step(engine, 0), FM_ECLOSED);
    fm_engine_free(engine);
}

static int fail_twice(fm_child *child, void *ud)
{
    (void)ud;
    write_mark();
    if (fm_child_get_attempt(child) < 3)
        (void)raise(SIGKILL);
    return say_hello(child, NULL);
}

TEST(retries_run_a_killed_job_again_and_only_so_often)
{
    struct fm_job_opts opts = {.retries = 2, .backoff_ns = MS};
    fm_engine *engine = new_engine();
    fm_future *future;

    make_mark();
    future = spawn(engine, &opts, fail_twice, NULL);
    CHECK_INT(wait_for(engine, future)->kind, FM_VALUE);
    CHECK_INT(fm_future_get_outcome(future)->attempt, 3);
    CHECK_INT(mark_size(), 3);
    fm_future_unref(future);
    opts.retries = 1;
    future = spawn(engine, &opts, fail_twice, NULL);
    CHECK_INT(wait_for(engine, future)->kind, FM_SIGNAL);
    CHECK_INT(mark_size(), 5);
    fm_future_unref(future);
    fm_engine_free(engine);
    CHECK_INT(unlink(mark), 0);
}

static void spawn_another(fm_future *future, void *ud)
{
    fm_engine *engine = ud;
    fm_future *next;

    (void)future;
    CHECK_INT(fm_engine_step(engine, -1), FM_EBUSY);
    CHECK_INT(fm_engine_close(engine, 0), FM_EBUSY);
    CHECK_INT(fm_spawn(engine, NULL, say_hello, NULL, &next), 0);
    fm_future_unref(next);
}

TEST(a_callback_may_spawn_but_neither_wait_nor_close)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, say_hello, NULL);
    struct fm_engine_stats stats;

    CHECK_INT(fm_future_on_settle(future, spawn_another, engine), 0);
    fm_future_unref(future);
    do {
        CHECK(fm_engine_step(engine, -1) >= 0);
        fm_engine_get_stats(engine, &stats);
    } while (stats.settled < 2);
    fm_engine_free(engine);
}

TEST(the_engine_fd_tells_when_a_step_has_work)
{
    fm_engine *engine = new_engine();
    struct pollfd pfd = {.fd = fm_engine_fd(engine), .events = POLLIN};
    fm_future *future;

    if (pfd.fd == -ENOSYS) { /* the poll() fallback has none */
        fm_engine_free(engine);
        return;
    }
    CHECK(pfd.fd >= 0);
    CHECK_INT(poll(&pfd, 1, 0), 0);
    future = spawn(engine, NULL, say_hello, NULL);
    CHECK(fm_engine_step(engine, 0) >= 0);
    while (fm_future_get_state(future) != FM_SETTLED) {
        CHECK_INT(poll(&pfd, 1, 5000), 1);
        CHECK(fm_engine_step(engine, 0) >= 0);
    }
    CHECK_INT(poll(&pfd, 1, 0), 0);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(the_timeout_tells_when_to_step_without_a_descriptor)
{
    struct fm_job_opts opts = {.timeout_ns = 20 * MS, .grace_ns = MS};
    fm_engine *engine = new_engine();
    fm_future *future;
    int64_t timeout_ns;

    CHECK(fm_engine_timeout(engine) < 0);
    future = spawn(engine, &opts, hang, NULL);
    while (fm_future_get_state(future) != FM_SETTLED) {
        timeout_ns = fm_engine_timeout(engine);
        CHECK(timeout_ns >= 0 && timeout_ns <= 1000 * MS);
        (void)poll(NULL, 0, (int)(timeout_ns / MS) + 1);
        CHECK(fm_engine_step(engine, 0) >= 0);
    }
    CHECK_INT(fm_future_get_outcome(future)->kind, FM_TIMEOUT);
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* ----------------------------------------------------- hosts and children */

static void count_warning(const char *message, void *ud)
{
    CHECK(strstr(message, "2 threads"));
    ++*(int *)ud;
}

static void *wait_for_byte(void *fd)
{
    char byte;

    (void)!read(*(int *)fd, &byte, 1);
    return NULL;
}

/* What two jobs of an engine come to while the host has a second thread. */
static void run_beside_a_thread(enum fm_on_threads policy, enum fm_kind kind,
                                int warnings)
{
    int n_warnings = 0;
    struct fm_engine_opts opts = {
        .on_threads = policy, .on_warning = count_warning, .ud = &n_warnings};
    int pipe_fds[2];
    pthread_t thread;
    fm_engine *engine = NULL;

    CHECK_INT(pipe(pipe_fds), 0);
    CHECK_INT(pthread_create(&thread, NULL, wait_for_byte, pipe_fds), 0);
    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    for (int i = 0; i < 2; i++) {
        fm_future *future = spawn(engine, NULL, say_hello, NULL);

        CHECK_INT(wait_for(engine, future)->kind, kind);
        fm_future_unref(future);
    }
    CHECK_INT(n_warnings, warnings);
    fm_engine_free(engine);
    (void)close(pipe_fds[1]);
    CHECK_INT(pthread_join(thread, NULL), 0);
    (void)close(pipe_fds[0]);
}

TEST(a_host_with_threads_is_warned_once_or_refused_or_left_alone)
{
    run_beside_a_thread(FM_THREADS_WARN, FM_VALUE, 1);
    run_beside_a_thread(FM_THREADS_REFUSE, FM_SPAWN, 0);
    run_beside_a_thread(FM_THREADS_IGNORE, FM_VALUE, 0);
}

TEST(an_engine_that_may_not_fork_says_so_in_every_outcome)
{
    fm_engine *engine = new_engine();
    fm_future *future;

    fm_engine_forbid_direct(engine);
    future = spawn(engine, NULL, say_hello, NULL);
    CHECK_INT(wait_for(engine, future)->kind, FM_SPAWN);
    CHECK(strstr(fm_future_get_outcome(future)->message,
                 fm_strerror(FM_EFORBIDDEN)));
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(a_host_that_ignores_sigchld_gets_every_outcome_the_kernel_can_tell)
{
    int sig = SIGKILL;
    fm_engine *engine;
    fm_future *future;

    CHECK(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
    engine = new_engine();
    future = spawn(engine, NULL, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    future = spawn(engine, NULL, raise_signal, &sig);
    (void)wait_for(engine, future);
    CHECK(fm_future_get_outcome(future)->kind == FM_SIGNAL ||
          fm_future_get_outcome(future)->kind == FM_NO_RESULT);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(a_child_of_the_host_stays_the_hosts)
{
    fm_engine *engine = new_engine();
    fm_future *future;
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(7);
    future = spawn(engine, NULL, say_hello, NULL);
    (void)wait_for(engine, future);
    fm_future_unref(future);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    fm_engine_free(engine);
}

static int use_parents_engine(fm_child *child, void *ud)
{
    fm_engine *engine = ud;
    fm_future *future;

    if (fm_spawn(engine, NULL, say_hello, NULL, &future) != FM_ECLOSED ||
        fm_engine_step(engine, 0) != FM_ECLOSED)
        return -EEXIST;
    fm_engine_free(engine);
    return say_hello(child, NULL);
}

TEST(an_engine_of_the_parent_is_closed_in_a_child)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, use_parents_engine, engine);

    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
}

static int nest(fm_child *child, void *ud)
{
    int deeper = *(int *)ud - 1;
    fm_engine *engine = new_engine();
    fm_future *future;
    const struct fm_outcome *outcome;
    int rc;

    future = spawn(engine, NULL, deeper > 0 ? nest : say_hello, &deeper);
    outcome = wait_for(engine, future);
    if (outcome->kind == FM_VALUE)
        rc = fm_child_write(child, outcome->data, outcome->len);
    else
        rc = outcome->error_code < 0 ? outcome->error_code : -EIO;
    fm_future_unref(future);
    fm_engine_free(engine);
    return rc;
}

TEST(children_have_children_of_their_own)
{
    int depth = 4;

    run_job(NULL, nest, &depth, is_hello);
}

static void is_error(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_ERROR);
}

TEST(children_nest_no_deeper_than_max_depth)
{
    int depth = 40;

    run_job(NULL, nest, &depth, is_error);
}

static void hear_nothing(int sig)
{
    (void)sig;
}

TEST(a_signal_ends_a_wait_early)
{
    struct sigaction action = {.sa_handler = hear_nothing};
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, hang, NULL);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL,
                             .sigev_signo = SIGUSR1};
    struct itimerspec spec = {{0, 20000000}, {0, 20000000}};
    int rc;

    CHECK_INT(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_INT(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    CHECK_INT(timer_settime(timer, 0, &spec, NULL), 0);
    do {
        rc = fm_engine_step(engine, -1);
    } while (rc == 0);
    CHECK_INT(rc, -EINTR);
    CHECK_INT(timer_delete(timer), 0);
    (void)fm_future_cancel(future, 0);
    (void)wait_for(engine, future);
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* A host in a process of its own is killed with busy children; the pipe that
 * only they hold must hang up. */
TEST(when_the_host_is_killed_its_children_and_theirs_are_gone)
{
    int fds[2];
    struct pollfd end;
    pid_t host;
    char byte;

    CHECK_INT(pipe(fds), 0);
    host = fork();
    if (host == 0) {
        fm_engine *engine = new_engine();

        for (int i = 0; i < 8; i++)
            (void)spawn(engine, NULL, i % 2 ? spin : leave_a_grandchild, NULL);
        (void)fm_engine_step(engine, 0);
        (void)!write(fds[1], "r", 1);
        for (;;)
            (void)pause();
    }
    (void)close(fds[1]);
    CHECK_INT(read(fds[0], &byte, 1), 1);
    CHECK_INT(kill(host, SIGKILL), 0);
    CHECK(waitpid(host, NULL, 0) == host);
    end.fd = fds[0];
    end.events = POLLIN;
    CHECK_INT(poll(&end, 1, 1000), 1);
    CHECK(end.revents & POLLHUP);
    (void)close(fds[0]);
}

static int count_hook(void *ud)
{
    ++*(int *)ud;
    return 0;
}

static int refuse_hook(void *ud)
{
    (void)ud;
    return -EPERM;
}

static int tell_hooks(fm_child *child, void *ud)
{
    return fm_child_write(child, ud, sizeof(int));
}

TEST(hooks_run_around_each_fork_and_may_refuse_it)
{
    fm_engine *engine = new_engine();
    int before = 0, parent = 0, in_child = 0;
    fm_future *future;
    int id;

    CHECK(fm_at_fork(engine, count_hook, NULL, NULL, &before) > 0);
    CHECK(fm_at_fork(engine, NULL, count_hook, NULL, &parent) > 0);
    CHECK(fm_at_fork(engine, NULL, NULL, count_hook, &in_child) > 0);
    future = spawn(engine, NULL, tell_hooks, &in_child);
    CHECK_INT(wait_for(engine, future)->kind, FM_VALUE);
    CHECK_INT(*(const int *)fm_future_get_outcome(future)->data, 1);
    CHECK(before == 1 && parent == 1 && in_child == 0);
    fm_future_unref(future);
    id = fm_at_fork(NULL, refuse_hook, NULL, NULL, NULL);
    future = spawn(engine, NULL, say_hello, NULL);
    CHECK_INT(wait_for(engine, future)->kind, FM_SPAWN);
    CHECK_INT(fm_future_get_outcome(future)->error_code, -EPERM);
    fm_future_unref(future);
    fm_at_fork_remove(id);
    future = spawn(engine, NULL, say_hello, NULL);
    CHECK_INT(wait_for(engine, future)->kind, FM_VALUE);
    fm_future_unref(future);
    fm_engine_free(engine);
}

static int say_seed(fm_child *child, void *ud)
{
    uint64_t seed[2];

    (void)ud;
    fm_child_get_seed(child, seed);
    return fm_child_write(child, seed, sizeof seed);
}

static uint64_t seed_of(fm_engine *engine, const struct fm_job_opts *opts)
{
    fm_future *future = spawn(engine, opts, say_seed, NULL);
    uint64_t seed[2];

    CHECK_INT(wait_for(engine, future)->kind, FM_VALUE);
    memcpy(seed, fm_future_get_outcome(future)->data, sizeof seed);
    fm_future_unref(future);
    return seed[0] ^ seed[1];
}

TEST(the_same_seed_gives_the_same_numbers_and_none_gives_fresh_ones)
{
    struct fm_job_opts opts = {.has_seed = true, .seed = 42};
    fm_engine *engine = new_engine();
    uint64_t first = seed_of(engine, &opts);

    CHECK(seed_of(engine, &opts) == first);
    opts.seed_index = 1;
    CHECK(seed_of(engine, &opts) != first);
    CHECK(seed_of(engine, NULL) != seed_of(engine, NULL));
    fm_engine_free(engine);
}

TEST(bad_options_are_refused_by_name_before_anything_runs)
{
    const struct {
        const char *name;
        struct fm_job_opts opts;
    } bad[] = {
        {"timeout_ns", {.timeout_ns = -1}},
        {"backoff_ns", {.backoff_ns = -1}},
        {"output", {.output = (enum fm_output)(FM_OUTPUT_LINES + 1)}},
        {"on_line", {.output = FM_OUTPUT_LINES}},
        {"retry_on", {.retry_on = FM_KIND_BIT(FM_KIND_COUNT)}},
        {"keep_fds", {.n_keep_fds = 1}},
        {"nice", {.nice = -41}},
        {"nice", {.nice = 41}},
    };
    fm_engine *engine = new_engine();
    fm_future *future = NULL;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_INT(fm_spawn(engine, &bad[i].opts, hang, NULL, &future), -EINVAL);
        CHECK_STR(fm_job_opts_error(&bad[i].opts), bad[i].name);
        CHECK(!future);
    }
    CHECK_INT(fm_spawn(engine, NULL, NULL, NULL, &future), -EINVAL);
    CHECK(!future);
    fm_engine_free(engine);
}

TEST(preparing_a_host_measures_its_forks)
{
    struct fm_prepare_report report;

    CHECK_INT(fm_prepare(&report), 0);
    CHECK(report.fork_before_ns > 0 && report.fork_after_ns > 0);
}

static int step_hook(void *ud)
{
    return fm_engine_step(ud, -1) == FM_EBUSY ? 0 : -EPERM;
}

TEST(a_hook_may_not_wait)
{
    fm_engine *engine = new_engine();
    fm_future *future;

    CHECK(fm_at_fork(engine, step_hook, step_hook, NULL, engine) > 0);
    future = spawn(engine, NULL, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
}
