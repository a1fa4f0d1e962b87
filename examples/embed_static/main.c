/* SPDX-License-Identifier: MIT */
/*
 * A host that runs one Lua script, with fork_map's C half linked in:
 *
 *   host SCRIPT LUA_DIRECTORY
 *
 * LUA_DIRECTORY holds fork_map.lua and fork_map/, the Lua half.
 */
#include <stdio.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

/* In libfork_map_lua.a; as any opener of a Lua module it has no header. */
int luaopen_fork_map_core(lua_State *L);

/* open(directory): the libraries, and require "fork_map" [-0, +0, e] */
static int open_libraries(lua_State *L)
{
    const char *directory = luaL_checkstring(L, 1);

    luaL_openlibs(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_fork_map_core);
    lua_setfield(L, -2, "fork_map.core");

    lua_getglobal(L, "package");
    lua_pushfstring(L, "%s/?.lua;%s/?/init.lua", directory, directory);
    lua_setfield(L, -2, "path");
    /* This host loads no C modules. */
    lua_pushliteral(L, "");
    lua_setfield(L, -2, "cpath");
    return 0;
}

static int run(lua_State *L, const char *script, const char *directory)
{
    int rc;

    lua_pushcfunction(L, open_libraries);
    lua_pushstring(L, directory);
    rc = lua_pcall(L, 1, 0, 0);
    if (rc == LUA_OK)
        rc = luaL_loadfile(L, script);
    if (rc == LUA_OK)
        rc = lua_pcall(L, 0, 0, 0);
    return rc;
}

int main(int argc, char **argv)
{
    lua_State *L;
    int rc;

    if (argc != 3) {
        (void)fprintf(stderr, "usage: %s SCRIPT LUA_DIRECTORY\n", argv[0]);
        return 2;
    }
    L = luaL_newstate();
    if (!L)
        return 1;
    rc = run(L, argv[1], argv[2]);
    if (rc != LUA_OK)
        (void)fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
    lua_close(L);
    return rc != LUA_OK;
}
