/* SPDX-License-Identifier: MIT */
/* Time limits of items in hosts that are late themselves. */
#include "map_runs.h"
#include "told_clock.h"

#include "engine/map.h"
#include "os/sys.h"

static void await(int i, uint64_t value)
{
    while (atomic_load(&run.word[i]) < value)
        (void)usleep(100);
}

enum { IN_0, IN_2, END_2, IN_3, END_0, IN_1, STEPS, BODIES };

static void set(int i)
{
    atomic_store(&run.word[i], 1);
}

/* Worker 1 has items 0 and 1, worker 2 has 2 and 3. */
static int work(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    atomic_fetch_add(&run.word[BODIES], 1);
    if (fm_worker_get_id(worker) == 2)
        await(IN_0, 1);
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        if (index == 0) {
            set(IN_0);
            await(END_0, 1);
        } else if (index == 1) {
            set(IN_1);
            await(STEPS, 10);
        } else if (index == 2) {
            set(IN_2);
            await(END_2, 1);
        } else if (index == 3) {
            set(IN_3);
            await(STEPS, 10);
        }
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

/* The host's callback takes a while: item 0 ends during it, and item 1 begins.
 */
static void take(fm_map *map, const struct fm_item *item, void *ud)
{
    on_item(map, item, ud);
    if (item->index == 2) {
        set(END_0);
        await(IN_1, 1);
    }
}

TEST(an_item_is_not_ended_for_the_time_of_the_one_before_it)
{
    fm_engine *engine;
    struct fm_map_opts opts = map_opts(4, 2, work);

    ahead_ns = share(sizeof *ahead_ns);
    fm__sys.clock_gettime = told_clock;
    engine = new_engine();
    opts.on_item = take;
    opts.job.timeout_ns = INT64_C(100000) * MS;
    opts.chunk_min = opts.chunk_max = 2;
    prepare_run(4);
    CHECK_INT(fm_map_start(engine, &opts, &run.map), 0);
    while (run.map->members[0].n != 2 || run.map->members[0].seen_item != 0 ||
           run.map->members[1].seen_item != 2)
        CHECK(fm_engine_step(engine, MS) >= 0);
    await(IN_2, 1);
    atomic_store(ahead_ns, INT64_C(200000) * MS); /* the host was busy */
    set(END_2);
    await(IN_3, 1);
    while (!fm_map_is_over(run.map)) {
        CHECK(fm_engine_step(engine, MS) >= 0);
        atomic_fetch_add(&run.word[STEPS], 1);
    }
    CHECK_INT(run.word[BODIES], 2);
    check_ran_once();
    check_all(0);
    fm_engine_free(engine);
}
