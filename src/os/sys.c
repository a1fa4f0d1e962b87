/* SPDX-License-Identifier: MIT */
/*
 * The table's entries: thin wrappers where a signature must be fixed or no
 * libc function exists, the libc function itself where it fits.
 */
#include "os/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/sys_direct.h"

#ifdef __linux__
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#endif

/* Of the kernel's signal sets, and no larger than libc's. */
#define NSIG_BYTES 8

static int sys_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags | O_CLOEXEC, mode);
}

static int sys_setpriority(int which, int who, int value)
{
    return setpriority(which, (id_t)who, value);
}

static int sys_getpriority(int which, int who)
{
    return getpriority(which, (id_t)who);
}

static int sys_getrusage(int who, struct rusage *usage)
{
    return getrusage(who, usage);
}

/* waitid() for one process by number. */
static int sys_wait_look(pid_t pid, siginfo_t *info, int options)
{
    return waitid(P_PID, (id_t)pid, info, options);
}

/* ------------------------------------------- what every call of a job makes */

#ifdef FM__SYS_DIRECT

static pid_t sys_getpid(void)
{
    return (pid_t)fm__sys_ask(SYS_getpid, 0, 0, 0, 0);
}

static pid_t sys_getppid(void)
{
    return (pid_t)fm__sys_ask(SYS_getppid, 0, 0, 0, 0);
}

static pid_t sys_getpgid(pid_t pid)
{
    return (pid_t)fm__sys_call(SYS_getpgid, pid, 0, 0, 0);
}

static int sys_fcntl(int fd, int command, int argument)
{
    return (int)fm__sys_call(SYS_fcntl, fd, command, argument, 0);
}

static int sys_close(int fd)
{
    return (int)fm__sys_call(SYS_close, fd, 0, 0, 0);
}

static int sys_dup3(int old, int new, int flags)
{
    return (int)fm__sys_call(SYS_dup3, old, new, flags, 0);
}

static int sys_count_unread(int fd)
{
    int n = 0;

    return ioctl(fd, FIONREAD, &n) < 0 ? -1 : n;
}

/* dup3() refuses what dup2() leaves alone. */
static int sys_dup2(int old, int new)
{
    if (old == new)
        return sys_fcntl(old, F_GETFD, 0) < 0 ? -1 : new;
    return sys_dup3(old, new, 0);
}

static int sys_poll(struct pollfd *fds, unsigned long n, int timeout_ms)
{
#ifdef SYS_poll
    return (int)fm__sys_call(SYS_poll, (long)fds, (long)n, timeout_ms, 0);
#else
    return poll(fds, (nfds_t)n, timeout_ms);
#endif
}

static int sys_fstat(int fd, struct stat *ret)
{
    return (int)fm__sys_call(SYS_fstat, fd, (long)ret, 0, 0);
}

static int sys_madvise(void *p, size_t len, int advice)
{
    return (int)fm__sys_call(SYS_madvise, (long)p, (long)len, advice, 0);
}

static int sys_kill(pid_t pid, int sig)
{
    return (int)fm__sys_call(SYS_kill, pid, sig, 0, 0);
}

static void sys_kill_if_any(pid_t pid, int sig)
{
    (void)fm__sys_ask(SYS_kill, pid, sig, 0, 0);
}

static int sys_setpgid(pid_t pid, pid_t group)
{
    return (int)fm__sys_call(SYS_setpgid, pid, group, 0, 0);
}

/* A handler needs a way back, which is the C library's; to have none needs
 * nothing, and is asked for some sixty times in each child. */
static int sys_sigaction(int sig, const struct sigaction *new,
                         struct sigaction *old)
{
    long plain[4] = {0, 0, 0, 0}; /* handler, flags, restorer, mask */

    if (!new || old ||
        (new->sa_handler != SIG_DFL &&new->sa_handler != SIG_IGN))
        return sigaction(sig, new, old);
    plain[0] = (long)new->sa_handler;
    return (int)fm__sys_call(SYS_rt_sigaction, sig, (long)plain, 0, NSIG_BYTES);
}

static int sys_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    return (int)fm__sys_call(SYS_rt_sigprocmask, how, (long)set, (long)old,
                             NSIG_BYTES);
}

static int sys_sigaltstack(const stack_t *new, stack_t *old)
{
    return (int)fm__sys_call(SYS_sigaltstack, (long)new, (long)old, 0, 0);
}

static int sys_fcntl_own(int fd, int command, long argument)
{
    return (int)fm__sys_call(SYS_fcntl, fd, command, argument, 0);
}

/* The identifiers of these two are the kernel's, and mean nothing to libc. */
static int sys_timer_create(clockid_t id, struct sigevent *event,
                            timer_t *ret_timer)
{
    int timer = 0;

    if (fm__sys_call(SYS_timer_create, id, (long)event, (long)&timer, 0) < 0)
        return -1;
    *ret_timer = (timer_t)(intptr_t)timer;
    return 0;
}

static int sys_timer_settime(timer_t timer, int flags,
                             const struct itimerspec *new,
                             struct itimerspec *old)
{
    return (int)fm__sys_call(SYS_timer_settime, (long)(intptr_t)timer, flags,
                             (long)new, (long)old);
}

static int sys_setrlimit(int resource, const struct rlimit *limit)
{
    return (int)fm__sys_call(SYS_prlimit64, 0, resource, (long)limit, 0);
}

static int sys_getrlimit(int resource, struct rlimit *limit)
{
    return (int)fm__sys_call(SYS_prlimit64, 0, resource, 0, (long)limit);
}

#else

#define sys_getpid getpid
#define sys_getppid getppid
#define sys_getpgid getpgid
#define sys_close close
#define sys_dup2 dup2
#define sys_dup3 dup3
#define sys_fstat fstat
#define sys_madvise madvise
#define sys_kill kill
#define sys_setpgid setpgid
#define sys_sigaction sigaction
#define sys_sigaltstack sigaltstack
#define sys_timer_create timer_create
#define sys_timer_settime timer_settime

static int sys_fcntl(int fd, int command, int argument)
{
    return fcntl(fd, command, argument);
}

static void sys_kill_if_any(pid_t pid, int sig)
{
    (void)kill(pid, sig);
}

#ifdef __linux__
static int sys_fcntl_own(int fd, int command, long argument)
{
    return fcntl(fd, command, argument);
}
#endif

static int sys_poll(struct pollfd *fds, unsigned long n, int timeout_ms)
{
    return poll(fds, (nfds_t)n, timeout_ms);
}

/* pthread_sigmask() returns the error; the table's convention is errno. */
static int sys_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    return sigprocmask(how, set, old);
}

static int sys_setrlimit(int resource, const struct rlimit *limit)
{
    return setrlimit(resource, limit);
}

static int sys_getrlimit(int resource, struct rlimit *limit)
{
    return getrlimit(resource, limit);
}

#endif

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

static int sys_membarrier(int command, unsigned flags)
{
    return (int)syscall(SYS_membarrier, command, flags, 0);
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

#ifndef SYS_memfd_create
#define SYS_memfd_create 319
#endif

static int sys_memfd_create(const char *name, unsigned flags)
{
    return (int)syscall(SYS_memfd_create, name, flags);
}

/* The system call itself: no libc has a fork() whose child has our parent. */
static pid_t sys_fork_sibling(int *tid)
{
    long flags = CLONE_PARENT | SIGCHLD;

    if (tid)
        flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
#if defined(__x86_64__)
    return (pid_t)syscall(SYS_clone, flags, 0, 0, tid, 0);
#else
    return (pid_t)syscall(SYS_clone, flags, 0, 0, 0, tid);
#endif
}

/* As posix_spawn() does it: the child has our memory until it executes, and we
 * wait for that. */
static pid_t sys_start_beside(int (*fn)(void *ud), void *stack, void *ud)
{
    return clone(fn, stack, CLONE_VM | CLONE_VFORK | SIGCHLD, ud);
}

#define FM__SYS_LINUX_ENTRIES                                                  \
    .eventfd = sys_eventfd, .epoll_create1 = epoll_create1,                    \
    .epoll_ctl = epoll_ctl, .epoll_wait = epoll_wait,                          \
    .timerfd_create = timerfd_create, .timerfd_settime = timerfd_settime,      \
    .pidfd_open = sys_pidfd_open, .pidfd_send_signal = sys_pidfd_send_signal,  \
    .pidfd_get_info = sys_pidfd_get_info, .pidfd_wait = sys_pidfd_wait,        \
    .fcntl_own = sys_fcntl_own, .futex = sys_futex, .prctl = sys_prctl,        \
    .membarrier = sys_membarrier, .getdents64 = sys_getdents64,                \
    .close_range = sys_close_range, .seccomp = sys_seccomp,                    \
    .memfd_create = sys_memfd_create, .fork_sibling = sys_fork_sibling,        \
    .start_beside = sys_start_beside,
#else
#define FM__SYS_LINUX_ENTRIES
#endif

#define FM__SYS_ENTRIES                                                        \
    {                                                                          \
        .malloc = malloc, .calloc = calloc, .realloc = realloc, .free = free,  \
        .fork = fork, .getpid = sys_getpid, .getppid = sys_getppid,            \
        .getpgid = sys_getpgid, .pipe2 = pipe2, .fcntl = sys_fcntl,            \
        .close = sys_close, .count_unread = sys_count_unread,                  \
        .dup2 = sys_dup2, .dup3 = sys_dup3, .open = sys_open,                  \
        .fstat = sys_fstat, .read = read, .write = write,                      \
        .socketpair = socketpair, .shutdown = shutdown, .sendmsg = sendmsg,    \
        .recvmsg = recvmsg, .poll = sys_poll, .mmap = mmap, .munmap = munmap,  \
        .madvise = sys_madvise, .kill = sys_kill,                              \
        .kill_if_any = sys_kill_if_any, .setpgid = sys_setpgid,                \
        .ftruncate = ftruncate, .readlink = readlink, .execve = execve,        \
        .sigaction = sys_sigaction, .pthread_sigmask = sys_sigmask,            \
        .sigpending = sigpending, .sigwait = sigwait,                          \
        .sigaltstack = sys_sigaltstack, .setrlimit = sys_setrlimit,            \
        .getrlimit = sys_getrlimit, .getrusage = sys_getrusage,                \
        .setpriority = sys_setpriority, .getpriority = sys_getpriority,        \
        .clock_gettime = clock_gettime, .nanosleep = nanosleep,                \
        .timer_create = sys_timer_create, .timer_settime = sys_timer_settime,  \
        .wait_look = sys_wait_look, .wait4 = wait4, .exit_now = _exit,         \
        FM__SYS_LINUX_ENTRIES                                                  \
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
