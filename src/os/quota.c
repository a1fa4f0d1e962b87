/* SPDX-License-Identifier: MIT */
/*
 * CPU quotas of Linux' control groups, of both versions; see quota.h.
 *
 * Each group from the process's own to the root may have one, and the least
 * counts.  In a container the path may be one of the host's, of which only the
 * root is to be seen: that is looked at too.  Whatever else lies in these files
 * says nothing.
 */
#include "os/quota.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/proc.h"

#define TEXT_MAX 4096
#define PATH_LEN 1024

static unsigned fewer(unsigned a, unsigned b)
{
    if (a == 0 || b == 0)
        return a > b ? a : b;
    return a < b ? a : b;
}

/* A positive number, or 0. */
static int64_t number(const char *text, const char **ret_end)
{
    char *end;
    long long n = strtoll(text, &end, 10);

    *ret_end = end;
    return end > text && n > 0 && n < LLONG_MAX ? (int64_t)n : 0;
}

static unsigned count(int64_t quota, int64_t period)
{
    int64_t n;

    if (quota == 0 || period == 0)
        return 0;
    n = quota / period + (quota % period != 0);
    return n < UINT_MAX ? (unsigned)n : UINT_MAX;
}

static bool read_file(const char *dir, const char *name, char text[TEXT_MAX])
{
    char path[PATH_LEN + 64];
    int len = snprintf(path, sizeof path, "%s/%s", dir, name);

    return len > 0 && (size_t)len < sizeof path &&
           fm__proc_read(path, text, TEXT_MAX) > 0;
}

/* "200000 100000", or "max 100000". */
static unsigned read_v2(const char *dir)
{
    char text[TEXT_MAX];
    const char *end;
    int64_t quota;

    if (!read_file(dir, "cpu.max", text))
        return 0;
    quota = number(text, &end);
    return count(quota, number(end, &end));
}

static unsigned read_v1(const char *dir)
{
    char text[TEXT_MAX];
    const char *end;
    int64_t quota;

    if (!read_file(dir, "cpu.cfs_quota_us", text))
        return 0;
    quota = number(text, &end);
    if (quota == 0 || !read_file(dir, "cpu.cfs_period_us", text))
        return 0;
    return count(quota, number(text, &end));
}

/* From the group `path` below `mount` up to the root. */
static unsigned climb(const char *mount, const char *path,
                      unsigned (*read)(const char *dir))
{
    char dir[PATH_LEN];
    size_t root = strlen(mount);
    int len = snprintf(dir, sizeof dir, "%s%s", mount, path);
    unsigned least = 0;

    if (len < 0 || (size_t)len >= sizeof dir)
        return read(mount);
    for (;;) {
        char *slash;

        least = fewer(least, read(dir));
        slash = strrchr(dir, '/');
        if (strlen(dir) <= root || !slash || (size_t)(slash - dir) < root)
            return least;
        *slash = '\0';
    }
}

static bool names_cpu(const char *controllers, size_t len)
{
    for (size_t i = 0; i + 3 <= len; i++) {
        bool begins = i == 0 || controllers[i - 1] == ',';
        bool ends = i + 3 == len || controllers[i + 3] == ',';

        if (begins && ends && strncmp(controllers + i, "cpu", 3) == 0)
            return true;
    }
    return false;
}

/* "0::/path" of version 2, "4:cpu,cpuacct:/path" of version 1. */
static unsigned read_line(char *line)
{
    char *controllers = strchr(line, ':');
    char *path = controllers ? strchr(controllers + 1, ':') : NULL;
    unsigned least;

    if (!path)
        return 0;
    controllers++;
    if (path == controllers) {
        least = climb("/sys/fs/cgroup", path + 1, read_v2);
        return fewer(least, climb("/sys/fs/cgroup/unified", path + 1, read_v2));
    }
    if (!names_cpu(controllers, (size_t)(path - controllers)))
        return 0;
    least = climb("/sys/fs/cgroup/cpu", path + 1, read_v1);
    return fewer(least, climb("/sys/fs/cgroup/cpu,cpuacct", path + 1, read_v1));
}

unsigned fm__quota_count_cpus(void)
{
    char text[TEXT_MAX];
    char *line = text;
    unsigned least = 0;

    if (fm__proc_read("/proc/self/cgroup", text, sizeof text) <= 0)
        return 0;
    while (line) {
        char *next = strchr(line, '\n');

        if (next)
            *next++ = '\0';
        least = fewer(least, read_line(line));
        line = next;
    }
    return least;
}
