/* SPDX-License-Identifier: MIT */
/* Siblings by clone(CLONE_PARENT); see sibling.h. */
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>

#include "os/fds.h"
#include "os/sibling.h"
#include "os/sys.h"

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

/* Where C libraries have the number lies near the start of what pthread_self()
 * points to. */
#ifdef __GLIBC__
#define LOOKED_AT ((size_t)1024)
#else
#define LOOKED_AT ((size_t)128)
#endif

/* Where the C library keeps the number of this thread; NULL: unknown. */
static int *tid_at;
static pid_t found_by; /* in this process, or one that it was forked off */

/* The address that the kernel clears at the thread's end is this very one in
 * some libraries (glibc), and something else in others (musl). */
static int *ask_kernel(int tid)
{
    int *address = NULL;

    if (fm__sys.prctl(PR_GET_TID_ADDRESS, (unsigned long)&address) == 0 &&
        address && *address == tid)
        return address;
    return NULL;
}

/* Is it this word that the library's own fork() changes? */
static bool is_changed_by_fork(const int *word)
{
    pid_t pid = fm__sys.fork();
    int status = 0;

    if (pid == 0)
        fm__exit_now(*word == fm__sys.getpid() ? 0 : 1);
    if (pid < 0)
        return false;
    while (fm__sys.wait4(pid, &status, 0, NULL) < 0) {
        if (errno != EINTR)
            return false;
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int *search(int tid)
{
    char *self = (char *)(uintptr_t)pthread_self();
    int *found = NULL;

    for (size_t at = 0; at < LOOKED_AT; at += sizeof(int)) {
        int word;

        memcpy(&word, self + at, sizeof word);
        if (word != tid)
            continue;
        if (found)
            return NULL;
        found = (int *)(void *)(self + at);
    }
    return found && is_changed_by_fork(found) ? found : NULL;
}

bool fm__sibling_is_possible(void)
{
    return true;
}

int fm__sibling_open(void)
{
    pid_t pid = fm__sys.getpid();

    if (found_by == pid)
        return tid_at ? 0 : -ENOSYS;
    if (!tid_at || *tid_at != pid)
        tid_at = ask_kernel(pid);
    if (!tid_at)
        tid_at = search(pid);
    found_by = pid;
    return tid_at ? 0 : -ENOSYS;
}

pid_t fm__sibling_fork(void)
{
    pid_t pid;

    fm__fds_before_fork();
    pid = fm__sys.fork_sibling(tid_at);
    if (pid == 0) {
        found_by = fm__sys.getpid();
        fm__fds_after_fork_in_child();
        return 0;
    }
    pid = pid < 0 ? -errno : pid;
    fm__fds_after_fork_in_parent();
    return pid;
}
