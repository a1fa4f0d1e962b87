/* SPDX-License-Identifier: MIT */
/*
 * Calls from Lua states that run out of memory: the k-th allocation of a state
 * fails, for every k, in the host or in its children, once or from then on.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

int luaopen_specs_starve(lua_State *L);
int luaopen_fork_map_core(lua_State *L);

/* A state and its memory. */
struct host {
    lua_State *L;
    pid_t owner;
    bool is_sticky, in_child, is_armed;
    long left;     /* allocations that still succeed */
    bool *reached; /* shared with the children */
    size_t bytes;
};

static bool is_starved(struct host *host)
{
    if (!host->is_armed || (getpid() != host->owner) != host->in_child)
        return false;
    if (host->left > 0) {
        host->left--;
        return false;
    }
    *host->reached = true;
    if (!host->is_sticky)
        host->is_armed = false;
    return true;
}

static void *host_alloc(void *ud, void *p, size_t osize, size_t nsize)
{
    struct host *host = ud;
    void *moved;

    osize = p != NULL ? osize : 0;
    if (nsize == 0) {
        free(p);
        host->bytes -= osize;
        return NULL;
    }
    if (nsize > osize && is_starved(host))
        return NULL;
    moved = realloc(p, nsize);
    if (moved != NULL)
        host->bytes += nsize - osize;
    return moved;
}

/* -> host: with `path` and `cpath` as the caller's, `code` was run in it */
static int l_open(lua_State *L)
{
    const char *code = luaL_checkstring(L, 1);
    const char *path = luaL_checkstring(L, 2);
    const char *cpath = luaL_checkstring(L, 3);
    struct host *host = lua_newuserdatauv(L, sizeof *host, 0);

    memset(host, 0, sizeof *host);
    luaL_setmetatable(L, "specs.starve.Host");
    host->owner = getpid();
    host->reached = mmap(NULL, sizeof *host->reached, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (host->reached == MAP_FAILED)
        return luaL_error(L, "no shared memory");
    host->L = lua_newstate(host_alloc, host);
    if (host->L == NULL)
        return luaL_error(L, "no memory for a Lua state");
    luaL_openlibs(host->L);
    luaL_getsubtable(host->L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(host->L, luaopen_fork_map_core);
    lua_setfield(host->L, -2, "fork_map.core");
    lua_getglobal(host->L, "package");
    lua_pushstring(host->L, path);
    lua_setfield(host->L, -2, "path");
    lua_pushstring(host->L, cpath);
    lua_setfield(host->L, -2, "cpath");
    lua_settop(host->L, 0);
    if (luaL_dostring(host->L, code))
        return luaL_error(L, "%s", lua_tostring(host->L, -1));
    return 1;
}

static struct host *check_host(lua_State *L)
{
    struct host *host = luaL_checkudata(L, 1, "specs.starve.Host");

    luaL_argcheck(L, host->L != NULL, 1, "closed");
    return host;
}

/* Call the global function; pushes nil, or its failure as text. */
static void call_global(lua_State *L, lua_State *host, const char *name)
{
    lua_settop(host, 0);
    lua_getglobal(host, name);
    if (lua_pcall(host, 0, 0, 0) == LUA_OK)
        lua_pushnil(L);
    else
        lua_pushstring(L, luaL_tolstring(host, -1, NULL));
}

/* (host, name, k, is_sticky, in_child): what failed or nil, and whether the
 * k-th allocation was reached */
static int l_run(lua_State *L)
{
    struct host *host = check_host(L);
    const char *name = luaL_checkstring(L, 2);
    long k = (long)luaL_checkinteger(L, 3);
    lua_State *starved = host->L;
    int rc;

    host->is_sticky = lua_toboolean(L, 4);
    host->in_child = lua_toboolean(L, 5);
    host->left = k - 1;
    *host->reached = false;
    lua_settop(starved, 0);
    (void)lua_gc(starved, LUA_GCCOLLECT);
    lua_getglobal(starved, name);
    host->is_armed = true;
    rc = lua_pcall(starved, 0, 0, 0);
    host->is_armed = false;
    if (rc == LUA_OK)
        lua_pushnil(L);
    else
        lua_pushstring(L, luaL_tolstring(starved, -1, NULL));
    lua_pushboolean(L, *host->reached);
    return 2;
}

/* (host, name): what failed or nil, with all the memory that there is */
static int l_call(lua_State *L)
{
    struct host *host = check_host(L);

    call_global(L, host->L, luaL_checkstring(L, 2));
    return 1;
}

/* (host): bytes in use after a full collection */
static int l_bytes(lua_State *L)
{
    struct host *host = check_host(L);

    lua_settop(host->L, 0);
    (void)lua_gc(host->L, LUA_GCCOLLECT);
    (void)lua_gc(host->L, LUA_GCCOLLECT);
    lua_pushinteger(L, (lua_Integer)host->bytes);
    return 1;
}

/* (host): bytes that its state did not give back */
static int l_close(lua_State *L)
{
    struct host *host = luaL_checkudata(L, 1, "specs.starve.Host");

    if (host->L != NULL && host->owner == getpid()) {
        lua_close(host->L);
        (void)munmap(host->reached, sizeof *host->reached);
    }
    host->L = NULL;
    lua_pushinteger(L, (lua_Integer)host->bytes);
    return 1;
}

int luaopen_specs_starve(lua_State *L)
{
    static const luaL_Reg functions[] = {{"open", l_open},   {"run", l_run},
                                         {"call", l_call},   {"bytes", l_bytes},
                                         {"close", l_close}, {NULL, NULL}};

    if (luaL_newmetatable(L, "specs.starve.Host")) {
        lua_pushcfunction(L, l_close);
        lua_setfield(L, -2, "__gc");
    }
    luaL_newlib(L, functions);
    return 1;
}
