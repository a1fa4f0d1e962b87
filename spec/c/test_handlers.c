/* SPDX-License-Identifier: MIT */
/* Signal handlers of the host that fork, at every moment of the engine's
 * work. */
#include "jobs.h"

#include "faults.h"
#include "os/forking.h"

static pid_t host;
static int n_strangers, n_ours;
static bool is_interrupted;

/* Each call that the engine makes is interrupted first; but by asking for the
 * process id it sees whether it may work at all. */
static void interrupt(int call)
{
    if (getpid() != host || is_interrupted || call == FAULT_getpid)
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

static fm_engine *engine;
static fm_future *running;
static int n_refused;

/* A handler may not use an engine.  One that does so all the same, while the
 * engine is at work, is told instead of hanging or breaking anything. */
static void call_verbs(int sig)
{
    int saved = errno;
    fm_future *future = NULL;

    (void)sig;
    CHECK_INT(fm_spawn(engine, NULL, say_hello, NULL, &future), FM_EBUSY);
    CHECK_INT(fm_engine_step(engine, -1), FM_EBUSY);
    CHECK_INT(fm_engine_close(engine, 0), FM_EBUSY);
    if (running && fm_future_get_state(running) != FM_SETTLED) {
        CHECK_INT(fm_future_on_settle(running, NULL, NULL), FM_EBUSY);
        CHECK_INT(fm_future_cancel(running, 0), FM_EBUSY);
    }
    CHECK(!future);
    n_refused++;
    is_interrupted = false;
    errno = saved;
}

static void count_line(int stream, const char *line, size_t len, void *ud)
{
    (void)stream;
    (void)line;
    (void)len;
    is_interrupted = false; /* callbacks may be interrupted and may call */
    ++*(int *)ud;
}

static int print_line(fm_child *child, void *ud)
{
    (void)printf("one\n");
    return say_hello(child, ud);
}

TEST(an_engine_that_a_handler_has_interrupted_refuses_its_calls)
{
    int n_lines = 0;
    struct fm_job_opts opts = {.output = FM_OUTPUT_LINES,
                               .on_line = count_line,
                               .on_line_ud = &n_lines};

    engine = new_engine();
    install(call_verbs);
    for (int i = 0; i < 3; i++) {
        fm_future *future = spawn(engine, &opts, print_line, NULL);

        running = future;
        while (fm_future_get_state(future) != FM_SETTLED)
            CHECK(fm_engine_step(engine, -1) >= 0);
        running = NULL;
        is_hello(fm_future_get_outcome(future));
        fm_future_unref(future);
    }
    remove_all();
    CHECK_INT(n_lines, 3);
    CHECK(n_refused > 50);
    fm_engine_free(engine);
}
