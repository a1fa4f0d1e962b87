/* SPDX-License-Identifier: MIT */
/*
 * What one child gets and no other process: a descriptor and a mapping.
 *
 * A thread offers them around its fork.  A fork of any other thread, ours or
 * the host's, does not see them, whenever it comes, and neither do children of
 * the child.  The mapping of the last offer stays as it is until somebody else
 * forks, so that a host which calls one child after the other makes no system
 * call for it.
 */
#ifndef FM_OS_FORKING_H
#define FM_OS_FORKING_H

#include <stdbool.h>
#include <stddef.h>

struct fm__offer {
    int fd;    /* in the registry of os/fds.h; -1: none */
    void *map; /* of fm__memory_share(); NULL: none */
    size_t map_len;
};

/* Watch the forks of this process.  Called with the lock of os/fds.c, before
 * that watches them too.  0 or -errno. */
int fm__forking_open(void);

/* Offer until _end `what` the next fork of this thread gives to its child.
 * Other threads wait with their offers.  0 or -errno. */
int fm__forking_begin(const struct fm__offer *what);
void fm__forking_end(void);

/* Child: it came from the thread that offered, and has everything. */
bool fm__forking_took(void);

/* The descriptor that the child being forked has, -1 for none. */
int fm__forking_fd(void);

/* What pthread_atfork() has run around a fork, for who forks without it. */
void fm__forking_before(void);
void fm__forking_in_parent(void);
void fm__forking_in_child(void);

/* The mapping goes. */
void fm__forking_forget(const void *map);

#endif
