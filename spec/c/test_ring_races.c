/* SPDX-License-Identifier: MIT */
/* Both sides of a ring at the same time: who sleeps is woken, once, and who
 * does not is left alone. */
#include "test.h"

#include <pthread.h>

#include "wire/ring.h"

#define ROUNDS 1000000

static struct fm__ring_shared shared;
static unsigned char bytes[64];
static struct fm__ring ring; /* of the side that is not under test */

static atomic_bool is_over;
static long n_asked;

static pthread_t start(void *(*run)(void *ud))
{
    pthread_t thread;

    fm__ring_init(&ring, &shared, bytes, sizeof bytes);
    fm__ring_clear(&ring);
    CHECK_INT(pthread_create(&thread, NULL, run, NULL), 0);
    return thread;
}

static void stop(pthread_t thread)
{
    atomic_store(&is_over, true);
    CHECK_INT(pthread_join(thread, NULL), 0);
}

static void *sleep_and_wake(void *ud)
{
    while (!atomic_load(&is_over)) {
        n_asked++;
        (void)fm__ring_sleep(&ring);
        fm__ring_wake(&ring);
    }
    return ud;
}

TEST(the_bell_is_not_rung_for_a_reader_that_woke_by_itself)
{
    struct fm__ring writer;
    pthread_t thread;
    long n_rung = 0;

    fm__ring_init(&writer, &shared, bytes, sizeof bytes);
    thread = start(sleep_and_wake);
    for (int i = 0; i < ROUNDS; i++)
        n_rung += fm__ring_must_ring(&writer);
    stop(thread);
    CHECK(n_rung <= n_asked);
    CHECK(!fm__ring_must_ring(&writer));
}

/* As a writer does that finds room when it looks again. */
static void *starve_and_find_room(void *ud)
{
    while (!atomic_load(&is_over)) {
        n_asked++;
        atomic_store(&shared.starved, 1);
        atomic_store(&shared.starved, 0);
    }
    return ud;
}

TEST(a_writer_that_found_room_by_itself_is_not_woken)
{
    struct fm__ring reader;
    uint32_t first, last;
    pthread_t thread;
    long n_woken = 0;

    fm__ring_init(&reader, &shared, bytes, sizeof bytes);
    thread = start(starve_and_find_room);
    first = atomic_load(&shared.room);
    for (int i = 0; i < ROUNDS; i++)
        n_woken += fm__ring_consume(&reader, 0);
    stop(thread);
    last = atomic_load(&shared.room);
    CHECK(n_woken <= n_asked);
    /* Whoever is woken finds that the word it sleeps on has changed. */
    CHECK_INT(last - first, n_woken);
}
