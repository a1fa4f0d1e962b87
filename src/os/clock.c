/* SPDX-License-Identifier: MIT */
/* Monotonic time: the host may set its wall clock as it likes. */
#include "os/clock.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>

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

int fm__timer_make(clockid_t clock, int sig, timer_t *ret_timer)
{
    struct sigevent event;

    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = sig;
    return fm__sys.timer_create(clock, &event, ret_timer) < 0 ? -errno : 0;
}

int fm__timer_set(timer_t timer, int64_t first, int64_t every)
{
    struct itimerspec spec;

    memset(&spec, 0, sizeof spec);
    spec.it_value = fm__clock_spec(first);
    spec.it_interval = fm__clock_spec(every);
    return fm__sys.timer_settime(timer, 0, &spec, NULL) < 0 ? -errno : 0;
}

int fm__clock_arm(clockid_t clock, int sig, int64_t first, int64_t every)
{
    timer_t timer;
    int rc = fm__timer_make(clock, sig, &timer);

    return rc < 0 ? rc : fm__timer_set(timer, first > 0 ? first : 1, every);
}
