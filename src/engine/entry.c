/* SPDX-License-Identifier: MIT */
/*
 * Who is inside of an engine: its own code, a callback that it runs, or nobody.
 *
 * A callback may do all but wait and close.  A signal handler that has
 * interrupted the engine's own code finds everything half done: whatever it
 * asks for is refused, as it would corrupt the engine or wait for itself.
 */
#include <stdatomic.h>

#include "engine/bind.h"
#include "engine/engine.h"
#include "os/fds.h"
#include "os/sys.h"

bool fm__engine_is_ours(const fm_engine *engine)
{
    return engine->pid == fm__sys.getpid() &&
           engine->generation == fm__fds_generation();
}

bool fm__engine_in_callback(const fm_engine *engine)
{
    return engine->in_callback;
}

bool fm__engine_enter(fm_engine *engine)
{
    if (engine->is_at_work)
        return false;
    engine->is_at_work = true;
    /* For a handler in this thread. */
    atomic_signal_fence(memory_order_seq_cst);
    return true;
}

void fm__engine_exit(fm_engine *engine)
{
    atomic_signal_fence(memory_order_seq_cst);
    engine->is_at_work = false;
}

struct fm__entry fm__callback_begin(fm_engine *engine)
{
    struct fm__entry before = {engine->in_callback, engine->is_at_work};

    engine->in_callback = true;
    fm__engine_exit(engine);
    return before;
}

void fm__callback_end(fm_engine *engine, struct fm__entry before)
{
    engine->in_callback = before.in_callback;
    engine->is_at_work = before.is_at_work;
    atomic_signal_fence(memory_order_seq_cst);
}
