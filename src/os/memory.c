/* SPDX-License-Identifier: MIT */
/* Shared memory for one child, and the host's own memory at a fork. */
#include "os/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/proc.h"
#include "os/sys.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define HUGE_PAGE ((size_t)2 << 20)
#define SMALL_PAGE ((size_t)4 << 10)

void *fm__memory_share(size_t len)
{
    void *p = fm__sys.mmap(NULL, len, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    if (fm__memory_inherit(p, len, false) < 0) {
        int saved = errno;

        (void)fm__sys.munmap(p, len);
        errno = saved;
        return NULL;
    }
    return p;
}

#ifdef F_ADD_SEALS
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

int fm__memory_open_file(size_t len)
{
    int fd = fm__sys.memfd_create("fork_map", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int rc;

    if (fd < 0)
        return -errno;
    if (fm__sys.ftruncate(fd, (off_t)len) == 0 &&
        fm__sys.fcntl(fd, F_ADD_SEALS, SEALS) == 0)
        return fd;
    rc = -errno;
    (void)fm__sys.close(fd);
    return rc;
}

static bool is_sealed(int fd, size_t len)
{
    struct stat st;
    int seals;

    if (fm__sys.fstat(fd, &st) < 0 || st.st_size != (off_t)len)
        return false;
    seals = fm__sys.fcntl(fd, F_GET_SEALS, 0);
    return seals >= 0 && (seals & SEALS) == SEALS;
}
#else
int fm__memory_open_file(size_t len)
{
    (void)len;
    return -ENOSYS;
}

static bool is_sealed(int fd, size_t len)
{
    (void)fd;
    (void)len;
    return false;
}
#endif

void *fm__memory_map_file(int fd, size_t len)
{
    void *p;

    if (!is_sealed(fd, len)) {
        errno = EINVAL;
        return NULL;
    }
    p = fm__sys.mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return NULL;
    (void)fm__memory_inherit(p, len, false);
    return p;
}

void *fm__memory_read_file(int fd, size_t len)
{
    void *p;

    if (!is_sealed(fd, len)) {
        errno = EINVAL;
        return NULL;
    }
    p = fm__sys.mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

#ifdef MADV_DONTFORK
int fm__memory_inherit(void *p, size_t len, bool inherit)
{
    int advice = inherit ? MADV_DOFORK : MADV_DONTFORK;

    return fm__sys.madvise(p, len, advice) < 0 ? -errno : 0;
}
#else
int fm__memory_inherit(void *p, size_t len, bool inherit)
{
    (void)p;
    (void)len;
    (void)inherit;
    return 0;
}
#endif

void fm__memory_unshare(void *p, size_t len)
{
    if (p)
        (void)fm__sys.munmap(p, len);
}

void *fm__bulk_resize(void *p, size_t len)
{
    void *q;

    if (len == 0) {
        fm__sys.free(p);
        return NULL;
    }
    /* Big blocks are mappings of their own to the C library, which grows them
     * by moving pages, not bytes. */
    q = fm__sys.realloc(p, len);
#ifdef MADV_HUGEPAGE
    if (q && len >= 2 * HUGE_PAGE) {
        /* All pages of the block, the first and the last one too: advice for
         * a part of it would split the mapping, and the kernel moves no block
         * that is in two. */
        uintptr_t from = (uintptr_t)q & ~(SMALL_PAGE - 1);
        uintptr_t to =
            ((uintptr_t)q + len + SMALL_PAGE - 1) & ~(SMALL_PAGE - 1);

        /* Fewer faults for what is about to be filled; advice only, which a
         * kernel with other pages may refuse. */
        (void)fm__sys.madvise((void *)from, to - from, MADV_HUGEPAGE);
    }
#endif
    return q;
}

uint64_t fm__memory_data_size(void)
{
    char data[4096];
    const char *line;

    if (fm__proc_read("/proc/self/status", data, sizeof data) < 0)
        return 0;
    line = strstr(data, "VmData:");
    return line ? strtoull(line + 7, NULL, 10) * 1024 : 0;
}

/* Look at each line of /proc/self/maps, without its end, until `visit` returns
 * false. */
static void each_mapping(bool (*visit)(const char *line, void *ud), void *ud)
{
    char data[8192];
    size_t have = 0;
    bool more = true;
    int fd = fm__sys.open("/proc/self/maps", O_RDONLY, 0);

    if (fd < 0)
        return;
    while (more) {
        ssize_t n = fm__sys.read(fd, data + have, sizeof data - 1 - have);
        char *line = data, *end;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
        data[have] = '\0';
        while (more && (end = strchr(line, '\n')) != NULL) {
            *end = '\0';
            more = visit(line, ud);
            line = end + 1;
        }
        have -= (size_t)(line - data);
        if (have + 1 >= sizeof data)
            break; /* a line longer than any that the kernel writes */
        memmove(data, line, have);
    }
    (void)fm__sys.close(fd);
}

struct mapping {
    uintptr_t from, to;
    const char *rest; /* " rw-p 00000000 00:00 0 ..." */
};

static struct mapping parse_mapping(const char *line)
{
    struct mapping mapping;
    char *rest;

    mapping.from = strtoull(line, &rest, 16);
    mapping.to = *rest == '-' ? strtoull(rest + 1, &rest, 16) : 0;
    mapping.rest = rest;
    return mapping;
}

struct question {
    uintptr_t address;
    bool is_shared;
};

static bool ask_shared(const char *line, void *ud)
{
    struct question *question = ud;
    struct mapping mapping = parse_mapping(line);

    if (question->address < mapping.from || question->address >= mapping.to)
        return true;
    question->is_shared = strlen(mapping.rest) > 4 && mapping.rest[4] == 's';
    return false;
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

void fm__memory_populate(void *p, size_t len)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)p / page * page;

    (void)fm__sys.madvise((void *)first, (uintptr_t)p + len - first,
                          MADV_POPULATE_WRITE);
}

bool fm__memory_is_shared(const void *p)
{
    struct question question = {.address = (uintptr_t)p, .is_shared = false};

    each_mapping(ask_shared, &question);
    return question.is_shared;
}

/* Collapse a mapping that is private, writable and belongs to no file. */
static bool collapse_line(const char *line, void *ud)
{
    struct mapping mapping = parse_mapping(line);
    uintptr_t from =
        (mapping.from + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);
    uintptr_t to = mapping.to & ~(uintptr_t)(HUGE_PAGE - 1);
    uint64_t *bytes = ud;

    if (strncmp(mapping.rest, " rw-p ", 6) != 0 ||
        !strstr(mapping.rest, " 00:00 0"))
        return true;
    if (strchr(mapping.rest, '[') && !strstr(mapping.rest, "[heap]"))
        return true; /* stack, vdso */
    if (to > from &&
        fm__sys.madvise((void *)from, to - from, MADV_COLLAPSE) == 0)
        *bytes += to - from;
    return true;
}

uint64_t fm__memory_collapse(void)
{
    uint64_t bytes = 0;

    each_mapping(collapse_line, &bytes);
    return bytes;
}

/* More than any list of freed blocks of one size has, less than is mapped. */
#define LARGE_BLOCK ((size_t)64 << 10)

void fm__memory_settle(void)
{
    void *volatile block = fm__sys.malloc(LARGE_BLOCK); /* none is left out */

    fm__sys.free(block);
}
