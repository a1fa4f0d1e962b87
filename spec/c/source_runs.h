/* SPDX-License-Identifier: MIT */
/* Maps with a source whose items have known bytes and known answers. */
#ifndef SPEC_C_SOURCE_RUNS_H
#define SPEC_C_SOURCE_RUNS_H

#include <stdatomic.h>
#include <stdlib.h>

#include "engine/map.h"
#include "map_runs.h"

#if defined(__SANITIZE_ADDRESS__)
#define SLOWER 5
#else
#define SLOWER 1
#endif

/* An item's bytes follow from its number; most are short. */
static size_t length_of(uint64_t index)
{
    return index % 100 == 99 ? 5000 + (size_t)index : (size_t)(index % 60);
}

static size_t (*lengths)(uint64_t index) = length_of;

static void fill(unsigned char *data, uint64_t index, size_t len)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (unsigned char)(index * 31 + i);
}

static bool __attribute__((unused)) has_item(fm_worker *worker, uint64_t index)
{
    size_t len = lengths(index), got = 0;
    unsigned char *want = malloc(len + 1);
    const void *data = NULL;
    bool same;

    fill(want, index, len);
    CHECK_INT(fm_worker_get_item(worker, &data, &got), (int)(index % 200));
    CHECK_INT(fm_worker_get_item(worker, &data, &got), (int)(index % 200));
    same = got == len && (len == 0 || memcmp(data, want, len) == 0);
    free(want);
    return same;
}

static int __attribute__((unused)) say_items(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        CHECK(has_item(worker, index));
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

static int __attribute__((unused)) feed_one(uint64_t index)
{
    size_t len = lengths(index);
    unsigned char *data = malloc(len + 1);
    int rc;

    fill(data, index, len);
    rc = fm_map_feed(run.map, data, len, (int)(index % 200));
    free(data);
    return rc;
}

static struct fm_map_opts __attribute__((unused))
source_opts(unsigned workers, fm_worker_fn fn)
{
    struct fm_map_opts opts = map_opts(0, workers, fn);

    opts.is_source = true;
    opts.eager = true;
    opts.max_active = 50;
    return opts;
}

/* Feed `n` items as they are consumed, to the end. */
static void __attribute__((unused))
run_source(fm_engine *engine, const struct fm_map_opts *opts, uint64_t n)
{
    uint64_t fed = 0, consumed = 0;

    prepare_run(n);
    CHECK_INT(fm_map_start(engine, opts, &run.map), 0);
    while (!fm_map_is_over(run.map)) {
        uint64_t settled = run.n_values + run.n_failed;
        int rc = 0;

        fm_map_consume(run.map, settled - consumed);
        consumed = settled;
        while (fed < n && (rc = feed_one(fed)) == 0)
            fed++;
        CHECK(rc == 0 || rc == -EAGAIN || fm_map_get_failure(run.map));
        CHECK(opts->max_active == 0 || fed - consumed <= opts->max_active);
        if (fed == n)
            fm_map_feed_end(run.map);
        rc = fm_engine_step(engine, -1);
        CHECK(rc >= 0 || rc == -EINTR);
    }
}

static size_t __attribute__((unused)) big(uint64_t index)
{
    return index % 3 == 0 ? ((size_t)5 << 20) + index : (size_t)index;
}

#endif
