/* SPDX-License-Identifier: MIT */
/*
 * Workers that take too long, or lie.
 *
 * What a worker says of itself lies in memory that is its own: when its item
 * began, that it waits for the parent, that it is about to claim items.  Each
 * of these excuses is believed for as long as it can be true of one that is
 * honest and awake, so that none of them keeps items from being worked on.
 *
 * Whoever is given up is condemned first, by compare-and-swap of its word: an
 * honest worker, which was only stopped, notices that before it does anything
 * else and ends.
 */
#include "engine/map.h"
#include "os/clock.h"

/* One that stands still in a place where nobody stays. */
#define SUSPECT_NS FM__NS_PER_S

/* One that is found there whenever it is looked at, though it moves. */
#define SUSPECT_LONG_NS (5 * FM__NS_PER_S)
#define SUSPECT_LOOKS 1000

/* Between two looks at a suspect. */
#define SUSPECT_LOOK_NS (2 * FM__NS_PER_MS)

/* After the last outcome, and the word that there are no more items. */
#define LEAVE_NS (5 * FM__NS_PER_S)

/* A wait for the parent, which comes by so often, takes so long at most. */
#define WAIT_LOOK_NS (100 * FM__NS_PER_MS)
#define WAIT_EXTRA_NS FM__NS_PER_S

/* -------------------------------------------------------------------- time */

/* Bytes of an item after which it is not its parent that is slow. */
static uint64_t most_bytes(const struct fm__member *member)
{
    uint64_t result = member->future->opts.limits.result;

    return result < UINT64_MAX / 32 ? 16 * result + 4 * FM__RING_SIZE
                                    : UINT64_MAX;
}

/* How much of the time since the last look is not the item's own: all of it,
 * when the ring was full in the meantime; while it waits, all but what an
 * engine that runs takes between two looks. */
static int64_t excused(struct fm__member *member, unsigned low, int64_t now)
{
    uint64_t read = member->n_read - member->looked_read;
    int64_t ns = now - member->looked_at;

    member->looked_at = now;
    member->looked_read = member->n_read;
    if (read >= FM__RING_SIZE / 2 && member->item_bytes <= most_bytes(member))
        return ns;
    return low == FM__WORD_WAIT && ns > WAIT_LOOK_NS ? ns - WAIT_LOOK_NS : 0;
}

/* Since when it is in its item: as it says, but not later than seen here. */
static int64_t item_start(struct fm__member *member, unsigned low, int64_t now)
{
    uint64_t item = member->first + member->done;
    int64_t said = atomic_load(&fm__member_post(member)->started_at);
    int64_t excuse = excused(member, low, now);

    if (item != member->seen_item) {
        member->seen_item = item;
        member->seen_item_since = now;
    } else {
        member->seen_item_since += excuse;
    }
    return said < member->seen_item_since && said > 0 ? said
                                                      : member->seen_item_since;
}

/* When the item that it is in is over, as things stand. */
static int64_t item_end(struct fm__member *member, unsigned low, int64_t now)
{
    int64_t timeout = member->map->opts.job.timeout_ns;
    int64_t start = item_start(member, low, now);

    if (low == FM__WORD_RUN)
        return fm__clock_after(start, timeout);
    if (low == FM__WORD_IDLE && !fm__member_has_claim(member))
        return fm__clock_after(now, timeout);
    /* It waits although it need not, or lies. */
    fm__map_look_at(member->map, fm__clock_after(now, WAIT_LOOK_NS));
    return fm__clock_after(fm__clock_after(member->seen_item_since, timeout),
                           WAIT_EXTRA_NS);
}

/* Is it in a later item than its records that were read tell?  The record of
 * the one before was written first, so that after the next reading this is no
 * more true, unless it lies. */
static bool has_moved_on(struct fm__member *member, uint64_t word)
{
    uint64_t item = member->first + member->done;
    const unsigned char *data;

    if (!fm__member_has_claim(member) || fm__span_first(word) == item ||
        member->moved_from == item + 1 ||
        fm__ring_peek_all(&member->future->channel->ring, &data) == 0)
        return false;
    member->moved_from = item + 1;
    return true;
}

/* Condemn the item, never the one after it. */
static void time_item(struct fm__member *member, int64_t now)
{
    _Atomic uint64_t *at = &fm__member_post(member)->word;
    uint64_t word = atomic_load(at);
    int64_t end;

    if (has_moved_on(member, word)) {
        fm__map_look_at(member->map, now);
        return;
    }
    end = item_end(member, fm__span_low(word), now);
    if (now < end) {
        fm__map_look_at(member->map, end);
        return;
    }
    if (!atomic_compare_exchange_strong(at, &word, word | FM__WORD_CONDEMNED)) {
        fm__map_look_at(member->map, now); /* it has moved on just now */
        return;
    }
    fm__ledger_condemned(member, word);
    fm__future_stop(member->future, FM__STOP_SAMPLING, FM_TIMEOUT, now);
}

void fm__watch_items(fm_map *map, int64_t now)
{
    for (unsigned i = 0; i < map->n_members; i++) {
        struct fm__member *member = &map->members[i];

        if (fm__member_is_ready(member))
            time_item(member, now);
    }
}

/* ------------------------------------------------------------------- lies */

/* A worker may be seen in such a place, but does not stay there:
 *   between the cursor and its claim,
 *   with a gift, and without a claim,
 *   between its claim and the first item of it,
 *   in the frames that are its end;
 * and no honest one has a word that does not fit its claim. */
static bool is_suspect(const struct fm__member *member, uint64_t word)
{
    const struct fm__post *post = fm__member_post(member);
    uint64_t next = member->first + member->done;
    uint64_t at = atomic_load(&post->at);

    if (member->in_frames)
        return !fm__member_says_left(member);
    if (atomic_load(&post->claiming) != 0)
        return true;
    if (atomic_load(&post->leaves) != 0 && fm__span_low(word) != FM__WORD_IDLE)
        return true;
    if (!fm__member_has_claim(member))
        return member->offered != 0;
    if (member->is_void)
        return false;
    return fm__span_low(word) == FM__WORD_IDLE ||
           fm__span_first(word) + fm__span_count(word) + 1 !=
               member->first + member->n ||
           (at != next && at + 1 != next);
}

/* One that has begun nothing loses nothing. */
static void give_up(struct fm__member *member, uint64_t word, bool is_sure,
                    int64_t now)
{
    if (atomic_compare_exchange_strong(&fm__member_post(member)->word, &word,
                                       word | FM__WORD_CONDEMNED)) {
        if (fm__span_low(word) == FM__WORD_IDLE)
            fm__ledger_release(member);
    } else if (!is_sure) {
        return; /* it has moved on just now */
    }
    fm__member_refuse(member, FM_EPROTOCOL);
    fm__future_stop(member->future, FM__STOP_FORCED, FM_PROTOCOL, now);
}

static void watch(struct fm__member *member, int64_t now)
{
    uint64_t word = atomic_load(&fm__member_post(member)->word);
    int64_t since = now - member->suspect_at;

    if (!member->is_drained || !is_suspect(member, word)) {
        member->suspect_at = 0;
        return;
    }
    if (member->suspect_at == 0) {
        member->suspect_at = now;
        member->suspect_looks = 0;
        member->suspect_word = word;
        member->suspect_read = member->n_read;
        since = 0;
    }
    member->suspect_looks++;
    if (word == member->suspect_word &&
        member->n_read == member->suspect_read) {
        if (since >= SUSPECT_NS)
            give_up(member, word, false, now);
    } else if (since >= SUSPECT_LONG_NS &&
               member->suspect_looks >= SUSPECT_LOOKS) {
        give_up(member, word, true, now);
    }
    fm__map_look_at(member->map, fm__clock_after(now, SUSPECT_LOOK_NS));
}

void fm__watch_suspects(fm_map *map, int64_t now)
{
    for (unsigned i = 0; i < map->n_members; i++) {
        struct fm__member *member = &map->members[i];

        if (fm__member_is_ready(member))
            watch(member, now);
    }
}

/* There are no more items, and it does not notice: nobody needs it. */
void fm__watch_leavers(fm_map *map, int64_t now)
{
    int64_t end = fm__clock_after(map->ending_at, LEAVE_NS);

    for (unsigned i = 0; i < map->n_members; i++) {
        struct fm__member *member = &map->members[i];

        if (!fm__member_is_ready(member) || fm__member_says_left(member))
            continue;
        if (now >= end)
            fm__future_stop(member->future, FM__STOP_FORCED, FM_CANCELLED, now);
        else
            fm__map_look_at(map, end);
    }
}
