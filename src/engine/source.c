/* SPDX-License-Identifier: MIT */
/*
 * Items that come after the fork: a map with a source.
 *
 * Its workers have no cursor: all items are given.  The bytes of an item stay
 * here until it has its outcome, as its worker may die, or lose it to another
 * one; into a worker's tray go copies, as far as there is room, when a gift is
 * offered and whenever the loop comes by.  Nothing is taken out of a tray
 * again: its reader passes over what it does not want.
 */
#include <errno.h>
#include <string.h>

#include "engine/map.h"
#include "os/memory.h"
#include "os/sys.h"
#include "process/channel.h"

#define TRAY_HEAD 4096
#define TRAY_SIZE FM__RING_SIZE

#define HEADS_MIN 64

_Static_assert(sizeof(struct fm__ring_shared) <= TRAY_HEAD, "one page");

/* ------------------------------------------------------------------- stock */

static struct fm__stocked **find(const struct fm__stock *stock, uint64_t index)
{
    struct fm__stocked **link = &stock->heads[index & (stock->size - 1)];

    while (*link && (*link)->index != index)
        link = &(*link)->next;
    return link;
}

static int grow(struct fm__stock *stock)
{
    struct fm__stock wider = *stock;

    if (stock->n < stock->size)
        return 0;
    wider.size = stock->size ? 2 * stock->size : HEADS_MIN;
    wider.heads = fm__sys.calloc(wider.size, sizeof(void *));
    if (!wider.heads)
        return -ENOMEM;
    for (size_t i = 0; i < stock->size; i++) {
        struct fm__stocked *next;

        for (struct fm__stocked *it = stock->heads[i]; it; it = next) {
            struct fm__stocked **link = find(&wider, it->index);

            next = it->next;
            it->next = NULL;
            *link = it;
        }
    }
    fm__sys.free(stock->heads);
    *stock = wider;
    return 0;
}

static int put(struct fm__stock *stock, uint64_t index, const void *data,
               size_t len, int format)
{
    struct fm__stocked *item;

    if (len > SIZE_MAX / 2 || grow(stock) < 0)
        return -ENOMEM;
    item = fm__sys.malloc(sizeof *item + len);
    if (!item)
        return -ENOMEM;
    item->next = NULL;
    item->index = index;
    item->len = len;
    item->format = format;
    if (len > 0)
        memcpy(item->data, data, len);
    *find(stock, index) = item;
    stock->n++;
    stock->bytes += len;
    return 0;
}

static void drop(struct fm__stock *stock, struct fm__stocked **link)
{
    struct fm__stocked *item = *link;

    *link = item->next;
    stock->n--;
    stock->bytes -= item->len;
    fm__sys.free(item);
}

void fm__source_drop(fm_map *map, uint64_t index)
{
    struct fm__stock *stock = &map->stock;
    struct fm__stocked **link;

    if (stock->n == 0)
        return;
    link = find(stock, index);
    if (*link)
        drop(stock, link);
}

void fm__source_done(fm_map *map)
{
    struct fm__stock *stock = &map->stock;

    for (size_t i = 0; i < stock->size; i++) {
        while (stock->heads[i])
            drop(stock, &stock->heads[i]);
    }
    fm__sys.free(stock->heads);
    memset(stock, 0, sizeof *stock);
}

/* ------------------------------------------------------------------- trays */

int fm__source_open_tray(struct fm__member *member)
{
    struct fm__tray *tray = &member->tray;
    unsigned char *p;

    fm__source_close_tray(member);
    p = fm__memory_share(TRAY_HEAD + TRAY_SIZE);
    if (!p)
        return -errno;
    /* The mapping is fresh, so the ring is empty. */
    fm__ring_init(&tray->ring, (struct fm__ring_shared *)(void *)p,
                  p + TRAY_HEAD, TRAY_SIZE);
    tray->is_cut = false;
    memset(member->pours, 0, sizeof member->pours);
    return fm__memory_inherit(p, TRAY_HEAD + TRAY_SIZE, true);
}

void fm__source_keep_tray(const struct fm__member *member)
{
    if (member->tray.ring.shared)
        (void)fm__memory_inherit(member->tray.ring.shared,
                                 TRAY_HEAD + TRAY_SIZE, false);
}

/* Processes that the worker has left behind may still write into it. */
void fm__source_close_tray(struct fm__member *member)
{
    fm__memory_unshare(member->tray.ring.shared, TRAY_HEAD + TRAY_SIZE);
    memset(&member->tray, 0, sizeof member->tray);
}

/* ----------------------------------------------------------------- pouring */

static void give_up(struct fm__member *member, struct fm__pour *pour)
{
    if (pour->done > 0)
        member->tray.is_cut = true;
    memset(pour, 0, sizeof *pour);
}

/* One item, or the rest of it.  As fm__tray_put(). */
static int pour_item(struct fm__member *member, struct fm__pour *pour)
{
    const struct fm__stock *stock = &member->map->stock;
    const struct fm__stocked *item =
        stock->n > 0 ? *find(stock, pour->next) : NULL;
    struct fm__parcel parcel;
    int rc;

    if (item) {
        parcel.index = item->index;
        parcel.format = item->format;
        parcel.data = item->data;
        parcel.len = item->len;
        rc = fm__tray_put(&member->tray, &parcel, &pour->done);
        if (rc <= 0)
            return rc;
    } else if (pour->done > 0) {
        member->tray.is_cut = true; /* its worker has settled it unread */
    }
    pour->next++;
    pour->done = 0;
    return 1;
}

void fm__source_pour(struct fm__member *member)
{
    uint64_t before = member->tray.ring.at;
    int rc = 1;

    for (int i = 0; i < 2 && rc > 0; i++) {
        struct fm__pour *pour = &member->pours[i];

        while (pour->next < pour->end && rc > 0)
            rc = pour_item(member, pour);
    }
    if (rc < 0) {
        fm__member_refuse(member, rc);
        member->map->look_at = 0;
    }
    if (member->tray.ring.at != before)
        fm__map_call(member);
}

void fm__source_pour_all(fm_map *map)
{
    for (unsigned i = 0; i < map->n_members; i++) {
        struct fm__member *member = &map->members[i];

        if (member->tray.ring.shared && member->future->channel &&
            member->future->inbox.ending == FM__ENDING_OPEN)
            fm__source_pour(member);
    }
}

void fm__source_offer(struct fm__member *member, uint64_t first, uint64_t n)
{
    member->pours[1] = (struct fm__pour){.next = first, .end = first + n};
    fm__source_pour(member);
}

void fm__source_take(struct fm__member *member)
{
    give_up(member, &member->pours[0]);
    member->pours[0] = member->pours[1];
    memset(&member->pours[1], 0, sizeof member->pours[1]);
}

void fm__source_take_back(struct fm__member *member)
{
    give_up(member, &member->pours[1]);
}

void fm__source_cut(struct fm__member *member, uint64_t end)
{
    struct fm__pour *pour = &member->pours[0];

    if (pour->next >= end)
        give_up(member, pour);
    else
        pour->end = end;
}

/* ------------------------------------------------------------------ public */

/* The next step has something to do. */
static void note_work(fm_map *map)
{
    if (map->look_at == 0)
        return;
    map->look_at = 0;
    if (fm__engine_enter(map->engine))
        fm__engine_leave(map->engine);
}

static int check_feed(const fm_map *map)
{
    if (!map->opts.is_source)
        return -EINVAL;
    if (map->state != FM__MAP_RUNNING || map->is_fed ||
        !fm__engine_is_ours(map->engine) || map->engine->closed)
        return FM_ECLOSED;
    if (map->n_items >= FM__ITEMS_MAX)
        return FM_ELIMIT;
    if (map->opts.max_active > 0 &&
        map->n_items - map->n_consumed >= map->opts.max_active)
        return -EAGAIN;
    return 0;
}

int fm_map_feed(fm_map *map, const void *data, size_t len, int format)
{
    struct fm__range range = {map->n_items, map->n_items + 1};
    int rc = check_feed(map);

    if (rc == 0 && (format < 0 || format > 255))
        rc = -EINVAL;
    if (rc == 0)
        rc = put(&map->stock, range.first, data, len, format);
    if (rc < 0)
        return rc;
    rc = fm__ledger_add(map, range);
    if (rc < 0) {
        fm__source_drop(map, range.first);
        return rc;
    }
    map->n_items++;
    note_work(map);
    return 0;
}

int fm_map_feed_none(fm_map *map)
{
    int rc = check_feed(map);

    if (rc < 0)
        return rc;
    map->n_items++;
    map->n_settled++;
    return 0;
}

void fm_map_feed_end(fm_map *map)
{
    if (!map->opts.is_source || map->is_fed || !fm__engine_is_ours(map->engine))
        return;
    map->is_fed = true;
    note_work(map);
}

uint64_t fm_map_count_open(const fm_map *map)
{
    return map->n_items - map->n_settled;
}

uint64_t fm_map_count_bytes(const fm_map *map)
{
    return map->stock.bytes;
}
