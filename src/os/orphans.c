/* SPDX-License-Identifier: MIT */
/* Orphans of a group that come to this process; see pid_status.h. */
#include <errno.h>
#include <sys/prctl.h>

#include "os/clock.h"
#include "os/pid_status.h"
#include "os/sys.h"

/* Killed processes are zombies in no time; what hangs in the kernel is left
 * to the host, as any orphan is. */
#define PAUSE_NS (FM__NS_PER_MS / 10)
#define PAUSES_MAX 100

/* Nobody else knows of those that are ours: a busy machine gets more time. */
#define PAUSES_MAX_OURS 5000

static bool come_here(void)
{
    int is_subreaper = 0;

    if (fm__sys.getpid() == 1)
        return true;
    return fm__sys.prctl(PR_GET_CHILD_SUBREAPER,
                         (unsigned long)&is_subreaper) == 0 &&
           is_subreaper != 0;
}

bool fm__orphans_reap(pid_t group, bool are_ours)
{
    const struct timespec pause = fm__clock_spec(PAUSE_NS);
    struct rusage usage;
    int n_pauses = are_ours ? PAUSES_MAX_OURS : PAUSES_MAX;
    int status;

    if (!are_ours && !come_here())
        return false;
    for (int i = 0; i < n_pauses; i++) {
        while (fm__sys.wait4(-group, &status, WNOHANG, &usage) > 0)
            ;
        if (fm__sys.kill(-group, 0) < 0 && errno == ESRCH)
            return true;
        (void)fm__sys.nanosleep(&pause, NULL);
    }
    return false;
}
