/* SPDX-License-Identifier: MIT */
/*
 * Items of a source: Lua values on their way to the workers of a map.
 *
 * Scalars go as they are, as results do; the rest by the map's codec.  A worker
 * decodes bytes that are its own, of its parent, whom it trusts.
 */
#include <errno.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/map.h"
#include "lua/values.h"

/* Formats of items, behind those of values: see engine/bind.h. */
enum {
    FORMAT_INTEGER = FML_FORMAT_STRING + 1,
    FORMAT_NUMBER,
    FORMAT_FALSE,
    FORMAT_TRUE
};

/* A buffer above this size is not kept from item to item. */
#define KEPT_MAX ((size_t)1 << 20)

/* ------------------------------------------------------------- the parent */

/* Feed a value that needs no codec.  1 when it is none; else a code. */
static int feed_scalar(lua_State *L, const struct fmL_map *map, int idx)
{
    enum fmL_codec_kind codec = map->call.options->codec.kind;
    lua_Integer n;
    lua_Number x;
    size_t len;
    const char *s;

    if (codec > FML_CODEC_LUA)
        return 1;
    switch (lua_type(L, idx)) {
    case LUA_TBOOLEAN:
        return fm_map_feed(map->map, NULL, 0,
                           lua_toboolean(L, idx) ? FORMAT_TRUE : FORMAT_FALSE);
    case LUA_TNUMBER:
        if (lua_isinteger(L, idx)) {
            n = lua_tointeger(L, idx);
            return fm_map_feed(map->map, &n, sizeof n, FORMAT_INTEGER);
        }
        x = lua_tonumber(L, idx);
        if (codec == FML_CODEC_JSON && x - x != 0)
            return 1; /* JSON has no such number */
        return fm_map_feed(map->map, &x, sizeof x, FORMAT_NUMBER);
    case LUA_TSTRING:
        if (codec == FML_CODEC_JSON)
            return 1; /* its strings are UTF-8 */
        s = lua_tolstring(L, idx, &len);
        return fm_map_feed(map->map, s, len, FML_FORMAT_STRING);
    default:
        return 1;
    }
}

/* Any value, by the codec.  FM_EENCODE with path and reason pushed. */
static int feed_encoded(lua_State *L, struct fmL_map *map, int idx)
{
    struct fm__buffer *bytes = &map->item;
    struct fm__buffer_sink sink;
    int rc;

    fm__buffer_clear(bytes);
    fm__buffer_sink_init(&sink, bytes);
    rc = fmL_encode(L, idx, 1, &map->call.options->codec, &sink.sink, "arg");
    if (rc == 0)
        rc = fm__buffer_sink_flush(&sink);
    if (rc == 0 && map->map == NULL)
        rc = FM_ECLOSED; /* by the codec's own function */
    if (rc == 0)
        rc = fm_map_feed(map->map, bytes->data, bytes->len, sink.format);
    if (bytes->size > KEPT_MAX)
        fm__buffer_done(bytes);
    return rc;
}

/* map_feed(map, item) -> bytes of items that wait | false when it takes no more
 * | nil, path, reason: the next item cannot cross */
static int l_map_feed(lua_State *L)
{
    struct fmL_map *map = fmL_check_map(L, 1);
    int rc;

    luaL_checkany(L, 2);
    lua_settop(L, 2);
    rc = feed_scalar(L, map, 2);
    if (rc == 1)
        rc = feed_encoded(L, map, 2);
    if (rc == FM_EENCODE) {
        lua_pushnil(L);
        lua_insert(L, -3);
        return 3;
    }
    if (rc == -ENOMEM || rc == FM_ELIMIT)
        return luaL_error(L, "not enough memory");
    if (rc < 0)
        lua_pushboolean(L, 0);
    else
        lua_pushinteger(L, (lua_Integer)fm_map_count_bytes(map->map));
    return 1;
}

/* map_feed_none(map) -> boolean: the next number is used up */
static int l_map_feed_none(lua_State *L)
{
    lua_pushboolean(L, fm_map_feed_none(fmL_check_map(L, 1)->map) == 0);
    return 1;
}

/* map_feed_end(map) */
static int l_map_feed_end(lua_State *L)
{
    fm_map_feed_end(fmL_check_map(L, 1)->map);
    return 0;
}

/* map_waiting(map) -> items without an outcome, their bytes */
static int l_map_waiting(lua_State *L)
{
    const struct fmL_map *map = fmL_check_map(L, 1);

    lua_pushinteger(L, (lua_Integer)fm_map_count_open(map->map));
    lua_pushinteger(L, (lua_Integer)fm_map_count_bytes(map->map));
    return 2;
}

/* ------------------------------------------------------------- the worker */

static void push_bytes(lua_State *L, const struct fmL_codec *codec, int format,
                       const void *data, size_t len)
{
    int top = lua_gettop(L);

    /* Its memory is the item's own affair. */
    if (fmL_decode(L, format, codec, data, len, 0) < 0)
        (void)lua_error(L);
    lua_settop(L, top + 1);
}

void fmL_push_source_item(lua_State *L, const struct fmL_map *map,
                          fm_worker *worker)
{
    const void *data = NULL;
    size_t len = 0;
    int format = fm_worker_get_item(worker, &data, &len);
    lua_Integer n = 0;
    lua_Number x = 0;

    if (format == -ENOMEM)
        (void)luaL_error(L, "not enough memory");
    if (format < 0)
        (void)luaL_error(L, "fork_map: %s", fm_strerror(format));
    switch (format) {
    case FML_FORMAT_STRING:
        lua_pushlstring(L, data, len);
        break;
    case FORMAT_INTEGER:
        memcpy(&n, data, sizeof n);
        lua_pushinteger(L, n);
        break;
    case FORMAT_NUMBER:
        memcpy(&x, data, sizeof x);
        lua_pushnumber(L, x);
        break;
    case FORMAT_FALSE:
    case FORMAT_TRUE:
        lua_pushboolean(L, format == FORMAT_TRUE);
        break;
    default:
        push_bytes(L, &map->call.options->codec, format, data, len);
        break;
    }
}

void fmL_open_source(lua_State *L)
{
    static const luaL_Reg functions[] = {{"map_feed", l_map_feed},
                                         {"map_feed_none", l_map_feed_none},
                                         {"map_feed_end", l_map_feed_end},
                                         {"map_waiting", l_map_waiting},
                                         {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
