/* SPDX-License-Identifier: MIT */
/*
 * Watchers; see watcher.h.
 *
 * The poller knows each descriptor once, for all that its watchers want, by a
 * tag that tells a slot of the engine's table and which of those that had this
 * slot it is.
 */
#include "engine/watcher.h"

#include <errno.h>
#include <string.h>

#include "engine/engine.h"
#include "os/fds.h"
#include "os/sys.h"

/* One descriptor; free when nobody watches it. */
struct fm__watched {
    struct fm__watcher *first, *last;
    int fd;
    unsigned events;  /* that the poller looks for; 0: it does not have it */
    uint32_t version; /* 31 bits: changes when the slot is taken */
};

#define VERSION_MASK 0x7fffffffu
#define SLOTS_FIRST 8

static uint64_t make_tag(const fm_engine *engine, unsigned slot)
{
    return FM__WATCHED_TAG | (uint64_t)engine->watched[slot].version << 32 |
           slot;
}

static void count(struct fm__watcher *watcher)
{
    bool counts = watcher->engine && watcher->holds && watcher->events != 0;

    if (counts && !watcher->is_counted)
        watcher->engine->n_holding++;
    else if (!counts && watcher->is_counted)
        watcher->engine->n_holding--;
    watcher->is_counted = counts;
}

/* ---------------------------------------------------------------- the table */

static int grow(fm_engine *engine)
{
    unsigned n = engine->n_watched;
    unsigned size = n > 0 ? 2 * n : SLOTS_FIRST;
    struct fm__watched *watched =
        fm__sys.realloc(engine->watched, size * sizeof *watched);

    if (!watched)
        return -ENOMEM;
    memset(watched + n, 0, (size - n) * sizeof *watched);
    engine->watched = watched;
    engine->n_watched = size;
    return 0;
}

/* The slot of `fd`, or a free one.  Returns it or a negative code. */
static int find_slot(fm_engine *engine, int fd)
{
    unsigned n = engine->n_watched, free_slot = n;
    struct fm__watched *entry;
    int rc;

    for (unsigned i = 0; i < n; i++) {
        entry = &engine->watched[i];
        if (entry->first && entry->fd == fd)
            return (int)i;
        if (!entry->first && free_slot == n)
            free_slot = i;
    }
    if (free_slot == n) {
        rc = grow(engine);
        if (rc < 0)
            return rc;
    }
    entry = &engine->watched[free_slot];
    entry->fd = fd;
    entry->events = 0;
    entry->version = (entry->version + 1) & VERSION_MASK;
    return (int)free_slot;
}

static unsigned wanted(const struct fm__watched *entry)
{
    unsigned events = 0;

    for (const struct fm__watcher *w = entry->first; w; w = w->next)
        events |= w->events;
    return events;
}

/* Have the poller look for what the watchers of a slot want.  A paused one is
 * taken out, as pollers tell of errors even when nothing is asked for. */
static int update(fm_engine *engine, unsigned slot)
{
    struct fm__watched *entry = &engine->watched[slot];
    unsigned events = wanted(entry);
    int rc = 0;

    if (events == entry->events)
        return 0;
    if (events == 0) {
        fm__poller_remove(&engine->poller, entry->fd);
    } else {
        rc = entry->events == 0
                 ? -ENOENT
                 : fm__poller_set(&engine->poller, entry->fd, events,
                                  make_tag(engine, slot));
        if (rc == -ENOENT) /* or it was closed, and the number is another's */
            rc = fm__poller_add(&engine->poller, entry->fd, events,
                                make_tag(engine, slot));
    }
    if (rc == 0)
        entry->events = events;
    return rc;
}

static void link_in(struct fm__watcher *watcher, struct fm__watched *entry)
{
    watcher->next = NULL;
    watcher->prev = entry->first ? entry->last : NULL;
    if (entry->first)
        entry->last->next = watcher;
    else
        entry->first = watcher;
    entry->last = watcher;
}

static void unlink_from(struct fm__watcher *watcher, struct fm__watched *entry)
{
    if (watcher->prev)
        watcher->prev->next = watcher->next;
    else
        entry->first = watcher->next;
    if (watcher->next)
        watcher->next->prev = watcher->prev;
    else
        entry->last = watcher->prev;
    watcher->prev = NULL;
    watcher->next = NULL;
}

/* ---------------------------------------------------------------- the verbs */

static bool is_ours(const fm_engine *engine)
{
    return engine->generation == fm__fds_generation();
}

int fm__watcher_add(fm_engine *engine, struct fm__watcher *watcher, int fd,
                    unsigned events)
{
    int slot, rc;

    if (fd < 0)
        return -EBADF;
    if (watcher->engine)
        return -EINVAL;
    if (engine->closed || !is_ours(engine))
        return FM_ECLOSED;
    slot = find_slot(engine, fd);
    if (slot < 0)
        return slot;
    watcher->fd = fd;
    watcher->slot = (unsigned)slot;
    watcher->since = engine->n_batches;
    watcher->events = events;
    link_in(watcher, &engine->watched[slot]);
    rc = update(engine, watcher->slot);
    if (rc < 0) {
        unlink_from(watcher, &engine->watched[slot]);
        return rc;
    }
    watcher->engine = engine;
    engine->n_watchers++;
    count(watcher);
    return 0;
}

int fm__watcher_set(struct fm__watcher *watcher, unsigned events)
{
    unsigned before = watcher->events;
    int rc;

    if (!watcher->engine || !is_ours(watcher->engine))
        return FM_ECLOSED;
    watcher->events = events;
    rc = update(watcher->engine, watcher->slot);
    if (rc < 0)
        watcher->events = before;
    count(watcher);
    return rc;
}

void fm__watcher_remove(struct fm__watcher *watcher)
{
    fm_engine *engine = watcher->engine;

    if (!engine)
        return;
    if (engine->next_watcher == watcher)
        engine->next_watcher = watcher->next;
    unlink_from(watcher, &engine->watched[watcher->slot]);
    watcher->events = 0;
    count(watcher);
    engine->n_watchers--;
    watcher->engine = NULL;
    if (is_ours(engine))
        (void)update(engine, watcher->slot);
}

void fm__watcher_end_step(const struct fm__watcher *watcher)
{
    if (watcher->engine)
        watcher->engine->has_news = true;
}

/* --------------------------------------------------------------- the engine */

void fm__watchers_hear(fm_engine *engine, uint64_t tag, unsigned events)
{
    unsigned slot = (uint32_t)tag;
    struct fm__watcher *watcher = NULL;

    if (slot < engine->n_watched && make_tag(engine, slot) == tag)
        watcher = engine->watched[slot].first;
    while (watcher) {
        /* fm__watcher_remove() moves it on. */
        engine->next_watcher = watcher->next;
        /* To one that was added in this batch it is old news. */
        if (watcher->since != engine->n_batches && watcher->events & events)
            watcher->fn(watcher, watcher->events & events);
        watcher = engine->next_watcher;
    }
    engine->next_watcher = NULL;
}

void fm__watchers_drop(fm_engine *engine)
{
    for (unsigned i = 0; i < engine->n_watched; i++) {
        while (engine->watched[i].first)
            fm__watcher_remove(engine->watched[i].first);
    }
    fm__sys.free(engine->watched);
    engine->watched = NULL;
    engine->n_watched = 0;
}
