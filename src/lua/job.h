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

struct fmL_job {
    fm_child *child;
    const struct fmL_call *call;
    lua_State *thread;      /* runs the function */
    lua_State *main_thread; /* of the same Lua state */
    struct fmL_heap heap;
    struct fmL_recorder recorder;
};

/* The job of this process, in a child and in processes that it forked by other
 * means; NULL elsewhere. */
struct fmL_job *fmL_current_job(void);

/* The same if it runs in the Lua state of `L`, else NULL.  [-0, +0, -] */
struct fmL_job *fmL_get_job(lua_State *L);

#endif
