/* SPDX-License-Identifier: MIT */
/*
 * What specs of memory and codecs need: Lua states that run out of it or share
 * it, light userdata, and strings that collide.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include "lua/codec.h"
#include "os/sys.h"

int luaopen_specs_memory(lua_State *L);

/* ---------------------------------------------------------- lack of memory */

/* The n-th allocation, and all after it, fail, Lua's and the core's. */
static struct {
    long left;    /* allocations that still succeed; negative: all do */
    long live;    /* blocks of the core */
    size_t bytes; /* of Lua */
} starving;

static int is_starved(void)
{
    if (starving.left < 0)
        return 0;
    if (starving.left == 0)
        return 1;
    starving.left--;
    return 0;
}

static void *lua_alloc(void *ud, void *p, size_t osize, size_t nsize)
{
    void *moved;

    (void)ud;
    osize = p != NULL ? osize : 0;
    if (nsize == 0) {
        free(p);
        starving.bytes -= osize;
        return NULL;
    }
    if (nsize > osize && is_starved())
        return NULL;
    moved = realloc(p, nsize);
    if (moved != NULL)
        starving.bytes += nsize - osize;
    return moved;
}

static void *core_malloc(size_t size)
{
    if (is_starved())
        return NULL;
    starving.live++;
    return malloc(size);
}

static void *core_realloc(void *p, size_t size)
{
    if (is_starved())
        return NULL;
    starving.live += p == NULL;
    return realloc(p, size);
}

static void core_free(void *p)
{
    starving.live -= p != NULL;
    free(p);
}

/* What crosses: every kind of thing that allocates. */
static const char sample[] =
    "local list, deep, t = {}, {}, {}\n"
    "for i = 1, 40 do list[i] = {id = i, name = 'n' .. i, x = i / 4} end\n"
    "for i = 1, 300 do t[1] = {}; t = t[1]; deep[1] = deep[1] or t end\n"
    "local odd = {}\n"
    "for i = 1, 40 do odd['key' .. i] = ('\\n'):rep(i * 10) end\n"
    "return {list, deep, odd, ('x'):rep(5000), {}, 1, 2.5}\n";

/* (codec, encode, decode, value): the text of the value that crossed */
static int cross(lua_State *L)
{
    lua_pushvalue(L, 3);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 4);
    lua_call(L, 2, 2);
    lua_insert(L, -2); /* decode, format, text */
    lua_call(L, 2, 1);
    return 1;
}

static int prepare(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_newtable(L);
    fmL_open_codec(L);
    lua_getfield(L, -1, "encode");
    lua_getfield(L, -2, "decode");
    lua_remove(L, -3);
    if (luaL_loadstring(L, sample) != LUA_OK)
        return lua_error(L);
    lua_call(L, 0, 1);
    return 4;
}

static const char *run_starved(lua_State *L, const char *codec, long n)
{
    int rc;

    luaL_requiref(L, "string", luaopen_string, 1);
    lua_settop(L, 0);
    lua_pushstring(L, codec);
    lua_pushcclosure(L, prepare, 1);
    lua_call(L, 0, 4);
    lua_pushcfunction(L, cross);
    lua_insert(L, 1);
    starving.left = n;
    rc = lua_pcall(L, 4, 1, 0);
    starving.left = -1;
    if (rc == LUA_ERRMEM)
        return "memory";
    if (rc == LUA_OK)
        return lua_istable(L, -1) ? "same" : "nothing";
    return strstr(lua_tostring(L, -1), "not enough memory") != NULL
               ? "memory"
               : "another error";
}

/* starve(codec, n) -> outcome, bytes and blocks left behind */
static int l_starve(lua_State *L)
{
    struct fm__sys_table real = fm__sys;
    const char *codec = luaL_checkstring(L, 1), *outcome;
    long n = (long)luaL_checkinteger(L, 2);
    lua_State *starved;

    starving.left = -1;
    starving.live = 0;
    starving.bytes = 0;
    starved = lua_newstate(lua_alloc, NULL);
    if (starved == NULL)
        return luaL_error(L, "no memory for a Lua state");
    fm__sys.malloc = core_malloc;
    fm__sys.realloc = core_realloc;
    fm__sys.free = core_free;
    outcome = run_starved(starved, codec, n);
    lua_close(starved);
    fm__sys = real;
    lua_pushstring(L, outcome);
    lua_pushinteger(L, (lua_Integer)starving.bytes + starving.live);
    return 2;
}

/* ------------------------------------------------------------ shared memory */

#define SHARED_SIZE ((size_t)16 << 20)

struct shared_heap {
    unsigned char *memory;
    size_t used;
};

/* Never gives back: the states that use it are short-lived. */
static void *shared_alloc(void *ud, void *p, size_t osize, size_t nsize)
{
    struct shared_heap *heap = ud;
    void *q;

    nsize = (nsize + 15) & ~(size_t)15;
    if (nsize == 0 || heap->used + nsize > SHARED_SIZE)
        return NULL;
    q = heap->memory + heap->used;
    heap->used += nsize;
    if (p != NULL)
        memcpy(q, p, osize < nsize ? osize : nsize);
    return q;
}

/* run_shared(code, package.path, package.cpath) -> what it returns, as a
 * string: in a Lua state whose memory is shared with children. */
static int l_run_shared(lua_State *L)
{
    struct shared_heap heap = {NULL, 0};
    lua_State *shared;

    heap.memory = mmap(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (heap.memory == MAP_FAILED)
        return luaL_error(L, "no shared memory");
    shared = lua_newstate(shared_alloc, &heap);
    luaL_openlibs(shared);
    lua_getglobal(shared, "package");
    lua_pushstring(shared, luaL_checkstring(L, 2));
    lua_setfield(shared, -2, "path");
    lua_pushstring(shared, luaL_checkstring(L, 3));
    lua_setfield(shared, -2, "cpath");
    (void)luaL_dostring(shared, luaL_checkstring(L, 1));
    lua_pushstring(L, luaL_tolstring(shared, -1, NULL));
    lua_close(shared);
    (void)munmap(heap.memory, SHARED_SIZE);
    return 1;
}

/* --------------------------------------------------------------- collisions */

#define KEY_SIZE 12
#define SAME_BITS 0x1ffffu /* of the hash; the table of strings has no more */

/* The hash seed of a Lua 5.4, from where its global state is known to be.  In a
 * release that has it elsewhere the strings do not collide, no more. */
static uint32_t seed_of(lua_State *L)
{
    const char *global;
    uint32_t seed;

    memcpy(&global, (const char *)L + 24, sizeof global);
    memcpy(&seed, global + 96, sizeof seed);
    return seed;
}

static uint32_t step(uint32_t hash, unsigned char c)
{
    return hash ^ ((hash << 5) + (hash >> 2) + c);
}

/* Choose the last two bytes that are hashed, the first of the string, so that
 * the bits of the hash are all 0.  Returns whether there are such. */
static int finish(unsigned char *key, uint32_t hash)
{
    unsigned c, last;

    for (c = 1; c < 256; c++) {
        uint32_t before = step(hash, (unsigned char)c);
        uint32_t want = before & SAME_BITS;

        last = (want - ((before << 5) + (before >> 2))) & SAME_BITS;
        if (last > 0 && last < 256) {
            key[1] = (unsigned char)c;
            key[0] = (unsigned char)last;
            return 1;
        }
    }
    return 0;
}

/* colliding_pairs(n) -> bytes: n pairs of a binary text, whose keys are strings
 * that collide in this state; a string that is there already does no harm */
static int l_colliding_pairs(lua_State *L)
{
    lua_Integer n = luaL_checkinteger(L, 1);
    uint32_t seed = seed_of(L), counter = 0;
    luaL_Buffer buffer;

    luaL_buffinit(L, &buffer);
    while (n > 0) {
        unsigned char key[KEY_SIZE];
        uint32_t hash = seed ^ KEY_SIZE;
        size_t i;

        memset(key, 'k', sizeof key);
        counter++;
        memcpy(key + 4, &counter, sizeof counter);
        for (i = KEY_SIZE; i > 2; i--)
            hash = step(hash, key[i - 1]);
        if (finish(key, hash)) {
            luaL_addchar(&buffer, (char)(0x80 + KEY_SIZE));
            luaL_addlstring(&buffer, (const char *)key, sizeof key);
            luaL_addchar(&buffer, 1);
            n--;
        }
    }
    luaL_pushresult(&buffer);
    return 1;
}

/* light(n) -> a light userdata */
static int l_light(lua_State *L)
{
    static char somewhere[128];

    lua_pushlightuserdata(L, somewhere + luaL_checkinteger(L, 1) % 128);
    return 1;
}

int luaopen_specs_memory(lua_State *L)
{
    static const luaL_Reg functions[] = {{"starve", l_starve},
                                         {"run_shared", l_run_shared},
                                         {"colliding_pairs", l_colliding_pairs},
                                         {"light", l_light},
                                         {NULL, NULL}};

    luaL_newlib(L, functions);
    return 1;
}
