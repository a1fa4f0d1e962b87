/* SPDX-License-Identifier: MIT */
/*
 * One call in the parent: what holds its function and its arguments.
 *
 * A record is idle, or belongs to one job from fmL_call_start() until the
 * job's future has settled.  Nothing ever runs on its thread here: it only
 * keeps the values, so that every attempt finds them there.  The child runs
 * the job on its copy of that thread.
 */
#ifndef FM_LUA_CALL_H
#define FM_LUA_CALL_H

#include <lua.h>
#include "lua/binding.h"

struct fmL_call {
    struct fmL_engine *engine;
    struct fmL_call *next;      /* in fmL_engine.calls */
    struct fmL_call *next_idle; /* in fmL_engine.idle */
    lua_State *thread;          /* holds the function and its arguments */
    const struct fmL_options *options;
    char home[LUA_IDSIZE]; /* where the function is defined: source, */
    int home_line;         /* line */
};

#endif
