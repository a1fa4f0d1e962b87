/* SPDX-License-Identifier: MIT */
/* One worker of a map, as its parent sees it: its fork, and what its end
 * amounts to. */
#include <stdio.h>
#include <string.h>

#include "engine/map.h"
#include "os/memory.h"

/* Workers that could not be started, in a row, in the midst of a map. */
#define SPAWNS_MAX 3

/* An honest worker drops a result when a piece has gone beyond the limit; the
 * texts of a failure are beside it. */
#define BEYOND_LIMIT (FM__RECORD_TEXTS_MAX + FM__RECORD_PAYLOAD_MAX)

/* Was it in an item of its claim?  It is the one that its records come to; and
 * the one that a record which is not ours came to. */
static bool was_in_item(const struct fm__member *member)
{
    if (!fm__member_has_claim(member) || member->is_void)
        return false;
    if (member->future->inbox.ending == FM__ENDING_BROKEN)
        return true;
    return fm__span_low(member->last_word) != FM__WORD_IDLE &&
           member->last_at == member->first + member->done;
}

bool fm__member_is_ready(const struct fm__member *member)
{
    const fm_future *future = member->future;

    return future && member->is_ready && future->channel &&
           future->state == FM_RUNNING && future->stop == FM__STOP_NONE;
}

/* Another one that works, or may still come to it. */
static bool others_work(const fm_map *map, const struct fm__member *member)
{
    for (unsigned i = 0; i < map->n_members; i++) {
        const struct fm__member *other = &map->members[i];

        if (other != member && other->future && !other->is_void &&
            !other->in_frames && other->future->stop == FM__STOP_NONE &&
            !other->future->is_gone)
            return true;
    }
    return false;
}

/* A worker has ended for nothing.  When they do so in a row, there is no point
 * in more of them; as long as others get on, they come more slowly. */
static void count_fruitless(struct fm__member *member,
                            struct fm_outcome *outcome)
{
    fm_map *map = member->map;

    if (++map->n_fruitless <= map->n_members + 3)
        return;
    fm__map_pause_hiring(map);
    if (others_work(map, member))
        return;
    if (outcome->kind == FM_VALUE) {
        outcome->kind = FM_NO_RESULT;
        outcome->message = "the workers end without working on items";
    }
    fm__map_fail(map, outcome, member->future);
}

/* No process can be made, and it is not for a moment. */
static bool is_hopeless(fm_map *map)
{
    return map->n_settled == 0 || ++map->n_fruitless > SPAWNS_MAX;
}

/* The map times its items, not the future. */
static void name_timeout(struct fm__member *member, struct fm_outcome *outcome)
{
    fm_future *future = member->future;

    if (outcome->kind != FM_TIMEOUT)
        return;
    (void)snprintf(future->message, sizeof future->message,
                   "the item took longer than its timeout of %.6g s",
                   (double)member->map->opts.job.timeout_ns / 1e9);
    outcome->message = future->message;
}

/* It was told to end, or its body failed outside of items. */
static bool is_the_maps(const struct fm__member *member,
                        const struct fm_outcome *outcome)
{
    if (outcome->kind == FM_CANCELLED || outcome->kind == FM_CLOSED)
        return true;
    return (outcome->kind == FM_ERROR || outcome->kind == FM_ENCODE) &&
           !was_in_item(member);
}

/* It ended as it should, or for a reason that is the item's, the map's or
 * nobody's. */
static void judge(struct fm__member *member, struct fm_outcome *outcome)
{
    fm_map *map = member->map;

    if (map->state != FM__MAP_RUNNING)
        return;
    name_timeout(member, outcome);
    if (outcome->kind == FM_VALUE) {
        if (!member->is_fruitful)
            count_fruitless(member, outcome);
    } else if (is_the_maps(member, outcome)) {
        fm__map_fail(map, outcome, member->future);
    } else if (was_in_item(member)) {
        fm__member_fail_item(member, outcome, member->last_detail);
    } else if (outcome->kind == FM_SPAWN) {
        fm__map_pause_hiring(map);
        if (map->n_living == 1 && is_hopeless(map))
            fm__map_fail(map, outcome, member->future);
    } else if (!member->is_fruitful) {
        count_fruitless(member, outcome);
    }
}

struct end {
    struct fm__member *member;
    struct fm_outcome outcome;
};

static void judge_guarded(void *arg)
{
    struct end *end = arg;

    judge(end->member, &end->outcome);
}

void fm__member_settled(struct fm__member *member)
{
    fm_map *map = member->map;
    struct end end = {member, member->future->outcome};
    fm_future *future = member->future;

    fm__map_call_guarded(map, judge_guarded, &end);
    fm__ledger_release(member);
    if (map->state == FM__MAP_ENDING && future->outcome.kind == FM_ERROR)
        fm__map_fail(map, &future->outcome, future);
    fm__buffer_done(&member->pieces);
    fm__source_close_tray(member);
    future->member = NULL;
    member->future = NULL;
    map->n_living--;
    fm_future_unref(future);
    fm__map_unref(map);
}

/* -------------------------------------------------------------------- fork */

int fm__member_prepare(struct fm__member *member)
{
    fm_map *map = member->map;
    struct fm__channel *channel = member->future->channel;
    uint64_t limit = member->future->opts.limits.result;
    int rc = 0;

    fm__channel_clear_post(channel);
    member->crew.pace = map->pace;
    fm__map_set_limits(map, member);
    if (limit > SIZE_MAX - BEYOND_LIMIT)
        limit = SIZE_MAX - BEYOND_LIMIT;
    fm__buffer_init(&member->pieces, (size_t)(limit + BEYOND_LIMIT));
    member->is_ready = false;
    member->in_frames = false;
    member->is_drained = true;
    member->is_fruitful = false;
    member->is_lost = false;
    member->n_void = 0;
    member->is_slow = false;
    member->last_word = 0;
    member->seen_item = UINT64_MAX;
    member->seen_at = UINT64_MAX;
    member->suspect_at = 0;
    if (map->opts.is_source)
        rc = fm__source_open_tray(member);
    return rc < 0 ? rc : fm__memory_inherit(map->board, FM__BOARD_SIZE, true);
}

void fm__member_forked(struct fm__member *member)
{
    (void)fm__memory_inherit(member->map->board, FM__BOARD_SIZE, false);
    fm__source_keep_tray(member);
}
