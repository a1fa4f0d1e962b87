/* SPDX-License-Identifier: MIT */
/*
 * Which writer and reader serves which codec.  The walks over tables are in
 * values_write*.c and values_read*.c, the codecs that others wrote in
 * values_foreign.c.
 */
#include "lua/values.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <lauxlib.h>
#include "engine/bind.h"
#include "fork_map.h"
#include "lua/values_foreign.h"
#include "lua/values_read.h"
#include "lua/values_write.h"

/* ------------------------------------------------------------- encoding */

const char *fmL_push_root(lua_State *L, const char *root, int i)
{
    if (i == 0 && strcmp(root, "arg") != 0)
        return lua_pushstring(L, root);
    return lua_pushfstring(L, "%s%d", root, i + 1);
}

/* Push path and message of a refusal where the writer began. */
static int push_refusal(struct fmL_writer *w, const char *root, int i)
{
    lua_State *L = w->L;

    fmL_push_path(w, fmL_push_root(L, root, i));
    if (w->unfit)
        lua_pushfstring(L, "%s; codec = \"lua\" carries it", w->reason);
    else
        lua_pushstring(L, w->reason);
    lua_copy(L, -2, w->base - 1);
    lua_copy(L, -1, w->base);
    lua_settop(L, w->base);
    return FM_EENCODE;
}

static int encode_lua(struct fmL_writer *w, int first, int n, int *ret_i)
{
    int rc = w->sink->restart(w->sink, FM__FORMAT_LUA);

    return rc < 0 ? rc : fmL_write_lua(w, first, n, ret_i);
}

static int encode_own(struct fmL_writer *w, int first, int n,
                      enum fmL_codec_kind kind, int *ret_i)
{
    int rc;

    if (kind == FML_CODEC_LUA)
        return encode_lua(w, first, n, ret_i);
    rc = w->sink->restart(w->sink, FM__FORMAT_JSON);
    if (rc == 0)
        rc = fmL_write_json(w, first, n, kind == FML_CODEC_AUTO, ret_i);
    if (kind != FML_CODEC_AUTO || rc != FM_EENCODE || !w->unfit)
        return rc;
    lua_settop(w->L, w->base - FML_WRITER_SLOTS);
    fmL_writer_init(w, w->L, w->sink);
    return encode_lua(w, first, n, ret_i);
}

/* One string, as fmL_write_lua() and fmL_write_json() write it.  Those have to
 * be made ready, which costs more than a short string.  FM_EENCODE when it is
 * not as JSON has it. */
static int encode_string(const char *s, size_t len, bool is_json,
                         struct fm__sink *sink)
{
    int rc = sink->restart(sink, is_json ? FM__FORMAT_JSON : FM__FORMAT_LUA);

    if (rc == 0 && is_json)
        rc = fm__json_write_string(sink, s, len);
    if (rc == 0 && is_json)
        return fm__sink_write(sink, "\n", 1);
    if (rc == 0)
        rc = fm__binary_write_begin(sink, 1);
    if (rc == 0)
        rc = fm__binary_write_string(sink, s, len);
    return rc < 0 ? rc : fm__binary_write_end(sink, 0);
}

/* Own formats of a single string only. */
static bool is_single_string(lua_State *L, int first, int n,
                             enum fmL_codec_kind kind)
{
    return n == 1 && lua_type(L, first) == LUA_TSTRING &&
           (kind <= FML_CODEC_JSON || kind == FML_CODEC_LUA);
}

int fmL_encode(lua_State *L, int first, int n, const struct fmL_codec *codec,
               struct fm__sink *sink, const char *root)
{
    struct fmL_writer w;
    int rc, i = 0;

    luaL_checkstack(L, LUA_MINSTACK, NULL);
    if (is_single_string(L, first, n, codec->kind)) {
        size_t len;
        const char *s = lua_tolstring(L, first, &len);

        rc = encode_string(s, len, codec->kind != FML_CODEC_LUA, sink);
        if (rc != FM_EENCODE)
            return rc;
    }
    if (codec->kind == FML_CODEC_CJSON)
        return fmL_encode_cjson(L, first, n, codec, sink, root);
    if (codec->kind == FML_CODEC_PAIR)
        return fmL_encode_pair(L, first, n, codec, sink, root);
    fmL_writer_init(&w, L, sink);
    rc = encode_own(&w, first, n, codec->kind, &i);
    if (rc == FM_EENCODE)
        return push_refusal(&w, root, i);
    lua_settop(L, w.base - FML_WRITER_SLOTS);
    return rc;
}

/* ------------------------------------------------------------- decoding */

int fmL_push_unreadable(lua_State *L, int rc, size_t offset, const char *why)
{
    lua_pushfstring(L, "%s at byte %I: %s",
                    rc == FM_ELIMIT ? "value refused" : "malformed value",
                    (LUAI_UACINT)offset + 1, why);
    return rc;
}

static int decode_own(lua_State *L, int format, const void *data, size_t len,
                      size_t budget)
{
    struct fmL_reader r;
    int top = lua_gettop(L), rc;
    bool is_json = format == FM__FORMAT_JSON;

    fmL_reader_init(&r, data, len, budget);
    lua_pushcfunction(L, is_json ? fmL_read_json : fmL_read_lua);
    lua_pushlightuserdata(L, &r);
    if (is_json) { /* the memory of this reader is not Lua's */
        fm__json_reader_init(&r.json, data, len, NULL);
        rc = lua_pcall(L, 1, LUA_MULTRET, 0);
        fm__json_reader_done(&r.json);
        if (rc != LUA_OK)
            return lua_error(L);
    } else {
        lua_call(L, 1, LUA_MULTRET);
    }
    if (r.rc == -ENOMEM)
        return luaL_error(L, "not enough memory");
    if (r.rc < 0)
        return fmL_push_unreadable(L, r.rc, r.offset, r.why);
    return lua_gettop(L) - top;
}

/* May a text in `format` come from `codec`? */
static bool is_format_of(const struct fmL_codec *codec, int format)
{
    if (codec == NULL || codec->kind == FML_CODEC_AUTO)
        return format == FM__FORMAT_JSON || format == FM__FORMAT_LUA;
    switch (codec->kind) {
    case FML_CODEC_AUTO:
    case FML_CODEC_JSON:
        return format == FM__FORMAT_JSON;
    case FML_CODEC_LUA:
        return format == FM__FORMAT_LUA;
    case FML_CODEC_CJSON:
        return format == FM__FORMAT_CJSON;
    case FML_CODEC_PAIR:
        return format == FM__FORMAT_CUSTOM;
    }
    return false;
}

int fmL_decode(lua_State *L, int format, const struct fmL_codec *codec,
               const void *data, size_t len, size_t budget)
{
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    if (!is_format_of(codec, format)) {
        lua_pushfstring(L, "a value in format %d was not expected", format);
        return FM_EPROTOCOL;
    }
    if (format == FM__FORMAT_CJSON)
        return fmL_decode_cjson(L, codec, data, len, budget);
    if (format == FM__FORMAT_CUSTOM)
        return fmL_decode_pair(L, codec, data, len, budget);
    return decode_own(L, format, data, len, budget);
}
