/* SPDX-License-Identifier: MIT */
/*
 * Pairs of local sockets, and descriptors that cross them with bytes.
 *
 * Only pairs: nothing here has a name by which a stranger could connect.
 * Descriptors arrive close-on-exec and numbered 3 or more, and belong to the
 * caller, who hands those for the engine to fm__fd_adopt().
 */
#ifndef FM_OS_SOCKET_H
#define FM_OS_SOCKET_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* Descriptors in one message: Linux takes one more, but musl copies what goes
 * with a message to a place of a kilobyte. */
#define FM__SOCKET_FDS_MAX 252

/* Both ends close-on-exec and adopted (os/fds.h).  `type` is SOCK_STREAM or
 * SOCK_SEQPACKET, with SOCK_NONBLOCK or without.  0 or -errno. */
int fm__socket_pair(int ret_fds[2], int type);

/*
 * Send the parts, at least one byte in all, with copies of `fds`.  A peer that
 * is gone is -EPIPE or -ECONNRESET and no signal; what interrupts is waited
 * out.  Returns how many bytes went, which for a stream may be fewer: the
 * descriptors went with the first of them.  Or -errno: -EINVAL for nothing to
 * send or more than FM__SOCKET_FDS_MAX.
 */
long fm__socket_send(int fd, const struct iovec *parts, int n_parts,
                     const int *fds, size_t n_fds);

/*
 * Receive at most `len` bytes and `*n_fds` descriptors, whose number is there
 * afterwards.  Returns the bytes, 0 at the end, or, with nothing left open and
 * `*n_fds` 0,
 *   FM_EPROTOCOL   more descriptors came than were expected, or a message
 *                  longer than `len`, or something else beside the bytes;
 *   -EMFILE        this process has no room for the descriptors that came;
 *   -errno.
 */
long fm__socket_recv(int fd, void *data, size_t len, int *ret_fds,
                     size_t *n_fds);

/* Nothing more is sent: the peer meets the end.  0 or -errno. */
int fm__socket_end(int fd);

#endif
