/* SPDX-License-Identifier: MIT */
/* The kernel kills the child's group when the parent is gone; lifeline.h. */
#include "process/lifeline.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include "os/fds.h"
#include "os/sys.h"

/* So many descriptors must be left for what cannot do without. */
#define SPARE_FDS 32

/*
 * When a process dies, the kernel queues the descriptors that nobody else has
 * from the lowest number up and releases them in reverse.  The write end gets
 * the higher number, so that it goes first, while the read end is still known
 * here: the group is then killed even if its leader ended before and only
 * processes without any descriptor of ours are left in it.  A forked process
 * has both ends for a moment, and lets go of the write end first too.
 */
static int open_pipe(struct fm__lifeline *lifeline)
{
    int fds[2];
    int rc = fm__fd_pipe(fds, O_NONBLOCK);

    if (rc < 0)
        return rc;
    if (fds[1] < fds[0]) {
        int high = fm__fd_copy(fds[1], fds[0] + 1);

        fm__fd_close(&fds[1]);
        fds[1] = high < 0 ? high : fm__fd_adopt(high);
    }
    lifeline->read_fd = fds[0];
    lifeline->write_fd = fds[1];
    if (fds[1] < 0)
        return fds[1];
    fm__fd_bury_first(fds[1]);
    return 0;
}

/* All but whom to kill, once for all children: they share the open file.
 * Without F_SETSIG the signal is SIGIO, which kills too by default. */
static int prepare_signal(int fd)
{
#ifdef F_SETSIG
    if (fm__sys.fcntl(fd, F_SETSIG, SIGKILL) < 0)
        return -errno;
#endif
    return fm__sys.fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK) < 0 ? -errno : 0;
}

int fm__lifeline_open(struct fm__lifeline *ret_lifeline)
{
    int rc = open_pipe(ret_lifeline);

    if (rc == 0)
        rc = prepare_signal(ret_lifeline->read_fd);
    if (rc < 0)
        fm__lifeline_close(ret_lifeline);
    return rc;
}

void fm__lifeline_try(struct fm__lifeline *ret_lifeline)
{
    if (fm__lifeline_open(ret_lifeline) == 0 &&
        !fm__fd_leaves(ret_lifeline->write_fd, SPARE_FDS))
        fm__lifeline_close(ret_lifeline);
}

static int set_owner(int fd, int group)
{
#ifdef __linux__
    return fm__sys.fcntl_own(fd, F_SETOWN, -group);
#else
    return fm__sys.fcntl(fd, F_SETOWN, -group);
#endif
}

int fm__lifeline_arm(const struct fm__lifeline *lifeline, int group)
{
    struct pollfd hang_up = {.fd = lifeline->read_fd, .events = 0};

    /* The parent may die before the kernel knows whom to kill. */
    if (set_owner(lifeline->read_fd, group) < 0 ||
        fm__sys.poll(&hang_up, 1, 0) < 0)
        return -errno;
    return hang_up.revents & POLLHUP ? -ECANCELED : 0;
}

int fm__lifeline_anchor(const struct fm__lifeline *lifeline, int group)
{
    if (lifeline->read_fd < 0)
        return 0;
    return set_owner(lifeline->read_fd, group) < 0 ? -errno : 0;
}

void fm__lifeline_close(struct fm__lifeline *lifeline)
{
    fm__fd_close(&lifeline->write_fd);
    fm__fd_close(&lifeline->read_fd);
}
