/* SPDX-License-Identifier: MIT */
/*
 * One call: what a job needs to run, in the parent and in the child.
 *
 * A record is idle, or belongs to one job from fmL_call_start() until the
 * job's future has settled.  In the parent nothing ever runs on its thread: it
 * only holds the function and the arguments, so that every attempt finds them
 * there.  The child runs the job on its copy of that thread.
 */
#ifndef FM_LUA_CALL_H
#define FM_LUA_CALL_H

#include <lua.h>
#include "lua/binding.h"
#include "lua/heap.h"
#include "lua/recorder.h"

struct fmL_call {
    struct fmL_engine *engine;
    struct fmL_call *next;      /* in fmL_engine.calls */
    struct fmL_call *next_idle; /* in fmL_engine.idle */
    lua_State *thread;          /* holds the function and its arguments */
    const struct fmL_options *options;

    /* What follows is used in the child only. */
    fm_child *child;
    struct fmL_heap heap;
    struct fmL_recorder recorder;
};

#endif
