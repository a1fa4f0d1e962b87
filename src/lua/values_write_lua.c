/* SPDX-License-Identifier: MIT */
/* Lua values as a binary text. */
#include "lua/values_write.h"

#include <stdint.h>
#include <string.h>
#include <lauxlib.h>
#include "fork_map.h"
#include "wire/binary.h"

/* Longer keys are not put in slots. */
#define SLOT_MAX 31

/* Pairs are taken out of a table in batches of so many, so that most tables are
 * gone through once: their number has to be written first. */
#define BATCH 16

/* Fewer numbers than this are written one by one. */
#define RUN_MIN 4

/* The bytes of the key that is in a slot: they say for sure that it is the same
 * key, an address could have got another owner. */
struct slot {
    unsigned char len;
    char bytes[SLOT_MAX];
};

/* A writer with what only this codec needs. */
struct state {
    struct fmL_writer *w;
    unsigned flags;
    uint64_t filled; /* one bit per slot */
    struct slot slots[FM__BINARY_SLOTS];
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

    return rc < 0 ? rc : fm__binary_write_empty(w->sink, is_list);
}

static int write_light(struct fmL_writer *w, int idx)
{
    size_t index;

    if (lua_topointer(w->L, idx) == NULL)
        return fm__binary_write_null(w->sink);
    if (!fmL_is_empty_array(w->L, idx))
        return fmL_refuse_type(w, idx);
    (void)fmL_seen_add(w, NULL, &index); /* a reader will count it */
    return write_empty(w, true);
}

/* Put pairs of the table on the stack above it: after the `n` that are there,
 * those that follow the key on top, which goes. */
static void fill(struct fmL_writer *w, struct fmL_level *level, int n)
{
    lua_State *L = w->L;

    level->slot = 0;
    level->has_more = true;
    while (n < BATCH) {
        if (lua_next(L, level->index) == 0) {
            level->has_more = false;
            break;
        }
        if (level->has_items && fmL_is_item_key(L, -2, level->n)) {
            lua_pop(L, 1);
            continue;
        }
        n++;
        lua_pushvalue(L, -2); /* the key, for lua_next() */
    }
    level->slots = 2 * n;
}

/* How many pairs there are from the filled ones on. */
static size_t count_pairs(struct fmL_writer *w, struct fmL_level *level)
{
    size_t count = (size_t)level->slots / 2;

    if (!level->has_more)
        return count;
    lua_pushvalue(w->L, -1);
    while (lua_next(w->L, level->index) != 0) {
        lua_pop(w->L, 1);
        count += !level->has_items || !fmL_is_item_key(w->L, -1, level->n);
    }
    return count;
}

/* The table on top of the stack. */
static int open_table(struct state *s)
{
    struct fmL_writer *w = s->w;
    lua_State *L = w->L;
    struct fmL_level *level;
    lua_Integer n;
    size_t index;
    int rc;

    if (!fmL_seen_add(w, lua_topointer(L, -1), &index)) {
        s->flags |= FM__BINARY_REFERENCES;
        return fm__binary_write_reference(w->sink, index);
    }
    n = (lua_Integer)lua_rawlen(L, -1);
    lua_pushnil(L);
    if (n > 0) {
        rc = fm__binary_write_list(w->sink, (size_t)n);
        return rc < 0 ? rc : fmL_open_level(w, lua_gettop(L) - 1, n, 2 * BATCH);
    }
    if (lua_next(L, -2) == 0)
        return write_empty(w, fmL_is_array(L, -1));
    rc = fmL_open_level(w, lua_gettop(L) - 2, 0, 2 * BATCH);
    if (rc < 0)
        return rc;
    level = &w->levels[w->depth - 1];
    lua_pushvalue(L, -2);
    fill(w, level, 1);
    level->left = count_pairs(w, level);
    rc = fm__binary_write_table(w->sink, level->left);
    return rc < 0 ? rc : FML_OPENED;
}

/* The table at `idx`. */
static int write_table(struct state *s, int idx)
{
    int rc;

    if (idx == -1)
        return open_table(s);
    lua_pushvalue(s->w->L, idx);
    rc = open_table(s);
    if (rc == 0)
        lua_pop(s->w->L, 1);
    return rc;
}

/* The value at `idx`.  An opened table is on top of the stack. */
static int write_value(struct state *s, int idx)
{
    struct fmL_writer *w = s->w;
    lua_State *L = w->L;

    switch (lua_type(L, idx)) {
    case LUA_TNIL:
        return fm__binary_write_nil(w->sink);
    case LUA_TBOOLEAN:
        return fm__binary_write_boolean(w->sink, lua_toboolean(L, idx));
    case LUA_TNUMBER:
        if (lua_isinteger(L, idx))
            return fm__binary_write_integer(w->sink,
                                            lua_tointegerx(L, idx, NULL));
        return fm__binary_write_number(w->sink, lua_tonumberx(L, idx, NULL));
    case LUA_TSTRING:
        return write_string(w, idx);
    case LUA_TTABLE:
        return write_table(s, idx);
    case LUA_TLIGHTUSERDATA:
        return write_light(w, idx);
    default:
        return fmL_refuse_type(w, idx);
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

/* After the items come the pairs, most often none.  When all items came from
 * lua_next(), it stands behind them, else it has to begin anew. */
static int end_items(struct state *s, struct fmL_level *level)
{
    struct fmL_writer *w = s->w;

    if (level->pass == FML_PASS_INDEX) {
        level->has_items = true;
        lua_settop(w->L, level->index);
        lua_pushnil(w->L);
    }
    level->pass = FML_PASS_PAIRS;
    fill(w, level, 0);
    level->left = count_pairs(w, level);
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
        rc = write_value(s, -1);
        if (rc != 0)
            return rc;
        lua_pop(s->w->L, 1);
    }
    return end_items(s, level);
}

/* -------------------------------------------------------------- pairs */

/* Keys come again and again in a list of records: a short one is put in a slot,
 * and is one byte as long as it stays there.  Lua has one copy of such a
 * string, so its address is as good as a hash. */
static int write_string_key(struct state *s, int idx)
{
    struct fmL_writer *w = s->w;
    size_t len;
    const char *key = lua_tolstring(w->L, idx, &len);
    uint64_t hash = ((uint64_t)(uintptr_t)key >> 3) * 0x9e3779b97f4a7c15u;
    unsigned i = (unsigned)(hash >> 58);
    struct slot *slot = &s->slots[i];

    if (len > SLOT_MAX)
        return fm__binary_write_string(w->sink, key, len);
    if ((s->filled >> i & 1) != 0 && slot->len == len &&
        memcmp(slot->bytes, key, len) == 0) {
        s->flags |= FM__BINARY_KEYS;
        return fm__binary_write_key_again(w->sink, i);
    }
    s->filled |= UINT64_C(1) << i;
    slot->len = (unsigned char)len;
    memcpy(slot->bytes, key, len);
    return fm__binary_write_key(w->sink, i, key, len);
}

/* The key at `idx`.  A table may be opened. */
static int write_key(struct state *s, int idx)
{
    lua_State *L = s->w->L;

    switch (lua_type(L, idx)) {
    case LUA_TSTRING:
        return write_string_key(s, idx);
    case LUA_TNUMBER:
        if (lua_isinteger(L, idx))
            return fm__binary_write_key_integer(s->w->sink,
                                                lua_tointegerx(L, idx, NULL));
        return fm__binary_write_number(s->w->sink, lua_tonumberx(L, idx, NULL));
    default:
        return write_value(s, idx);
    }
}

/* Go on with the pairs after a batch.  Returns false when there are none. */
static bool refill(struct fmL_writer *w, struct fmL_level *level)
{
    if (!level->has_more)
        return false;
    lua_replace(w->L, level->index + 1); /* the key for lua_next() */
    lua_settop(w->L, level->index + 1);
    fill(w, level, 0);
    return level->slots > 0;
}

/* The next key or value of the batch. */
static int write_next(struct state *s, struct fmL_level *level)
{
    int idx = level->index + 1 + level->slot;

    if (level->slot++ % 2 != 0)
        return write_value(s, idx);
    level->key = idx;
    if (level->left-- == 0)
        return changed(s->w);
    return write_key(s, idx);
}

static int write_pairs(struct state *s, struct fmL_level *level)
{
    struct fmL_writer *w = s->w;
    int rc;

    do {
        while (level->slot < level->slots) {
            rc = write_next(s, level);
            if (rc != 0)
                return rc;
        }
    } while (refill(w, level));
    if (level->left != 0)
        return changed(w);
    fmL_close_level(w);
    return 0;
}

/* The value on top of the stack and all that is in it. */
static int write_tree(struct state *s)
{
    struct fmL_writer *w = s->w;
    int rc = write_value(s, -1);

    while (rc >= 0 && w->depth > 0) {
        struct fmL_level *level = &w->levels[w->depth - 1];

        rc = level->pass == FML_PASS_PAIRS ? write_pairs(s, level)
                                           : write_items(s, level);
    }
    return rc;
}

int fmL_write_lua(struct fmL_writer *w, int first, int n, int *ret_i)
{
    struct state s;
    int rc;

    s.w = w;
    s.flags = 0;
    s.filled = 0;
    rc = fm__binary_write_begin(w->sink, (size_t)n);
    for (*ret_i = 0; *ret_i < n && rc == 0; ++*ret_i) {
        if (*ret_i > 0)
            lua_settop(w->L, w->base);
        lua_pushvalue(w->L, first + *ret_i);
        rc = write_tree(&s);
        if (rc < 0)
            return rc;
    }
    return rc < 0 ? rc : fm__binary_write_end(w->sink, s.flags);
}
