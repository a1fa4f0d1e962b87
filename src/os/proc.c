/* SPDX-License-Identifier: MIT */
/* What /proc and the C library know of this process. */
#include "os/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"
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

    if (sched_getaffinity(0, sizeof set, &set) < 0 || CPU_COUNT(&set) < 1)
        return 1;
    return (unsigned)CPU_COUNT(&set);
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
