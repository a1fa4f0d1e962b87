/* SPDX-License-Identifier: MIT */
/*
 * The handle of one call.  Blocking verbs loop in Lua around wait(), so that
 * hooks run between its steps, and hold the handle in a to-be-closed variable:
 * an error raised by a hook ends the child before it goes on.
 */
#include <errno.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/binding.h"
#include "lua/leave.h"
#include "lua/values.h"

/* A wait ends after this time though nothing happened: a signal that came
 * just before it began would not be seen before the next event. */
#define WAIT_NS 1000000000

static bool is_settled(const struct fmL_future *handle)
{
    return fm_future_get_state(handle->future) == FM_SETTLED;
}

/* -------------------------------------------------------------------- spawning
 */

/* Push the local future that the engine at 1 has spare, with the options at 2,
 * and take it from there.  False when there is none. */
static bool push_spare(lua_State *L)
{
    if (lua_getiuservalue(L, 1, FML_ENGINE_SPARE) != LUA_TUSERDATA) {
        lua_pop(L, 1);
        return false;
    }
    lua_pushnil(L);
    lua_setiuservalue(L, 1, FML_ENGINE_SPARE);
    (void)lua_getiuservalue(L, -1, FML_FUTURE_OPTIONS);
    if (!lua_rawequal(L, -1, 2)) {
        lua_pushvalue(L, 2);
        lua_setiuservalue(L, -3, FML_FUTURE_OPTIONS);
    }
    lua_pop(L, 1);
    return true;
}

/* The local future at 1 was closed: who closed it cannot reach it any more. */
static void keep_spare(lua_State *L)
{
    (void)lua_getiuservalue(L, 1, FML_FUTURE_ENGINE);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, FML_ENGINE_SPARE);
    lua_pop(L, 1);
}

struct fmL_future *fmL_check_future(lua_State *L, int idx)
{
    struct fmL_future *handle = luaL_checkudata(L, idx, FML_FUTURE_MT);

    luaL_argcheck(L, handle->future != NULL, idx, "closed future");
    return handle;
}

const struct fm_outcome *fmL_check_outcome(lua_State *L, int idx)
{
    const struct fm_outcome *outcome =
        fm_future_get_outcome(fmL_check_future(L, idx)->future);

    luaL_argcheck(L, outcome != NULL, idx, "not settled");
    return outcome;
}

struct fmL_future *fmL_future_push(lua_State *L, int engine, int options)
{
    struct fmL_future *handle;

    (void)fmL_check_options(L, options);
    handle = lua_newuserdatauv(L, sizeof *handle, 3);
    memset(handle, 0, sizeof *handle);
    handle->engine = fmL_check_engine(L, engine);
    luaL_setmetatable(L, FML_FUTURE_MT);
    lua_pushvalue(L, engine);
    lua_setiuservalue(L, -2, FML_FUTURE_ENGINE);
    lua_pushvalue(L, options);
    lua_setiuservalue(L, -2, FML_FUTURE_OPTIONS);
    return handle;
}

/* future(engine, options, is_local) -> future, not started.  `is_local` says
 * that start() and wait() will be called by the function that holds it in its
 * newest to-be-closed variable, and nobody else ever has it: it may serve the
 * next such call too. */
static int l_future(lua_State *L)
{
    struct fmL_future *handle;

    (void)fmL_check_engine(L, 1);
    (void)fmL_check_options(L, 2);
    lua_settop(L, 3);
    if (lua_toboolean(L, 3) && push_spare(L))
        return 1;
    handle = fmL_future_push(L, 1, 2);
    handle->is_local = lua_toboolean(L, 3);
    return 1;
}

/* While the engine is entered for a future, it knows what a child that is
 * forked then may rely on; see leave.h. */
static lua_State *enter(lua_State *L, const struct fmL_future *handle)
{
    lua_State *previous = fmL_enter(L, handle->engine);

    handle->engine->closing = handle->is_local ? L : NULL;
    return previous;
}

static void leave(const struct fmL_future *handle, lua_State *previous)
{
    handle->engine->closing = NULL;
    fmL_leave(handle->engine, previous);
}

/* Wait once; the engine has been entered. */
static int wait_once(const struct fmL_future *handle)
{
    return fm_engine_step(handle->engine->engine, WAIT_NS);
}

/* Return what wait() returns, after wait_once() returned `rc`. */
static int end_wait(lua_State *L, const struct fmL_future *handle, int rc)
{
    lua_pushboolean(L, is_settled(handle));
    if (rc < 0 && rc != -EINTR && !lua_toboolean(L, -1))
        return luaL_error(L, "fork_map cannot wait: %s", fm_strerror(rc));
    return 1;
}

/* start(future, fn, ...) -> false; with `is_local` as wait(): between fork and
 * wait nothing of Lua is written then, and no page copied for it while the
 * child has it too. */
static int l_start(lua_State *L)
{
    struct fmL_future *handle = luaL_checkudata(L, 1, FML_FUTURE_MT);
    struct fmL_call *call;
    lua_State *previous;
    int rc, waited = 0;

    luaL_checktype(L, 2, LUA_TFUNCTION);
    luaL_argcheck(L, handle->future == NULL, 1, "started before");
    if (handle->engine->engine == NULL) /* collected */
        return fmL_raise_code(L, FM_ECLOSED);
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    lua_getiuservalue(L, 1, FML_FUTURE_OPTIONS);
    lua_insert(L, 2);
    call = fmL_call_take(L, handle->engine);
    previous = enter(L, handle);
    rc = fmL_call_start(L, call, 2, 3, NULL, &handle->future);
    if (rc >= 0 && handle->is_local && !is_settled(handle))
        waited = wait_once(handle);
    leave(handle, previous);
    return rc >= 0 ? end_wait(L, handle, waited) : fmL_raise_code(L, rc);
}

/* --------------------------------------------------------------------- waiting
 */

/* wait(future) -> true when it has settled, else false after a while */
static int l_wait(lua_State *L)
{
    struct fmL_future *handle = fmL_check_future(L, 1);
    int rc = 0;

    if (!is_settled(handle)) {
        lua_State *previous;

        luaL_checkstack(L, LUA_MINSTACK, NULL);
        previous = enter(L, handle);
        rc = wait_once(handle);
        leave(handle, previous);
    }
    return end_wait(L, handle, rc);
}

/* settled(future) -> boolean */
static int l_settled(lua_State *L)
{
    lua_pushboolean(L, is_settled(fmL_check_future(L, 1)));
    return 1;
}

/* pid(future) -> integer | nil */
static int l_pid(lua_State *L)
{
    pid_t pid = fm_future_get_pid(fmL_check_future(L, 1)->future);

    if (pid == 0)
        return 0;
    lua_pushinteger(L, pid);
    return 1;
}

/* cancel(future [, seconds]) -> boolean */
static int l_cancel(lua_State *L)
{
    const struct fmL_future *handle = fmL_check_future(L, 1);
    double grace = luaL_optnumber(L, 2, -1);
    int64_t ns = -1;

    if (grace >= 0)
        ns = grace >= 1e9 ? INT64_MAX : (int64_t)(grace * 1e9);
    lua_pushboolean(L, fm_future_cancel(handle->future, ns) > 0);
    return 1;
}

/* --------------------------------------------------------------------- results
 */

/* Push the error of bytes that should be values and are none; a message is on
 * the top of the stack. */
static void push_undecodable(lua_State *L, const struct fmL_engine *box,
                             const struct fm_outcome *outcome, int rc)
{
    struct fm_outcome failure = *outcome;

    failure.kind = rc == FM_ELIMIT ? FM_LIMIT : FM_PROTOCOL;
    failure.limit = rc == FM_ELIMIT ? "result" : NULL;
    failure.message = lua_tostring(L, -1);
    failure.data = NULL;
    failure.len = 0;
    fmL_push_outcome_error(L, box, &failure, 0);
}

int fmL_push_outcome(lua_State *L, const struct fmL_engine *box,
                     const struct fmL_options *options,
                     const struct fm_outcome *outcome)
{
    size_t budget = fmL_options_get_budget(options);
    int n;

    if (outcome->kind != FM_VALUE) {
        fmL_push_outcome_error(L, box, outcome, budget);
        return -1;
    }
    n = fmL_decode(L, outcome->format, &options->codec, outcome->data,
                   outcome->len, budget);
    if (n >= 0)
        return n;
    push_undecodable(L, box, outcome, n);
    return -1;
}

/* result(future) -> values…; raises the fork_map.Error of a failure */
static int l_result(lua_State *L)
{
    const struct fm_outcome *outcome = fmL_check_outcome(L, 1);
    const struct fmL_future *handle = fmL_check_future(L, 1);
    int n;

    lua_getiuservalue(L, 1, FML_FUTURE_OPTIONS);
    n = fmL_push_outcome(L, handle->engine, fmL_check_options(L, -1), outcome);
    return n < 0 ? lua_error(L) : n;
}

/* --------------------------------------------------------------------- the end
 */

/* End the job at once and wait for its end, which the engine promises. */
static void end_job(lua_State *L, struct fmL_future *handle)
{
    lua_State *previous = fmL_enter(L, handle->engine);
    int rc = fm_future_cancel(handle->future, 0);

    while (rc >= 0 && !is_settled(handle)) {
        rc = fm_engine_step(handle->engine->engine, WAIT_NS);
        if (rc == -EINTR)
            rc = 0;
    }
    fmL_leave(handle->engine, previous);
}

/* Made in a process that this one is a child of. */
static bool is_stale(const struct fmL_engine *box)
{
    return box->engine != NULL && !fm__engine_is_ours(box->engine);
}

/* __close */
static int future_close(lua_State *L)
{
    struct fmL_future *handle = luaL_checkudata(L, 1, FML_FUTURE_MT);
    fm_future *future = handle->future;

    if (handle->is_local && fm_child_current() != NULL &&
        L == fmL_main_thread(L) && is_stale(handle->engine))
        fmL_leave_closing(L);
    if (future != NULL && !is_settled(handle) &&
        handle->engine->engine != NULL) {
        luaL_checkstack(L, LUA_MINSTACK, NULL);
        end_job(L, handle);
    }
    handle->future = NULL;
    fm_future_unref(future);
    if (handle->is_local)
        keep_spare(L);
    return 0;
}

/* Nobody can ask for the outcome any more: let the next step end the job. */
static int future_gc(lua_State *L)
{
    struct fmL_future *handle = luaL_checkudata(L, 1, FML_FUTURE_MT);
    fm_future *future = handle->future;

    if (future == NULL)
        return 0;
    handle->future = NULL;
    if (handle->engine->engine != NULL)
        (void)fm_future_cancel(future, 0);
    fm_future_unref(future);
    return 0;
}

void fmL_open_future(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"future", l_future},   {"start", l_start}, {"wait", l_wait},
        {"settled", l_settled}, {"pid", l_pid},     {"cancel", l_cancel},
        {"result", l_result},   {NULL, NULL}};

    luaL_newmetatable(L, FML_FUTURE_MT);
    lua_pushcfunction(L, future_close);
    lua_setfield(L, -2, "__close");
    lua_pushcfunction(L, future_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
