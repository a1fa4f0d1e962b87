/* SPDX-License-Identifier: MIT */
/* Jobs that wait for their turn: which are started, and when. */
#include <errno.h>

#include "engine/engine.h"
#include "engine/template.h"
#include "os/clock.h"

/* A job that could not be forked. */
static void fail_start(fm_future *future, int rc)
{
    fm__outcome_set_plain(future, FM_SPAWN, rc, future->spawn_step);
    fm__attempt_conclude(future, fm__clock_now());
}

/* A host that may not wait has better to do than to fork one child after the
 * other: its next step goes on. */
static bool has_started_enough(const fm_engine *engine)
{
    return engine->start_until > 0 && fm__clock_now() >= engine->start_until;
}

/* Its socket is full: until it has answered.  Or nobody is there: until it is
 * known why. */
static bool is_put_off(const fm_template *origin, int rc)
{
    return (rc == -EAGAIN && origin->n_asked > 0) || rc == -EPIPE ||
           rc == -ECONNRESET;
}

void fm__engine_start_one(fm_future *future)
{
    int rc = fm__attempt_start(future);

    if (future->state == FM_SETTLED)
        return; /* a hook has cancelled it */
    if (future->origin && is_put_off(future->origin, rc)) {
        future->attempt--;
        fm__list_remove(future);
        fm__list_append(&future->origin->waiting, future);
    } else if (rc < 0) {
        fail_start(future, rc);
    } else {
        fm__list_remove(future);
    }
}

void fm__engine_start_queued(fm_engine *engine)
{
    while (engine->queue.first &&
           fm__engine_count_jobs(engine) < engine->opts.max_children) {
        fm_future *future = engine->queue.first;
        fm_template *origin = future->origin;

        if (origin && fm__template_is_lost(origin)) {
            fm__template_refuse(origin, future);
        } else if (origin && !fm__template_is_free(origin)) {
            fm__list_remove(future);
            fm__list_append(&origin->waiting, future);
        } else {
            fm__engine_start_one(future);
        }
        if (has_started_enough(engine))
            break;
    }
}

void fm__engine_requeue(fm_engine *engine, int64_t now)
{
    for (fm_future *f = engine->waiting.first, *next; f; f = next) {
        next = f->next;
        if (now < f->next_at)
            continue;
        fm__list_remove(f);
        (void)fm__future_enter(f, FM_QUEUED);
        fm__list_append(&engine->queue, f);
    }
}
