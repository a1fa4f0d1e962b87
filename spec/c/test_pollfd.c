/* SPDX-License-Identifier: MIT */
/* The engine's descriptor in a host's own loop, which asks for it once. */
#include "jobs.h"

#include <poll.h>

#include "os/sys.h"

/* Turn the host's loop until the future has settled: a step only when the
 * descriptor says that there is something to do. */
static const struct fm_outcome *turn(fm_engine *engine, int fd,
                                     fm_future *future)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};

    while (fm_future_get_state(future) != FM_SETTLED) {
        CHECK_INT(poll(&pfd, 1, 4000), 1);
        CHECK(fm_engine_step(engine, 0) >= 0);
    }
    return fm_future_get_outcome(future);
}

TEST(the_fd_tells_of_results_of_jobs_spawned_later)
{
    fm_engine *engine = new_engine();
    int fd = fm_engine_fd(engine);
    int pieces = 50;
    fm_future *future;

    if (fd == -ENOSYS) {
        fm_engine_free(engine);
        return;
    }
    future = spawn(engine, NULL, say_much, &pieces);
    CHECK_INT(turn(engine, fd, future)->len, 50 * 100001);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(the_fd_tells_of_deadlines_of_jobs_spawned_later)
{
    struct fm_job_opts opts = {.timeout_ns = 50 * MS, .grace_ns = -1};
    fm_engine *engine = new_engine();
    int fd = fm_engine_fd(engine);
    const struct fm_outcome *outcome;
    fm_future *future;

    if (fd == -ENOSYS) {
        fm_engine_free(engine);
        return;
    }
    future = spawn(engine, &opts, hang, NULL);
    outcome = turn(engine, fd, future);
    CHECK_INT(outcome->kind, FM_TIMEOUT);
    /* Not the child's own backstop, which comes a second later. */
    CHECK(outcome->usage.wall_ns < 1000 * MS);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(the_fd_tells_of_what_was_cancelled_outside_a_step)
{
    struct fm_engine_opts opts = {.max_children = 1};
    fm_future *running, *queued;
    fm_engine *engine;
    int fd;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    fd = fm_engine_fd(engine);
    if (fd == -ENOSYS) {
        fm_engine_free(engine);
        return;
    }
    running = spawn(engine, NULL, hang, NULL);
    queued = spawn(engine, NULL, hang, NULL);
    wait_running(engine, running);
    CHECK_INT(fm_future_cancel(queued, 0), 1);
    CHECK_INT(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 4000), 1);
    CHECK(fm_engine_step(engine, 0) > 0);
    CHECK_INT(fm_future_cancel(running, 50 * MS), 1);
    CHECK_INT(turn(engine, fd, running)->kind, FM_CANCELLED);
    fm_future_unref(running);
    fm_future_unref(queued);
    fm_engine_free(engine);
}

#ifdef __linux__
static int no_pidfd(pid_t pid, unsigned flags)
{
    (void)pid;
    (void)flags;
    errno = ENOSYS;
    return -1;
}

TEST(the_fd_tells_of_ends_that_no_descriptor_tells)
{
    fm_engine *engine = new_engine();
    int fd = fm_engine_fd(engine);
    int sig = SIGKILL;
    fm_future *future;

    if (fd == -ENOSYS) {
        fm_engine_free(engine);
        return;
    }
    fm__sys.pidfd_open = no_pidfd;
    future = spawn(engine, NULL, raise_signal, &sig);
    CHECK_INT(turn(engine, fd, future)->kind, FM_SIGNAL);
    fm_future_unref(future);
    fm_engine_free(engine);
}
#endif
