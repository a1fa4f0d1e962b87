/* SPDX-License-Identifier: MIT */
/*
 * What the writers of values share: the stack of open tables, the tables seen
 * so far, and how a refusal is told.  Private to values*.c.
 */
#ifndef FM_LUA_VALUES_WRITE_H
#define FM_LUA_VALUES_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <lua.h>
#include "wire/event.h"
#include "wire/sink.h"

/* How a level goes through its table. */
enum fmL_pass {
    FML_PASS_NEXT,  /* items, by lua_next() as long as keys come as 1, 2, 3 */
    FML_PASS_INDEX, /* items, by index: some are absent or came out of order */
    FML_PASS_PAIRS  /* pairs of key and value */
};

/* An open table.  While items are written, the Lua stack above it has one slot
 * for the key that lua_next() gave (or anything, by index), and the item. Where
 * pairs are, is its writer's affair; `key` says where the current key is. */
struct fmL_level {
    lua_Integer at, n; /* of the items: the current one, the last one */
    size_t left;       /* pairs, as its writer counts them */
    int index, key;    /* on the Lua stack */
    int slot, slots;   /* of a batch of pairs there: the next, all */
    enum fmL_pass pass;
    bool has_more;     /* pairs after the batch */
    bool has_items;    /* among them, keys in 1..n that were written as items */
    const void *table; /* its address */
};

/* The tables seen, in the order of their arrival, and an open-addressed index
 * of them, whose slots are numbers in that order plus 1.  Both are on the C
 * stack first, then in one userdata. */
#define FML_SEEN_FIRST 32 /* slots; a power of 2, twice the tables */

struct fmL_seen {
    const void **tables;
    uint32_t *slots;
    size_t n, mask;
    const void *first_tables[FML_SEEN_FIRST / 2];
    uint32_t first_slots[FML_SEEN_FIRST];
};

/* Levels without an allocation.  A writer lies on the C stack of a forked
 * child, where each page touched for the first time costs. */
#define FML_LEVELS_FIRST 16

struct fmL_writer {
    lua_State *L;
    struct fm__sink *sink;
    int base; /* index of the uppermost of FML_WRITER_SLOTS slots of the stack
                 that keep memory; what is above them is the writer's */
    const char *reason; /* set with FM_EENCODE: static text */
    bool unfit;         /* set with it when the binary codec can carry it */
    int depth;
    struct fmL_level *levels; /* of all open tables; moves when one is opened */
    struct fmL_level first[FML_LEVELS_FIRST];
    struct fmL_seen seen;
};

#define FML_WRITER_SLOTS 2

/* A table was opened: its level is the innermost now and its value stays on
 * the stack.  Else the functions that write return 0 or a negative code. */
#define FML_OPENED 1

/* Make ready to write.  [-0, +FML_WRITER_SLOTS, -] */
void fmL_writer_init(struct fmL_writer *w, lua_State *L, struct fm__sink *sink);

/* Refuse the value at hand.  Returns FM_EENCODE. */
int fmL_refuse(struct fmL_writer *w, const char *reason);

/* Refuse the value at `idx` for its type: "a function cannot be encoded".
 * [-0, +0, -] */
int fmL_refuse_type(struct fmL_writer *w, int idx);

/* Push the path of the value at hand, beginning with `name`.
 * [-0, +1, m] */
void fmL_push_path(struct fmL_writer *w, const char *name);

/* Remember a table; NULL is one that cannot come again.  Returns true when it
 * is new; else `*ret_index` is the number of tables that were new before it.
 * [-0, +0, m] */
bool fmL_seen_add(struct fmL_writer *w, const void *table, size_t *ret_index);

/* 0, or FM_EENCODE where one more table would be nested too deep. */
int fmL_check_depth(struct fmL_writer *w);

/* Open a level for the table at stack index `index`, with its length `n`.
 * `slots` of the stack above the top are sure then.  Returns FML_OPENED or
 * FM_EENCODE.  [-0, +0, m] */
int fmL_open_level(struct fmL_writer *w, int index, lua_Integer n, int slots);

/* Close the innermost level, and pop its table and all above.  [-*, +0, -] */
void fmL_close_level(struct fmL_writer *w);

/* Push the next item of the innermost level's list, and count it.  It is nil
 * where there is none.  [-0, +1, -] */
void fmL_next_item(struct fmL_writer *w, struct fmL_level *level);

/* True for an integer in 1..n at `idx`. */
bool fmL_is_item_key(lua_State *L, int idx, lua_Integer n);

/* True when the table at `idx` was marked as a list, by us or by lua-cjson;
 * when the light userdata at `idx` is lua-cjson's empty array.
 * [-0, +0, m] */
bool fmL_is_array(lua_State *L, int idx);
bool fmL_is_empty_array(lua_State *L, int idx);

/* Write `n` values from `first` on, each by the file of its format; with
 * `shared`, a table that comes twice is unfit.  `*ret_i` is the number of the
 * value at hand, from 0.  Returns 0 or a negative code; what is above w->base
 * on the stack is unspecified then. */
int fmL_write_json(struct fmL_writer *w, int first, int n, bool shared,
                   int *ret_i);
int fmL_write_lua(struct fmL_writer *w, int first, int n, int *ret_i);

#endif
