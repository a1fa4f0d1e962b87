/* SPDX-License-Identifier: MIT */
/* Shared by the two implementations of pid.h. */
#ifndef FM_OS_PID_STATUS_H
#define FM_OS_PID_STATUS_H

#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "os/clock.h"
#include "os/pid.h"

static inline int64_t fm__timeval_ns(struct timeval tv)
{
    return (int64_t)tv.tv_sec * FM__NS_PER_S + (int64_t)tv.tv_usec * 1000;
}

/* From wait()'s status word. */
static inline void fm__status_decode(int status, struct fm__exit_status *ret)
{
    ret->known = true;
    if (WIFSIGNALED(status))
        ret->signal = WTERMSIG(status);
    else
        ret->exit_code = WEXITSTATUS(status);
}

static inline void fm__status_usage(const struct rusage *usage,
                                    struct fm__exit_status *ret)
{
    ret->user_ns = fm__timeval_ns(usage->ru_utime);
    ret->sys_ns = fm__timeval_ns(usage->ru_stime);
    ret->max_rss = (uint64_t)usage->ru_maxrss * 1024;
}

/*
 * Of the processes that a child leaves in its group and that are killed, those
 * whose parents are gone come to a host that is process 1 or a subreaper, and
 * would be its zombies.  Reap those of `group`, whose leader we have reaped
 * just now and whose members have got SIGKILL: so the number is theirs.  Other
 * orphans are the host's.  Returns true when nobody is left; waits for that a
 * hundredth of a second at most, and in no other host, unless they are known to
 * be our own children.
 */
bool fm__orphans_reap(pid_t group, bool are_ours);

#endif
