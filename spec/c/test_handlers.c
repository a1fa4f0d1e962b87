/* SPDX-License-Identifier: MIT */
/* Signal handlers of the host that fork, at every moment of the engine's
 * work. */
#include "jobs.h"

#include "faults.h"
#include "os/forking.h"

static pid_t host;
static int n_strangers, n_ours;
static bool is_interrupted;

/* Each call that the engine makes is interrupted first. */
static void interrupt(int call)
{
    (void)call;
    if (getpid() != host || is_interrupted)
        return;
    is_interrupted = true;
    (void)raise(SIGUSR1);
}

/* As hosts do that start a debugger or a reporter.  Neither is the stranger a
 * child of the engine, nor does it wait for a lock of it. */
static void fork_in_handler(int sig)
{
    int saved = errno, status = 0;
    pid_t pid = fork();

    (void)sig;
    if (pid == 0)
        _exit(fm__forking_took());
    if (pid > 0 && waitpid(pid, &status, 0) == pid) {
        n_strangers++;
        n_ours += status != 0;
    }
    is_interrupted = false;
    errno = saved;
}

static void install(void (*handler)(int sig))
{
    struct sigaction action = {.sa_handler = handler};

    (void)alarm(20); /* what hangs does so at once */
    host = getpid();
    CHECK_INT(sigaction(SIGUSR1, &action, NULL), 0);
    fault_install();
    fault_watch = interrupt;
}

static void remove_all(void)
{
    fault_watch = NULL;
    fm__sys = fm__sys_real;
    CHECK_INT(signal(SIGUSR1, SIG_DFL) == SIG_ERR, 0);
}

TEST(a_handler_that_forks_at_any_moment_gets_nothing_of_the_engine)
{
    struct fm_job_opts opts = {.output = FM_OUTPUT_CAPTURE};

    install(fork_in_handler);
    for (int i = 0; i < 3; i++)
        run_job(&opts, say_hello, NULL, is_hello);
    remove_all();
    CHECK(n_strangers > 50);
    CHECK_INT(n_ours, 0);
}
