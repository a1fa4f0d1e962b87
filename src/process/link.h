/* SPDX-License-Identifier: MIT */
/*
 * A link: one end of a conversation in frames, over one socket or over two
 * descriptors that lead one way each.
 *
 * Its descriptors do not block, are adopted (os/fds.h) and belong to it.  It
 * holds at most one frame that is coming in and one that is going out; nothing
 * is read ahead, so its reading end is readable whenever there is more of what
 * it has not given away.  Any verb may say -EAGAIN: wait for the descriptor and
 * ask again, nothing is lost.  After another failure each direction says the
 * same for ever.
 */
#ifndef FM_PROCESS_LINK_H
#define FM_PROCESS_LINK_H

#include <stdbool.h>

#include "wire/stream.h"

struct fm__link {
    int read_fd, write_fd; /* the same one of a socket */
    bool is_socket;        /* what is written to */
    unsigned generation;   /* fm__fds_generation() of its process */
    struct fm__stream in;
    int got_fd; /* that came with the head of `in`, or -1 */
    int read_rc, write_rc;
    unsigned char out_head[FM__STREAM_HEAD];
    const unsigned char *out; /* borrowed: the body that is going out */
    size_t out_len, out_at;   /* of head and body together */
};

/* Take over two descriptors, which may be the same.  On failure they are still
 * the caller's.  Returns 0 or -errno. */
int fm__link_open(struct fm__link *link, int read_fd, int write_fd);

/* One end of a new pair of sockets, and the other as a plain descriptor, close-
 * on-exec and at least 3, which is the caller's.  0 or -errno. */
int fm__link_pair(struct fm__link *link, int *ret_fd);

/* Idempotent, also for one that is all zero but for descriptors of -1. */
void fm__link_close(struct fm__link *link);

/* ---------------------------------------------------------------- writing */

/* Is a frame on its way out? */
bool fm__link_is_sending(const struct fm__link *link);

/*
 * Send a frame.  When one is on its way that goes first.  Returns
 *   1              all of it went;
 *   0              some of it: `data` must stay until fm__link_flush() has said
 *                  1, or the link is closed;
 *   -EAGAIN        nothing of it, and the link has forgotten it;
 *   -EPIPE         the other end is gone;
 *   FM_ELIMIT      it is longer than FM__STREAM_MAX;
 *   -errno.
 */
int fm__link_send(struct fm__link *link, unsigned format, const void *data,
                  size_t len);

/* The same for a copy of a descriptor; -ENOTSOCK over what is no socket. */
int fm__link_send_fd(struct fm__link *link, int fd);

/* Go on with what is on its way.  Returns 1 when nothing is any more, -EAGAIN
 * or another code. */
int fm__link_flush(struct fm__link *link);

/* ---------------------------------------------------------------- reading */

/*
 * Receive values.  Returns
 *   1              link->in has them: call fm__stream_next() after use;
 *   0              the other end has closed, between two frames;
 *   -EBADMSG       a descriptor is next, and stays;
 *   -EAGAIN;
 *   FM_EPROTOCOL   bytes that are not ours, or an end within a frame;
 *   -ENOMEM, -errno.
 */
int fm__link_recv(struct fm__link *link);

/* The same for a descriptor, close-on-exec and at least 3, which becomes the
 * caller's; -EBADMSG when values are next. */
int fm__link_recv_fd(struct fm__link *link, int *ret_fd);

#endif
