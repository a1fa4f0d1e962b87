/* SPDX-License-Identifier: MIT */
/* The Lua heap of a child. */
#include "lua/heap.h"

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
