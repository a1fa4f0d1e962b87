/* SPDX-License-Identifier: MIT */
/* A binary text to Lua values. */
#include "lua/heap.h"
#include "lua/values_read.h"

#include <limits.h>
#include <lauxlib.h>
#include "fork_map.h"
#include "lua/codec.h"

/* Stack slots are asked for once for so many levels. */
#define LEVELS_AT_ONCE 32

/* A table being filled, at `table` on the Lua stack.  Above it lies the key of
 * the pair that has begun. */
struct level {
    lua_Integer at, n; /* items so far, all items */
    uint64_t keys;     /* bits of the keys so far */
    int table;
    bool has_key;
    bool in_doubt; /* that key may have been there before */
};

struct state {
    struct fmL_reader *r;
    lua_State *L;
    lua_Integer tables;
    int depth;
    uint64_t bits[FM__BINARY_SLOTS]; /* of the keys in the slots */
    struct fm__binary_reader reader;
    struct level levels[FM__DEPTH_MAX];
};

static int malformed(struct state *s, const char *why)
{
    return fmL_read_fail(s->r, FM_EPROTOCOL, why);
}

/* ----------------------------------------------------------------- keys */

static void begin_pair(struct level *level, uint64_t bit)
{
    level->has_key = true;
    level->in_doubt = (level->keys & bit) != 0;
    level->keys |= bit;
}

static int set_pair(struct state *s, struct level *level)
{
    lua_State *L = s->L;

    level->has_key = false;
    if (level->in_doubt) {
        lua_pushvalue(L, -2);
        if (lua_rawget(L, level->table) != LUA_TNIL)
            return malformed(s, "a key that is there twice");
        lua_pop(L, 1);
    }
    lua_rawset(L, level->table);
    return 0;
}

/* A key that is not one of the slots' strings is on top of the stack. */
static int take_key(struct state *s, struct level *level)
{
    lua_State *L = s->L;
    lua_Integer key;
    const char *data;
    size_t len;

    switch (lua_type(L, -1)) {
    case LUA_TSTRING:
        data = lua_tolstring(L, -1, &len);
        begin_pair(level, fmL_key_bit(fmL_key_hash(data, len)));
        return 0;
    case LUA_TNUMBER:
        if (!lua_isinteger(L, -1))
            break;
        key = lua_tointegerx(L, -1, NULL);
        if (key >= 1 && key <= level->n)
            return malformed(s, "a key that is an item of the list");
        begin_pair(level, UINT64_C(1) << (key & 63));
        return 0;
    default:
        break;
    }
    level->has_key = true;
    level->in_doubt = true;
    return 0;
}

static int read_key(struct state *s, const struct fm__event *event)
{
    struct level *level = &s->levels[s->depth - 1];
    const char *data = event->u.string.data;
    size_t len = event->u.string.len;
    unsigned slot = event->u.string.slot;

    if (fmL_read_string(s->r, data, len) < 0)
        return FM_ELIMIT;
    s->bits[slot] = fmL_key_bit(fmL_key_hash(data, len));
    begin_pair(level, s->bits[slot]);
    if ((s->reader.flags & FM__BINARY_KEYS) != 0)
        lua_copy(s->L, -1, FML_SLOTS + (int)slot);
    return 0;
}

static int read_key_again(struct state *s, unsigned slot)
{
    lua_pushvalue(s->L, FML_SLOTS + (int)slot);
    if (lua_isnil(s->L, -1))
        return malformed(s, "a slot without a key");
    begin_pair(&s->levels[s->depth - 1], s->bits[slot]);
    return 0;
}

/* --------------------------------------------------------------- values */

/* A value is complete on top of the stack: put it where it belongs. */
static int place(struct state *s)
{
    struct level *level;

    if (s->depth == 0)
        return 0;
    level = &s->levels[s->depth - 1];
    if (level->at < level->n) {
        level->at++;
        if (lua_isnil(s->L, -1))
            lua_pop(s->L, 1); /* a hole */
        else
            lua_rawseti(s->L, level->table, level->at);
        return 0;
    }
    return level->has_key ? set_pair(s, level) : take_key(s, level);
}

static int to_hint(size_t n)
{
    return n < INT_MAX ? (int)n : INT_MAX;
}

/* Push a new table; readers of references will want it. */
static int make_table(struct state *s, size_t n_list, size_t n_keys)
{
    lua_State *L = s->L;
    int rc = fmL_read_charge_table(s->r, n_list, n_keys);

    if (rc < 0)
        return rc;
    if (n_keys == 0)
        fmL_heap_push_list(L, to_hint(n_list), 0);
    else
        lua_createtable(L, to_hint(n_list), to_hint(n_keys));
    s->tables++;
    if ((s->reader.flags & FM__BINARY_REFERENCES) != 0) {
        lua_pushvalue(L, -1);
        lua_rawseti(L, FML_REFERENCES, s->tables);
    }
    return 0;
}

static int open_table(struct state *s, size_t n_list, size_t n_keys)
{
    struct level *level = &s->levels[s->depth];
    int rc = 0;

    if (s->depth % LEVELS_AT_ONCE == 0)
        rc = fmL_read_room(s->r, 2 * LEVELS_AT_ONCE + LUA_MINSTACK);
    if (rc == 0)
        rc = make_table(s, n_list, n_keys);
    if (rc < 0)
        return rc;
    level->at = 0;
    level->n = (lua_Integer)n_list;
    level->keys = 0;
    level->table = lua_gettop(s->L);
    level->has_key = false;
    s->depth++;
    return 0;
}

static int read_empty(struct state *s, bool is_list)
{
    int rc = make_table(s, 0, 0);

    if (rc < 0)
        return rc;
    if (is_list) {
        fmL_push_array_mt(s->L);
        lua_setmetatable(s->L, -2);
    }
    return place(s);
}

static void read_integers(struct state *s, const struct fm__event *event)
{
    struct level *level = &s->levels[s->depth - 1];
    const unsigned char *p = event->u.run.data;
    unsigned width = event->u.run.width;
    size_t i;

    for (i = 0; i < event->u.run.n; i++, p += width) {
        lua_pushinteger(s->L, fm__binary_load_signed(p, width));
        lua_rawseti(s->L, level->table, ++level->at);
    }
}

static void read_numbers(struct state *s, const struct fm__event *event)
{
    struct level *level = &s->levels[s->depth - 1];
    const unsigned char *p = event->u.run.data;
    size_t i;

    for (i = 0; i < event->u.run.n; i++, p += 8) {
        lua_pushnumber(s->L, fm__binary_load_number(p));
        lua_rawseti(s->L, level->table, ++level->at);
    }
}

static int read_event(struct state *s, const struct fm__event *event)
{
    lua_State *L = s->L;
    int rc;

    switch (event->type) {
    case FM__EVENT_NIL:
        lua_pushnil(L);
        return place(s);
    case FM__EVENT_NULL:
        lua_pushlightuserdata(L, NULL);
        return place(s);
    case FM__EVENT_BOOLEAN:
        lua_pushboolean(L, event->u.boolean);
        return place(s);
    case FM__EVENT_INTEGER:
        lua_pushinteger(L, event->u.integer);
        return place(s);
    case FM__EVENT_NUMBER:
        lua_pushnumber(L, event->u.number);
        return place(s);
    case FM__EVENT_STRING:
        rc = fmL_read_string(s->r, event->u.string.data, event->u.string.len);
        return rc < 0 ? rc : place(s);
    case FM__EVENT_LIST:
    case FM__EVENT_TABLE:
        return open_table(s, event->u.open.n_list, event->u.open.n_keys);
    case FM__EVENT_EMPTY:
        return read_empty(s, event->u.boolean);
    case FM__EVENT_KEY:
        return read_key(s, event);
    case FM__EVENT_KEY_AGAIN:
        return read_key_again(s, event->u.slot);
    case FM__EVENT_CLOSE:
        s->depth--;
        return place(s);
    case FM__EVENT_REFERENCE:
        lua_rawgeti(L, FML_REFERENCES, (lua_Integer)event->u.reference + 1);
        return place(s);
    case FM__EVENT_INTEGERS:
        read_integers(s, event);
        return 0;
    case FM__EVENT_NUMBERS:
        read_numbers(s, event);
        return 0;
    case FM__EVENT_DONE:
        break;
    }
    return malformed(s, "an event out of place");
}

static int read_all(struct state *s)
{
    struct fmL_reader *r = s->r;
    struct fm__event event;
    int rc;

    for (;;) {
        rc = fm__binary_reader_next(&s->reader, &event);
        if (rc < 0)
            return fmL_read_fail(r, rc, s->reader.error);
        if (event.type == FM__EVENT_DONE)
            return 0;
        if (s->depth == 0)
            rc = fmL_read_top(r);
        if (rc == 0)
            rc = read_event(s, &event);
        if (rc == 0)
            rc = fmL_read_tick(r, fm__binary_reader_offset(&s->reader));
        if (rc < 0)
            return rc;
    }
}

int fmL_read_lua(lua_State *L)
{
    struct state s;
    struct fmL_reader *r = lua_touserdata(L, 1);
    int rc = fm__binary_reader_init(&s.reader, r->data, r->len, NULL);

    fmL_read_begin(r, L, (s.reader.flags & FM__BINARY_KEYS) != 0);
    s.r = r;
    s.L = L;
    s.tables = 0;
    s.depth = 0;
    if ((s.reader.flags & FM__BINARY_REFERENCES) != 0) {
        lua_newtable(L);
        lua_replace(L, FML_REFERENCES);
    }
    if (rc < 0)
        fmL_read_fail(r, rc, s.reader.error);
    else
        r->rc = read_all(&s);
    r->offset = fm__binary_reader_offset(&s.reader);
    return r->rc < 0 ? 0 : lua_gettop(L) - r->base;
}
