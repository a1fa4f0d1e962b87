/* SPDX-License-Identifier: MIT */
/* Programs started by clone(CLONE_VM | CLONE_VFORK); see exec.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/exec.h"
#include "os/proc.h"
#include "os/signals.h"
#include "os/sys.h"

#define STACK_SIZE ((size_t)64 << 10)
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4u /* Linux 5.11 */
#endif

/* What the child works on, in our memory: it calls nothing that allocates. */
struct start {
    const struct fm__exec *exec;
    char *const *envp;
    const char *path; /* PATH, or NULL when argv[0] is a path */
    char file[PATH_MAX];
    int rc;
};

static void mark_one(int fd, void *ud)
{
    (void)ud;
    if (fd > 2)
        (void)fm__sys.fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* Everything above the standard streams goes when the program begins. */
static int close_others(void)
{
    if (fm__sys.close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) == 0)
        return 0;
    return fm__proc_each_number("/proc/self/fd", false, mark_one, NULL);
}

/* A program whose standard stream is closed, or will be when it begins, has its
 * first file there, and prints into that. */
static int open_streams(int null_fd)
{
    if (fm__sys.dup2(null_fd, 0) < 0)
        return -errno;
    for (int fd = 1; fd <= 2; fd++) {
        int flags = fm__sys.fcntl(fd, F_GETFD, 0);

        if ((flags < 0 || (flags & FD_CLOEXEC)) &&
            fm__sys.dup2(null_fd, fd) < 0)
            return -errno;
    }
    return 0;
}

static int settle(const struct fm__exec *exec)
{
    int rc;

    if (fm__sys.setpgid(0, 0) < 0)
        return -errno;
    rc = fm__signals_reset();
    if (rc == 0)
        rc = close_others();
    if (rc == 0)
        rc = open_streams(exec->null_fd);
    if (rc < 0)
        return rc;
    if (fm__sys.fcntl(exec->fd, F_SETFD, 0) < 0)
        return -errno;
    return fm__signals_open();
}

/* The next directory of PATH and the name, in `file`.  False at the end. */
static bool next_file(struct start *start)
{
    const char *name = start->exec->argv[0];
    const char *end = strchrnul(start->path, ':');
    size_t len = (size_t)(end - start->path);
    size_t name_len = strlen(name);

    if (len + name_len + 2 > sizeof start->file) {
        start->file[0] = '\0';
    } else {
        memcpy(start->file, start->path, len);
        if (len > 0)
            start->file[len++] = '/';
        memcpy(start->file + len, name, name_len + 1);
    }
    if (*end == '\0')
        return false;
    start->path = end + 1;
    return true;
}

/* As execvp() looks for it. */
static int run(struct start *start)
{
    const struct fm__exec *exec = start->exec;
    int rc = -ENOENT;
    bool has_more = true;

    if (!start->path) {
        (void)fm__sys.execve(exec->argv[0], exec->argv, start->envp);
        return -errno;
    }
    while (has_more) {
        has_more = next_file(start);
        (void)fm__sys.execve(start->file, exec->argv, start->envp);
        if (errno != ENOENT && errno != ENOTDIR)
            rc = -errno;
    }
    return rc;
}

static int child_main(void *ud)
{
    struct start *start = ud;

    start->rc = settle(start->exec);
    if (start->rc == 0)
        start->rc = run(start);
    /* Not by what never returns: compilers that watch the stack get ready for
     * that, and this is none that they know. */
    fm__sys.exit_now(127);
    return 127;
}

static int reap(pid_t pid)
{
    while (fm__sys.wait4(pid, NULL, 0, NULL) < 0) {
        if (errno != EINTR)
            break; /* by the host, which reaps everything */
    }
    return 0;
}

extern char **environ;

static pid_t start_with(struct start *start, char *stack)
{
    sigset_t mask;
    pid_t pid;
    int rc = fm__signals_block(&mask);

    if (rc < 0)
        return rc;
    pid = fm__sys.start_beside(child_main, stack + STACK_SIZE, start);
    rc = pid < 0 ? -errno : start->rc;
    if (pid > 0 && rc < 0)
        reap(pid);
    fm__signals_restore(&mask);
    return rc < 0 ? rc : pid;
}

pid_t fm__exec_start(const struct fm__exec *exec)
{
    struct start start;
    const char *path = getenv("PATH");
    void *stack;
    pid_t pid;

    memset(&start, 0, sizeof start);
    start.exec = exec;
    start.envp = environ;
    if (!strchr(exec->argv[0], '/'))
        start.path = path && *path ? path : "/usr/local/bin:/bin:/usr/bin";
    stack = fm__sys.mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED)
        return -errno;
    pid = start_with(&start, stack);
    (void)fm__sys.munmap(stack, STACK_SIZE);
    return pid;
}
