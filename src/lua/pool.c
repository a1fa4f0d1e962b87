/* SPDX-License-Identifier: MIT */
/*
 * Workers of pools in the host: calls that are given to them, messages that
 * they send.  A worker is a future of core.hire(); which call belongs to whom,
 * and what follows from a message, is known in Lua.
 *
 * The bytes of a call are a Lua string.  While the engine still reads them the
 * future keeps it, in a table by the call's slot.
 */
#include <errno.h>
#include <string.h>
#include <lauxlib.h>
#include "engine/duplex.h"
#include "lua/binding.h"
#include "lua/values.h"
#include "os/clock.h"

static struct fmL_future *check_worker(lua_State *L)
{
    struct fmL_future *handle = fmL_check_future(L, 1);

    luaL_argcheck(L, fm__future_is_duplex(handle->future), 1, "no worker");
    return handle;
}

static uint64_t check_number(lua_State *L)
{
    return (uint64_t)luaL_checkinteger(L, 2);
}

/* ----------------------------------------------------------------- the bytes
 */

/* Push the table, which has a place for each slot, so that nothing can be said
 * against keeping something there.  [-0, +1, m] */
static void push_bytes_table(lua_State *L)
{
    if (lua_getiuservalue(L, 1, FML_FUTURE_BYTES) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    lua_createtable(L, FM__DESK_SLOTS, 0);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, FML_FUTURE_BYTES);
}

static lua_Integer place_of(uint64_t number)
{
    return (lua_Integer)(number & FM__DESK_SLOT_MASK) + 1;
}

/* Of a call that has ended, or was taken back. */
static void drop_bytes(lua_State *L, uint64_t number)
{
    if (lua_getiuservalue(L, 1, FML_FUTURE_BYTES) == LUA_TTABLE) {
        lua_pushnil(L);
        lua_rawseti(L, -2, place_of(number));
    }
    lua_settop(L, 2);
}

/* give(worker, format, bytes, tag) -> number | nil: it takes no more */
static int l_give(lua_State *L)
{
    const struct fmL_future *handle = check_worker(L);
    struct fm__gift gift;
    uint64_t number = 0;
    int rc;

    gift.format = (int)luaL_checkinteger(L, 2);
    luaL_checktype(L, 3, LUA_TSTRING);
    gift.data = lua_tolstring(L, 3, &gift.len);
    gift.tag = (uint64_t)luaL_checkinteger(L, 4);
    lua_settop(L, 3);
    push_bytes_table(L);
    rc = fm__duplex_give(handle->future, &gift, &number);
    if (rc < 0)
        return 0;
    if (rc == 0) {
        lua_pushvalue(L, 3);
        lua_rawseti(L, 4, place_of(number));
    }
    lua_pushinteger(L, (lua_Integer)number);
    return 1;
}

/* take_back(worker, number) -> boolean: it was not begun, and will not be */
static int l_take_back(lua_State *L)
{
    const struct fmL_future *handle = check_worker(L);
    uint64_t number = check_number(L);
    bool is_back = fm__duplex_take_back(handle->future, number);

    lua_settop(L, 2);
    if (is_back)
        drop_bytes(L, number);
    lua_pushboolean(L, is_back);
    return 1;
}

/* begun_at(worker, number) -> time by now() | nil: it was not begun */
static int l_begun_at(lua_State *L)
{
    const struct fmL_future *handle = check_worker(L);
    int64_t at = fm__duplex_begun_at(handle->future, check_number(L));

    if (at == 0)
        return 0;
    lua_pushnumber(L, (lua_Number)at * 1e-9);
    return 1;
}

/* order_leave(worker): it begins no more calls, and ends after those it has */
static int l_order_leave(lua_State *L)
{
    fm__duplex_order_leave(check_worker(L)->future);
    return 0;
}

/* ------------------------------------------------------------ with the engine
 */

/* stop_worker(worker, "timeout"|"cancelled"|"protocol" [, grace]) -> boolean */
static int l_stop_worker(lua_State *L)
{
    static const char *const names[] = {"timeout", "cancelled", "protocol",
                                        NULL};
    static const enum fm_kind kinds[] = {FM_TIMEOUT, FM_CANCELLED, FM_PROTOCOL};
    const struct fmL_future *handle = check_worker(L);
    enum fm_kind kind = kinds[luaL_checkoption(L, 2, NULL, names)];
    double grace = luaL_optnumber(L, 3, -1);
    lua_State *previous;
    int64_t ns = -1;
    int rc;

    if (grace >= 0)
        ns = grace >= 1e9 ? INT64_MAX : (int64_t)(grace * 1e9);
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    previous = fmL_enter(L, handle->engine);
    rc = fm__duplex_stop(handle->future, kind, ns);
    fmL_leave(handle->engine, previous);
    lua_pushboolean(L, rc > 0);
    return 1;
}

/* listen(worker): read what it has said so far */
static int l_listen(lua_State *L)
{
    const struct fmL_future *handle = check_worker(L);
    lua_State *previous;

    luaL_checkstack(L, LUA_MINSTACK, NULL);
    previous = fmL_enter(L, handle->engine);
    fm__duplex_listen(handle->future);
    fmL_leave(handle->engine, previous);
    return 0;
}

/* ------------------------------------------------------------------ messages
 */

/* Push true and the values of a message, or false and the error that they
 * amount to. */
static int push_values(lua_State *L, const struct fmL_future *handle,
                       const struct fmL_options *options,
                       const struct fm__message *message)
{
    struct fm_outcome failure;
    int top = lua_gettop(L);
    int n;

    lua_pushboolean(L, 1);
    if (message->format == FM__TELL_NO_DATA)
        return 1;
    n = fmL_decode(L, message->format, &options->codec, message->data,
                   message->len, fmL_options_get_budget(options));
    if (n >= 0)
        return n + 1;
    memset(&failure, 0, sizeof failure);
    failure.kind = n == FM_ELIMIT ? FM_LIMIT : FM_PROTOCOL;
    failure.limit = n == FM_ELIMIT ? "result" : NULL;
    failure.message = lua_tostring(L, -1);
    lua_pushboolean(L, 0);
    fmL_push_outcome_error(L, handle->engine, &failure, 0);
    lua_rotate(L, top + 1, 2);
    lua_settop(L, top + 2);
    return 2;
}

/* Push false and the error of a call that has failed. */
static int push_failure(lua_State *L, const struct fmL_future *handle,
                        const struct fmL_options *options,
                        const struct fm__message *message)
{
    struct fm_outcome failure;

    memset(&failure, 0, sizeof failure);
    failure.pid = fm_future_get_pid(handle->future);
    failure.name = options->job.name;
    failure.exit_code = -1;
    failure.message = message->second;
    switch (message->what) {
    case FM__TELL_REFUSE:
        failure.kind = FM_ENCODE;
        failure.path = message->first;
        break;
    case FM__TELL_EXCEED:
        failure.kind = FM_LIMIT;
        failure.limit = message->first;
        break;
    default:
        failure.kind = FM_ERROR;
        failure.message = message->first;
        failure.traceback = message->second[0] ? message->second : NULL;
        if (message->format != FM__TELL_NO_DATA) {
            failure.format = message->format;
            failure.data = message->data;
            failure.len = message->len;
        }
        break;
    }
    lua_pushboolean(L, 0);
    fmL_push_outcome_error(L, handle->engine, &failure,
                           fmL_options_get_budget(options));
    lua_pushnil(L); /* what its process used is that of many calls */
    lua_setfield(L, -2, "usage");
    return 2;
}

/* (worker, options, message) -> as push_values() */
static int push_message(lua_State *L)
{
    const struct fmL_future *handle = lua_touserdata(L, 1);
    const struct fmL_options *options = fmL_check_options(L, 2);
    const struct fm__message *message = lua_touserdata(L, 3);

    if (message->what <= FM__TELL_VALUE)
        return push_values(L, handle, options, message);
    return push_failure(L, handle, options, message);
}

/* hear(worker) -> nothing | what, number, begun_at, ok, values…: `what` is one
 * of enum fm__tell_what.  What decoding raises is the failure of that message.
 */
static int l_hear(lua_State *L)
{
    struct fmL_future *handle = check_worker(L);
    struct fm__message message;
    int rc;

    lua_settop(L, 1);
    if (handle->is_heard)
        return 0; /* by who was interrupted by this */
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    rc = fm__duplex_hear(handle->future, &message);
    if (rc == 0)
        return 0;
    if (rc < 0)
        return luaL_error(L, "not enough memory");
    lua_pushinteger(L, (lua_Integer)message.call);
    if (message.what >= FM__TELL_VALUE)
        drop_bytes(L, message.call);
    lua_pushinteger(L, (lua_Integer)message.what);
    lua_insert(L, 2);
    lua_pushnumber(L, (lua_Number)message.begun_at * 1e-9);
    lua_pushcfunction(L, push_message);
    lua_pushvalue(L, 1);
    (void)lua_getiuservalue(L, 1, FML_FUTURE_OPTIONS);
    lua_pushlightuserdata(L, &message);
    handle->is_heard = true;
    rc = lua_pcall(L, 3, LUA_MULTRET, 0);
    handle->is_heard = false;
    if (rc != LUA_OK) {
        lua_pushboolean(L, 0);
        lua_insert(L, -2);
    }
    return lua_gettop(L) - 1;
}

void fmL_open_pool(lua_State *L)
{
    static const luaL_Reg functions[] = {{"give", l_give},
                                         {"take_back", l_take_back},
                                         {"begun_at", l_begun_at},
                                         {"order_leave", l_order_leave},
                                         {"stop_worker", l_stop_worker},
                                         {"listen", l_listen},
                                         {"hear", l_hear},
                                         {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
