/* SPDX-License-Identifier: MIT */
/*
 * The job of a call in its child.  It lives on the C stack of the child's main
 * function, which never returns, so that no page of the host's heap is copied
 * for it.
 */
#ifndef FM_LUA_JOB_H
#define FM_LUA_JOB_H

#include <lua.h>
#include "engine/bind.h"
#include "lua/binding.h"
#include "lua/heap.h"
#include "lua/recorder.h"

struct fmL_map;

struct fmL_job {
    fm_child *child;
    const struct fmL_call *call;
    fm_worker *worker;      /* of a map that runs here, or NULL */
    const fm_worker *place; /* the same, or that which this item is of */
    const struct fmL_map *map;
    lua_State *thread;      /* runs the function */
    lua_State *main_thread; /* of the same Lua state */
    struct fmL_heap heap;
    struct fmL_recorder recorder;
    bool hears_cancel; /* on_cancel() was called */
};

/* The job of this process, in a child and in processes that it forked by other
 * means; NULL elsewhere. */
struct fmL_job *fmL_current_job(void);

/* The same if it runs in the Lua state of `L`, else NULL.  [-0, +0, -] */
struct fmL_job *fmL_get_job(lua_State *L);

/* What the jobs of calls and of workers share. */

/* Run `body(job, …)` on the call's thread, with what lies there as arguments,
 * below all protected calls.  It returns a code.  Returns as a job function. */
int fmL_job_run(struct fmL_job *job, lua_CFunction body);

/* At the beginning of the body: leave what is the host's, seed, record, run
 * the at_fork hooks.  [-0, +0, e] */
void fmL_job_begin(lua_State *L, struct fmL_job *job);

/* Message handler of the user's functions: keeps the traceback.  [-0, +1, m] */
int fmL_job_on_error(lua_State *L);

/* Push the message of the error object at `value`, and the traceback or nil.
 * Both are short enough to be sent.  [-0, +2, m] */
void fmL_job_push_texts(lua_State *L, int value);

/* Should the value be sent beside the message?  [-0, +0, -] */
bool fmL_job_sends_value(lua_State *L, int value);

/* Did it end because it may not have more memory? */
bool fmL_job_is_out_of_memory(lua_State *L, const struct fmL_job *job,
                              int status);

/* The job failed with this status and the error object on the top.
 * [-0, +*, e] */
void fmL_job_report(lua_State *L, struct fmL_job *job, int status);

/* The values from index `first` up are the result.  Returns as a job function.
 * [-0, +*, e] */
int fmL_job_send_results(lua_State *L, const struct fmL_job *job, int first);

/* math.randomseed(seed).  [-0, +0, e] */
void fmL_job_seed(lua_State *L, const uint64_t seed[2]);

#endif
