/* SPDX-License-Identifier: MIT */
/* Programs are not started in this build; see exec.h. */
#include <errno.h>

#include "os/exec.h"

pid_t fm__exec_start(const struct fm__exec *exec)
{
    (void)exec;
    return -ENOSYS;
}
