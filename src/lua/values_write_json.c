/* SPDX-License-Identifier: MIT */
/* Lua values as JSON text; what JSON cannot carry exactly is refused. */
#include "lua/values_write.h"

#include <string.h>
#include "fork_map.h"
#include "wire/json.h"

/* Up to which depth a table is compared with all that it is in, from where on
 * only with so many, and at which depths with all again. */
#define ASK_ALL 16
#define ASK_NEAREST 4
#define ASK_SELDOM 64

static int unfit(struct fmL_writer *w, const char *reason)
{
    w->unfit = true;
    return fmL_refuse(w, reason);
}

static int put(struct fm__sink *sink, char c)
{
    int rc = fm__sink_room(sink);

    if (rc < 0)
        return rc;
    *sink->next++ = (unsigned char)c;
    return 0;
}

/* `text` is shorter than FM__SINK_ROOM. */
static int put_text(struct fm__sink *sink, const char *text, size_t len)
{
    int rc = fm__sink_room(sink);

    if (rc < 0)
        return rc;
    memcpy(sink->next, text, len);
    sink->next += len;
    return 0;
}

static int write_string(struct fmL_writer *w, int idx)
{
    size_t len;
    const char *s = lua_tolstring(w->L, idx, &len);
    int rc = fm__json_write_string(w->sink, s, len);

    return rc == FM_EENCODE ? unfit(w, "a string that is not UTF-8") : rc;
}

static int write_number(struct fmL_writer *w)
{
    lua_Number value;

    if (lua_isinteger(w->L, -1))
        return fm__json_write_integer(w->sink, lua_tointegerx(w->L, -1, NULL));
    value = lua_tonumberx(w->L, -1, NULL);
    if (value != value)
        return unfit(w, "NaN has no JSON form");
    if (value - value != 0)
        return unfit(w, "an infinite number has no JSON form");
    return fm__json_write_number(w->sink, value);
}

/* Is the table one of those that it is in?  Deep down only the nearest ones are
 * asked, and all of them now and then: a path that goes round a cycle comes by
 * there with a table of the cycle too. */
static bool is_ancestor(const struct fmL_writer *w, const void *table)
{
    int i = w->depth, last = 0;

    if (i > ASK_ALL && i % ASK_SELDOM != 0)
        last = i - ASK_NEAREST;
    while (i > last) {
        if (w->levels[--i].table == table)
            return true;
    }
    return false;
}

/* Go back to where the path closes its cycle first. */
static int refuse_cycle(struct fmL_writer *w)
{
    int i, j;

    for (j = 1; j < w->depth; j++) {
        for (i = 0; i < j; i++) {
            if (w->levels[i].table == w->levels[j].table)
                w->depth = j;
        }
    }
    return unfit(w, "a cycle: the table contains itself");
}

static int write_empty(struct fmL_writer *w, bool is_list)
{
    int rc = fmL_check_depth(w);

    return rc < 0 ? rc : put_text(w->sink, is_list ? "[]" : "{}", 2);
}

/* The table on top of the stack.  When its level is opened, nothing is written
 * yet; of an object the first pair is on the stack already. */
static int open_table(struct fmL_writer *w, bool shared)
{
    lua_State *L = w->L;
    const void *table = lua_topointer(L, -1);
    lua_Integer n;
    size_t index;

    if (shared) {
        if (!fmL_seen_add(w, table, &index))
            return unfit(w, "a table that is there more than once");
    } else if (is_ancestor(w, table)) {
        return refuse_cycle(w);
    }
    n = (lua_Integer)lua_rawlen(L, -1);
    lua_pushnil(L); /* where lua_next() begins */
    if (n > 0)
        return fmL_open_level(w, lua_gettop(L) - 1, n, 0);
    if (lua_next(L, -2) == 0)
        return write_empty(w, fmL_is_array(L, -1));
    return fmL_open_level(w, lua_gettop(L) - 2, 0, 0);
}

static int write_light(struct fmL_writer *w)
{
    if (lua_topointer(w->L, -1) == NULL)
        return put_text(w->sink, "null", 4);
    if (!fmL_is_empty_array(w->L, -1))
        return fmL_refuse_type(w, -1);
    return write_empty(w, true);
}

/* The value on top of the stack. */
static int write_value(struct fmL_writer *w, bool shared)
{
    lua_State *L = w->L;

    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN:
        if (lua_toboolean(L, -1))
            return put_text(w->sink, "true", 4);
        return put_text(w->sink, "false", 5);
    case LUA_TNUMBER:
        return write_number(w);
    case LUA_TSTRING:
        return write_string(w, -1);
    case LUA_TTABLE:
        return open_table(w, shared);
    case LUA_TLIGHTUSERDATA:
        return write_light(w);
    default:
        return fmL_refuse_type(w, -1);
    }
}

/* All items are written: is there anything else in the table?  Leaves the
 * key of what there is where a path looks for it. */
static int end_items(struct fmL_writer *w, struct fmL_level *level)
{
    lua_State *L = w->L;
    int table = level->index;
    bool all = level->pass == FML_PASS_NEXT;

    if (!all) {
        lua_settop(L, table);
        lua_pushnil(L);
    }
    while (lua_next(L, table) != 0) {
        if (all || !fmL_is_item_key(L, -2, level->n)) {
            level->pass = FML_PASS_PAIRS;
            return unfit(w, "a key beside those of a list 1..n");
        }
        lua_pop(L, 1);
    }
    fmL_close_level(w);
    return put(w->sink, ']');
}

static int write_items(struct fmL_writer *w, struct fmL_level *level,
                       bool shared)
{
    lua_State *L = w->L;
    int rc;

    while (level->at < level->n) {
        rc = put(w->sink, level->at == 0 ? '[' : ',');
        if (rc < 0)
            return rc;
        fmL_next_item(w, level);
        if (lua_isnil(L, -1))
            return unfit(w, "a hole in a list");
        rc = write_value(w, shared);
        if (rc != 0)
            return rc;
        lua_pop(L, 1);
    }
    return end_items(w, level);
}

/* level->left counts the pairs written. */
static int write_pairs(struct fmL_writer *w, struct fmL_level *level,
                       bool shared)
{
    lua_State *L = w->L;
    int rc;

    while (level->left == 0 || lua_next(L, level->index) != 0) {
        if (lua_type(L, -2) != LUA_TSTRING)
            return unfit(w,
                         "a key that is neither a string nor in a list 1..n");
        rc = put(w->sink, level->left++ == 0 ? '{' : ',');
        if (rc == 0)
            rc = write_string(w, -2);
        if (rc == 0)
            rc = put(w->sink, ':');
        if (rc == 0)
            rc = write_value(w, shared);
        if (rc != 0)
            return rc;
        lua_pop(L, 1);
    }
    fmL_close_level(w);
    return put(w->sink, '}');
}

/* The value on top of the stack and all that is in it. */
static int write_tree(struct fmL_writer *w, bool shared)
{
    int rc = write_value(w, shared);

    while (rc >= 0 && w->depth > 0) {
        struct fmL_level *level = &w->levels[w->depth - 1];

        rc = level->pass == FML_PASS_PAIRS ? write_pairs(w, level, shared)
                                           : write_items(w, level, shared);
        /* A level that has closed leaves its parent's key on top. */
    }
    return rc;
}

int fmL_write_json(struct fmL_writer *w, int first, int n, bool shared,
                   int *ret_i)
{
    int rc = 0;

    for (*ret_i = 0; *ret_i < n && rc == 0; ++*ret_i) {
        if (*ret_i > 0)
            lua_settop(w->L, w->base);
        lua_pushvalue(w->L, first + *ret_i);
        if (!lua_isnil(w->L, -1))
            rc = write_tree(w, shared);
        if (rc < 0)
            return rc;
        rc = put(w->sink, '\n');
    }
    return rc;
}
