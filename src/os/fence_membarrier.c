/* SPDX-License-Identifier: MIT */
/* Linux, since 4.16: the kernel interrupts every processor on which a process
 * that takes part is running. */
#include <linux/membarrier.h>

#include "os/fence.h"
#include "os/sys.h"

#define WANTED                                                                 \
    (MEMBARRIER_CMD_GLOBAL_EXPEDITED | MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED)

bool fm__fence_is_there(void)
{
    int commands = fm__sys.membarrier(MEMBARRIER_CMD_QUERY, 0);

    return commands > 0 && (commands & WANTED) == WANTED;
}

bool fm__fence_join(void)
{
    return fm__sys.membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0) == 0;
}

bool fm__fence_all(void)
{
    return fm__sys.membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0) == 0;
}
