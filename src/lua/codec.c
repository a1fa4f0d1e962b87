/* SPDX-License-Identifier: MIT */
/* Codecs by their names, and the core functions that need no engine. */
#include "lua/codec.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <lauxlib.h>
#include "engine/bind.h"
#include "fork_map.h"
#include "lua/values.h"
#include "wire/buffer.h"

#define BUFFER_MT "fork_map.buffer"

const char *fmL_codec_name(enum fmL_codec_kind kind)
{
    switch (kind) {
    case FML_CODEC_AUTO:
        return "auto";
    case FML_CODEC_JSON:
        return "json";
    case FML_CODEC_LUA:
        return "lua";
    case FML_CODEC_CJSON:
        return "cjson";
    case FML_CODEC_PAIR:
        return "pair";
    }
    return "unknown";
}

/* ------------------------------------------------------------ selection */

/* Keep the functions `encode` and `decode` of the table on top of the stack,
 * which is popped.  The references are written one by one, so that an error in
 * between leaves nothing that fmL_release_codec() does not find. */
static void keep_functions(lua_State *L, enum fmL_codec_kind kind,
                           struct fmL_codec *ret)
{
    lua_pushliteral(L, "encode");
    lua_rawget(L, -2);
    lua_pushliteral(L, "decode");
    lua_rawget(L, -3);
    if (!lua_isfunction(L, -2) || !lua_isfunction(L, -1))
        luaL_error(L, "option 'codec': %s",
                   kind == FML_CODEC_CJSON
                       ? "the module 'cjson' has no encode and decode"
                       : "a table needs the functions 'encode' and 'decode'");
    ret->kind = kind;
    ret->decode = luaL_ref(L, LUA_REGISTRYINDEX);
    ret->encode = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pop(L, 1);
}

/* Push lua-cjson's module.  Raises when it is not there. */
static void push_cjson(lua_State *L)
{
    const char *why;

    lua_getglobal(L, "require");
    if (lua_isfunction(L, -1)) {
        lua_pushliteral(L, "cjson");
        if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_istable(L, -1))
            return;
    }
    why = lua_tostring(L, -1);
    luaL_error(L, "option 'codec': lua-cjson is not installed%s%s",
               why != NULL ? ": " : "", why != NULL ? why : "");
}

static void check_name(lua_State *L, const char *name, struct fmL_codec *ret)
{
    enum fmL_codec_kind kind;

    for (kind = FML_CODEC_AUTO; kind < FML_CODEC_PAIR; kind++) {
        if (strcmp(name, fmL_codec_name(kind)) == 0)
            break;
    }
    if (kind == FML_CODEC_PAIR)
        luaL_error(L,
                   "option 'codec': unknown codec '%s' (\"auto\", \"json\", "
                   "\"lua\", \"cjson\" or a table)",
                   name);
    if (kind == FML_CODEC_CJSON) {
        push_cjson(L);
        keep_functions(L, kind, ret);
    }
    ret->kind = kind;
}

void fmL_check_codec(lua_State *L, int idx, struct fmL_codec *ret)
{
    static const struct fmL_codec init = FML_CODEC_INIT;

    *ret = init;
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    switch (lua_type(L, idx)) {
    case LUA_TNIL:
    case LUA_TNONE:
        return;
    case LUA_TSTRING:
        check_name(L, lua_tostring(L, idx), ret);
        return;
    case LUA_TTABLE:
        lua_pushvalue(L, idx);
        keep_functions(L, FML_CODEC_PAIR, ret);
        return;
    default:
        luaL_error(L, "option 'codec': a name or a table expected, got %s",
                   luaL_typename(L, idx));
    }
}

void fmL_release_codec(lua_State *L, struct fmL_codec *codec)
{
    static const struct fmL_codec init = FML_CODEC_INIT;
    struct fmL_codec old = *codec;

    *codec = init;
    luaL_unref(L, LUA_REGISTRYINDEX, old.encode);
    luaL_unref(L, LUA_REGISTRYINDEX, old.decode);
}

/* ---------------------------------------------------------------- array */

void fmL_push_array_mt(lua_State *L)
{
    if (luaL_newmetatable(L, FML_ARRAY_MT)) {
        lua_pushliteral(L, FML_ARRAY_MT);
        lua_setfield(L, -2, "__name");
    }
}

/* array([t]) -> t, marked as a list */
static int l_array(lua_State *L)
{
    lua_settop(L, 1);
    if (lua_isnil(L, 1)) {
        lua_newtable(L);
        lua_replace(L, 1);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    fmL_push_array_mt(L);
    if (lua_getmetatable(L, 1) != 0 && !lua_rawequal(L, -1, -2))
        return luaL_argerror(L, 1, "the table has a metatable already");
    lua_settop(L, 2);
    lua_setmetatable(L, 1);
    return 1;
}

/* ------------------------------------------------------ encode and decode */

/* What an encode or decode call holds, to be collected when it raises. */
struct box {
    struct fm__buffer buffer;
    struct fmL_codec codec;
};

static int l_box_close(lua_State *L)
{
    struct box *box = luaL_checkudata(L, 1, BUFFER_MT);

    fm__buffer_done(&box->buffer);
    fmL_release_codec(L, &box->codec);
    return 0;
}

static struct box *push_box(lua_State *L)
{
    static const struct fmL_codec init = FML_CODEC_INIT;
    struct box *box = lua_newuserdatauv(L, sizeof *box, 0);

    fm__buffer_init(&box->buffer, SIZE_MAX);
    box->codec = init;
    luaL_setmetatable(L, BUFFER_MT);
    return box;
}

/* Release what the box at `idx` holds, now rather than when it is collected. */
static void close_box(lua_State *L, struct box *box)
{
    fm__buffer_done(&box->buffer);
    fmL_release_codec(L, &box->codec);
}

/* encode(codec, ...) -> string, format | nil, path, message */
static int l_encode(lua_State *L)
{
    int n = lua_gettop(L) - 1, rc;
    struct fm__buffer_sink sink;
    struct box *box;

    luaL_checkany(L, 1);
    box = push_box(L);
    lua_insert(L, 1);
    fmL_check_codec(L, 2, &box->codec);
    fm__buffer_sink_init(&sink, &box->buffer);
    rc = fmL_encode(L, 3, n, &box->codec, &sink.sink, "result");
    if (rc == 0)
        rc = fm__buffer_sink_flush(&sink);
    if (rc == FM_EENCODE) {
        close_box(L, box);
        lua_pushnil(L);
        lua_insert(L, -3);
        return 3;
    }
    if (rc < 0)
        return luaL_error(L, "not enough memory");
    lua_pushlstring(L, (const char *)box->buffer.data, box->buffer.len);
    lua_pushinteger(L, sink.format);
    close_box(L, box);
    return 2;
}

/* The format that a codec alone means: that of a text which carries no tag. */
static int format_of(const struct fmL_codec *codec)
{
    switch (codec->kind) {
    case FML_CODEC_AUTO:
    case FML_CODEC_JSON:
        return FM__FORMAT_JSON;
    case FML_CODEC_LUA:
        return FM__FORMAT_LUA;
    case FML_CODEC_CJSON:
        return FM__FORMAT_CJSON;
    case FML_CODEC_PAIR:
        return FM__FORMAT_CUSTOM;
    }
    return FM__FORMAT_BYTES;
}

/* decode(codec_or_format, string [, budget]) -> ... */
static int l_decode(lua_State *L)
{
    struct box *box;
    const char *data;
    size_t len, budget;
    bool is_format = lua_type(L, 1) == LUA_TNUMBER;
    int format = is_format ? (int)luaL_checkinteger(L, 1) : 0, n;

    data = luaL_checklstring(L, 2, &len);
    budget = (size_t)luaL_optinteger(L, 3, 0);
    lua_settop(L, 3);
    box = push_box(L);
    if (!is_format) {
        fmL_check_codec(L, 1, &box->codec);
        format = format_of(&box->codec);
    }
    n = fmL_decode(L, format, is_format ? NULL : &box->codec, data, len,
                   budget);
    close_box(L, box);
    if (n >= 0)
        return n;
    lua_pushfstring(L, "%s: %s", n == FM_ELIMIT ? "limit" : "protocol",
                    lua_tostring(L, -1));
    return lua_error(L);
}

void fmL_open_codec(lua_State *L)
{
    static const luaL_Reg functions[] = {{"array", l_array},
                                         {"encode", l_encode},
                                         {"decode", l_decode},
                                         {NULL, NULL}};

    if (luaL_newmetatable(L, BUFFER_MT)) {
        lua_pushcfunction(L, l_box_close);
        lua_setfield(L, -2, "__gc");
    }
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
}
