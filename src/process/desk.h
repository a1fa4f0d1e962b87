/* SPDX-License-Identifier: MIT */
/*
 * What a worker of a pool and its parent share beside the ring by which the
 * worker speaks: a ring in the other direction, by which it is given calls, and
 * a slot for each of these that has not ended.
 *
 * A slot's word is FREE, or {the call, GIVEN or BEGUN}.  The parent writes the
 * call, then stores GIVEN.  GIVEN -> BEGUN is the worker's move, GIVEN -> FREE
 * the parent's, who has another plan with it; both by compare-and-swap, so that
 * a call which was taken back never begins.  BEGUN -> FREE is the parent's,
 * when it has heard what became of it.  A call's number never comes again, so a
 * stale word never compares equal.
 *
 * A worker without a call sleeps on the word `call`, or in a poller when
 * it has other things to wait for; `asleep` says which, and who clears it wakes
 * it.
 */
#ifndef FM_PROCESS_DESK_H
#define FM_PROCESS_DESK_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "os/bell.h"
#include "wire/ring.h"

/* Calls that a worker may have at once. */
#define FM__DESK_SLOTS 256

/* A call is numbered {count: 54 bits, its slot: 8 bits}. */
#define FM__DESK_SLOT_MASK (FM__DESK_SLOTS - 1u)

enum fm__desk_state { FM__DESK_FREE, FM__DESK_GIVEN, FM__DESK_BEGUN };

enum fm__desk_sleep {
    FM__DESK_AWAKE,
    FM__DESK_BY_WORD, /* sleeps on `call` */
    FM__DESK_BY_BELL  /* waits until the bell rings */
};

enum fm__desk_order { FM__DESK_WORK, FM__DESK_LEAVE };

struct fm__desk {
    struct fm__ring_shared ring;
    _Alignas(64) _Atomic uint32_t order; /* the parent's */
    _Atomic uint32_t asleep;             /* enum fm__desk_sleep */
    _Atomic uint32_t call;               /* changed to wake the worker */
    _Alignas(64) _Atomic uint64_t words[FM__DESK_SLOTS];
    _Atomic int64_t begun_at[FM__DESK_SLOTS]; /* said by the worker */
    _Atomic uint64_t tags[FM__DESK_SLOTS]; /* what the call is to its giver */
};

#ifdef FM_TINY
#define FM__DESK_RING 4096
#else
#define FM__DESK_RING ((size_t)1 << 20)
#endif

#define FM__DESK_HEAD ((size_t)8192)
#define FM__DESK_SIZE (FM__DESK_HEAD + FM__DESK_RING)

_Static_assert(sizeof(struct fm__desk) <= FM__DESK_HEAD, "the ring follows");

static inline uint64_t fm__desk_word(uint64_t call, enum fm__desk_state state)
{
    return call << 2 | (uint64_t)state;
}

static inline unsigned char *fm__desk_bytes(struct fm__desk *desk)
{
    return (unsigned char *)desk + FM__DESK_HEAD;
}

#endif
