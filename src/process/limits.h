/* SPDX-License-Identifier: MIT */
/* The kernel's limits on a child: rlimits, timers, a filter on fork. */
#ifndef FM_PROCESS_LIMITS_H
#define FM_PROCESS_LIMITS_H

#include <stdint.h>

#include "fork_map.h"

/* Child: apply them all.  Growth is counted from now.  Returns 0, or -errno
 * with the name of what failed in *ret_step. */
int fm__limits_apply(const struct fm_limits *limits, const char **ret_step);

/* Child: have the kernel SIGKILL this process after `ns`, whether or not its
 * parent looks.  0 or -errno. */
int fm__limits_backstop(int64_t ns);

/* Parent: the limit that an ended child ran into, or NULL.  `cpu_ns` is what
 * it used. */
const char *fm__limits_name(const struct fm_limits *limits, int signal,
                            int64_t cpu_ns);

#endif
