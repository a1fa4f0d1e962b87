/* SPDX-License-Identifier: MIT */
/*
 * A byte ring in memory shared by one writer process and one reader process.
 *
 * Head and tail only grow.  The writer stores the tail, the reader the head,
 * each on its own cache line, both sequentially consistent: a side that
 * announces that it sleeps and then reads the other's counter can not miss a
 * change (a release store can; it was measured to lose wake-ups).
 *
 * The reader trusts nothing: each counter is loaded once and checked against
 * the ring's size, bytes are copied before they are looked at.
 *
 * No kernel calls here: who sleeps and how is the caller's.
 */
#ifndef FM_WIRE_RING_H
#define FM_WIRE_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In shared memory. */
struct fm__ring_shared {
    _Alignas(64) _Atomic uint64_t tail;   /* bytes ever written */
    _Alignas(64) _Atomic uint64_t head;   /* bytes ever read */
    _Alignas(64) _Atomic uint32_t asleep; /* the reader wants its bell rung */
    _Atomic uint32_t starved;             /* the writer waits for room ... */
    _Atomic uint32_t room; /* ... on this word, changed to wake it */
};

struct fm__ring {
    struct fm__ring_shared *shared;
    unsigned char *data;
    size_t size;  /* power of two */
    uint64_t at;  /* my own counter: tail of the writer, head of the reader */
    uint64_t far; /* writer: the head as last seen */
};

/* Bind one side to the shared parts; `size` is a power of two. */
void fm__ring_init(struct fm__ring *ring, struct fm__ring_shared *shared,
                   void *data, size_t size);

/* Empty it; only while nobody else has it. */
void fm__ring_clear(struct fm__ring *ring);

/* Writer: contiguous room at *ret_data, 0 when the ring is full. */
size_t fm__ring_window(struct fm__ring *ring, unsigned char **ret_data);

/* Writer: publish `len` bytes of the window. */
void fm__ring_commit(struct fm__ring *ring, size_t len);

/* Writer: bytes written and not read, as far as known. */
size_t fm__ring_used(const struct fm__ring *ring);

/* Writer: announce that it waits for `need` bytes of room, 1 or more.  Returns
 * false when there are so many after all; else *ret_value is what shared->room
 * must be waited on with. */
bool fm__ring_starve(struct fm__ring *ring, size_t need, uint32_t *ret_value);

/* Writer: true once per sleep of the reader: the bell must be rung. */
bool fm__ring_must_ring(struct fm__ring *ring);

/* Writer: the bell could not be rung. */
void fm__ring_must_still_ring(struct fm__ring *ring);

/* Reader: contiguous bytes at *ret_data.  Returns their number, 0 when there
 * are none, or FM_EPROTOCOL when the writer lies about its tail. */
long fm__ring_peek(struct fm__ring *ring, const unsigned char **ret_data);

/* The same, never in parts: for what is written in units that are not cut. */
long fm__ring_peek_all(struct fm__ring *ring, const unsigned char **ret_data);

/* Reader: give `len` bytes back.  Returns true when the writer waits for room
 * and must be woken on shared->room (which was changed). */
bool fm__ring_consume(struct fm__ring *ring, size_t len);

/* Reader: going to sleep (returns true when bytes came in meanwhile: do not),
 * and awake again. */
bool fm__ring_sleep(struct fm__ring *ring);
void fm__ring_wake(struct fm__ring *ring);

#endif
