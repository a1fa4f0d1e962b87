/* SPDX-License-Identifier: MIT */
/* Items that come after the fork: each reaches a worker whole, whatever happens
 * to workers, and is kept until it has its outcome. */
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

static bool has_item(fm_worker *worker, uint64_t index)
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

static int say_items(fm_worker *worker, void *ud)
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

static int feed_one(uint64_t index)
{
    size_t len = lengths(index);
    unsigned char *data = malloc(len + 1);
    int rc;

    fill(data, index, len);
    rc = fm_map_feed(run.map, data, len, (int)(index % 200));
    free(data);
    return rc;
}

static struct fm_map_opts source_opts(unsigned workers, fm_worker_fn fn)
{
    struct fm_map_opts opts = map_opts(0, workers, fn);

    opts.is_source = true;
    opts.eager = true;
    opts.max_active = 50;
    return opts;
}

/* Feed `n` items as they are consumed, to the end. */
static void run_source(fm_engine *engine, const struct fm_map_opts *opts,
                       uint64_t n)
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

static size_t big(uint64_t index)
{
    return index % 3 == 0 ? ((size_t)5 << 20) + index : (size_t)index;
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

/* ------------------------------------------------------------------ deaths */

/* Some die in the middle of an item, with others of their gift behind it. */
static int die_now_and_then(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (index % *(uint64_t *)ud == 5 && fm_worker_get_attempt(worker) == 1)
            (void)raise(SIGKILL);
        CHECK(has_item(worker, index));
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(a_worker_that_dies_costs_the_item_that_it_was_in)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, die_now_and_then);
    uint64_t every = 10, n = 5000 / SLOWER;

    opts.ud = &every;
    run_source(engine, &opts, n);
    CHECK_INT(run.kinds[5], FM_SIGNAL);
    check_ran_once();
    check_all(n / every);
    fm_engine_free(engine);
}

TEST(with_retries_the_same_item_is_given_again)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(3, die_now_and_then);
    uint64_t every = 10;

    opts.ud = &every;
    opts.job.retries = 1;
    run_source(engine, &opts, 5000 / SLOWER);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

/* Kill some worker, wherever it is. */
static uint64_t kill_one(void)
{
    unsigned i = (unsigned)rand() % run.map->n_members;
    fm_future *future = run.map->members[i].future;
    pid_t pid = future ? fm_future_get_pid(future) : 0;

    return pid > 0 && run.map->members[i].is_fruitful &&
           kill(pid, SIGKILL) == 0;
}

TEST(a_worker_that_is_killed_anywhere_costs_one_item_at_most)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(3, say_items);
    uint64_t fed = 0, killed = 0, wanted = 600 / SLOWER;

    opts.max_active = 0;
    prepare_run(ITEMS_MAX);
    srand(5);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (killed < wanted && fed < ITEMS_MAX) {
        for (int i = rand() % 50; i > 0 && fed < ITEMS_MAX; i--)
            CHECK_INT(feed_one(fed++), 0);
        CHECK(fm_engine_step(engine, rand() % 3 * MS / 4) >= 0);
        killed += kill_one();
    }
    fm_map_feed_end(run.map);
    run.n = fed;
    finish(engine);
    CHECK(killed > 100 / SLOWER && run.n_failed <= killed);
    for (uint64_t i = 0; i < fed; i++)
        CHECK(run.kinds[i] == FM_VALUE || run.kinds[i] == FM_SIGNAL);
    check_ran_once();
    check_all(run.n_failed);
    fm_engine_free(engine);
}

TEST(items_are_kept_for_workers_that_are_replaced)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, say_items);

    opts.max_tasks = 10;
    run_source(engine, &opts, 300);
    check_ran_once();
    check_all(0);
    opts.max_tasks = 0;
    opts.isolate = FM_ISOLATE_CHUNK;
    run_source(engine, &opts, 100);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

static int die_at_start(fm_worker *worker, void *ud)
{
    (void)worker;
    (void)ud;
    _exit(9);
}

TEST(workers_that_all_die_at_their_start_end_the_map)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, die_at_start);

    run_source(engine, &opts, 100);
    CHECK_INT(fm_map_get_failure(run.map)->kind, FM_EXIT);
    fm_map_free(run.map);
    fm_engine_free(engine);
}

/* --------------------------------------------------------------- slow ones */

/* Waits in item 3 until all others have run. */
static int wait_for_the_rest(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        CHECK(has_item(worker, index));
        CHECK_INT(say(worker, index), 0);
        if (index != 3) {
            atomic_fetch_add(run.word, 1);
            continue;
        }
        while (atomic_load(run.word) < run.n - 1)
            (void)usleep(1000);
    }
    return rc;
}

TEST(a_slow_item_holds_up_no_other_of_its_gift)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, wait_for_the_rest);

    opts.chunk_min = opts.chunk_max = 20;
    run_source(engine, &opts, 2000);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

/* Items of which the tray has a part when they are taken away. */
TEST(a_long_item_goes_to_another_when_its_worker_is_slow)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, wait_for_the_rest);

    lengths = big;
    opts.max_active = 6;
    opts.chunk_min = opts.chunk_max = 3;
    run_source(engine, &opts, 12);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

static int hang_in_some(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        CHECK(has_item(worker, index));
        if (index % 40 == 7)
            for (;;)
                (void)pause();
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(a_timeout_costs_the_item_that_takes_too_long)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, hang_in_some);

    opts.job.timeout_ns = 50 * MS * SLOWER;
    run_source(engine, &opts, 120);
    CHECK_INT(run.kinds[7], FM_TIMEOUT);
    CHECK_INT(run.kinds[47], FM_TIMEOUT);
    check_ran_once();
    check_all(3);
    fm_engine_free(engine);
}

TEST(waiting_for_the_bytes_of_an_item_is_not_its_time)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(1, say_items);

    lengths = big;
    opts.job.timeout_ns = 100 * MS * SLOWER;
    opts.max_active = 0;
    prepare_run(2);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    CHECK_INT(feed_one(0), 0);
    /* Its first part is in the tray; the host is busy then. */
    while (atomic_load(&run.map->members[0].tray.ring.shared->head) == 0)
        CHECK(fm_engine_step(engine, MS) >= 0);
    (void)usleep(300000 * SLOWER);
    CHECK_INT(feed_one(1), 0);
    fm_map_feed_end(run.map);
    finish(engine);
    check_all(0);
    fm_engine_free(engine);
}

/* ----------------------------------------------------------------- hostile */

/* Spoils its tray for as long as it can. */
static int scribble(fm_worker *worker, void *ud)
{
    struct fm__ring_shared *shared = worker->items.ring.shared;
    unsigned char *data = worker->items.ring.data;
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (fm_worker_get_id(worker) > 1) {
            CHECK(has_item(worker, index));
            CHECK_INT(say(worker, index), 0);
            continue;
        }
        for (int i = 0; i < 2000; i++) {
            uint64_t lie = (uint64_t)rand() << (rand() % 40);

            atomic_store(&shared->head, lie);
            atomic_store(&shared->tail, lie + 3);
            atomic_store(&shared->starved, (uint32_t)lie);
            data[lie % FM__RING_SIZE] = (unsigned char)i;
        }
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(a_worker_that_spoils_its_tray_spoils_nothing_else)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(3, scribble);

    run_source(engine, &opts, 2000 / SLOWER);
    CHECK_INT(run.n_wrong, 0);
    CHECK_INT(run.n_values + run.n_failed, run.n);
    for (uint64_t i = 0; i < run.n; i++)
        CHECK(run.kinds[i] == FM_VALUE || run.kinds[i] == FM_PROTOCOL);
    fm_map_free(run.map);
    fm_engine_free(engine);
}

/* Says what it thinks of an item that nobody has offered it. */
static int forge(fm_worker *worker, uint64_t index)
{
    uint64_t value = answer(index) + 1;
    int rc = fm__worker_put(worker, FM__RECORD_CLAIM, 1, 1, index);

    fm__worker_begin(worker);
    if (rc == 0)
        rc = fm__sink_write(&worker->sink, &value, sizeof value);
    return rc < 0 ? rc : fm__worker_end(worker, FM__RECORD_VALUE, 0);
}

static int claim_freely(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        CHECK_INT(say(worker, index), 0);
        if (fm_worker_get_id(worker) > 1 || worker->at < worker->last)
            continue;
        CHECK_INT(fm__worker_end(worker, FM__RECORD_VALUE, 0), 0);
        for (uint64_t ahead = 1; ahead < 40; ahead++)
            CHECK_INT(forge(worker, index + ahead), 0);
    }
    return rc;
}

TEST(a_worker_that_takes_what_was_not_offered_is_ended)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = source_opts(2, claim_freely);

    run_source(engine, &opts, 1000 / SLOWER);
    CHECK_INT(run.n_wrong, 0);
    CHECK_INT(run.n_values + run.n_failed, run.n);
    for (uint64_t i = 0; i < run.n; i++)
        CHECK(run.kinds[i] == FM_VALUE || run.kinds[i] == FM_PROTOCOL);
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
