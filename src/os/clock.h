/* SPDX-License-Identifier: MIT */
/* Monotonic time, in nanoseconds. */
#ifndef FM_OS_CLOCK_H
#define FM_OS_CLOCK_H

#include <stdint.h>
#include <time.h>

#define FM__NS_PER_MS INT64_C(1000000)
#define FM__NS_PER_S INT64_C(1000000000)

/* A deadline that never comes. */
#define FM__NEVER INT64_MAX

int64_t fm__clock_now(void);

/* now + ns, FM__NEVER instead of overflow. */
int64_t fm__clock_after(int64_t now, int64_t ns);

struct timespec fm__clock_spec(int64_t ns);

/* For poll(): rounded up, so that a wait never ends before its deadline;
 * -1 for FM__NEVER or a negative value. */
int fm__clock_poll_ms(int64_t ns);

/* A timer of this process that sends `sig` after `first` ns by `clock`, and
 * then every `every` ns if that is not 0, as long as the process lives.
 * Returns 0 or -errno. */
int fm__clock_arm(clockid_t clock, int sig, int64_t first, int64_t every);

/* The same in two steps, the second as often as one likes; `first` 0 stops
 * it. */
int fm__timer_make(clockid_t clock, int sig, timer_t *ret_timer);
int fm__timer_set(timer_t timer, int64_t first, int64_t every);

#endif
