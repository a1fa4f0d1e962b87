/* SPDX-License-Identifier: MIT */
/* No kernel facility for forking on behalf of another process; sibling.h. */
#include <errno.h>

#include "os/sibling.h"

bool fm__sibling_is_possible(void)
{
    return false;
}

int fm__sibling_open(void)
{
    return -ENOSYS;
}

pid_t fm__sibling_fork(void)
{
    return -ENOSYS;
}
