/* SPDX-License-Identifier: MIT */
/*
 * The lifeline: a pipe whose write end only the parent process holds.  The
 * child asks the kernel to SIGKILL its process group when that end closes,
 * which happens when the parent dies, by any death.  Unlike a parent-death
 * signal it is tied to the process, not to the thread that forked, and
 * survives setuid.
 *
 * The owner set with F_SETOWN belongs to the open file, so every living child
 * needs a pipe of its own.  Nothing is ever written to it.
 *
 * The child has a copy of the read end.  When it dies in the very moment when
 * its parent does, that copy may be the last, and go before the write end: then
 * nobody kills who else is in the group.  So the parent has a second one, the
 * anchor, of which the child has nothing.
 */
#ifndef FM_PROCESS_LIFELINE_H
#define FM_PROCESS_LIFELINE_H

struct fm__lifeline {
    int read_fd, write_fd;
};

#define FM__LIFELINE_INIT                                                      \
    {                                                                          \
        -1, -1                                                                 \
    }

/* Parent.  0 or -errno. */
int fm__lifeline_open(struct fm__lifeline *ret_lifeline);

/* Parent.  The same where descriptors are not scarce; else it stays closed. */
void fm__lifeline_try(struct fm__lifeline *ret_lifeline);

/* Child, after it made its own process group `group`: arm it, then make sure
 * that the parent did not die before.  Returns 0, -errno, or -ECANCELED when
 * the parent is gone.  Async-signal-safe. */
int fm__lifeline_arm(const struct fm__lifeline *lifeline, int group);

/* Parent, before it opens the gate: have `group` killed by this one, which the
 * child does not get.  0, also for one that is closed, or -errno. */
int fm__lifeline_anchor(const struct fm__lifeline *lifeline, int group);

/* Parent.  Idempotent. */
void fm__lifeline_close(struct fm__lifeline *lifeline);

#endif
