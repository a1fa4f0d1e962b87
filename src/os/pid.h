/* SPDX-License-Identifier: MIT */
/*
 * A handle on a process that we forked, which never means another process.
 *
 * pid_pidfd.c: a pidfd; readable when the process is gone, however it ended
 * and whoever reaped it.  pid_waitpid.c: the number, safe because only we reap
 * it; its end must be asked for (fm__pid_fd() is -1, the poller's wait is kept
 * short).
 *
 * Neither waits for any process but this one, and neither depends on what the
 * host does with SIGCHLD.
 */
#ifndef FM_OS_PID_H
#define FM_OS_PID_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct fm__pid {
    pid_t pid;         /* 0: none */
    int fd;            /* pidfd, or -1 */
    unsigned n_asked;  /* for a status that somebody else has taken */
    bool has_siblings; /* in its group there may be children of ours which we
                          do not know: reaped with it */
};

#define FM__PID_INIT                                                           \
    {                                                                          \
        0, -1, 0, false                                                        \
    }

/* Nothing is signalled then: to kill() this number is our own group. */
static inline bool fm__pid_is_none(const struct fm__pid *pid)
{
    return pid->pid <= 0;
}

/* How a process ended.  `known` is false when someone else took the status
 * and the kernel cannot tell it. */
struct fm__exit_status {
    bool known;
    int exit_code; /* when signal is 0 */
    int signal;
    int64_t user_ns, sys_ns; /* 0 when unknown */
    uint64_t max_rss;        /* bytes */
};

/* Take a handle on our child `pid`, which cannot be gone before its gate is
 * opened.  Returns 0 or -errno. */
int fm__pid_open(struct fm__pid *ret_pid, pid_t pid);

/* Descriptor that is readable when the process is gone, or -1. */
int fm__pid_fd(const struct fm__pid *pid);

/* Signal the process group that the process leads, also after it was reaped
 * where the kernel can.  Returns 0, -ESRCH when it is empty, or -errno. */
int fm__pid_signal_group(const struct fm__pid *pid, int signal);

/* Signal the process alone.  0 or -errno. */
int fm__pid_signal(const struct fm__pid *pid, int signal);

/* Is it gone (a zombie, or reaped by someone else)?  Does not reap. */
bool fm__pid_is_gone(const struct fm__pid *pid);

/* Reap it without blocking, and SIGKILL what is left of its group, in the
 * order that is safe from reuse of its number.  Returns 1 with *ret when it is
 * gone, 0 when it still lives.  *ret_group_empty tells whether its group is
 * known to be empty. */
int fm__pid_reap(struct fm__pid *pid, struct fm__exit_status *ret,
                 bool *ret_group_empty);

/* Let go of the handle. */
void fm__pid_close(struct fm__pid *pid);

#endif
