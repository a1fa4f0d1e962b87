/* SPDX-License-Identifier: MIT */
/*
 * A host with threads that wants children all the same:
 *
 *   host SCRIPT LUA_DIRECTORY
 *
 * Before it has any thread it calls fork_map.early(), which keeps a copy of it
 * as it is then: what templates are forked from.  Then it starts its threads,
 * each of which holds the same lock most of the time, and runs SCRIPT with the
 * number of threads as its argument.  A copy of the host as it is then could
 * not take that lock; a copy of the early one has neither the lock nor the
 * threads.
 *
 * LUA_DIRECTORY holds fork_map.lua and fork_map/, the Lua half.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#define N_THREADS 4

/* In libfork_map_lua.a; as any opener of a Lua module it has no header. */
int luaopen_fork_map_core(lua_State *L);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool is_over;

/* host.count(): what needs the lock.  Returns how often it was called. */
static int l_count(lua_State *L)
{
    static lua_Integer n;

    (void)pthread_mutex_lock(&lock);
    lua_pushinteger(L, ++n);
    (void)pthread_mutex_unlock(&lock);
    return 1;
}

/* open(directory): the libraries, host, and the early copy  [-0, +0, e] */
static int open_libraries(lua_State *L)
{
    static const luaL_Reg functions[] = {{"count", l_count}, {NULL, NULL}};
    const char *directory = luaL_checkstring(L, 1);

    luaL_openlibs(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_fork_map_core);
    lua_setfield(L, -2, "fork_map.core");
    luaL_newlib(L, functions);
    lua_setglobal(L, "host");

    lua_getglobal(L, "package");
    lua_pushfstring(L, "%s/?.lua;%s/?/init.lua", directory, directory);
    lua_setfield(L, -2, "path");

    lua_getglobal(L, "require");
    lua_pushliteral(L, "fork_map");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "early");
    lua_call(L, 0, 0);
    return 0;
}

static void *thread_main(void *ud)
{
    (void)ud;
    while (!atomic_load(&is_over)) {
        (void)pthread_mutex_lock(&lock);
        for (volatile int i = 0; i < 10000; i++)
            ;
        (void)pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static int run_script(lua_State *L, const char *script, int n_threads)
{
    int rc = luaL_loadfile(L, script);

    if (rc == LUA_OK) {
        lua_pushinteger(L, n_threads);
        rc = lua_pcall(L, 1, 0, 0);
    }
    return rc;
}

/* The script, while threads run. */
static int run_beside_threads(lua_State *L, const char *script)
{
    pthread_t threads[N_THREADS];
    int n = 0;
    int rc;

    while (n < N_THREADS &&
           pthread_create(&threads[n], NULL, thread_main, NULL) == 0)
        n++;
    rc = run_script(L, script, n);
    atomic_store(&is_over, true);
    while (n > 0)
        (void)pthread_join(threads[--n], NULL);
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
    lua_pushcfunction(L, open_libraries);
    lua_pushstring(L, argv[2]);
    rc = lua_pcall(L, 1, 0, 0);
    if (rc == LUA_OK)
        rc = run_beside_threads(L, argv[1]);
    if (rc != LUA_OK)
        (void)fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
    lua_close(L);
    return rc != LUA_OK;
}
