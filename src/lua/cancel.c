/* SPDX-License-Identifier: MIT */
/*
 * What a child does when it is asked to stop: SIGTERM sets a hook, which runs
 * the functions that on_cancel() was given before the next instruction, and
 * leaves.
 */
#include <signal.h>
#include <lauxlib.h>
#include "lua/job.h"

#define CANCEL_MASK (LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT)

/* Asked to stop, and the functions have not begun to run. */
static volatile sig_atomic_t is_due;

/* (list): take the last function from the list, and call it. */
static int call_last(lua_State *L)
{
    lua_Integer n = (lua_Integer)lua_rawlen(L, 1);

    lua_rawgeti(L, 1, n);
    lua_pushnil(L);
    lua_rawseti(L, 1, n);
    lua_call(L, 0, 0);
    return 0;
}

static void complain(lua_State *L)
{
    lua_writestringerror("fork_map.on_cancel: %s\n",
                         luaL_tolstring(L, -1, NULL));
    lua_pop(L, 2);
}

static void run_all(lua_State *L)
{
    if (!lua_checkstack(L, LUA_MINSTACK) ||
        fmL_push_kept(L, FML_KEPT_CANCEL) != LUA_TTABLE)
        return;
    while (lua_rawlen(L, -1) > 0) {
        lua_pushcfunction(L, call_last);
        lua_pushvalue(L, -2);
        if (lua_pcall(L, 1, 0, 0) != LUA_OK)
            complain(L);
    }
}

static void cancel_hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lua_sethook(L, NULL, 0, 0);
    fmL_cancel_look(L);
}

void fmL_cancel_look(lua_State *L)
{
    if (!is_due)
        return;
    is_due = 0;
    run_all(L);
    fm__child_end_cancelled();
}

/* In signal context: as lua.c's laction(). */
static void hear(void *ud)
{
    const struct fmL_job *job = ud;

    is_due = 1;
    lua_sethook(job->recorder.running, cancel_hook, CANCEL_MASK, 1);
}

/* on_cancel(fn) -> boolean: false when this is no child */
static int l_on_cancel(lua_State *L)
{
    struct fmL_job *job = fmL_get_job(L);

    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    if (job == NULL) {
        lua_pushboolean(L, 0);
        return 1;
    }
    if (!job->hears_cancel) {
        is_due = 0;
        lua_newtable(L);
        lua_pushvalue(L, -1);
        fmL_keep(L, FML_KEPT_CANCEL);
    } else {
        (void)fmL_push_kept(L, FML_KEPT_CANCEL);
    }
    lua_insert(L, 1);
    lua_rawseti(L, 1, (lua_Integer)lua_rawlen(L, 1) + 1);
    if (!job->hears_cancel) {
        job->hears_cancel = true;
        fm__child_hear_cancel(job->child, hear, job);
    }
    lua_pushboolean(L, 1);
    return 1;
}

void fmL_open_cancel(lua_State *L)
{
    lua_pushcfunction(L, l_on_cancel);
    lua_setfield(L, -2, "on_cancel");
}
