/* SPDX-License-Identifier: MIT */
/* How many processes a child may make. */
#ifndef FM_OS_FILTER_H
#define FM_OS_FILTER_H

/* In a child: from now on fork() and its like fail with EAGAIN, for root too.
 * 0 or -errno (-ENOSYS where the kernel has no filter). */
int fm__filter_deny_fork(void);

/* Threads of all processes of this user, as RLIMIT_NPROC counts them; or
 * -errno. */
long fm__filter_count_tasks(void);

#endif
