/* SPDX-License-Identifier: MIT */
/*
 * Workers that write what they like over all that they share with others: the
 * cursor, their post, their ring.  It costs them their own items at most: every
 * other item has its value, and the map comes to its end.
 */
#ifndef SPEC_C_LIARS_H
#define SPEC_C_LIARS_H

#define TEST_SECONDS 120
#include "map_runs.h"

#include "process/channel.h"
#include "process/worker.h"
#include "wire/record.h"

#define N_ITEMS 2000

/* Where a liar may spoil an outcome; in shared memory. */
static _Atomic unsigned char *is_liars;

struct lie {
    const char *name;
    void (*tell)(fm_worker *worker);
    int64_t timeout_ns;
    unsigned char lives; /* of the liar, 0: one */
};

static void __attribute__((unused)) spin(void)
{
    for (volatile int i = 0; i < 10000; i++)
        ;
}

/* Worker 1 lies before it works. */
static int __attribute__((unused)) lie_or_work(fm_worker *worker, void *ud)
{
    const struct lie *lie = ud;
    uint64_t index;
    int rc;

    if (fm_worker_get_id(worker) == 1 &&
        atomic_fetch_add(run.word, 1) < (lie->lives ? lie->lives : 1))
        lie->tell(worker);
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        spin();
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

static void __attribute__((unused))
take(fm_map *map, const struct fm_item *item, void *ud)
{
    uint64_t value = 0;

    (void)map;
    (void)ud;
    CHECK(item->index < run.n);
    CHECK(!run.seen[item->index]);
    run.seen[item->index] = 1;
    if (item->type == FM_ITEM_BYTES && item->len == sizeof value)
        memcpy(&value, item->data, sizeof value);
    if (item->type == FM_ITEM_FAILED) {
        run.n_failed++;
        run.kinds[item->index] = item->outcome->kind;
    } else {
        run.n_values++;
    }
    if (value != answer(item->index))
        CHECK(is_liars[item->index]);
}

static void __attribute__((unused))
take_event(fm_map *map, const struct fm_item *item, void *ud)
{
    (void)map;
    (void)ud;
    CHECK(item->type == FM_ITEM_BYTES && is_liars[item->index]);
}

static void __attribute__((unused)) lie_with(const struct lie *lie)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(N_ITEMS, 3, lie_or_work);

    opts.ud = (void *)(uintptr_t)lie;
    opts.on_item = take;
    opts.on_event = take_event;
    opts.eager = true;
    opts.job.timeout_ns = lie->timeout_ns;
    opts.job.grace_ns = -1;
    opts.job.limits.result = 1 << 20;
    prepare_run(N_ITEMS);
    is_liars = share(N_ITEMS);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    finish(engine);
    CHECK(fm_map_get_failure(run.map) == NULL);
    CHECK_INT(run.n_values + run.n_failed, N_ITEMS);
    fm_map_free(run.map);
    fm_engine_free(engine);
}

static void __attribute__((unused))
lie_with_all(const struct lie *lies, size_t n)
{
    const char *name = getenv("FORK_MAP_LIE");

    for (size_t i = 0; i < n; i++) {
        if (name && strcmp(name, lies[i].name) != 0)
            continue;
        if (getenv("FORK_MAP_TRACE_LIES"))
            (void)fprintf(stderr, "%s\n", lies[i].name);
        lie_with(&lies[i]);
    }
}

#define LIE_WITH(lies) lie_with_all(lies, sizeof(lies) / sizeof(lies)[0])

/* ----------------------------------------------------------------- helpers */

static uint64_t random_state;

static uint64_t __attribute__((unused)) draw(void)
{
    random_state += UINT64_C(0x9e3779b97f4a7c15);
    random_state ^= random_state >> 29;
    return random_state *= UINT64_C(0xbf58476d1ce4e5b9);
}

static bool __attribute__((unused)) goes_on(const fm_worker *worker)
{
    return atomic_load(&worker->post->order) == FM__ORDER_WORK &&
           getppid() == worker->outbox->parent;
}

/* For ever, or until it is killed. */
static _Noreturn void __attribute__((unused))
sleep_for_ever(const fm_worker *worker)
{
    while (getppid() == worker->outbox->parent)
        (void)usleep(1000);
    _exit(1);
}

static void __attribute__((unused))
put(fm_worker *worker, unsigned kind, uint32_t len, uint64_t u)
{
    CHECK_INT(fm__worker_put(worker, kind, 0, len, u), 0);
}

static void __attribute__((unused)) be_ready(fm_worker *worker)
{
    worker->is_ready = true;
    put(worker, FM__RECORD_READY, 0, 0);
    fm__worker_wake_parent(worker);
}

/* Claim what it has by right: a piece of the cursor. */
static uint64_t __attribute__((unused)) claim(fm_worker *worker, uint64_t n)
{
    uint64_t first = atomic_fetch_add(&worker->crew->board->cursor, n);

    for (uint64_t i = first; i < first + n && i < N_ITEMS; i++)
        is_liars[i] = 1;
    put(worker, FM__RECORD_CLAIM, (uint32_t)n, first);
    fm__worker_wake_parent(worker);
    return first;
}

/* Its records are there to be read; it does not end before they were. */
static void __attribute__((unused)) wait_for_the_end(fm_worker *worker)
{
    fm__worker_wake_parent(worker);
    while (goes_on(worker))
        (void)usleep(1000);
}

static uint64_t __attribute__((unused)) enter_one(fm_worker *worker)
{
    uint64_t index;

    if (fm_worker_next(worker, &index) <= 0)
        _exit(0); /* others were quicker */
    for (uint64_t i = index; i <= worker->last; i++)
        is_liars[i] = 1;
    return index;
}

#endif
