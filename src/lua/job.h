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
#include "lua/call.h"
#include "lua/heap.h"
#include "lua/recorder.h"

struct fmL_job {
    fm_child *child;
    const struct fmL_call *call;
    lua_State *thread; /* runs the function */
    struct fmL_heap heap;
    struct fmL_recorder recorder;
};

#endif
