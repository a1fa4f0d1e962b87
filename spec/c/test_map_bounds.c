/* SPDX-License-Identifier: MIT */
/* What one item, one worker or one callback may cost the rest of a map. */
#include "map_runs.h"

#include <setjmp.h>
#include <time.h>

#include "process/worker.h"

/* ------------------------------------------------------------------- time */

/* Its first attempt hangs, the second takes a good part of the time. */
static int hang_once(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        while (index == 5 && fm_worker_get_attempt(worker) == 1)
            (void)pause();
        if (index == 5)
            (void)usleep(60000);
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(each_attempt_of_an_item_has_its_whole_time)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(20, 1, hang_once);

    opts.job.timeout_ns = 120 * MS;
    opts.job.grace_ns = -1;
    opts.job.retries = 1;
    opts.job.retry_on = FM_KIND_BIT(FM_TIMEOUT);
    run_map(engine, &opts);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

static int hang_hard_at_40(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    (void)signal(SIGTERM, SIG_IGN);
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        while (index == 40)
            (void)pause();
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

/* The engine is busy with ending it; meanwhile the one that is left has all. */
TEST(an_item_that_will_not_end_holds_up_no_other)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1000, 2, hang_hard_at_40);

    opts.job.timeout_ns = 50 * MS;
    opts.job.grace_ns = INT64_C(3600000) * MS;
    opts.chunk_min = opts.chunk_max = 100;
    opts.eager = true;
    prepare_run(1000);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (run.n_values < 999)
        CHECK(fm_engine_step(engine, -1) >= 0);
    CHECK(!run.seen[40]);
    fm_map_free(run.map);
    fm_engine_free(engine);
}

static int work_then_hang(fm_worker *worker, void *ud)
{
    CHECK_INT(say_all(worker, ud), 0);
    for (;;)
        (void)pause();
    return 0;
}

TEST(the_deadline_also_ends_workers_that_do_not_leave)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(100, 2, work_then_hang);

    opts.deadline_ns = 200 * MS;
    run_map(engine, &opts);
    check_all(0);
    fm_engine_free(engine);
}

/* ---------------------------------------------------------------- workers */

static int leave_at_once(fm_worker *worker, void *ud)
{
    (void)worker;
    (void)ud;
    return 0;
}

TEST(workers_that_never_work_end_the_map)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1000, 2, leave_at_once);

    run_map(engine, &opts);
    CHECK_INT(fm_map_get_failure(run.map)->kind, FM_NO_RESULT);
    CHECK_STR(fm_map_get_failure(run.map)->message,
              "the workers end without working on items");
    fm_map_free(run.map);
    fm_engine_free(engine);
}

/* The first body fails before it has begun with items, which the other one
 * waits for; if there is another in its place, that works. */
static int fail_first(fm_worker *worker, void *ud)
{
    const _Atomic uint32_t *order = &worker->post->order;
    uint64_t index;
    int rc;

    (void)ud;
    if (fm_worker_get_id(worker) == 1 && atomic_fetch_add(run.word, 1) == 0)
        return fm_child_fail(fm_worker_get_child(worker), "no", NULL);
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        while (atomic_load(run.word) < 2 &&
               atomic_load(order) == FM__ORDER_WORK)
            (void)usleep(100);
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(a_body_that_fails_outside_of_items_fails_its_map)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(100, 2, fail_first);

    run_map(engine, &opts);
    CHECK(fm_map_get_failure(run.map) != NULL);
    CHECK_INT(fm_map_get_failure(run.map)->kind, FM_ERROR);
    CHECK_STR(fm_map_get_failure(run.map)->message, "no");
    fm_map_free(run.map);
    fm_engine_free(engine);
}

/* The first place's workers die before they begin. */
static int die_or_work_slowly(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    if (fm_worker_get_id(worker) == 1) {
        atomic_fetch_add(run.word, 1);
        _exit(9);
    }
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        (void)usleep(100000);
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(workers_that_die_at_their_start_do_not_end_a_map_that_gets_on)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(4, 2, die_or_work_slowly);

    opts.chunk_min = opts.chunk_max = 1;
    run_map(engine, &opts);
    CHECK(*run.word < 100);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

/* ------------------------------------------------------------------ values */

/* From one byte too few to a piece too many, by more than one way. */
static int say_lengths(fm_worker *worker, void *ud)
{
    static unsigned char bytes[200000];
    uint64_t index, limit = *(uint64_t *)ud;
    int rc;

    while ((rc = fm_worker_next(worker, &index)) > 0) {
        uint64_t len = limit + index % 3 - 1;
        int wrote;

        atomic_fetch_add(&run.ran[index], 1);
        if (index % 5 == 4)
            len = sizeof bytes;
        wrote = fm_worker_write(worker, bytes, len);
        CHECK(wrote == 0 || wrote == FM_ELIMIT);
        if (wrote == FM_ELIMIT)
            CHECK_INT(fm_worker_write(worker, bytes, 1), FM_EBUSY);
    }
    return rc;
}

static void take_lengths(fm_map *map, const struct fm_item *item, void *ud)
{
    uint64_t limit = *(uint64_t *)ud, len = limit + item->index % 3 - 1;

    (void)map;
    run.seen[item->index] = 1;
    if (item->index % 5 == 4 || len > limit) {
        CHECK_INT(item->type, FM_ITEM_FAILED);
        CHECK_INT(item->outcome->kind, FM_LIMIT);
        CHECK_STR(item->outcome->limit, "result");
        run.n_failed++;
        return;
    }
    CHECK_INT(item->type, FM_ITEM_BYTES);
    CHECK_INT(item->len, len);
    run.n_values++;
}

TEST(a_result_that_is_too_long_costs_its_item)
{
    static const uint64_t limits[] = {1, 100, 65000, 65536, 150000};

    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        fm_engine *engine = new_engine();
        uint64_t limit = limits[i];
        struct fm_map_opts opts = map_opts(200, 2, say_lengths);

        opts.job.limits.result = limit;
        opts.ud = &limit;
        opts.cb_ud = &limit;
        opts.on_item = take_lengths;
        run_map(engine, &opts);
        for (uint64_t k = 0; k < 200; k++)
            CHECK_INT(run.ran[k], 1);
        CHECK_INT(run.n_failed, 40 + 53);
        check_all(40 + 53);
        fm_engine_free(engine);
    }
}

/* A body that says more than it may is told so. */
static int say_at_wrong_times(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    CHECK_INT(fm_worker_write(worker, "x", 1), FM_EBUSY);
    CHECK_INT(fm_worker_emit(worker, "x", 1, 0), FM_EBUSY);
    CHECK_INT(fm_worker_stop(worker, "x", 1, 0), FM_EBUSY);
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (index % 3 == 0) {
            CHECK_INT(fm_worker_write(worker, "lost", 4), 0);
            CHECK_INT(fm_worker_emit(worker, "x", 1, 0), FM_EBUSY);
            CHECK_INT(fm_worker_fail(worker, "three", NULL), 0);
            CHECK_INT(fm_worker_write(worker, "late", 4), FM_EBUSY);
            CHECK_INT(fm_worker_set_format(worker, 1), FM_EBUSY);
            CHECK_INT(fm_worker_emit(worker, "x", 1, 0), FM_EBUSY);
            CHECK_INT(fm_worker_fail(worker, "again", NULL), 0);
        } else {
            CHECK_INT(say(worker, index), 0);
        }
    }
    CHECK_INT(fm_worker_write(worker, "x", 1), FM_EBUSY);
    return rc;
}

TEST(what_is_said_at_a_wrong_time_becomes_no_other_items_value)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(300, 2, say_at_wrong_times);

    run_map(engine, &opts);
    CHECK_STR(run.message, "three");
    check_all(100);
    fm_engine_free(engine);
}

/* --------------------------------------------------------------- callbacks */

static jmp_buf out;

static void catch_all(void (*callbacks)(void *arg), void *arg, void *ud)
{
    (void)ud;
    if (setjmp(out) == 0)
        callbacks(arg);
}

static void leave_by_jump(fm_map *map, const struct fm_item *item, void *ud)
{
    on_item(map, item, ud);
    longjmp(out, 1);
}

static void leave_event_by_jump(fm_map *map, const struct fm_item *item,
                                void *ud)
{
    (void)map;
    (void)ud;
    CHECK(memcmp(item->data, &item->index, sizeof item->index) == 0);
    run.n_events++;
    longjmp(out, 1);
}

static int emit_and_fail_some(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        CHECK_INT(fm_worker_emit(worker, &index, sizeof index, 0), 0);
        if (index % 10 == 3)
            CHECK_INT(fm_worker_fail(worker, "three", NULL), 0);
        else if (index % 50 == 7)
            (void)raise(SIGKILL);
        else
            CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(callbacks_may_leave_by_a_jump)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(500, 2, emit_and_fail_some);

    opts.guard = catch_all;
    opts.on_item = leave_by_jump;
    opts.on_event = leave_event_by_jump;
    run_map(engine, &opts);
    CHECK_INT(run.n_events, 500);
    check_ran_once();
    check_all(60);
    fm_engine_free(engine);
}

/* A callback ends the map in the midst of what is read. */
static void (*end_it)(fm_map *map);
static bool is_ended;

static void end_at_100(fm_map *map, const struct fm_item *item, void *ud)
{
    (void)item;
    (void)ud;
    CHECK(!is_ended);
    if (++run.n_values == 100) {
        is_ended = true;
        end_it(map);
    }
}

static void stop_now(fm_map *map)
{
    fm_map_stop(map, 0);
}

static void check_end_in_callback(void (*end)(fm_map *map), bool is_freed)
{
    fm_engine *engine = new_engine();
    struct fm_engine_stats stats;
    struct fm_map_opts opts = map_opts(100000, 3, say_all);

    opts.on_item = end_at_100;
    end_it = end;
    is_ended = false;
    prepare_run(100000);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    do {
        CHECK(fm_engine_step(engine, -1) >= 0);
        fm_engine_get_stats(engine, &stats);
    } while (!is_ended || stats.running > 0);
    CHECK_INT(run.n_values, 100);
    if (!is_freed) {
        CHECK(fm_map_is_over(run.map) || fm_engine_step(engine, 0) >= 0);
        fm_map_free(run.map);
    }
    fm_engine_free(engine);
}

TEST(a_callback_may_stop_its_map)
{
    check_end_in_callback(stop_now, false);
}

TEST(a_callback_may_free_its_map)
{
    check_end_in_callback(fm_map_free, true);
}

/* -------------------------------------------------------- what others hold */

static int wait_for_one(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (index == 1 && fm_worker_get_attempt(worker) == 1) {
            (void)usleep(20000);
            (void)raise(SIGKILL);
        }
        while (index == 0 && atomic_load(&run.ran[1]) == 0)
            (void)usleep(1000);
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

/* It is given to the one that lives, which waits for it. */
TEST(an_item_that_is_tried_again_does_not_wait_for_a_slow_one)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(2, 2, wait_for_one);

    opts.job.retries = 1;
    opts.chunk_min = opts.chunk_max = 1;
    run_map(engine, &opts);
    check_all(0);
    fm_engine_free(engine);
}

/* The first claim waits in its first item for all others. */
static int die_or_wait_for_all(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (index == 50)
            (void)raise(SIGKILL);
        CHECK_INT(say(worker, index), 0);
        while (index == 0 && atomic_load(run.word) < 98)
            (void)usleep(1000);
        atomic_fetch_add(run.word, 1);
    }
    return rc;
}

TEST(what_a_slow_worker_holds_goes_to_one_in_the_place_of_a_dead_one)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(100, 2, die_or_wait_for_all);

    opts.chunk_min = opts.chunk_max = 50;
    run_map(engine, &opts);
    check_ran_once();
    check_all(1);
    fm_engine_free(engine);
}

/* ------------------------------------------------------- processor time */

static void use_cpu(int ms)
{
    struct timespec now;
    int64_t until = 0, at;

    do {
        CHECK_INT(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
        at = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
        until = until ? until : at + ms * MS;
    } while (at < until);
}

/* All of a worker's items together are over the limit, and what it does after
 * them too. */
static int use_much_at_7(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    if (*(bool *)ud)
        (void)signal(SIGXCPU, SIG_IGN);
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        use_cpu(index == 7 ? 3600000 : 10);
        CHECK_INT(say(worker, index), 0);
    }
    use_cpu(150);
    return rc;
}

static void check_cpu(bool ignores, enum fm_kind kind)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(20, 2, use_much_at_7);

    opts.ud = &ignores;
    opts.job.limits.cpu_ns = (uint64_t)(80 * MS);
    run_map(engine, &opts);
    CHECK_INT(run.kinds[7], kind);
    check_ran_once();
    check_all(1);
    fm_engine_free(engine);
}

TEST(a_limit_of_processor_time_is_that_of_each_item)
{
    check_cpu(false, FM_LIMIT);
}

TEST(who_ignores_that_the_time_is_up_is_killed_a_second_later)
{
    check_cpu(true, FM_SIGNAL);
}
