/* SPDX-License-Identifier: MIT */
/* Workers that lie over the words and bytes of their ring; see liars.h. */
#include "liars.h"

/* -------------------------------------------------------------------- ring */

static void set_tail(fm_worker *worker, uint64_t tail)
{
    atomic_store(&worker->ring->shared->tail, tail);
    fm__worker_wake_parent(worker);
}

static void tail_too_far(fm_worker *worker)
{
    be_ready(worker);
    set_tail(worker, worker->ring->at + worker->ring->size + 1);
    wait_for_the_end(worker);
}

static void tail_back(fm_worker *worker)
{
    be_ready(worker);
    set_tail(worker, worker->ring->at - 1);
    wait_for_the_end(worker);
}

static void tail_between(fm_worker *worker)
{
    (void)enter_one(worker);
    set_tail(worker, worker->ring->at + 7);
    wait_for_the_end(worker);
}

static void tail_anywhere(fm_worker *worker)
{
    random_state = (uint64_t)getpid();
    (void)enter_one(worker);
    for (int i = 0; i < 10000 && goes_on(worker); i++)
        set_tail(worker, draw() >> draw() % 64);
}

/* Heads that change while they are read. */
static void heads_that_change(fm_worker *worker)
{
    struct fm__ring *ring = worker->ring;
    volatile uint64_t *words = (volatile uint64_t *)(void *)ring->data;
    size_t n = ring->size / 8;

    random_state = (uint64_t)getpid();
    (void)enter_one(worker);
    for (int i = 0; i < 100 && goes_on(worker); i++) {
        set_tail(worker, atomic_load(&ring->shared->head) + ring->size);
        for (size_t k = 0; k < n; k += 2) {
            unsigned kind = (unsigned)(draw() % 20);

            if (kind == FM__RECORD_CLAIM)
                kind = FM__RECORD_PAD; /* what it claims is its own */
            words[k] = fm__record_word(kind, 0, (uint32_t)(draw() % 200));
            words[k + 1] = draw() % N_ITEMS;
        }
    }
}

static void any_bytes(fm_worker *worker)
{
    struct fm__ring *ring = worker->ring;

    random_state = (uint64_t)getpid();
    (void)enter_one(worker);
    for (size_t i = 0; i < ring->size; i++)
        ring->data[i] = (unsigned char)(draw() >> 17);
    set_tail(worker, atomic_load(&ring->shared->head) + ring->size);
    wait_for_the_end(worker);
}

TEST(a_ring_may_hold_what_it_likes)
{
    static const struct lie lies[] = {
        {"tail too far", tail_too_far, 0, 3},
        {"tail back", tail_back, 0, 3},
        {"tail between", tail_between, 50 * MS, 3},
        {"tail anywhere", tail_anywhere, 50 * MS, 3},
        {"heads that change", heads_that_change, 50 * MS, 5},
        {"any bytes", any_bytes, 50 * MS, 3},
    };

    LIE_WITH(lies);
}
