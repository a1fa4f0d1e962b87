/* SPDX-License-Identifier: MIT */
/*
 * A process forked for our parent: a copy of this process that is not our child
 * but our sibling.
 *
 * Who asks us to fork for it thus gets a child of its own: it waits for it,
 * hears how it ended and what it used, and its children look at the same
 * parent as ever, also when we are gone.
 *
 * No C library has such a fork(), so the system call is made directly, in a
 * process with one thread.  What fork() would do beside it is done here: the
 * handlers of our own registry run (those of other libraries do not), and the
 * library's note of the thread's number is mended, which raise() and abort()
 * of some C libraries use.
 *
 * sibling_clone.c: Linux.  sibling_none.c: -ENOSYS.
 */
#ifndef FM_OS_SIBLING_H
#define FM_OS_SIBLING_H

#include <stdbool.h>
#include <sys/types.h>

/* False in builds for systems that have no such thing. */
bool fm__sibling_is_possible(void);

/* Once in a process before it forks siblings.  0 or -errno. */
int fm__sibling_open(void);

/* 0 in the sibling, its number here, or -errno.  Around it the caller offers
 * what the sibling gets (os/forking.h), with all signals blocked. */
pid_t fm__sibling_fork(void);

#endif
