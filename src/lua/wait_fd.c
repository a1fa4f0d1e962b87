/* SPDX-License-Identifier: MIT */
/*
 * Waiting for one descriptor, once.  As a future that the loop settles a watch
 * has an entry, a table of the Lua half, under its address: from watch() until
 * the loop has taken it, or unwatch().  The entry holds the watch.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <lauxlib.h>
#include "engine/watcher.h"
#include "lua/binding.h"

#define WATCH_MT "fork_map.core.watch"

struct watch {
    struct fm__watcher watcher; /* added until it is ready */
    struct fmL_engine *engine;
    struct fmL_told told;
    bool is_listed; /* ready, and perhaps not taken yet */
};

enum { WATCH_ENGINE = 1 };

/* Engine: the descriptor is ready. */
static void notice(struct fm__watcher *watcher, unsigned events)
{
    struct watch *watch = watcher->ud;

    (void)events;
    fm__watcher_end_step(watcher);
    fm__watcher_remove(watcher);
    watch->is_listed = true;
    fmL_tell(watch->engine, &watch->told);
}

/* watch(engine, fd, "r" or "w", entry) -> watch, also in entry[1], | nil,
 * message, NAME: when the descriptor is ready, next_settled() gives the entry
 */
static int l_watch(lua_State *L)
{
    struct fmL_engine *box = fmL_check_engine(L, 1);
    lua_Integer fd = luaL_checkinteger(L, 2);
    bool is_write = *luaL_checkstring(L, 3) == 'w';
    struct watch *watch;
    int rc;

    luaL_checktype(L, 4, LUA_TTABLE);
    lua_settop(L, 4);
    if (box->engine == NULL)
        return fmL_raise_code(L, FM_ECLOSED);
    watch = lua_newuserdatauv(L, sizeof *watch, 1);
    memset(watch, 0, sizeof *watch);
    watch->engine = box;
    luaL_setmetatable(L, WATCH_MT);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, WATCH_ENGINE);
    lua_pushvalue(L, -1);
    lua_rawseti(L, 4, 1);
    fmL_push_live(L, 1);
    lua_pushvalue(L, 4);
    lua_rawsetp(L, -2, &watch->told);
    watch->watcher.fn = notice;
    watch->watcher.ud = watch;
    watch->watcher.holds = true;
    rc = fd < 0 || fd > INT_MAX
             ? -EBADF
             : fm__watcher_add(box->engine, &watch->watcher, (int)fd,
                               is_write ? FM__POLL_OUT : FM__POLL_IN);
    if (rc >= 0) {
        lua_settop(L, 5);
        return 1;
    }
    lua_pushnil(L);
    lua_rawseti(L, 4, 1);
    lua_pushnil(L);
    lua_rawsetp(L, -2, &watch->told);
    return fmL_push_code(L, rc);
}

/* Out of the list of its engine, in which few are at a time. */
static void unlist(struct watch *watch)
{
    struct fmL_engine *box = watch->engine;
    struct fmL_told *before = NULL, *told = box->told;

    while (told != NULL && told != &watch->told) {
        before = told;
        told = told->next;
    }
    if (told == NULL)
        return;
    if (before == NULL)
        box->told = told->next;
    else
        before->next = told->next;
    if (box->last_told == told)
        box->last_told = before;
}

/* unwatch(watch): nothing comes of it any more; may be repeated */
static int l_unwatch(lua_State *L)
{
    struct watch *watch = luaL_checkudata(L, 1, WATCH_MT);

    fm__watcher_remove(&watch->watcher);
    if (watch->is_listed)
        unlist(watch);
    watch->is_listed = false;
    lua_getiuservalue(L, 1, WATCH_ENGINE);
    fmL_push_live(L, lua_gettop(L));
    lua_pushnil(L);
    lua_rawsetp(L, -2, &watch->told);
    return 0;
}

/* Its entry was collected with it, at the end of the state: engine and list
 * may be gone. */
static int watch_gc(lua_State *L)
{
    struct watch *watch = luaL_checkudata(L, 1, WATCH_MT);

    fm__watcher_remove(&watch->watcher);
    return 0;
}

void fmL_open_wait_fd(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"watch", l_watch}, {"unwatch", l_unwatch}, {NULL, NULL}};

    luaL_newmetatable(L, WATCH_MT);
    lua_pushcfunction(L, watch_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
