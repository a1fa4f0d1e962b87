/* SPDX-License-Identifier: MIT */
/*
 * Burying by tombstone: dup3() of an O_PATH descriptor.  The number stays
 * taken and reads, writes and the like fail with EBADF.  One source for all is
 * kept open, as opening one per burial would cost ten times more.
 */
#include <errno.h>
#include <fcntl.h>

#include "os/fds.h"
#include "os/sys.h"

static int tombstone = -1;

int fm__bury_open(void)
{
    int fd;

    if (tombstone >= 0)
        return 0;
    fd = fm__sys.open("/", O_PATH, 0);
    if (fd < 0)
        return -errno;
    tombstone = fm__fd_copy(fd, FM__FD_LOWEST);
    (void)fm__sys.close(fd);
    return tombstone < 0 ? tombstone : 0;
}

void fm__bury_close(void)
{
    if (tombstone >= 0)
        (void)fm__sys.close(tombstone);
    tombstone = -1;
}

void fm__fd_bury(int fd)
{
    if (fd == tombstone)
        return;
    if (tombstone < 0 || fm__sys.dup3(tombstone, fd, O_CLOEXEC) < 0)
        (void)fm__sys.close(fd);
}
