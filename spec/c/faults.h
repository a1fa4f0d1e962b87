/* SPDX-License-Identifier: MIT */
/*
 * Faults on demand: the k-th call of one entry of the table fm__sys fails, in
 * this process or in its children, once or from then on.
 *
 * What the engine takes is counted on the way (blocks, mappings), so that a
 * sweep sees what is left behind.
 */
#ifndef SPEC_C_FAULTS_H
#define SPEC_C_FAULTS_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/sys.h"

/* Not an error number: one byte is read or written. */
#define FAULT_SHORT (-1)

enum fault_call {
#define FAULT_ID(type, name, parameters) FAULT_##name,
    FM__SYS_CALLS(FAULT_ID)
#undef FAULT_ID
        FAULT_COUNT
};

static const char *const fault_names[] __attribute__((unused)) = {
#define FAULT_NAME(type, name, parameters) #name,
    FM__SYS_CALLS(FAULT_NAME)
#undef FAULT_NAME
};

struct fault {
    int call;        /* enum fault_call; FAULT_COUNT: none */
    int error;       /* number of the error, or FAULT_SHORT */
    unsigned long k; /* from 1 */
    bool is_sticky;  /* and from then on; EINTR every other time */
    bool in_child;
};

static struct fault fault = {.call = FAULT_COUNT};

/* Seen by the children as well: [1] is theirs. */
static struct fault_page {
    _Atomic unsigned long calls[2][FAULT_COUNT];
    atomic_bool reached;
} * fault_page;

static bool fault_is_child;
static long fault_blocks, fault_mappings;

/* Told of every call of this process. */
static void (*fault_watch)(int call) __attribute__((unused));

static bool fault_hits(int call)
{
    unsigned long n = ++fault_page->calls[fault_is_child][call];

    if (fault_watch && !fault_is_child)
        fault_watch(call);
    if (call != fault.call || fault_is_child != fault.in_child || n < fault.k)
        return false;
    if (n > fault.k && !fault.is_sticky)
        return false;
    /* Signals come often, but what they interrupt gets on in the end. */
    if (fault.error == EINTR && (n - fault.k) % 2 == 1)
        return false;
    fault_page->reached = true;
    errno = fault.error;
    return true;
}

#define FAULTY(type, name, parameters, arguments, failed)                      \
    static type fault_##name parameters                                        \
    {                                                                          \
        return fault_hits(FAULT_##name) ? (failed)                             \
                                        : fm__sys_real.name arguments;         \
    }

#define FAULTY_INT(name, parameters, arguments)                                \
    FAULTY(int, name, parameters, arguments, -1)

static void *fault_malloc(size_t size)
{
    void *p = fault_hits(FAULT_malloc) ? NULL : fm__sys_real.malloc(size);

    fault_blocks += p != NULL;
    return p;
}

static void *fault_calloc(size_t n, size_t size)
{
    void *p = fault_hits(FAULT_calloc) ? NULL : fm__sys_real.calloc(n, size);

    fault_blocks += p != NULL;
    return p;
}

static void *fault_realloc(void *p, size_t size)
{
    void *q = fault_hits(FAULT_realloc) ? NULL : fm__sys_real.realloc(p, size);

    fault_blocks += q && !p;
    return q;
}

static void fault_free(void *p)
{
    fault_blocks -= p != NULL;
    fm__sys_real.free(p);
}

static pid_t fault_fork(void)
{
    pid_t pid = fault_hits(FAULT_fork) ? -1 : fm__sys_real.fork();

    if (pid == 0)
        fault_is_child = true;
    return pid;
}

/* What these gave back is gone, whatever they say. */
static int fault_close(int fd)
{
    bool hit = fault_hits(FAULT_close);
    int saved = errno, rc = fm__sys_real.close(fd);

    if (hit)
        errno = saved;
    return hit ? -1 : rc;
}

static void *fault_mmap(void *p, size_t len, int prot, int flags, int fd,
                        off_t offset)
{
    void *q = fault_hits(FAULT_mmap)
                  ? MAP_FAILED
                  : fm__sys_real.mmap(p, len, prot, flags, fd, offset);

    fault_mappings += q != MAP_FAILED;
    return q;
}

static int fault_munmap(void *p, size_t len)
{
    bool hit = fault_hits(FAULT_munmap);
    int rc = fm__sys_real.munmap(p, len);

    fault_mappings -= rc == 0;
    return hit ? -1 : rc;
}

static ssize_t fault_read(int fd, void *data, size_t len)
{
    bool hit = fault_hits(FAULT_read);

    if (hit && fault.error != FAULT_SHORT)
        return -1;
    return fm__sys_real.read(fd, data, hit && len > 1 ? 1 : len);
}

static ssize_t fault_write(int fd, const void *data, size_t len)
{
    bool hit = fault_hits(FAULT_write);

    if (hit && fault.error != FAULT_SHORT)
        return -1;
    return fm__sys_real.write(fd, data, hit && len > 1 ? 1 : len);
}

/* Short: only the first byte of the first part. */
static ssize_t fault_sendmsg(int fd, const struct msghdr *message, int flags)
{
    bool hit = fault_hits(FAULT_sendmsg);
    struct msghdr copy = *message;
    struct iovec part = message->msg_iov[0];

    if (hit && fault.error != FAULT_SHORT)
        return -1;
    if (!hit || part.iov_len == 0)
        return fm__sys_real.sendmsg(fd, message, flags);
    part.iov_len = 1;
    copy.msg_iov = &part;
    copy.msg_iovlen = 1;
    return fm__sys_real.sendmsg(fd, &copy, flags);
}

static ssize_t fault_recvmsg(int fd, struct msghdr *message, int flags)
{
    bool hit = fault_hits(FAULT_recvmsg);

    if (hit && fault.error != FAULT_SHORT)
        return -1;
    if (hit && message->msg_iov[0].iov_len > 1)
        message->msg_iov[0].iov_len = 1;
    return fm__sys_real.recvmsg(fd, message, flags);
}

static void fault_kill_if_any(pid_t pid, int sig)
{
    if (!fault_hits(FAULT_kill_if_any))
        fm__sys_real.kill_if_any(pid, sig);
}

FAULTY(pid_t, getpid, (void), (), fm__sys_real.getpid())
FAULTY(pid_t, getppid, (void), (), fm__sys_real.getppid())
FAULTY(pid_t, getpgid, (pid_t pid), (pid), -1)
FAULTY_INT(socketpair, (int domain, int type, int protocol, int fds[2]),
           (domain, type, protocol, fds))
FAULTY_INT(pipe2, (int fds[2], int flags), (fds, flags))
FAULTY_INT(fcntl, (int fd, int command, int argument), (fd, command, argument))
FAULTY_INT(dup2, (int old, int new), (old, new))
FAULTY_INT(count_unread, (int fd), (fd))
FAULTY_INT(dup3, (int old, int new, int flags), (old, new, flags))
FAULTY_INT(open, (const char *path, int flags, mode_t mode),
           (path, flags, mode))
FAULTY_INT(fstat, (int fd, struct stat *st), (fd, st))
FAULTY_INT(poll, (struct pollfd * fds, unsigned long n, int ms), (fds, n, ms))
FAULTY_INT(madvise, (void *p, size_t len, int advice), (p, len, advice))
FAULTY_INT(kill, (pid_t pid, int sig), (pid, sig))
FAULTY_INT(setpgid, (pid_t pid, pid_t group), (pid, group))
FAULTY_INT(shutdown, (int fd, int how), (fd, how))
FAULTY(ssize_t, readlink, (const char *path, char *to, size_t size),
       (path, to, size), -1)
FAULTY_INT(ftruncate, (int fd, off_t len), (fd, len))
FAULTY_INT(execve, (const char *path, char *const argv[], char *const envp[]),
           (path, argv, envp))
FAULTY_INT(sigaction,
           (int sig, const struct sigaction *new, struct sigaction *old),
           (sig, new, old))
FAULTY_INT(pthread_sigmask, (int how, const sigset_t *set, sigset_t *old),
           (how, set, old))
FAULTY_INT(sigpending, (sigset_t * set), (set))
FAULTY(int, sigwait, (const sigset_t *set, int *ret_signal), (set, ret_signal),
       EINVAL)
FAULTY_INT(sigaltstack, (const stack_t *new, stack_t *old), (new, old))
FAULTY_INT(setrlimit, (int resource, const struct rlimit *limit),
           (resource, limit))
FAULTY_INT(getrlimit, (int resource, struct rlimit *limit), (resource, limit))
FAULTY_INT(getrusage, (int who, struct rusage *usage), (who, usage))
FAULTY_INT(setpriority, (int which, int who, int value), (which, who, value))
FAULTY_INT(getpriority, (int which, int who), (which, who))
FAULTY_INT(clock_gettime, (clockid_t id, struct timespec *ts), (id, ts))
FAULTY_INT(nanosleep, (const struct timespec *want, struct timespec *left),
           (want, left))
FAULTY_INT(timer_create, (clockid_t id, struct sigevent *event, timer_t *timer),
           (id, event, timer))
FAULTY_INT(timer_settime,
           (timer_t timer, int flags, const struct itimerspec *new,
            struct itimerspec *old),
           (timer, flags, new, old))
FAULTY_INT(wait_look, (pid_t pid, siginfo_t *info, int options),
           (pid, info, options))
FAULTY(pid_t, wait4,
       (pid_t pid, int *status, int options, struct rusage *usage),
       (pid, status, options, usage), -1)

#ifdef __linux__
FAULTY_INT(eventfd, (unsigned start, int flags), (start, flags))
FAULTY_INT(epoll_create1, (int flags), (flags))
FAULTY_INT(epoll_ctl, (int epfd, int op, int fd, struct epoll_event *event),
           (epfd, op, fd, event))
FAULTY_INT(epoll_wait, (int epfd, struct epoll_event *events, int n, int ms),
           (epfd, events, n, ms))
FAULTY_INT(timerfd_create, (int clock, int flags), (clock, flags))
FAULTY_INT(timerfd_settime,
           (int fd, int flags, const struct itimerspec *new,
            struct itimerspec *old),
           (fd, flags, new, old))
FAULTY_INT(pidfd_open, (pid_t pid, unsigned flags), (pid, flags))
FAULTY_INT(pidfd_send_signal,
           (int pidfd, int sig, siginfo_t *info, unsigned flags),
           (pidfd, sig, info, flags))
FAULTY_INT(pidfd_get_info, (int pidfd, void *info), (pidfd, info))
FAULTY_INT(pidfd_wait,
           (int pidfd, siginfo_t *info, int options, struct rusage *usage),
           (pidfd, info, options, usage))
FAULTY_INT(fcntl_own, (int fd, int command, long argument),
           (fd, command, argument))
FAULTY(long, futex,
       (uint32_t * word, int op, uint32_t value, const struct timespec *ts),
       (word, op, value, ts), -1)
FAULTY_INT(membarrier, (int command, unsigned flags), (command, flags))
FAULTY_INT(prctl, (int option, unsigned long argument), (option, argument))
FAULTY(long, getdents64, (int fd, void *data, size_t len), (fd, data, len), -1)
FAULTY_INT(close_range, (unsigned first, unsigned last, unsigned flags),
           (first, last, flags))
FAULTY_INT(seccomp, (unsigned operation, unsigned flags, void *argument),
           (operation, flags, argument))
FAULTY_INT(memfd_create, (const char *name, unsigned flags), (name, flags))
FAULTY(pid_t, start_beside, (int (*fn)(void *ud), void *stack, void *ud),
       (fn, stack, ud), -1)

static pid_t fault_fork_sibling(int *tid)
{
    pid_t pid =
        fault_hits(FAULT_fork_sibling) ? -1 : fm__sys_real.fork_sibling(tid);

    if (pid == 0)
        fault_is_child = true;
    return pid;
}
#endif

/* Every entry goes through here from now on. */
static void __attribute__((unused)) fault_install(void)
{
    fault_page = mmap(NULL, sizeof *fault_page, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
#define FAULT_SET(type, name, parameters) fm__sys.name = fault_##name;
    FM__SYS_CALLS(FAULT_SET)
#undef FAULT_SET
    fm__sys.free = fault_free;
}

static void __attribute__((unused)) fault_arm(const struct fault *next)
{
    memset(fault_page, 0, sizeof *fault_page);
    fault = *next;
}

static void __attribute__((unused)) fault_disarm(void)
{
    fault.call = FAULT_COUNT;
}

#endif
