/* SPDX-License-Identifier: MIT */
/* A clock that is ahead of the real one, by as much as a test says: it goes
 * where fm__sys.clock_gettime is. */
#ifndef SPEC_C_TOLD_CLOCK_H
#define SPEC_C_TOLD_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#include "os/clock.h"
#include "os/sys.h"

static _Atomic int64_t own_ahead_ns;

/* Of this process; a test may have it point to memory that all of its
 * processes share. */
static _Atomic int64_t *ahead_ns = &own_ahead_ns;

static int told_clock(clockid_t id, struct timespec *ts)
{
    int rc = fm__sys_real.clock_gettime(id, ts);
    int64_t ns = ts->tv_nsec + atomic_load(ahead_ns);

    ts->tv_sec += (time_t)(ns / FM__NS_PER_S);
    ts->tv_nsec = (long)(ns % FM__NS_PER_S);
    return rc;
}

#endif
