/* SPDX-License-Identifier: MIT */
/* What an engine does, in every host of the zoo; see zoo/zoo.h. */
#define TEST_CHECKS_ONLY
#include "jobs.h"

#include <poll.h>

#include "zoo/zoo.h"

static fm_engine *engine;

/* An end that only its status tells. */
static void check_status(const struct fm_outcome *outcome, enum fm_kind kind)
{
    if (outcome->kind != FM_NO_RESULT || kind == FM_NO_RESULT ||
        !zoo_host.loses_status || zoo_host.can_ask) {
        CHECK_STR(fm_kind_name(outcome->kind), fm_kind_name(kind));
        return;
    }
    CHECK_INT(outcome->exit_code, -1);
    CHECK(strstr(outcome->message, "taken by the host") != NULL);
}

/* ------------------------------------------------------------------- jobs */

static const struct fm_outcome *run(const struct fm_job_opts *opts,
                                    fm_job_fn fn, void *ud,
                                    fm_future **ret_future)
{
    *ret_future = spawn(engine, opts, fn, ud);
    return wait_for(engine, *ret_future);
}

static int fail(fm_child *child, void *ud)
{
    (void)ud;
    return fm_child_fail(child, "it failed", "here");
}

static int refuse(fm_child *child, void *ud)
{
    (void)ud;
    return fm_child_refuse(child, "result.a", "no such value");
}

/* Through the handlers of the host, if they were there. */
static int leave_by_exit(fm_child *child, void *ud)
{
    (void)child;
    exit(*(int *)ud);
}

static int leave_at_once(fm_child *child, void *ud)
{
    (void)child;
    _exit(*(int *)ud);
}

static int print(fm_child *child, void *ud)
{
    (void)ud;
    if (printf("one\ntwo\n") < 0 || fflush(stdout) != 0)
        return -EIO;
    if (fprintf(stderr, "three\n") < 0)
        return -EIO;
    return fm_child_write(child, "hello", 5);
}

static int crash_twice(fm_child *child, void *ud)
{
    if (fm_child_get_attempt(child) < 3)
        (void)raise(SIGKILL);
    return say_hello(child, ud);
}

static void *run_below(fm_child *child)
{
    struct fm_engine_opts opts = {.on_threads = FM_THREADS_IGNORE};
    const struct fm_outcome *outcome;
    fm_future *future;
    int n_bytes;

    if (fm_engine_step(engine, 0) != FM_ECLOSED)
        return NULL; /* it is the parent's */
    if (fm_engine_new(&opts, &engine) < 0)
        return NULL;
    outcome = run(NULL, say_hello, NULL, &future);
    n_bytes = outcome->kind == FM_VALUE ? (int)outcome->len : -1;
    fm_future_unref(future);
    fm_engine_free(engine);
    return fm_child_write(child, "hello", (size_t)n_bytes) == 0 ? child : NULL;
}

static int nest(fm_child *child, void *ud)
{
    (void)ud;
    return run_below(child) ? 0 : -ENOENT;
}

/* ------------------------------------------------------------------ suite */

/* Above 2, where a host without standard streams gets them too. */
static void open_pipe(int fds[2])
{
    CHECK_INT(pipe2(fds, O_CLOEXEC), 0);
    for (int i = 0; i < 2; i++) {
        int high = fcntl(fds[i], F_DUPFD_CLOEXEC, 6);

        CHECK(high >= 0);
        (void)close(fds[i]);
        fds[i] = high;
    }
}

static void check_values(void)
{
    int pieces = 25;
    const struct fm_outcome *outcome;
    fm_future *future;

    is_hello(run(NULL, say_hello, NULL, &future));
    fm_future_unref(future);
    outcome = run(NULL, say_much, &pieces, &future);
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, 25 * 100001);
    CHECK_INT(((const unsigned char *)outcome->data)[100001 + 9], 63);
    fm_future_unref(future);
    is_hello(run(NULL, nest, NULL, &future));
    fm_future_unref(future);
}

static void check_failures(void)
{
    const struct fm_outcome *outcome;
    fm_future *future;

    outcome = run(NULL, fail, NULL, &future);
    CHECK_INT(outcome->kind, FM_ERROR);
    CHECK_STR(outcome->message, "it failed");
    CHECK_STR(outcome->traceback, "here");
    fm_future_unref(future);
    outcome = run(NULL, refuse, NULL, &future);
    CHECK_INT(outcome->kind, FM_ENCODE);
    CHECK_STR(outcome->path, "result.a");
    fm_future_unref(future);
}

static void check_exits(void)
{
    static int codes[] = {0, 1, 77};
    const struct fm_outcome *outcome;
    fm_future *future;

    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        is_exit(run(NULL, leave_by_exit, &codes[i], &future), codes[i], true);
        fm_future_unref(future);
        outcome = run(NULL, leave_at_once, &codes[i], &future);
        check_status(outcome, codes[i] == 0 ? FM_NO_RESULT : FM_EXIT);
        if (outcome->kind == FM_EXIT)
            CHECK_INT(outcome->exit_code, codes[i]);
        fm_future_unref(future);
    }
}

static void check_signals(void)
{
    static int signals[] = {SIGKILL, SIGSEGV, SIGABRT, SIGTERM, SIGALRM};
    const struct fm_outcome *outcome;
    fm_future *future;

    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        outcome = run(NULL, raise_signal, &signals[i], &future);
        check_status(outcome, FM_SIGNAL);
        if (outcome->kind == FM_SIGNAL)
            CHECK_INT(outcome->signal, signals[i]);
        fm_future_unref(future);
    }
}

static void check_stops(void)
{
    struct fm_job_opts brief = {.timeout_ns = 30 * MS, .grace_ns = -1};
    struct fm_job_opts polite = {.timeout_ns = 30 * MS, .grace_ns = 30000 * MS};
    const struct fm_outcome *outcome;
    fm_future *future;

    outcome = run(&brief, spin, NULL, &future);
    CHECK_INT(outcome->kind, FM_TIMEOUT);
    fm_future_unref(future);
    outcome = run(&polite, hang, NULL, &future);
    CHECK_INT(outcome->kind, FM_TIMEOUT);
    CHECK(outcome->usage.wall_ns < 20000 * MS); /* SIGTERM was enough */
    fm_future_unref(future);
}

/* Job: say where it is, tell that it has, and hang. */
static int hang_here(fm_child *child, void *ud)
{
    fm_child_note(child, "here.c:1");
    if (write(*(int *)ud, "x", 1) != 1)
        return -errno;
    return hang(child, NULL);
}

static void check_cancel(void)
{
    const struct fm_outcome *outcome;
    fm_future *future;
    int fds[2];
    char c;

    open_pipe(fds);
    future = spawn(engine, NULL, hang_here, &fds[1]);
    while (read(fds[0], &c, 1) < 0)
        CHECK_INT(errno, EINTR);
    CHECK_INT(fm_future_cancel(future, 30000 * MS), 1);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_CANCELLED);
    CHECK_STR(outcome->last.where, "here.c:1");
    CHECK(outcome->usage.wall_ns < 20000 * MS);
    fm_future_unref(future);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static int n_lines;

static void count_line(int stream, const char *line, size_t len, void *ud)
{
    (void)ud;
    CHECK(stream == 2 ? len == 5 && memcmp(line, "three", 5) == 0 : len == 3);
    n_lines++;
}

static void check_output(void)
{
    struct fm_job_opts capture = {.output = FM_OUTPUT_CAPTURE};
    struct fm_job_opts lines = {.output = FM_OUTPUT_LINES,
                                .on_line = count_line};
    const struct fm_outcome *outcome;
    fm_future *future;

    outcome = run(&capture, print, NULL, &future);
    is_hello(outcome);
    CHECK_INT(outcome->output[0].len, 8);
    CHECK(memcmp(outcome->output[0].data, "one\ntwo\n", 8) == 0);
    CHECK_INT(outcome->output[1].len, 6);
    CHECK(memcmp(outcome->output[1].data, "three\n", 6) == 0);
    fm_future_unref(future);
    is_hello(run(&lines, print, NULL, &future));
    CHECK_INT(n_lines, 3);
    fm_future_unref(future);
}

static void check_retries(void)
{
    struct fm_job_opts opts = {.retries = 4};
    const struct fm_outcome *outcome;
    fm_future *future;

    outcome = run(&opts, crash_twice, NULL, &future);
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->attempt, 3);
    fm_future_unref(future);
}

static int try_to_write(fm_child *child, void *ud)
{
    int rc = write(*(int *)ud, "x", 1) == 1 ? 0 : errno;

    return rc == EBADF ? say_hello(child, NULL) : -EEXIST;
}

/* A pipe whose write end nobody has any more, within two seconds. */
static void check_hung_up(int fd)
{
    struct pollfd end = {.fd = fd, .events = POLLIN};
    int rc;

    do
        rc = poll(&end, 1, 2000);
    while (rc < 0 && errno == EINTR);
    CHECK_INT(rc, 1);
    CHECK(end.revents & POLLHUP);
    (void)close(fd);
}

static void check_descriptors(void)
{
    struct fm_job_opts none = {.has_keep_fds = true};
    fm_future *future, *second;
    int fds[2];

    open_pipe(fds);
    is_hello(run(&none, try_to_write, &fds[1], &future));
    fm_future_unref(future);
    /* What a child has started ends with it, and so does what it held. */
    is_hello(run(NULL, leave_a_grandchild, NULL, &future));
    fm_future_unref(future);
    future = spawn(engine, NULL, hang, NULL);
    second = spawn(engine, &none, hang, NULL);
    CHECK(fm_engine_step(engine, MS) >= -EINTR);
    (void)close(fds[1]);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    CHECK_INT(fm_future_get_outcome(future)->kind, FM_CLOSED);
    CHECK_INT(fm_future_get_outcome(second)->kind, FM_CLOSED);
    fm_future_unref(future);
    fm_future_unref(second);
    check_hung_up(fds[0]);
}

static void suite(void)
{
    struct fm_engine_opts opts = {.on_threads = FM_THREADS_IGNORE};

    test_report_fd = zoo_host.report_fd;
    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    check_values();
    check_failures();
    check_exits();
    check_signals();
    check_stops();
    check_cancel();
    check_output();
    check_retries();
    check_descriptors(); /* closes it */
    fm_engine_free(engine);
}

int main(int argc, char **argv)
{
    return zoo_main(argc, argv, suite);
}
