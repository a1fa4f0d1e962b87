/* SPDX-License-Identifier: MIT */
/*
 * Pairs of local sockets; see socket.h.
 *
 * The kernel installs as many descriptors as the control buffer has room for,
 * padding included: one of CMSG_SPACE(1) gets two.  So its length is exact, and
 * whatever arrives is either given to the caller or closed.
 */
#include "os/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "fork_map.h"
#include "os/fds.h"
#include "os/sys.h"

#define BYTES_MAX (FM__SOCKET_FDS_MAX * sizeof(int))

/* Below are the standard streams, which a host may have closed. */
#define LOWEST 3

union control {
    char bytes[CMSG_SPACE(BYTES_MAX)];
    struct cmsghdr align;
};

int fm__socket_pair(int ret_fds[2], int type)
{
    int fds[2];

    if (fm__sys.socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    return fm__fd_adopt_pair(fds, ret_fds);
}

static bool is_empty(const struct iovec *parts, int n_parts)
{
    for (int i = 0; i < n_parts; i++) {
        if (parts[i].iov_len > 0)
            return false;
    }
    return true;
}

static void put_fds(struct msghdr *message, union control *control,
                    const int *fds, size_t n)
{
    struct cmsghdr *head;

    memset(control, 0, sizeof *control);
    message->msg_control = control->bytes;
    message->msg_controllen = CMSG_SPACE(n * sizeof *fds);
    head = CMSG_FIRSTHDR(message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(n * sizeof *fds);
    memcpy(CMSG_DATA(head), fds, n * sizeof *fds);
}

long fm__socket_send(int fd, const struct iovec *parts, int n_parts,
                     const int *fds, size_t n_fds)
{
    union control control;
    struct msghdr message;
    long rc;

    if (is_empty(parts, n_parts) || n_fds > FM__SOCKET_FDS_MAX)
        return -EINVAL;
    memset(&message, 0, sizeof message);
    message.msg_iov = (struct iovec *)(uintptr_t)parts;
    message.msg_iovlen = (unsigned)n_parts;
    if (n_fds > 0)
        put_fds(&message, &control, fds, n_fds);
    do
        rc = fm__sys.sendmsg(fd, &message, MSG_NOSIGNAL);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : rc;
}

static void close_all(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        (void)fm__sys.close(fds[i]);
}

/* Take the descriptors of the message, for which there was room in its buffer
 * for `room`.  False when something else came. */
static bool take_fds(struct msghdr *message, int *ret_fds, size_t room,
                     size_t *ret_n)
{
    struct cmsghdr *head = CMSG_FIRSTHDR(message);
    size_t n;

    *ret_n = 0;
    if (!head)
        return true;
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
        return false;
    n = (head->cmsg_len - CMSG_LEN(0)) / sizeof *ret_fds;
    n = n < room ? n : room;
    memcpy(ret_fds, CMSG_DATA(head), n * sizeof *ret_fds);
    *ret_n = n;
    return true;
}

/* Move what has the number of a standard stream.  0 or -errno. */
static int raise_low(int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int high = fds[i];

        if (high >= LOWEST)
            continue;
        high = fm__fd_copy(fds[i], LOWEST);
        if (high < 0)
            return high;
        (void)fm__sys.close(fds[i]);
        fds[i] = high;
    }
    return 0;
}

/* What is wrong with a message that has come with `n` of `room` descriptors. */
static int judge(const struct msghdr *message, bool is_good, size_t n,
                 size_t room)
{
    if (!is_good || (message->msg_flags & MSG_TRUNC))
        return FM_EPROTOCOL;
    if (!(message->msg_flags & MSG_CTRUNC))
        return 0;
    /* It was not the buffer that ended. */
    return n < room ? -EMFILE : FM_EPROTOCOL;
}

long fm__socket_recv(int fd, void *data, size_t len, int *ret_fds,
                     size_t *n_fds)
{
    size_t room =
        *n_fds < FM__SOCKET_FDS_MAX ? *n_fds : (size_t)FM__SOCKET_FDS_MAX;
    struct iovec part = {.iov_base = data, .iov_len = len};
    union control control;
    struct msghdr message;
    bool is_good;
    long got;
    int rc;

    *n_fds = 0;
    memset(&message, 0, sizeof message);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = room > 0 ? control.bytes : NULL;
    message.msg_controllen = room > 0 ? CMSG_LEN(room * sizeof *ret_fds) : 0;
    do
        got = fm__sys.recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    is_good = take_fds(&message, ret_fds, room, n_fds);
    rc = judge(&message, is_good, *n_fds, room);
    if (rc == 0)
        rc = raise_low(ret_fds, *n_fds);
    if (rc < 0) {
        close_all(ret_fds, *n_fds);
        *n_fds = 0;
    }
    return rc < 0 ? rc : got;
}

int fm__socket_end(int fd)
{
    return fm__sys.shutdown(fd, SHUT_WR) < 0 ? -errno : 0;
}
