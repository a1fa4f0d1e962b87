/* SPDX-License-Identifier: MIT */
/* What /proc and the C library know of this process. */
#include "os/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/clock.h"
#include "os/quota.h"
#include "os/sys.h"

#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
#define IS_SINGLE_THREADED __libc_single_threaded
#endif
#endif
#ifndef IS_SINGLE_THREADED
#define IS_SINGLE_THREADED 0
#endif

ssize_t fm__proc_read(const char *path, char *data, size_t size)
{
    int fd = fm__sys.open(path, O_RDONLY, 0);
    size_t len = 0;

    if (fd < 0)
        return -errno;
    while (len + 1 < size) {
        ssize_t n = fm__sys.read(fd, data + len, size - 1 - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    (void)fm__sys.close(fd);
    data[len] = '\0';
    return (ssize_t)len;
}

#ifdef __linux__

/* The kernel's directory entry; libc exports none for getdents64(). */
struct linux_dirent {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

static int visit_entries(const char *data, long len, int omitted,
                         void (*visit)(int number, void *ud), void *ud)
{
    for (long at = 0; at < len;) {
        const struct linux_dirent *entry = (const void *)(data + at);
        int number;

        if (entry->length == 0)
            return -EIO;
        at += entry->length;
        if (entry->name[0] < '0' || entry->name[0] > '9')
            continue;
        number = (int)strtol(entry->name, NULL, 10);
        if (number != omitted)
            visit(number, ud);
    }
    return 0;
}

int fm__proc_each_number(const char *path, bool omits_own,
                         void (*visit)(int number, void *ud), void *ud)
{
    _Alignas(8) char data[8192];
    int dir = fm__sys.open(path, O_RDONLY | O_DIRECTORY, 0);
    int rc = dir < 0 ? -errno : 0;

    if (dir < 0)
        return rc;
    while (rc == 0) {
        long len = fm__sys.getdents64(dir, data, sizeof data);

        if (len <= 0) {
            rc = len < 0 ? -errno : 0;
            break;
        }
        rc = visit_entries(data, len, omits_own ? dir : -1, visit, ud);
    }
    (void)fm__sys.close(dir);
    return rc;
}
#else
int fm__proc_each_number(const char *path, bool omits_own,
                         void (*visit)(int number, void *ud), void *ud)
{
    (void)path;
    (void)omits_own;
    (void)visit;
    (void)ud;
    return -ENOSYS;
}
#endif

bool fm__proc_is_single_threaded(void)
{
    return IS_SINGLE_THREADED;
}

unsigned fm__proc_count_threads(void)
{
    char data[4096];
    const char *line;

    /* The C library knows for sure while no thread was ever made; reading
     * /proc costs more than all else that happens before a fork. */
    if (IS_SINGLE_THREADED)
        return 1;
    if (fm__proc_read("/proc/self/status", data, sizeof data) < 0)
        return 0;
    line = strstr(data, "\nThreads:");
    return line ? (unsigned)strtoul(line + 9, NULL, 10) : 0;
}

unsigned fm__proc_count_cpus(void)
{
    cpu_set_t set;
    unsigned quota, n;

    if (sched_getaffinity(0, sizeof set, &set) < 0 || CPU_COUNT(&set) < 1)
        return 1;
    n = (unsigned)CPU_COUNT(&set);
    if (n == 1)
        return 1;
    quota = fm__quota_count_cpus();
    return quota > 0 && quota < n ? quota : n;
}

uint64_t fm__proc_rss(void)
{
    char data[128];
    char *end;

    if (fm__proc_read("/proc/self/statm", data, sizeof data) < 0)
        return 0;
    (void)strtoull(data, &end, 10); /* all that it could use */
    return strtoull(end, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

bool fm__proc_is_terminal(int fd)
{
    return isatty(fd) != 0;
}

void fm__proc_random(void *data, size_t len)
{
    unsigned char *p = data;
    int fd = fm__sys.open("/dev/urandom", O_RDONLY, 0);
    ssize_t got = -1;
    uint64_t mix;

    if (fd >= 0) {
        got = fm__sys.read(fd, p, len);
        (void)fm__sys.close(fd);
    }
    if (got == (ssize_t)len)
        return;
    mix = (uint64_t)fm__clock_now() ^ ((uint64_t)fm__sys.getpid() << 32);
    for (size_t i = 0; i < len; i++) {
        mix = mix * UINT64_C(6364136223846793005) + 1442695040888963407u;
        p[i] = (unsigned char)(mix >> 56);
    }
}
