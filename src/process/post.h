/* SPDX-License-Identifier: MIT */
/*
 * What a worker of a map and its parent share beside the ring.
 *
 * The post is the worker's own: no other process maps it.  The board belongs to
 * all workers of one map; what it says is a hint, which the parent's ledger
 * checks.
 *
 * The word says where the worker is: {item, items left in the claim, flags}.
 * The worker goes from item to item by compare-and-swap, so that the parent
 * can, by the same, take away the items that are left or condemn the worker,
 * and neither ever hits the item after.
 *
 * Where the kernel can make a worker pass a barrier (os/fence.h), it spares
 * itself that for most items: it stores in `at` which item it enters, then
 * looks whether it is recalled, and leaves the word as it was at the last swap.
 * The parent recalls it, makes it pass a barrier, and then knows: either `at`
 * is the item that it is in, or it will find itself recalled before it enters
 * another, and swap.  `recall` is the parent's alone, and taken back when the
 * next claim has come.
 *  An item has the same word again only
 * when the parent has handed it out again, so a stale word never compares
 * equal.
 *
 * A gift is a range that the parent hands to this worker: EMPTY -> OFFERED
 * (parent) -> TAKEN (worker) -> EMPTY (parent, when the claim has come);
 * OFFERED -> EMPTY takes it back.
 */
#ifndef FM_PROCESS_POST_H
#define FM_PROCESS_POST_H

#include <stdatomic.h>
#include <stdint.h>

#include "wire/record.h"

/* Packed {first item: 40 bits, count: 22 bits, low bits: 2}. */
#define FM__SPAN_FIRST_SHIFT 24
#define FM__SPAN_COUNT_SHIFT 2
#define FM__SPAN_LOW 3u

/* Low bits of the word. */
enum fm__word_flag {
    FM__WORD_IDLE = 0,     /* in no item */
    FM__WORD_RUN = 1,      /* in the item */
    FM__WORD_WAIT = 2,     /* the item's result waits for room in the ring */
    FM__WORD_CONDEMNED = 3 /* the parent has given it up: go no further */
};

/* Low bits of the gift. */
enum fm__gift_state { FM__GIFT_EMPTY, FM__GIFT_OFFERED, FM__GIFT_TAKEN };

/* What the parent wants. */
enum fm__order {
    FM__ORDER_WORK,
    FM__ORDER_LEAVE /* no more items come */
};

static inline uint64_t fm__span(uint64_t first, uint64_t count, unsigned low)
{
    return first << FM__SPAN_FIRST_SHIFT | count << FM__SPAN_COUNT_SHIFT | low;
}

static inline uint64_t fm__span_first(uint64_t span)
{
    return span >> FM__SPAN_FIRST_SHIFT;
}

static inline uint64_t fm__span_count(uint64_t span)
{
    return span >> FM__SPAN_COUNT_SHIFT & FM__CLAIM_MAX;
}

static inline unsigned fm__span_low(uint64_t span)
{
    return (unsigned)(span & FM__SPAN_LOW);
}

struct fm__board {
    _Alignas(64) _Atomic uint64_t cursor; /* first item nobody has taken */
};

struct fm__post {
    /* The worker writes, and the parent the word. */
    _Alignas(64) _Atomic uint64_t word;
    _Atomic uint64_t at;        /* the item it is in */
    _Atomic int64_t started_at; /* of the item, when items are timed */
    _Atomic uint64_t detail;    /* where in the item it is, if it says so */
    _Atomic uint32_t claiming;  /* may have moved the cursor without a CLAIM */
    _Atomic uint32_t quiet;     /* items may end and the bell not be rung */
    _Atomic uint32_t pace;      /* items of about a millisecond, 0: unknown */
    _Atomic uint32_t leaves;    /* was told that there are no more items */
    /* The parent writes, and the worker the gift's state. */
    _Alignas(64) _Atomic uint64_t gift;
    _Atomic uint64_t limit; /* the cursor may be used up to here */
    _Atomic uint32_t gift_attempt;
    _Atomic uint32_t order;
    _Atomic uint32_t spoke;  /* the worker waits until what its item has printed
                                was read; cleared by the parent */
    _Atomic uint32_t recall; /* go on by compare-and-swap */
    _Atomic uint32_t ask;    /* for a sign of life, when it is awake */
    _Atomic uint32_t asleep; /* the worker sleeps ... */
    _Atomic uint32_t call;   /* ... on this word, changed to wake it */
};

#endif
