/* SPDX-License-Identifier: MIT */
/* What a child shares with its host, and what it must leave alone. */
#include "jobs.h"

#include <poll.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <time.h>

#include "os/sys.h"

/* ------------------------------------------------------------- signals */

static void mark_signal(int sig)
{
    (void)sig;
    write_mark();
}

TEST(handlers_of_the_host_do_not_run_in_a_child)
{
    struct sigaction action = {.sa_handler = mark_signal};
    fm_engine *engine = new_engine();
    const struct fm_outcome *outcome;
    fm_future *future;

    make_mark();
    CHECK_INT(sigaction(SIGTERM, &action, NULL), 0);
    CHECK_INT(sigaction(SIGSEGV, &action, NULL), 0);
    future = spawn(engine, NULL, hang, NULL);
    wait_running(engine, future);
    CHECK_INT(fm_future_cancel(future, 30000 * MS), 1);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_CANCELLED);
    CHECK(outcome->usage.wall_ns < 20000 * MS); /* of SIGTERM, not SIGKILL */
    CHECK_INT(mark_size(), 0);
    (void)unlink(mark);
    fm_future_unref(future);
    fm_engine_free(engine);
}

static int tell_signals(fm_child *child, void *ud)
{
    char text[NSIG + 1] = {0};
    sigset_t mask;

    (void)ud;
    (void)sigprocmask(SIG_SETMASK, NULL, &mask);
    for (int sig = 1; sig < NSIG; sig++) {
        struct sigaction action;

        text[sig - 1] = '.';
        if (sigaction(sig, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            text[sig - 1] = 'i';
        if (sigismember(&mask, sig))
            text[sig - 1] = 'b';
    }
    return fm_child_write(child, text, sizeof text);
}

TEST(a_child_blocks_nothing_and_the_hosts_mask_stays_as_it_was)
{
    fm_engine *engine = new_engine();
    sigset_t some, after;
    fm_future *future;
    const char *text;

    (void)sigemptyset(&some);
    (void)sigaddset(&some, SIGTERM);
    (void)sigaddset(&some, SIGUSR1);
    CHECK_INT(sigprocmask(SIG_SETMASK, &some, NULL), 0);
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    CHECK(signal(SIGHUP, SIG_IGN) != SIG_ERR);
    future = spawn(engine, NULL, tell_signals, NULL);
    text = wait_for(engine, future)->data;
    for (int sig = 1; text[sig - 1] != '\0'; sig++) {
        bool is_tty = sig == SIGTTIN || sig == SIGTTOU;

        CHECK_INT(text[sig - 1], is_tty ? 'i' : '.');
    }
    CHECK_INT(sigprocmask(SIG_SETMASK, NULL, &after), 0);
    for (int sig = 1; sig < 32; sig++)
        CHECK_INT(sigismember(&after, sig), sigismember(&some, sig));
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* ---------------------------------------------- whose death ends whom */

struct handed_over {
    fm_engine *engine;
    fm_future *future;
};

static int sleep_and_say_hello(fm_child *child, void *ud)
{
    struct timespec pause_time = {0, 200000000};

    (void)nanosleep(&pause_time, NULL);
    return say_hello(child, ud);
}

static void *spawn_and_end(void *ud)
{
    struct fm_engine_opts opts = {.on_threads = FM_THREADS_IGNORE};
    struct handed_over *it = ud;

    CHECK_INT(fm_engine_new(&opts, &it->engine), 0);
    it->future = spawn(it->engine, NULL, sleep_and_say_hello, NULL);
    return NULL;
}

TEST(a_child_outlives_the_thread_that_forked_it)
{
    struct handed_over it;
    pthread_t thread;

    CHECK_INT(pthread_create(&thread, NULL, spawn_and_end, &it), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    is_hello(wait_for(it.engine, it.future));
    fm_future_unref(it.future);
    fm_engine_free(it.engine);
}

#define MANY 24

static _Noreturn void be_host(int fd)
{
    struct fm_engine_opts opts = {.max_children = MANY};
    fm_engine *engine;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    for (int i = 0; i < MANY; i++)
        (void)spawn(engine, NULL, i % 2 ? hang : spin, NULL);
    (void)!write(fd, "x", 1);
    for (;;)
        (void)fm_engine_step(engine, -1);
}

TEST(many_children_end_when_their_host_is_killed)
{
    struct pollfd end;
    int fds[2];
    pid_t host;
    char c;

    CHECK_INT(pipe(fds), 0);
    host = fork();
    if (host == 0)
        be_host(fds[1]);
    (void)close(fds[1]);
    CHECK_INT(read(fds[0], &c, 1), 1);
    CHECK_INT(kill(host, SIGKILL), 0);
    CHECK_INT(waitpid(host, NULL, 0), host);
    /* Each child has the write end: its last copy goes with the last one. */
    end = (struct pollfd){.fd = fds[0], .events = POLLIN};
    CHECK_INT(poll(&end, 1, 5000), 1);
    CHECK_INT(read(fds[0], &c, 1), 0);
    (void)close(fds[0]);
}

/* --------------------------------------------------------------- files */

static int leave_by_exit(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    (void)printf(" ");
    exit(3);
}

static int print_and_return(fm_child *child, void *ud)
{
    (void)printf(" ");
    return say_hello(child, ud);
}

#define LINES 4000

TEST(a_host_that_reads_a_file_sees_each_line_once)
{
    struct fm_job_opts opts = {.output = FM_OUTPUT_DISCARD};
    fm_engine *engine = new_engine();
    char line[32];
    int n = 0;
    FILE *file;

    make_mark();
    file = fopen(mark, "w+");
    CHECK(file != NULL);
    for (int i = 0; i < LINES; i++)
        (void)fprintf(file, "%d\n", i);
    rewind(file);
    while (fgets(line, sizeof line, file)) {
        CHECK_INT(strtol(line, NULL, 10), n);
        if (n++ % 400 == 0) {
            fm_future *a = spawn(engine, &opts, leave_by_exit, NULL);
            fm_future *b = spawn(engine, &opts, print_and_return, NULL);

            is_exit(wait_for(engine, a), 3, true);
            is_hello(wait_for(engine, b));
            fm_future_unref(a);
            fm_future_unref(b);
        }
    }
    CHECK_INT(n, LINES);
    (void)fclose(file);
    (void)unlink(mark);
    fm_engine_free(engine);
}

static int n_buried;

static int count_dup3(int old, int new, int flags)
{
    n_buried++;
    return fm__sys_real.dup3(old, new, flags);
}

static int write_beside(fm_child *child, void *ud)
{
    FILE *stale = ud;
    int fds[8];
    off_t size = 0;

    if (n_buried == 0) /* a build that closes; docs/limits.md says what then */
        return fm_child_write(child, &size, sizeof size);
    for (int i = 0; i < 8; i++)
        fds[i] = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    (void)fputs("of the host", stale);
    (void)fflush(stale);
    for (int i = 0; i < 8; i++)
        size += lseek(fds[i], 0, SEEK_END);
    return fm_child_write(child, &size, sizeof size);
}

TEST(a_stale_file_of_the_host_does_not_write_into_a_new_one)
{
    struct fm_job_opts opts = {.has_keep_fds = true};
    fm_engine *engine = new_engine();
    const struct fm_outcome *outcome;
    fm_future *future;
    FILE *file;
    off_t size;

    make_mark();
    file = fopen(mark, "w");
    CHECK(file != NULL);
    fm__sys.dup3 = count_dup3;
    future = spawn(engine, &opts, write_beside, file);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_VALUE);
    memcpy(&size, outcome->data, sizeof size);
    CHECK_INT(size, 0);
    CHECK_INT(mark_size(), 0);
    (void)fclose(file);
    (void)unlink(mark);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(a_lock_of_the_host_stays_when_children_come_and_go)
{
    struct fm_job_opts opts = {.has_keep_fds = true};
    fm_engine *engine = new_engine();
    int mine, other;

    make_mark();
    mine = open(mark, O_RDWR | O_CLOEXEC);
    other = open(mark, O_RDWR | O_CLOEXEC);
    CHECK_INT(flock(mine, LOCK_EX), 0);
    for (int i = 0; i < 4; i++) {
        fm_future *future =
            spawn(engine, i % 2 ? &opts : NULL, say_hello, NULL);

        is_hello(wait_for(engine, future));
        fm_future_unref(future);
        CHECK_INT(flock(other, LOCK_EX | LOCK_NB), -1);
    }
    (void)close(mine);
    (void)close(other);
    (void)unlink(mark);
    fm_engine_free(engine);
}

/* -------------------------------------------------------------- memory */

static int tell_oom_score(fm_child *child, void *ud)
{
    clock_t until = clock() + CLOCKS_PER_SEC / 20;
    char text[16] = {0};
    int fd;

    (void)ud;
    while (clock() < until)
        ;
    fd = open("/proc/self/oom_score_adj", O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        return -errno;
    (void)close(fd);
    return fm_child_write(child, text, sizeof text);
}

#ifdef __linux__
TEST(the_kernel_takes_a_busy_child_before_the_host)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, tell_oom_score, NULL);
    const struct fm_outcome *outcome = wait_for(engine, future);

    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_STR(outcome->data, "500\n");
    fm_future_unref(future);
    fm_engine_free(engine);
}
#endif

static int tell_core(fm_child *child, void *ud)
{
    struct rlimit limit;

    (void)ud;
    if (getrlimit(RLIMIT_CORE, &limit) < 0)
        return -errno;
    return fm_child_write(child, &limit, sizeof limit);
}

TEST(a_child_writes_no_core_file)
{
    fm_engine *engine = new_engine();
    const struct fm_outcome *outcome;
    struct rlimit limit;
    fm_future *future;

    CHECK_INT(getrlimit(RLIMIT_CORE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    CHECK_INT(setrlimit(RLIMIT_CORE, &limit), 0);
    future = spawn(engine, NULL, tell_core, NULL);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_VALUE);
    memcpy(&limit, outcome->data, sizeof limit);
    CHECK_INT(limit.rlim_cur, 0);
    fm_future_unref(future);
    fm_engine_free(engine);
}
