/* SPDX-License-Identifier: MIT */
/* Lua values as a binary text. */
#include "lua/values_write.h"

#include <stdint.h>
#include <string.h>
#include <lauxlib.h>
#include "fork_map.h"
#include "wire/binary.h"

/* Strings up to this length are interned: one address, one string. */
#define INTERNED_MAX 40

/* Fewer numbers than this are written one by one. */
#define RUN_MIN 4

/* A writer with what only this codec needs.  The string that slot i holds is at
 * w->memory + 1 + i on the Lua stack, so that its address stays its own. */
struct state {
    struct fmL_writer *w;
    unsigned flags;
    const char *slots[FM__BINARY_SLOTS];
    union {
        int64_t integers[FM__BINARY_RUN];
        double numbers[FM__BINARY_RUN];
    } run;
};

static int changed(struct fmL_writer *w)
{
    return fmL_refuse(w, "the table was changed while it was encoded");
}

static int write_string(struct fmL_writer *w, int idx)
{
    size_t len;
    const char *s = lua_tolstring(w->L, idx, &len);

    return fm__binary_write_string(w->sink, s, len);
}

static int write_empty(struct fmL_writer *w, bool is_list)
{
    int rc = fmL_check_depth(w);

    if (rc < 0)
        return rc;
    if (!is_list)
        return fm__binary_write_table(w->sink, 0);
    rc = fm__binary_write_list(w->sink, 0);
    return rc < 0 ? rc : fm__binary_write_keys(w->sink, 0);
}

static int write_light(struct fmL_writer *w, int idx)
{
    if (lua_topointer(w->L, idx) == NULL)
        return fm__binary_write_null(w->sink);
    if (!fmL_is_empty_array(w->L, idx))
        return fmL_refuse_type(w, idx);
    w->seen.n++; /* a reader counts it among the tables */
    return write_empty(w, true);
}

/* The table on top of the stack. */
static int open_table(struct state *s)
{
    struct fmL_writer *w = s->w;
    lua_State *L = w->L;
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    size_t index, left;
    int rc;

    if (!fmL_seen_add(w, lua_topointer(L, -1), &index)) {
        s->flags |= FM__BINARY_REFERENCES;
        return fm__binary_write_reference(w->sink, index);
    }
    if (n > 0) {
        rc = fm__binary_write_list(w->sink, (size_t)n);
        return rc < 0 ? rc : fmL_open_level(w, n);
    }
    lua_pushnil(L);
    left = fmL_count_pairs(L, lua_gettop(L) - 1, 0);
    lua_pop(L, 1);
    if (left == 0)
        return write_empty(w, fmL_is_array(L, -1));
    rc = fm__binary_write_table(w->sink, left);
    if (rc == 0)
        rc = fmL_open_level(w, 0);
    if (rc >= 0)
        w->levels[w->depth - 1].left = left;
    return rc;
}

/* The value on top of the stack. */
static int write_value(struct state *s)
{
    struct fmL_writer *w = s->w;
    lua_State *L = w->L;

    switch (lua_type(L, -1)) {
    case LUA_TNIL:
        return fm__binary_write_nil(w->sink);
    case LUA_TBOOLEAN:
        return fm__binary_write_boolean(w->sink, lua_toboolean(L, -1));
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1))
            return fm__binary_write_integer(w->sink,
                                            lua_tointegerx(L, -1, NULL));
        return fm__binary_write_number(w->sink, lua_tonumberx(L, -1, NULL));
    case LUA_TSTRING:
        return write_string(w, -1);
    case LUA_TTABLE:
        return open_table(s);
    case LUA_TLIGHTUSERDATA:
        return write_light(w, -1);
    default:
        return fmL_refuse_type(w, -1);
    }
}

/* -------------------------------------------------------------- lists */

static int flush_integers(struct state *s, size_t n)
{
    size_t i;
    int rc = 0;

    if (n >= RUN_MIN)
        return fm__binary_write_integers(s->w->sink, s->run.integers, n);
    for (i = 0; i < n && rc == 0; i++)
        rc = fm__binary_write_integer(s->w->sink, s->run.integers[i]);
    return rc;
}

static int flush_numbers(struct state *s, size_t n)
{
    size_t i;
    int rc = 0;

    if (n >= RUN_MIN)
        return fm__binary_write_numbers(s->w->sink, s->run.numbers, n);
    for (i = 0; i < n && rc == 0; i++)
        rc = fm__binary_write_number(s->w->sink, s->run.numbers[i]);
    return rc;
}

/* Write the number on top of the stack and the items after it, as long as they
 * are of its subtype.  `*ret_pending` says that the item after them is on top
 * of the stack; else none is. */
static int write_run(struct state *s, struct fmL_level *level,
                     bool *ret_pending)
{
    lua_State *L = s->w->L;
    bool is_integer = lua_isinteger(L, -1);
    size_t n = 0;

    *ret_pending = false;
    for (;;) {
        if (is_integer)
            s->run.integers[n++] = lua_tointegerx(L, -1, NULL);
        else
            s->run.numbers[n++] = lua_tonumberx(L, -1, NULL);
        lua_pop(L, 1);
        if (n == FM__BINARY_RUN || level->at == level->n)
            break;
        fmL_next_item(s->w, level);
        *ret_pending = lua_type(L, -1) != LUA_TNUMBER ||
                       (bool)lua_isinteger(L, -1) != is_integer;
        if (*ret_pending)
            break;
    }
    return is_integer ? flush_integers(s, n) : flush_numbers(s, n);
}

/* After the items come the pairs, most often none. */
static int end_items(struct state *s, struct fmL_level *level)
{
    struct fmL_writer *w = s->w;
    int table = fmL_level_table(w, w->depth - 1);

    if (level->pass == FML_PASS_NEXT) {
        level->pass = FML_PASS_REST;
        level->left = fmL_count_pairs(w->L, table, 0);
    } else {
        level->pass = FML_PASS_PAIRS;
        lua_settop(w->L, table);
        lua_pushnil(w->L);
        level->left = fmL_count_pairs(w->L, table, level->n);
    }
    return fm__binary_write_keys(w->sink, level->left);
}

static int write_items(struct state *s, struct fmL_level *level)
{
    bool pending = false;
    int rc;

    while (level->at < level->n || pending) {
        if (!pending)
            fmL_next_item(s->w, level);
        pending = false;
        if (lua_type(s->w->L, -1) == LUA_TNUMBER) {
            rc = write_run(s, level, &pending);
            if (rc < 0)
                return rc;
            continue;
        }
        rc = write_value(s);
        if (rc != 0)
            return rc;
        lua_pop(s->w->L, 1);
    }
    return end_items(s, level);
}

/* -------------------------------------------------------------- pairs */

/* Keys come again and again in a list of records: a short one is put in a slot,
 * and is one byte as long as it stays there. */
static int write_string_key(struct state *s, int idx)
{
    struct fmL_writer *w = s->w;
    size_t len;
    const char *key = lua_tolstring(w->L, idx, &len);
    uint64_t hash = ((uint64_t)(uintptr_t)key >> 3) * 0x9e3779b97f4a7c15u;
    unsigned slot = (unsigned)(hash >> 58);

    if (len > INTERNED_MAX)
        return fm__binary_write_string(w->sink, key, len);
    if (s->slots[slot] == key)
        return fm__binary_write_key_again(w->sink, slot);
    s->slots[slot] = key;
    lua_copy(w->L, idx, w->memory + 1 + (int)slot);
    return fm__binary_write_key(w->sink, slot, key, len);
}

/* The table on top of the stack, under the pair's value, is a key.  Written at
 * once (0) or opened. */
static int write_table_key(struct state *s, struct fmL_level *level)
{
    lua_State *L = s->w->L;
    int rc;

    lua_pop(L, 1);
    lua_pushvalue(L, -1);
    rc = open_table(s);
    level->in_key = rc == FML_OPENED;
    if (rc != 0)
        return rc;
    lua_pop(L, 1);
    return 0;
}

/* The key of the pair on top of the stack.  Afterwards the value is on top,
 * unless a level was opened. */
static int write_key(struct state *s, struct fmL_level *level, int table)
{
    struct fmL_writer *w = s->w;
    lua_State *L = w->L;
    int rc;

    switch (lua_type(L, -2)) {
    case LUA_TSTRING:
        return write_string_key(s, -2);
    case LUA_TNUMBER:
        if (lua_isinteger(L, -2))
            return fm__binary_write_key_integer(w->sink,
                                                lua_tointegerx(L, -2, NULL));
        return fm__binary_write_number(w->sink, lua_tonumberx(L, -2, NULL));
    case LUA_TBOOLEAN:
        return fm__binary_write_boolean(w->sink, lua_toboolean(L, -2));
    case LUA_TLIGHTUSERDATA:
        if (lua_topointer(L, -2) == NULL)
            return fm__binary_write_null(w->sink);
        return fmL_refuse_type(w, -2);
    case LUA_TTABLE:
        rc = write_table_key(s, level);
        if (rc == 0) {
            lua_pushvalue(L, -1);
            lua_rawget(L, table);
        }
        return rc;
    default:
        return fmL_refuse_type(w, -2);
    }
}

/* Go to the next pair.  Returns false when there is none. */
static bool next_pair(lua_State *L, const struct fmL_level *level, int table)
{
    while (lua_next(L, table) != 0) {
        if (level->pass == FML_PASS_REST || level->n == 0 ||
            !fmL_is_item_key(L, -2, level->n))
            return true;
        lua_pop(L, 1);
    }
    lua_pushnil(L); /* keep the slot of the key */
    return false;
}

static int write_pairs(struct state *s, struct fmL_level *level)
{
    struct fmL_writer *w = s->w;
    lua_State *L = w->L;
    int table = fmL_level_table(w, w->depth - 1);
    int rc;

    for (;;) {
        rc = 0;
        if (level->in_key) {
            level->in_key = false;
            lua_pushvalue(L, -1);
            lua_rawget(L, table);
        } else {
            if (!next_pair(L, level, table))
                break;
            if (level->left-- == 0)
                return changed(w);
            rc = write_key(s, level, table);
        }
        if (rc == 0)
            rc = lua_isnil(L, -1) ? changed(w) : write_value(s);
        if (rc != 0)
            return rc;
        lua_pop(L, 1);
    }
    if (level->left != 0)
        return changed(w);
    fmL_close_level(w);
    return 0;
}

/* The value on top of the stack and all that is in it. */
static int write_tree(struct state *s)
{
    struct fmL_writer *w = s->w;
    int rc = write_value(s);

    while (rc >= 0 && w->depth > 0) {
        struct fmL_level *level = &w->levels[w->depth - 1];

        if (level->pass == FML_PASS_NEXT || level->pass == FML_PASS_INDEX)
            rc = write_items(s, level);
        else
            rc = write_pairs(s, level);
    }
    return rc;
}

int fmL_write_lua(struct fmL_writer *w, int first, int n, int *ret_i)
{
    struct state s;
    int rc;

    s.w = w;
    s.flags = 0;
    memset(s.slots, 0, sizeof s.slots);
    luaL_checkstack(w->L, FM__BINARY_SLOTS + LUA_MINSTACK, NULL);
    w->base = w->memory + FM__BINARY_SLOTS;
    rc = fm__binary_write_begin(w->sink, (size_t)n);
    for (*ret_i = 0; *ret_i < n && rc == 0; ++*ret_i) {
        lua_settop(w->L, w->base);
        lua_pushvalue(w->L, first + *ret_i);
        rc = write_tree(&s);
        if (rc < 0)
            return rc;
    }
    return rc < 0 ? rc : fm__binary_write_end(w->sink, s.flags);
}
