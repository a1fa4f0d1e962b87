/* SPDX-License-Identifier: MIT */
/*
 * Processes by pidfd (Linux >= 5.3).  Where the kernel refuses pidfd_open()
 * at run time (an old kernel, a seccomp filter), the handle works with the
 * number alone, as pid_waitpid.c does.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>

#include "os/fds.h"
#include "os/pid.h"
#include "os/pid_status.h"
#include "os/sys.h"

#define SIGNAL_PROCESS_GROUP 4u      /* PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9 */
#define INFO_EXIT (UINT64_C(1) << 3) /* PIDFD_INFO_EXIT, Linux 6.15 */

/* The engine asks after 1, 2, 4… ms. */
#define ASK_MOST 6

/* struct pidfd_info of the kernel, first version. */
struct pidfd_info {
    uint64_t mask, cgroup;
    uint32_t pid, tgid, ppid, ids[8];
    int32_t exit_code;
};

int fm__pid_open(struct fm__pid *ret_pid, pid_t pid)
{
    int fd = fm__sys.pidfd_open(pid, 0);

    if (fd < 0 && errno != ENOSYS && errno != EPERM && errno != EINVAL)
        return -errno;
    if (fd >= 0) {
        fd = fm__fd_adopt(fd);
        if (fd < 0)
            return fd;
    }
    ret_pid->pid = pid;
    ret_pid->fd = fd;
    ret_pid->n_asked = 0;
    return 0;
}

int fm__pid_fd(const struct fm__pid *pid)
{
    return pid->fd;
}

int fm__pid_signal_group(const struct fm__pid *pid, int sig)
{
    if (fm__pid_is_none(pid))
        return -ESRCH;
    if (pid->fd >= 0) {
        if (fm__sys.pidfd_send_signal(pid->fd, sig, NULL,
                                      SIGNAL_PROCESS_GROUP) == 0)
            return 0;
        if (errno == ESRCH)
            return -ESRCH;
    }
    /* An older kernel.  Safe while we have not reaped the leader: its number
     * cannot be taken by another group. */
    return fm__sys.kill(-pid->pid, sig) == 0 ? 0 : -errno;
}

int fm__pid_signal(const struct fm__pid *pid, int sig)
{
    if (fm__pid_is_none(pid))
        return -ESRCH;
    if (pid->fd >= 0 &&
        (fm__sys.pidfd_send_signal(pid->fd, sig, NULL, 0) == 0 ||
         errno == ESRCH))
        return 0;
    return fm__sys.kill(pid->pid, sig) == 0 ? 0 : -errno;
}

/* waitid() without WNOHANG's ambiguity: 1 gone, 0 alive, -errno. */
static int wait_nohang(const struct fm__pid *pid, int options,
                       struct fm__exit_status *ret)
{
    struct rusage usage;
    siginfo_t info;
    int status;
    pid_t done;

    memset(&info, 0, sizeof info);
    if (pid->fd < 0 && (options & WNOWAIT)) {
        return fm__sys.wait_look(pid->pid, &info, options | WNOHANG) < 0
                   ? -errno
                   : info.si_pid != 0;
    }
    if (pid->fd < 0) {
        done = fm__sys.wait4(pid->pid, &status, WNOHANG, &usage);
        if (done < 0)
            return -errno;
        if (done > 0) {
            fm__status_decode(status, ret);
            fm__status_usage(&usage, ret);
        }
        return done > 0;
    }
    if (fm__sys.pidfd_wait(pid->fd, &info, options | WNOHANG, &usage) < 0)
        return -errno;
    if (info.si_pid == 0)
        return 0;
    ret->known = true;
    if (info.si_code == CLD_EXITED)
        ret->exit_code = info.si_status;
    else
        ret->signal = info.si_status;
    fm__status_usage(&usage, ret);
    return 1;
}

/* Someone else took the status: the kernel may still tell it.  It does from the
 * moment when the process is let go of, which comes a little after nobody can
 * wait for it any more; until then it answers, but not to this, or that there
 * is no such process, as kernels that never tell do too.  Returns 0 when it is
 * to be asked again, else -ECHILD. */
static int ask_info(struct fm__pid *pid, struct fm__exit_status *ret)
{
    struct pidfd_info info;

    memset(&info, 0, sizeof info);
    info.mask = INFO_EXIT;
    if (pid->fd < 0)
        return -ECHILD;
    if (fm__sys.pidfd_get_info(pid->fd, &info) < 0)
        return errno == ESRCH && pid->n_asked++ < ASK_MOST ? 0 : -ECHILD;
    if (!(info.mask & INFO_EXIT))
        return 0;
    fm__status_decode(info.exit_code, ret);
    return -ECHILD;
}

bool fm__pid_is_gone(const struct fm__pid *pid)
{
    struct pollfd pfd = {.fd = pid->fd, .events = POLLIN};
    struct fm__exit_status unused;
    int rc;

    if (pid->fd >= 0) {
        /* Readable only when every thread of the process has ended. */
        rc = fm__sys.poll(&pfd, 1, 0);
        if (rc >= 0)
            return rc > 0;
    }
    rc = wait_nohang(pid, WEXITED | WNOWAIT, &unused);
    return rc != 0 && rc != -EINTR;
}

/* 1 reaped, 0 not yet, -ECHILD when someone else has, or another -errno. */
static int take_status(struct fm__pid *pid, struct fm__exit_status *ret)
{
    const struct fm__pid by_number = {.pid = pid->pid, .fd = -1};
    int rc = wait_nohang(pid, WEXITED, ret);

    if (rc < 0 && rc != -ECHILD && pid->fd >= 0)
        rc = wait_nohang(&by_number, WEXITED, ret);
    if (rc == -ECHILD)
        rc = ask_info(pid, ret);
    return rc == -EINTR ? 0 : rc;
}

int fm__pid_reap(struct fm__pid *pid, struct fm__exit_status *ret,
                 bool *ret_group_empty)
{
    struct fm__exit_status status;
    int rc, taken;

    memset(&status, 0, sizeof status);
    if (!fm__pid_is_gone(pid))
        return 0;
    /* The zombie still holds its number, so this cannot hit a stranger. */
    rc = fm__pid_signal_group(pid, SIGKILL);
    /* Who traces it, a debugger say, reaps it first: until then it is a zombie
     * whose pidfd is readable and whose status we cannot have. */
    taken = take_status(pid, &status);
    if (taken == 0)
        return 0;
    /* With the leader reaped, ESRCH means that nobody is left. */
    if (rc != -ESRCH)
        rc = fm__pid_signal_group(pid, 0);
    *ret_group_empty =
        rc == -ESRCH ||
        (taken > 0 && fm__orphans_reap(pid->pid, pid->has_siblings));
    *ret = status;
    return 1;
}

void fm__pid_close(struct fm__pid *pid)
{
    fm__fd_close(&pid->fd);
    pid->pid = 0;
}
