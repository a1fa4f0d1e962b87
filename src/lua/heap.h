/* SPDX-License-Identifier: MIT */
/*
 * The Lua heap.  Of a child: how much it may grow, and when its collector comes
 * back; nothing of that is ever undone.  Of a parent: room for what children
 * send.
 */
#ifndef FM_LUA_HEAP_H
#define FM_LUA_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <lua.h>

struct fmL_heap {
    lua_Alloc alloc; /* the host's */
    void *ud;        /* the host's */
    int64_t grown;   /* bytes allocated less bytes freed since the fork */
    int64_t limit;
    bool hit; /* an allocation was refused because of the limit */
};

/* Give the collector a rest until the child has allocated as much as the heap
 * was at the fork, at least 8 MiB and at most 64 MiB: before that it would
 * copy shared pages only to find that the host's objects are alive.  A host
 * that stopped its collector finds it stopped here too. */
void fmL_heap_rest(lua_State *L);

/* Refuse allocations that would make the heap grow by more than `limit` bytes
 * over what it is now; Lua collects garbage, tries again, and raises "not
 * enough memory".  0 means no limit. */
void fmL_heap_limit(lua_State *L, struct fmL_heap *heap, uint64_t limit);

/* No limit from here on, so that the failure can be told. */
void fmL_heap_lift(struct fmL_heap *heap);

/* Push a table with room for `n` items and `n_fields` fields, or a string.  The
 * pages of a big one are made at once: they are fresh, or shared with children,
 * and each would cost a fault of its own.  [-0, +1, m] */
void fmL_heap_push_list(lua_State *L, int n, int n_fields);
void fmL_heap_push_string(lua_State *L, const char *data, size_t len);

#endif
