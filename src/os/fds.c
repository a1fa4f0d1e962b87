/* SPDX-License-Identifier: MIT */
/*
 * The process-wide registry of engine descriptors; see fds.h.
 *
 * It is one array under one mutex, which the fork handlers hold across every
 * fork(), so that the child finds it whole.  Who holds it has no signals: a
 * handler of the host may fork.  Entries are a few per living
 * child; the engine keeps them in use, so a linear search is short.
 */
#include "os/fds.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "os/forking.h"
#include "os/proc.h"
#include "os/signals.h"
#include "os/sys.h"

struct entry {
    int fd;
    bool keep;       /* not buried in the next child */
    bool goes_first; /* is buried before all others */
};

/* Entries that need no memory of their own: they lie in the page that every
 * fork dirties anyway. */
#define ENTRIES_FIRST 48

static struct {
    pthread_mutex_t lock;
    sigset_t mask; /* of the thread that holds the lock, as it was before */
    struct entry *entries; /* NULL: `first` */
    size_t n, size;
    unsigned users; /* engines */
    unsigned generation;
    bool hooked; /* pthread_atfork() done */
    struct entry first[ENTRIES_FIRST];
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct entry *all_entries(void)
{
    return registry.entries ? registry.entries : registry.first;
}

static void lock_registry(void)
{
    sigset_t mask;

    fm__signals_lock(&registry.lock, &mask);
    registry.mask = mask;
}

static void unlock_registry(void)
{
    sigset_t mask = registry.mask;

    fm__signals_unlock(&registry.lock, &mask);
}

/* In every forked process: what is ours in the parent is nobody's here.  Only a
 * child of ours gets what is kept and what is offered; it stays registered, so
 * that children of this child lose it. */
static void after_fork_in_child(void)
{
    struct entry *entries = all_entries();
    bool is_ours = fm__forking_took();
    size_t n = 0;

    for (size_t i = 0; i < registry.n; i++) {
        if (entries[i].goes_first)
            fm__fd_bury(entries[i].fd);
    }
    for (size_t i = 0; i < registry.n; i++) {
        if (entries[i].goes_first)
            continue;
        if (!is_ours ||
            (!entries[i].keep && entries[i].fd != fm__forking_fd())) {
            fm__fd_bury(entries[i].fd);
            continue;
        }
        entries[i].keep = false;
        entries[n++] = entries[i];
    }
    registry.n = n;
    registry.generation++;
    /* No thread is here that could wait for it. */
    registry.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    fm__signals_restore(&registry.mask);
}

void fm__fds_before_fork(void)
{
    lock_registry();
    fm__forking_before();
}

void fm__fds_after_fork_in_parent(void)
{
    fm__forking_in_parent();
    unlock_registry();
}

void fm__fds_after_fork_in_child(void)
{
    fm__forking_in_child();
    after_fork_in_child();
}

int fm__fds_open(void)
{
    int rc = 0;

    lock_registry();
    if (!registry.hooked) {
        rc = fm__forking_open();
        if (rc == 0)
            rc = -pthread_atfork(lock_registry, unlock_registry,
                                 after_fork_in_child);
        registry.hooked = rc == 0;
    }
    if (rc == 0)
        rc = fm__bury_open();
    if (rc == 0)
        registry.users++;
    unlock_registry();
    return rc;
}

void fm__fds_close(void)
{
    lock_registry();
    if (registry.users > 0 && --registry.users == 0) {
        fm__bury_close();
        if (registry.n == 0) {
            fm__sys.free(registry.entries);
            registry.entries = NULL;
            registry.size = 0;
        }
    }
    unlock_registry();
}

static int grow_registry(void)
{
    size_t size =
        registry.entries ? registry.size * 2 : (size_t)ENTRIES_FIRST * 2;
    struct entry *entries =
        fm__sys.realloc(registry.entries, size * sizeof *entries);

    if (!entries)
        return -ENOMEM;
    if (!registry.entries)
        memcpy(entries, registry.first, sizeof registry.first);
    registry.entries = entries;
    registry.size = size;
    return 0;
}

static int register_fd(int fd)
{
    int rc = 0;

    lock_registry();
    if (registry.n == (registry.entries ? registry.size : ENTRIES_FIRST))
        rc = grow_registry();
    if (rc == 0) {
        struct entry *entry = &all_entries()[registry.n++];

        entry->fd = fd;
        entry->keep = false;
        entry->goes_first = false;
    }
    unlock_registry();
    return rc;
}

/* The entry of a registered descriptor, or NULL. */
static struct entry *find_entry(int fd)
{
    struct entry *entries = all_entries();

    for (size_t i = 0; i < registry.n; i++) {
        if (entries[i].fd == fd)
            return &entries[i];
    }
    return NULL;
}

static void unregister_fd(int fd)
{
    struct entry *entry;

    lock_registry();
    entry = find_entry(fd);
    if (entry)
        *entry = all_entries()[--registry.n];
    unlock_registry();
}

int fm__fd_copy(int fd, int lowest)
{
    int copy = fm__sys.fcntl(fd, F_DUPFD_CLOEXEC, lowest);

    if (copy >= 0)
        return copy;
    return errno == EINVAL ? -EMFILE : -errno;
}

int fm__fd_adopt(int fd)
{
    int rc;

    if (fd < 0)
        return -errno;
    if (fd < FM__FD_LOWEST) {
        int high = fm__fd_copy(fd, FM__FD_LOWEST);

        (void)fm__sys.close(fd);
        if (high < 0)
            return high;
        fd = high;
    }
    rc = register_fd(fd);
    if (rc < 0) {
        (void)fm__sys.close(fd);
        return rc;
    }
    return fd;
}

int fm__fd_adopt_pair(const int fds[2], int ret_fds[2])
{
    int a, b;

    a = fm__fd_adopt(fds[0]);
    if (a < 0) {
        (void)fm__sys.close(fds[1]);
        return a;
    }
    b = fm__fd_adopt(fds[1]);
    if (b < 0) {
        fm__fd_close(&a);
        return b;
    }
    ret_fds[0] = a;
    ret_fds[1] = b;
    return 0;
}

int fm__fd_pipe(int ret_fds[2], int flags)
{
    int fds[2];

    if (fm__sys.pipe2(fds, flags | O_CLOEXEC) < 0)
        return -errno;
    return fm__fd_adopt_pair(fds, ret_fds);
}

void fm__fd_close(int *fd)
{
    if (*fd < 0)
        return;
    unregister_fd(*fd);
    /* Not retried on EINTR: the number is free again on Linux. */
    (void)fm__sys.close(*fd);
    *fd = -1;
}

void fm__fd_keep(int fd, bool keep)
{
    struct entry *entry;

    lock_registry();
    entry = find_entry(fd);
    if (entry)
        entry->keep = keep;
    unlock_registry();
}

void fm__fd_bury_first(int fd)
{
    struct entry *entry;

    lock_registry();
    entry = find_entry(fd);
    if (entry)
        entry->goes_first = true;
    unlock_registry();
}

bool fm__fd_leaves(int fd, unsigned n)
{
    struct rlimit limit;

    return fm__sys.getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
           limit.rlim_cur > (rlim_t)fd + n;
}

unsigned fm__fds_generation(void)
{
    return registry.generation;
}

static bool is_listed(int fd, const int *keep, size_t n_keep)
{
    for (size_t i = 0; i < n_keep; i++) {
        if (keep[i] == fd)
            return true;
    }
    for (size_t i = 0; i < registry.n; i++) {
        if (all_entries()[i].fd == fd)
            return true;
    }
    return false;
}

/* Call visit(fd, ud) for every open descriptor of this process but the one
 * used to look.  Returns 0 or -errno. */
static int each_fd(void (*visit)(int fd, void *ud), void *ud);

/*
 * Which numbers are open?  Reading /proc/self/fd costs more than all else in a
 * child's start, so poll() is asked: it says POLLNVAL for each that is not.
 * That is done up to POLLED_MAX.  Above, where numbers are taken again only
 * when all below are in use, closing does what burying is for.
 */
#define POLLED_MAX 1024
#define POLLED_AT_ONCE 128

struct burial {
    const int *keep;
    size_t n_keep;
};

static void bury_unlisted(int fd, void *ud)
{
    const struct burial *burial = ud;

    if (fd > 2 && !is_listed(fd, burial->keep, burial->n_keep))
        fm__fd_bury(fd);
}

static int bury_polled(struct burial *burial)
{
    struct pollfd fds[POLLED_AT_ONCE];

    for (int from = 0; from < POLLED_MAX; from += POLLED_AT_ONCE) {
        for (int i = 0; i < POLLED_AT_ONCE; i++) {
            fds[i].fd = from + i;
            fds[i].events = 0;
            fds[i].revents = 0;
        }
        if (fm__sys.poll(fds, POLLED_AT_ONCE, 0) < 0)
            return -errno;
        for (int i = 0; i < POLLED_AT_ONCE; i++) {
            if (!(fds[i].revents & POLLNVAL))
                bury_unlisted(from + i, burial);
        }
    }
    return 0;
}

/* The lowest kept number from `fd` up, or INT_MAX. */
static int next_kept(int fd, const struct burial *burial)
{
    int next = INT_MAX;

    for (size_t i = 0; i < burial->n_keep; i++) {
        if (burial->keep[i] >= fd && burial->keep[i] < next)
            next = burial->keep[i];
    }
    for (size_t i = 0; i < registry.n; i++) {
        int kept = all_entries()[i].fd;

        if (kept >= fd && kept < next)
            next = kept;
    }
    return next;
}

static int close_above(const struct burial *burial)
{
    int from = POLLED_MAX;

    for (;;) {
        int kept = next_kept(from, burial);

        if (kept > from &&
            fm__sys.close_range((unsigned)from, (unsigned)kept - 1, 0) < 0)
            return -errno;
        if (kept == INT_MAX)
            return 0;
        from = kept + 1;
    }
}

int fm__fds_bury_others(const int *keep, size_t n_keep)
{
    struct burial burial = {keep, n_keep};

    /* poll() takes no more entries than the limit on descriptors, and old
     * kernels have no close_range(): then the list is read after all. */
    if (bury_polled(&burial) == 0 && close_above(&burial) == 0)
        return 0;
    return each_fd(bury_unlisted, &burial);
}

#define BITS_MAX 65536 /* descriptors looked at for `files` */

static void mark_bit(int fd, void *ud)
{
    unsigned char *bits = ud;

    if (fd < BITS_MAX)
        bits[fd / 8] |= (unsigned char)(1u << (fd % 8));
}

long fm__fds_limit_for(unsigned n)
{
    unsigned char bits[BITS_MAX / 8];
    long limit = 0;
    int rc;

    memset(bits, 0, sizeof bits);
    rc = each_fd(mark_bit, bits);
    if (rc < 0)
        return rc;
    while (limit < BITS_MAX) {
        if (!(bits[limit / 8] & (1u << (limit % 8)))) {
            if (n == 0)
                break;
            n--;
        }
        limit++;
    }
    return limit + (long)n;
}

/* Where the list cannot be read (no /proc, no descriptor left): try every
 * number that the limit allows. */
static int each_fd(void (*visit)(int fd, void *ud), void *ud)
{
    struct rlimit limit;

    if (fm__proc_each_number("/proc/self/fd", true, visit, ud) == 0)
        return 0;
    if (fm__sys.getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    for (rlim_t fd = 0; fd < limit.rlim_cur && fd < BITS_MAX; fd++) {
        if (fm__sys.fcntl((int)fd, F_GETFD, 0) >= 0)
            visit((int)fd, ud);
    }
    return 0;
}
