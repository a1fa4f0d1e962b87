/* SPDX-License-Identifier: MIT */
/*
 * The ledger of a map: who has which items.
 *
 * Workers help themselves from the cursor, which is a hint that any of them can
 * spoil.  What counts is what is written here: a claim of items that somebody
 * else has, or that have ended, is void; items that were passed over are found
 * and handed out.
 */
#include <errno.h>
#include <string.h>

#include "engine/map.h"
#include "os/clock.h"
#include "os/fence.h"
#include "os/sys.h"

/* FM__PATIENCE_NS is doubled up to this while nothing changes. */
#define PATIENCE_MAX_NS (64 * FM__NS_PER_MS)

/* How long a worker without items may take to wake up for a gift. */
#define GIFT_NS (10 * FM__NS_PER_MS)

/* While a worker is between cursor and claim. */
#define CLAIMING_WAIT_NS FM__NS_PER_MS

/* A set of so many holes is no honest workers' doing. */
#define HOLES_MAX 65536u

/* Nor are so many claims of what others have. */
#define VOID_MAX (FM__RING_SIZE / FM__RECORD_HEAD)

/* ------------------------------------------------------------------ claims */

/* What is set aside for items that come back, whenever some are given out: a
 * gift of each member, and a claim, what is taken back of which becomes a hole
 * of its own. */
int fm__ledger_reserve(fm_map *map)
{
    return fm__spans_reserve(&map->spare, 4 * (size_t)map->n_members + 4);
}

void fm__ledger_distrust(fm_map *map)
{
    if (map->distrusts_cursor)
        return;
    map->distrusts_cursor = true;
    for (unsigned i = 0; i < map->n_members; i++) {
        if (map->members[i].future)
            fm__map_set_limits(map, &map->members[i]);
    }
}

int fm__ledger_add(fm_map *map, struct fm__range range)
{
    int rc = fm__ledger_reserve(map);

    return rc < 0 ? rc : fm__spans_add(&map->spare, range);
}

static void keep_again(fm_map *map, uint64_t index, unsigned attempt,
                       int64_t at)
{
    map->again[map->n_again++] =
        (struct fm__again){.index = index, .attempt = attempt, .at = at};
}

/* For one more, and for those that members have claimed or were offered. */
static int reserve_again(fm_map *map)
{
    size_t need = map->n_again + 2 * (size_t)map->n_members + 1;
    size_t size = map->again_size ? map->again_size : 8;
    struct fm__again *again;

    while (size < need)
        size *= 2;
    if (size == map->again_size)
        return 0;
    again = fm__sys.realloc(map->again, size * sizeof *again);
    if (!again)
        return -ENOMEM;
    map->again = again;
    map->again_size = size;
    return 0;
}

/* Room was set aside when they were given out. */
static void give_back(fm_map *map, uint64_t first, uint64_t end,
                      unsigned attempt)
{
    if (attempt > 1) {
        for (; first < end; first++)
            keep_again(map, first, attempt, 0);
        return;
    }
    (void)fm__spans_add(&map->spare, (struct fm__range){first, end});
}

static void release_claim(struct fm__member *member)
{
    if (fm__member_has_claim(member) && !member->is_void)
        give_back(member->map, member->first + member->done,
                  member->first + member->n, member->attempt);
    member->done = 0;
    member->n = 0;
}

void fm__ledger_release(struct fm__member *member)
{
    fm_map *map = member->map;

    release_claim(member);
    if (member->offered != 0) {
        uint64_t first = fm__span_first(member->offered);

        give_back(map, first, first + fm__span_count(member->offered),
                  member->offered_attempt);
        member->offered = 0;
    }
}

static bool is_offered(const struct fm__member *member, uint64_t first,
                       uint64_t n)
{
    return member->offered != 0 && fm__span_first(member->offered) == first &&
           fm__span_count(member->offered) == n;
}

int fm__ledger_claim(struct fm__member *member, uint64_t first, uint64_t n)
{
    fm_map *map = member->map;
    int rc;

    if (n == 0 || n > FM__CLAIM_MAX || first >= map->n_items ||
        n > map->n_items - first)
        return FM_EPROTOCOL;
    if (map->opts.is_source && !is_offered(member, first, n))
        return FM_EPROTOCOL; /* there is no cursor to take from */
    if (fm__member_has_claim(member) && !member->is_void)
        return FM_EPROTOCOL; /* a claim is left by who leaves, for good */
    rc = fm__ledger_reserve(map);
    if (rc < 0)
        return rc;
    if (is_offered(member, first, n)) {
        member->attempt = member->offered_attempt;
        member->offered = 0;
        atomic_store(&fm__member_post(member)->gift, 0);
        fm__source_take(member);
        rc = 1;
    } else {
        member->attempt = 1;
        rc = fm__spans_take(&map->spare, (struct fm__range){first, first + n});
        if (rc < 0)
            return rc;
    }
    atomic_store(&fm__member_post(member)->recall, 0);
    member->first = first;
    member->n = n;
    member->done = 0;
    member->seen_item = UINT64_MAX; /* its time begins when it is seen there */
    member->is_void = rc == 0;
    member->item_bytes = 0;
    if (member->is_void || map->spare.n > HOLES_MAX)
        fm__ledger_distrust(map);
    /* More than its ring could hold when the cursor was taken from it. */
    return member->is_void && ++member->n_void > VOID_MAX ? FM_EPROTOCOL : 0;
}

bool fm__ledger_try_again(fm_map *map, uint64_t index, unsigned attempt,
                          enum fm_kind kind, int64_t now)
{
    const struct fm_job_opts *opts = &map->opts.job;

    if (attempt > opts->retries || !(opts->retry_on & FM_KIND_BIT(kind)) ||
        map->state != FM__MAP_RUNNING || reserve_again(map) < 0)
        return false;
    keep_again(map, index, attempt + 1,
               fm__clock_after(now, fm__job_get_pause(opts, attempt)));
    return true;
}

/* ----------------------------------------------------------------- safety */

/* Before rings are read: what the cursor has passed now was claimed by workers
 * that have said so, or are about to. */
void fm__ledger_look(fm_map *map)
{
    map->safe =
        map->distrusts_cursor ? map->n_items : atomic_load(&map->board->cursor);
    if (map->opts.is_source)
        return; /* nobody ever took from the cursor */
    for (unsigned i = 0; i < map->n_members; i++) {
        struct fm__member *member = &map->members[i];

        if (member->future && member->future->channel &&
            atomic_load(&fm__member_post(member)->claiming) != 0)
            map->safe = 0;
    }
    if (map->safe > map->n_items)
        map->safe = map->n_items;
}

static void check_drained(fm_map *map)
{
    if (map->opts.is_source) {
        map->safe = map->n_items; /* callbacks may have fed more */
        return;
    }
    for (unsigned i = 0; i < map->n_members; i++) {
        if (map->members[i].future && !map->members[i].is_drained)
            map->safe = 0;
    }
}

/* ------------------------------------------------------------------- gifts */

/* Can work, as far as is known. */
static bool is_at_work(const struct fm__member *member)
{
    return fm__member_is_ready(member) && !member->in_frames &&
           atomic_load(&fm__member_post(member)->leaves) == 0;
}

/* Without a cursor it has what it was given, so who has said all of that is as
 * good as idle; it will look for a gift before it sleeps. */
static bool is_idle(const struct fm__member *member)
{
    if (!is_at_work(member) || member->offered != 0 ||
        fm__member_has_claim(member))
        return false;
    return member->map->opts.is_source ||
           fm__span_low(atomic_load(&fm__member_post(member)->word)) ==
               FM__WORD_IDLE;
}

/* It has said nothing since it let a gift lie. */
static bool is_slow(const struct fm__member *member)
{
    return member->is_slow && member->n_read == member->slow_read;
}

static void offer(struct fm__member *member, uint64_t first, uint64_t n,
                  unsigned attempt)
{
    struct fm__post *post = fm__member_post(member);

    if (member->map->opts.is_source)
        fm__source_offer(member, first, n);
    member->offered = fm__span(first, n, FM__GIFT_OFFERED);
    member->offered_at = fm__clock_now();
    member->offered_attempt = attempt;
    atomic_store(&post->gift_attempt, attempt);
    atomic_store(&post->gift, member->offered);
    fm__map_call(member);
}

/* The next that is due, first. */
static bool take_again(fm_map *map, int64_t now, struct fm__again *ret)
{
    for (size_t i = 0; i < map->n_again; i++) {
        if (map->again[i].at > now)
            continue;
        *ret = map->again[i];
        map->n_again--;
        memmove(map->again + i, map->again + i + 1,
                (map->n_again - i) * sizeof *map->again);
        return true;
    }
    return false;
}

/* As many items of a source as its worker has lately done in about a
 * millisecond. */
static uint64_t gift_size(const struct fm__member *member, uint64_t most)
{
    uint64_t pace = atomic_load(&fm__member_post(member)->pace);

    if (!member->map->opts.is_source || pace >= most)
        return most;
    return pace > 0 ? pace : 1;
}

/* Some of what was passed over, or came in addition. */
static bool take_hole(struct fm__member *member, struct fm__range *ret)
{
    fm_map *map = member->map;
    const struct fm_map_opts *opts = &map->opts;
    uint64_t most = opts->chunk_max ? opts->chunk_max : FM__CLAIM_MAX;
    uint64_t end = map->safe;
    uint64_t share;

    if (opts->max_active > 0 && end > map->n_consumed + opts->max_active)
        end = map->n_consumed + opts->max_active;
    if (!fm__spans_first(&map->spare, ret) || ret->first >= end)
        return false;
    if (ret->end > end)
        ret->end = end;
    share = (ret->end - ret->first + map->n_members - 1) / map->n_members;
    if (share > gift_size(member, most))
        share = gift_size(member, most);
    if (share < opts->chunk_min)
        share = opts->chunk_min;
    if (share > most)
        share = most;
    if (share > FM__CLAIM_MAX)
        share = FM__CLAIM_MAX;
    if (ret->end - ret->first > share)
        ret->end = ret->first + share;
    return fm__spans_take(&map->spare, *ret) > 0;
}

static bool give(fm_map *map, struct fm__member *member, int64_t now)
{
    struct fm__again again;
    struct fm__range hole;

    if (fm__ledger_reserve(map) < 0)
        return false;
    if (take_again(map, now, &again)) {
        offer(member, again.index, 1, again.attempt);
        return true;
    }
    if (take_hole(member, &hole)) {
        offer(member, hole.first, hole.end - hole.first, 1);
        return true;
    }
    return false;
}

static bool gets_gift(const struct fm__member *member, int turn)
{
    if (turn == 0)
        return is_idle(member) && !is_slow(member);
    if (member->map->opts.isolate == FM_ISOLATE_CHUNK && turn == 1)
        return false; /* it will have no next claim */
    return is_at_work(member) && member->offered == 0 &&
           (turn == 2 ? is_idle(member) : !is_slow(member));
}

/* Idle ones first; then those that will have time at their next claim; then
 * those that seem to sleep. */
static void give_all(fm_map *map, int64_t now)
{
    for (int turn = 0; turn < 3; turn++) {
        for (unsigned i = 0; i < map->n_members; i++) {
            struct fm__member *member = &map->members[i];

            if (gets_gift(member, turn) && !give(map, member, now))
                return;
        }
    }
}

/* --------------------------------------------------------------- taking back
 */

static bool take_back_gift(struct fm__member *member)
{
    uint64_t gift = member->offered;
    uint64_t first = fm__span_first(gift);

    if (!atomic_compare_exchange_strong(&fm__member_post(member)->gift, &gift,
                                        0))
        return false;
    give_back(member->map, first, first + fm__span_count(member->offered),
              member->offered_attempt);
    member->offered = 0;
    fm__source_take_back(member);
    return true;
}

/* A gift that a worker has not taken yet, because it is busy or stands still;
 * who leaves never will. */
static bool take_back_gifts(fm_map *map, int64_t now)
{
    for (unsigned i = 0; i < map->n_members; i++) {
        struct fm__member *member = &map->members[i];
        int64_t at = member->offered_at + GIFT_NS;

        if (member->offered == 0 || !fm__member_is_ready(member))
            continue;
        if (is_at_work(member) && !fm__member_has_claim(member) && now < at) {
            fm__map_look_at(map, at);
            continue;
        }
        if (!take_back_gift(member))
            continue;
        member->is_slow = true;
        member->slow_read = member->n_read;
        atomic_store(&fm__member_post(member)->ask, 1);
        fm__map_call(member);
        return true;
    }
    return false;
}

/* Has it been in the item `at` for a while? */
static bool stands_still(struct fm__member *member, uint64_t at, int64_t now)
{
    fm_map *map = member->map;

    if (at != member->seen_at) {
        member->seen_at = at;
        member->seen_at_since = now;
    }
    if (now - member->seen_at_since >= FM__PATIENCE_NS)
        return true;
    fm__map_look_at(map, now + FM__PATIENCE_NS);
    return false;
}

/* Have the worker go on by swaps; afterwards what it says of the item that it
 * is in holds until it swaps.  See process/post.h. */
static bool recall(struct fm__member *member)
{
    atomic_store(&fm__member_post(member)->recall, 1);
    return !member->map->has_fence || fm__fence_all();
}

/* The item that it is in.  After a swap the word tells so first. */
static uint64_t item_of(const struct fm__member *member, uint64_t word)
{
    uint64_t at = atomic_load(&fm__member_post(member)->at);

    return at < fm__span_first(word) ? fm__span_first(word) : at;
}

/* The items after the one that the worker is in, if that stands still. */
static bool take_back_rest(struct fm__member *member, int64_t now)
{
    struct fm__post *post = fm__member_post(member);
    uint64_t word = atomic_load(&post->word);
    uint64_t end = fm__span_first(word) + fm__span_count(word) + 1;
    uint64_t at = item_of(member, word);
    uint64_t bare = fm__span(at, 0, fm__span_low(word));

    if (at + 1 >= end || member->is_void ||
        fm__span_low(word) == FM__WORD_IDLE ||
        fm__span_low(word) == FM__WORD_CONDEMNED)
        return false;
    if (!stands_still(member, at, now))
        return false;
    if (at + 1 < member->first + member->done ||
        end != member->first + member->n || fm__ledger_reserve(member->map) < 0)
        return false; /* it lies, or has said more than was read */
    if (!recall(member) || item_of(member, word) != at ||
        !atomic_compare_exchange_strong(&post->word, &word, bare))
        return false;
    member->n = at + 1 - member->first;
    give_back(member->map, at + 1, end, member->attempt);
    fm__source_cut(member, at + 1);
    return true;
}

/* It goes no further than the item that it is in. */
void fm__ledger_condemned(struct fm__member *member, uint64_t word)
{
    uint64_t next = fm__span_first(word) + 1;
    uint64_t count = fm__span_count(word);

    if (member->offered != 0)
        (void)take_back_gift(member);
    if (count == 0 || member->is_void || !fm__member_has_claim(member) ||
        next < member->first + member->done ||
        next + count != member->first + member->n ||
        fm__ledger_reserve(member->map) < 0)
        return;
    member->n -= count;
    give_back(member->map, next, next + count, member->attempt);
    fm__source_cut(member, next);
}

/* Items that wait for workers which are busy, and that another one, if there
 * was one, could have. */
uint64_t fm__ledger_count_held(fm_map *map, int64_t now)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < map->n_members; i++) {
        struct fm__member *member = &map->members[i];
        uint64_t word;

        if (!is_at_work(member) || !fm__member_has_claim(member))
            continue;
        word = atomic_load(&fm__member_post(member)->word);
        n += fm__span_count(member->offered);
        if (member->n - member->done > 1 &&
            stands_still(member, item_of(member, word), now))
            n += member->n - member->done - 1;
    }
    return n;
}

/* There is a worker without items: find some for it. */
static bool take_back(fm_map *map, int64_t now)
{
    bool is_open = false;

    if (take_back_gifts(map, now))
        return true;
    for (unsigned i = 0; i < map->n_members; i++) {
        struct fm__member *member = &map->members[i];

        if (!is_at_work(member) || !fm__member_has_claim(member))
            continue;
        if (take_back_rest(member, now))
            return true;
        is_open |= member->n - member->done > 1;
    }
    if (is_open && map->look_at > now + map->patience) {
        map->look_at = now + map->patience;
        if (map->patience < PATIENCE_MAX_NS)
            map->patience *= 2;
    }
    return false;
}

/* Its last record is read before it is believed that it leaves. */
static bool has_left(struct fm__member *member)
{
    const unsigned char *data;

    return fm__member_says_left(member) &&
           fm__ring_peek_all(&member->future->channel->ring, &data) == 0;
}

/* Who was told that there are no more leaves the rest of its claim. */
static void release_left(fm_map *map)
{
    for (unsigned i = 0; i < map->n_members; i++) {
        struct fm__member *member = &map->members[i];

        if (fm__member_is_ready(member) && has_left(member))
            release_claim(member);
    }
}

static bool has_idle(const fm_map *map)
{
    for (unsigned i = 0; i < map->n_members; i++) {
        if (is_idle(&map->members[i]) && !is_slow(&map->members[i]))
            return true;
    }
    return false;
}

void fm__ledger_hand_out(fm_map *map, int64_t now)
{
    struct fm__range first;
    uint64_t passed =
        map->distrusts_cursor ? map->n_items : atomic_load(&map->board->cursor);

    check_drained(map);
    release_left(map);
    if (map->safe == 0 && fm__spans_first(&map->spare, &first) &&
        first.first < passed)
        fm__map_look_at(map, now + CLAIMING_WAIT_NS);
    for (;;) {
        give_all(map, now);
        if (!has_idle(map) || !take_back(map, now))
            return;
        map->patience = FM__PATIENCE_NS;
    }
}
