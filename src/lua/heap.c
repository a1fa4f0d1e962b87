/* SPDX-License-Identifier: MIT */
/* The Lua heap of a child. */
#include "lua/heap.h"

#include "os/memory.h"

#define REST_MIN_KIB (8 << 10)
#define REST_MAX_KIB (64 << 10)

void fmL_heap_rest(lua_State *L)
{
    int kib = lua_gc(L, LUA_GCCOUNT, 0);

    if (lua_gc(L, LUA_GCISRUNNING, 0) != 1)
        return;
    if (kib < REST_MIN_KIB)
        kib = REST_MIN_KIB;
    if (kib > REST_MAX_KIB)
        kib = REST_MAX_KIB;
    /* RESTART sets the collector's debt to zero, so that the budget does not
     * depend on where the host was in its cycle; a STEP of negative size is
     * credit and runs nothing.  In both modes of the collector. */
    (void)lua_gc(L, LUA_GCRESTART, 0);
    (void)lua_gc(L, LUA_GCSTEP, -kib);
}

static void *limited_alloc(void *ud, void *block, size_t old_size, size_t size)
{
    struct fmL_heap *heap = ud;
    /* Without a block `old_size` is a type tag; it is passed on as it came. */
    int64_t more = (int64_t)size - (block != NULL ? (int64_t)old_size : 0);
    void *p;

    if (more > 0 && heap->grown + more > heap->limit) {
        heap->hit = true;
        return NULL;
    }
    p = heap->alloc(heap->ud, block, old_size, size);
    if (p != NULL || size == 0)
        heap->grown += more;
    return p;
}

void fmL_heap_limit(lua_State *L, struct fmL_heap *heap, uint64_t limit)
{
    heap->hit = false;
    if (limit == 0)
        return;
    heap->alloc = lua_getallocf(L, &heap->ud);
    heap->grown = 0;
    heap->limit = limit < INT64_MAX / 2 ? (int64_t)limit : INT64_MAX / 2;
    lua_setallocf(L, limited_alloc, heap);
}

void fmL_heap_lift(struct fmL_heap *heap)
{
    heap->limit = INT64_MAX / 2;
}

/* ------------------------------------------------------------- big objects */

/* What is so big is worth the detour. */
#define BLOCK_MIN ((size_t)256 << 10)

/* The object to make, and the host's allocator meanwhile. */
struct big {
    lua_Alloc alloc;
    void *ud;
    const char *data; /* of a string; NULL: a list */
    size_t n;
    int n_fields;
};

static void *alloc_populated(void *ud, void *block, size_t old_size,
                             size_t size)
{
    const struct big *big = ud;
    void *p = big->alloc(big->ud, block, old_size, size);

    if (p != NULL && p != block && size >= BLOCK_MIN)
        fm__memory_populate(p, size);
    return p;
}

static int make_big(lua_State *L)
{
    const struct big *big = lua_touserdata(L, 1);

    if (big->data != NULL)
        lua_pushlstring(L, big->data, big->n);
    else
        lua_createtable(L, (int)big->n, big->n_fields);
    return 1;
}

static void push_big(lua_State *L, struct big *big)
{
    int status;

    lua_pushcfunction(L, make_big);
    lua_pushlightuserdata(L, big);
    big->alloc = lua_getallocf(L, &big->ud);
    lua_setallocf(L, alloc_populated, big);
    status = lua_pcall(L, 1, 1, 0);
    lua_setallocf(L, big->alloc, big->ud);
    if (status != LUA_OK)
        (void)lua_error(L);
}

void fmL_heap_push_list(lua_State *L, int n, int n_fields)
{
    struct big big = {.data = NULL, .n = (size_t)n, .n_fields = n_fields};

    if (big.n < BLOCK_MIN / sizeof(lua_Number))
        lua_createtable(L, n, n_fields);
    else
        push_big(L, &big);
}

void fmL_heap_push_string(lua_State *L, const char *data, size_t len)
{
    struct big big = {.data = data, .n = len};

    if (len < BLOCK_MIN)
        lua_pushlstring(L, data, len);
    else
        push_big(L, &big);
}
