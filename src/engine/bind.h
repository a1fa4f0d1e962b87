/* SPDX-License-Identifier: MIT */
/*
 * What a language binding needs of the engine beyond fork_map.h.  Internal:
 * shared with src/lua only, no promise to hosts.
 */
#ifndef FM_ENGINE_BIND_H
#define FM_ENGINE_BIND_H

#include "fork_map.h"
#include "wire/sink.h"

/* Tags of result formats (fm_child_set_format, fm_outcome.format). */
enum fm__format {
    FM__FORMAT_BYTES = 0, /* C hosts: opaque */
    FM__FORMAT_JSON = 1,  /* one JSON text and '\n' per value, nil is "" */
    FM__FORMAT_LUA = 2,   /* binary codec */
    FM__FORMAT_CJSON = 3, /* as JSON, written by lua-cjson */
    FM__FORMAT_CUSTOM = 4 /* the string that a pair's encode returned */
};

/* The sink that writes straight into the child's ring.  Its `restart` is
 * fm_child_set_format().  Valid for the life of the child. */
struct fm__sink *fm__child_sink(fm_child *child);

/* What the child's sink holds is no part of the result: an event or the end of
 * the whole map, for the worker whose item this child is.  0 or a negative
 * code. */
int fm__child_put_aside(fm_child *child, bool is_stop);

/* The engine of the processes that items of this worker have of their own.
 * Returns 0 or a negative code. */
int fm__worker_get_engine(fm_worker *worker, fm_engine **ret_engine);

/* Stop the job's clock-driven samples, and start them: a signal on the
 * child's own CPU time, first after 10 ms, calls `sample(ud)` in signal
 * context; so does the parent's request before it kills. */
void fm__child_sample(fm_child *child, void (*sample)(void *ud), void *ud);

/* As fm_engine_step(), but waits also when nothing is alive: for a binding that
 * has timers of its own. */
int fm__engine_rest(fm_engine *engine, int64_t timeout_ns);

/* How many children it may have at once. */
unsigned fm__engine_max_children(const fm_engine *engine);

/* From this monotonic time on (1: now; 0: never) the binding has work of its
 * own: fm_engine_fd() and fm_engine_timeout() tell the host so.  Steps do not
 * heed it. */
void fm__engine_set_alarm(fm_engine *engine, int64_t at_ns);

/* The binding has, or has not, something to take that a step has brought: the
 * same two tell the host so when it has left the engine. */
void fm__engine_set_due(fm_engine *engine, bool is_due);

/* Wait at most so long for any of these engines to have work.  0 or -errno. */
int fm__engines_wait(fm_engine *const *engines, size_t n, int64_t timeout_ns);

/* A descriptor that is readable when its engine has work, and for ever once it
 * is lit: for who waits for one thing among many in a loop of the host. */
struct fm__beacon;

/* Returns 0, or a negative code: -ENOSYS where engines have no descriptor. */
int fm__beacon_new(fm_engine *engine, struct fm__beacon **ret_beacon);
int fm__beacon_fd(const struct fm__beacon *beacon);
void fm__beacon_light(struct fm__beacon *beacon);
int fm__beacon_dim(struct fm__beacon *beacon);
/* NULL is a no-op. */
void fm__beacon_free(struct fm__beacon *beacon);

/* From the first call on, being asked to stop calls `notice(ud)` in signal
 * context, as fm_child_is_cancelled() has it not end the child any more. */
void fm__child_hear_cancel(fm_child *child, void (*notice)(void *ud), void *ud);

/* Flush the child's streams and leave with the code of SIGTERM, without a word:
 * the parent knows why. */
void fm__child_end_cancelled(void) __attribute__((noreturn));

/* True while a callback of this engine's loop runs (waiting is refused). */
bool fm__engine_in_callback(const fm_engine *engine);

/* True in the process that made the engine. */
bool fm__engine_is_ours(const fm_engine *engine);

/* The two words that fm_worker_get_seed() gives for an item, from 0. */
void fm__seed_words(uint64_t seed, uint64_t index, uint64_t ret_seed[2]);

/* Children of children: 0 in a process that no engine made. */
unsigned fm__process_depth(void);

/* 0, or FM_ESHARED when the memory at `p`, of the binding's own allocator, is
 * shared with children: calls would change the host. */
int fm__engine_check_memory(const void *p);

/* A pointer of the binding's, kept where a child writes anyway.  Inherited by
 * forked processes; NULL at first. */
void *fm__process_get_job(void);
void fm__process_set_job(void *job);

#endif
