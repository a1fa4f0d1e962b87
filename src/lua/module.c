/* SPDX-License-Identifier: MIT */
/*
 * fork_map.core: the C half of the Lua module.  lua/fork_map/core.d.lua says
 * what its functions do; users see lua/fork_map.lua.
 */
#include <lauxlib.h>
#include "lua/binding.h"
#include "lua/leave.h"
#include "lua/map.h"
#include "lua/recorder.h"

/* Registry key of the table of enum fmL_kept. */
static const char kept_key;

static void push_all_kept(lua_State *L)
{
    (void)lua_rawgetp(L, LUA_REGISTRYINDEX, &kept_key);
}

int fmL_push_kept(lua_State *L, enum fmL_kept key)
{
    int type;

    push_all_kept(L);
    type = lua_rawgeti(L, -1, key);
    lua_remove(L, -2);
    return type;
}

void fmL_keep(lua_State *L, enum fmL_kept key)
{
    push_all_kept(L);
    lua_insert(L, -2);
    lua_rawseti(L, -2, key);
    lua_pop(L, 1);
}

void fmL_replace(lua_State *L, enum fmL_kept library, enum fmL_kept name,
                 enum fmL_kept fn)
{
    push_all_kept(L);
    if (lua_rawgeti(L, -1, library) == LUA_TTABLE) {
        lua_rawgeti(L, -2, name);
        lua_rawgeti(L, -3, fn);
        lua_rawset(L, -3);
    }
    lua_pop(L, 2);
}

bool fmL_in_finalizer(lua_State *L)
{
    /* Inside one, lua_gc() refuses every request. */
    return lua_gc(L, LUA_GCCOUNT, 0) < 0;
}

/* Keep the library `name`, or the function `field` of it. */
static void keep_library(lua_State *L, enum fmL_kept key, const char *name,
                         const char *field)
{
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, name);
    if (field != NULL && lua_istable(L, -1)) {
        lua_getfield(L, -1, field);
        lua_remove(L, -2);
    }
    fmL_keep(L, key);
    lua_pop(L, 1);
}

static void open_kept(lua_State *L)
{
    int key;

    /* A second copy of the module's table shares what the first one keeps. */
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &kept_key) == LUA_TTABLE) {
        lua_pop(L, 1);
        return;
    }
    lua_pop(L, 1);
    lua_createtable(L, FML_KEPT_COUNT, 0);
    for (key = 1; key <= FML_KEPT_COUNT; key++) {
        lua_pushboolean(L, 0);
        lua_rawseti(L, -2, key);
    }
    lua_rawsetp(L, LUA_REGISTRYINDEX, &kept_key);
    keep_library(L, FML_KEPT_OS, "os", NULL);
    keep_library(L, FML_KEPT_COROUTINE, "coroutine", NULL);
    keep_library(L, FML_KEPT_RANDOMSEED, "math", "randomseed");
    fmL_open_leave(L);
    fmL_open_recorder(L);
}

/* prepare() -> seconds of a fork before, seconds after, bytes collapsed */
static int l_prepare(lua_State *L)
{
    struct fm_prepare_report report;
    int rc;

    (void)lua_gc(L, LUA_GCCOLLECT, 0);
    rc = fm_prepare(&report);
    if (rc < 0)
        return luaL_error(L, "fork_map.prepare: %s", fm_strerror(rc));
    lua_pushnumber(L, (lua_Number)report.fork_before_ns * 1e-9);
    lua_pushnumber(L, (lua_Number)report.fork_after_ns * 1e-9);
    lua_pushinteger(L, (lua_Integer)report.bytes);
    return 3;
}

FM_API int luaopen_fork_map_core(lua_State *L);

FM_API int luaopen_fork_map_core(lua_State *L)
{
    luaL_checkversion(L);
    open_kept(L);
    lua_createtable(L, 0, 112);
    fmL_open_error(L);
    fmL_open_engine(L);
    fmL_open_options(L);
    fmL_open_future(L);
    fmL_open_spawn(L);
    fmL_open_hooks(L);
    fmL_open_codec(L);
    fmL_open_host(L);
    fmL_open_cancel(L);
    fmL_open_inline(L);
    fmL_open_map(L);
    fmL_open_source(L);
    fmL_open_item(L);
    fmL_open_pool(L);
    fmL_open_serve(L);
    fmL_open_wait_fd(L);
    fmL_open_channel(L);
    fmL_open_template(L);
    fmL_open_server(L);
    lua_pushcfunction(L, l_prepare);
    lua_setfield(L, -2, "prepare");
    lua_pushstring(L, fm_version());
    lua_setfield(L, -2, "version");
    return 1;
}
