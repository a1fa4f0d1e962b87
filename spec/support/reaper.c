/* SPDX-License-Identifier: MIT */
/*
 * reaper SECONDS COMMAND...: run a command that may lose its children, and end
 * everything that it has left when it ends, or after so many seconds.  The
 * status is that of the command, 124 when it took too long.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TOO_LONG 124
#define CHILDREN "/proc/thread-self/children"

/* Kill every child, those that were handed on to this process too. */
static void kill_children(void)
{
    FILE *file = fopen(CHILDREN, "re");
    char word[32];

    while (file && fscanf(file, "%31s", word) == 1)
        (void)kill((pid_t)strtol(word, NULL, 10), SIGKILL);
    if (file)
        (void)fclose(file);
}

/* The killed ones' own children become ours: once more, until none is left. */
static void end_all(void)
{
    do
        kill_children();
    while (waitpid(-1, NULL, 0) >= 0 || errno != ECHILD);
}

static void on_alarm(int sig)
{
    (void)sig; /* ends the wait */
}

/* Its status, or TOO_LONG. */
static int wait_for_it(pid_t pid)
{
    int status;

    for (;;) {
        pid_t ended = waitpid(-1, &status, 0);

        if (ended == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status)
                                     : 128 + WTERMSIG(status);
        if (ended < 0)
            return TOO_LONG;
    }
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_alarm};
    pid_t pid;
    int status;

    if (argc < 3) {
        (void)fprintf(stderr, "usage: reaper SECONDS COMMAND...\n");
        return 2;
    }
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) {
        perror("prctl");
        return 2;
    }
    pid = fork();
    if (pid == 0) {
        (void)setsid();
        (void)execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    (void)sigaction(SIGALRM, &action, NULL); /* without SA_RESTART */
    (void)alarm((unsigned)strtoul(argv[1], NULL, 10));
    status = pid > 0 ? wait_for_it(pid) : 2;
    (void)alarm(0);
    end_all();
    return status;
}
