/* SPDX-License-Identifier: MIT */
/*
 * A program in a child: started beside us, as posix_spawn() does it, without
 * copying our memory, however big we are and however many threads we have.
 *
 * It gets standard output and error, /dev/null as its input and in place of
 * those that are closed here, the environment and the directory as they are,
 * one descriptor, and no other: not even those of ours that nobody marked
 * close-on-exec.  It has a process group of its own, default signal handlers
 * and an empty signal mask.
 */
#ifndef FM_OS_EXEC_H
#define FM_OS_EXEC_H

#include <sys/types.h>

struct fm__exec {
    char *const *argv; /* argv[0] is a path, or a name to look for in PATH */
    int fd;            /* what it keeps, close-on-exec here */
    int null_fd;
};

/* Returns the child's number, or -errno of the first step that failed: no child
 * is left then. */
pid_t fm__exec_start(const struct fm__exec *exec);

#endif
