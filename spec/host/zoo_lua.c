/* SPDX-License-Identifier: MIT */
/*
 * What the Lua module does, in every host of the zoo: zoo.lua, with the module
 * linked in, in one Lua state and in two at a time.  See zoo/zoo.h.
 */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "zoo/zoo.h"

int luaopen_fork_map_core(lua_State *L);

/* The table that zoo.lua gets: what the conditions amount to. */
static void push_host(lua_State *L)
{
    lua_createtable(L, 0, 2);
    lua_pushboolean(L, zoo_host.loses_status);
    lua_setfield(L, -2, "loses_status");
    lua_pushboolean(L, zoo_host.can_ask);
    lua_setfield(L, -2, "can_ask");
}

static int message_handler(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static void run_suite(lua_State *L)
{
    luaL_openlibs(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_fork_map_core);
    lua_setfield(L, -2, "fork_map.core");
    lua_getglobal(L, "package");
    lua_pushliteral(L, ZOO_ROOT "/lua/?.lua");
    lua_setfield(L, -2, "path");
    lua_settop(L, 0);
    lua_pushcfunction(L, message_handler);
    if (luaL_loadfile(L, ZOO_ROOT "/spec/host/zoo.lua") == LUA_OK) {
        push_host(L);
        if (lua_pcall(L, 1, 0, 1) == LUA_OK)
            return;
    }
    (void)dprintf(zoo_host.report_fd, "%s\n", lua_tostring(L, -1));
    _exit(1);
}

static void *run_state(void *ud)
{
    lua_State *L = luaL_newstate();

    zoo_must(L != NULL, "luaL_newstate");
    run_suite(L);
    lua_close(L);
    return ud;
}

/* One state by itself, then two, each in a thread of its own. */
static void suite(void)
{
    pthread_t thread;

    (void)run_state(NULL);
    if (!zoo_may_allocate)
        return;
    zoo_must(pthread_create(&thread, NULL, run_state, NULL) == 0, "thread");
    (void)run_state(NULL);
    zoo_must(pthread_join(thread, NULL) == 0, "thread");
}

int main(int argc, char **argv)
{
    zoo_hammers_locks = true;
    return zoo_main(argc, argv, suite);
}
