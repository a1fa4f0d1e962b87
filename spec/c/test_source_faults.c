/* SPDX-License-Identifier: MIT */
/* A map with a source in want of memory, processes and luck: what was fed has
 * one outcome, its own or a failure's, or the map has failed; nothing is left,
 * and the next map works. */
#define TEST_SECONDS 280
#include "map_runs.h"

#include "faults.h"

#include <stdlib.h>

#define N_ITEMS 30
#define LONG_ITEM 300001

/* Every so many calls of an entry one is made to fail, unless
 * FORK_MAP_FULL=1. */
#define STEP 7

static unsigned char bytes[LONG_ITEM];

static size_t length_of(uint64_t index)
{
    return index % 10 == 4 ? LONG_ITEM : (size_t)index;
}

/* An item without memory for its bytes fails. */
static int say_items(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        uint64_t value = answer(index);
        const void *data;
        size_t len;
        int format = fm_worker_get_item(worker, &data, &len);

        if (format == FM_ECLOSED)
            return format;
        if (format < 0)
            rc = fm_worker_fail(worker, fm_strerror(format), NULL);
        else if (len != length_of(index) || memcmp(data, bytes, len) != 0)
            rc = fm_worker_fail(worker, "wrong", NULL);
        else
            rc = fm_worker_write(worker, &value, sizeof value);
        if (rc < 0)
            return rc;
    }
    return rc;
}

static uint64_t n_fed, n_taken_in, n_fits;

static int feed_next(void)
{
    int rc = fm_map_feed(run.map, bytes, length_of(n_fed), 1);

    n_fed += rc == 0;
    return rc;
}

/* As a host would: what is not taken now is fed again, or the map given up. */
static void feed_all(void)
{
    int rc = 0;

    for (int tries = 0; n_fed < N_ITEMS && tries < 2; tries += rc != 0) {
        rc = feed_next();
        CHECK(rc == 0 || rc == -EAGAIN || rc == -ENOMEM || rc == FM_ECLOSED);
        if (rc == -EAGAIN || rc == FM_ECLOSED)
            return;
    }
    if (rc == -ENOMEM)
        fm_map_stop(run.map, 0);
    else
        fm_map_feed_end(run.map);
}

static void run_once(bool is_faultless)
{
    fm_engine *engine = NULL;
    struct fm_map_opts opts = map_opts(0, 2, say_items);
    uint64_t consumed = 0;
    int rc = fm_engine_new(NULL, &engine);

    opts.is_source = true;
    opts.eager = true;
    opts.max_active = 7;
    opts.deadline_ns = 5000 * MS;
    memset(&run, 0, offsetof(struct run, ran));
    run.n = N_ITEMS;
    n_fed = 0;
    if (rc == 0)
        rc = fm_map_start(engine, &opts, &run.map);
    CHECK(rc == 0 || !is_faultless);
    while (rc == 0 && !fm_map_is_over(run.map)) {
        uint64_t settled = run.n_values + run.n_failed;

        fm_map_consume(run.map, settled - consumed);
        consumed = settled;
        feed_all();
        rc = fm_engine_step(engine, 1000 * MS);
        if (rc == -EINTR || rc > 0)
            rc = 0;
    }
    if (run.map) {
        CHECK_INT(run.n_wrong, 0);
        CHECK(strcmp(run.message, "wrong") != 0);
        n_taken_in += n_fed;
        n_fits += run.n_values;
        CHECK(!is_faultless || run.n_values == N_ITEMS);
        if (fm_map_is_over(run.map) && n_fed == N_ITEMS &&
            !fm_map_get_failure(run.map) && rc == 0)
            CHECK_INT(run.n_values + run.n_failed, n_fed);
    }
    fm_map_free(run.map);
    fm_engine_free(engine);
}

static const struct {
    int call, error;
    bool in_child;
} entries[] = {
    {FAULT_malloc, ENOMEM, false},  {FAULT_calloc, ENOMEM, false},
    {FAULT_realloc, ENOMEM, false}, {FAULT_mmap, ENOMEM, false},
    {FAULT_madvise, ENOMEM, false}, {FAULT_fork, EAGAIN, false},
    {FAULT_malloc, ENOMEM, true},   {FAULT_realloc, ENOMEM, true},
    {FAULT_madvise, ENOMEM, true},  {FAULT_write, EINTR, true},
};

static unsigned long n_runs;

static void sweep_entry(struct fault next, unsigned long step)
{
    long blocks = fault_blocks, mappings = fault_mappings;

    for (next.k = 1;; next.k += next.k < 12 ? 1 : step) {
        bool reached;

        fault_arm(&next);
        run_once(false);
        reached = fault_page->reached;
        fault_disarm();
        CHECK(waitpid(-1, NULL, WNOHANG) < 0);
        CHECK_INT(fault_blocks, blocks);
        CHECK_INT(fault_mappings, mappings);
        n_runs++;
        if (!reached)
            break;
    }
    run_once(true);
}

static void sweep(bool is_sticky)
{
    unsigned long step = getenv("FORK_MAP_FULL") ? 1 : STEP;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 11 + i / 255);
    fault_install();
    run_once(true);
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
        sweep_entry((struct fault){.call = entries[i].call,
                                   .error = entries[i].error,
                                   .is_sticky = is_sticky,
                                   .in_child = entries[i].in_child},
                    step);
    fm__sys = fm__sys_real;
    (void)munmap(fault_page, sizeof *fault_page);
    (void)printf("     %lu runs, %llu items fed, %llu values\n", n_runs,
                 (unsigned long long)n_taken_in, (unsigned long long)n_fits);
}

TEST(whatever_fails_once_what_was_fed_has_one_outcome)
{
    sweep(false);
}

TEST(whatever_fails_for_good_what_was_fed_has_one_outcome)
{
    sweep(true);
}
