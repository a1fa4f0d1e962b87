/* SPDX-License-Identifier: MIT */
/*
 * Descriptors of the engine, and those that a child inherits.
 *
 * Every descriptor of ours is close-on-exec, numbered 10 or more (a host may
 * have closed 0, 1 and 2), and *registered* in one list of the process.  A
 * handler that pthread_atfork() runs in every forked process, ours or not,
 * buries all registered descriptors but those marked as kept: so no foreign
 * child holds a lifeline's write end or a doorbell of ours.
 *
 * To *bury* a descriptor is to make every use of it fail with EBADF while its
 * number stays taken, so that nothing opened later can be hit by a stale
 * FILE * of the host (bury_tombstone.c: an O_PATH descriptor takes its
 * place).  bury_close.c closes, where there is no O_PATH.
 */
#ifndef FM_OS_FDS_H
#define FM_OS_FDS_H

#include <stdbool.h>
#include <stddef.h>

/* Lowest number of an engine descriptor. */
#define FM__FD_LOWEST 10

/* One per engine: registers the fork handler (once per process) and makes
 * burying possible.  Returns 0 or -errno. */
int fm__fds_open(void);
void fm__fds_close(void);

/* Take over what a system call returned: moves it to FM__FD_LOWEST or above,
 * registers it.  `fd` may be -1 with errno set.  Returns the descriptor, or
 * -errno with nothing left open. */
int fm__fd_adopt(int fd);

/* The same of what one of our own functions returned: -errno is passed on. */
static inline int fm__fd_take(int fd)
{
    return fd < 0 ? fd : fm__fd_adopt(fd);
}

/* A close-on-exec copy of `fd`, numbered `lowest` or more.  Returns it, or
 * -errno: -EMFILE too when the limit on descriptors is not above `lowest`,
 * which the kernel calls an invalid argument.  Not registered. */
int fm__fd_copy(int fd, int lowest);

/* The same of two: both, or none is left open.  0 or -errno. */
int fm__fd_adopt_pair(const int fds[2], int ret_fds[2]);

/* A pipe, both ends adopted.  `flags` beside O_CLOEXEC.  0 or -errno. */
int fm__fd_pipe(int ret_fds[2], int flags);

/* Unregister and close; sets *fd to -1.  -1 is a no-op. */
void fm__fd_close(int *fd);

/* Mark a registered descriptor: the next forked children keep it, or not. */
void fm__fd_keep(int fd, bool keep);

/* A registered descriptor that forked processes bury before all others. */
void fm__fd_bury_first(int fd);

/* In a child: bury `fd` if it is open.  Async-signal-safe. */
void fm__fd_bury(int fd);

/* In a child: bury every descriptor above 2 that is neither in `keep` nor
 * marked.  Async-signal-safe.  Returns 0 or -errno. */
int fm__fds_bury_others(const int *keep, size_t n_keep);

/* Are about `n` descriptors above this one within the limit? */
bool fm__fd_leaves(int fd, unsigned n);

/* In a child: the smallest RLIMIT_NOFILE with which `n` more descriptors can
 * be opened.  Returns it, or -errno. */
long fm__fds_limit_for(unsigned n);

/* How often this process was forked off another since the library was loaded:
 * changes in every child, ours or foreign. */
unsigned fm__fds_generation(void);

/* What pthread_atfork() has run around a fork, here and in os/forking.c, for
 * who forks without it. */
void fm__fds_before_fork(void);
void fm__fds_after_fork_in_parent(void);
void fm__fds_after_fork_in_child(void);

/* For bury_*.c */
int fm__bury_open(void);
void fm__bury_close(void);

#endif
