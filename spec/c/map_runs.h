/* SPDX-License-Identifier: MIT */
/* Maps whose items have known answers, and a ledger of what came. */
#ifndef SPEC_C_MAP_RUNS_H
#define SPEC_C_MAP_RUNS_H

#include <stdatomic.h>
#include <sys/mman.h>

#include "run_job.h"

#define ITEMS_MAX 100000

/* What came for each item; and, in shared memory, what ran. */
struct run {
    fm_map *map;
    uint64_t n;
    unsigned char seen[ITEMS_MAX];
    enum fm_kind kinds[ITEMS_MAX]; /* FM_VALUE: the right one */
    uint64_t n_values, n_failed, n_wrong, n_events;
    int signal, exit_code;
    char message[64];
    _Atomic unsigned char *ran;
    _Atomic uint64_t *word; /* for what a spec likes */
};

static struct run run;

static void __attribute__((unused)) * share(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    CHECK(p != MAP_FAILED);
    return p;
}

static uint64_t answer(uint64_t index)
{
    return index * index + 7;
}

static void on_item(fm_map *map, const struct fm_item *item, void *ud)
{
    uint64_t value = 0;

    (void)map;
    (void)ud;
    CHECK(item->index < run.n);
    CHECK(!run.seen[item->index]);
    run.seen[item->index] = 1;
    if (item->type == FM_ITEM_FAILED) {
        run.kinds[item->index] = item->outcome->kind;
        run.signal = item->outcome->signal;
        run.exit_code = item->outcome->exit_code;
        if (item->outcome->message)
            (void)snprintf(run.message, sizeof run.message, "%s",
                           item->outcome->message);
        run.n_failed++;
        return;
    }
    CHECK_INT(item->type, FM_ITEM_BYTES);
    if (item->len == sizeof value)
        memcpy(&value, item->data, sizeof value);
    run.kinds[item->index] = FM_VALUE;
    run.n_values++;
    run.n_wrong += value != answer(item->index);
}

/* Say the answer to the item; counts its run. */
static int __attribute__((unused)) say(fm_worker *worker, uint64_t index)
{
    uint64_t value = answer(index);

    atomic_fetch_add(&run.ran[index], 1);
    return fm_worker_write(worker, &value, sizeof value);
}

static int __attribute__((unused)) say_all(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0)
        CHECK_INT(say(worker, index), 0);
    return rc;
}

static struct fm_map_opts __attribute__((unused))
map_opts(uint64_t n, unsigned workers, fm_worker_fn fn)
{
    struct fm_map_opts opts;

    memset(&opts, 0, sizeof opts);
    opts.n_items = n;
    opts.workers = workers;
    opts.fn = fn;
    opts.on_item = on_item;
    return opts;
}

static void __attribute__((unused)) prepare_run(uint64_t n)
{
    memset(&run, 0, sizeof run);
    run.n = n;
    run.ran = share(ITEMS_MAX);
    run.word = share(4096);
}

/* Step until the map is over. */
static void __attribute__((unused)) finish(fm_engine *engine)
{
    while (!fm_map_is_over(run.map)) {
        int rc = fm_engine_step(engine, -1);

        CHECK(rc >= 0 || rc == -EINTR);
    }
}

static void __attribute__((unused))
run_map(fm_engine *engine, const struct fm_map_opts *opts)
{
    prepare_run(opts->n_items);
    CHECK_INT(fm_map_start(engine, opts, &run.map), 0);
    finish(engine);
}

/* Every item has one outcome; `failed` of them failed, no value is wrong. */
static void __attribute__((unused)) check_all(uint64_t failed)
{
    CHECK(fm_map_get_failure(run.map) == NULL);
    CHECK_INT(run.n_values + run.n_failed, run.n);
    CHECK_INT(run.n_failed, failed);
    CHECK_INT(run.n_wrong, 0);
    for (uint64_t i = 0; i < run.n; i++)
        CHECK(run.seen[i]);
    fm_map_free(run.map);
}

/* What ended well has run exactly once. */
static void __attribute__((unused)) check_ran_once(void)
{
    for (uint64_t i = 0; i < run.n; i++) {
        if (run.kinds[i] == FM_VALUE)
            CHECK_INT(run.ran[i], 1);
    }
}

#endif
