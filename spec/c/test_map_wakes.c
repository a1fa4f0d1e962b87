/* SPDX-License-Identifier: MIT */
/*
 * Nobody sleeps while there is something to do: neither a worker that waits for
 * items or for room, nor the parent that waits for workers.  The naps after
 * which each looks around by itself must not be what keeps a map going, so this
 * counts those that ended by their time although a word had changed or a ring
 * held something.
 *
 * FORK_MAP_ROUNDS is the number of items, each of which is a chance to sleep.
 */
#define TEST_SECONDS 3600
#include "map_runs.h"

#include "engine/map.h"
#include "os/sys.h"

#ifdef __SANITIZE_ADDRESS__
#define ROUNDS 20000
#else
#define ROUNDS 200000
#endif

/* Longer than any wake-up takes, shorter than any nap. */
#define SLICE_MS 100

static struct naps {
    _Atomic uint64_t sleeps, lost_words, lost_rings;
} * naps;

static fm_map *watched;

static uint64_t n_consumed, n_came;

#ifdef __linux__
#include <linux/futex.h>

/* A word that changes is woken, or is seen to have changed at once. */
static long watch_futex(uint32_t *word, int op, uint32_t value,
                        const struct timespec *ts)
{
    long rc = fm__sys_real.futex(word, op, value, ts);
    int saved = errno;

    if (op == FUTEX_WAIT) {
        atomic_fetch_add(&naps->sleeps, 1);
        if (rc < 0 && saved == ETIMEDOUT &&
            atomic_load((_Atomic uint32_t *)word) != value)
            atomic_fetch_add(&naps->lost_words, 1);
    }
    errno = saved;
    return rc;
}

/* It sleeps, for items or for room, and has said something before, or could
 * have an item. */
static bool is_unheard(const struct fm__member *member)
{
    const struct fm__channel *channel =
        member->future ? member->future->channel : NULL;

    if (!channel)
        return false;
    if (atomic_load(&channel->post->asleep) != 0 && member->offered == 0 &&
        watched->n_again > 0)
        return true;
    if (atomic_load(&channel->ring.shared->tail) == channel->ring.at)
        return false;
    return atomic_load(&channel->post->asleep) != 0 ||
           atomic_load(&channel->ring.shared->starved) != 0;
}

static int watch_epoll(int fd, struct epoll_event *events, int n, int ms)
{
    int slice = ms < 0 || ms > SLICE_MS ? SLICE_MS : ms;
    int rc = fm__sys_real.epoll_wait(fd, events, n, slice);

    if (rc != 0 || slice < SLICE_MS || !watched)
        return rc;
    for (unsigned i = 0; i < watched->n_members; i++) {
        if (!is_unheard(&watched->members[i]))
            continue;
        /* Its bell may be ringing just now. */
        rc = fm__sys_real.epoll_wait(fd, events, n, 0);
        if (rc != 0)
            return rc;
        atomic_fetch_add(&naps->lost_rings, 1);
    }
    return rc;
}

static void watch_sleepers(void)
{
    fm__sys.futex = watch_futex;
    fm__sys.epoll_wait = watch_epoll;
}
#else
static void watch_sleepers(void)
{
}
#endif

/* -------------------------------------------------------------------- runs */

struct load {
    size_t len; /* of a value */
    unsigned fails_every;
};

static int work(fm_worker *worker, void *ud)
{
    static unsigned char bytes[300000];
    const struct load *load = ud;
    uint64_t index;
    int rc;

    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (load->fails_every && index % load->fails_every == 0 &&
            fm_worker_get_attempt(worker) == 1)
            rc = fm_worker_fail(worker, "again", NULL);
        else
            rc = fm_worker_write(worker, bytes, load->len);
        if (rc < 0)
            return rc;
    }
    return rc;
}

static void take(fm_map *map, const struct fm_item *item, void *ud)
{
    const struct load *load = ud;

    (void)map;
    CHECK_INT(item->type, FM_ITEM_BYTES);
    CHECK_INT(item->len, load->len);
    n_came++;
}

/* What came is consumed, in the loop, as an iterator does. */
static void run_watched(const struct fm_map_opts *opts)
{
    fm_engine *engine = new_engine();

    n_consumed = 0;
    n_came = 0;
    naps = share(sizeof *naps);
    watch_sleepers();
    CHECK_INT(fm_map_start(engine, opts, &watched), 0);
    while (!fm_map_is_over(watched)) {
        int rc = fm_engine_step(engine, -1);

        CHECK(rc >= 0 || rc == -EINTR);
        fm_map_consume(watched, n_came - n_consumed);
        n_consumed = n_came;
    }
    CHECK(fm_map_get_failure(watched) == NULL);
    CHECK_INT(n_came, opts->n_items);
    fm_map_free(watched);
    watched = NULL;
    fm_engine_free(engine);
    fm__sys = fm__sys_real;
    (void)printf("     %llu items, %llu sleeps\n",
                 (unsigned long long)opts->n_items,
                 (unsigned long long)naps->sleeps);
    CHECK_INT(naps->lost_words, 0);
    CHECK_INT(naps->lost_rings, 0);
    CHECK_INT(munmap(naps, sizeof *naps), 0);
}

static uint64_t count_rounds(uint64_t share_of)
{
    const char *text = getenv("FORK_MAP_ROUNDS");

    return (text ? strtoull(text, NULL, 10) : ROUNDS) / share_of;
}

static struct fm_map_opts watched_opts(uint64_t n, struct load *load)
{
    struct fm_map_opts opts = map_opts(n, 2, work);

    opts.ud = load;
    opts.cb_ud = load;
    opts.on_item = take;
    return opts;
}

TEST(workers_that_may_go_on_are_woken)
{
    struct load load = {8, 0};
    struct fm_map_opts opts = watched_opts(count_rounds(1), &load);

    opts.max_active = 3;
    opts.chunk_min = opts.chunk_max = 1;
    opts.eager = true;
    run_watched(&opts);
}

TEST(workers_that_are_given_items_are_woken)
{
    struct load load = {8, 2};
    struct fm_map_opts opts = watched_opts(count_rounds(1), &load);

    opts.max_active = 4;
    opts.eager = true;
    opts.job.retries = 1;
    opts.job.retry_on = FM_KIND_BIT(FM_ERROR);
    run_watched(&opts);
}

TEST(workers_that_wait_for_room_are_woken)
{
    struct load load = {300000, 0};
    struct fm_map_opts opts = watched_opts(count_rounds(50), &load);

    run_watched(&opts);
}

/* A fresh map each time: its beginning and its end. */
TEST(a_map_that_ends_is_heard)
{
    struct load load = {8, 3};
    struct fm_map_opts opts = watched_opts(5, &load);

    opts.job.retries = 1;
    opts.job.retry_on = FM_KIND_BIT(FM_ERROR);
    (void)fflush(stdout);
    for (uint64_t i = count_rounds(400); i > 0; i--)
        run_watched(&opts);
}

/* --------------------------------------------------------- before the sleep */

enum { WORKS, ASKS, IS_ALONE, HAS_LOOKED, SLEEPS };

static struct fm__post *post;
static struct fm__board *board;

/* The worker's look at the cursor is held up: it has looked for a gift then,
 * and has not said yet that it sleeps. */
static void wait_for_a_gift(int sig)
{
    (void)sig;
    atomic_store(run.word, HAS_LOOKED);
    while (fm__span_low(atomic_load(&post->gift)) != FM__GIFT_OFFERED)
        /* NOLINTNEXTLINE(bugprone-signal-handler): safe on Linux */
        (void)usleep(100);
    /* NOLINTNEXTLINE(bugprone-signal-handler): safe on Linux */
    if (mprotect(board, FM__BOARD_SIZE, PROT_READ | PROT_WRITE) < 0)
        _exit(1);
}

static void hold_up_next_look(fm_worker *worker)
{
    post = worker->post;
    board = worker->crew->board;
    CHECK(signal(SIGSEGV, wait_for_a_gift) != SIG_ERR);
    CHECK_INT(mprotect(board, FM__BOARD_SIZE, PROT_NONE), 0);
}

/* The item fails at first, while the parent does nothing. */
static int fail_and_look(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (fm_worker_get_attempt(worker) > 1) {
            CHECK_INT(say(worker, index), 0);
            continue;
        }
        atomic_store(run.word, ASKS);
        while (atomic_load(run.word) != IS_ALONE)
            (void)usleep(100);
        CHECK_INT(fm_worker_fail(worker, "again", NULL), 0);
        hold_up_next_look(worker);
    }
    return rc;
}

#ifdef __linux__
static long note_sleep(uint32_t *word, int op, uint32_t value,
                       const struct timespec *ts)
{
    if (op == FUTEX_WAIT && post && (void *)word == (void *)&post->call &&
        fm__span_low(atomic_load(&post->gift)) == FM__GIFT_OFFERED)
        atomic_store(run.word, SLEEPS);
    return fm__sys_real.futex(word, op, value, ts);
}

static void watch_sleep(void)
{
    fm__sys.futex = note_sleep;
}
#else
static void watch_sleep(void)
{
}
#endif

TEST(a_worker_that_is_given_an_item_before_it_sleeps_does_not_sleep)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(1, 1, fail_and_look);

    watch_sleep();
    opts.job.retries = 1;
    opts.job.retry_on = FM_KIND_BIT(FM_ERROR);
    prepare_run(1);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (!fm_map_is_over(run.map)) {
        uint64_t asks = ASKS;

        if (atomic_compare_exchange_strong(run.word, &asks, IS_ALONE)) {
            while (atomic_load(run.word) == IS_ALONE)
                (void)usleep(100);
        }
        CHECK(fm_engine_step(engine, MS) >= 0);
    }
    CHECK_INT(*run.word, HAS_LOOKED);
    check_all(0);
    fm_engine_free(engine);
    fm__sys = fm__sys_real;
}
