/* SPDX-License-Identifier: MIT */
/* Waiting by epoll. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "os/clock.h"
#include "os/fds.h"
#include "os/poller.h"
#include "os/sys.h"

#define TIMER_TAG UINT64_MAX
#define BATCH 64

int fm__poller_open(struct fm__poller *ret_poller)
{
    int fd = fm__fd_adopt(fm__sys.epoll_create1(EPOLL_CLOEXEC));

    if (fd < 0)
        return fd;
    *ret_poller = (struct fm__poller)FM__POLLER_INIT;
    ret_poller->fd = fd;
    ret_poller->timer_ns = FM__NEVER;
    return 0;
}

void fm__poller_close(struct fm__poller *poller)
{
    fm__fd_close(&poller->timer_fd);
    fm__fd_close(&poller->fd);
}

static int control(struct fm__poller *poller, int op, int fd, unsigned events,
                   uint64_t tag)
{
    struct epoll_event event;

    memset(&event, 0, sizeof event);
    event.events = (events & FM__POLL_IN ? EPOLLIN : 0u) |
                   (events & FM__POLL_OUT ? EPOLLOUT : 0u);
    event.data.u64 = tag;
    return fm__sys.epoll_ctl(poller->fd, op, fd, &event) < 0 ? -errno : 0;
}

int fm__poller_add(struct fm__poller *poller, int fd, unsigned events,
                   uint64_t tag)
{
    return control(poller, EPOLL_CTL_ADD, fd, events, tag);
}

int fm__poller_set(struct fm__poller *poller, int fd, unsigned events,
                   uint64_t tag)
{
    return control(poller, EPOLL_CTL_MOD, fd, events, tag);
}

void fm__poller_remove(struct fm__poller *poller, int fd)
{
    struct epoll_event unused;

    memset(&unused, 0, sizeof unused);
    (void)fm__sys.epoll_ctl(poller->fd, EPOLL_CTL_DEL, fd, &unused);
}

static unsigned to_events(uint32_t events)
{
    if (events & (EPOLLERR | EPOLLHUP))
        return FM__POLL_IN | FM__POLL_OUT;
    return (events & EPOLLIN ? FM__POLL_IN : 0u) |
           (events & EPOLLOUT ? FM__POLL_OUT : 0u);
}

int fm__poller_wait(struct fm__poller *poller,
                    struct fm__poller_event *ret_events, size_t n,
                    int64_t timeout_ns)
{
    struct epoll_event events[BATCH];
    int got, kept = 0;

    got = fm__sys.epoll_wait(poller->fd, events, (int)(n < BATCH ? n : BATCH),
                             fm__clock_poll_ms(timeout_ns));
    if (got < 0)
        return -errno;
    for (int i = 0; i < got; i++) {
        if (events[i].data.u64 == TIMER_TAG)
            continue;
        ret_events[kept].tag = events[i].data.u64;
        ret_events[kept++].events = to_events(events[i].events);
    }
    return kept;
}

int fm__poller_fd(struct fm__poller *poller)
{
    int fd, rc;

    if (poller->timer_fd >= 0)
        return poller->fd;
    fd = fm__fd_adopt(
        fm__sys.timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (fd < 0)
        return fd;
    rc = fm__poller_add(poller, fd, FM__POLL_IN, TIMER_TAG);
    if (rc < 0) {
        fm__fd_close(&fd);
        return rc;
    }
    poller->timer_fd = fd;
    poller->timer_ns = FM__NEVER;
    return poller->fd;
}

int fm__poller_set_deadline(struct fm__poller *poller, int64_t at_ns)
{
    struct itimerspec spec;

    if (poller->timer_fd < 0 || poller->timer_ns == at_ns)
        return 0;
    memset(&spec, 0, sizeof spec);
    if (at_ns != FM__NEVER)
        spec.it_value = fm__clock_spec(at_ns > 0 ? at_ns : 1);
    /* Setting it also silences a timer that has fired. */
    if (fm__sys.timerfd_settime(poller->timer_fd, TFD_TIMER_ABSTIME, &spec,
                                NULL) < 0)
        return -errno;
    poller->timer_ns = at_ns;
    return 0;
}
