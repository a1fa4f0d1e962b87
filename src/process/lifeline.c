/* SPDX-License-Identifier: MIT */
/* The kernel kills the child's group when the parent is gone; lifeline.h. */
#include "process/lifeline.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include "os/fds.h"
#include "os/sys.h"

/*
 * When a process dies, the kernel queues the descriptors that nobody else has
 * from the lowest number up and releases them in reverse.  The write end gets
 * the higher number, so that it goes first, while the read end is still known
 * here: the group is then killed even if its leader ended before and only
 * processes without any descriptor of ours are left in it.
 */
int fm__lifeline_open(struct fm__lifeline *ret_lifeline)
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
    ret_lifeline->read_fd = fds[0];
    ret_lifeline->write_fd = fds[1];
    if (fds[1] < 0)
        fm__fd_close(&ret_lifeline->read_fd);
    return fds[1] < 0 ? fds[1] : 0;
}

#ifdef F_SETSIG
int fm__lifeline_arm(const struct fm__lifeline *lifeline, int group)
{
    int fd = lifeline->read_fd;
    struct pollfd hang_up = {.fd = fd, .events = 0};

    if (fm__sys.fcntl_own(fd, F_SETOWN, -group) < 0 ||
        fm__sys.fcntl(fd, F_SETSIG, SIGKILL) < 0 ||
        fm__sys.fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK) < 0)
        return -errno;
    /* The parent may have died before the kernel knew whom to kill. */
    if (fm__sys.poll(&hang_up, 1, 0) < 0)
        return -errno;
    return hang_up.revents & POLLHUP ? -ECANCELED : 0;
}
#else
/* Without F_SETSIG the signal would be SIGIO, which kills too by default. */
int fm__lifeline_arm(const struct fm__lifeline *lifeline, int group)
{
    int fd = lifeline->read_fd;
    struct pollfd hang_up = {.fd = fd, .events = 0};

    if (fm__sys.fcntl(fd, F_SETOWN, -group) < 0 ||
        fm__sys.fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK) < 0)
        return -errno;
    if (fm__sys.poll(&hang_up, 1, 0) < 0)
        return -errno;
    return hang_up.revents & POLLHUP ? -ECANCELED : 0;
}
#endif

void fm__lifeline_close(struct fm__lifeline *lifeline)
{
    fm__fd_close(&lifeline->read_fd);
    fm__fd_close(&lifeline->write_fd);
}
