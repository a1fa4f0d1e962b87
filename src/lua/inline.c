/* SPDX-License-Identifier: MIT */
/*
 * Calls in this process that stand for calls in a child: items of a map without
 * workers.  As in a child nothing yields out of them, and a time limit ends
 * them, as far as Lua code can be ended: by a hook.
 */
#include <math.h>
#include <time.h>
#include <lauxlib.h>
#include "lua/binding.h"
#include "os/clock.h"
#include "os/sys.h"

/* Instructions between two looks at the clock. */
#define HOOK_COUNT 1000

/* The time at which the innermost call that has a limit is over.  Of one Lua
 * state; means nothing in a child, whose calls have hooks of their own. */
struct watch {
    lua_Number until; /* HUGE_VAL: never */
    long pid;
};

/* Registry keys of the watch, and of what the hook raises. */
static const char watch_key;
static const char late_key;

static lua_Number now(void)
{
    return (lua_Number)fm__clock_now() * 1e-9;
}

static struct watch *get_watch(lua_State *L)
{
    struct watch *watch;

    (void)lua_rawgetp(L, LUA_REGISTRYINDEX, &watch_key);
    watch = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (watch->pid != (long)fm__sys.getpid()) {
        watch->pid = (long)fm__sys.getpid();
        watch->until = HUGE_VAL;
    }
    return watch;
}

/* Coroutines inherit the hook of their maker, and may outlive the call. */
static void look_at_clock(lua_State *L, lua_Debug *ar)
{
    struct watch *watch;

    (void)ar;
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    watch = get_watch(L);
    if (watch->until >= HUGE_VAL) {
        lua_sethook(L, NULL, 0, 0);
        return;
    }
    if (now() < watch->until)
        return;
    /* Who catches it meets it again at the very next instruction. */
    lua_sethook(L, look_at_clock, LUA_MASKCOUNT, 1);
    (void)lua_rawgetp(L, LUA_REGISTRYINDEX, &late_key);
    (void)lua_error(L);
}

/* call_inline(until, handler, fn, ...) -> true, value | false, handler's value:
 * call fn(...) until it is that late, or nil for ever */
static int l_call_inline(lua_State *L)
{
    struct watch *watch = get_watch(L);
    lua_Number outer = watch->until;
    lua_Number until = luaL_optnumber(L, 1, HUGE_VAL);
    lua_Hook hook = lua_gethook(L);
    int mask = lua_gethookmask(L);
    int count = lua_gethookcount(L);
    int status;

    luaL_checktype(L, 2, LUA_TFUNCTION);
    luaL_checktype(L, 3, LUA_TFUNCTION);
    if (until < outer)
        watch->until = until;
    /* Also for an outer limit: this may be another coroutine. */
    if (watch->until < HUGE_VAL)
        lua_sethook(L, look_at_clock, LUA_MASKCOUNT, HOOK_COUNT);
    status = lua_pcall(L, lua_gettop(L) - 3, 1, 2);
    /* Another hook may have come meanwhile, such as that of Ctrl-C. */
    if (lua_gethook(L) == NULL || lua_gethook(L) == look_at_clock)
        lua_sethook(L, hook, mask, count);
    watch->until = outer;
    lua_pushboolean(L, status == LUA_OK);
    lua_insert(L, -2);
    return 2;
}

/* pause(seconds): sleep, or a little less */
static int l_pause(lua_State *L)
{
    lua_Number seconds = luaL_checknumber(L, 1);
    struct timespec want;

    luaL_argcheck(L, seconds >= 0 && seconds <= 1, 1, "0 to 1");
    want.tv_sec = (time_t)seconds;
    want.tv_nsec = (long)((seconds - (lua_Number)want.tv_sec) * 1e9);
    (void)fm__sys.nanosleep(&want, NULL);
    return 0;
}

/* The module has the field `late`: what is raised when the time is over. */
void fmL_open_inline(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"call_inline", l_call_inline}, {"pause", l_pause}, {NULL, NULL}};
    struct watch *watch;

    luaL_setfuncs(L, functions, 0);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &late_key) == LUA_TNIL) {
        watch = lua_newuserdatauv(L, sizeof *watch, 0);
        watch->until = HUGE_VAL;
        watch->pid = 0;
        lua_rawsetp(L, LUA_REGISTRYINDEX, &watch_key);
        lua_newtable(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &late_key);
        (void)lua_rawgetp(L, LUA_REGISTRYINDEX, &late_key);
        lua_remove(L, -2);
    }
    lua_setfield(L, -2, "late");
}
