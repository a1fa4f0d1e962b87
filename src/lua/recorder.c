/* SPDX-License-Identifier: MIT */
/* The flight recorder's Lua half. */
#include "lua/recorder.h"

#include <stdio.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/call.h"

#define SAMPLE_MASK (LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT)

static void sample_hook(lua_State *L, lua_Debug *ar);

/* ------------------------------------------------------------- signal context
 */

static struct fmL_recorder_slot *find_slot(struct fmL_recorder *recorder,
                                           const lua_State *thread)
{
    int i;

    for (i = 0; i < FML_RECORDER_SLOTS; i++) {
        if (recorder->slots[i].thread == thread)
            return &recorder->slots[i];
    }
    return NULL;
}

/* In the signal handler.  Touches the hook fields of a thread and nothing
 * else of Lua, in the manner of lua.c's laction(). */
static void sample(void *ud)
{
    struct fmL_recorder *recorder = ud;
    lua_State *L = recorder->running;
    struct fmL_recorder_slot *slot;
    lua_Hook hook;

    if (!recorder->noted) {
        recorder->noted = 1;
        fm_child_note(recorder->child, recorder->home);
    }
    if (L == NULL || recorder->busy)
        return;
    hook = lua_gethook(L);
    if (hook == sample_hook) /* still waiting for its next instruction */
        return;
    if (hook != NULL && (lua_gethookmask(L) & LUA_MASKCOUNT))
        return;
    /* No slot means that there was no hook.  One that exists already was left
     * by a thread that died, or whose hook was overwritten. */
    slot = find_slot(recorder, L);
    if (slot == NULL && hook != NULL) {
        slot = find_slot(recorder, NULL);
        if (slot == NULL)
            return;
    }
    if (slot != NULL) {
        slot->hook = hook;
        slot->mask = lua_gethookmask(L);
        slot->count = lua_gethookcount(L);
        slot->thread = L;
    }
    lua_sethook(L, sample_hook, SAMPLE_MASK, 1);
}

/* ------------------------------------------------------------------- the hook
 */

static void put_back(lua_State *L, struct fmL_recorder *recorder)
{
    struct fmL_recorder_slot *slot;

    recorder->busy = 1;
    slot = find_slot(recorder, L);
    if (slot != NULL) {
        lua_sethook(L, slot->hook, slot->mask, slot->count);
        slot->thread = NULL;
    } else {
        lua_sethook(L, NULL, 0, 0);
    }
    recorder->busy = 0;
}

/* The line of the innermost Lua function. */
static void note_line(lua_State *L, fm_child *child)
{
    char where[FML_RECORDER_WHERE];
    lua_Debug ar;
    int level;

    for (level = 0; lua_getstack(L, level, &ar); level++) {
        if (lua_getinfo(L, "Sl", &ar) == 0 || ar.currentline < 0)
            continue;
        (void)snprintf(where, sizeof where, "%s:%d", ar.short_src,
                       ar.currentline);
        fm_child_note(child, where);
        return;
    }
}

static void sample_hook(lua_State *L, lua_Debug *ar)
{
    struct fmL_recorder *recorder = &fmL_get_job(L)->recorder;

    (void)ar;
    put_back(L, recorder);
    note_line(L, recorder->child);
}

/* ----------------------------------------------------------------- coroutines
 */

/* As the original, with `running` kept right.  Returns the number of results,
 * or -1 with an error object pushed. */
static int resume(lua_State *L, lua_State *co, int n,
                  struct fmL_recorder *recorder)
{
    lua_State *resumer = recorder->running;
    int status;
    int n_results;

    if (!lua_checkstack(co, n)) {
        lua_pushliteral(L, "too many arguments to resume");
        return -1;
    }
    lua_xmove(L, co, n);
    recorder->running = co;
    status = lua_resume(co, L, n, &n_results);
    recorder->running = resumer;
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_xmove(co, L, 1);
        return -1;
    }
    if (!lua_checkstack(L, n_results + 1)) {
        lua_pop(co, n_results);
        lua_pushliteral(L, "too many results to resume");
        return -1;
    }
    lua_xmove(co, L, n_results);
    return n_results;
}

static int l_resume(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);
    int n;

    luaL_argexpected(L, co != NULL, 1, "thread");
    n = resume(L, co, lua_gettop(L) - 1,
               lua_touserdata(L, lua_upvalueindex(1)));
    if (n < 0) {
        lua_pushboolean(L, 0);
        lua_insert(L, -2);
        return 2;
    }
    lua_pushboolean(L, 1);
    lua_insert(L, -(n + 1));
    return n + 1;
}

/* The function that coroutine.wrap returns. */
static int wrapped(lua_State *L)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    int n =
        resume(L, co, lua_gettop(L), lua_touserdata(L, lua_upvalueindex(2)));
    int status;

    if (n >= 0)
        return n;
    status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD) {
        status = lua_resetthread(co); /* runs what is to be closed */
        lua_xmove(co, L, 1);
    }
    if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int l_wrap(lua_State *L)
{
    lua_State *co;

    luaL_checktype(L, 1, LUA_TFUNCTION);
    co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, wrapped, 2);
    return 1;
}

static void replace(lua_State *L, const char *name, lua_CFunction fn,
                    struct fmL_recorder *recorder)
{
    lua_pushstring(L, name);
    lua_pushlightuserdata(L, recorder);
    lua_pushcclosure(L, fn, 1);
    lua_rawset(L, -3);
}

/* ---------------------------------------------------------------------- start
 */

int fmL_recorder_start(lua_State *L, int idx, fm_child *child,
                       struct fmL_recorder *recorder)
{
    lua_Debug ar;

    memset(recorder, 0, sizeof *recorder);
    recorder->child = child;
    recorder->running = L;
    lua_pushvalue(L, idx);
    lua_getinfo(L, ">S", &ar);
    if (ar.linedefined > 0)
        (void)snprintf(recorder->home, sizeof recorder->home, "%s:%d",
                       ar.short_src, ar.linedefined);
    else
        (void)snprintf(recorder->home, sizeof recorder->home, "%s",
                       ar.short_src);
    if (fmL_push_kept(L, FML_KEPT_COROUTINE) == LUA_TTABLE) {
        replace(L, "resume", l_resume, recorder);
        replace(L, "wrap", l_wrap, recorder);
    }
    lua_pop(L, 1);
    return fm__child_sample(child, sample, recorder);
}
