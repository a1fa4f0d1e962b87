/* SPDX-License-Identifier: MIT */
/*
 * The flight recorder's Lua half: says which line a child is in, when asked by
 * a signal, at no cost in between.
 *
 * The signal handler does what lua.c does for Ctrl-C: it sets a hook on the
 * thread that is running, the one thing that Lua allows there.  The hook fires
 * at the next instruction, notes the line, and puts back what was there.
 *
 * Which thread runs is known from `running`, which the child's own
 * coroutine.resume and coroutine.wrap keep.  Copies of the original functions
 * that were taken before the fork resume unseen: then the line is that of the
 * resume, as soon as it returns.  A thread with a count hook of its own is
 * left alone: setting a hook would start its count again.
 */
#ifndef FM_LUA_RECORDER_H
#define FM_LUA_RECORDER_H

#include <signal.h>
#include <lua.h>
#include "engine/bind.h"

/* Threads with a hook of their own that may be away at the same time. */
#define FML_RECORDER_SLOTS 8

struct fmL_recorder_slot {
    lua_State *volatile thread; /* NULL: free */
    lua_Hook hook;              /* what was there */
    int mask, count;
};

struct fmL_recorder {
    fm_child *child;
    lua_State *volatile running;
    volatile sig_atomic_t busy;  /* the hook works on the slots */
    volatile sig_atomic_t noted; /* a line was noted */
    struct fmL_recorder_slot slots[FML_RECORDER_SLOTS];
    const char *home; /* where the job's function is defined */
    int home_line;
};

/* Begin, until fm__child_sample() says otherwise: `L` is the job's thread, and
 * `recorder` has child, home and home_line.  Replaces coroutine.resume and
 * coroutine.wrap in the child's `coroutine` table.  [-0, +0, m] */
void fmL_recorder_start(lua_State *L, struct fmL_recorder *recorder);

/* At load: make the functions that replace others.  [-0, +0, m] */
void fmL_open_recorder(lua_State *L);

#endif
