/* SPDX-License-Identifier: MIT */
/* What /proc and the C library know of this process. */
#ifndef FM_OS_PROC_H
#define FM_OS_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Read a small file whole, terminated.  Returns its length, or -errno.
 * Async-signal-safe. */
ssize_t fm__proc_read(const char *path, char *data, size_t size);

/* Visit the entries of a directory whose names are numbers; with `omits_own`
 * not that of the descriptor which it is read by.  Returns 0 or -errno, also
 * where directories cannot be read without memory.  Async-signal-safe. */
int fm__proc_each_number(const char *path, bool omits_own,
                         void (*visit)(int number, void *ud), void *ud);

/* The C library knows that this process never had another thread. */
bool fm__proc_is_single_threaded(void);

/* Threads of this process, 1 when it never had another; 0 when unknown. */
unsigned fm__proc_count_threads(void);

/* Processors that this process may use, at least 1: by its affinity, and by the
 * quota of its control groups. */
unsigned fm__proc_count_cpus(void);

/* Bytes of memory that this process has in use, 0 when unknown. */
uint64_t fm__proc_rss(void);

/* Is the descriptor a terminal? */
bool fm__proc_is_terminal(int fd);

/* Fill with random bytes; falls back on clock and process id. */
void fm__proc_random(void *data, size_t len);

#endif
