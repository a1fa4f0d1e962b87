/* SPDX-License-Identifier: MIT */
/*
 * How a closure leaves its child: os.exit, in all its forms.
 *
 * The child's `os` table has an os.exit of ours.  A copy of the original that
 * was taken before the fork may be told to close the state, which would run
 * the host's __close and __gc metamethods.  lua_close() begins with the newest
 * to-be-closed variable of the main thread, so that one has to be ours: it is
 * the future of the call, when its caller is the main thread, else a guard
 * that the child puts there.
 */
#ifndef FM_LUA_LEAVE_H
#define FM_LUA_LEAVE_H

#include <lua.h>

/* In a child: replace os.exit, and guard the main thread unless it is
 * `closing`, the thread whose newest to-be-closed variable is a future.  `L` is
 * the job's thread.  [-0, +0, m] */
void fmL_leave_guard(lua_State *L, const lua_State *closing);

/* In __close of what lua_close() meets first: leave, if this process is a
 * child, with the code that os.exit was given.  [-0, +0, -] */
void fmL_leave_closing(lua_State *L);

/* [-0, +0, -] */
lua_State *fmL_main_thread(lua_State *L);

/* At load: make what the child needs.  [-0, +0, m] */
void fmL_open_leave(lua_State *L);

#endif
