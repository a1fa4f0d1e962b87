/* SPDX-License-Identifier: MIT */
/*
 * The userdata around an engine, and the way from the engine's callbacks into
 * Lua.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/binding.h"

struct fmL_engine *fmL_check_engine(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, FML_ENGINE_MT);
}

lua_State *fmL_enter(lua_State *L, struct fmL_engine *box)
{
    lua_State *previous = box->L;

    box->L = L;
    return previous;
}

void fmL_leave(struct fmL_engine *box, lua_State *previous)
{
    box->L = previous;
}

/* ------------------------------------------------------------------ callbacks
 */

void fmL_push_callbacks(lua_State *L, struct fmL_engine *box)
{
    (void)lua_rawgetp(L, LUA_REGISTRYINDEX, box);
}

/* (engine, message): give the text to on_warning, or print it. */
static int warn_protected(lua_State *L)
{
    fmL_push_callbacks(L, lua_touserdata(L, 1));
    if (lua_istable(L, -1) && lua_getfield(L, -1, "on_warning") != LUA_TNIL) {
        lua_pushstring(L, lua_touserdata(L, 2));
        lua_call(L, 1, 0);
    } else {
        lua_writestringerror("%s\n", (const char *)lua_touserdata(L, 2));
    }
    return 0;
}

/* Engine: a text that the user should see. */
static void warn(const char *message, void *ud)
{
    struct fmL_engine *box = ud;
    lua_State *L = box->L;

    if (L == NULL || !lua_checkstack(L, LUA_MINSTACK))
        return;
    lua_pushcfunction(L, warn_protected);
    lua_pushlightuserdata(L, box);
    lua_pushlightuserdata(L, (void *)(uintptr_t)message);
    if (lua_pcall(L, 2, 0, 0) != LUA_OK) {
        lua_writestringerror("%s\n", message);
        lua_writestringerror("fork_map: on_warning failed: %s\n",
                             lua_type(L, -1) == LUA_TSTRING
                                 ? lua_tostring(L, -1)
                                 : luaL_typename(L, -1));
        lua_pop(L, 1);
    }
}

/* (engine, error, why) */
static int unhandled_protected(lua_State *L)
{
    struct fmL_engine *box = lua_touserdata(L, 1);

    fmL_push_callbacks(L, box);
    if (lua_istable(L, -1) && lua_getfield(L, -1, "on_unhandled") != LUA_TNIL) {
        lua_pushvalue(L, 2);
        lua_pushstring(L, lua_touserdata(L, 3));
        lua_call(L, 2, 0);
        return 0;
    }
    luaL_tolstring(L, 2, NULL);
    lua_pushfstring(L, "fork_map: unhandled error (%s): %s",
                    (const char *)lua_touserdata(L, 3), lua_tostring(L, -1));
    warn(lua_tostring(L, -1), box);
    return 0;
}

void fmL_unhandled(lua_State *L, struct fmL_engine *box, const char *why)
{
    lua_State *previous = fmL_enter(L, box);

    if (!lua_checkstack(L, LUA_MINSTACK)) {
        lua_pop(L, 1);
        fmL_leave(box, previous);
        return;
    }
    lua_pushcfunction(L, unhandled_protected);
    lua_insert(L, -2);
    lua_pushlightuserdata(L, box);
    lua_insert(L, -2);
    /* A pointer, as here nothing may run out of memory. */
    lua_pushlightuserdata(L, (void *)(uintptr_t)why);
    if (lua_pcall(L, 3, 0, 0) != LUA_OK) {
        warn("fork_map: on_unhandled failed, and an error is lost", box);
        lua_pop(L, 1);
    }
    fmL_leave(box, previous);
}

void fmL_callback(lua_State *L, struct fmL_engine *box, int nargs)
{
    if (lua_pcall(L, nargs, 0, 0) != LUA_OK)
        fmL_unhandled(L, box, "callback");
}

/* -------------------------------------------------------------------- options
 */

static unsigned get_bound(lua_State *L, int idx, const char *field)
{
    lua_Integer n;

    lua_getfield(L, idx, field);
    n = luaL_optinteger(L, -1, 0);
    lua_pop(L, 1);
    luaL_argcheck(L, n >= 0 && n <= INT_MAX, idx, field);
    return (unsigned)n;
}

/* Read the table at `idx`.  on_threads stays `threads` when it is not there. */
static void get_opts(lua_State *L, int idx, struct fm_engine_opts *opts,
                     enum fm_on_threads threads)
{
    static const char *const names[] = {"warn", "refuse", "ignore", NULL};
    static const enum fm_on_threads policies[] = {
        FM_THREADS_WARN, FM_THREADS_REFUSE, FM_THREADS_IGNORE};

    luaL_checktype(L, idx, LUA_TTABLE);
    opts->max_children = get_bound(L, idx, "max_children");
    opts->max_depth = get_bound(L, idx, "max_depth");
    opts->on_threads = threads;
    if (lua_getfield(L, idx, "on_threads") != LUA_TNIL)
        opts->on_threads = policies[luaL_checkoption(L, -1, NULL, names)];
    lua_pop(L, 1);
    opts->on_warning = warn;
}

/* Copy the callbacks of the table at `idx` to the table on the top of the
 * stack; false there removes one. */
static void keep_callbacks(lua_State *L, int idx)
{
    static const char *const names[] = {"on_warning", "on_unhandled"};
    size_t i;

    for (i = 0; i < sizeof names / sizeof *names; i++) {
        if (lua_getfield(L, idx, names[i]) == LUA_TFUNCTION) {
            lua_setfield(L, -2, names[i]);
            continue;
        }
        if (lua_isboolean(L, -1)) {
            lua_pushnil(L);
            lua_setfield(L, -3, names[i]);
        }
        lua_pop(L, 1);
    }
}

/* ------------------------------------------------------------------ functions
 */

/* A negative code of the engine becomes an error of the caller. */
static int raise(lua_State *L, const char *what, int rc)
{
    return luaL_error(L, "%s: %s", what, fm_strerror(rc));
}

/* engine_new(opts) -> engine */
static int l_engine_new(lua_State *L)
{
    struct fm_engine_opts opts = FM_ENGINE_OPTS_INIT;
    struct fmL_engine *box;
    lua_State *previous;
    int rc;

    get_opts(L, 1, &opts, FM_THREADS_WARN);
    lua_settop(L, 1);
    box = lua_newuserdatauv(L, sizeof *box, FML_ENGINE_VALUES);
    memset(box, 0, sizeof *box);
    luaL_setmetatable(L, FML_ENGINE_MT);
    box->threads = opts.on_threads;
    opts.ud = box;
    lua_createtable(L, 0, 2);
    keep_callbacks(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, box);
    /* Now, so that it lies beside the box: see src/engine/home.c. */
    box->idle = fmL_call_take(L, box);
    box->n_idle = 1;

    previous = fmL_enter(L, box);
    rc = fm__engine_check_memory(box);
    if (rc == 0)
        rc = fm_engine_new(&opts, &box->engine);
    if (rc >= 0)
        rc = fmL_hooks_attach(box, box->engine);
    fmL_leave(box, previous);
    return rc < 0 ? raise(L, "fork_map cannot make an engine", rc) : 1;
}

/* engine_configure(engine, opts) */
static int l_engine_configure(lua_State *L)
{
    struct fmL_engine *box = fmL_check_engine(L, 1);
    struct fm_engine_opts opts = FM_ENGINE_OPTS_INIT;
    int rc;

    get_opts(L, 2, &opts, box->threads);
    opts.ud = box;
    rc = box->engine == NULL ? FM_ECLOSED
                             : fm_engine_configure(box->engine, &opts);
    if (rc < 0)
        return raise(L, "fork_map cannot configure the engine", rc);
    box->threads = opts.on_threads;
    fmL_push_callbacks(L, box);
    keep_callbacks(L, 2);
    return 0;
}

/* engine_state(engine) -> nil when a blocking call may begin, else why not */
static int l_engine_state(lua_State *L)
{
    const struct fmL_engine *box = fmL_check_engine(L, 1);

    if (box->engine == NULL)
        lua_pushstring(L, fmL_in_finalizer(L) ? "finalizer" : "collected");
    else if (!fm__engine_is_ours(box->engine))
        lua_pushliteral(L, "stale");
    else if (fm__engine_in_callback(box->engine))
        lua_pushliteral(L, "callback");
    else if (fmL_in_finalizer(L))
        lua_pushliteral(L, "finalizer");
    else
        return 0;
    return 1;
}

/* in_callback(engine) -> boolean: as engine_state() tells it, which also asks
 * the system whose the engine is */
static int l_in_callback(lua_State *L)
{
    const struct fmL_engine *box = fmL_check_engine(L, 1);

    lua_pushboolean(L,
                    box->engine != NULL && fm__engine_in_callback(box->engine));
    return 1;
}

/* engine_step(engine, seconds [, rests]) -> count | nil, code name; `rests`:
 * wait also when nothing is alive */
static int l_engine_step(lua_State *L)
{
    struct fmL_engine *box = fmL_check_engine(L, 1);
    double seconds = luaL_checknumber(L, 2);
    bool rests = lua_toboolean(L, 3);
    lua_State *previous;
    int64_t ns;
    int rc;

    luaL_argcheck(L, seconds >= 0 && seconds <= 1e9, 2, "out of range");
    luaL_argcheck(L, box->engine != NULL, 1, "collected");
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    ns = (int64_t)(seconds * 1e9);
    previous = fmL_enter(L, box);
    rc = rests ? fm__engine_rest(box->engine, ns)
               : fm_engine_step(box->engine, ns);
    fmL_leave(box, previous);
    if (rc >= 0) {
        lua_pushinteger(L, rc);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, fm_err_name(rc));
    return 2;
}

/* engine_close(engine) */
static int l_engine_close(lua_State *L)
{
    struct fmL_engine *box = fmL_check_engine(L, 1);
    lua_State *previous;
    int rc;

    if (box->engine == NULL || !fm__engine_is_ours(box->engine))
        return 0;
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    previous = fmL_enter(L, box);
    rc = fm_engine_close(box->engine, -1);
    fmL_leave(box, previous);
    return rc < 0 ? raise(L, "fork_map cannot close the engine", rc) : 0;
}

static void set_count(lua_State *L, const char *field, uint64_t n)
{
    lua_pushinteger(L, (lua_Integer)n);
    lua_setfield(L, -2, field);
}

/* engine_stats(engine) -> table */
static int l_engine_stats(lua_State *L)
{
    const struct fmL_engine *box = fmL_check_engine(L, 1);
    struct fm_engine_stats stats;

    luaL_argcheck(L, box->engine != NULL, 1, "collected");
    fm_engine_get_stats(box->engine, &stats);
    lua_createtable(L, 0, 5);
    set_count(L, "spawned", stats.spawned);
    set_count(L, "settled", stats.settled);
    set_count(L, "queued", stats.queued);
    set_count(L, "running", stats.running);
    set_count(L, "parked", stats.parked);
    return 1;
}

/* Collected: nothing waits for its jobs any more, so they are killed at once.
 * In a child of the process that made it only its memory is freed. */
static int engine_gc(lua_State *L)
{
    struct fmL_engine *box = fmL_check_engine(L, 1);
    fm_engine *engine = box->engine;
    lua_State *previous;

    if (engine != NULL && lua_checkstack(L, LUA_MINSTACK)) {
        previous = fmL_enter(L, box);
        if (fm__engine_is_ours(engine))
            (void)fm_engine_close(engine, 0);
        box->engine = NULL;
        fm_engine_free(engine);
        fmL_leave(box, previous);
    }
    fmL_call_free_all(L, box);
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, box);
    return 0;
}

void fmL_open_engine(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"engine_new", l_engine_new},
        {"engine_configure", l_engine_configure},
        {"engine_state", l_engine_state},
        {"in_callback", l_in_callback},
        {"engine_step", l_engine_step},
        {"engine_close", l_engine_close},
        {"engine_stats", l_engine_stats},
        {NULL, NULL}};

    luaL_newmetatable(L, FML_ENGINE_MT);
    lua_pushcfunction(L, engine_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
