/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as Lua values, in a Lua state with little memory.
 *
 * The first 3 bytes choose the format, the budget, and which allocation fails.
 * Whatever is decoded: values or an error, never an abort; no block is left
 * behind, also when memory runs out; no more memory is taken than the budget
 * or the bytes allow.  What was accepted can be written, and is the same when
 * it is read again.
 */
#include "fuzz.h"

#include <lauxlib.h>
#include <lua.h>

#include "engine/bind.h"
#include "fork_map.h"
#include "lua/values.h"
#include "os/sys.h"
#include "wire/buffer.h"

#define HEAP_MAX ((size_t)64 << 20)
#define HEAD 3 /* bytes that choose */

/* What a byte of text may become: `{},` is a table, a slot in a list that is
 * being moved to twice its size, and as much again as garbage. */
#define BYTES_PER_BYTE 128
#define BYTES_FREE ((size_t)64 << 10)

/* ----------------------------------------------------------------- memory */

/* Blocks of Lua and of the core; both fail when `left` is used up. */
static struct {
    long left; /* allocations that succeed; negative: all do */
    long blocks;
    size_t bytes, peak; /* of Lua */
} heap;

static bool is_starved(void)
{
    if (heap.left > 0)
        heap.left--;
    else if (heap.left == 0)
        return true;
    return false;
}

static void *lua_alloc(void *ud, void *p, size_t osize, size_t nsize)
{
    void *moved;

    (void)ud;
    osize = p ? osize : 0;
    if (nsize == 0) {
        heap.blocks -= p != NULL;
        heap.bytes -= osize;
        free(p);
        return NULL;
    }
    if (nsize > osize &&
        (is_starved() || nsize - osize > HEAP_MAX - heap.bytes))
        return NULL;
    moved = realloc(p, nsize);
    if (!moved)
        return NULL;
    heap.blocks += p == NULL;
    heap.bytes += nsize - osize;
    heap.peak = heap.bytes > heap.peak ? heap.bytes : heap.peak;
    return moved;
}

static void *core_malloc(size_t size)
{
    void *p = is_starved() ? NULL : malloc(size);

    heap.blocks += p != NULL;
    return p;
}

static void *core_realloc(void *p, size_t size)
{
    void *moved = is_starved() ? NULL : realloc(p, size);

    heap.blocks += moved && !p;
    return moved;
}

static void core_free(void *p)
{
    heap.blocks -= p != NULL;
    free(p);
}

/* ------------------------------------------------------------- comparison */

static bool same_numbers(lua_State *L, int a, int b)
{
    lua_Number x = lua_tonumber(L, a), y = lua_tonumber(L, b);
    uint64_t x_bits, y_bits;

    if (lua_isinteger(L, a) != lua_isinteger(L, b))
        return false;
    if (lua_isinteger(L, a))
        return lua_tointeger(L, a) == lua_tointeger(L, b);
    memcpy(&x_bits, &x, sizeof x_bits);
    memcpy(&y_bits, &y, sizeof y_bits);
    return x_bits == y_bits;
}

static bool same_values(lua_State *L, int seen, int a, int b);

/* Every pair of table `a` must be in table `b`.  Keys that are tables are only
 * counted. */
static bool same_pairs(lua_State *L, int seen, int a, int b)
{
    size_t n = 0;

    for (lua_pushnil(L); lua_next(L, a) != 0; lua_pop(L, 1)) {
        int top = lua_gettop(L);

        n++;
        if (lua_istable(L, top - 1))
            continue;
        lua_pushvalue(L, top - 1);
        lua_rawget(L, b);
        if (!same_values(L, seen, top, top + 1))
            return false;
        lua_pop(L, 1);
    }
    for (lua_pushnil(L); lua_next(L, b) != 0; lua_pop(L, 1))
        n--;
    return n == 0;
}

/* Tables are the same when they have the same pairs and were met together. */
static bool same_tables(lua_State *L, int seen, int a, int b)
{
    bool met;

    luaL_checkstack(L, LUA_MINSTACK, NULL);
    lua_pushvalue(L, a);
    met = lua_rawget(L, seen) != LUA_TNIL;
    if (met) {
        met = lua_rawequal(L, -1, b);
        lua_pop(L, 1);
        return met;
    }
    lua_pop(L, 1);
    lua_pushvalue(L, a);
    lua_pushvalue(L, b);
    lua_rawset(L, seen);
    return same_pairs(L, seen, a, b);
}

/* Recurses as deep as the tables, of which there are FM__DEPTH_MAX. */
static bool same_values(lua_State *L, int seen, int a, int b)
{
    if (lua_type(L, a) != lua_type(L, b))
        return false;
    if (lua_type(L, a) == LUA_TNUMBER)
        return same_numbers(L, a, b);
    if (lua_type(L, a) == LUA_TTABLE)
        return same_tables(L, seen, a, b);
    return lua_rawequal(L, a, b);
}

/* ------------------------------------------------------------ there and back
 */

struct job {
    const void *data; /* memory of its own, of exactly `len` bytes */
    size_t len, budget, base;
    int format;
    struct fm__buffer text; /* what was decoded, encoded again */
};

static void require_bounded(const struct job *job)
{
    size_t taken = heap.peak > job->base ? heap.peak - job->base : 0;

    REQUIRE(taken <= BYTES_PER_BYTE * job->len + BYTES_FREE);
    if (job->budget > 0)
        REQUIRE(taken <= 2 * job->budget + 2 * job->len + BYTES_FREE);
}

static int encode(lua_State *L, struct job *job, int first, int n)
{
    struct fmL_codec codec = FML_CODEC_INIT;
    struct fm__buffer_sink sink;
    int rc;

    codec.kind =
        job->format == FM__FORMAT_JSON ? FML_CODEC_JSON : FML_CODEC_LUA;
    fm__buffer_sink_init(&sink, &job->text);
    rc = fmL_encode(L, first, n, &codec, &sink.sink, "result");
    return rc < 0 ? rc : fm__buffer_sink_flush(&sink);
}

/* Decode, encode, decode and compare.  Returns nothing, raises when memory is
 * short. */
static int cross(lua_State *L)
{
    struct job *job = lua_touserdata(L, 1);
    int n, again, rc, top = lua_gettop(L);

    job->base = heap.bytes;
    heap.peak = heap.bytes;
    n = fmL_decode(L, job->format, NULL, job->data, job->len, job->budget);
    require_bounded(job);
    if (n < 0) {
        REQUIRE(n == FM_EPROTOCOL || n == FM_ELIMIT);
        REQUIRE(lua_gettop(L) == top + 1 && lua_isstring(L, -1));
        return 0;
    }
    REQUIRE(lua_gettop(L) == top + n);
    rc = encode(L, job, top + 1, n);
    if (rc < 0) {
        REQUIRE(heap.left == 0 && rc != FM_EENCODE);
        return luaL_error(L, "not enough memory");
    }
    REQUIRE(lua_gettop(L) == top + n);
    again = fmL_decode(L, job->format, NULL, job->text.data, job->text.len, 0);
    REQUIRE(again == n);
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    lua_newtable(L);
    for (int i = top + 1; i <= top + n; i++)
        REQUIRE(same_values(L, top + 2 * n + 1, i, i + n));
    return 0;
}

static void require_memory_error(lua_State *L, int rc)
{
    if (rc == LUA_ERRMEM)
        return;
    REQUIRE(rc == LUA_ERRRUN && lua_isstring(L, -1));
    REQUIRE(strstr(lua_tostring(L, -1), "not enough memory"));
}

static void run(struct job *job, long left)
{
    lua_State *L;
    int rc;

    heap.left = -1;
    L = lua_newstate(lua_alloc, NULL);
    REQUIRE(L);
    lua_pushcfunction(L, cross);
    lua_pushlightuserdata(L, job);
    heap.left = left;
    rc = lua_pcall(L, 1, 0, 0);
    if (rc != LUA_OK)
        require_memory_error(L, rc);
    lua_close(L);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t budgets[] = {0, 1 << 10, 1 << 14, 1 << 18};
    struct fm__sys_table real = fm__sys;
    struct job job;
    uint8_t *copy;

    if (size < HEAD || size > HEAP_MAX / BYTES_PER_BYTE / 4)
        return 0;
    memset(&job, 0, sizeof job);
    job.len = size - HEAD;
    copy = malloc(job.len > 0 ? job.len : 1);
    REQUIRE(copy);
    memcpy(copy, data + HEAD, job.len);
    job.data = copy;
    job.format = data[0] & 1 ? FM__FORMAT_JSON : FM__FORMAT_LUA;
    job.budget = budgets[data[0] >> 1 & 3];
    fm__buffer_init(&job.text, HEAP_MAX);
    fm__sys.malloc = core_malloc;
    fm__sys.realloc = core_realloc;
    fm__sys.free = core_free;
    run(&job, (data[0] & 8) != 0 ? data[1] | data[2] << 8 : -1);
    fm__buffer_done(&job.text);
    fm__sys = real;
    free(copy);
    REQUIRE(heap.blocks == 0 && heap.bytes == 0);
    return 0;
}
