/* SPDX-License-Identifier: MIT */
/* Items that come after the fork: each reaches a worker whole, no more are
 * taken than may be, and the end of a source is the end of its map. */
#include "source_runs.h"

static void check_plain(uint64_t n, unsigned workers, uint64_t chunk,
                        uint64_t active)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(workers, say_items);

    opts.chunk_min = opts.chunk_max = chunk;
    opts.max_active = active;
    run_source(engine, &opts, n);
    CHECK_INT(fm_map_count_open(run.map), 0);
    CHECK_INT(fm_map_count_bytes(run.map), 0);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

TEST(every_item_that_is_fed_reaches_a_worker_whole)
{
    static const uint64_t sizes[] = {0, 1, 2, 10, 3000};
    static const uint64_t actives[] = {1, 7, 200, 0};

    for (unsigned workers = 1; workers <= 5; workers += 2) {
        for (size_t s = 0; s < 5; s++)
            check_plain(sizes[s], workers, 0, actives[s % 4]);
    }
    check_plain(500, 2, 1, 50);
    check_plain(500, 3, 7, 50);
    check_plain(500, 2, 0, 1);
    check_plain(10000 / SLOWER, 2, 0, 500);
}

TEST(items_larger_than_the_tray_stream_through_it)
{
    lengths = big;
    check_plain(12, 2, 0, 4);
}

TEST(a_host_that_sleeps_is_told_of_the_room_in_a_tray)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(1, say_items);

    lengths = big;
    opts.eager = false;
    opts.max_active = 0;
    prepare_run(4);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    for (uint64_t i = 0; i < 4; i++)
        CHECK_INT(feed_one(i), 0);
    fm_map_feed_end(run.map);
    finish(engine);
    check_all(0);
    fm_engine_free(engine);
}

/* ------------------------------------------------------------------ bounds */

TEST(no_more_is_taken_than_may_be_active)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, say_items);

    opts.max_active = 10;
    prepare_run(11);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    for (uint64_t i = 0; i < 10; i++)
        CHECK_INT(feed_one(i), 0);
    CHECK_INT(feed_one(10), -EAGAIN);
    CHECK_INT(fm_map_feed_none(run.map), -EAGAIN);
    while (run.n_values < 10)
        CHECK(fm_engine_step(engine, -1) >= 0);
    CHECK_INT(feed_one(10), -EAGAIN); /* settled, not consumed */
    fm_map_consume(run.map, 1);
    CHECK_INT(feed_one(10), 0);
    fm_map_feed_end(run.map);
    CHECK_INT(feed_one(11), FM_ECLOSED);
    finish(engine);
    check_all(0);
    fm_engine_free(engine);
}

static int say_scalars(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0)
        CHECK_INT(fm__worker_put_scalar(worker, FM__RECORD_INTEGER, index), 0);
    return rc;
}

static void count_scalars(fm_map *map, const struct fm_item *item, void *ud)
{
    (void)map;
    (void)ud;
    run.n_wrong += item->type != FM_ITEM_INTEGER ||
                   item->u.integer != (int64_t)item->index;
    run.n_values++;
}

/* However their records are read: one by one, or many in a row. */
TEST(a_step_ends_when_items_of_an_eager_map_have)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, say_scalars);
    uint64_t fed = 0;

    opts.on_item = count_scalars;
    opts.max_active = 0;
    prepare_run(30000);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (fed < run.n) {
        for (uint64_t last = fed + 1 + fed % 60; fed < last; fed++)
            CHECK_INT(fm_map_feed(run.map, NULL, 0, 0), 0);
        while (run.n_values < fed)
            CHECK(fm_engine_step(engine, -1) >= 0);
        CHECK_INT(fm_map_count_open(run.map), 0);
        CHECK_INT(fm_map_count_bytes(run.map), 0);
    }
    CHECK_INT(run.n_wrong, 0);
    fm_map_free(run.map);
    fm_engine_free(engine);
}

TEST(only_a_map_with_a_source_can_be_fed)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1, 1, say_all);
    fm_map *map = NULL;

    prepare_run(1);
    opts.is_source = true;
    CHECK_STR(fm_map_opts_error(&opts), "n_items");
    CHECK_INT(fm_map_start(engine, &opts, &map), -EINVAL);
    opts.is_source = false;
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    CHECK_INT(feed_one(0), -EINVAL);
    CHECK_INT(fm_map_feed_none(run.map), -EINVAL);
    fm_map_feed_end(run.map);
    finish(engine);
    check_all(0);
    fm_engine_free(engine);
}

static int ask_too_much(fm_worker *worker, void *ud)
{
    const void *data;
    uint64_t index;
    size_t len;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        CHECK_INT(fm_worker_get_item(worker, &data, &len), -EINVAL);
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(items_of_a_list_have_no_bytes)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(10, 2, ask_too_much);

    run_map(engine, &opts);
    check_all(0);
    fm_engine_free(engine);
}

static long resident(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    char line[256], *end;

    CHECK(file != NULL && fgets(line, sizeof line, file) != NULL);
    (void)fclose(file);
    (void)strtol(line, &end, 10);
    return strtol(end, NULL, 10) * 4;
}

TEST(a_long_source_runs_in_constant_memory)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, say_items);
    long before;

    run_source(engine, &opts, 3000 / SLOWER);
    check_all(0);
    before = resident();
    run_source(engine, &opts, 60000 / SLOWER);
    check_all(0);
    /* Of some 20 MiB that went through; the spec's own ledger is in it.  The
     * sanitizer keeps what was freed. */
    CHECK(SLOWER > 1 || resident() - before < 3000);
    fm_engine_free(engine);
}

/* ---------------------------------------------------- the end of a source */

TEST(a_source_that_ends_while_workers_are_idle_ends_the_map)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, say_items);

    prepare_run(1);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    CHECK_INT(feed_one(0), 0);
    while (run.n_values < 1)
        CHECK(fm_engine_step(engine, -1) >= 0);
    (void)fm_engine_step(engine, 30 * MS);
    CHECK(!fm_map_is_over(run.map));
    fm_map_feed_end(run.map);
    fm_map_feed_end(run.map);
    finish(engine);
    check_all(0);
    fm_engine_free(engine);
}

TEST(numbers_of_items_that_the_host_settles_are_used_up)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, say_items);

    prepare_run(100);
    opts.max_active = 0;
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    for (uint64_t i = 0; i < 100; i++) {
        if (i % 3 == 0)
            CHECK_INT(fm_map_feed_none(run.map), 0);
        else
            CHECK_INT(feed_one(i), 0);
    }
    fm_map_feed_end(run.map);
    finish(engine);
    CHECK_INT(run.n_values, 66);
    CHECK_INT(run.n_wrong, 0);
    CHECK_INT(run.seen[3], 0);
    CHECK_INT(fm_map_count_settled(run.map), 100);
    fm_map_free(run.map);
    fm_engine_free(engine);
}

TEST(a_map_that_is_stopped_takes_no_more)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, say_items);

    prepare_run(50);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    for (uint64_t i = 0; i < 50; i++)
        CHECK_INT(feed_one(i), 0);
    CHECK(fm_engine_step(engine, 0) >= 0);
    fm_map_stop(run.map, 0);
    CHECK_INT(feed_one(50), FM_ECLOSED);
    finish(engine);
    fm_map_free(run.map);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    CHECK_INT(feed_one(0), 0);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    CHECK_INT(feed_one(1), FM_ECLOSED);
    fm_map_free(run.map);
    fm_engine_free(engine);
}

/* --------------------------------------------------------- from callbacks */

static void feed_more(fm_map *map, const struct fm_item *item, void *ud)
{
    uint64_t *fed = ud;

    on_item(map, item, NULL);
    fm_map_consume(map, 1);
    for (int i = 0; i < 2 && *fed < run.n; i++) {
        if (feed_one(*fed) == 0)
            ++*fed;
    }
    if (*fed == run.n)
        fm_map_feed_end(map);
}

TEST(a_map_can_be_fed_from_its_callbacks)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, say_items);
    uint64_t fed = 1;

    opts.on_item = feed_more;
    opts.cb_ud = &fed;
    prepare_run(2000);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    CHECK_INT(feed_one(0), 0);
    finish(engine);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}
