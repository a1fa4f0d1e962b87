/* SPDX-License-Identifier: MIT */
/* A trace of every move of every future, for those who ask. */
#include "engine/engine.h"

static fm_trace_cb trace_cb;
static void *trace_ud;

void fm_set_trace(fm_trace_cb cb, void *ud)
{
    trace_cb = cb;
    trace_ud = ud;
}

void fm__trace(const fm_future *future, const char *from, const char *to)
{
    if (trace_cb)
        trace_cb(future, from, to, trace_ud);
}

const char *fm__state_name(enum fm_state state)
{
    static const char *const names[] = {
        [FM_QUEUED] = "queued",   [FM_STARTING] = "starting",
        [FM_RUNNING] = "running", [FM_DRAINING] = "draining",
        [FM_BACKOFF] = "backoff", [FM_SETTLED] = "settled",
    };

    return names[state];
}
