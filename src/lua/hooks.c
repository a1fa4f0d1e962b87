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

/* How many were registered: each has a place in all three lists, which holds
 * false where it has no function. */
static lua_Integer count_hooks(lua_State *L)
{
    lua_Integer n = 0;

    if (fmL_push_kept(L, FML_KEPT_BEFORE) == LUA_TTABLE)
        n = (lua_Integer)lua_rawlen(L, -1);
    lua_pop(L, 1);
    return n;
}

/* Push the function at place `i` of a list; false when there is none. */
static bool push_hook(lua_State *L, enum fmL_kept key, lua_Integer i)
{
    int top = lua_gettop(L);

    if (fmL_push_kept(L, key) == LUA_TTABLE &&
        lua_rawgeti(L, -1, i) == LUA_TFUNCTION) {
        lua_remove(L, -2);
        return true;
    }
    lua_settop(L, top);
    return false;
}

/* (place): call all `before` functions, the last registered first.  *place is
 * that of the one that runs. */
static int run_before(lua_State *L)
{
    lua_Integer *place = lua_touserdata(L, 1);

    for (*place = count_hooks(L); *place >= 1; --*place) {
        if (push_hook(L, FML_KEPT_BEFORE, *place))
            lua_call(L, 0, 0);
    }
    return 0;
}

/* Call the `parent` functions behind place `place`, the first registered
 * first, whatever the others raise. */
static void run_parents(struct fmL_engine *box, lua_Integer place)
{
    lua_State *L = box->L;
    lua_Integer n = count_hooks(L);

    while (++place <= n) {
        if (push_hook(L, FML_KEPT_PARENT, place))
            fmL_callback(L, box, 0);
    }
}

static int before_fork(void *ud)
{
    struct fmL_engine *box = ud;
    lua_State *L = box->L;
    lua_Integer place = LUA_MAXINTEGER;
    const char *text;

    if (!lua_checkstack(L, LUA_MINSTACK))
        return -ENOMEM;
    box->hook_error[0] = '\0';
    if (count_hooks(L) == 0)
        return 0;
    lua_pushcfunction(L, run_before);
    lua_pushlightuserdata(L, &place);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK)
        return 0;
    text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1)
                                          : luaL_typename(L, -1);
    (void)snprintf(box->hook_error, sizeof box->hook_error,
                   "an at_fork hook gave up the fork: %s", text);
    lua_pop(L, 1);
    /* Those that ran before it prepared for a fork. */
    if (place < LUA_MAXINTEGER)
        run_parents(box, place);
    return FML_EHOOK;
}

static int parent_after_fork(void *ud)
{
    struct fmL_engine *box = ud;

    if (lua_checkstack(box->L, LUA_MINSTACK))
        run_parents(box, 0);
    return 0;
}

int fmL_hooks_attach(struct fmL_engine *box, fm_engine *engine)
{
    int id = fm_at_fork(engine, before_fork, parent_after_fork, NULL, box);

    return id < 0 ? id : 0;
}

void fmL_hooks_run_child(lua_State *L)
{
    lua_Integer n = count_hooks(L);
    lua_Integer i;

    for (i = 1; i <= n; i++) {
        if (push_hook(L, FML_KEPT_CHILD, i))
            lua_call(L, 0, 0);
    }
}

/* Put the function at `idx`, or false, at place `i` of the list of `key`. */
static void place_hook(lua_State *L, enum fmL_kept key, lua_Integer i, int idx)
{
    if (fmL_push_kept(L, key) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_createtable(L, 1, 0);
        lua_pushvalue(L, -1);
        fmL_keep(L, key);
    }
    if (lua_isnoneornil(L, idx))
        lua_pushboolean(L, 0);
    else
        lua_pushvalue(L, idx);
    lua_rawseti(L, -2, i);
    lua_pop(L, 1);
}

/* at_fork(before, parent, child): each a function or nil */
static int l_at_fork(lua_State *L)
{
    lua_Integer i;
    int idx;

    lua_settop(L, 3);
    for (idx = 1; idx <= 3; idx++) {
        if (!lua_isnil(L, idx))
            luaL_checktype(L, idx, LUA_TFUNCTION);
    }
    i = count_hooks(L) + 1;
    /* The list that is counted comes last: out of memory, nothing changed. */
    place_hook(L, FML_KEPT_CHILD, i, 3);
    place_hook(L, FML_KEPT_PARENT, i, 2);
    place_hook(L, FML_KEPT_BEFORE, i, 1);
    return 0;
}

void fmL_open_hooks(lua_State *L)
{
    lua_pushcfunction(L, l_at_fork);
    lua_setfield(L, -2, "at_fork");
}
