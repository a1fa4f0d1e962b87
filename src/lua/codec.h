/* SPDX-License-Identifier: MIT */
/*
 * Which codec a value crosses by, as users name it, and what of the Lua state
 * has to be kept for it.
 */
#ifndef FM_LUA_CODEC_H
#define FM_LUA_CODEC_H

#include <lua.h>

enum fmL_codec_kind {
    FML_CODEC_AUTO, /* JSON, and FML_CODEC_LUA for what JSON cannot carry */
    FML_CODEC_JSON,
    FML_CODEC_LUA,
    FML_CODEC_CJSON, /* lua-cjson's encode and decode, value by value */
    FML_CODEC_PAIR   /* the user's encode and decode, for the packed values */
};

/* A codec.  FML_CODEC_INIT is "auto".  The references are to functions in the
 * registry, LUA_NOREF for the kinds that need none; whoever filled a struct by
 * fmL_check_codec() gives them back by fmL_release_codec(). */
struct fmL_codec {
    enum fmL_codec_kind kind;
    int encode, decode;
};

#define FML_CODEC_INIT                                                         \
    {                                                                          \
        FML_CODEC_AUTO, LUA_NOREF, LUA_NOREF                                   \
    }

/* Take the codec that the option value at `idx` says: nil (auto), a name, or
 * a table {encode = fn, decode = fn}; load lua-cjson when it is asked for.
 * `*ret` is FML_CODEC_INIT at once and filled last, so that a __gc that calls
 * fmL_release_codec() on it is right at any moment.  Raises, naming the option
 * `codec`, what is no codec or not there.  [-0, +0, v] */
void fmL_check_codec(lua_State *L, int idx, struct fmL_codec *ret);

/* Let go of what is kept; `codec` is "auto" afterwards.  May be repeated.
 * [-0, +0, -] */
void fmL_release_codec(lua_State *L, struct fmL_codec *codec);

/* The name of a kind: "auto", "json", …, "pair". */
const char *fmL_codec_name(enum fmL_codec_kind kind);

/* The metatable of tables that fork_map.array() marked: an empty one is `[]`
 * in JSON.  [-0, +1, m] */
#define FML_ARRAY_MT "fork_map.array"
void fmL_push_array_mt(lua_State *L);

/* Add to the table on top of the stack:
 *   null               the light userdata NULL, which is JSON's null
 *   array([t])         mark `t` (or a new table) as a list; returns it
 *   encode(codec, ...) -> string, format | nil, path, message
 *                      the bytes of the values and the number of their format
 *   encode_args(codec, ...)   the same for arguments, by their names in paths
 *   decode(codec_or_format, string [, budget]) -> ...
 *                      the values; raises "protocol: ..." or "limit: ..."
 * The last two serve the tests and the inline executor.  [-0, +0, m] */
void fmL_open_codec(lua_State *L);

#endif
