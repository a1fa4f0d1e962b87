/* SPDX-License-Identifier: MIT */
/*
 * What the writers of values share: the stack of open tables, the tables seen
 * so far, and how a refusal is told.  Private to values*.c.
 *
 * While a writer runs, the Lua stack above `base` holds, for every open table
 * from the outermost, two slots: the table and where it stands (the key that
 * lua_next() gave, or anything when a list is read by index).  On top comes the
 * value at hand.  When that is a table it becomes the next level's.
 */
#ifndef FM_LUA_VALUES_WRITE_H
#define FM_LUA_VALUES_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <lua.h>
#include "wire/event.h"
#include "wire/sink.h"

/* How a level goes through its table. */
enum fmL_pass {
    FML_PASS_NEXT,  /* items, by lua_next() as long as keys come as 1, 2, 3 */
    FML_PASS_INDEX, /* items, by index: some are absent or came out of order */
    FML_PASS_REST,  /* pairs after the items, where lua_next() stands */
    FML_PASS_PAIRS  /* pairs, all but those with keys in 1..n */
};

struct fmL_level {
    lua_Integer at, n; /* of the items: the current one, the last one */
    size_t left;       /* pairs still to be written, where they are counted */
    enum fmL_pass pass;
    bool in_key; /* a table that is a key is being written */
    const void *table;
};

/* An open-addressed set of pointers, each with the number of its arrival. */
struct fmL_seen_slot {
    const void *key;
    size_t index;
};

#define FML_SEEN_FIRST 32 /* slots without an allocation; a power of 2 */

struct fmL_seen {
    struct fmL_seen_slot *slots;
    size_t n, mask;
    struct fmL_seen_slot first[FML_SEEN_FIRST];
};

struct fmL_writer {
    lua_State *L;
    struct fm__sink *sink;
    int base; /* above it, the stack is the writer's */
    int memory; /* stack index of a slot for the slots of `seen` */
    const char *reason; /* set with FM_EENCODE: static text */
    bool unfit;         /* set with it when the binary codec can carry it */
    int depth;
    struct fmL_level levels[FM__DEPTH_MAX];
    struct fmL_seen seen;
};

/* A table was opened: its level is the innermost now and its value stays on
 * the stack.  Else the functions that write return 0 or a negative code. */
#define FML_OPENED 1

/* Stack index of the table of level `depth`, from 0; its key is above it. */
static inline int fmL_level_table(const struct fmL_writer *w, int depth)
{
    return w->base + 1 + 2 * depth;
}

/* Make ready to write; `memory` is the index of the top of the stack, a slot
 * for the writer. */
void fmL_writer_init(struct fmL_writer *w, lua_State *L, struct fm__sink *sink,
                     int memory);

/* Refuse the value at hand.  Returns FM_EENCODE. */
int fmL_refuse(struct fmL_writer *w, const char *reason);

/* Refuse the value at `idx` for its type: "a function cannot be encoded".
 * [-0, +0, -] */
int fmL_refuse_type(struct fmL_writer *w, int idx);

/* Push the path of the value at hand, beginning with `name`.
 * [-0, +1, m] */
void fmL_push_path(struct fmL_writer *w, const char *name);

/* Remember a table.  Returns true when it is new; else `*ret_index` is the
 * number of tables that were new before it.  [-0, +0, m] */
bool fmL_seen_add(struct fmL_writer *w, const void *table, size_t *ret_index);

/* 0, or FM_EENCODE where one more table would be nested too deep. */
int fmL_check_depth(struct fmL_writer *w);

/* Open a level for the table on top of the stack, with its length `n`; pushes
 * the start of lua_next().  Returns FML_OPENED or FM_EENCODE.
 * [-0, +1, m] */
int fmL_open_level(struct fmL_writer *w, lua_Integer n);

/* Close the innermost level; the stack's top is its parent's key then.
 * [-*, +0, -] */
void fmL_close_level(struct fmL_writer *w);

/* Push the next item of the innermost level's list, and count it.  It is nil
 * where there is none.  [-0, +1, -] */
void fmL_next_item(struct fmL_writer *w, struct fmL_level *level);

/* How many pairs lua_next() still gives from the key on top of the stack, but
 * those with keys in 1..n when `n` > 0.  [-0, +0, e] */
size_t fmL_count_pairs(lua_State *L, int table, lua_Integer n);

/* True for an integer in 1..n at `idx`. */
bool fmL_is_item_key(lua_State *L, int idx, lua_Integer n);

/* True when the table at `idx` was marked as a list, by us or by lua-cjson;
 * when the light userdata at `idx` is lua-cjson's empty array.
 * [-0, +0, m] */
bool fmL_is_array(lua_State *L, int idx);
bool fmL_is_empty_array(lua_State *L, int idx);

/* Write `n` values from `first` on, each by the file of its format; with
 * `shared`, a table that comes twice is unfit.  `*ret_i` is the number of the
 * value at hand, from 0.  Returns 0 or a negative code; what is above w->memory
 * on the stack is unspecified then. */
int fmL_write_json(struct fmL_writer *w, int first, int n, bool shared,
                   int *ret_i);
int fmL_write_lua(struct fmL_writer *w, int first, int n, int *ret_i);

#endif
