/* SPDX-License-Identifier: MIT */
/*
 * The table of every system call and allocation that the engine makes: the
 * one seam at which faults are injected.  Nothing outside src/os/sys.c calls
 * the kernel or malloc by another way.
 *
 * Production builds have a constant table.  With FM_TESTING it is writable,
 * and fm__sys_real is the original to fall back on.
 *
 * Entries are named like the functions they stand for and fail like them: -1
 * and errno.  Those that no libc wraps have the kernel's name.  kill_if_any()
 * is kill() that tells nothing, for where there may be nobody.
 */
#ifndef FM_OS_SYS_H
#define FM_OS_SYS_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>

struct epoll_event;
struct msghdr;
struct pollfd;

/* X(return type, name, parameters) */
#define FM__SYS_PORTABLE(X)                                                    \
    X(void *, malloc, (size_t size))                                           \
    X(void *, calloc, (size_t n, size_t size))                                 \
    X(void *, realloc, (void *p, size_t size))                                 \
    X(pid_t, fork, (void))                                                     \
    X(pid_t, getpid, (void))                                                   \
    X(pid_t, getppid, (void))                                                  \
    X(int, pipe2, (int fds[2], int flags))                                     \
    X(int, fcntl, (int fd, int command, int argument))                         \
    X(int, close, (int fd))                                                    \
    X(int, dup2, (int old, int new))                                           \
    X(int, count_unread, (int fd)) /* bytes in a pipe: FIONREAD */             \
    X(int, dup3, (int old, int new, int flags))                                \
    X(int, open, (const char *path, int flags, mode_t mode))                   \
    X(int, fstat, (int fd, struct stat *st))                                   \
    X(ssize_t, read, (int fd, void *data, size_t len))                         \
    X(ssize_t, write, (int fd, const void *data, size_t len))                  \
    X(int, shutdown, (int fd, int how))                                        \
    X(int, socketpair, (int domain, int type, int protocol, int fds[2]))       \
    X(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags))     \
    X(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags))           \
    X(int, poll, (struct pollfd * fds, unsigned long n, int timeout_ms))       \
    X(void *, mmap,                                                            \
      (void *p, size_t len, int prot, int flags, int fd, off_t offset))        \
    X(int, munmap, (void *p, size_t len))                                      \
    X(int, madvise, (void *p, size_t len, int advice))                         \
    X(int, kill, (pid_t pid, int signal))                                      \
    X(void, kill_if_any, (pid_t pid, int signal))                              \
    X(pid_t, getpgid, (pid_t pid))                                             \
    X(int, setpgid, (pid_t pid, pid_t group))                                  \
    X(ssize_t, readlink, (const char *path, char *to, size_t size))            \
    X(int, ftruncate, (int fd, off_t len))                                     \
    X(int, execve, (const char *path, char *const argv[], char *const envp[])) \
    X(int, sigaction,                                                          \
      (int signal, const struct sigaction *new, struct sigaction *old))        \
    X(int, pthread_sigmask, (int how, const sigset_t *set, sigset_t *old))     \
    X(int, sigpending, (sigset_t * set))                                       \
    X(int, sigwait, (const sigset_t *set, int *ret_signal))                    \
    X(int, sigaltstack, (const stack_t *new, stack_t *old))                    \
    X(int, setrlimit, (int resource, const struct rlimit *limit))              \
    X(int, getrlimit, (int resource, struct rlimit *limit))                    \
    X(int, getrusage, (int who, struct rusage *usage))                         \
    X(int, setpriority, (int which, int who, int value))                       \
    X(int, getpriority, (int which, int who))                                  \
    X(int, clock_gettime, (clockid_t id, struct timespec * ts))                \
    X(int, nanosleep, (const struct timespec *want, struct timespec *left))    \
    X(int, timer_create,                                                       \
      (clockid_t id, struct sigevent * event, timer_t * timer))                \
    X(int, timer_settime,                                                      \
      (timer_t timer, int flags, const struct itimerspec *new,                 \
       struct itimerspec *old))                                                \
    X(int, wait_look, (pid_t pid, siginfo_t * info, int options))              \
    X(pid_t, wait4, (pid_t pid, int *status, int options, struct rusage *usage))

#ifdef __linux__
#define FM__SYS_LINUX(X)                                                       \
    X(int, eventfd, (unsigned start, int flags))                               \
    X(int, epoll_create1, (int flags))                                         \
    X(int, epoll_ctl, (int epfd, int op, int fd, struct epoll_event *event))   \
    X(int, epoll_wait,                                                         \
      (int epfd, struct epoll_event *events, int n, int timeout_ms))           \
    X(int, timerfd_create, (int clock, int flags))                             \
    X(int, timerfd_settime,                                                    \
      (int fd, int flags, const struct itimerspec *new,                        \
       struct itimerspec *old))                                                \
    X(int, pidfd_open, (pid_t pid, unsigned flags))                            \
    X(int, pidfd_send_signal,                                                  \
      (int pidfd, int signal, siginfo_t *info, unsigned flags))                \
    X(int, pidfd_get_info, (int pidfd, void *info))                            \
    X(int, pidfd_wait,                                                         \
      (int pidfd, siginfo_t *info, int options, struct rusage *usage))         \
    X(int, fcntl_own, (int fd, int command, long argument))                    \
    X(long, futex,                                                             \
      (uint32_t * word, int op, uint32_t value, const struct timespec *ts))    \
    X(int, prctl, (int option, unsigned long argument))                        \
    X(int, membarrier, (int command, unsigned flags))                          \
    X(long, getdents64, (int fd, void *data, size_t len))                      \
    X(int, close_range, (unsigned first, unsigned last, unsigned flags))       \
    X(int, seccomp, (unsigned operation, unsigned flags, void *argument))      \
    X(int, memfd_create, (const char *name, unsigned flags))                   \
    X(pid_t, fork_sibling, (int *tid)) /* see os/sibling.h */                  \
    X(pid_t, start_beside, (int (*fn)(void *ud), void *stack, void *ud))
#else
#define FM__SYS_LINUX(X)
#endif

#define FM__SYS_CALLS(X) FM__SYS_PORTABLE(X) FM__SYS_LINUX(X)

struct fm__sys_table {
#define FM__SYS_FIELD(type, name, parameters) type(*name) parameters;
    FM__SYS_CALLS(FM__SYS_FIELD)
#undef FM__SYS_FIELD
    void (*free)(void *p);
    void (*exit_now)(int code); /* _exit: does not return */
};

#ifdef FM_TESTING
extern struct fm__sys_table fm__sys;
extern const struct fm__sys_table fm__sys_real;
#else
extern const struct fm__sys_table fm__sys;
#endif

/* _exit(code), also for the compiler. */
_Noreturn void fm__exit_now(int code);

#endif
