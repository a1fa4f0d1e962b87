/* SPDX-License-Identifier: MIT */
/*
 * The table's entries: thin wrappers where a signature must be fixed or no
 * libc function exists, the libc function itself where it fits.
 */
#include "os/sys.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#endif

static int sys_fcntl(int fd, int command, int argument)
{
    return fcntl(fd, command, argument);
}

static int sys_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags | O_CLOEXEC, mode);
}

static int sys_poll(struct pollfd *fds, unsigned long n, int timeout_ms)
{
    return poll(fds, (nfds_t)n, timeout_ms);
}

static int sys_setpriority(int which, int who, int value)
{
    return setpriority(which, (id_t)who, value);
}

static int sys_getpriority(int which, int who)
{
    return getpriority(which, (id_t)who);
}

static int sys_setrlimit(int resource, const struct rlimit *limit)
{
    return setrlimit(resource, limit);
}

static int sys_getrlimit(int resource, struct rlimit *limit)
{
    return getrlimit(resource, limit);
}

static int sys_getrusage(int who, struct rusage *usage)
{
    return getrusage(who, usage);
}

/* pthread_sigmask() returns the error; the table's convention is errno. */
static int sys_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    return sigprocmask(how, set, old);
}

/* waitid() for one process by number. */
static int sys_wait_look(pid_t pid, siginfo_t *info, int options)
{
    return waitid(P_PID, (id_t)pid, info, options);
}

#ifdef __linux__

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#define FM__P_PIDFD 3
#define FM__PIDFD_GET_INFO 0xC040FF0BUL /* _IOWR(0xFF, 11, 64 bytes) */

static int sys_pidfd_open(pid_t pid, unsigned flags)
{
    return (int)syscall(SYS_pidfd_open, pid, flags);
}

static int sys_pidfd_send_signal(int pidfd, int sig, siginfo_t *info,
                                 unsigned flags)
{
    return (int)syscall(SYS_pidfd_send_signal, pidfd, sig, info, flags);
}

static int sys_pidfd_get_info(int pidfd, void *info)
{
    return ioctl(pidfd, FM__PIDFD_GET_INFO, info);
}

/* The system call itself: it also gives the child's resource usage. */
static int sys_pidfd_wait(int pidfd, siginfo_t *info, int options,
                          struct rusage *usage)
{
    return (int)syscall(SYS_waitid, FM__P_PIDFD, pidfd, info, options, usage);
}

static int sys_fcntl_own(int fd, int command, long argument)
{
    return fcntl(fd, command, argument);
}

static long sys_futex(uint32_t *word, int op, uint32_t value,
                      const struct timespec *ts)
{
    return syscall(SYS_futex, word, op, value, ts, NULL, 0);
}

static int sys_eventfd(unsigned start, int flags)
{
    return eventfd(start, flags);
}

static int sys_prctl(int option, unsigned long argument)
{
    return prctl(option, argument, 0, 0, 0);
}

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

static int sys_close_range(unsigned first, unsigned last, unsigned flags)
{
    return (int)syscall(SYS_close_range, first, last, flags);
}

static long sys_getdents64(int fd, void *data, size_t len)
{
    return syscall(SYS_getdents64, fd, data, len);
}

static int sys_seccomp(unsigned operation, unsigned flags, void *argument)
{
    return (int)syscall(SYS_seccomp, operation, flags, argument);
}

#define FM__SYS_LINUX_ENTRIES                                                  \
    .eventfd = sys_eventfd, .epoll_create1 = epoll_create1,                    \
    .epoll_ctl = epoll_ctl, .epoll_wait = epoll_wait,                          \
    .timerfd_create = timerfd_create, .timerfd_settime = timerfd_settime,      \
    .pidfd_open = sys_pidfd_open, .pidfd_send_signal = sys_pidfd_send_signal,  \
    .pidfd_get_info = sys_pidfd_get_info, .pidfd_wait = sys_pidfd_wait,        \
    .fcntl_own = sys_fcntl_own, .futex = sys_futex, .prctl = sys_prctl,        \
    .getdents64 = sys_getdents64, .close_range = sys_close_range,              \
    .seccomp = sys_seccomp,
#else
#define FM__SYS_LINUX_ENTRIES
#endif

#define FM__SYS_ENTRIES                                                        \
    {                                                                          \
        .malloc = malloc, .calloc = calloc, .realloc = realloc, .free = free,  \
        .fork = fork, .getpid = getpid, .getppid = getppid,                    \
        .getpgrp = getpgrp, .pipe2 = pipe2, .fcntl = sys_fcntl,                \
        .close = close, .dup2 = dup2, .dup3 = dup3, .open = sys_open,          \
        .fstat = fstat, .read = read, .write = write, .poll = sys_poll,        \
        .mmap = mmap, .munmap = munmap, .madvise = madvise, .kill = kill,      \
        .setpgid = setpgid, .sigaction = sigaction,                            \
        .pthread_sigmask = sys_sigmask, .sigaltstack = sigaltstack,            \
        .setrlimit = sys_setrlimit, .getrlimit = sys_getrlimit,                \
        .getrusage = sys_getrusage, .setpriority = sys_setpriority,            \
        .getpriority = sys_getpriority, .clock_gettime = clock_gettime,        \
        .nanosleep = nanosleep, .timer_create = timer_create,                  \
        .timer_settime = timer_settime, .wait_look = sys_wait_look,            \
        .wait4 = wait4, .exit_now = _exit, FM__SYS_LINUX_ENTRIES               \
    }

#ifdef FM_TESTING
struct fm__sys_table fm__sys = FM__SYS_ENTRIES;
const struct fm__sys_table fm__sys_real = FM__SYS_ENTRIES;
#else
const struct fm__sys_table fm__sys = FM__SYS_ENTRIES;
#endif

_Noreturn void fm__exit_now(int code)
{
    fm__sys.exit_now(code);
    _exit(code);
}
