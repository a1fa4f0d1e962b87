/* SPDX-License-Identifier: MIT */
/* Waiting by poll(), POSIX only. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "os/clock.h"
#include "os/poller.h"
#include "os/sys.h"

/* What is watched, and what the caller calls it. */
struct fm__poller_entry {
    struct pollfd pfd;
    uint64_t tag;
};

#define WATCHED_MAX 1024

int fm__poller_open(struct fm__poller *ret_poller)
{
    *ret_poller = (struct fm__poller)FM__POLLER_INIT;
    return 0;
}

void fm__poller_close(struct fm__poller *poller)
{
    fm__sys.free(poller->entries);
    *poller = (struct fm__poller)FM__POLLER_INIT;
}

static struct fm__poller_entry *find(struct fm__poller *poller, int fd)
{
    for (size_t i = 0; i < poller->n; i++) {
        if (poller->entries[i].pfd.fd == fd)
            return &poller->entries[i];
    }
    return NULL;
}

static void fill(struct fm__poller_entry *entry, int fd, unsigned events,
                 uint64_t tag)
{
    memset(entry, 0, sizeof *entry);
    entry->pfd.fd = fd;
    entry->pfd.events = (short)((events & FM__POLL_IN ? POLLIN : 0) |
                                (events & FM__POLL_OUT ? POLLOUT : 0));
    entry->tag = tag;
}

int fm__poller_add(struct fm__poller *poller, int fd, unsigned events,
                   uint64_t tag)
{
    struct fm__poller_entry *entry;

    if (find(poller, fd))
        return -EEXIST;
    if (poller->n == WATCHED_MAX)
        return -ENOSPC;
    if (poller->n == poller->size) {
        size_t size = poller->size > 0 ? poller->size * 2 : 16;

        entry = fm__sys.realloc(poller->entries, size * sizeof *entry);
        if (!entry)
            return -ENOMEM;
        poller->entries = entry;
        poller->size = size;
    }
    fill(&poller->entries[poller->n++], fd, events, tag);
    return 0;
}

int fm__poller_set(struct fm__poller *poller, int fd, unsigned events,
                   uint64_t tag)
{
    struct fm__poller_entry *entry = find(poller, fd);

    if (!entry)
        return -ENOENT;
    fill(entry, fd, events, tag);
    return 0;
}

void fm__poller_remove(struct fm__poller *poller, int fd)
{
    struct fm__poller_entry *entry = find(poller, fd);

    if (entry)
        *entry = poller->entries[--poller->n];
}

static unsigned to_events(short events)
{
    if (events & (POLLERR | POLLHUP | POLLNVAL))
        return FM__POLL_IN | FM__POLL_OUT;
    return (events & POLLIN ? FM__POLL_IN : 0u) |
           (events & POLLOUT ? FM__POLL_OUT : 0u);
}

int fm__poller_wait(struct fm__poller *poller,
                    struct fm__poller_event *ret_events, size_t n,
                    int64_t timeout_ns)
{
    struct pollfd fds[WATCHED_MAX];
    size_t kept = 0;

    for (size_t i = 0; i < poller->n; i++)
        fds[i] = poller->entries[i].pfd;
    if (fm__sys.poll(fds, poller->n, fm__clock_poll_ms(timeout_ns)) < 0)
        return -errno;
    for (size_t i = 0; i < poller->n && kept < n; i++) {
        if (fds[i].revents == 0)
            continue;
        ret_events[kept].tag = poller->entries[i].tag;
        ret_events[kept++].events = to_events(fds[i].revents);
    }
    return (int)kept;
}

int fm__poller_fd(struct fm__poller *poller)
{
    (void)poller;
    return -ENOSYS;
}

int fm__poller_set_deadline(struct fm__poller *poller, int64_t at_ns)
{
    (void)poller;
    (void)at_ns;
    return 0;
}
