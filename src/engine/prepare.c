/* SPDX-License-Identifier: MIT */
/* fm_prepare(): huge pages for a big host, and what a fork costs. */
#include <errno.h>

#include "fork_map.h"
#include "os/clock.h"
#include "os/memory.h"
#include "os/pid.h"
#include "os/signals.h"
#include "os/sys.h"

/* One fork of this process as it is.  Returns its nanoseconds or -errno. */
static int64_t time_fork(void)
{
    struct rusage usage;
    int64_t from = fm__clock_now();
    int status;
    pid_t pid = fm__sys.fork();

    if (pid == 0)
        fm__exit_now(0);
    if (pid < 0)
        return -errno;
    /* It ends at once; a host that reaps it first makes this ECHILD. */
    while (fm__sys.wait4(pid, &status, 0, &usage) < 0 && errno == EINTR)
        ;
    return fm__clock_now() - from;
}

int fm_prepare(struct fm_prepare_report *ret_report)
{
    struct fm_prepare_report report;
    sigset_t mask;
    int rc = fm__signals_block(&mask);

    if (rc < 0)
        return rc;
    report.fork_before_ns = time_fork();
    report.bytes = fm__memory_collapse();
    report.fork_after_ns = time_fork();
    fm__signals_restore(&mask);
    if (report.fork_before_ns < 0)
        return (int)report.fork_before_ns;
    if (report.fork_after_ns < 0)
        return (int)report.fork_after_ns;
    *ret_report = report;
    return 0;
}
