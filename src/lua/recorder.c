/* SPDX-License-Identifier: MIT */
/* The flight recorder's Lua half. */
#include "lua/recorder.h"

#include <string.h>
#include <lauxlib.h>
#include "lua/job.h"

/* Room for "source:line". */
#define WHERE_MAX (LUA_IDSIZE + 16)

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

/* Write "source:line", or "source" without a line.  Async-signal-safe. */
static void format_line(char where[WHERE_MAX], const char *source, int line)
{
    char digits[12];
    size_t n = 0;
    size_t len = strnlen(source, LUA_IDSIZE);

    memcpy(where, source, len);
    if (line > 0) {
        where[len++] = ':';
        for (; line > 0; line /= 10)
            digits[n++] = (char)('0' + line % 10);
        while (n > 0)
            where[len++] = digits[--n];
    }
    where[len] = '\0';
}

static void note(const struct fmL_recorder *recorder, const char *source,
                 int line)
{
    char where[WHERE_MAX];

    format_line(where, source, line);
    fm_child_note(recorder->child, where);
}

/* In the signal handler.  Touches the hook fields of a thread and nothing
 * else of Lua, in the manner of lua.c's laction(). */
static void sample(void *ud)
{
    struct fmL_recorder *recorder = ud;
    struct fmL_recorder_slot *slot;
    lua_State *L;
    lua_Hook hook;

    if (recorder == NULL || recorder->busy) /* it stops, or works */
        return;
    if (!recorder->noted) {
        recorder->noted = 1;
        note(recorder, recorder->home, recorder->home_line);
    }
    L = recorder->running;
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
static void note_line(lua_State *L, const struct fmL_recorder *recorder)
{
    lua_Debug ar;
    int level;

    for (level = 0; lua_getstack(L, level, &ar); level++) {
        if (lua_getinfo(L, "Sl", &ar) != 0 && ar.currentline > 0) {
            note(recorder, ar.short_src, ar.currentline);
            return;
        }
    }
}

static void sample_hook(lua_State *L, lua_Debug *ar)
{
    struct fmL_recorder *recorder = &fmL_current_job()->recorder;

    (void)ar;
    put_back(L, recorder);
    note_line(L, recorder);
    fmL_cancel_look(L);
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
    fmL_cancel_look(L);
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
    struct fmL_recorder *recorder = &fmL_current_job()->recorder;
    int n;

    luaL_argexpected(L, co != NULL, 1, "thread");
    n = resume(L, co, lua_gettop(L) - 1, recorder);
    if (n < 0) {
        lua_pushboolean(L, 0);
        lua_insert(L, -2);
        return 2;
    }
    lua_pushboolean(L, 1);
    lua_insert(L, -(n + 1));
    return n + 1;
}

/* The function that coroutine.wrap returns.  Its upvalue is the coroutine, as
 * the original's is: see leave.c. */
static int wrapped(lua_State *L)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    struct fmL_recorder *recorder = &fmL_current_job()->recorder;
    int n = resume(L, co, lua_gettop(L), recorder);
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
    lua_pushcclosure(L, wrapped, 1);
    return 1;
}

static void keep_function(lua_State *L, enum fmL_kept key, lua_CFunction fn,
                          enum fmL_kept name_key, const char *name)
{
    lua_pushcfunction(L, fn);
    fmL_keep(L, key);
    lua_pushstring(L, name);
    fmL_keep(L, name_key);
}

void fmL_open_recorder(lua_State *L)
{
    keep_function(L, FML_KEPT_RESUME, l_resume, FML_KEPT_NAME_RESUME, "resume");
    keep_function(L, FML_KEPT_WRAP, l_wrap, FML_KEPT_NAME_WRAP, "wrap");
}

/* ---------------------------------------------------------------------- start
 */

void fmL_recorder_start(lua_State *L, struct fmL_recorder *recorder)
{
    recorder->running = L;
    recorder->busy = 0;
    recorder->noted = 0;
    memset(recorder->slots, 0, sizeof recorder->slots);
    fmL_replace(L, FML_KEPT_COROUTINE, FML_KEPT_NAME_RESUME, FML_KEPT_RESUME);
    fmL_replace(L, FML_KEPT_COROUTINE, FML_KEPT_NAME_WRAP, FML_KEPT_WRAP);
    fm__child_sample(recorder->child, sample, recorder);
}
