/* SPDX-License-Identifier: MIT */
/* The shared-memory byte ring; see ring.h. */
#include "wire/ring.h"

#include "fork_map.h"

#ifdef FM_TINY
/* Test builds move 1 to 7 bytes at a time, so that every split happens. */
static size_t cap(size_t n)
{
    static size_t turn;

    turn = turn % 7 + 1;
    return n < turn ? n : turn;
}
#else
static size_t cap(size_t n)
{
    return n;
}
#endif

void fm__ring_init(struct fm__ring *ring, struct fm__ring_shared *shared,
                   void *data, size_t size)
{
    ring->shared = shared;
    ring->data = data;
    ring->size = size;
    ring->at = 0;
    ring->far = 0;
}

void fm__ring_clear(struct fm__ring *ring)
{
    atomic_store(&ring->shared->tail, 0);
    atomic_store(&ring->shared->head, 0);
    atomic_store(&ring->shared->asleep, 0);
    atomic_store(&ring->shared->starved, 0);
    ring->at = 0;
    ring->far = 0;
}

size_t fm__ring_window(struct fm__ring *ring, unsigned char **ret_data)
{
    size_t mask = ring->size - 1;
    size_t offset = (size_t)ring->at & mask;
    size_t to_end = ring->size - offset;
    size_t room = ring->size - (size_t)(ring->at - ring->far);

    if (room < ring->size / 4) {
        ring->far = atomic_load(&ring->shared->head);
        room = ring->size - (size_t)(ring->at - ring->far);
    }
    *ret_data = ring->data + offset;
    return cap(room < to_end ? room : to_end);
}

void fm__ring_commit(struct fm__ring *ring, size_t len)
{
    ring->at += len;
    atomic_store(&ring->shared->tail, ring->at);
}

size_t fm__ring_used(const struct fm__ring *ring)
{
    return (size_t)(ring->at - ring->far);
}

bool fm__ring_starve(struct fm__ring *ring, size_t need, uint32_t *ret_value)
{
    *ret_value = atomic_load(&ring->shared->room);
    atomic_store(&ring->shared->starved, 1);
    ring->far = atomic_load(&ring->shared->head);
    if (ring->size - (size_t)(ring->at - ring->far) >= need) {
        atomic_store(&ring->shared->starved, 0);
        return false;
    }
    return true;
}

bool fm__ring_must_ring(struct fm__ring *ring)
{
    return atomic_load(&ring->shared->asleep) != 0 &&
           atomic_exchange(&ring->shared->asleep, 0) != 0;
}

void fm__ring_must_still_ring(struct fm__ring *ring)
{
    atomic_store(&ring->shared->asleep, 1);
}

long fm__ring_peek(struct fm__ring *ring, const unsigned char **ret_data)
{
    long n = fm__ring_peek_all(ring, ret_data);

    return n > 0 ? (long)cap((size_t)n) : n;
}

long fm__ring_peek_all(struct fm__ring *ring, const unsigned char **ret_data)
{
    uint64_t tail = atomic_load(&ring->shared->tail);
    size_t offset = (size_t)ring->at & (ring->size - 1);
    size_t to_end = ring->size - offset;
    uint64_t used = tail - ring->at;

    if (used > ring->size)
        return FM_EPROTOCOL;
    *ret_data = ring->data + offset;
    return (long)(used < to_end ? (size_t)used : to_end);
}

bool fm__ring_consume(struct fm__ring *ring, size_t len)
{
    struct fm__ring_shared *shared = ring->shared;

    ring->at += len;
    atomic_store(&shared->head, ring->at);
    if (atomic_load(&shared->starved) == 0 ||
        atomic_exchange(&shared->starved, 0) == 0)
        return false;
    atomic_fetch_add(&shared->room, 1);
    return true;
}

bool fm__ring_sleep(struct fm__ring *ring)
{
    atomic_store(&ring->shared->asleep, 1);
    return atomic_load(&ring->shared->tail) != ring->at;
}

void fm__ring_wake(struct fm__ring *ring)
{
    atomic_store(&ring->shared->asleep, 0);
}
