/* SPDX-License-Identifier: MIT */
/*
 * How a map's items come into its tables: the callbacks of the engine.  They
 * run in one protected call for each batch, in the state that has entered the
 * engine.
 */
#include <string.h>
#include <lauxlib.h>
#include "lua/heap.h"
#include "lua/map.h"
#include "lua/values.h"

/* Registry key of a table, weak as to its values: address of a map -> it. */
static const char maps_key;

/* Where the tables are while callbacks run. */
enum { AT_MAP = 1, AT_RUN, AT_ARG, AT_RESULTS, AT_ERRORS, AT_LOG, AT_EVENTS };

/* Log an item, as it has settled. */
static void log_item(lua_State *L, struct fmL_map *map, lua_Integer index)
{
    if (!map->has_log)
        return;
    lua_pushinteger(L, index);
    lua_rawseti(L, AT_LOG, ++map->n_log);
}

static void keep_failure(lua_State *L, struct fmL_map *map,
                         const struct fm_item *item,
                         const struct fm_outcome *outcome)
{
    lua_Integer index = (lua_Integer)item->index + 1;

    fmL_push_outcome_error(L, map->call.engine, outcome,
                           fmL_options_get_budget(map->call.options));
    lua_pushinteger(L, index);
    lua_setfield(L, -2, "index");
    if (item->detail > 0) {
        lua_pushinteger(L, (lua_Integer)item->detail);
        lua_setfield(L, -2, "detail");
    }
    lua_rawseti(L, AT_ERRORS, index);
    map->n_failed++;
    if (map->stops_at_failure)
        fm_map_stop(map->map, -1);
}

/* Push the first value of these bytes.  False when they are none: then an
 * outcome that says so is at `*ret_failure`, with its message on the stack. */
static bool push_bytes(lua_State *L, const struct fmL_map *map,
                       const struct fm_item *item,
                       struct fm_outcome *ret_failure)
{
    int top = lua_gettop(L);
    int n;

    if (item->format == FML_FORMAT_STRING) {
        fmL_heap_push_string(L, item->data, item->len);
        return true;
    }
    n = fmL_decode(L, item->format, &map->call.options->codec, item->data,
                   item->len, fmL_options_get_budget(map->call.options));
    if (n >= 0) {
        lua_settop(L, top + 1);
        return true;
    }
    memset(ret_failure, 0, sizeof *ret_failure);
    ret_failure->kind = n == FM_ELIMIT ? FM_LIMIT : FM_PROTOCOL;
    ret_failure->limit = n == FM_ELIMIT ? "result" : NULL;
    ret_failure->message = lua_tostring(L, -1);
    ret_failure->attempt = item->attempt;
    return false;
}

/* Push the value of an item; false when there is none, with the failure kept.
 */
static bool push_value(lua_State *L, struct fmL_map *map,
                       const struct fm_item *item)
{
    struct fm_outcome failure;

    switch (item->type) {
    case FM_ITEM_NIL:
        lua_pushnil(L);
        return true;
    case FM_ITEM_FALSE:
    case FM_ITEM_TRUE:
        lua_pushboolean(L, item->type == FM_ITEM_TRUE);
        return true;
    case FM_ITEM_INTEGER:
        lua_pushinteger(L, item->u.integer);
        return true;
    case FM_ITEM_NUMBER:
        lua_pushnumber(L, item->u.number);
        return true;
    case FM_ITEM_BYTES:
    case FM_ITEM_STOP:
        if (push_bytes(L, map, item, &failure))
            return true;
        keep_failure(L, map, item, &failure);
        return false;
    case FM_ITEM_FAILED:
        break;
    }
    keep_failure(L, map, item, item->outcome);
    return false;
}

static void on_item(fm_map *fm, const struct fm_item *item, void *ud)
{
    struct fmL_map *map = ud;
    lua_State *L = map->L;
    lua_Integer index = (lua_Integer)item->index + 1;

    (void)fm;
    /* The case that there are millions of. */
    if (item->type == FM_ITEM_INTEGER) {
        lua_pushinteger(L, item->u.integer);
        lua_rawseti(L, AT_RESULTS, index);
        log_item(L, map, index);
        return;
    }
    if (push_value(L, map, item) && map->want != FML_WANT_NOTHING)
        lua_rawseti(L, AT_RESULTS, index);
    log_item(L, map, index);
    lua_settop(L, AT_EVENTS);
}

static void on_event(fm_map *fm, const struct fm_item *item, void *ud)
{
    struct fmL_map *map = ud;
    lua_State *L = map->L;

    (void)fm;
    if (!push_value(L, map, item)) {
        lua_settop(L, AT_EVENTS);
        return;
    }
    if (item->type == FM_ITEM_STOP) {
        lua_createtable(L, 1, 0);
        lua_insert(L, -2);
        lua_rawseti(L, -2, 1);
        lua_setiuservalue(L, AT_MAP, FML_MAP_STOPPED);
        return;
    }
    lua_pushinteger(L, (lua_Integer)item->index + 1);
    lua_rawseti(L, AT_EVENTS, ++map->n_events);
    lua_rawseti(L, AT_EVENTS, ++map->n_events);
}

/* Push the userdata, or nil when it is about to be collected. */
static void push_map(lua_State *L, struct fmL_map *map)
{
    (void)lua_rawgetp(L, LUA_REGISTRYINDEX, &maps_key);
    (void)lua_rawgetp(L, -1, map);
    lua_remove(L, -2);
}

/* (map, run, arg): call run(arg), which calls the callbacks. */
static int run_guarded(lua_State *L)
{
    struct fmL_map *map = luaL_checkudata(L, AT_MAP, FML_MAP_MT);
    void (**run)(void *arg) = lua_touserdata(L, AT_RUN);
    void *arg = lua_touserdata(L, AT_ARG);

    luaL_checkstack(L, LUA_MINSTACK, NULL);
    (void)lua_getiuservalue(L, AT_MAP, FML_MAP_RESULTS);
    (void)lua_getiuservalue(L, AT_MAP, FML_MAP_ERRORS);
    (void)lua_getiuservalue(L, AT_MAP, FML_MAP_LOG);
    (void)lua_getiuservalue(L, AT_MAP, FML_MAP_EVENTS);
    map->L = L;
    (*run)(arg);
    return 0;
}

/* What a callback raises is lack of memory, or what a hook of the host raises,
 * as that for Ctrl-C does: what came is lost, so the map fails with it. */
static void guard(void (*run)(void *arg), void *arg, void *ud)
{
    struct fmL_map *map = ud;
    lua_State *L = map->call.engine->L;

    if (map->is_lost || !lua_checkstack(L, LUA_MINSTACK)) {
        map->is_lost = true;
        fm_map_stop(map->map, 0);
        return;
    }
    lua_pushcfunction(L, run_guarded);
    push_map(L, map);
    lua_pushlightuserdata(L, (void *)&run);
    lua_pushlightuserdata(L, arg);
    if (lua_pcall(L, 3, 0, 0) != LUA_OK) {
        push_map(L, map);
        lua_insert(L, -2);
        if (lua_isuserdata(L, -2))
            lua_setiuservalue(L, -2, FML_MAP_LOST);
        else
            lua_pop(L, 1);
        lua_pop(L, 1);
        map->is_lost = true;
        fm_map_stop(map->map, 0);
    }
}

/* ----------------------------------------------- lines that a worker prints */

struct line_event {
    struct fmL_map *map;
    const char *line;
    size_t len;
    uint64_t index; /* of the item that printed it */
    int stream;
};

static int deliver_line(lua_State *L)
{
    const struct line_event *event = lua_touserdata(L, 1);

    (void)luaL_checkudata(L, 2, FML_MAP_MT);
    lua_getiuservalue(L, 2, FML_MAP_OPTIONS);
    lua_getiuservalue(L, -1, FML_OPTIONS_HANDLER);
    lua_pushlstring(L, event->line, event->len);
    lua_pushstring(L, event->stream == 1 ? "stdout" : "stderr");
    if (event->index == UINT64_MAX)
        lua_pushnil(L);
    else
        lua_pushinteger(L, (lua_Integer)event->index + 1);
    lua_call(L, 3, 0);
    return 0;
}

static void on_line(int stream, const char *line, size_t len, void *ud)
{
    struct fmL_map *map = ud;
    struct line_event event = {map, line, len, fm_map_get_line_index(map->map),
                               stream};
    lua_State *L = map->call.engine->L;

    if (!lua_checkstack(L, LUA_MINSTACK))
        return;
    lua_pushcfunction(L, deliver_line);
    lua_pushlightuserdata(L, &event);
    push_map(L, map);
    fmL_callback(L, map->call.engine, 2);
}

/* -------------------------------------------------------------------- set-up
 */

void fmL_map_set_callbacks(struct fmL_map *map)
{
    struct fm_map_opts *opts = &map->opts;

    opts->on_item = on_item;
    opts->on_event = on_event;
    opts->guard = guard;
    opts->cb_ud = map;
    opts->job.on_line = on_line;
    opts->job.on_line_ud = map;
}

void fmL_map_register(lua_State *L, struct fmL_map *map)
{
    (void)lua_rawgetp(L, LUA_REGISTRYINDEX, &maps_key);
    lua_pushvalue(L, -2);
    lua_rawsetp(L, -2, map);
    lua_pop(L, 1);
}

void fmL_open_map_callbacks(lua_State *L)
{
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &maps_key);
}
