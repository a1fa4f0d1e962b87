/* SPDX-License-Identifier: MIT */
/* The codecs that others wrote, lua-cjson and the user's pairs of functions, as
 * fmL_encode() and fmL_decode() call them.  Private to values*.c. */
#ifndef FM_LUA_VALUES_FOREIGN_H
#define FM_LUA_VALUES_FOREIGN_H

#include <stddef.h>
#include <lua.h>
#include "lua/codec.h"
#include "wire/sink.h"

int fmL_encode_cjson(lua_State *L, int first, int n,
                     const struct fmL_codec *codec, struct fm__sink *sink,
                     const char *root);
int fmL_encode_pair(lua_State *L, int first, int n,
                    const struct fmL_codec *codec, struct fm__sink *sink,
                    const char *root);
int fmL_decode_cjson(lua_State *L, const struct fmL_codec *codec,
                     const char *data, size_t len, size_t budget);
int fmL_decode_pair(lua_State *L, const struct fmL_codec *codec,
                    const char *data, size_t len, size_t budget);

/* Of values.c: push the name of the i-th value, from 0; push the message of a
 * failed reading and return `rc`.  [-0, +1, m] */
const char *fmL_push_root(lua_State *L, const char *root, int i);
int fmL_push_unreadable(lua_State *L, int rc, size_t offset, const char *why);

#endif
