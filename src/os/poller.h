/* SPDX-License-Identifier: MIT */
/*
 * Waiting for descriptors.  poller_epoll.c (Linux) can itself be polled by a
 * host, deadlines included; poller_poll.c cannot (fm__poller_fd() says
 * -ENOSYS).
 */
#ifndef FM_OS_POLLER_H
#define FM_OS_POLLER_H

#include <stddef.h>
#include <stdint.h>

struct fm__poller_entry;

struct fm__poller {
    int fd;       /* epoll set, or -1 */
    int timer_fd; /* inside the epoll set once a host asked for the fd */
    int64_t timer_ns;
    struct fm__poller_entry *entries; /* poll: what is watched */
    size_t n, size;
};

#define FM__POLLER_INIT                                                        \
    {                                                                          \
        -1, -1, 0, NULL, 0, 0                                                  \
    }

/* Returns 0 or -errno. */
int fm__poller_open(struct fm__poller *ret_poller);

/* Idempotent. */
void fm__poller_close(struct fm__poller *poller);

/* What a descriptor is watched for.  Errors and hang-ups are told as whatever
 * was asked for: who reads or writes then meets them. */
#define FM__POLL_IN 1u
#define FM__POLL_OUT 2u

struct fm__poller_event {
    uint64_t tag;
    unsigned events;
};

/* Watch `fd`; `tag` comes back from _wait.  0 or -errno. */
int fm__poller_add(struct fm__poller *poller, int fd, unsigned events,
                   uint64_t tag);

/* Watch it for other events, or by another tag.  0 or -errno: -ENOENT when it
 * is not watched. */
int fm__poller_set(struct fm__poller *poller, int fd, unsigned events,
                   uint64_t tag);

/* Stop watching.  Must come before the descriptor is closed: a forked child
 * may hold a copy, which would keep it in an epoll set. */
void fm__poller_remove(struct fm__poller *poller, int fd);

/* Wait at most `timeout_ns` (FM__NEVER: for ever).  Fills up to `n` events.
 * Returns how many, or -errno, -EINTR included. */
int fm__poller_wait(struct fm__poller *poller,
                    struct fm__poller_event *ret_events, size_t n,
                    int64_t timeout_ns);

/* The one descriptor that a host can poll, or -errno. */
int fm__poller_fd(struct fm__poller *poller);

/* The fd, once asked for, becomes readable at this monotonic time too
 * (FM__NEVER: no time).  0 or -errno. */
int fm__poller_set_deadline(struct fm__poller *poller, int64_t at_ns);

#endif
