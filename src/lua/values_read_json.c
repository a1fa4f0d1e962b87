/* SPDX-License-Identifier: MIT */
/*
 * JSON text to Lua values.
 *
 * JSON does not say how big a table will be, and a table that grows is moved
 * each time that it has doubled.  So what comes first waits on the Lua stack
 * until the table closes or enough has come; then it is made to measure.
 */
#include "lua/values_read.h"

#include <string.h>
#include <lauxlib.h>
#include "fork_map.h"
#include "lua/codec.h"

/* So many wait, and so much room is made when more come. */
#define ITEMS_WAITING 64
#define ITEMS_ROOM 128
#define PAIRS_WAITING 16
#define PAIRS_ROOM 32

/* Keys up to this length are looked up by their bytes before they are made,
 * in texts in which it pays. */
#define CACHED_MAX 31
#define CACHE_TEXT 512

/* Levels that need no memory of their own: those of most texts.  The stack
 * frame stays small, so that a short text dirties no page of the stack that
 * was clean. */
#define LEVELS_FEW 12

/* A table being filled.  Before it is made, `table` is the index of the slot
 * where it will be, and `waiting` items or pairs lie above. */
struct level {
    lua_Integer at; /* items so far */
    uint64_t keys;  /* bits of the keys so far */
    size_t pairs;   /* set in the table so far */
    int table;
    int waiting;
    bool is_list, is_made;
};

struct cached {
    unsigned char len;
    char bytes[CACHED_MAX];
};

struct state {
    struct fmL_reader *r;
    lua_State *L;
    int depth;
    int n_levels;         /* room in: */
    struct level *levels; /* `few`, or a userdata at 1, where r was */
    bool keeps_keys;
    uint64_t filled; /* one bit per slot */
    struct level few[LEVELS_FEW];
    struct cached cache[FM__BINARY_SLOTS];
};

static int malformed(struct state *s, const char *why)
{
    return fmL_read_fail(s->r, FM_EPROTOCOL, why);
}

/* ---------------------------------------------------------------- lists */

static int make_list(struct state *s, struct level *level, int room)
{
    lua_State *L = s->L;
    int rc = fmL_read_charge_table(s->r, (size_t)room, 0), i;

    if (rc < 0)
        return rc;
    lua_createtable(L, room, 0);
    lua_replace(L, level->table);
    for (i = level->waiting; i > 0; i--)
        lua_rawseti(L, level->table, i);
    level->at = level->waiting;
    level->waiting = 0;
    level->is_made = true;
    return 0;
}

/* A table that holds `n` >= `room` things is full when `n` is a power of 2;
 * with the next one Lua makes it twice as big. */
static int charge_growth(struct state *s, size_t n, size_t room, size_t each)
{
    if (n < room || (n & (n - 1)) != 0)
        return 0;
    return fmL_read_charge(s->r, n * each);
}

static int add_item(struct state *s, struct level *level)
{
    int rc;

    if (!level->is_made) {
        if (++level->waiting < ITEMS_WAITING)
            return 0;
        return make_list(s, level, ITEMS_ROOM);
    }
    rc = charge_growth(s, (size_t)level->at, ITEMS_ROOM, FML_ITEM_BYTES);
    if (rc < 0)
        return rc;
    lua_rawseti(s->L, level->table, ++level->at);
    return 0;
}

/* -------------------------------------------------------------- objects */

static int make_object(struct state *s, struct level *level, int room)
{
    lua_State *L = s->L;
    int rc = fmL_read_charge_table(s->r, 0, (size_t)room);

    if (rc < 0)
        return rc;
    lua_createtable(L, 0, room);
    lua_replace(L, level->table);
    level->pairs = (size_t)level->waiting;
    for (; level->waiting > 0; level->waiting--)
        lua_rawset(L, level->table);
    level->is_made = true;
    return 0;
}

/* Is the key on top of the stack one of those that wait below it? */
static bool is_waiting(lua_State *L, const struct level *level)
{
    int i;

    for (i = 0; i < level->waiting; i++) {
        if (lua_rawequal(L, -1, level->table + 1 + 2 * i))
            return true;
    }
    return false;
}

static int add_pair(struct state *s, struct level *level)
{
    int rc;

    if (!level->is_made) {
        if (++level->waiting < PAIRS_WAITING)
            return 0;
        return make_object(s, level, PAIRS_ROOM);
    }
    rc = charge_growth(s, level->pairs, PAIRS_ROOM, FML_PAIR_BYTES);
    if (rc < 0)
        return rc;
    level->pairs++;
    lua_rawset(s->L, level->table);
    return 0;
}

/* Push a key, from its slot if it is there. */
static int push_key(struct state *s, const char *data, size_t len,
                    uint64_t hash)
{
    unsigned i = (unsigned)(hash >> 58);
    struct cached *cached = &s->cache[i];
    int rc;

    if (!s->keeps_keys || len > CACHED_MAX)
        return fmL_read_string(s->r, data, len);
    if ((s->filled >> i & 1) != 0 && len == cached->len &&
        memcmp(cached->bytes, data, len) == 0) {
        lua_pushvalue(s->L, FML_SLOTS + (int)i);
        return 0;
    }
    rc = fmL_read_string(s->r, data, len);
    if (rc < 0)
        return rc;
    memcpy(cached->bytes, data, len);
    cached->len = (unsigned char)len;
    s->filled |= UINT64_C(1) << i;
    lua_copy(s->L, -1, FML_SLOTS + (int)i);
    return 0;
}

static int read_key(struct state *s, const char *data, size_t len)
{
    lua_State *L = s->L;
    struct level *level = &s->levels[s->depth - 1];
    uint64_t hash = fmL_key_hash(data, len), bit = fmL_key_bit(hash);
    int rc = push_key(s, data, len, hash);

    if (rc < 0)
        return rc;
    if ((level->keys & bit) == 0) {
        level->keys |= bit;
        return 0;
    }
    if (level->is_made) {
        lua_pushvalue(L, -1);
        if (lua_rawget(L, level->table) != LUA_TNIL)
            return malformed(s, "a key that is there twice");
        lua_pop(L, 1);
    } else if (is_waiting(L, level)) {
        return malformed(s, "a key that is there twice");
    }
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
    return level->is_list ? add_item(s, level) : add_pair(s, level);
}

/* Room for as many levels as there may be. */
static int deepen(struct state *s)
{
    struct level *levels;

    if (s->depth >= FM__DEPTH_MAX)
        return fmL_read_fail(s->r, FM_ELIMIT, "nested too deep");
    levels = lua_newuserdatauv(s->L, FM__DEPTH_MAX * sizeof *levels, 0);
    memcpy(levels, s->few, sizeof s->few);
    lua_replace(s->L, 1);
    s->levels = levels;
    s->n_levels = FM__DEPTH_MAX;
    return 0;
}

static int open_table(struct state *s, bool is_list)
{
    struct level *level;
    int rc;

    rc = fmL_read_room(s->r, ITEMS_WAITING + 2 * PAIRS_WAITING + LUA_MINSTACK);
    if (rc == 0 && s->depth == s->n_levels)
        rc = deepen(s);
    if (rc < 0)
        return rc;
    level = &s->levels[s->depth];
    lua_pushnil(s->L);
    level->at = 0;
    level->keys = 0;
    level->pairs = 0;
    level->table = lua_gettop(s->L);
    level->waiting = 0;
    level->is_list = is_list;
    level->is_made = false;
    s->depth++;
    return 0;
}

static int close_table(struct state *s)
{
    struct level *level = &s->levels[s->depth - 1];
    int rc = 0;

    if (!level->is_made)
        rc = level->is_list ? make_list(s, level, level->waiting)
                            : make_object(s, level, level->waiting);
    if (rc < 0)
        return rc;
    s->depth--;
    return place(s);
}

static int read_empty(struct state *s, bool is_list)
{
    int rc = fmL_read_charge_table(s->r, 0, 0);

    if (rc < 0)
        return rc;
    lua_createtable(s->L, 0, 0);
    if (is_list) {
        fmL_push_array_mt(s->L);
        lua_setmetatable(s->L, -2);
    }
    return place(s);
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
    case FM__EVENT_KEY:
        if (s->depth == 0)
            break;
        return read_key(s, event->u.string.data, event->u.string.len);
    case FM__EVENT_EMPTY:
        return read_empty(s, event->u.boolean);
    case FM__EVENT_CLOSE:
        if (s->depth == 0)
            break;
        return close_table(s);
    case FM__EVENT_DONE:
    case FM__EVENT_LIST: /* begin_table() had those */
    case FM__EVENT_TABLE:
    case FM__EVENT_REFERENCE:
    case FM__EVENT_KEY_AGAIN:
    case FM__EVENT_INTEGERS:
    case FM__EVENT_NUMBERS:
        break;
    }
    return malformed(s, "an event out of place");
}

static int next_event(struct state *s, struct fm__event *event)
{
    int rc = fm__json_reader_next(&s->r->json, event);

    return rc < 0 ? fmL_read_fail(s->r, rc, s->r->json.error) : 0;
}

/* A table has begun.  One that closes at once becomes a single event, any other
 * gets its level, and `event` becomes the first thing in it. */
static int begin_table(struct state *s, struct fm__event *event)
{
    bool is_list = event->type == FM__EVENT_LIST;
    int rc = next_event(s, event);

    if (rc < 0)
        return rc;
    if (event->type == FM__EVENT_CLOSE) {
        event->type = FM__EVENT_EMPTY;
        event->u.boolean = is_list;
        return 0;
    }
    return open_table(s, is_list);
}

static int read_all(struct state *s)
{
    struct fmL_reader *r = s->r;
    struct fm__event event;
    int rc;

    for (;;) {
        rc = next_event(s, &event);
        while (rc == 0 &&
               (event.type == FM__EVENT_LIST || event.type == FM__EVENT_TABLE))
            rc = begin_table(s, &event);
        if (rc < 0)
            return rc;
        if (event.type == FM__EVENT_DONE)
            return 0;
        if (s->depth == 0)
            rc = fmL_read_top(r);
        if (rc == 0)
            rc = read_event(s, &event);
        if (rc == 0)
            rc = fmL_read_tick(r, fm__json_reader_offset(&r->json));
        if (rc < 0)
            return rc;
    }
}

int fmL_read_json(lua_State *L)
{
    struct state s;
    struct fmL_reader *r = lua_touserdata(L, 1);

    s.r = r;
    s.L = L;
    s.depth = 0;
    s.levels = s.few;
    s.n_levels = LEVELS_FEW;
    s.keeps_keys = r->len >= CACHE_TEXT;
    s.filled = 0;
    fmL_read_begin(r, L, s.keeps_keys);
    r->rc = read_all(&s);
    r->offset = fm__json_reader_offset(&r->json);
    return r->rc < 0 ? 0 : lua_gettop(L) - r->base;
}
