/* SPDX-License-Identifier: MIT */
/* What the Lua half asks about this process: time, processors, terminal, and
 * the state of its random generator. */
#include <string.h>
#include <lauxlib.h>
#include "lua/binding.h"
#include "lua/job.h"
#include "os/clock.h"
#include "os/proc.h"
#include "os/sys.h"

/* now() -> seconds, by a clock that only goes forward */
static int l_now(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)fm__clock_now() * 1e-9);
    return 1;
}

/* count_cpus() -> how many processors this process may use */
static int l_count_cpus(lua_State *L)
{
    lua_pushinteger(L, fm__proc_count_cpus());
    return 1;
}

/* is_terminal(fd) -> boolean */
static int l_is_terminal(lua_State *L)
{
    lua_pushboolean(L, fm__proc_is_terminal((int)luaL_checkinteger(L, 1)));
    return 1;
}

/* own_pid() -> integer */
static int l_own_pid(lua_State *L)
{
    lua_pushinteger(L, fm__sys.getpid());
    return 1;
}

/* own_program() -> path | nil: of the program that this process runs */
static int l_own_program(lua_State *L)
{
    char path[4096];
    ssize_t len = fm__sys.readlink("/proc/self/exe", path, sizeof path);

    if (len <= 0 || (size_t)len == sizeof path)
        return 0;
    lua_pushlstring(L, path, (size_t)len);
    return 1;
}

/* is_below_map() -> boolean: a worker of a map, or a child below one? */
static int l_is_below_map(lua_State *L)
{
    lua_pushboolean(L, fmL_push_kept(L, FML_KEPT_BELOW_MAP) == LUA_TBOOLEAN &&
                           lua_toboolean(L, -1));
    return 1;
}

/* checksum(text, ...) -> integer: Fowler, Noll and Vo's hash of the texts and
 * of their lengths, 64 bits */
static int l_checksum(lua_State *L)
{
    uint64_t hash = 0xcbf29ce484222325;
    int n = lua_gettop(L);
    int i;

    for (i = 1; i <= n; i++) {
        size_t len, k;
        const char *s = luaL_checklstring(L, i, &len);

        for (k = 0; k < len; k++)
            hash = (hash ^ (unsigned char)s[k]) * 0x100000001b3;
        for (k = 0; k < sizeof len; k++)
            hash = (hash ^ (len >> (8 * k) & 0xff)) * 0x100000001b3;
    }
    lua_pushinteger(L, (lua_Integer)hash);
    return 1;
}

/* Lua 5.4 keeps the state of math.random, four words, in the first upvalue of
 * math.randomseed.  NULL when it is not there. */
static void *random_words(lua_State *L)
{
    void *words = NULL;

    if (fmL_push_kept(L, FML_KEPT_RANDOMSEED) == LUA_TFUNCTION &&
        lua_getupvalue(L, -1, 1) != NULL) {
        if (lua_type(L, -1) == LUA_TUSERDATA &&
            lua_rawlen(L, -1) == 4 * sizeof(uint64_t))
            words = lua_touserdata(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return words;
}

/* random_state() -> text | nil; random_state(text): put it back */
static int l_random_state(lua_State *L)
{
    void *words = random_words(L);
    size_t len;

    if (words == NULL)
        return 0;
    if (lua_isnoneornil(L, 1)) {
        lua_pushlstring(L, words, 4 * sizeof(uint64_t));
        return 1;
    }
    luaL_checktype(L, 1, LUA_TSTRING);
    if (lua_rawlen(L, 1) == 4 * sizeof(uint64_t))
        memcpy(words, lua_tolstring(L, 1, &len), 4 * sizeof(uint64_t));
    return 0;
}

/* random_seed(seed, index): math.random gives what it gives in a worker with
 * this seed for this item */
static int l_random_seed(lua_State *L)
{
    uint64_t seed[2];

    fm__seed_words((uint64_t)luaL_checkinteger(L, 1),
                   (uint64_t)luaL_checkinteger(L, 2) - 1, seed);
    fmL_job_seed(L, seed);
    return 0;
}

void fmL_open_host(lua_State *L)
{
    static const luaL_Reg functions[] = {{"now", l_now},
                                         {"count_cpus", l_count_cpus},
                                         {"is_terminal", l_is_terminal},
                                         {"own_pid", l_own_pid},
                                         {"own_program", l_own_program},
                                         {"is_below_map", l_is_below_map},
                                         {"checksum", l_checksum},
                                         {"random_state", l_random_state},
                                         {"random_seed", l_random_seed},
                                         {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
