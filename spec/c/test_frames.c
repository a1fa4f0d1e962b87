/* SPDX-License-Identifier: MIT */
/*
 * Hosts whose loop is not the engine's: one that draws frame after frame and
 * steps the engine in between, and one that polls the engine's descriptor among
 * its own, for as long as the engine says.
 */
#include "jobs.h"
#include "told_clock.h"

#include <poll.h>

#include "os/sys.h"

#define JOBS 100
#define FRAMES 60

struct gate {
    int read_fd, write_fd;
};

/* Stands still until the gate is opened, for all. */
static int pass_gate(fm_child *child, void *ud)
{
    const struct gate *gate = ud;
    struct pollfd pfd = {.fd = gate->read_fd, .events = POLLIN};

    while (poll(&pfd, 1, -1) < 0)
        ;
    return fm_child_write(child, "hello", 5);
}

static void count_settled(fm_future *future, void *ud)
{
    if (fm_future_get_outcome(future)->kind != FM_CLOSED)
        is_hello(fm_future_get_outcome(future));
    ++*(int *)ud;
}

static void start_all(fm_engine *engine, fm_job_fn fn, void *ud, int *n_settled)
{
    for (int i = 0; i < JOBS; i++) {
        fm_future *future;

        CHECK_INT(fm_spawn(engine, NULL, fn, ud, &future), 0);
        fm_future_on_settle(future, count_settled, n_settled);
        fm_future_unref(future);
    }
}

static fm_engine *wide_engine(void)
{
    struct fm_engine_opts opts = {.max_children = JOBS};
    fm_engine *engine;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    return engine;
}

/* One frame: what the engine has to do now, then what is left of the time. */
static void draw_frame(fm_engine *engine)
{
    CHECK(fm_engine_step(engine, 0) >= 0);
    (void)poll(NULL, 0, 1);
}

static unsigned count_running(const fm_engine *engine)
{
    struct fm_engine_stats stats;

    fm_engine_get_stats(engine, &stats);
    return stats.running;
}

TEST(frames_go_on_while_a_hundred_children_stand_still)
{
    fm_engine *engine = wide_engine();
    int n_settled = 0, fds[2];
    struct gate gate;

    CHECK_INT(pipe(fds), 0);
    gate = (struct gate){fds[0], fds[1]};
    start_all(engine, pass_gate, &gate, &n_settled);
    /* If a step waited for a child it would wait for ever. */
    for (int i = 0; i < FRAMES; i++)
        draw_frame(engine);
    CHECK_INT(n_settled, 0);
    CHECK_INT(count_running(engine), JOBS);
    CHECK_INT(write(gate.write_fd, "x", 1), 1);
    while (n_settled < JOBS)
        draw_frame(engine);
    CHECK_INT(count_running(engine), 0);
    fm_engine_free(engine);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* The host's own descriptor, which is never readable, and the engine's. */
static void poll_once(fm_engine *engine, int own_fd)
{
    struct pollfd fds[2] = {{.fd = own_fd, .events = POLLIN},
                            {.fd = fm_engine_fd(engine), .events = POLLIN}};
    int64_t ns = fm_engine_timeout(engine);
    int n = fds[1].fd >= 0 ? 2 : 1;
    int ms = ns < 0 ? 10000 : (int)((ns + MS - 1) / MS);

    CHECK(fds[1].fd >= 0 || fds[1].fd == -ENOSYS);
    /* Without descriptors the engine has to be asked now and then. */
    if (n == 1 && ms > 5)
        ms = 5;
    CHECK(poll(fds, (nfds_t)n, ms) > 0 || ns >= 0 || n == 1);
    CHECK_INT(fds[0].revents, 0);
    CHECK(fm_engine_step(engine, 0) >= 0);
}

/* As in a big host. */
static pid_t slow_fork(void)
{
    pid_t pid = fm__sys_real.fork();

    if (pid > 0)
        *ahead_ns += 2 * MS;
    return pid;
}

TEST(a_frame_starts_no_more_jobs_than_it_has_time_for)
{
    struct fm_engine_opts opts = {.max_children = 1};
    fm_engine *engine;
    int n_settled = 0;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    fm__sys.clock_gettime = told_clock;
    fm__sys.fork = slow_fork;
    start_all(engine, hang, NULL, &n_settled);
    CHECK_INT(count_running(engine), 1);
    opts.max_children = 8;
    CHECK_INT(fm_engine_configure(engine, &opts), 0);
    for (unsigned i = 2; i <= 5; i++) {
        CHECK_INT(fm_engine_timeout(engine), 0);
        CHECK_INT(fm_engine_step(engine, 0), 0);
        CHECK_INT(count_running(engine), i);
    }
    CHECK(fm_engine_step(engine, MS) >= 0); /* this one has time */
    CHECK_INT(count_running(engine), 8);
    fm__sys.fork = fm__sys_real.fork;
    fm__sys.clock_gettime = fm__sys_real.clock_gettime;
    CHECK_INT(fm_engine_close(engine, 0), 0);
    fm_engine_free(engine);
}

TEST(a_poll_loop_hears_of_a_hundred_jobs)
{
    fm_engine *engine = wide_engine();
    int n_settled = 0, fds[2];

    CHECK_INT(pipe(fds), 0);
    start_all(engine, say_hello, NULL, &n_settled);
    while (n_settled < JOBS)
        poll_once(engine, fds[0]);
    CHECK_INT(fm_engine_timeout(engine), -1);
    fm_engine_free(engine);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

TEST(a_poll_loop_hears_of_jobs_that_wait_for_their_turn)
{
    struct fm_engine_opts opts = {.max_children = 3};
    fm_engine *engine;
    int n_settled = 0, fds[2];

    CHECK_INT(pipe(fds), 0);
    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    start_all(engine, say_hello, NULL, &n_settled);
    while (n_settled < JOBS)
        poll_once(engine, fds[0]);
    fm_engine_free(engine);
    (void)close(fds[0]);
    (void)close(fds[1]);
}
