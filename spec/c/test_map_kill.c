/* SPDX-License-Identifier: MIT */
/*
 * Workers that end at any moment: killed from outside at random instants, and
 * by themselves in the midst of items.  Each item has its own value or a
 * failure that somebody caused, and none that had one runs again.
 *
 * FORK_MAP_ROUNDS is the number of rounds, FORK_MAP_SEED the first one's seed.
 */
#define TEST_SECONDS 280
#include "map_runs.h"

#include <time.h>

#include "engine/map.h"

#if defined(__SANITIZE_ADDRESS__) || defined(FM_TINY)
#define ROUNDS 100
#else
#define ROUNDS 1000
#endif

#define N_ITEMS 120
#define LONG_LEN 3000

/* In shared memory: what items did. */
struct deed {
    _Atomic unsigned ran, ended;
    _Atomic int means; /* to die by this signal, or exit with -1 - code */
};

static struct kills {
    uint64_t seed; /* of the round */
    struct deed *deeds;
    bool again; /* only first attempts die by themselves */
    uint64_t n_kills;
    unsigned char seen[N_ITEMS];
    uint64_t n_values, n_failed;
} kills;

static uint64_t mix(uint64_t z)
{
    z += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t draw(uint64_t *state)
{
    return *state = mix(*state);
}

static void spin_for(uint64_t ns)
{
    struct timespec ts;
    uint64_t until;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    until = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec + ns;
    do
        (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    while ((uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec < until);
}

/* ---------------------------------------------------------------- the items */

static _Noreturn void die(struct deed *deed, int how)
{
    atomic_store(&deed->means, how);
    if (how < 0)
        _exit(-1 - how);
    (void)raise(how);
    abort();
}

static int work(fm_worker *worker, uint64_t index)
{
    static const int ways[] = {SIGSEGV, SIGKILL, SIGABRT, -1, -4};
    struct deed *deed = &kills.deeds[index];
    uint64_t random = mix(kills.seed ^ index << 20);
    unsigned char value[LONG_LEN];
    size_t len = index % 7 == 0 ? sizeof value : 1;
    bool dies =
        random % 40 == 0 && !(kills.again && fm_worker_get_attempt(worker) > 1);
    int rc;

    atomic_fetch_add(&deed->ran, 1);
    spin_for(random / 64 % 40000);
    memset(value, (int)(index & 0xff), sizeof value);
    rc = fm_worker_write(worker, value, len);
    if (dies)
        die(deed, ways[random / 4096 % 5]);
    atomic_fetch_add(&deed->ended, 1);
    return rc;
}

static int work_on_all(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (work(worker, index) < 0)
            return 0;
    }
    return rc;
}

/* ------------------------------------------------------------- what came of it
 */

static void check_value(const struct fm_item *item)
{
    const unsigned char *data = item->data;

    CHECK_INT(item->type, FM_ITEM_BYTES);
    CHECK_INT(item->len, item->index % 7 == 0 ? LONG_LEN : 1);
    for (size_t i = 0; i < item->len; i++)
        CHECK_INT(data[i], item->index & 0xff);
    CHECK(kills.again || kills.deeds[item->index].ended == 1);
    kills.n_values++;
}

/* By its own doing, or by ours. */
static void check_failure(const struct fm_item *item)
{
    const struct fm_outcome *outcome = item->outcome;
    int means = kills.deeds[item->index].means;

    kills.n_failed++;
    if (outcome->kind == FM_SIGNAL && outcome->signal == SIGKILL)
        return;
    CHECK(means != 0);
    if (means > 0)
        CHECK(outcome->kind == FM_SIGNAL && outcome->signal == means);
    else
        CHECK_INT(outcome->kind, means == -1 ? FM_NO_RESULT : FM_EXIT);
}

static void on_outcome(fm_map *map, const struct fm_item *item, void *ud)
{
    (void)map;
    (void)ud;
    CHECK(item->index < N_ITEMS);
    CHECK(!kills.seen[item->index]);
    kills.seen[item->index] = 1;
    if (item->type == FM_ITEM_FAILED)
        check_failure(item);
    else
        check_value(item);
}

static void check_round(const fm_map *map, bool retries)
{
    uint64_t n_own = 0, n_ran = 0;

    CHECK(fm_map_get_failure(map) == NULL);
    CHECK_INT(kills.n_values + kills.n_failed, N_ITEMS);
    for (uint64_t i = 0; i < N_ITEMS; i++) {
        struct deed *deed = &kills.deeds[i];

        n_own += deed->means != 0;
        n_ran += deed->ran;
        CHECK(retries || deed->ran <= 1);
    }
    if (retries)
        CHECK_INT(kills.n_failed, 0);
    /* Each kill costs one item at most. */
    CHECK(kills.n_failed <= n_own + kills.n_kills);
    CHECK(n_ran <= N_ITEMS + n_own + kills.n_kills);
}

/* ------------------------------------------------------------------- rounds */

static struct fm_map_opts kill_opts(uint64_t *random)
{
    struct fm_map_opts opts = map_opts(N_ITEMS, 1 + draw(random) % 4, NULL);

    opts.fn = work_on_all;
    opts.on_item = on_outcome;
    opts.chunk_max = draw(random) % 3 ? 0 : 1 + draw(random) % 40;
    opts.eager = draw(random) % 2;
    opts.max_tasks = draw(random) % 4 ? 0 : 1 + draw(random) % 20;
    return opts;
}

static void clear(uint64_t seed)
{
    struct deed *deeds = kills.deeds;

    memset(&kills, 0, sizeof kills);
    memset(deeds, 0, N_ITEMS * sizeof *deeds);
    kills.deeds = deeds;
    kills.seed = seed;
}

/* A worker that lives, or has not been reaped: its number is nobody else's. */
static void signal_one(fm_map *map, uint64_t which, int sig)
{
    const struct fm__member *member = &map->members[which % map->n_members];

    /* One that starts may take seconds. */
    if (sig == SIGSTOP && !member->is_ready)
        return;
    if (member->future && member->future->channel && !member->future->is_gone)
        kills.n_kills += kill(member->future->pid.pid, sig) == 0;
}

static void one_round(fm_engine *engine, uint64_t seed, bool retries)
{
    uint64_t random = seed;
    struct fm_map_opts opts;
    fm_map *map = NULL;

    clear(seed);
    kills.again = retries;
    opts = kill_opts(&random);
    opts.job.retries = retries ? 1000 : 0;
    CHECK_INT(fm_map_start(engine, &opts, &map), 0);
    while (!fm_map_is_over(map)) {
        int rc = fm_engine_step(engine, (int64_t)(draw(&random) % (2 * MS)));

        CHECK(rc >= 0 || rc == -EINTR);
        /* Not so many before they have begun that the map gives up; and one
         * that is asked to leave has nothing to lose. */
        if (draw(&random) % 2 && map->state == FM__MAP_RUNNING &&
            map->n_fruitless < 2)
            signal_one(map, draw(&random), SIGKILL);
    }
    check_round(map, retries);
    fm_map_free(map);
}

static void all_rounds(bool retries)
{
    const char *n_text = getenv("FORK_MAP_ROUNDS");
    const char *seed_text = getenv("FORK_MAP_SEED");
    unsigned long n = n_text ? strtoul(n_text, NULL, 10) : ROUNDS / 2;
    uint64_t seed = seed_text ? strtoull(seed_text, NULL, 10) : 1;
    fm_engine *engine = new_engine();
    uint64_t n_failed = 0, n_kills = 0;

    kills.deeds = share(N_ITEMS * sizeof *kills.deeds);
    for (unsigned long i = 0; i < n; i++) {
        one_round(engine, seed + i, retries);
        n_failed += kills.n_failed;
        n_kills += kills.n_kills;
    }
    (void)printf("     %lu rounds, %llu kills, %llu items lost\n", n,
                 (unsigned long long)n_kills, (unsigned long long)n_failed);
    fm_engine_free(engine);
}

TEST(a_worker_that_ends_at_any_moment_costs_the_item_that_it_was_in)
{
    all_rounds(false);
}

TEST(with_retries_a_worker_that_ends_at_any_moment_costs_nothing)
{
    all_rounds(true);
}

/* -------------------------------------------------------------- stand still */

#ifdef FM_TINY
#define STOPS 4
#else
#define STOPS 12
#endif

static void signal_all(fm_map *map, int sig)
{
    for (unsigned i = 0; i < map->n_members; i++)
        signal_one(map, i, sig);
}

static void check_stop_failure(fm_map *map, const struct fm_item *item,
                               void *ud)
{
    if (item->type == FM_ITEM_FAILED && item->outcome->kind == FM_TIMEOUT) {
        CHECK(!kills.seen[item->index]);
        CHECK_STR(item->outcome->message,
                  "the item took longer than its timeout of 0.1 s");
        kills.seen[item->index] = 1;
        kills.n_failed++;
        return;
    }
    on_outcome(map, item, ud);
}

/* Stops one worker or all at a random instant; they time out, or are given up
 * where nobody stays.  One that has no item any more goes on at the end, or, to
 * see that it is given up too, does not. */
static void stop_round(fm_engine *engine, uint64_t seed, bool all, bool waits)
{
    uint64_t random = seed;
    struct fm_map_opts opts;
    uint64_t at;
    fm_map *map = NULL;

    clear(seed | UINT64_C(1) << 63);
    opts = kill_opts(&random);
    opts.workers = 3;
    opts.job.timeout_ns = 100 * MS;
    opts.job.grace_ns = -1;
    opts.on_item = check_stop_failure;
    at = draw(&random) % (N_ITEMS - 10);
    CHECK_INT(fm_map_start(engine, &opts, &map), 0);
    while (!fm_map_is_over(map)) {
        int rc = fm_engine_step(engine, MS / 10);

        CHECK(rc >= 0 || rc == -EINTR);
        if (map->state == FM__MAP_ENDING && !waits)
            signal_all(map, SIGCONT);
        if (kills.n_kills > 0 || fm_map_count_settled(map) < at)
            continue;
        if (all)
            signal_all(map, SIGSTOP);
        else
            signal_one(map, draw(&random), SIGSTOP);
    }
    CHECK(fm_map_get_failure(map) == NULL);
    CHECK_INT(kills.n_values + kills.n_failed, N_ITEMS);
    fm_map_free(map);
}

static void all_stops(bool all)
{
    fm_engine *engine = new_engine();

    kills.deeds = share(N_ITEMS * sizeof *kills.deeds);
    for (uint64_t i = 0; i < STOPS; i++)
        stop_round(engine, i, all, all && i == 0);
    fm_engine_free(engine);
}

TEST(a_worker_that_is_stopped_costs_its_item_its_time)
{
    all_stops(false);
}

TEST(when_all_workers_are_stopped_others_do_the_rest)
{
    all_stops(true);
}

/* Without a limit of time an item may take as long as it likes: only it waits
 * for its worker to go on. */
TEST(while_a_worker_is_stopped_the_others_do_all_but_its_item)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(N_ITEMS, 2, work_on_all);
    bool is_stopped = false;
    fm_map *map = NULL;

    kills.deeds = share(N_ITEMS * sizeof *kills.deeds);
    clear(UINT64_C(1) << 62);
    kills.again = true;
    opts.on_item = on_outcome;
    opts.job.retries = 10;
    CHECK_INT(fm_map_start(engine, &opts, &map), 0);
    while (!fm_map_is_over(map)) {
        CHECK(fm_engine_step(engine, MS / 10) >= 0);
        if (!is_stopped && fm_map_count_settled(map) > 10) {
            signal_one(map, 0, SIGSTOP);
            is_stopped = true;
        }
        if (fm_map_count_settled(map) >= N_ITEMS - 1)
            signal_one(map, 0, SIGCONT);
    }
    CHECK_INT(kills.n_values, N_ITEMS);
    fm_map_free(map);
    fm_engine_free(engine);
}
