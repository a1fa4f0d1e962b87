/* SPDX-License-Identifier: MIT */
/*
 * Futures that a loop settles.  Each has a cell, a table of the Lua half, which
 * the engine keeps from the start until the loop has taken it.  Who has settled
 * is listed by callbacks of the engine, which allocate nothing for it.
 */
#include <errno.h>
#include <lauxlib.h>
#include "lua/binding.h"
#include "os/clock.h"
#include "os/fds.h"

#define BEACON_MT "fork_map.core.beacon"
#define ENGINES_MOST 64

/* Seconds of Lua as nanoseconds, at least 0. */
static int64_t to_ns(double seconds)
{
    if (!(seconds > 0))
        return 0;
    return seconds >= 9e9 ? FM__NEVER : (int64_t)(seconds * 1e9);
}

void fmL_push_live(lua_State *L, int engine)
{
    if (lua_getiuservalue(L, engine, FML_ENGINE_LIVE) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, engine, FML_ENGINE_LIVE);
}

void fmL_tell(struct fmL_engine *box, struct fmL_told *told)
{
    if (told->is_listed)
        return;
    told->is_listed = true;
    told->next = NULL;
    if (box->told == NULL)
        box->told = told;
    else
        box->last_told->next = told;
    box->last_told = told;
}

static int spawn(lua_State *L, bool is_duplex)
{
    struct fmL_engine *box = fmL_check_engine(L, 1);
    struct fmL_future *handle;
    struct fmL_call *call;
    lua_State *previous;
    int rc;

    luaL_checktype(L, 3, LUA_TTABLE);
    luaL_checktype(L, 4, LUA_TFUNCTION);
    if (box->engine == NULL)
        return fmL_raise_code(L, FM_ECLOSED);
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    handle = fmL_future_push(L, 1, 2);
    fmL_push_live(L, 1);
    lua_pushvalue(L, 3);
    lua_rawsetp(L, -2, &handle->told);
    lua_replace(L, 3); /* the cell is in the table */
    lua_insert(L, 3);  /* engine, options, future, cells, fn, ... */
    call = fmL_call_take(L, box);
    call->is_duplex = is_duplex;
    handle->told.stays = is_duplex;
    previous = fmL_enter(L, box);
    rc = fmL_call_start(L, call, 2, 5, handle, &handle->future);
    fmL_leave(box, previous);
    lua_settop(L, 4);
    if (rc < 0) {
        lua_pushnil(L);
        lua_rawsetp(L, 4, &handle->told);
        return fmL_raise_code(L, rc);
    }
    lua_settop(L, 3);
    return 1;
}

/* spawn(engine, options, cell, fn, ...) -> future */
static int l_spawn(lua_State *L)
{
    return spawn(L, false);
}

/* hire(engine, options, cell, fn, ...) -> future of a worker: the cell is told
 * also of what it says */
static int l_hire(lua_State *L)
{
    return spawn(L, true);
}

/* has_settled(engine) -> boolean: next_settled() would give a cell */
static int l_has_settled(lua_State *L)
{
    lua_pushboolean(L, fmL_check_engine(L, 1)->told != NULL);
    return 1;
}

/* next_settled(engine) -> cell | nil: the first that was told of and not taken
 * yet */
static int l_next_settled(lua_State *L)
{
    struct fmL_engine *box = fmL_check_engine(L, 1);
    struct fmL_told *told = box->told;

    if (told == NULL)
        return 0;
    box->told = told->next;
    told->is_listed = false;
    fmL_push_live(L, 1);
    (void)lua_rawgetp(L, -1, told);
    if (!told->stays) {
        lua_pushnil(L);
        lua_rawsetp(L, -3, told);
    }
    return 1;
}

/* status(future) -> "queued" | "running" | "settled" */
static int l_status(lua_State *L)
{
    switch (fm_future_get_state(fmL_check_future(L, 1)->future)) {
    case FM_QUEUED:
    case FM_BACKOFF:
        lua_pushliteral(L, "queued");
        break;
    case FM_SETTLED:
        lua_pushliteral(L, "settled");
        break;
    default:
        lua_pushliteral(L, "running");
        break;
    }
    return 1;
}

/* details(future) -> table: usage, and what was captured, of a settled one */
static int l_details(lua_State *L)
{
    const struct fm_outcome *outcome = fmL_check_outcome(L, 1);

    lua_createtable(L, 0, 2);
    if (outcome->pid != 0) {
        fmL_push_usage(L, &outcome->usage);
        lua_setfield(L, -2, "usage");
    }
    fmL_set_output(L, outcome->output);
    return 1;
}

/* outcome(future) -> true, values… | false, fork_map.Error, of a settled one */
static int l_outcome(lua_State *L)
{
    const struct fm_outcome *outcome = fmL_check_outcome(L, 1);
    const struct fmL_future *handle = fmL_check_future(L, 1);
    int first, n;

    lua_getiuservalue(L, 1, FML_FUTURE_OPTIONS);
    lua_pushboolean(L, 1);
    first = lua_gettop(L);
    n = fmL_push_outcome(L, handle->engine, fmL_check_options(L, -2), outcome);
    if (n >= 0)
        return n + 1;
    lua_pushboolean(L, 0);
    lua_replace(L, first);
    lua_copy(L, -1, first + 1); /* what decoding left lies between */
    lua_settop(L, first + 1);
    return 2;
}

/* release(future): its outcome was taken */
static int l_release(lua_State *L)
{
    struct fmL_future *handle = luaL_checkudata(L, 1, FML_FUTURE_MT);
    fm_future *future = handle->future;

    handle->future = NULL;
    fm_future_unref(future);
    return 0;
}

/* max_children(engine) -> integer */
static int l_max_children(lua_State *L)
{
    const struct fmL_engine *box = fmL_check_engine(L, 1);

    lua_pushinteger(
        L, box->engine != NULL ? fm__engine_max_children(box->engine) : 0);
    return 1;
}

/* unhandled(engine, error, why): "callback" or "unseen" */
static int l_unhandled(lua_State *L)
{
    struct fmL_engine *box = fmL_check_engine(L, 1);
    bool is_unseen = *luaL_checkstring(L, 3) == 'u';

    lua_settop(L, 2);
    fmL_unhandled(L, box, is_unseen ? "unseen" : "callback");
    return 0;
}

/* call(handler, fn, ...) -> ok, values…: as xpcall(), but `fn` cannot yield out
 * of whoever runs it */
static int l_call(lua_State *L)
{
    int rc;

    luaL_checktype(L, 2, LUA_TFUNCTION);
    rc = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 1);
    lua_pushboolean(L, rc == LUA_OK);
    lua_replace(L, 1);
    return lua_gettop(L);
}

/* generation() -> integer: another one in every forked process */
static int l_generation(lua_State *L)
{
    lua_pushinteger(L, fm__fds_generation());
    return 1;
}

/* ------------------------------------------------------------------ the loop
 */

/* alarm(engine, when): the time by now(), true for at once, nil for never */
static int l_alarm(lua_State *L)
{
    const struct fmL_engine *box = fmL_check_engine(L, 1);
    int64_t at = 0;

    if (lua_isboolean(L, 2))
        at = lua_toboolean(L, 2);
    else if (!lua_isnoneornil(L, 2))
        at = to_ns(luaL_checknumber(L, 2));
    if (box->engine != NULL)
        fm__engine_set_alarm(box->engine, at);
    return 0;
}

/* pollfd(engine) -> integer | nil */
static int l_pollfd(lua_State *L)
{
    const struct fmL_engine *box = fmL_check_engine(L, 1);
    int fd = box->engine != NULL ? fm_engine_fd(box->engine) : -1;

    if (fd < 0)
        return 0;
    lua_pushinteger(L, fd);
    return 1;
}

/* timeout(engine) -> seconds | nil */
static int l_timeout(lua_State *L)
{
    const struct fmL_engine *box = fmL_check_engine(L, 1);
    int64_t ns = box->engine != NULL ? fm_engine_timeout(box->engine) : -1;

    if (ns < 0)
        return 0;
    lua_pushnumber(L, (lua_Number)ns * 1e-9);
    return 1;
}

/* wait_any(engines, seconds): until one of them has work */
static int l_wait_any(lua_State *L)
{
    fm_engine *engines[ENGINES_MOST];
    int64_t ns = to_ns(luaL_checknumber(L, 2));
    size_t n = 0;
    lua_Integer i;

    luaL_checktype(L, 1, LUA_TTABLE);
    for (i = 1; n < ENGINES_MOST && lua_rawgeti(L, 1, i) != LUA_TNIL; i++) {
        fm_engine *engine = fmL_check_engine(L, -1)->engine;

        if (engine != NULL)
            engines[n++] = engine;
        lua_pop(L, 1);
    }
    (void)fm__engines_wait(engines, n, ns);
    return 0;
}

/* ---------------------------------------------------------------- beacons */

/* beacon(engine) -> beacon | nil: what a host's loop can wait on */
static int l_beacon(lua_State *L)
{
    const struct fmL_engine *box = fmL_check_engine(L, 1);
    struct fm__beacon **ret;
    int rc;

    if (box->engine == NULL)
        return 0;
    ret = lua_newuserdatauv(L, sizeof(struct fm__beacon *), 0);
    *ret = NULL;
    luaL_setmetatable(L, BEACON_MT);
    rc = fm__beacon_new(box->engine, ret);
    if (rc == -EMFILE || rc == -ENFILE || rc == -EINVAL) {
        /* No descriptors, or too many that watch this engine.  Those of garbage
         * are as small as any, and so the collector is in no hurry.  Futures
         * have finalizers, and their beacons go after them. */
        (void)lua_gc(L, LUA_GCCOLLECT);
        (void)lua_gc(L, LUA_GCCOLLECT);
        rc = fm__beacon_new(box->engine, ret);
    }
    if (rc == -ENOSYS || rc == FM_ECLOSED)
        return 0;
    if (rc < 0)
        return luaL_error(L, "fork_map: pollfd: %s", fm_strerror(rc));
    return 1;
}

/* beacon_fd(beacon) -> integer */
static int l_beacon_fd(lua_State *L)
{
    struct fm__beacon *const *beacon = luaL_checkudata(L, 1, BEACON_MT);

    luaL_argcheck(L, *beacon != NULL, 1, "closed");
    lua_pushinteger(L, fm__beacon_fd(*beacon));
    return 1;
}

/* beacon_light(beacon) */
static int l_beacon_light(lua_State *L)
{
    struct fm__beacon *const *beacon = luaL_checkudata(L, 1, BEACON_MT);

    if (*beacon != NULL)
        fm__beacon_light(*beacon);
    return 0;
}

/* beacon_dim(beacon) -> whether it can be used again */
static int l_beacon_dim(lua_State *L)
{
    struct fm__beacon *const *beacon = luaL_checkudata(L, 1, BEACON_MT);

    lua_pushboolean(L, *beacon != NULL && fm__beacon_dim(*beacon) == 0);
    return 1;
}

static int beacon_gc(lua_State *L)
{
    struct fm__beacon **beacon = luaL_checkudata(L, 1, BEACON_MT);

    fm__beacon_free(*beacon);
    *beacon = NULL;
    return 0;
}

void fmL_open_spawn(lua_State *L)
{
    static const luaL_Reg functions[] = {{"spawn", l_spawn},
                                         {"hire", l_hire},
                                         {"has_settled", l_has_settled},
                                         {"next_settled", l_next_settled},
                                         {"status", l_status},
                                         {"details", l_details},
                                         {"outcome", l_outcome},
                                         {"release", l_release},
                                         {"max_children", l_max_children},
                                         {"unhandled", l_unhandled},
                                         {"call", l_call},
                                         {"generation", l_generation},
                                         {"alarm", l_alarm},
                                         {"pollfd", l_pollfd},
                                         {"timeout", l_timeout},
                                         {"wait_any", l_wait_any},
                                         {"beacon", l_beacon},
                                         {"beacon_fd", l_beacon_fd},
                                         {"beacon_light", l_beacon_light},
                                         {"beacon_dim", l_beacon_dim},
                                         {NULL, NULL}};

    luaL_newmetatable(L, BEACON_MT);
    lua_pushcfunction(L, beacon_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
