/* SPDX-License-Identifier: MIT */
/* Doorbells: one eventfd each. */
#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>

#include "os/bell.h"
#include "os/fds.h"
#include "os/sys.h"

int fm__bell_open(struct fm__bell *ret_bell)
{
    int fd = fm__fd_adopt(fm__sys.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));

    if (fd < 0)
        return fd;
    ret_bell->hear_fd = fd;
    ret_bell->ring_fd = fd;
    return 0;
}

int fm__bell_ring(const struct fm__bell *bell)
{
    uint64_t one = 1;

    while (fm__sys.write(bell->ring_fd, &one, sizeof one) < 0) {
        if (errno == EAGAIN)
            return 0; /* it has rung more often than it can count */
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

void fm__bell_silence(const struct fm__bell *bell)
{
    uint64_t count;

    (void)!fm__sys.read(bell->hear_fd, &count, sizeof count);
}

void fm__bell_close(struct fm__bell *bell)
{
    fm__fd_close(&bell->hear_fd);
    bell->ring_fd = -1;
}
