/* SPDX-License-Identifier: MIT */
/* Which places of a map get a worker, and when. */
#include <string.h>

#include "engine/map.h"
#include "os/clock.h"

/* When no process can be made, or a worker ended for nothing. */
#define HIRE_PAUSE_NS (20 * FM__NS_PER_MS)

/* Their items are timed by the map; no process of theirs is tried again. */
static int hire(struct fm__member *member)
{
    fm_map *map = member->map;
    const struct fm__work work = {
        .fn = fm__member_main, .ud = member, .member = member};
    struct fm_job_opts opts = map->opts.job;
    int rc;

    opts.timeout_ns = 0;
    opts.retries = 0;
    if (map->opts.isolate == FM_ISOLATE_ITEM) {
        memset(&opts.limits, 0, sizeof opts.limits);
        opts.limits.result = map->opts.job.limits.result;
    }
    map->refs++;
    map->n_living++;
    rc = fm__spawn(map->engine, &opts, &work, &member->future);
    if (rc < 0) {
        map->n_living--;
        map->refs--;
        member->future = NULL;
    }
    return rc;
}

/* Workers that have nothing yet, or nothing any more. */
static uint64_t count_free(const fm_map *map)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < map->n_members; i++) {
        const struct fm__member *member = &map->members[i];

        n += member->future && member->offered == 0 &&
             !fm__member_has_claim(member) &&
             member->future->stop == FM__STOP_NONE && !member->in_frames;
    }
    return n;
}

/* As long as items may come, all of them, so that these wait for no fork. */
static uint64_t count_wanted(fm_map *map, int64_t now)
{
    uint64_t work, free;

    if (map->opts.is_source && !map->is_fed)
        return map->n_members;
    if (map->n_living == map->n_members)
        return 0;
    work = map->spare.count + map->n_again + fm__ledger_count_held(map, now);
    free = count_free(map);
    return work > free ? work - free : 0;
}

void fm__map_pause_hiring(fm_map *map)
{
    map->hire_at = fm__clock_after(fm__clock_now(), HIRE_PAUSE_NS);
}

/* There is no memory for one. */
static void cannot_hire(fm_map *map, int rc)
{
    fm__map_pause_hiring(map);
    fm__map_look_at(map, map->hire_at);
    if (map->n_living == 0)
        fm__map_fail_plain(map, FM_SPAWN, rc,
                           "the workers could not be started");
}

void fm__map_hire(fm_map *map, int64_t now)
{
    uint64_t work = count_wanted(map, now);
    int rc;

    if (work > 0 && now < map->hire_at) {
        fm__map_look_at(map, map->hire_at);
        return;
    }
    for (unsigned i = 0; i < map->n_members && work > 0; i++) {
        if (map->members[i].future)
            continue;
        if (map->state != FM__MAP_RUNNING || map->engine->closed)
            return;
        rc = hire(&map->members[i]);
        if (rc < 0) {
            cannot_hire(map, rc);
            return;
        }
        work--;
    }
}
