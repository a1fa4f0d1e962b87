/* SPDX-License-Identifier: MIT */
/*
 * Who has which items at moments that come by chance only rarely: each test
 * has its workers, or what they call, wait until it is there.
 */
#include "map_runs.h"
#include "told_clock.h"

#include <time.h>

#include "engine/map.h"
#include "os/fence.h"
#include "os/sys.h"

static void await(uint64_t value)
{
    while (atomic_load(run.word) < value)
        /* NOLINTNEXTLINE(bugprone-signal-handler): safe on Linux */
        (void)usleep(100);
}

/* ------------------------------------------------------------------ deaths */

/* Item 5 has its failure when the worker ends. */
static int die_behind_5(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (index == 5) {
            CHECK_INT(fm_worker_fail(worker, "five", NULL), 0);
            _exit(3);
        }
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(a_worker_that_dies_between_two_items_costs_none)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(20, 1, die_behind_5);

    opts.chunk_min = opts.chunk_max = 20;
    run_map(engine, &opts);
    CHECK_INT(run.kinds[5], FM_ERROR);
    check_ran_once();
    check_all(1);
    fm_engine_free(engine);
}

/* Item 0 fails always; item 1 ends its worker when that has been offered item 0
 * again. */
static int die_with_a_gift(fm_worker *worker, void *ud)
{
    const _Atomic uint64_t *gift = &worker->post->gift;
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (index == 0) {
            atomic_fetch_add(&run.ran[0], 1);
            CHECK_INT(fm_worker_fail(worker, "again", NULL), 0);
            continue;
        }
        if (fm_worker_get_attempt(worker) == 1) {
            while (fm__span_low(atomic_load(gift)) != FM__GIFT_OFFERED)
                (void)usleep(100);
            (void)raise(SIGKILL);
        }
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(an_item_that_comes_back_before_its_attempt_has_no_more_of_them)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(2, 1, die_with_a_gift);

    opts.chunk_min = opts.chunk_max = 2;
    opts.job.retries = 1;
    opts.job.retry_on = FM_KIND_BIT(FM_ERROR) | FM_KIND_BIT(FM_SIGNAL);
    run_map(engine, &opts);
    CHECK_INT(run.ran[0], 2);
    check_ran_once();
    check_all(1);
    fm_engine_free(engine);
}

/* Each fails whenever it runs; those with even numbers end their worker. */
static int fail_or_die(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        atomic_fetch_add(&run.ran[index], 1);
        if (index % 2 == 0)
            _exit(3);
        CHECK_INT(fm_worker_fail(worker, "odd", NULL), 0);
    }
    return rc;
}

TEST(what_fails_in_a_way_that_is_not_listed_is_not_tried_again)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(6, 2, fail_or_die);

    opts.job.retries = 2;
    opts.job.retry_on = FM_KIND_BIT(FM_EXIT);
    run_map(engine, &opts);
    for (uint64_t i = 0; i < 6; i++) {
        CHECK_INT(run.kinds[i], i % 2 == 0 ? FM_EXIT : FM_ERROR);
        CHECK_INT(run.ran[i], i % 2 == 0 ? 3 : 1);
    }
    check_all(6);
    fm_engine_free(engine);
}

/* ------------------------------------------------------------------ claims */

/* As an honest one does it, but slowly: worker 1 moves the cursor, waits until
 * the others have done the rest, and says then what it has. */
static void claim_slowly(fm_worker *worker, uint64_t n)
{
    struct fm__post *post = worker->post;
    uint64_t first;

    worker->is_ready = true;
    CHECK_INT(fm__worker_put(worker, FM__RECORD_READY, 0, 0, 0), 0);
    atomic_store(&post->claiming, 1);
    first = atomic_fetch_add(&worker->crew->board->cursor, n);
    atomic_store(run.word, 1);
    await(1 + run.n - n + 10);
    CHECK_INT(fm__worker_put(worker, FM__RECORD_CLAIM, 1, (uint32_t)n, first),
              0);
    atomic_store(&post->at, first);
    atomic_store(&post->word, fm__span(first, n - 1, FM__WORD_RUN));
    atomic_store(&post->claiming, 0);
    for (uint64_t i = first; i < first + n; i++) {
        atomic_store(&post->at, i);
        worker->said = false;
        CHECK_INT(say(worker, i), 0);
        CHECK_INT(fm__worker_end(worker, FM__RECORD_VALUE, 0), 0);
    }
    atomic_store(&post->word, fm__span(first, n - 1, FM__WORD_IDLE));
}

static int claim_slowly_or_work(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    if (fm_worker_get_id(worker) == 1 && atomic_load(run.word) == 0) {
        claim_slowly(worker, *(uint64_t *)ud);
        return 0;
    }
    await(1);
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        CHECK_INT(say(worker, index), 0);
        atomic_fetch_add(run.word, 1);
    }
    return rc;
}

/* Each step after the others are idle counts. */
TEST(items_between_the_cursor_and_their_claim_are_given_to_nobody)
{
    fm_engine *engine = new_engine();
    uint64_t n = 10;
    struct fm_map_opts opts = map_opts(100, 2, claim_slowly_or_work);

    opts.ud = &n;
    opts.chunk_min = opts.chunk_max = 10;
    prepare_run(100);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (!fm_map_is_over(run.map)) {
        CHECK(fm_engine_step(engine, MS) >= 0);
        if (run.n_values >= run.n - n)
            atomic_fetch_add(run.word, 1);
    }
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

/* -------------------------------------------------------------------- time */

/* Item 3 lasts until all others have run; who does those begins when the time
 * of item 3 is over, and nobody else has items. */
static int outlast_all_in_3(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    (void)signal(SIGTERM, SIG_IGN);
    if (fm_worker_get_id(worker) != 1)
        await(4);
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        CHECK_INT(say(worker, index), 0);
        if (index == 3)
            await(run.n);
        atomic_fetch_add(run.word, 1);
    }
    return rc;
}

TEST(an_item_that_ends_after_its_time_is_the_last_of_its_worker)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(40, 2, outlast_all_in_3);
    bool is_told = false;

    opts.job.timeout_ns = 200 * MS;
    opts.job.grace_ns = INT64_C(3600000) * MS;
    opts.chunk_min = opts.chunk_max = 20;
    opts.eager = true;
    prepare_run(40);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (!fm_map_is_over(run.map)) {
        const fm_future *future;

        CHECK(fm_engine_step(engine, MS) >= 0);
        future = run.map->members[0].future;
        if (!is_told && future && future->stop != FM__STOP_NONE) {
            CHECK_INT(atomic_fetch_add(run.word, 1), 3);
            is_told = true;
        }
    }
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}

/* Each takes a minute, in which the parent looks at it twice. */
static int take_a_minute(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    atomic_fetch_add(&run.word[1], 1);
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        await(atomic_load(run.word) + 2);
        atomic_fetch_add(ahead_ns, INT64_C(60000) * MS);
        await(atomic_load(run.word) + 2);
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(the_time_of_an_item_is_not_that_of_those_before_it)
{
    fm_engine *engine;
    struct fm_map_opts opts = map_opts(5, 1, take_a_minute);

    ahead_ns = share(sizeof *ahead_ns);
    fm__sys.clock_gettime = told_clock;
    engine = new_engine();
    opts.job.timeout_ns = INT64_C(100000) * MS;
    opts.chunk_min = opts.chunk_max = 5;
    prepare_run(5);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (!fm_map_is_over(run.map)) {
        CHECK(fm_engine_step(engine, MS) >= 0);
        atomic_fetch_add(run.word, 1);
    }
    CHECK_INT(run.word[1], 1); /* one that is given up says its value first */
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
    fm__sys = fm__sys_real;
}

/* Worker 1 in item 0, which is over when the parent is about to condemn it;
 * item 1 lasts for some steps more. */
enum { IS_IN_0 = 1, GOES_ON, IS_IN_1 };

static pid_t host;
static bool is_armed;

static void *front(void)
{
    return run.map->members[0].future->channel->map;
}

/* The parent's next write into what it shares with the worker is stopped. */
static int arm_after_clock(clockid_t id, struct timespec *ts)
{
    int rc = told_clock(id, ts);

    if (is_armed && getpid() == host)
        CHECK_INT(mprotect(front(), 4096, PROT_READ), 0);
    is_armed = false;
    return rc;
}

static void let_item_0_end(int sig)
{
    (void)sig;
    /* NOLINTNEXTLINE(bugprone-signal-handler): safe on Linux */
    if (mprotect(front(), 4096, PROT_READ | PROT_WRITE) < 0)
        _exit(1);
    atomic_store(run.word, GOES_ON);
    await(IS_IN_1);
}

static int end_late(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    atomic_fetch_add(&run.word[1], 1);
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (index == 0) {
            atomic_store(run.word, IS_IN_0);
            await(GOES_ON);
        } else if (index == 1) {
            atomic_store(run.word, IS_IN_1);
            await(IS_IN_1 + 5);
        }
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

TEST(an_item_that_ends_when_it_is_about_to_be_condemned_costs_none)
{
    fm_engine *engine;
    struct fm_map_opts opts = map_opts(3, 1, end_late);

    host = getpid();
    ahead_ns = share(sizeof *ahead_ns);
    fm__sys.clock_gettime = arm_after_clock;
    CHECK(signal(SIGSEGV, let_item_0_end) != SIG_ERR);
    engine = new_engine();
    opts.job.timeout_ns = INT64_C(100000) * MS;
    opts.chunk_min = opts.chunk_max = 3;
    prepare_run(3);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (run.map->members[0].n != 3 || run.map->members[0].seen_item != 0 ||
           *run.word != IS_IN_0)
        CHECK(fm_engine_step(engine, MS) >= 0);
    atomic_store(ahead_ns, INT64_C(200000) * MS);
    is_armed = true;
    CHECK(fm_engine_step(engine, 0) >= 0);
    CHECK_INT(*run.word, IS_IN_1);
    while (!fm_map_is_over(run.map)) {
        atomic_fetch_add(run.word, 1);
        CHECK(fm_engine_step(engine, MS) >= 0);
    }
    CHECK_INT(run.word[1], 1);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
    fm__sys = fm__sys_real;
}

static int stay_behind_0(fm_worker *worker, void *ud)
{
    uint64_t index;

    (void)ud;
    CHECK_INT(fm_worker_next(worker, &index), 1);
    CHECK_INT(fm_worker_fail(worker, "zero", NULL), 0);
    for (;;)
        (void)pause();
    return 0;
}

/* A minute after the last outcome. */
TEST(a_worker_that_does_not_leave_when_all_is_done_is_ended)
{
    fm_engine *engine;
    struct fm_map_opts opts = map_opts(1, 1, stay_behind_0);

    ahead_ns = share(sizeof *ahead_ns);
    fm__sys.clock_gettime = told_clock;
    engine = new_engine();
    opts.job.grace_ns = -1;
    prepare_run(1);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (!fm_map_is_over(run.map)) {
        CHECK(fm_engine_step(engine, MS) >= 0);
        if (run.map->state == FM__MAP_ENDING)
            atomic_store(ahead_ns, INT64_C(60000) * MS);
    }
    check_all(1);
    fm_engine_free(engine);
    fm__sys = fm__sys_real;
}

/* ------------------------------------------------------------ taking back */

enum { RECALLED = 1, ENTERED };

/* What lies before a barrier is seen behind it: here, that a worker has gone on
 * to its next item. */
static int let_it_go_on(int command, unsigned flags)
{
    if (getpid() == host && run.map && atomic_load(run.word) == 0) {
        atomic_store(run.word, RECALLED);
        await(ENTERED);
    }
    return fm__sys_real.membarrier(command, flags);
}

/* As a worker does that looked whether it is recalled just before it was; the
 * parent has gone on when it leaves the item. */
static void enter_1(fm_worker *worker)
{
    CHECK_INT(fm__worker_end(worker, FM__RECORD_VALUE, 0), 0);
    atomic_store(&worker->post->at, 1);
    worker->at = 1;
    worker->said = false;
    atomic_store(run.word, ENTERED);
    CHECK_INT(say(worker, 1), 0);
    await(ENTERED + 2);
}

/* Worker 1 stands still in item 0 until items are taken from it. */
static int stand_in_0(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    if (fm_worker_get_id(worker) != 1) {
        while (atomic_load(&run.ran[0]) == 0)
            (void)usleep(100);
    }
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        CHECK_INT(say(worker, index), 0);
        if (index != 0)
            continue;
        while (atomic_load(run.word) != RECALLED &&
               fm__span_count(atomic_load(&worker->post->word)) > 0)
            (void)usleep(100);
        if (atomic_load(run.word) == RECALLED)
            enter_1(worker);
    }
    return rc;
}

TEST(an_item_that_was_entered_before_the_barrier_is_not_taken_back)
{
    fm_engine *engine;
    struct fm_map_opts opts = map_opts(20, 2, stand_in_0);

    if (!fm__fence_is_there())
        return;
    host = getpid();
    fm__sys.membarrier = let_it_go_on;
    engine = new_engine();
    opts.chunk_min = opts.chunk_max = 10;
    prepare_run(20);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (!fm_map_is_over(run.map)) {
        CHECK(fm_engine_step(engine, MS) >= 0);
        if (atomic_load(run.word) >= ENTERED)
            atomic_fetch_add(run.word, 1);
    }
    CHECK(*run.word > ENTERED);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
    fm__sys = fm__sys_real;
}
