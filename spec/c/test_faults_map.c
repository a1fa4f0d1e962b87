/* SPDX-License-Identifier: MIT */
/*
 * Faults in small maps: see sweep.h.  Every item has one outcome or the map has
 * failed, nothing is left, and the next map works.
 */
#include "sweep.h"

#define N_ITEMS 40
#define MAP_NS (8000 * MS)

static struct {
    unsigned char seen[N_ITEMS];
    int n_values, n_failed, n_wrong;
} came;

static long n_maps_failed, n_items_failed;

static size_t length_of(uint64_t index)
{
    return index % 10 == 9 ? 100000 : 1 + index;
}

/* Values of all lengths, an item that fails, and one whose worker dies. */
static int work(fm_worker *worker, void *ud)
{
    static unsigned char bytes[100000];
    uint64_t index;
    int rc;

    (void)ud;
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        memset(bytes, (int)index, sizeof bytes);
        if (index == 13)
            rc = fm_worker_fail(worker, "thirteen", NULL);
        else if (index == 17 && fm_worker_get_attempt(worker) == 1)
            _exit(3);
        else
            rc = fm_worker_write(worker, bytes, length_of(index));
        if (rc < 0)
            return rc;
    }
    return rc;
}

static void take(fm_map *map, const struct fm_item *item, void *ud)
{
    const unsigned char *data = item->data;

    (void)map;
    (void)ud;
    expect(item->index < N_ITEMS && !came.seen[item->index], "outcomes",
           (long long)item->index);
    came.seen[item->index] = 1;
    if (item->type == FM_ITEM_FAILED) {
        came.n_failed++;
        return;
    }
    came.n_values++;
    expect(item->type == FM_ITEM_BYTES && item->len == length_of(item->index),
           "length", (long long)item->index);
    for (size_t i = 0; i < item->len; i++)
        came.n_wrong += data[i] != item->index;
}

static void judge_map(fm_map *map, bool is_faultless)
{
    const struct fm_outcome *failure = fm_map_get_failure(map);

    expect(came.n_wrong == 0, "wrong values", came.n_wrong);
    if (failure) {
        expect(!is_faultless, "failed without a fault", failure->kind);
        n_maps_failed++;
        return;
    }
    expect(came.n_values + came.n_failed == N_ITEMS, "outcomes",
           came.n_values + came.n_failed);
    expect(came.n_failed == 1 || !is_faultless, "failures", came.n_failed);
    n_items_failed += came.n_failed - 1;
}

static void step_until_over(fm_engine *engine, fm_map *map, int64_t until)
{
    int rc = 0;

    while (!fm_map_is_over(map) && now_ns() < until &&
           (rc >= 0 || rc == -EINTR))
        rc = fm_engine_step(engine, until - now_ns());
}

static void run_map(bool is_faultless)
{
    int64_t until = now_ns() + MAP_NS;
    struct fm_map_opts opts;
    fm_engine *engine = NULL;
    fm_map *map = NULL;
    int rc = fm_engine_new(NULL, &engine);

    memset(&came, 0, sizeof came);
    memset(&opts, 0, sizeof opts);
    opts.n_items = N_ITEMS;
    opts.workers = 2;
    opts.fn = work;
    opts.on_item = take;
    opts.job.retries = 1;
    opts.job.grace_ns = -1;
    if (rc == 0)
        rc = fm_map_start(engine, &opts, &map);
    expect(rc == 0 || !is_faultless, "code", rc);
    if (rc < 0) {
        n_refused++;
        fm_engine_free(engine);
        return;
    }
    step_until_over(engine, map, until);
    /* An engine that cannot step can be closed. */
    if (!fm_map_is_over(map))
        (void)fm_engine_close(engine, 0);
    expect(now_ns() < until, "took too long", 0);
    expect(fm_map_is_over(map), "is not over", 0);
    judge_map(map, is_faultless);
    fm_map_free(map);
    fm_engine_free(engine);
}

static bool run_map_with(const struct fault *next)
{
    struct stock before = take_stock();
    bool reached;

    (void)snprintf(what, sizeof what, "%s %lu %s in the %s, %s",
                   fault_names[next->call], next->k,
                   next->error == FAULT_SHORT ? "short"
                                              : fm_err_name(-next->error),
                   next->in_child ? "child" : "parent",
                   next->is_sticky ? "for good" : "once");
    (void)alarm(30);
    fault_arm(next);
    run_map(false);
    reached = fault_page->reached;
    fault_disarm();
    check_nothing_left(&before);
    return reached;
}

/* The first few k, some more, and at the end whether maps still work. */
static void sweep_map_call(struct fault next)
{
    unsigned long n = used[next.in_child][next.call];

    for (next.k = 1; next.k <= n; next.k += is_full || next.k < 6 ? 1 : 7) {
        n_runs++;
        if (!run_map_with(&next))
            break;
        n_reached++;
    }
    (void)strncat(what, ", next map", sizeof what - strlen(what) - 1);
    run_map(true);
}

/* To wake others up does not fail.  To ask for two children in turn is not
 * interrupted each time that it is for the same one. */
static bool can_fail(const struct fault *next)
{
    if (next->in_child)
        return true;
#ifdef __linux__
    if (next->call == FAULT_futex)
        return false;
#endif
    return next->call != FAULT_wait_look || !next->is_sticky;
}

static void sweep_map(bool in_child)
{
    const struct fault none = {.call = FAULT_COUNT};

    is_full = getenv("FORK_MAP_FULL") != NULL;
    (void)signal(SIGALRM, on_hang);
    fault_install();
    fault_arm(&none);
    run_map(true);
    for (int i = 0; i < FAULT_COUNT; i++) {
        used[0][i] = fault_page->calls[0][i];
        used[1][i] = fault_page->calls[1][i];
    }
    for (size_t i = 0; i < N_ENTRIES; i++) {
        for (int how = 0; how < 2; how++) {
            struct fault next = {.call = entries[i].call,
                                 .error = entries[i].errors[0],
                                 .is_sticky = how == 1,
                                 .in_child = in_child};

            if (used[in_child][next.call] > 0 && can_fail(&next))
                sweep_map_call(next);
        }
    }
    fm__sys = fm__sys_real;
    (void)munmap(fault_page, sizeof *fault_page);
    (void)printf("     %ld runs, %ld faults, %ld refused, %ld maps failed, "
                 "%ld items failed\n",
                 n_runs, n_reached, n_refused, n_maps_failed, n_items_failed);
}

TEST(a_fault_in_the_parent_of_a_map_is_an_outcome)
{
    sweep_map(false);
}

TEST(a_fault_in_the_workers_of_a_map_is_an_outcome)
{
    sweep_map(true);
}
