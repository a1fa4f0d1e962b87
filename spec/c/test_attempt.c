/* SPDX-License-Identifier: MIT */
/* Faults between the fork and the gate, where a child exists already. */
#include "jobs.h"

#include "os/sys.h"

/* How long the failure may take: it is told at once, while what is waited for
 * takes a second and more. */
#define AT_ONCE (800 * MS)

static void must_not_warn(const char *message, void *ud)
{
    (void)ud;
    CHECK_STR(message, "no warning");
}

#ifdef __linux__
static bool is_asked; /* not so in builds that use the fallbacks */

static int no_descriptor_left(pid_t pid, unsigned flags)
{
    (void)pid;
    (void)flags;
    is_asked = true;
    errno = EMFILE;
    return -1;
}

static bool is_full;

static int add_nothing(int set, int op, int fd, struct epoll_event *event)
{
    if (op == 1 && is_full) {
        is_asked = true;
        errno = ENOSPC;
        return -1;
    }
    return fm__sys_real.epoll_ctl(set, op, fd, event);
}

static void expect_failure(int code)
{
    struct fm_engine_opts opts = {.on_warning = must_not_warn};
    const struct fm_outcome *outcome;
    fm_engine *engine;
    fm_future *future;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    is_full = true;
    future = spawn(engine, NULL, say_hello, NULL);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, is_asked ? FM_SPAWN : FM_VALUE);
    CHECK_INT(outcome->error_code, is_asked ? code : 0);
    CHECK(outcome->usage.wall_ns < AT_ONCE);
    is_full = false;
    fm__sys.pidfd_open = fm__sys_real.pidfd_open;
    fm_future_unref(future);
    future = spawn(engine, NULL, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(a_child_without_a_pidfd_is_ended_at_once)
{
    fm__sys.pidfd_open = no_descriptor_left;
    expect_failure(-EMFILE);
}

TEST(a_child_that_cannot_be_watched_is_ended_at_once)
{
    fm__sys.epoll_ctl = add_nothing;
    expect_failure(-ENOSPC);
}
#endif
