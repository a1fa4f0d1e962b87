/* SPDX-License-Identifier: MIT */
/*
 * Processes by number, POSIX only.  The number stays ours until we reap it;
 * when the host reaps it for us (ECHILD), its group is asked for by number,
 * which could in theory be a new group's: it is then signalled no more.
 */
#include <errno.h>
#include <signal.h>

#include "os/pid.h"
#include "os/pid_status.h"
#include "os/sys.h"

int fm__pid_open(struct fm__pid *ret_pid, pid_t pid)
{
    ret_pid->pid = pid;
    ret_pid->fd = -1;
    return 0;
}

int fm__pid_fd(const struct fm__pid *pid)
{
    (void)pid;
    return -1;
}

int fm__pid_signal_group(const struct fm__pid *pid, int sig)
{
    if (fm__pid_is_none(pid))
        return -ESRCH;
    return fm__sys.kill(-pid->pid, sig) == 0 ? 0 : -errno;
}

int fm__pid_signal(const struct fm__pid *pid, int sig)
{
    if (fm__pid_is_none(pid))
        return -ESRCH;
    return fm__sys.kill(pid->pid, sig) == 0 ? 0 : -errno;
}

/* 1 gone and ours to reap, 0 alive, -ECHILD reaped by someone else. */
static int look(const struct fm__pid *pid)
{
    siginfo_t info;

    memset(&info, 0, sizeof info);
    if (fm__sys.wait_look(pid->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
        return errno == EINTR ? 0 : -errno;
    return info.si_pid != 0;
}

bool fm__pid_is_gone(const struct fm__pid *pid)
{
    return look(pid) != 0;
}

int fm__pid_reap(struct fm__pid *pid, struct fm__exit_status *ret,
                 bool *ret_group_empty)
{
    struct rusage usage;
    int gone = look(pid);
    int status;

    if (gone == 0)
        return 0;
    memset(ret, 0, sizeof *ret);
    if (gone > 0) {
        (void)fm__pid_signal_group(pid, SIGKILL);
        gone = fm__sys.wait4(pid->pid, &status, WNOHANG, &usage);
        if (gone == 0 || (gone < 0 && errno == EINTR))
            return 0;
        if (gone > 0) {
            fm__status_decode(status, ret);
            fm__status_usage(&usage, ret);
        }
    }
    *ret_group_empty =
        fm__pid_signal_group(pid, 0) == -ESRCH ||
        (gone > 0 && fm__orphans_reap(pid->pid, pid->has_siblings));
    return 1;
}

void fm__pid_close(struct fm__pid *pid)
{
    pid->pid = 0;
}
