/* SPDX-License-Identifier: MIT */
/* Many items: each has one outcome, whatever happens to their workers. */
#include "map_runs.h"

static void check_plain(uint64_t n, unsigned workers, uint64_t chunk)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(n, workers, say_all);

    opts.chunk_min = chunk;
    opts.chunk_max = chunk;
    run_map(engine, &opts);
    check_all(0);
    for (uint64_t i = 0; i < n; i++)
        CHECK_INT(run.ran[i], 1);
    fm_engine_free(engine);
}

TEST(every_item_has_its_value_and_has_run_once)
{
    static const unsigned workers[] = {1, 2, 8};
    static const uint64_t sizes[] = {0, 1, 2, 10, 1000, 50000};

    for (size_t w = 0; w < 3; w++) {
        for (size_t s = 0; s < 6; s++)
            check_plain(sizes[s], workers[w], 0);
    }
    check_plain(1000, 2, 1);
    check_plain(1000, 3, 7);
    check_plain(1000, 2, 100000);
}

/* -------------------------------------------------------------- failures */

static int fail_some(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (index % *(uint64_t *)ud == 3)
            CHECK_INT(fm_worker_fail(worker, "three", "there"), 0);
        else
            CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(an_item_that_fails_costs_itself_only)
{
    fm_engine *engine = new_engine();
    uint64_t every = 10;
    struct fm_map_opts opts = map_opts(1000, 2, fail_some);

    opts.ud = &every;
    run_map(engine, &opts);
    CHECK_STR(run.message, "three");
    CHECK_INT(run.kinds[3], FM_ERROR);
    check_all(100);
    check_ran_once();
    fm_engine_free(engine);
}

static int die_at(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (index % 97 == 50) {
            if (*(int *)ud)
                (void)raise(*(int *)ud);
            _exit(3);
        }
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

static void check_deaths(int sig, enum fm_kind kind)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1000, 3, die_at);

    opts.ud = &sig;
    run_map(engine, &opts);
    CHECK_INT(run.kinds[50], kind);
    CHECK_INT(sig ? run.signal : run.exit_code, sig ? sig : 3);
    check_ran_once();
    check_all(10);
    fm_engine_free(engine);
}

TEST(a_worker_that_dies_costs_the_item_it_was_in)
{
    check_deaths(SIGKILL, FM_SIGNAL);
    check_deaths(SIGSEGV, FM_SIGNAL);
    check_deaths(0, FM_EXIT);
}

static int die_once(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (index % 100 == 50 && fm_worker_get_attempt(worker) == 1)
            (void)raise(SIGKILL);
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(with_retries_the_lost_item_runs_again_and_only_it)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1000, 2, die_once);

    opts.job.retries = 1;
    run_map(engine, &opts);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

static int die_at_once(fm_worker *worker, void *ud)
{
    (void)worker;
    (void)ud;
    _exit(9);
}

TEST(workers_that_all_die_at_their_start_end_the_map)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1000, 2, die_at_once);

    run_map(engine, &opts);
    CHECK_INT(fm_map_get_failure(run.map)->kind, FM_EXIT);
    CHECK_INT(fm_map_get_failure(run.map)->exit_code, 9);
    CHECK_INT(run.n_values + run.n_failed, 0);
    fm_map_free(run.map);
    fm_engine_free(engine);
}

/* ------------------------------------------------------------------ time */

static int hang_at_one(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (index == 40)
            for (;;)
                (void)pause();
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(a_timeout_costs_the_item_that_takes_too_long)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1000, 2, hang_at_one);

    opts.job.timeout_ns = 100 * MS;
    opts.chunk_min = opts.chunk_max = 100;
    run_map(engine, &opts);
    CHECK_INT(run.kinds[40], FM_TIMEOUT);
    check_ran_once();
    check_all(1);
    fm_engine_free(engine);
}

TEST(a_deadline_ends_the_whole_map)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1000, 2, hang_at_one);

    opts.deadline_ns = 200 * MS;
    run_map(engine, &opts);
    CHECK_INT(fm_map_get_failure(run.map)->kind, FM_TIMEOUT);
    CHECK_INT(run.n_failed, 0);
    CHECK_INT(run.n_values, 999); /* also what was behind it in its chunk */
    fm_map_free(run.map);
    fm_engine_free(engine);
}

/* Waits in item 0 until all others have run. */
static int wait_for_the_rest(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        CHECK_INT(say(worker, index), 0);
        if (index != 0) {
            atomic_fetch_add(run.word, 1);
            continue;
        }
        while (atomic_load(run.word) < run.n - 1)
            (void)usleep(1000);
    }
    return rc;
}

TEST(a_slow_item_holds_up_no_other)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1000, 2, wait_for_the_rest);

    opts.chunk_min = opts.chunk_max = 100;
    run_map(engine, &opts);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

/* ---------------------------------------------------------------- events */

static int emit_twice(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        CHECK_INT(fm_worker_emit(worker, "tick", 4, 1), 0);
        CHECK_INT(fm_worker_emit(worker, &index, sizeof index, 2), 0);
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

static void on_event(fm_map *map, const struct fm_item *item, void *ud)
{
    (void)map;
    (void)ud;
    CHECK(!run.seen[item->index]);
    if (item->format == 1)
        CHECK(item->len == 4 && memcmp(item->data, "tick", 4) == 0);
    else
        CHECK(memcmp(item->data, &item->index, sizeof item->index) == 0);
    run.n_events++;
}

TEST(events_come_before_the_value_of_their_item)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1000, 2, emit_twice);

    opts.on_event = on_event;
    run_map(engine, &opts);
    CHECK_INT(run.n_events, 2000);
    check_all(0);
    fm_engine_free(engine);
}

/* ------------------------------------------------------------- big values */

static int say_much(fm_worker *worker, void *ud)
{
    static unsigned char piece[70001];
    uint64_t index;
    int rc;

    memset(piece, 'x', sizeof piece);
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        for (int i = 0; i < *(int *)ud; i++)
            CHECK_INT(fm_worker_write(worker, piece, sizeof piece), 0);
    }
    return rc;
}

static uint64_t n_bytes;

static void count_bytes(fm_map *map, const struct fm_item *item, void *ud)
{
    (void)map;
    (void)ud;
    CHECK_INT(item->type, FM_ITEM_BYTES);
    n_bytes += item->len;
}

TEST(values_larger_than_the_ring_stream_through_it)
{
    fm_engine *engine = new_engine();
    int times = 50;
    struct fm_map_opts opts = map_opts(20, 2, say_much);

    opts.ud = &times;
    opts.on_item = count_bytes;
    run_map(engine, &opts);
    CHECK_INT(n_bytes, UINT64_C(20) * 50 * 70001);
    fm_map_free(run.map);
    fm_engine_free(engine);
}

/* ---------------------------------------------------------------- workers */

static int count_workers(fm_worker *worker, void *ud)
{
    atomic_fetch_add(run.word, 1);
    return say_all(worker, ud);
}

TEST(workers_are_replaced_after_so_many_items)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(100, 2, count_workers);

    opts.max_tasks = 10;
    run_map(engine, &opts);
    CHECK(*run.word >= 10);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

TEST(each_chunk_can_have_its_own_process)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(100, 2, count_workers);

    opts.isolate = FM_ISOLATE_CHUNK;
    opts.chunk_min = opts.chunk_max = 10;
    run_map(engine, &opts);
    CHECK(*run.word >= 10);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

/* Each doubles what the one before it took, up to a millisecond's worth. */
TEST(fresh_workers_know_how_quick_items_are)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(4000, 2, count_workers);

    opts.isolate = FM_ISOLATE_CHUNK;
    run_map(engine, &opts);
    CHECK(*run.word < 1000);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

TEST(a_map_that_is_freed_leaves_nothing)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1000, 4, hang_at_one);

    prepare_run(1000);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (run.n_values < 10)
        CHECK(fm_engine_step(engine, 10 * MS) >= 0);
    fm_map_free(run.map);
    fm_engine_free(engine);
}

TEST(a_closed_engine_ends_its_maps)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1000, 4, hang_at_one);

    prepare_run(1000);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    CHECK(fm_map_is_over(run.map));
    CHECK_INT(fm_map_get_failure(run.map)->kind, FM_CLOSED);
    fm_map_free(run.map);
    fm_engine_free(engine);
}

/* At most `max_active` beyond what was consumed. */
static uint64_t n_consumed;

static void consume_later(fm_map *map, const struct fm_item *item, void *ud)
{
    on_item(map, item, ud);
    CHECK(item->index < n_consumed + 10);
}

TEST(no_more_items_begin_than_may_be_active)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1000, 2, say_all);

    opts.max_active = 10;
    opts.eager = true;
    opts.on_item = consume_later;
    prepare_run(1000);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (!fm_map_is_over(run.map)) {
        CHECK(fm_engine_step(engine, -1) >= 0);
        while (n_consumed < 1000 && run.seen[n_consumed]) {
            n_consumed++;
            fm_map_consume(run.map, 1);
        }
    }
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

/* ------------------------------------------------- a process for each item */

static int item_alone(fm_child *child, void *ud)
{
    uint64_t index = *(uint64_t *)ud;
    uint64_t value = answer(index);

    atomic_fetch_add(&run.ran[index], 1);
    if (index % 10 == 3)
        (void)raise(SIGKILL);
    if (index % 10 == 5)
        return fm_child_fail(child, "five", "there");
    if (index % 10 == 7) {
        for (;;)
            (void)pause();
    }
    return fm_child_write(child, &value, sizeof value);
}

static int run_alone(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0)
        CHECK_INT(fm_worker_run_item(worker, item_alone, &index), 0);
    return rc;
}

TEST(each_item_can_have_its_own_process)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(40, 2, run_alone);

    opts.isolate = FM_ISOLATE_ITEM;
    opts.job.timeout_ns = 50 * MS;
    run_map(engine, &opts);
    for (uint64_t i = 0; i < 40; i++) {
        static const enum fm_kind kinds[] = {
            [3] = FM_SIGNAL, [5] = FM_ERROR, [7] = FM_TIMEOUT, [9] = FM_VALUE};

        CHECK_INT(run.kinds[i], kinds[i % 10]);
        CHECK_INT(run.ran[i], 1);
    }
    check_all(12);
    fm_engine_free(engine);
}
