/* SPDX-License-Identifier: MIT */
/*
 * Lua values to bytes and back.  values*.c are the only files that know both.
 *
 * Both ways are iterative: depth costs no C stack.  Metamethods are never
 * called, tables are read and made raw.  Nothing is allocated but by Lua, so
 * running out of memory is Lua's error and leaks nothing.
 */
#ifndef FM_LUA_VALUES_H
#define FM_LUA_VALUES_H

#include <stddef.h>
#include <lua.h>
#include "lua/codec.h"
#include "wire/sink.h"

/*
 * Write the `n` values at the absolute index `first` and above into `sink`.
 *
 * sink->restart(sink, format) comes first, with one of enum fm__format, and
 * again when "auto" finds a value that JSON cannot carry exactly.
 *
 * `root` names the values in paths.  With "result" they are result, result2,
 * result3, …; with any other, such as "arg", they are arg1, arg2, ….
 *
 * Returns 0; or
 *   FM_EENCODE   a value cannot cross: two strings are pushed, its path such
 *                as "result.a.b[3]" and the reason;
 *   any other    negative code of the sink, with nothing pushed.
 * What was written to the sink is worthless then.  Raises Lua's errors: out of
 * memory, and errors of a pair's encode function that are no strings (strings
 * become FM_EENCODE).  [-0, +0|2, e]
 */
int fmL_encode(lua_State *L, int first, int n, const struct fmL_codec *codec,
               struct fm__sink *sink, const char *root);

/*
 * Push the values that `len` bytes at `data` stand for.  The bytes may be
 * anybody's, but must be private memory: they are read more than once.
 *
 * `format` is what the sink's restart() was told.  It must be one that `codec`
 * writes; with a NULL codec any but those of cjson and pairs.  `budget` is the
 * most memory in bytes, as estimated, that the decoded values may take; 0 means
 * no bound.
 *
 * Returns the count of values pushed; or, with a message pushed,
 *   FM_EPROTOCOL  the bytes are no values in this format;
 *   FM_ELIMIT     the values would exceed `budget`, or the text is made to
 *                 take absurdly long (colliding keys).
 * Raises Lua's errors: out of memory, and errors of a pair's decode function
 * that are no strings (strings become FM_EPROTOCOL).  [-0, +n|1, e]
 */
int fmL_decode(lua_State *L, int format, const struct fmL_codec *codec,
               const void *data, size_t len, size_t budget);

#endif
