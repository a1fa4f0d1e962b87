/* SPDX-License-Identifier: MIT */
/*
 * Runs a program again and again and kills a process at its k-th stop, for
 * every k: each entry into and return from a system call is a stop.
 *
 *   kill_each child EVERY PROGRAM ARGUMENT...
 *     The second child that PROGRAM forks is killed (the first is for warming
 *     up).  PROGRAM says by its exit code what it saw: 0 what the job was to
 *     give, 10 that the job was killed, anything else that it is not content.
 *   kill_each template EVERY PROGRAM ARGUMENT...
 *     The same with a process that stays in its group to the end.
 *   kill_each third EVERY PROGRAM ARGUMENT...
 *     The third process is killed, whichever of PROGRAM and its children has
 *     forked it.
 *   kill_each host EVERY PROGRAM ARGUMENT...
 *     PROGRAM itself is killed; a second later no process that it or its
 *     children started may be left.  Nor may a file or shared memory with a
 *     name: once it has made its mark, PROGRAM may not make one.
 *
 * EVERY is 1 for each k, 2 for every other one, and so on.  rename("", "")
 * marks a moment: in a child the last one at which its job is not done, in a
 * host the first one that counts.  A child that is killed at a mark or before
 * it must be seen as killed, one that has left its process group, as the engine
 * does right after the result, must be seen with what it gave.  The last line
 * tells the counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/ptrace.h>

#define SYSCALL_STOP (SIGTRAP | 0x80)
#define EXIT_VALUE 0
#define EXIT_KILLED 10
#define RUN_SECONDS 20
#define LEFT_MS 1000
#define PROCESSES_MAX 1024

/* Instead of a number: the first stop after the child has left its group. */
#define K_LEFT (-1)

enum phase { PHASE_BEFORE, PHASE_MARKED, PHASE_LEFT };

static struct {
    const struct mode {
        const char *name;
        bool is_host;
        bool leaves;      /* its group, when it has given its result */
        bool follows_all; /* processes of processes are numbered too */
        int target_child;
    } * mode;
    char **program;
    long every;
    /* One run. */
    long k;
    pid_t host, target;
    pid_t seen[PROCESSES_MAX];
    int n_seen;
    long stops, calls; /* of the target */
    bool is_exit;      /* the next stop of the target is a return */
    enum phase phase;
    bool killed;
    enum phase killed_in;
    int status; /* of the host */
    /* All runs. */
    long n_killed, n_error, n_value, most_calls;
} run;

static const struct mode modes[] = {
    {"child", false, true, false, 2},
    {"template", false, false, false, 2},
    {"third", false, true, true, 3},
    {"host", true, false, false, 0},
};

/* Whoever is left holds our output open, and would run for ever. */
static void kill_children(void)
{
    FILE *children = fopen("/proc/thread-self/children", "r");
    char line[PROCESSES_MAX * 8] = "";
    char *next = line, *end;

    if (!children)
        return;
    (void)!fgets(line, sizeof line, children);
    (void)fclose(children);
    for (;;) {
        long pid = strtol(next, &end, 10);

        if (end == next)
            return;
        (void)kill((pid_t)pid, SIGKILL);
        next = end;
    }
}

static _Noreturn void fail(const char *what)
{
    (void)fprintf(stderr, "kill_each: k = %ld: %s (%s)\n", run.k, what,
                  strerror(errno));
    /* Theirs become ours. */
    do
        kill_children();
    while (waitpid(-1, NULL, __WALL) > 0);
    exit(1);
}

static void on_alarm(int sig)
{
    static const char text[] = "kill_each: a run takes too long\n";

    (void)sig;
    (void)!write(2, text, sizeof text - 1);
    _exit(1);
}

/* A tracee that has been killed meanwhile is no error. */
static void resume(int request, pid_t pid, int sig)
{
    if (ptrace(request, pid, NULL, (void *)(long)sig) < 0 && errno != ESRCH)
        fail("ptrace");
}

/* The program starts when it is traced. */
static void start(void)
{
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
    int gate[2];

    if (!run.mode->is_host)
        options |= PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;
    if (pipe(gate) < 0)
        fail("pipe");
    (void)fflush(NULL);
    run.host = fork();
    if (run.host == 0) {
        char c;

        (void)close(gate[1]);
        (void)!read(gate[0], &c, 1);
        (void)close(gate[0]);
        (void)execvp(run.program[0], run.program);
        _exit(127);
    }
    if (run.host < 0 ||
        ptrace(PTRACE_SEIZE, run.host, NULL, (void *)options) < 0 ||
        ptrace(PTRACE_INTERRUPT, run.host, NULL, NULL) < 0)
        fail("cannot trace");
    (void)close(gate[0]);
    (void)close(gate[1]);
}

/* What the call that a stop is about means to us. */
static void look_at_call(pid_t pid)
{
    struct ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof info, &info) < 0)
        return;
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
        return;
    run.calls++;
    if (info.entry.nr == SYS_setpgid && info.entry.args[0] == 0 &&
        info.entry.args[1] != 0)
        run.phase = PHASE_LEFT;
}

static bool is_mark(pid_t pid)
{
    struct ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof info, &info) < 0)
        return false;
#ifdef SYS_rename
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_rename)
        return true;
#endif
    return info.op == PTRACE_SYSCALL_INFO_ENTRY &&
           (info.entry.nr == SYS_renameat || info.entry.nr == SYS_renameat2);
}

/* Which calls make what outlives a process, with the argument that may say
 * O_CREAT; -1: whatever it says. */
static const struct {
    long nr;
    int flags_arg;
} makers[] = {
#ifdef SYS_open
    {SYS_open, 1},    {SYS_creat, -1},     {SYS_mkdir, -1},
    {SYS_mknod, -1},  {SYS_symlink, -1},   {SYS_link, -1},
#endif
    {SYS_openat, 2},  {SYS_mkdirat, -1},   {SYS_mknodat, -1},
    {SYS_linkat, -1}, {SYS_symlinkat, -1}, {SYS_mq_open, 1},
    {SYS_shmget, -1}, {SYS_semget, -1},    {SYS_msgget, -1},
};

/* A name that is made can be left behind. */
static void forbid_names(pid_t pid)
{
    struct ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof info, &info) < 0 ||
        info.op != PTRACE_SYSCALL_INFO_ENTRY)
        return;
    for (size_t i = 0; i < sizeof makers / sizeof makers[0]; i++) {
        int arg = makers[i].flags_arg;

        if ((long)info.entry.nr == makers[i].nr &&
            (arg < 0 || (info.entry.args[arg] & O_CREAT)))
            fail("the host makes a name that it may leave");
    }
}

/* The target stands before or after a system call. */
static void on_syscall_stop(pid_t pid)
{
    bool counts = !run.mode->is_host || run.phase == PHASE_MARKED;
    bool marks = is_mark(pid);

    look_at_call(pid);
    if (run.mode->is_host && counts)
        forbid_names(pid);
    run.stops += counts;
    if ((counts && run.stops == run.k) ||
        (run.k == K_LEFT && run.phase == PHASE_LEFT)) {
        run.killed = true;
        run.killed_in = run.phase;
        (void)kill(pid, SIGKILL);
        return;
    }
    if (marks && run.phase == PHASE_BEFORE)
        run.phase = PHASE_MARKED;
    resume(PTRACE_SYSCALL, pid, 0);
}

/* Processes are numbered as they are seen first; `host` is not among them. */
static void note_process(pid_t pid)
{
    for (int i = 0; i < run.n_seen; i++) {
        if (run.seen[i] == pid)
            return;
    }
    if (run.n_seen == PROCESSES_MAX)
        fail("too many processes");
    run.seen[run.n_seen++] = pid;
    if (run.n_seen == run.mode->target_child)
        run.target = pid;
}

static void on_event(pid_t pid, int event, int sig)
{
    bool steps = pid == run.target;

    if (event == PTRACE_EVENT_STOP && sig != SIGTRAP) {
        resume(PTRACE_LISTEN, pid, 0); /* stopped by a signal for its group */
    } else if (event == PTRACE_EVENT_STOP && pid != run.host && !steps &&
               !run.mode->follows_all) {
        resume(PTRACE_DETACH, pid, 0);
    } else {
        resume(steps ? PTRACE_SYSCALL : PTRACE_CONT, pid, 0);
    }
}

static void on_stop(pid_t pid, int status)
{
    int event = status >> 16, sig = WSTOPSIG(status);

    if (pid != run.host)
        note_process(pid);
    if (event != 0)
        on_event(pid, event, sig);
    else if (sig == SYSCALL_STOP)
        on_syscall_stop(pid);
    else
        resume(pid == run.target ? PTRACE_SYSCALL : PTRACE_CONT, pid, sig);
}

/* From the start of the program to its end. */
static void trace(void)
{
    run.target = run.mode->is_host ? run.host : 0;
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, __WALL);

        if (pid < 0)
            fail("waitpid");
        if (WIFSTOPPED(status)) {
            on_stop(pid, status);
        } else if (pid == run.host) {
            run.status = status;
            return;
        }
    }
}

static long now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000L + ts.tv_nsec / 1000000L;
}

/* All descendants become our children when their parents end. */
static void wait_for_rest(void)
{
    const struct timespec nap = {0, 500000L};
    long until = now_ms() + LEFT_MS;

    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG | __WALL);

        if (pid < 0 && errno == ECHILD)
            return;
        if (pid > 0 && WIFSTOPPED(status))
            resume(PTRACE_DETACH, pid, 0);
        else if (pid == 0 && now_ms() > until)
            fail("a process is left");
        else if (pid == 0)
            (void)nanosleep(&nap, NULL);
    }
}

/* The host was not killed: what did it see of its child? */
static void judge_child(void)
{
    int code = WIFEXITED(run.status) ? WEXITSTATUS(run.status) : -1;

    if (code != EXIT_VALUE && code != EXIT_KILLED)
        fail("the host is not content");
    if (!run.killed && code != EXIT_VALUE)
        fail("a job that was not killed failed");
    if (run.killed && run.killed_in == PHASE_BEFORE && code == EXIT_VALUE)
        fail("a job gave its result although it was killed before its end");
    if (run.killed && run.killed_in == PHASE_LEFT && code == EXIT_KILLED)
        fail("a job that had ended was taken for killed");
    if (run.killed && code == EXIT_VALUE)
        run.n_value++;
    else if (run.killed)
        run.n_error++;
}

static void judge_host(void)
{
    if (!run.killed && (!WIFEXITED(run.status) || WEXITSTATUS(run.status) != 0))
        fail("the host failed by itself");
}

/* False when the target ended before its k-th stop. */
static bool run_once(long k)
{
    run.k = k;
    run.n_seen = 0;
    run.stops = 0;
    run.calls = 0;
    run.phase = PHASE_BEFORE;
    run.killed = false;
    (void)alarm(RUN_SECONDS);
    start();
    trace();
    if (run.mode->is_host)
        judge_host();
    else
        judge_child();
    wait_for_rest();
    if (run.killed)
        run.n_killed++;
    if (run.calls > run.most_calls)
        run.most_calls = run.calls;
    return run.killed;
}

/* How many calls a child makes is not always the same; this one stop is found
 * again, unless the engine has ended a child that took long to leave. */
static bool kill_where_left(void)
{
    for (int i = 0; i < 5; i++) {
        if (run_once(K_LEFT))
            return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    long k = 1;

    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (argc >= 4 && strcmp(argv[1], modes[i].name) == 0)
            run.mode = &modes[i];
    }
    if (!run.mode) {
        (void)fprintf(stderr, "usage: kill_each child|template|third|host "
                              "EVERY PROGRAM...\n");
        return 2;
    }
    run.every = strtol(argv[2], NULL, 10);
    run.program = argv + 3;
    if (run.every < 1 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        fail("cannot begin");
    (void)signal(SIGALRM, on_alarm);
    while (run_once(k))
        k += run.every;
    if (run.n_killed == 0)
        fail("nothing was killed");
    if (run.mode->leaves && !kill_where_left())
        fail("the target has never left");
    if (!run.mode->is_host && run.n_error == 0)
        fail("no error was seen");
    (void)printf("%ld system calls, %ld killed, %ld errors, %ld results\n",
                 run.most_calls, run.n_killed, run.n_error, run.n_value);
    return 0;
}
