/* SPDX-License-Identifier: MIT */
/* Signal masks around a fork and the child's clean start.  The parent's
 * handlers are never touched. */
#ifndef FM_OS_SIGNALS_H
#define FM_OS_SIGNALS_H

#include <pthread.h>
#include <signal.h>
#include <stddef.h>

/* Block every signal of this thread; *ret_old is for fm__signals_restore(). */
int fm__signals_block(sigset_t *ret_old);
void fm__signals_restore(const sigset_t *old);

/* Take a lock that fork() takes too, and give it back, with no signal in
 * between: a handler of the host that forks would wait for its own thread. */
void fm__signals_lock(pthread_mutex_t *lock, sigset_t *ret_old);
void fm__signals_unlock(pthread_mutex_t *lock, const sigset_t *old);

/* In a child: default action for every signal, no alternate stack; SIGTTIN
 * and SIGTTOU ignored (the child's group is in the background).  The mask
 * stays as it is.  Async-signal-safe.  Returns 0 or -errno. */
int fm__signals_reset(void);

/* In a child: an empty mask. */
int fm__signals_open(void);

/* As write(), but a pipe that nobody reads is -EPIPE and no signal.  What
 * interrupts is waited out.  Returns how many bytes, or -errno. */
long fm__signals_write(int fd, const void *data, size_t len);

/* "SIGSEGV", or NULL. */
const char *fm__signal_name(int signal);

#endif
