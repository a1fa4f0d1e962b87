/* SPDX-License-Identifier: MIT */
/* What the function of an item may ask and say: where it runs, events, the end
 * of the whole map. */
#include <lauxlib.h>
#include "lua/job.h"
#include "lua/map.h"
#include "lua/values.h"
#include "os/sys.h"

/* worker() -> id, pid, index, attempt | nil: where this runs, in a child */
static int l_worker(lua_State *L)
{
    const struct fmL_job *job = fmL_get_job(L);
    const struct fm_worker *place;

    if (job == NULL)
        return 0;
    place = job->place;
    lua_pushinteger(L, place != NULL ? fm_worker_get_id(place) : 1);
    lua_pushinteger(L, fm__sys.getpid());
    if (place != NULL && !place->said)
        lua_pushinteger(L, (lua_Integer)fm__worker_index(place) + 1);
    else
        lua_pushnil(L);
    lua_pushinteger(L, place != NULL ? fm_worker_get_attempt(place)
                                     : fm_child_get_attempt(job->child));
    return 4;
}

/* cancelled() -> boolean */
static int l_cancelled(lua_State *L)
{
    const struct fmL_job *job = fmL_get_job(L);

    lua_pushboolean(L, job != NULL && fm_child_is_cancelled(job->child));
    return 1;
}

/* Raise this at the line of who called a function of the module. */
static void raise_to_user(lua_State *L, const char *path, const char *text)
{
    luaL_where(L, 2);
    lua_pushfstring(L, "fork_map: %s%s%s", path, *path ? ": " : "", text);
    lua_concat(L, 2);
    (void)lua_error(L);
}

/* Encode the value at 1 into the sink.  0, or a negative code with what was
 * wrong above it: FM_EENCODE with path and text. */
static int encode_aside(lua_State *L, const struct fmL_job *job,
                        struct fm__sink *sink)
{
    lua_settop(L, 1);
    return fmL_encode(L, 1, 1, &job->call->options->codec, sink, "value");
}

/* In a worker: a record of this kind. */
static int put_aside(lua_State *L, const struct fmL_job *job, unsigned kind)
{
    struct fm_worker *worker = job->worker;
    int rc;

    if (worker->open != NULL || worker->total > 0)
        raise_to_user(L, "", "not from within a codec");
    rc = encode_aside(L, job, &worker->sink);
    if (rc == 0)
        rc = fm__worker_end(worker, kind, (unsigned)worker->format);
    if (rc < 0)
        fm__worker_begin(worker);
    return rc;
}

/* In an item with a process of its own: its worker passes it on. */
static int send_aside(lua_State *L, const struct fmL_job *job, bool is_stop)
{
    int rc = encode_aside(L, job, fm__child_sink(job->child));

    return rc < 0 ? rc : fm__child_put_aside(job->child, is_stop);
}

/* The value at 1 as an event, or as what ends the map.  False where there is
 * nobody to tell. */
static bool tell_aside(lua_State *L, bool is_stop)
{
    const struct fmL_job *job = fmL_get_job(L);
    int rc;

    if (job == NULL || job->place == NULL || job->place->said)
        return false;
    if (job->worker == NULL)
        rc = send_aside(L, job, is_stop);
    else
        rc = put_aside(L, job, is_stop ? FM__RECORD_STOP : FM__RECORD_EVENT);
    if (rc == FM_EENCODE)
        raise_to_user(L, lua_tostring(L, -2), lua_tostring(L, -1));
    if (rc < 0)
        raise_to_user(L, "", fm_strerror(rc));
    return true;
}

/* emit(value) -> true when it was sent */
static int l_emit(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_pushboolean(L, tell_aside(L, false));
    return 1;
}

/* stop(value): end the whole map; never comes back in a worker */
static int l_stop(lua_State *L)
{
    lua_settop(L, 1);
    if (tell_aside(L, true))
        fm_child_exit(fmL_get_job(L)->child, 0);
    return 0;
}

/* Say which item is being folded: to the parent, or in the table at 7. */
static void note_item(lua_State *L, const struct fmL_job *job, lua_Integer i)
{
    if (!lua_isnil(L, 7)) {
        lua_pushinteger(L, i);
        lua_rawseti(L, 7, 1);
    } else if (job != NULL && job->worker != NULL) {
        fm_worker_set_detail(job->worker, (uint64_t)i);
    }
}

/* fold(fn, acc, list, first, last, skip [, at]) -> acc: fn(acc, item, i) for
 * each of the items first to last but those in the table `skip`; at[1] is the
 * one that it is at */
static int l_fold(lua_State *L)
{
    const struct fmL_job *job = fmL_get_job(L);
    lua_Integer first = luaL_checkinteger(L, 4);
    lua_Integer last = luaL_checkinteger(L, 5);
    lua_Integer i;

    luaL_checktype(L, 1, LUA_TFUNCTION);
    luaL_checktype(L, 6, LUA_TTABLE);
    lua_settop(L, 7);
    for (i = first; i <= last; i++) {
        bool is_skipped = lua_rawgeti(L, 6, i) != LUA_TNIL;

        lua_settop(L, 7);
        if (is_skipped)
            continue;
        note_item(L, job, i);
        lua_pushvalue(L, 1);
        lua_pushvalue(L, 2);
        if (lua_isnil(L, 3))
            lua_pushinteger(L, i);
        else
            (void)lua_geti(L, 3, i);
        lua_pushinteger(L, i);
        lua_call(L, 3, 1);
        lua_replace(L, 2);
    }
    lua_settop(L, 2);
    return 1;
}

void fmL_open_item(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"worker", l_worker},       {"emit", l_emit}, {"stop", l_stop},
        {"cancelled", l_cancelled}, {"fold", l_fold}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
