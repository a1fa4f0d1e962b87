/* SPDX-License-Identifier: MIT */
/* Running one job to its end, for the C specs of the engine. */
#ifndef SPEC_C_RUN_JOB_H
#define SPEC_C_RUN_JOB_H

#include "test.h"

#include "fork_map.h"

#define MS INT64_C(1000000)

static fm_engine *__attribute__((unused)) new_engine(void)
{
    fm_engine *engine = NULL;

    CHECK_INT(fm_engine_new(NULL, &engine), 0);
    return engine;
}

static const struct fm_outcome *__attribute__((unused))
wait_for(fm_engine *engine, fm_future *future)
{
    while (fm_future_get_state(future) != FM_SETTLED) {
        int rc = fm_engine_step(engine, -1);

        CHECK(rc >= 0 || rc == -EINTR);
    }
    return fm_future_get_outcome(future);
}

static void __attribute__((unused))
wait_running(fm_engine *engine, const fm_future *future)
{
    while (fm_future_get_state(future) != FM_RUNNING)
        CHECK(fm_engine_step(engine, MS) >= 0);
}

static fm_future *__attribute__((unused))
spawn(fm_engine *engine, const struct fm_job_opts *opts, fm_job_fn fn, void *ud)
{
    fm_future *future = NULL;

    CHECK_INT(fm_spawn(engine, opts, fn, ud, &future), 0);
    return future;
}

/* Run one job in an engine of its own; `check` looks at the outcome. */
static void __attribute__((unused))
run_job(const struct fm_job_opts *opts, fm_job_fn fn, void *ud,
        void (*check)(const struct fm_outcome *outcome))
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, opts, fn, ud);

    check(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
}

#endif
