/* SPDX-License-Identifier: MIT */
/*
 * lua-cjson and pairs of functions.
 *
 * Their functions are called protected.  A string that they raise is their
 * refusal.  Anything else is not for us and is raised again: lack of memory,
 * or what a hook raised to end the call.
 *
 * lua-cjson ends the whole process when it runs out of memory, whatever its
 * caller does: that is a limit of the codec, not of this file.
 */
#include "lua/values_foreign.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <lauxlib.h>
#include "engine/bind.h"
#include "fork_map.h"
#include "lua/values_read.h"

/* What a value of lua-cjson takes at most beside the bytes of its strings: an
 * item, and a table with one pair. */
#define NODE_BYTES (FML_TABLE_BYTES + FML_PAIR_BYTES + FML_ITEM_BYTES)

/* Call the function under its `n` arguments for one value.  Returns true, or
 * false with the message on top instead. */
static bool call(lua_State *L, int n)
{
    int rc = lua_pcall(L, n, 1, 0);

    if (rc == LUA_OK)
        return true;
    if (rc == LUA_ERRMEM || lua_type(L, -1) != LUA_TSTRING)
        lua_error(L);
    return false;
}

/* Leave path and message above `top`; the message is on top. */
static int refuse(lua_State *L, int top, const char *root, int i)
{
    lua_insert(L, top + 1);
    lua_settop(L, top + 1);
    fmL_push_root(L, root, i);
    lua_insert(L, top + 1);
    return FM_EENCODE;
}

static int refuse_for(lua_State *L, int top, const char *root, int i,
                      const char *message)
{
    lua_pushstring(L, message);
    return refuse(L, top, root, i);
}

/* Leave the message on top alone above `top`. */
static int give_up(lua_State *L, int top, int rc)
{
    lua_insert(L, top + 1);
    lua_settop(L, top + 1);
    return rc;
}

/* ------------------------------------------------------------ lua-cjson */

int fmL_encode_cjson(lua_State *L, int first, int n,
                     const struct fmL_codec *codec, struct fm__sink *sink,
                     const char *root)
{
    int top = lua_gettop(L), i, rc = sink->restart(sink, FM__FORMAT_CJSON);
    const char *data;
    size_t len;

    for (i = 0; i < n && rc == 0; i++) {
        if (!lua_isnil(L, first + i)) {
            lua_rawgeti(L, LUA_REGISTRYINDEX, codec->encode);
            lua_pushvalue(L, first + i);
            if (!call(L, 1))
                return refuse(L, top, root, i);
            data = lua_tolstring(L, -1, &len);
            if (data == NULL || len == 0 || memchr(data, '\n', len) != NULL)
                return refuse_for(L, top, root, i,
                                  "lua-cjson returned no line of text");
            rc = fm__sink_write(sink, data, len);
            lua_settop(L, top);
        }
        if (rc == 0)
            rc = fm__sink_write(sink, "\n", 1);
    }
    return rc;
}

/* lua-cjson reads by recursion and asks nobody about memory, so look first:
 * outside of strings, each value but the first follows one of [ { , : */
static int look(const char *p, const char *end, size_t *budget,
                const char **ret_why)
{
    size_t depth = 0, nodes = 1, bytes = (size_t)(end - p);
    bool in_string = false;

    for (; p < end; p++) {
        if (in_string) {
            if (*p == '\\')
                p++;
            else
                in_string = *p != '"';
            continue;
        }
        in_string = *p == '"';
        depth += *p == '[' || *p == '{';
        depth -= depth > 0 && (*p == ']' || *p == '}');
        nodes += *p == '[' || *p == '{' || *p == ',' || *p == ':';
        if (depth > FM__DEPTH_MAX) {
            *ret_why = "nested too deep";
            return FM_ELIMIT;
        }
    }
    if (bytes > *budget || nodes > (*budget - bytes) / NODE_BYTES) {
        *ret_why = "the values take too much memory";
        return FM_ELIMIT;
    }
    *budget -= bytes + nodes * NODE_BYTES;
    return 0;
}

int fmL_decode_cjson(lua_State *L, const struct fmL_codec *codec,
                     const char *data, size_t len, size_t budget)
{
    const char *line = data, *end = data + len, *stop, *why = NULL;
    int top = lua_gettop(L), rc = 0;

    budget = budget > 0 ? budget : SIZE_MAX;
    for (; line < end; line = stop + 1) {
        stop = memchr(line, '\n', (size_t)(end - line));
        if (!lua_checkstack(L, LUA_MINSTACK)) {
            lua_settop(L, top);
            rc = FM_ELIMIT;
            why = "more values than Lua's stack holds";
        } else if (stop == NULL) {
            rc = FM_EPROTOCOL;
            why = "the last line is cut short";
        } else if (stop > line) {
            rc = look(line, stop, &budget, &why);
        }
        if (rc < 0) {
            fmL_push_unreadable(L, rc, (size_t)(line - data), why);
            return give_up(L, top, rc);
        }
        if (stop == line) {
            lua_pushnil(L);
            continue;
        }
        lua_rawgeti(L, LUA_REGISTRYINDEX, codec->decode);
        lua_pushlstring(L, line, (size_t)(stop - line));
        if (!call(L, 1))
            return give_up(L, top, FM_EPROTOCOL);
    }
    return lua_gettop(L) - top;
}

/* ---------------------------------------------------------------- pairs */

int fmL_encode_pair(lua_State *L, int first, int n,
                    const struct fmL_codec *codec, struct fm__sink *sink,
                    const char *root)
{
    int top = lua_gettop(L), i, rc = sink->restart(sink, FM__FORMAT_CUSTOM);
    const char *data;
    size_t len;

    if (rc < 0)
        return rc;
    lua_rawgeti(L, LUA_REGISTRYINDEX, codec->encode);
    lua_createtable(L, n, 1);
    for (i = 0; i < n; i++) {
        lua_pushvalue(L, first + i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushliteral(L, "n");
    lua_pushinteger(L, n);
    lua_rawset(L, -3);
    if (!call(L, 1))
        return refuse(L, top, root, 0);
    if (lua_type(L, -1) != LUA_TSTRING)
        return refuse_for(
            L, top, root, 0,
            "the encode function of the codec returned no string");
    data = lua_tolstring(L, -1, &len);
    rc = fm__sink_write(sink, data, len);
    lua_settop(L, top);
    return rc;
}

int fmL_decode_pair(lua_State *L, const struct fmL_codec *codec,
                    const char *data, size_t len, size_t budget)
{
    int top = lua_gettop(L), packed = top + 1, is_count = 0;
    lua_Integer n = 0, i;

    (void)budget; /* `len` is bounded; what it becomes is the pair's affair */
    lua_rawgeti(L, LUA_REGISTRYINDEX, codec->decode);
    lua_pushlstring(L, data, len);
    if (!call(L, 1))
        return give_up(L, top, FM_EPROTOCOL);
    if (lua_type(L, packed) == LUA_TTABLE) {
        lua_pushliteral(L, "n");
        lua_rawget(L, packed);
        n = lua_tointegerx(L, -1, &is_count);
        lua_settop(L, packed);
    }
    if (!is_count || n < 0 || n > LUAI_MAXSTACK) {
        lua_pushliteral(L, "the decode function of the codec returned no table "
                           "with its count `n`");
        return give_up(L, top, FM_EPROTOCOL);
    }
    luaL_checkstack(L, (int)n + LUA_MINSTACK, "too many values");
    for (i = 1; i <= n; i++)
        lua_rawgeti(L, packed, i);
    lua_remove(L, packed);
    return (int)n;
}
