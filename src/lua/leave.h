/* SPDX-License-Identifier: MIT */
/* How a closure leaves its child: os.exit, in all its forms. */
#ifndef FM_LUA_LEAVE_H
#define FM_LUA_LEAVE_H

#include <lua.h>

/* In a child: replace os.exit, and put a guard on the main thread that meets a
 * copy of os.exit taken before the fork when it is told to close the state:
 * the host's __close and __gc metamethods must not run here.  `L` is the job's
 * thread.  [-0, +0, m] */
void fmL_leave_guard(lua_State *L);

/* At load: make what the guard needs.  [-0, +0, m] */
void fmL_open_leave(lua_State *L);

#endif
