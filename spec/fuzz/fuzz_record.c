/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as what a worker of a map says.
 *
 * The first byte chooses raw bytes or a script of records, with heads that are
 * right or not; the second how the parent is given the items that come back.
 * Whatever is said: each item has one outcome at most, none is lost, and no
 * more memory is held than what one result may have.
 */
#include "fuzz.h"

#include <stdatomic.h>

#include "engine/map.h"

#define N_ITEMS 50
#define LIMIT 4096

static struct fm_engine engine;
static struct fm_future future;
static struct fm__channel channel;
static struct fm__ring_shared ring_shared;
static struct fm__post post;
static struct fm__board board;
static _Alignas(64) unsigned char bytes[FM__RING_SIZE];
static unsigned char seen[N_ITEMS];
static uint64_t n_came;

static void take(fm_map *map, const struct fm_item *item, void *ud)
{
    const unsigned char *data = item->data;
    unsigned sum = 0;

    (void)map;
    (void)ud;
    REQUIRE(item->index < N_ITEMS && !seen[item->index]);
    seen[item->index] = 1;
    n_came++;
    REQUIRE(item->len <= LIMIT);
    for (size_t i = 0; i < item->len; i++)
        sum += data[i];
    if (item->type != FM_ITEM_FAILED)
        return;
    REQUIRE(item->outcome->kind != FM_VALUE);
    if (item->outcome->message)
        sum += (unsigned)strlen(item->outcome->message);
    if (item->outcome->traceback)
        sum += (unsigned)strlen(item->outcome->traceback);
    REQUIRE(sum < UINT32_MAX); /* all of them can be read */
}

static void take_event(fm_map *map, const struct fm_item *item, void *ud)
{
    (void)map;
    (void)ud;
    REQUIRE(item->index < N_ITEMS && item->len <= LIMIT);
}

static fm_map *make(unsigned retries)
{
    fm_map *map = calloc(1, sizeof *map + sizeof(struct fm__member));
    struct fm__member *member = &map->members[0];

    memset(&engine, 0, sizeof engine);
    memset(&future, 0, sizeof future);
    memset(&ring_shared, 0, sizeof ring_shared);
    memset(&post, 0, sizeof post);
    memset(&board, 0, sizeof board);
    memset(seen, 0, sizeof seen);
    n_came = 0;
    fm__ring_init(&channel.ring, &ring_shared, bytes, sizeof bytes);
    channel.post = &post;
    future.engine = &engine;
    future.channel = &channel;
    future.member = member;
    future.state = FM_RUNNING;
    future.opts.limits.result = LIMIT;
    fm__inbox_init(&future.inbox, 1, LIMIT);
    map->engine = &engine;
    map->refs = 2;
    map->board = &board;
    map->n_items = N_ITEMS;
    map->opts.n_items = N_ITEMS;
    map->opts.on_item = take;
    map->opts.on_event = take_event;
    map->opts.job.retries = retries;
    map->opts.job.retry_on = FM_KIND_BIT(FM_ERROR);
    map->is_fed = true;
    map->n_members = 1;
    map->n_living = 1;
    member->map = map;
    member->future = &future;
    member->is_drained = true;
    fm__buffer_init(&member->pieces,
                    LIMIT + FM__RECORD_TEXTS_MAX + FM__RECORD_PAYLOAD_MAX);
    REQUIRE(fm__ledger_reserve(map) == 0);
    REQUIRE(fm__spans_add(&map->spare, (struct fm__range){0, N_ITEMS}) == 0);
    return map;
}

/* Where items are adds up to all of them. */
static void check(const fm_map *map)
{
    const struct fm__member *member = &map->members[0];
    uint64_t held = 0;

    if (fm__member_has_claim(member) && !member->is_void)
        held = member->n - member->done;
    held += fm__span_count(member->offered);
    REQUIRE(member->done <= member->n);
    REQUIRE(member->pieces.len <= member->pieces.limit);
    REQUIRE(map->n_settled == n_came || map->state != FM__MAP_RUNNING);
    if (map->state == FM__MAP_RUNNING)
        REQUIRE(map->spare.count + map->n_again + map->n_settled + held ==
                N_ITEMS);
}

/* As the loop does. */
static void come_by(fm_map *map)
{
    if (map->state == FM__MAP_RUNNING)
        fm__ledger_look(map);
    fm__member_drain(&map->members[0], 8 * FM__RING_SIZE);
    check(map);
    if (map->state == FM__MAP_RUNNING && future.inbox.ending == FM__ENDING_OPEN)
        fm__ledger_hand_out(map, INT64_C(1) << 40);
    check(map);
}

static void put(const void *data, size_t len)
{
    struct fm__ring writer;
    const unsigned char *p = data;

    fm__ring_init(&writer, &ring_shared, bytes, sizeof bytes);
    writer.at = atomic_load(&ring_shared.tail);
    for (; len > 0; len--, p++, writer.at++)
        bytes[(size_t)writer.at & (sizeof bytes - 1)] = *p;
    fm__ring_commit(&writer, 0);
}

/* One record: kind, length, number, and sometimes a lie; then its payload. */
static size_t put_record(const uint8_t *p, size_t n)
{
    static _Alignas(16) unsigned char record[FM__RECORD_HEAD + 256];
    uint32_t len = p[1];
    unsigned kind = p[0] % (FM__RECORD_KINDS + 1);
    size_t payload =
        kind == FM__RECORD_PAD || kind >= FM__RECORD_DATA ? len : 0;

    memset(record, 0, sizeof record);
    fm__record_put(record, kind, p[3], len, p[2]);
    if (p[3] >= 0xf8) /* any bit of the head */
        record[p[2] & 15] ^= p[1];
    payload = payload < n - 4 ? payload : n - 4;
    memcpy(record + FM__RECORD_HEAD, p + 4, payload);
    put(record, FM__RECORD_HEAD + fm__record_padded((uint32_t)payload));
    return 4 + payload;
}

static void finish(fm_map *map)
{
    struct fm__member *member = &map->members[0];

    fm__ledger_release(member);
    check(map);
    fm__buffer_done(&member->pieces);
    fm__inbox_done(&future.inbox);
    fm__spans_done(&map->spare);
    free(map->again);
    free(map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static _Alignas(16) unsigned char begun[2 * FM__RECORD_HEAD];
    fm_map *map;
    unsigned every;

    if (size < 6 || size > 16384)
        return 0;
    map = make(data[1] & 3);
    every = data[1] >> 2;
    if (data[0] & 2) { /* an item of which nobody knows yet */
        fm__record_put(begun, FM__RECORD_READY, 0, 0, 0);
        fm__record_put(begun + FM__RECORD_HEAD, FM__RECORD_CLAIM, 1, 5, 7);
        put(begun, sizeof begun);
    }
    if (data[0] & 1) {
        put(data + 2, size - 2);
    } else {
        const uint8_t *p = data + 2;

        for (size_t n = size - 2, i = 0; n >= 4; i++) {
            size_t used = put_record(p, n);

            p += used;
            n -= used;
            if (every == 0 || i % every == 0)
                come_by(map);
        }
    }
    come_by(map);
    finish(map);
    return 0;
}
