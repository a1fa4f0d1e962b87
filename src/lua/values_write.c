/* SPDX-License-Identifier: MIT */
/* What the writers of values share; see values_write.h. */
#include "lua/values_write.h"

#include <stdint.h>
#include <string.h>
#include <lauxlib.h>
#include "fork_map.h"
#include "lua/codec.h"
#include "wire/number.h"

/* Stack slots for what any step pushes for a while. */
#define SLOTS_SPARE 16

/* Longer keys are cut in paths. */
#define PATH_KEY_MAX 64

void fmL_writer_init(struct fmL_writer *w, lua_State *L, struct fm__sink *sink)
{
    struct fmL_seen *seen = &w->seen;

    w->L = L;
    w->sink = sink;
    w->base = lua_gettop(L) + FML_WRITER_SLOTS;
    lua_settop(L, w->base);
    w->levels = w->first;
    w->reason = NULL;
    w->unfit = false;
    w->depth = 0;
    seen->tables = seen->first_tables;
    seen->slots = seen->first_slots;
    seen->mask = FML_SEEN_FIRST - 1;
    seen->n = 0;
}

int fmL_refuse(struct fmL_writer *w, const char *reason)
{
    w->reason = reason;
    return FM_EENCODE;
}

int fmL_refuse_type(struct fmL_writer *w, int idx)
{
    switch (lua_type(w->L, idx)) {
    case LUA_TFUNCTION:
        return fmL_refuse(w, "a function cannot be encoded");
    case LUA_TTHREAD:
        return fmL_refuse(w, "a coroutine cannot be encoded");
    case LUA_TUSERDATA:
        return fmL_refuse(w, "a userdata cannot be encoded");
    case LUA_TLIGHTUSERDATA:
        return fmL_refuse(w, "a light userdata cannot be encoded");
    default:
        return fmL_refuse(w, "nil cannot be encoded here");
    }
}

/* -------------------------------------------------------------- paths */

static bool is_name(const char *s, size_t len)
{
    size_t i;

    if (len == 0 || len > PATH_KEY_MAX || (*s >= '0' && *s <= '9'))
        return false;
    for (i = 0; i < len; i++) {
        char c = s[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              (c >= '0' && c <= '9') || c == '_'))
            return false;
    }
    return true;
}

/* A string key that is no name: ["…"], with what is not printable as \ddd. */
static void add_quoted(luaL_Buffer *b, const char *s, size_t len)
{
    static const char digits[] = "0123456789";
    size_t i;

    luaL_addstring(b, "[\"");
    for (i = 0; i < len && i < PATH_KEY_MAX; i++) {
        unsigned char c = (unsigned char)s[i];

        if (c >= ' ' && c < 0x7f) {
            if (c == '"' || c == '\\')
                luaL_addchar(b, '\\');
            luaL_addchar(b, (char)c);
        } else {
            luaL_addchar(b, '\\');
            luaL_addchar(b, digits[c / 100]);
            luaL_addchar(b, digits[c / 10 % 10]);
            luaL_addchar(b, digits[c % 10]);
        }
    }
    luaL_addstring(b, i < len ? "...\"]" : "\"]");
}

static void add_integer(lua_State *L, luaL_Buffer *b, lua_Integer value)
{
    lua_pushinteger(L, value);
    luaL_addvalue(b);
}

/* A number key.  Lua would write a float as the locale has it. */
static void add_number(lua_State *L, luaL_Buffer *b, int key)
{
    char text[FM__NUMBER_ROOM];
    double value = lua_tonumberx(L, key, NULL);

    if (lua_isinteger(L, key))
        add_integer(L, b, lua_tointegerx(L, key, NULL));
    else if (value - value == 0)
        luaL_addlstring(b, text, fm__number_format(value, text));
    else
        luaL_addstring(b, value > 0 ? "inf" : "-inf");
}

static void add_key(lua_State *L, luaL_Buffer *b, int key)
{
    const char *s;
    size_t len;

    switch (lua_type(L, key)) {
    case LUA_TSTRING:
        s = lua_tolstring(L, key, &len);
        if (is_name(s, len)) {
            luaL_addchar(b, '.');
            luaL_addlstring(b, s, len);
        } else {
            add_quoted(b, s, len);
        }
        return;
    case LUA_TNUMBER:
        luaL_addchar(b, '[');
        add_number(L, b, key);
        luaL_addchar(b, ']');
        return;
    case LUA_TBOOLEAN:
        luaL_addstring(b, lua_toboolean(L, key) ? "[true]" : "[false]");
        return;
    default:
        luaL_addchar(b, '[');
        luaL_addstring(b, luaL_typename(L, key));
        luaL_addchar(b, ']');
        return;
    }
}

/* luaL_Buffer wants the top of the stack for itself, so that nothing else may
 * be pushed between its calls; the keys are below. */
void fmL_push_path(struct fmL_writer *w, const char *name)
{
    lua_State *L = w->L;
    luaL_Buffer b;
    int i;

    luaL_checkstack(L, SLOTS_SPARE, NULL);
    luaL_buffinit(L, &b);
    luaL_addstring(&b, name);
    for (i = 0; i < w->depth; i++) {
        struct fmL_level *level = &w->levels[i];

        if (level->pass == FML_PASS_PAIRS) {
            add_key(L, &b, level->key);
            continue;
        }
        luaL_addchar(&b, '[');
        add_integer(L, &b, level->at);
        luaL_addchar(&b, ']');
    }
    luaL_pushresult(&b);
}

/* ------------------------------------------------------- tables seen */

/* The slot of `table`: its own, or the free one where it belongs. */
static uint32_t *seen_slot(const struct fmL_seen *seen, const void *table)
{
    /* Addresses are multiples of 16; the multiplication moves what differs
     * up, the shift takes it from there. */
    uint64_t hash = ((uint64_t)(uintptr_t)table >> 4) * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(hash >> 32) & seen->mask;

    while (seen->slots[i] != 0 && seen->tables[seen->slots[i] - 1] != table)
        i = (i + 1) & seen->mask;
    return &seen->slots[i];
}

/* The old memory stays on the Lua stack until the new one is filled. */
static void seen_grow(struct fmL_writer *w)
{
    struct fmL_seen *seen = &w->seen;
    const void **old = seen->tables;
    size_t i, slots = 4 * (seen->mask + 1);

    if (slots > UINT32_MAX)
        luaL_error(w->L, "too many tables");
    seen->tables = lua_newuserdatauv(
        w->L, slots / 2 * sizeof *seen->tables + slots * sizeof *seen->slots,
        0);
    seen->slots = (uint32_t *)(seen->tables + slots / 2);
    seen->mask = slots - 1;
    memcpy(seen->tables, old, seen->n * sizeof *old);
    memset(seen->slots, 0, slots * sizeof *seen->slots);
    for (i = 0; i < seen->n; i++) {
        if (old[i] != NULL)
            *seen_slot(seen, old[i]) = (uint32_t)i + 1;
    }
    lua_replace(w->L, w->base);
}

bool fmL_seen_add(struct fmL_writer *w, const void *table, size_t *ret_index)
{
    struct fmL_seen *seen = &w->seen;
    uint32_t *slot;

    if (seen->n == 0)
        memset(seen->first_slots, 0, sizeof seen->first_slots);
    slot = seen_slot(seen, table);
    if (*slot != 0) {
        *ret_index = *slot - 1;
        return false;
    }
    if (seen->n > seen->mask / 2) {
        seen_grow(w);
        slot = seen_slot(seen, table);
    }
    seen->tables[seen->n++] = table;
    if (table != NULL)
        *slot = (uint32_t)seen->n;
    return true;
}

/* ------------------------------------------------------------- levels */

int fmL_check_depth(struct fmL_writer *w)
{
    if (w->depth >= FM__DEPTH_MAX)
        return fmL_refuse(w, "tables nested deeper than 1000");
    return 0;
}

/* The first levels are all in use: go on with as many as there may be. */
static void grow_levels(struct fmL_writer *w)
{
    struct fmL_level *levels =
        lua_newuserdatauv(w->L, FM__DEPTH_MAX * sizeof *levels, 0);

    memcpy(levels, w->first, sizeof w->first);
    w->levels = levels;
    lua_replace(w->L, w->base - 1);
}

int fmL_open_level(struct fmL_writer *w, int index, lua_Integer n, int slots)
{
    struct fmL_level *level;

    if (fmL_check_depth(w) < 0)
        return FM_EENCODE;
    luaL_checkstack(w->L, slots + SLOTS_SPARE, "tables nested too deep");
    if (w->depth == FML_LEVELS_FIRST && w->levels == w->first)
        grow_levels(w);
    level = &w->levels[w->depth];
    level->at = 0;
    level->n = n;
    level->left = 0;
    level->index = index;
    level->key = index + 1;
    level->pass = n > 0 ? FML_PASS_NEXT : FML_PASS_PAIRS;
    level->has_items = false;
    level->table = lua_topointer(w->L, index);
    w->depth++;
    return FML_OPENED;
}

void fmL_close_level(struct fmL_writer *w)
{
    w->depth--;
    lua_settop(w->L, w->levels[w->depth].index - 1);
}

/* lua_next() gives a list that was filled in order in order, and says besides
 * whether anything else is in the table.  At the first surprise, go on by
 * index. */
void fmL_next_item(struct fmL_writer *w, struct fmL_level *level)
{
    lua_State *L = w->L;

    level->at++;
    if (level->pass == FML_PASS_NEXT) {
        if (lua_next(L, level->index) == 0)
            lua_pushnil(L); /* keep the slot of the key */
        else if (lua_isinteger(L, -2) &&
                 lua_tointegerx(L, -2, NULL) == level->at)
            return;
        else
            lua_pop(L, 1);
        level->pass = FML_PASS_INDEX;
    }
    lua_rawgeti(L, level->index, level->at);
}

bool fmL_is_item_key(lua_State *L, int idx, lua_Integer n)
{
    lua_Integer key;

    if (!lua_isinteger(L, idx))
        return false;
    key = lua_tointegerx(L, idx, NULL);
    return key >= 1 && key <= n;
}

/* -------------------------------------------------------------- marks */

/* Push the field of lua-cjson's module, when the module is loaded; nil else. */
static void push_cjson_field(lua_State *L, const char *name)
{
    lua_pushnil(L);
    if (lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) == LUA_TTABLE) {
        lua_pushstring(L, "cjson");
        if (lua_rawget(L, -2) == LUA_TTABLE) {
            lua_pushstring(L, name);
            lua_rawget(L, -2);
            lua_replace(L, -4);
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

bool fmL_is_array(lua_State *L, int idx)
{
    bool same;

    if (lua_getmetatable(L, idx) == 0)
        return false;
    fmL_push_array_mt(L);
    push_cjson_field(L, "empty_array_mt");
    push_cjson_field(L, "array_mt");
    same = lua_rawequal(L, -4, -3) || lua_rawequal(L, -4, -2) ||
           lua_rawequal(L, -4, -1);
    lua_pop(L, 4);
    return same;
}

bool fmL_is_empty_array(lua_State *L, int idx)
{
    const void *p = lua_topointer(L, idx);
    bool same;

    push_cjson_field(L, "empty_array");
    same = lua_type(L, -1) == LUA_TLIGHTUSERDATA && lua_topointer(L, -1) == p;
    lua_pop(L, 1);
    return same;
}
