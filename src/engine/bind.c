/* SPDX-License-Identifier: MIT */
/* What the binding needs of the layers below it; see bind.h. */
#include "engine/bind.h"

#include "engine/engine.h"
#include "os/memory.h"
#include "process/child.h"

int fm__engine_check_memory(const void *p)
{
    return fm__memory_is_shared(p) ? FM_ESHARED : 0;
}

unsigned fm__engine_max_children(const fm_engine *engine)
{
    return engine->opts.max_children;
}

struct fm__sink *fm__child_sink(fm_child *child)
{
    return fm__child_get_sink(child);
}

int fm__child_put_aside(fm_child *child, bool is_stop)
{
    return fm__outbox_put_aside(fm__child_get_outbox(child),
                                is_stop ? FM__ASIDE_STOP : FM__ASIDE_EVENT);
}

void fm__child_sample(fm_child *child, void (*sample)(void *ud), void *ud)
{
    fm__child_set_sampler(child, sample, ud);
}

void fm__child_hear_cancel(fm_child *child, void (*notice)(void *ud), void *ud)
{
    fm__child_set_hear_cancel(notice, ud);
    if (fm_child_is_cancelled(child))
        notice(ud);
}

void fm__child_end_cancelled(void)
{
    fm__child_leave_cancelled();
}

void *fm__process_get_job(void)
{
    return fm__child_get_job();
}

void fm__process_set_job(void *job)
{
    fm__child_set_job(job);
}

unsigned fm__process_depth(void)
{
    return fm__child_depth();
}
