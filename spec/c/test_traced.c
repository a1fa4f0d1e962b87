/* SPDX-License-Identifier: MIT */
/* Children that somebody else traces: a debugger takes the status of one that
 * has ended before its parent can. */
#include "jobs.h"

#ifdef __linux__
#include <sys/ptrace.h>
#include <sys/time.h>

#include "os/sys.h"

static int n_waits;

static int count_wait(int epoll, struct epoll_event *events, int n, int ms)
{
    n_waits++;
    return fm__sys_real.epoll_wait(epoll, events, n, ms);
}

static int count_poll(struct pollfd *fds, unsigned long n, int ms)
{
    n_waits += ms != 0;
    return fm__sys_real.poll(fds, n, ms);
}

/* Trace `pid` until `let_go` is closed.  Says over `ready` whether it may. */
static _Noreturn void trace(pid_t pid, int ready, int let_go)
{
    bool may = ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0;
    char c = may ? 'y' : 'n';

    (void)!write(ready, &c, 1);
    (void)!read(let_go, &c, 1);
    _exit(0); /* which lets go of it */
}

struct tracer {
    pid_t pid;
    int let_go; /* closing it ends the tracer */
};

/* False where the kernel does not allow it. */
static bool start_tracer(struct tracer *tracer, pid_t pid)
{
    int ready[2], let_go[2];
    char c = 'n';

    CHECK_INT(pipe2(ready, O_CLOEXEC), 0);
    CHECK_INT(pipe2(let_go, O_CLOEXEC), 0);
    tracer->pid = fork();
    if (tracer->pid == 0) {
        (void)close(let_go[1]);
        trace(pid, ready[1], let_go[0]);
    }
    tracer->let_go = let_go[1];
    (void)close(let_go[0]);
    (void)close(ready[1]);
    (void)!read(ready[0], &c, 1);
    (void)close(ready[0]);
    return c == 'y';
}

static void end_tracer(struct tracer *tracer)
{
    if (tracer->let_go < 0)
        return;
    (void)close(tracer->let_go);
    tracer->let_go = -1;
    CHECK_INT(waitpid(tracer->pid, NULL, 0), tracer->pid);
}

/* Steps for 300 ms; returns how often it waited. */
static int waits_meanwhile(fm_engine *engine)
{
    struct timespec now;
    int64_t until;

    n_waits = 0;
    CHECK_INT(clock_gettime(CLOCK_MONOTONIC, &now), 0);
    until = now.tv_sec * INT64_C(1000000000) + now.tv_nsec + 300 * MS;
    for (;;) {
        int64_t left;

        CHECK_INT(clock_gettime(CLOCK_MONOTONIC, &now), 0);
        left = until - now.tv_sec * INT64_C(1000000000) - now.tv_nsec;
        if (left <= 0)
            return n_waits;
        CHECK_INT(fm_engine_step(engine, left), 0);
    }
}

TEST(a_child_that_is_traced_after_its_end_does_not_keep_the_engine_busy)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, hang, NULL);
    const struct fm_outcome *outcome;
    struct tracer tracer;

    wait_running(engine, future);
    if (start_tracer(&tracer, fm_future_get_pid(future))) {
        fm__sys.epoll_wait = count_wait;
        fm__sys.poll = count_poll;
        CHECK_INT(kill(fm_future_get_pid(future), SIGKILL), 0);
        CHECK(waits_meanwhile(engine) < 50);
        CHECK_INT(fm_future_get_state(future), FM_RUNNING);
    } else {
        (void)printf("skipped: the kernel lets nobody be traced\n");
        CHECK_INT(kill(fm_future_get_pid(future), SIGKILL), 0);
    }
    end_tracer(&tracer);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_SIGNAL);
    CHECK_INT(outcome->signal, SIGKILL);
    fm__sys = fm__sys_real;
    fm_future_unref(future);
    fm_engine_free(engine);
}
#endif
