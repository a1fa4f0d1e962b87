/* SPDX-License-Identifier: MIT */
/*
 * The kernel's limits on a child.
 *
 * A memory limit is enforced twice: a binding counts its own allocations and
 * fails them cleanly; RLIMIT_DATA stands MEMORY_SLACK above for everything
 * that does not go through it, so the clean way comes first.
 */
#include "process/limits.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "os/clock.h"
#include "os/fds.h"
#include "os/filter.h"
#include "os/memory.h"
#include "os/sys.h"

#define MEMORY_SLACK ((uint64_t)16 << 20)

static int set_limit(int resource, rlim_t soft, rlim_t hard)
{
    struct rlimit limit;

    if (fm__sys.getrlimit(resource, &limit) < 0)
        return -errno;
    /* The host may stand under stricter limits already.  RLIM_INFINITY is the
     * largest of all numbers. */
    if (hard < limit.rlim_max)
        limit.rlim_max = hard;
    if (soft < limit.rlim_cur)
        limit.rlim_cur = soft;
    if (limit.rlim_cur > limit.rlim_max)
        limit.rlim_cur = limit.rlim_max;
    return fm__sys.setrlimit(resource, &limit) < 0 ? -errno : 0;
}

static int limit_memory(uint64_t bytes)
{
    uint64_t now = fm__memory_data_size();
    rlim_t most;

    if (now == 0)
        return 0; /* no /proc: the binding's own count is what there is */
    now += MEMORY_SLACK;
    most = bytes < UINT64_MAX - now ? (rlim_t)(now + bytes) : RLIM_INFINITY;
    return set_limit(RLIMIT_DATA, most, most);
}

/* The timer is exact, the rlimit holds for a child that ignores SIGXCPU. */
static int limit_cpu(uint64_t ns)
{
    rlim_t seconds = (rlim_t)(ns / (uint64_t)FM__NS_PER_S) + 2;
    int64_t most = ns < INT64_MAX ? (int64_t)ns : INT64_MAX;
    int rc = fm__clock_arm(CLOCK_PROCESS_CPUTIME_ID, SIGXCPU, most, 0);

    return rc < 0 ? rc : set_limit(RLIMIT_CPU, seconds, seconds + 1);
}

static int limit_files(unsigned n)
{
    long limit = fm__fds_limit_for(n);

    if (limit < 0)
        return (int)limit;
    return set_limit(RLIMIT_NOFILE, (rlim_t)limit, (rlim_t)limit);
}

static int limit_processes(unsigned n)
{
    long now = fm__filter_count_tasks();

    if (now < 0)
        return (int)now;
    return set_limit(RLIMIT_NPROC, (rlim_t)now + n, (rlim_t)now + n);
}

/* A host that writes none, as most, needs no change. */
static int forbid_core(void)
{
    struct rlimit limit;

    if (fm__sys.getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur == 0)
        return 0;
    return set_limit(RLIMIT_CORE, 0, 0);
}

int fm__limits_apply(const struct fm_limits *limits, const char **ret_step)
{
    int rc = forbid_core();

    *ret_step = "limit core dumps";
    if (rc == 0 && limits->memory > 0) {
        *ret_step = "limits.memory";
        rc = limit_memory(limits->memory);
    }
    if (rc == 0 && limits->cpu_ns > 0) {
        *ret_step = "limits.cpu";
        rc = limit_cpu(limits->cpu_ns);
    }
    if (rc == 0 && limits->has_file_size) {
        *ret_step = "limits.file_size";
        rc = set_limit(RLIMIT_FSIZE, (rlim_t)limits->file_size,
                       (rlim_t)limits->file_size);
    }
    if (rc == 0 && limits->has_processes) {
        *ret_step = "limits.processes";
        rc = limits->processes > 0 ? limit_processes(limits->processes)
                                   : fm__filter_deny_fork();
    }
    if (rc == 0 && limits->has_files) {
        *ret_step = "limits.files";
        rc = limit_files(limits->files);
    }
    return rc;
}

int fm__limits_backstop(int64_t ns)
{
    return fm__clock_arm(CLOCK_MONOTONIC, SIGKILL, ns, 0);
}

const char *fm__limits_name(const struct fm_limits *limits, int sig,
                            int64_t cpu_ns)
{
    if (limits->cpu_ns > 0 &&
        (sig == SIGXCPU ||
         (sig == SIGKILL && (uint64_t)cpu_ns >= limits->cpu_ns)))
        return "cpu";
    if (limits->has_file_size && sig == SIGXFSZ)
        return "file_size";
    return NULL;
}
