/* SPDX-License-Identifier: MIT */
/* What an engine must leave in its host as it was; see zoo.h. */
#include "zoo.h"

#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIGNALS 64
#define FDS 256

/* All of it is zeroed before it is filled, so that it can be compared. */
struct stock {
    void (*handlers[SIGNALS + 1])(int);
    int flags[SIGNALS + 1];
    unsigned char blocked[SIGNALS + 1];
    char cwd[1024];
    char locale[256];
    mode_t umask;
    struct timeval interval;
    rlim_t limits[RLIM_NLIMITS][2];
    int priority, rounding;
    pid_t group, session;
    uid_t uids[2];
    void *alt_stack;
    size_t environment;
    ino_t fds[FDS];
    off_t offset;
    long position;
};

static struct stock before;
static FILE *reader;
static pid_t own_child;
static int own_pipe[2];

#define LINES 500
#define LINE_LEN 8

static void begin_reading(void)
{
    char line[32];

    reader = tmpfile();
    zoo_must(reader != NULL, "tmpfile");
    for (int i = 0; i < LINES; i++)
        (void)fprintf(reader, "%07d\n", i);
    rewind(reader);
    for (int i = 0; i < LINES / 2; i++)
        zoo_must(fgets(line, sizeof line, reader) != NULL, "read");
}

static void end_reading(void)
{
    char line[32];

    for (int i = LINES / 2; i < LINES; i++) {
        zoo_must(fgets(line, sizeof line, reader) != NULL, "line is gone");
        zoo_must(strtol(line, NULL, 10) == i, "line is another one");
    }
    zoo_must(fgets(line, sizeof line, reader) == NULL, "line came twice");
    (void)fclose(reader);
}

/* A child of the host, which ends during the suite. */
static void begin_child(void)
{
    zoo_must(pipe2(own_pipe, O_CLOEXEC) == 0, "pipe");
    own_child = fork();
    if (own_child == 0) {
        char c;

        (void)close(own_pipe[1]);
        while (read(own_pipe[0], &c, 1) < 0 && errno == EINTR)
            ;
        _exit(7);
    }
    zoo_must(own_child > 0, "fork");
    (void)close(own_pipe[0]);
    (void)!write(own_pipe[1], "x", 1);
    (void)close(own_pipe[1]);
}

static void end_child(void)
{
    int status = 0;
    pid_t pid;

    do
        pid = waitpid(own_child, &status, 0);
    while (pid < 0 && errno == EINTR);
    if (!zoo_host.waits_for_own)
        return;
    zoo_must(pid == own_child, "a child of the host's own was taken");
    zoo_must(WIFEXITED(status) && WEXITSTATUS(status) == 7, "its status");
}

static void look_at_signals(struct stock *stock)
{
    sigset_t mask;
    stack_t stack;

    (void)sigprocmask(SIG_SETMASK, NULL, &mask);
    for (int sig = 1; sig <= SIGNALS; sig++) {
        struct sigaction action;

        stock->blocked[sig] = sigismember(&mask, sig) == 1;
        if (sigaction(sig, NULL, &action) < 0)
            continue;
        stock->handlers[sig] = action.sa_handler;
        stock->flags[sig] = action.sa_flags;
    }
    (void)sigaltstack(NULL, &stack);
    stock->alt_stack = stack.ss_sp;
}

static size_t sum_environment(void)
{
    extern char **environ;
    size_t sum = 0;

    if (zoo_hammers_locks) /* a thread changes it */
        return 0;
    for (char **p = environ; p && *p; p++) {
        for (const char *c = *p; *c; c++)
            sum = sum * 31 + (unsigned char)*c;
    }
    return sum;
}

static void look_at_files(struct stock *stock)
{
    for (int fd = 0; fd < FDS; fd++) {
        struct stat st;

        stock->fds[fd] = fstat(fd, &st) == 0 ? st.st_ino + 1 : 0;
    }
    stock->position = ftell(reader);
    stock->offset = lseek(fileno(reader), 0, SEEK_CUR);
}

static void look(struct stock *stock)
{
    struct itimerval timer;

    memset(stock, 0, sizeof *stock);
    look_at_signals(stock);
    zoo_must(getcwd(stock->cwd, sizeof stock->cwd) != NULL, "getcwd");
    (void)snprintf(stock->locale, sizeof stock->locale, "%s",
                   setlocale(LC_ALL, NULL));
    stock->umask = umask(0);
    (void)umask(stock->umask);
    (void)getitimer(ITIMER_REAL, &timer);
    stock->interval = timer.it_interval;
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        struct rlimit limit;

        (void)getrlimit(i, &limit);
        stock->limits[i][0] = limit.rlim_cur;
        stock->limits[i][1] = limit.rlim_max;
    }
    stock->priority = getpriority(PRIO_PROCESS, 0);
    stock->rounding = fegetround();
    stock->group = getpgrp();
    stock->session = getsid(0);
    stock->uids[0] = getuid();
    stock->uids[1] = geteuid();
    stock->environment = sum_environment();
    look_at_files(stock);
}

void zoo_take_stock(void)
{
    begin_reading();
    begin_child();
    look(&before);
}

#define SAME(field)                                                            \
    zoo_must(memcmp(&before.field, &after.field, sizeof before.field) == 0,    \
             "the host finds another " #field)

/* Which one it is, for the report. */
static void tell_files(const struct stock *after)
{
    for (int fd = 0; fd < FDS; fd++) {
        char path[64], target[256] = "";

        if (before.fds[fd] == after->fds[fd])
            continue;
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        (void)!readlink(path, target, sizeof target - 1);
        (void)dprintf(zoo_host.report_fd, "fd %d: inode %ju, now %ju: %s\n", fd,
                      (uintmax_t)before.fds[fd], (uintmax_t)after->fds[fd],
                      target);
    }
}

void zoo_check_stock(void)
{
    struct stock after;

    look(&after);
    tell_files(&after);
    errno = 0;
    SAME(handlers);
    SAME(flags);
    SAME(blocked);
    SAME(cwd);
    SAME(locale);
    SAME(umask);
    SAME(interval);
    SAME(limits);
    SAME(priority);
    SAME(rounding);
    SAME(group);
    SAME(session);
    SAME(uids);
    SAME(alt_stack);
    SAME(environment);
    SAME(fds);
    SAME(offset);
    SAME(position);
    end_reading();
    end_child();
    zoo_must(zoo_has_written_once(), "buffered text came twice");
    zoo_must(zoo_n_strays() == 0, "something of the host ran in a child");
}
