/* SPDX-License-Identifier: MIT */
/*
 * fm_at_fork(): hooks around our forks.
 *
 * One list per process under a mutex, which is held only to look at the list:
 * a hook may register and remove hooks.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "engine/engine.h"
#include "os/sys.h"

struct hook {
    struct hook *prev, *next;
    int id;
    fm_engine *engine; /* NULL: all */
    fm_fork_cb before, parent, child;
    void *ud;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct hook *first, *last;
static int last_id;

static void unlink_hook(struct hook *hook)
{
    if (hook->prev)
        hook->prev->next = hook->next;
    else
        first = hook->next;
    if (hook->next)
        hook->next->prev = hook->prev;
    else
        last = hook->prev;
    fm__sys.free(hook);
}

int fm_at_fork(fm_engine *engine, fm_fork_cb before, fm_fork_cb parent,
               fm_fork_cb child, void *ud)
{
    struct hook *hook = fm__sys.calloc(1, sizeof *hook);
    int id;

    if (!hook)
        return -ENOMEM;
    hook->engine = engine;
    hook->before = before;
    hook->parent = parent;
    hook->child = child;
    hook->ud = ud;
    (void)pthread_mutex_lock(&lock);
    id = hook->id = ++last_id;
    hook->prev = last;
    if (last)
        last->next = hook;
    else
        first = hook;
    last = hook;
    (void)pthread_mutex_unlock(&lock);
    return id;
}

void fm_at_fork_remove(int id)
{
    (void)pthread_mutex_lock(&lock);
    for (struct hook *h = first; h; h = h->next) {
        if (h->id == id) {
            unlink_hook(h);
            break;
        }
    }
    (void)pthread_mutex_unlock(&lock);
}

void fm__hooks_forget(fm_engine *engine)
{
    (void)pthread_mutex_lock(&lock);
    for (struct hook *h = first, *next; h; h = next) {
        next = h->next;
        if (h->engine == engine)
            unlink_hook(h);
    }
    (void)pthread_mutex_unlock(&lock);
}

enum phase { BEFORE, PARENT, CHILD };

static fm_fork_cb callback_of(const struct hook *hook, enum phase phase)
{
    if (phase == BEFORE)
        return hook->before;
    return phase == PARENT ? hook->parent : hook->child;
}

/* The next hook after number `id` in the order of the phase.  Found by
 * number, as the list may change while a hook runs. */
static struct hook *next_hook(fm_engine *engine, enum phase phase, int id)
{
    struct hook *h = phase == BEFORE ? last : first;

    while (h && (phase == BEFORE ? h->id >= id : h->id <= id))
        h = phase == BEFORE ? h->prev : h->next;
    while (h && ((h->engine && h->engine != engine) || !callback_of(h, phase)))
        h = phase == BEFORE ? h->prev : h->next;
    return h;
}

static int run(fm_engine *engine, enum phase phase)
{
    int id = phase == BEFORE ? last_id + 1 : 0;
    int rc = 0;

    while (rc >= 0) {
        fm_fork_cb cb = NULL;
        void *ud = NULL;
        struct hook *h;

        (void)pthread_mutex_lock(&lock);
        h = next_hook(engine, phase, id);
        if (h) {
            id = h->id;
            cb = callback_of(h, phase);
            ud = h->ud;
        }
        (void)pthread_mutex_unlock(&lock);
        if (!cb)
            return 0;
        rc = cb(ud);
    }
    return rc;
}

int fm__hooks_before(fm_engine *engine)
{
    return first ? run(engine, BEFORE) : 0;
}

int fm__hooks_parent(fm_engine *engine)
{
    return first ? run(engine, PARENT) : 0;
}

int fm__hooks_child(void *engine)
{
    return run(engine, CHILD);
}
