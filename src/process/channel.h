/* SPDX-License-Identifier: MIT */
/*
 * A channel is what one child and its parent share: one mapping with the
 * recorder page, the post and the ring, and the lifeline.
 *
 * The parent makes it before the fork, and keeps it for the next child when
 * the last one's process group is known to be empty: pages that are hot and
 * descriptors that are open make the next call cheap.  No process but the
 * child inherits the mapping, not even children of the child.
 */
#ifndef FM_PROCESS_CHANNEL_H
#define FM_PROCESS_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "os/forking.h"
#include "process/flight.h"
#include "process/lifeline.h"
#include "process/post.h"
#include "wire/ring.h"

#ifdef FM_TINY
#define FM__RING_SIZE 4096
#else
#define FM__RING_SIZE ((size_t)1 << 20)
#endif

struct fm__channel {
    struct fm__channel *next; /* list of idle channels */
    void *owner;              /* the template whose children it is for, or NULL;
                                 then it is */
    unsigned id;              /* by this number known there, */
    int fd;                   /* and this file, until that has been sent */
    void *map;
    size_t map_len;
    struct fm__flight *flight;
    struct fm__post *post; /* for workers of a map */
    struct fm__ring ring;  /* the parent's side: reader */
    struct fm__lifeline lifeline;
    struct fm__lifeline anchor; /* both ends are the parent's alone */
};

/* Returns 0 or -errno, with everything given back. */
int fm__channel_open(struct fm__channel *channel);

/* The same in a file, which can be sent to the process that forks the child. */
int fm__channel_open_file(struct fm__channel *channel);

/* Child: what of it such a child has.  The descriptors stay as they are.
 * Returns 0 or -errno. */
int fm__channel_map(struct fm__channel *channel, int fd);

/* Ready for a new child. */
void fm__channel_clear(struct fm__channel *channel);

/* Ready for a worker of a map. */
void fm__channel_clear_post(struct fm__channel *channel);

/* Bytes that one maps. */
size_t fm__channel_get_size(void);

/* What a child gets of it, for fm__forking_begin(). */
struct fm__offer fm__channel_get_offer(const struct fm__channel *channel);

void fm__channel_close(struct fm__channel *channel);

#endif
