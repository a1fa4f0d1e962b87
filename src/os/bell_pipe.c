/* SPDX-License-Identifier: MIT */
/* Doorbells: a pipe each, where there is no eventfd. */
#include <errno.h>
#include <fcntl.h>

#include "os/bell.h"
#include "os/fds.h"
#include "os/sys.h"

int fm__bell_open(struct fm__bell *ret_bell)
{
    int fds[2];
    int rc = fm__fd_pipe(fds, O_NONBLOCK);

    if (rc < 0)
        return rc;
    ret_bell->hear_fd = fds[0];
    ret_bell->ring_fd = fds[1];
    return 0;
}

int fm__bell_ring(const struct fm__bell *bell)
{
    while (fm__sys.write(bell->ring_fd, "", 1) < 0) {
        if (errno == EAGAIN)
            return 0; /* a full pipe rings already */
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

void fm__bell_silence(const struct fm__bell *bell)
{
    char rings[64];

    while (fm__sys.read(bell->hear_fd, rings, sizeof rings) > 0)
        ;
}

void fm__bell_close(struct fm__bell *bell)
{
    fm__fd_close(&bell->hear_fd);
    fm__fd_close(&bell->ring_fd);
}
