/* SPDX-License-Identifier: MIT */
/*
 * at_fork hooks of a Lua state: three lists of functions, run around every
 * fork of each of its engines.  `before` and `parent` run from the engine's
 * hooks; `child` runs in the job, below its protected call, so that an error
 * in it is told with its traceback.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/binding.h"

/* (list): call all, the last registered first. */
static int run_backwards(lua_State *L)
{
    lua_Integer i;

    for (i = (lua_Integer)lua_rawlen(L, 1); i >= 1; i--) {
        lua_rawgeti(L, 1, i);
        lua_call(L, 0, 0);
    }
    return 0;
}

/* (list): call all, the first registered first. */
static int run_forwards(lua_State *L)
{
    lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
    lua_Integer i;

    for (i = 1; i <= n; i++) {
        lua_rawgeti(L, 1, i);
        lua_call(L, 0, 0);
    }
    return 0;
}

/* Push `run` and the list of `key`; false when there are no hooks. */
static bool push_run(lua_State *L, enum fmL_kept key, lua_CFunction run)
{
    lua_pushcfunction(L, run);
    if (fmL_push_kept(L, key) == LUA_TTABLE)
        return true;
    lua_pop(L, 2);
    return false;
}

static int before_fork(void *ud)
{
    struct fmL_engine *box = ud;
    lua_State *L = box->L;
    const char *text;

    if (!lua_checkstack(L, LUA_MINSTACK))
        return -ENOMEM;
    box->hook_error[0] = '\0';
    if (!push_run(L, FML_KEPT_BEFORE, run_backwards))
        return 0;
    if (lua_pcall(L, 1, 0, 0) == LUA_OK)
        return 0;
    text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1)
                                          : luaL_typename(L, -1);
    (void)snprintf(box->hook_error, sizeof box->hook_error,
                   "an at_fork hook gave up the fork: %s", text);
    lua_pop(L, 1);
    return FML_EHOOK;
}

static int parent_after_fork(void *ud)
{
    struct fmL_engine *box = ud;
    lua_State *L = box->L;

    if (!lua_checkstack(L, LUA_MINSTACK))
        return 0;
    if (push_run(L, FML_KEPT_PARENT, run_forwards))
        fmL_callback(L, box, 1);
    return 0;
}

int fmL_hooks_attach(struct fmL_engine *box)
{
    int id = fm_at_fork(box->engine, before_fork, parent_after_fork, NULL, box);

    return id < 0 ? id : 0;
}

void fmL_hooks_run_child(lua_State *L)
{
    if (push_run(L, FML_KEPT_CHILD, run_forwards))
        lua_call(L, 1, 0);
}

/* Append the function at `idx`, if there is one, to the list of `key`. */
static void append(lua_State *L, enum fmL_kept key, int idx)
{
    if (lua_isnoneornil(L, idx))
        return;
    luaL_checktype(L, idx, LUA_TFUNCTION);
    if (fmL_push_kept(L, key) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_createtable(L, 1, 0);
        lua_pushvalue(L, -1);
        fmL_keep(L, key);
    }
    lua_pushvalue(L, idx);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_pop(L, 1);
}

/* at_fork(before, parent, child): each a function or nil */
static int l_at_fork(lua_State *L)
{
    append(L, FML_KEPT_BEFORE, 1);
    append(L, FML_KEPT_PARENT, 2);
    append(L, FML_KEPT_CHILD, 3);
    return 0;
}

void fmL_open_hooks(lua_State *L)
{
    lua_pushcfunction(L, l_at_fork);
    lua_setfield(L, -2, "at_fork");
}
