/* SPDX-License-Identifier: MIT */
/* Codecs by their names, and the core functions that need no engine. */
#include "lua/codec.h"

#include <stdint.h>
#include <string.h>
#include <lauxlib.h>
#include "engine/bind.h"
#include "fork_map.h"
#include "lua/values.h"
#include "wire/buffer.h"

#define CODEC_MT "fork_map.codec"
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

/* The codec of that name, or FML_CODEC_PAIR, which has none. */
static enum fmL_codec_kind find_name(const char *name)
{
    enum fmL_codec_kind kind;

    for (kind = FML_CODEC_AUTO; kind < FML_CODEC_PAIR; kind++) {
        const char *known = fmL_codec_name(kind);

        if (*name == *known && strcmp(name, known) == 0)
            break;
    }
    return kind;
}

static void check_name(lua_State *L, const char *name, struct fmL_codec *ret)
{
    enum fmL_codec_kind kind = find_name(name);

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

static int l_codec_gc(lua_State *L)
{
    fmL_release_codec(L, luaL_checkudata(L, 1, CODEC_MT));
    return 0;
}

/* The codec that the first argument says.  One that keeps functions lives in a
 * userdata, which is pushed, so that they are let go of in any case. */
static const struct fmL_codec *check_codec(lua_State *L,
                                           struct fmL_codec *plain)
{
    static const struct fmL_codec init = FML_CODEC_INIT;
    struct fmL_codec *codec = plain;

    *codec = init;
    if (lua_type(L, 1) == LUA_TSTRING) {
        codec->kind = find_name(lua_tostring(L, 1));
        if (codec->kind < FML_CODEC_CJSON)
            return codec;
    }
    if (lua_type(L, 1) == LUA_TSTRING || lua_type(L, 1) == LUA_TTABLE) {
        codec = lua_newuserdatauv(L, sizeof *codec, 0);
        *codec = init;
        luaL_setmetatable(L, CODEC_MT);
    }
    fmL_check_codec(L, 1, codec);
    return codec;
}

/* A sink that fills `first`, and when that is full a buffer, which is kept from
 * one call to the next in the only upvalue of encode().  While it is in use it
 * is in the stack slot instead: a finalizer may call encode() meanwhile, and an
 * error leaves it to the collector. */
struct memory_sink {
    struct fm__sink sink;
    lua_State *L;
    int slot, format;
    unsigned char *data;
    struct fm__buffer *buffer; /* NULL while `first` is enough */
    unsigned char first[1024];
};

/* A bigger buffer is not kept. */
#define BUFFER_KEPT ((size_t)1 << 20)

static int l_buffer_gc(lua_State *L)
{
    fm__buffer_done(luaL_checkudata(L, 1, BUFFER_MT));
    return 0;
}

/* Move the buffer from the upvalue to the slot; make one where there is none.
 * [-0, +0, m] */
static struct fm__buffer *take_buffer(lua_State *L, int slot)
{
    struct fm__buffer *buffer = lua_touserdata(L, lua_upvalueindex(1));

    if (buffer == NULL) {
        buffer = lua_newuserdatauv(L, sizeof *buffer, 0);
        fm__buffer_init(buffer, SIZE_MAX);
        luaL_setmetatable(L, BUFFER_MT);
        lua_replace(L, slot);
    } else {
        lua_copy(L, lua_upvalueindex(1), slot);
        lua_pushnil(L);
        lua_replace(L, lua_upvalueindex(1));
    }
    fm__buffer_clear(buffer);
    return buffer;
}

static int memory_more(struct fm__sink *base)
{
    struct memory_sink *sink = (struct memory_sink *)base;
    struct fm__buffer *buffer = sink->buffer;
    size_t len = (size_t)(base->next - sink->data);
    int rc = 0;

    if (buffer == NULL) {
        buffer = take_buffer(sink->L, sink->slot);
        rc = fm__buffer_append(buffer, sink->data, len);
        sink->buffer = rc == 0 ? buffer : NULL;
    }
    buffer->len = rc == 0 ? len : 0;
    if (rc == 0)
        rc = fm__buffer_reserve(buffer, FM__SINK_ROOM);
    if (rc < 0)
        return rc;
    sink->data = buffer->data;
    base->next = buffer->data + len;
    base->end = buffer->data + buffer->size;
    return 0;
}

static int memory_restart(struct fm__sink *base, int format)
{
    struct memory_sink *sink = (struct memory_sink *)base;

    base->next = sink->data;
    sink->format = format;
    return 0;
}

static void memory_sink_init(struct memory_sink *sink, lua_State *L, int slot)
{
    sink->sink.more = memory_more;
    sink->sink.restart = memory_restart;
    sink->L = L;
    sink->slot = slot;
    sink->format = 0;
    sink->data = sink->first;
    sink->buffer = NULL;
    sink->sink.next = sink->first;
    sink->sink.end = sink->first + sizeof sink->first;
}

/* Keep the buffer, if it was used and is not too big.  [-0, +0, -] */
static void memory_sink_done(struct memory_sink *sink)
{
    if (sink->buffer == NULL)
        return;
    if (sink->buffer->size > BUFFER_KEPT)
        fm__buffer_done(sink->buffer);
    lua_copy(sink->L, sink->slot, lua_upvalueindex(1));
}

/* The values behind the codec, named in paths after `root`. */
static int encode(lua_State *L, const char *root)
{
    int n = lua_gettop(L) - 1, rc;
    struct fmL_codec plain;
    const struct fmL_codec *codec;
    struct memory_sink sink;

    luaL_checkany(L, 1);
    lua_pushnil(L);
    memory_sink_init(&sink, L, n + 2);
    codec = check_codec(L, &plain);
    rc = fmL_encode(L, 2, n, codec, &sink.sink, root);
    if (rc == FM_EENCODE) {
        memory_sink_done(&sink);
        lua_pushnil(L);
        lua_insert(L, -3);
        return 3;
    }
    if (rc < 0)
        return luaL_error(L, "not enough memory");
    lua_pushlstring(L, (const char *)sink.data,
                    (size_t)(sink.sink.next - sink.data));
    memory_sink_done(&sink);
    lua_pushinteger(L, sink.format);
    return 2;
}

/* encode(codec, ...) -> string, format | nil, path, message */
static int l_encode(lua_State *L)
{
    return encode(L, "result");
}

/* encode_args(codec, ...): the same for what a function is given */
static int l_encode_args(lua_State *L)
{
    return encode(L, "arg");
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
    size_t len, budget = (size_t)luaL_optinteger(L, 3, 0);
    const char *data = luaL_checklstring(L, 2, &len);
    struct fmL_codec plain;
    const struct fmL_codec *codec = NULL;
    int format, n;

    lua_settop(L, 2);
    if (lua_type(L, 1) == LUA_TNUMBER) {
        format = (int)luaL_checkinteger(L, 1);
    } else {
        codec = check_codec(L, &plain);
        format = format_of(codec);
    }
    n = fmL_decode(L, format, codec, data, len, budget);
    if (n >= 0)
        return n;
    lua_pushfstring(L, "%s: %s", n == FM_ELIMIT ? "limit" : "protocol",
                    lua_tostring(L, -1));
    return lua_error(L);
}

void fmL_open_codec(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"array", l_array}, {"decode", l_decode}, {NULL, NULL}};

    if (luaL_newmetatable(L, CODEC_MT)) {
        lua_pushcfunction(L, l_codec_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_pop(L, 1);
    if (luaL_newmetatable(L, BUFFER_MT)) {
        lua_pushcfunction(L, l_buffer_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
    lua_pushnil(L);
    lua_pushcclosure(L, l_encode, 1);
    lua_setfield(L, -2, "encode");
    lua_pushnil(L);
    lua_pushcclosure(L, l_encode_args, 1);
    lua_setfield(L, -2, "encode_args");
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
}
