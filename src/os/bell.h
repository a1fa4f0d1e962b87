/* SPDX-License-Identifier: MIT */
/*
 * A doorbell between processes: rung without blocking, heard by a poller as
 * "readable", silenced by the hearer.  bell_eventfd.c on Linux, bell_pipe.c
 * elsewhere.
 */
#ifndef FM_OS_BELL_H
#define FM_OS_BELL_H

struct fm__bell {
    int hear_fd; /* the hearer polls this */
    int ring_fd; /* the same as hear_fd for an eventfd */
};

#define FM__BELL_INIT                                                          \
    {                                                                          \
        -1, -1                                                                 \
    }

/* Returns 0 or -errno.  The descriptors are registered (os/fds.h). */
int fm__bell_open(struct fm__bell *ret_bell);

/* Ring.  A bell that rings already stays so.  Returns 0 or -errno. */
int fm__bell_ring(const struct fm__bell *bell);

/* Silence it. */
void fm__bell_silence(const struct fm__bell *bell);

/* Idempotent, accepts FM__BELL_INIT. */
void fm__bell_close(struct fm__bell *bell);

#endif
