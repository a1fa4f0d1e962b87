/* SPDX-License-Identifier: MIT */
/* What becomes of items that came after the fork when workers die, are slow, or
 * lie: they are kept until they have their outcome. */
#include "source_runs.h"

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

/* More than are ever offered at once. */
#define FORGED 6

/* Says what it thinks of items that nobody has offered it. */
static int forge(fm_worker *worker, uint64_t index)
{
    int rc = fm__worker_put(worker, FM__RECORD_CLAIM, 1, FORGED, index);

    for (uint64_t i = index; i < index + FORGED && rc == 0; i++) {
        uint64_t value = answer(i) + 1;

        fm__worker_begin(worker);
        rc = fm__sink_write(&worker->sink, &value, sizeof value);
        if (rc == 0)
            rc = fm__worker_end(worker, FM__RECORD_VALUE, 0);
    }
    return rc;
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

    opts.chunk_max = FORGED - 1;
    run_source(engine, &opts, 1000 / SLOWER);
    CHECK_INT(run.n_wrong, 0);
    CHECK_INT(run.n_values + run.n_failed, run.n);
    for (uint64_t i = 0; i < run.n; i++)
        CHECK(run.kinds[i] == FM_VALUE || run.kinds[i] == FM_PROTOCOL);
    fm_map_free(run.map);
    fm_engine_free(engine);
}
