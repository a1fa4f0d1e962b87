/* SPDX-License-Identifier: MIT */
/*
 * fm_at_fork(): hooks around our forks.
 *
 * One list per process under a mutex, which is held only to look at the list:
 * a hook may register and remove hooks.  It is held across every fork too, as
 * no thread of the host that has it would let go of it in the child.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
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

enum phase { BEFORE, PARENT, CHILD, PHASES };

static fm_fork_cb callback_of(const struct hook *hook, enum phase phase)
{
    if (phase == BEFORE)
        return hook->before;
    return phase == PARENT ? hook->parent : hook->child;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct hook *first, *last;
/* Callbacks of each phase, for a look without the mutex: most forks have
 * none. */
static atomic_uint n_callbacks[PHASES];
static int last_id;
static bool guarded; /* pthread_atfork() done */

static void lock_hooks(void)
{
    (void)pthread_mutex_lock(&lock);
}

static void unlock_hooks(void)
{
    (void)pthread_mutex_unlock(&lock);
}

/* No thread is here that could wait for it. */
static void renew_lock(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static void count_callbacks(const struct hook *hook, unsigned sign)
{
    for (int phase = 0; phase < PHASES; phase++) {
        if (callback_of(hook, (enum phase)phase))
            (void)atomic_fetch_add(&n_callbacks[phase], sign);
    }
}

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
    count_callbacks(hook, -1U);
    fm__sys.free(hook);
}

int fm_at_fork(fm_engine *engine, fm_fork_cb before, fm_fork_cb parent,
               fm_fork_cb child, void *ud)
{
    struct hook *hook = fm__sys.calloc(1, sizeof *hook);
    int id, rc = 0;

    if (!hook)
        return -ENOMEM;
    hook->engine = engine;
    hook->before = before;
    hook->parent = parent;
    hook->child = child;
    hook->ud = ud;
    lock_hooks();
    if (!guarded)
        rc = -pthread_atfork(lock_hooks, unlock_hooks, renew_lock);
    if (rc < 0) {
        unlock_hooks();
        fm__sys.free(hook);
        return rc;
    }
    guarded = true;
    id = hook->id = ++last_id;
    hook->prev = last;
    if (last)
        last->next = hook;
    else
        first = hook;
    last = hook;
    count_callbacks(hook, 1);
    unlock_hooks();
    return id;
}

void fm_at_fork_remove(int id)
{
    lock_hooks();
    for (struct hook *h = first; h; h = h->next) {
        if (h->id == id) {
            unlink_hook(h);
            break;
        }
    }
    unlock_hooks();
}

void fm__hooks_forget(fm_engine *engine)
{
    lock_hooks();
    for (struct hook *h = first, *next; h; h = next) {
        next = h->next;
        if (h->engine == engine)
            unlink_hook(h);
    }
    unlock_hooks();
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

/* Run the hooks that come after number `*id` in the order of the phase; `*id`
 * is then that of the last one.  A `before` hook that refuses ends it; parents
 * hear of every fork, and the first code is returned. */
static int run(fm_engine *engine, enum phase phase, int *id)
{
    int first_rc = 0;

    if (atomic_load(&n_callbacks[phase]) == 0)
        return 0;
    for (;;) {
        fm_fork_cb cb = NULL;
        void *ud = NULL;
        struct hook *h;
        int rc;

        lock_hooks();
        h = next_hook(engine, phase, *id);
        if (h) {
            *id = h->id;
            cb = callback_of(h, phase);
            ud = h->ud;
        }
        unlock_hooks();
        if (!cb)
            return first_rc;
        rc = cb(ud);
        if (rc < 0 && first_rc == 0)
            first_rc = rc;
        if (rc < 0 && phase != PARENT)
            return rc;
    }
}

int fm__hooks_before(fm_engine *engine)
{
    int id = INT_MAX;
    int rc = run(engine, BEFORE, &id);

    /* Those that ran before the one that refused prepared for a fork. */
    if (rc < 0)
        (void)run(engine, PARENT, &id);
    return rc;
}

int fm__hooks_parent(fm_engine *engine)
{
    int id = 0;

    return run(engine, PARENT, &id);
}

int fm__hooks_child(void *engine)
{
    int id = 0;

    return run(engine, CHILD, &id);
}
