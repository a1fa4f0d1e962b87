/* SPDX-License-Identifier: MIT */
/*
 * The memory of engines, futures, channels and slots.
 *
 * An engine has room in itself for one future, one channel and a few slots:
 * after a fork the first write to each page of the host copies it, and a host
 * with one job at a time should pay for one page.  More of them are allocated.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/template.h"
#include "os/sys.h"

/* Idle channels kept for the next jobs. */
#define IDLE_MAX 8

/* Zeroed, in a page of its own.  From a block of twice the size: what aligned
 * allocations leave over fragments the heap of a host that makes many engines.
 */
fm_engine *fm__engine_alloc(void)
{
    char *block = fm__sys.malloc((size_t)2 * FM__HOME_SIZE);
    uintptr_t skip = FM__HOME_SIZE - (uintptr_t)block % FM__HOME_SIZE;
    fm_engine *engine;

    if (!block)
        return NULL;
    engine = (fm_engine *)(void *)(block + skip % FM__HOME_SIZE);
    memset(engine, 0, sizeof *engine);
    engine->block = block;
    engine->slots = engine->home_slots;
    engine->n_slots = FM__HOME_SLOTS;
    return engine;
}

void fm__engine_release(fm_engine *engine)
{
    fm__sys.free(engine->block);
}

fm_future *fm__future_alloc(fm_engine *engine)
{
    if (engine->has_home_future)
        return fm__sys.calloc(1, sizeof(fm_future));
    engine->has_home_future = true;
    memset(&engine->home_future, 0, sizeof engine->home_future);
    return &engine->home_future;
}

void fm__future_free(fm_engine *engine, fm_future *future)
{
    if (future == &engine->home_future)
        engine->has_home_future = false;
    else
        fm__sys.free(future);
}

/* ------------------------------------------------------------- channels */

static void free_channel(fm_engine *engine, struct fm__channel *channel)
{
    fm__channel_close(channel);
    if (channel == &engine->home_channel)
        engine->has_home_channel = false;
    else
        fm__sys.free(channel);
}

static int new_channel(fm_engine *engine, struct fm__channel **ret_channel)
{
    struct fm__channel *channel = &engine->home_channel;
    bool is_home = !engine->has_home_channel;
    int rc;

    if (!is_home)
        channel = fm__sys.malloc(sizeof *channel);
    if (!channel)
        return -ENOMEM;
    rc = fm__channel_open(channel);
    if (rc < 0 && !is_home)
        fm__sys.free(channel);
    if (rc < 0)
        return rc;
    if (is_home)
        engine->has_home_channel = true;
    *ret_channel = channel;
    return 0;
}

int fm__channel_take(fm_engine *engine, struct fm__channel **ret_channel)
{
    struct fm__channel *channel = engine->idle;

    if (!channel)
        return new_channel(engine, ret_channel);
    engine->idle = channel->next;
    engine->n_idle--;
    fm__channel_clear(channel);
    *ret_channel = channel;
    return 0;
}

void fm__channel_give(fm_engine *engine, struct fm__channel *channel,
                      bool reusable)
{
    if (!channel)
        return;
    if (channel->owner) {
        fm__template_give_channel(channel, reusable);
        return;
    }
    if (!reusable || engine->n_idle >= IDLE_MAX || engine->closed ||
        channel->lifeline.write_fd < 0) {
        free_channel(engine, channel);
        return;
    }
    channel->next = engine->idle;
    engine->idle = channel;
    engine->n_idle++;
}

void fm__channel_drop_idle(fm_engine *engine)
{
    while (engine->idle) {
        struct fm__channel *channel = engine->idle;

        engine->idle = channel->next;
        free_channel(engine, channel);
    }
    engine->n_idle = 0;
}

/* ---------------------------------------------------------------- slots */

static int grow_slots(fm_engine *engine)
{
    size_t n = engine->n_slots;
    bool is_home = engine->slots == engine->home_slots;
    fm_future **slots = fm__sys.realloc(is_home ? NULL : engine->slots,
                                        2 * n * sizeof(fm_future *));

    if (!slots)
        return -ENOMEM;
    if (is_home)
        memcpy(slots, engine->home_slots, sizeof engine->home_slots);
    memset(slots + n, 0, n * sizeof(fm_future *));
    engine->slots = slots;
    engine->n_slots *= 2;
    return 0;
}

int fm__slot_take(fm_engine *engine, fm_future *future)
{
    unsigned i = 0;
    int rc;

    while (i < engine->n_slots && engine->slots[i])
        i++;
    if (i == engine->n_slots) {
        rc = grow_slots(engine);
        if (rc < 0)
            return rc;
    }
    engine->slots[i] = future;
    future->slot = i;
    engine->n_running++;
    engine->n_templates += future->serves != NULL;
    return 0;
}

void fm__slot_give(fm_future *future)
{
    fm_engine *engine = future->engine;

    engine->slots[future->slot] = NULL;
    engine->n_running--;
    engine->n_templates -= future->serves != NULL;
}

void fm__slots_free(fm_engine *engine)
{
    if (engine->slots != engine->home_slots)
        fm__sys.free(engine->slots);
    engine->slots = NULL;
    engine->n_slots = 0;
}
