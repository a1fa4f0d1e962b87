/* SPDX-License-Identifier: MIT */
/*
 * What the readers of values share: the memory budget, the clock, and keys.
 * Private to values*.c.
 *
 * A reader runs in a C function's own stack frame.  At 1 is its argument, then
 * FML_REFERENCES, then the strings that were keys, in slots from FML_SLOTS on,
 * if it keeps them; above `base` is what it builds and returns.
 */
#ifndef FM_LUA_VALUES_READ_H
#define FM_LUA_VALUES_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <lua.h>
#include "wire/binary.h"
#include "wire/json.h"

#define FML_REFERENCES 2
#define FML_SLOTS 3

/* Estimated bytes of what Lua allocates, for the budget. */
#define FML_TABLE_BYTES 64
#define FML_ITEM_BYTES 16
#define FML_PAIR_BYTES 24
#define FML_STRING_BYTES 24

/* Shorter strings are so few that they cost nothing: a text full of them is
 * no bigger than its table. */
#define FML_STRING_CHARGED 3

struct fmL_reader {
    lua_State *L;
    const void *data;
    size_t len;
    size_t budget; /* bytes of memory left */
    int base;
    int rc;              /* how it ended: 0 or a negative code, with: */
    const char *why;     /* static text */
    size_t offset;       /* where in the text */
    unsigned countdown;  /* events until the next look at the clock */
    int64_t clock_start; /* CPU time at the first look, 0 before */
    size_t clock_offset; /* and the place in the text then */
    struct fm__json_reader json;
};

/* `budget` as fmL_decode() has it.  `json` is left alone. */
void fmL_reader_init(struct fmL_reader *r, const void *data, size_t len,
                     size_t budget);

/* The bodies, C functions whose one argument is the light userdata of a struct
 * fmL_reader.  They return the values, or
 * nothing and rc < 0.  The caller calls them protected, since `json` has to be
 * ended. */
int fmL_read_json(lua_State *L);
int fmL_read_lua(lua_State *L);

/* Make the stack ready. */
void fmL_read_begin(struct fmL_reader *r, lua_State *L, bool keeps_keys);

/* Fail with `rc` because of `why`.  Returns `rc`. */
int fmL_read_fail(struct fmL_reader *r, int rc, const char *why);

/* Take `bytes` of memory off the budget.  Returns 0 or FM_ELIMIT. */
int fmL_read_charge(struct fmL_reader *r, size_t bytes);

/* The same for a table with room for so many items and pairs. */
int fmL_read_charge_table(struct fmL_reader *r, size_t n_list, size_t n_keys);

/* Have `n` free slots on the stack.  Returns 0, FM_ELIMIT when there are more
 * values than Lua's stack holds, or -ENOMEM. */
int fmL_read_room(struct fmL_reader *r, int n);

/* The same for one more value of the text itself, in no table. */
int fmL_read_top(struct fmL_reader *r);

/* Look at the clock.  Returns 0 or FM_ELIMIT. */
int fmL_read_look(struct fmL_reader *r, size_t offset);

/* To be called for each event.  The clock bounds what no count can: whoever
 * knows the hash seed of this Lua state, as a forked child does, can make
 * strings that are all searched for in one chain. */
static inline int fmL_read_tick(struct fmL_reader *r, size_t offset)
{
    return --r->countdown > 0 ? 0 : fmL_read_look(r, offset);
}

/* Push a string.  Returns 0 or FM_ELIMIT, with nothing pushed.
 * [-0, +0|1, m] */
int fmL_read_string(struct fmL_reader *r, const char *data, size_t len);

/* A number that spreads keys; equal keys have equal numbers. */
uint64_t fmL_key_hash(const char *data, size_t len);

/* One of 64 bits for a hash: a table has seen no key with a bit that is not in
 * its mask. */
static inline uint64_t fmL_key_bit(uint64_t hash)
{
    return UINT64_C(1) << (hash >> 52 & 63);
}

#endif
