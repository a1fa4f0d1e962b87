/* SPDX-License-Identifier: MIT */
/*
 * A child: how it is made, how it puts itself in order, how it leaves.
 *
 * fm__child_fork() returns in the parent only.  The child passes the gate,
 * runs the job and leaves by _exit(); there is no path back into the host.
 */
#ifndef FM_PROCESS_CHILD_H
#define FM_PROCESS_CHILD_H

#include "fork_map.h"
#include "os/bell.h"
#include "process/channel.h"
#include "process/desk.h"
#include "process/outbox.h"
#include "process/output.h"
#include "wire/sink.h"

/* Everything a child needs, prepared before the fork.  Read only. */
struct fm__launch {
    struct fm__channel *channel;
    const struct fm__bell *bell;
    const struct fm_job_opts *opts;
    const struct fm__output *outputs; /* two */
    fm_job_fn fn;
    void *ud;
    int (*child_hooks)(void *ud); /* fm_at_fork() */
    void *hooks_ud;
    uint64_t job;
    uint64_t seed[2];
    unsigned attempt;
    pid_t parent_group;    /* process group of the parent */
    int null_fd;           /* /dev/null */
    bool ring_at_end;      /* the parent cannot hear the child's end */
    bool tries_locks;      /* see locks.h */
    bool is_worker;        /* limits the time of its items, or calls, itself */
    struct fm__desk *desk; /* of a worker of a pool, or NULL */
    struct fm__bell desk_bell;
    int desk_fd;     /* of a sibling's desk, which it maps; or -1 */
    bool is_sibling; /* forked by a template */
    unsigned depth;  /* children of children: that of the parent */
    int socket;      /* of a template, by which it is asked; -1: none */
};

/* Fork.  Returns 0 with the child's number, or -errno.  In the parent the
 * signal mask is as before. */
int fm__child_fork(const struct fm__launch *launch, pid_t *ret_pid);

/* In a template: the same for the host that it works for, whose child it will
 * be.  The launch's channel has the lifeline's read end; its rest is mapped in
 * the child from the file `channel_fd`, so that no process but the two ever has
 * it.  Returns 0 with the child's number, or -errno. */
int fm__child_fork_sibling(const struct fm__launch *launch, int channel_fd,
                           pid_t *ret_pid);

/* For fork.c: all that a child does. */
_Noreturn void fm__child_main(const struct fm__launch *launch, pid_t parent);

/* For workers of a map; see worker.h. */
struct fm__outbox *fm__child_get_outbox(fm_child *child);
struct fm__channel *fm__child_get_channel(fm_child *child);

/* In a worker of a pool, else NULL: see serving.h. */
struct fm__serving *fm__child_get_serving(fm_child *child);

/* Was it asked to stop, and hears of it? */
bool fm__child_was_cancelled(const fm_child *child);

/* For engine/bind.h */
struct fm__sink *fm__child_get_sink(fm_child *child);
void fm__child_set_sampler(fm_child *child, void (*sample)(void *ud), void *ud);

/* Children of children: 0 in a process that no engine made. */
unsigned fm__child_depth(void);
/* What the host of this template has. */
void fm__child_set_depth(unsigned n);

/* See struct fm__launch. */
int fm__child_get_socket(const fm_child *child);

/* See fm__process_get_job(). */
void *fm__child_get_job(void);
void fm__child_set_job(void *job);

/* In a child that hears of its cancel: call `hear(ud)` in signal context too.
 */
void fm__child_set_hear_cancel(void (*hear)(void *ud), void *ud);

/* Leave without a word, as SIGTERM would have had it leave. */
_Noreturn void fm__child_leave_cancelled(void);

#endif
