/* SPDX-License-Identifier: MIT */
/*
 * fork-map-template: a Lua interpreter that serves as a template.
 *
 *     fork-map-template [PATH CPATH] FD     over the socket FD of its host
 *     fork-map-template [PATH CPATH] -      over its standard streams
 *
 * PATH and CPATH are package.path and package.cpath of the host.  The core of
 * fork_map is in the program; its Lua files are found by package.path.
 */
#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

int luaopen_fork_map_core(lua_State *L);

struct arguments {
    const char *path, *cpath, *fd;
};

static void set_paths(lua_State *L, const struct arguments *arguments)
{
    if (!arguments->path)
        return;
    lua_getglobal(L, "package");
    lua_pushstring(L, arguments->path);
    lua_setfield(L, -2, "path");
    lua_pushstring(L, arguments->cpath);
    lua_setfield(L, -2, "cpath");
    lua_pop(L, 1);
}

/* (arguments): everything, protected. */
static int run(lua_State *L)
{
    const struct arguments *arguments = lua_touserdata(L, 1);

    luaL_openlibs(L);
    set_paths(L, arguments);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_fork_map_core);
    lua_setfield(L, -2, "fork_map.core");
    lua_getglobal(L, "require");
    lua_pushliteral(L, "fork_map.server");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "serve");
    lua_pushstring(L, arguments->fd);
    lua_call(L, 1, 0);
    return 0;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {NULL, NULL, NULL};
    const char *text;
    lua_State *L;
    int status;

    if (argc != 2 && argc != 4) {
        (void)fprintf(stderr, "usage: %s [PATH CPATH] FD\n", argv[0]);
        return EXIT_FAILURE;
    }
    arguments.fd = argv[argc - 1];
    if (argc == 4) {
        arguments.path = argv[1];
        arguments.cpath = argv[2];
    }
    L = luaL_newstate();
    if (L == NULL) {
        (void)fprintf(stderr, "%s: not enough memory\n", argv[0]);
        return EXIT_FAILURE;
    }
    lua_pushcfunction(L, run);
    lua_pushlightuserdata(L, &arguments);
    status = lua_pcall(L, 1, 0, 0);
    if (status != LUA_OK) {
        text = lua_tostring(L, -1);
        (void)fprintf(stderr, "%s: %s\n", argv[0],
                      text != NULL ? text : "an error without a text");
    }
    lua_close(L);
    return status == LUA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
