/* SPDX-License-Identifier: MIT */
/* Monotonic time: the host may set its wall clock as it likes. */
#include "os/clock.h"

#include <limits.h>

#include "os/sys.h"

int64_t fm__clock_now(void)
{
    struct timespec ts = {0, 0};

    (void)fm__sys.clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * FM__NS_PER_S + ts.tv_nsec;
}

int64_t fm__clock_after(int64_t now, int64_t ns)
{
    if (ns >= FM__NEVER - now)
        return FM__NEVER;
    return now + ns;
}

struct timespec fm__clock_spec(int64_t ns)
{
    struct timespec ts;

    ts.tv_sec = (time_t)(ns / FM__NS_PER_S);
    ts.tv_nsec = (long)(ns % FM__NS_PER_S);
    return ts;
}

int fm__clock_poll_ms(int64_t ns)
{
    int64_t ms;

    if (ns < 0 || ns == FM__NEVER)
        return -1;
    ms = ns / FM__NS_PER_MS + (ns % FM__NS_PER_MS != 0);
    return ms > INT_MAX ? INT_MAX : (int)ms;
}
