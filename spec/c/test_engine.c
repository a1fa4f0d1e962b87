/* SPDX-License-Identifier: MIT */
/* The engine with jobs of C: one outcome each, whatever the child does. */
#include "run_job.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

/* -------------------------------------------------------------- values */

static int say_hello(fm_child *child, void *ud)
{
    (void)ud;
    return fm_child_write(child, "hello", 5);
}

static void is_hello(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, 5);
    CHECK(memcmp(outcome->data, "hello", 5) == 0);
    CHECK_INT(outcome->attempt, 1);
    CHECK(outcome->pid > 0);
}

TEST(a_job_gives_back_what_it_wrote)
{
    run_job(NULL, say_hello, NULL, is_hello);
}

static int say_much(fm_child *child, void *ud)
{
    static unsigned char piece[100001];
    int rc = 0;

    for (size_t i = 0; i < sizeof piece; i++)
        piece[i] = (unsigned char)(i * 7);
    for (int i = 0; rc == 0 && i < *(int *)ud; i++)
        rc = fm_child_write(child, piece, sizeof piece);
    return rc;
}

#ifdef FM_TINY
#define MUCH 3
#else
#define MUCH 200
#endif

static void is_much(const struct fm_outcome *outcome)
{
    const unsigned char *p = outcome->data;

    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, MUCH * 100001);
    for (size_t i = 0; i < outcome->len; i++)
        CHECK(p[i] == (unsigned char)(i % 100001 * 7));
}

TEST(a_result_larger_than_the_ring_streams_through_it)
{
    int n = MUCH;

    run_job(NULL, say_much, &n, is_much);
}

static int say_nothing(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    return 0;
}

static void is_empty(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, 0);
}

TEST(a_job_that_writes_nothing_gives_an_empty_value)
{
    run_job(NULL, say_nothing, NULL, is_empty);
}

static int change_its_mind(fm_child *child, void *ud)
{
    (void)ud;
    CHECK_INT(fm_child_write(child, "junk", 4), 0);
    CHECK_INT(fm_child_set_format(child, 9), 0);
    return fm_child_write(child, "good", 4);
}

static void is_good(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->format, 9);
    CHECK_INT(outcome->len, 4);
    CHECK(memcmp(outcome->data, "good", 4) == 0);
}

TEST(a_new_format_takes_back_what_was_written)
{
    run_job(NULL, change_its_mind, NULL, is_good);
}

/* ------------------------------------------------------------- failures */

static int fail(fm_child *child, void *ud)
{
    (void)ud;
    CHECK_INT(fm_child_write(child, "lost", 4), 0);
    CHECK_INT(fm_child_fail(child, "it broke", "at line 1"), 0);
    return fm_child_write(child, "why", 3);
}

static void is_failed(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_ERROR);
    CHECK_STR(outcome->message, "it broke");
    CHECK_STR(outcome->traceback, "at line 1");
    CHECK_INT(outcome->len, 3);
}

TEST(a_failure_carries_message_traceback_and_value)
{
    run_job(NULL, fail, NULL, is_failed);
}

static int fail_with_long_text(fm_child *child, void *ud)
{
    static char text[1000001];

    (void)ud;
    memset(text, 'x', 1000000);
    text[0] = 'a';
    text[999999] = 'z';
    return fm_child_fail(child, text, text);
}

static void is_cut(const struct fm_outcome *outcome)
{
    size_t len = strlen(outcome->message);

    CHECK_INT(outcome->kind, FM_ERROR);
    CHECK(len < 65536 && len > 60000);
    CHECK(outcome->message[0] == 'a' && outcome->message[len - 1] == 'z');
    CHECK(strstr(outcome->message, "(cut)"));
}

TEST(a_long_message_keeps_its_beginning_and_its_end)
{
    run_job(NULL, fail_with_long_text, NULL, is_cut);
}

static int refuse(fm_child *child, void *ud)
{
    (void)ud;
    return fm_child_refuse(child, "result.a", "a function cannot cross");
}

static void is_refused(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_ENCODE);
    CHECK_STR(outcome->path, "result.a");
    CHECK_STR(outcome->message, "a function cannot cross");
}

TEST(a_refused_value_names_its_path)
{
    run_job(NULL, refuse, NULL, is_refused);
}

static int give_code(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    return -ENOMEM;
}

static void is_enomem(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_ERROR);
    CHECK_STR(outcome->message, strerror(ENOMEM));
}

TEST(a_negative_code_becomes_an_error_with_its_text)
{
    run_job(NULL, give_code, NULL, is_enomem);
}

static int raise_signal(fm_child *child, void *ud)
{
    (void)fm_child_write(child, "part", 4);
    (void)raise(*(int *)ud);
    return 0;
}

TEST(every_deadly_signal_is_told)
{
    const int signals[] = {SIGHUP,  SIGINT,  SIGQUIT,   SIGILL,  SIGTRAP,
                           SIGABRT, SIGBUS,  SIGFPE,    SIGKILL, SIGUSR1,
                           SIGSEGV, SIGUSR2, SIGPIPE,   SIGALRM, SIGTERM,
                           SIGXCPU, SIGXFSZ, SIGVTALRM, SIGSYS,  SIGRTMIN};
    fm_engine *engine = new_engine();

    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        int sig = signals[i];
        fm_future *future = spawn(engine, NULL, raise_signal, &sig);
        const struct fm_outcome *outcome = wait_for(engine, future);

        CHECK_INT(outcome->kind, FM_SIGNAL);
        CHECK_INT(outcome->signal, sig);
        fm_future_unref(future);
    }
    fm_engine_free(engine);
}

static int leave_by(fm_child *child, void *ud)
{
    int how = *(int *)ud;

    if (how == 0)
        fm_child_exit(child, 5);
    if (how == 1)
        exit(5);
    _exit(5);
}

static void is_exit_5(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_EXIT);
    CHECK_INT(outcome->exit_code, 5);
}

TEST(every_way_to_exit_tells_its_code)
{
    for (int how = 0; how < 3; how++)
        run_job(NULL, leave_by, &how, is_exit_5);
}

static int leave_well(fm_child *child, void *ud)
{
    (void)child;
    if (*(int *)ud == 0)
        exit(0);
    _exit(0);
}

static void is_no_result(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_NO_RESULT);
    CHECK_INT(outcome->exit_code, 0);
}

TEST(code_0_without_a_result_is_no_result)
{
    for (int how = 0; how < 2; how++)
        run_job(NULL, leave_well, &how, is_no_result);
}

static char mark[] = "/tmp/fork_map_spec_XXXXXX";

static void write_mark(void)
{
    int fd = open(mark, O_WRONLY | O_APPEND);

    (void)!write(fd, "x", 1);
    (void)close(fd);
}

static long mark_size(void)
{
    int fd = open(mark, O_RDONLY);
    long size = lseek(fd, 0, SEEK_END);

    (void)close(fd);
    return size;
}

static void make_mark(void)
{
    int fd = mkstemp(mark);

    CHECK(fd >= 0);
    (void)close(fd);
}

TEST(no_exit_handler_of_the_host_runs_in_a_child)
{
    make_mark();
    CHECK_INT(atexit(write_mark), 0);
    for (int how = 0; how < 3; how++)
        run_job(NULL, leave_by, &how, is_exit_5);
    CHECK_INT(mark_size(), 0);
    CHECK_INT(unlink(mark), 0);
}

TEST(what_the_host_had_buffered_is_written_once)
{
    FILE *file;

    make_mark();
    file = fopen(mark, "w");
    CHECK(file && fputs("12345", file) >= 0);
    run_job(NULL, say_hello, NULL, is_hello);
    for (int how = 0; how < 3; how++)
        run_job(NULL, leave_by, &how, is_exit_5);
    CHECK_INT(fclose(file), 0);
    CHECK_INT(mark_size(), 5);
    CHECK_INT(unlink(mark), 0);
}

static int write_buffered(fm_child *child, void *ud)
{
    FILE *file = fopen(mark, "a");

    (void)ud;
    (void)child;
    CHECK(file && fputs("abc", file) >= 0);
    return 0; /* neither flushed nor closed */
}

TEST(what_a_child_had_buffered_is_written)
{
    make_mark();
    run_job(NULL, write_buffered, NULL, is_empty);
    CHECK_INT(mark_size(), 3);
    CHECK_INT(unlink(mark), 0);
}

/* ----------------------------------------------------------------- time */

static int hang(fm_child *child, void *ud)
{
    (void)ud;
    fm_child_note(child, "here.c:1");
    for (;;)
        (void)pause();
    return 0;
}

static void is_timeout(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_TIMEOUT);
    CHECK_STR(outcome->last.where, "here.c:1");
    CHECK(outcome->usage.wall_ns >= 100 * MS);
}

TEST(a_timeout_ends_a_hanging_job_and_tells_where_it_was)
{
    struct fm_job_opts opts = {.timeout_ns = 100 * MS};

    run_job(&opts, hang, NULL, is_timeout);
}

static int ignore_term_and_hang(fm_child *child, void *ud)
{
    (void)signal(SIGTERM, SIG_IGN);
    return hang(child, ud);
}

TEST(a_job_that_ignores_sigterm_is_killed_after_its_grace)
{
    struct fm_job_opts opts = {.timeout_ns = 100 * MS, .grace_ns = 50 * MS};

    run_job(&opts, ignore_term_and_hang, NULL, is_timeout);
}

static int stop_itself(fm_child *child, void *ud)
{
    fm_child_note(child, "here.c:1");
    (void)raise(SIGSTOP);
    return hang(child, ud);
}

TEST(a_stopped_job_is_ended_by_its_timeout)
{
    struct fm_job_opts opts = {.timeout_ns = 100 * MS, .grace_ns = 50 * MS};

    run_job(&opts, stop_itself, NULL, is_timeout);
}

static int leave_a_grandchild(fm_child *child, void *ud)
{
    if (fork() == 0) {
        for (;;)
            (void)pause();
    }
    return say_hello(child, ud);
}

TEST(a_grandchild_that_holds_descriptors_delays_nothing_and_ends)
{
    int pipe_fds[2];
    struct pollfd end;

    CHECK_INT(pipe(pipe_fds), 0);
    run_job(NULL, leave_a_grandchild, NULL, is_hello);
    (void)close(pipe_fds[1]);
    /* The pipe hangs up when the grandchild, its last holder, is gone. */
    end.fd = pipe_fds[0];
    end.events = POLLIN;
    CHECK_INT(poll(&end, 1, 1000), 1);
    CHECK(end.revents & POLLHUP);
    (void)close(pipe_fds[0]);
}

/* --------------------------------------------------------------- limits */

static int spin(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    for (volatile unsigned long i = 0;; i++)
        ;
    return 0;
}

static void is_cpu_limit(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_LIMIT);
    CHECK_STR(outcome->limit, "cpu");
}

TEST(cpu_time_is_limited_to_a_fraction_of_a_second)
{
    struct fm_job_opts opts = {.limits = {.cpu_ns = 50 * MS}};

    run_job(&opts, spin, NULL, is_cpu_limit);
}

static int write_file(fm_child *child, void *ud)
{
    int fd = open(mark, O_WRONLY);
    char data[100] = {0};

    (void)child;
    (void)ud;
    return write(fd, data, sizeof data) == 100 &&
                   write(fd, data, sizeof data) == 100
               ? 0
               : -EIO;
}

static void is_file_limit(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_LIMIT);
    CHECK_STR(outcome->limit, "file_size");
}

TEST(a_file_grows_up_to_its_limit)
{
    struct fm_job_opts opts = {.limits = {.file_size = 100}};

    make_mark();
    run_job(&opts, write_file, NULL, is_file_limit);
    CHECK_INT(mark_size(), 100);
    opts.limits.file_size = 200;
    run_job(&opts, write_file, NULL, is_empty);
    CHECK_INT(unlink(mark), 0);
}

static int count_opens(fm_child *child, void *ud)
{
    int n = 0;

    (void)ud;
    while (open("/dev/null", O_RDONLY) >= 0)
        n++;
    CHECK_INT(errno, EMFILE);
    return fm_child_write(child, &n, sizeof n);
}

static void is_three(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(*(const int *)outcome->data, 3);
}

TEST(a_limit_of_3_files_lets_exactly_3_be_opened)
{
    struct fm_job_opts opts = {.limits = {.files = 3}};

    run_job(&opts, count_opens, NULL, is_three);
}

static int try_fork(fm_child *child, void *ud)
{
    pid_t pid = fork();

    (void)ud;
    if (pid == 0)
        _exit(0);
    return pid < 0 && errno == EAGAIN ? say_hello(child, NULL) : -EBUSY;
}

TEST(a_limit_of_no_processes_holds_for_root_too)
{
    struct fm_job_opts opts = {.limits = {.has_processes = true}};

    run_job(&opts, try_fork, NULL, is_hello);
}

static void is_result_limit(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_LIMIT);
    CHECK_STR(outcome->limit, "result");
}

TEST(a_result_over_its_limit_is_not_kept)
{
    struct fm_job_opts opts = {.limits = {.result = 100000}};
    int n = 1;

    run_job(&opts, say_much, &n, is_result_limit);
}

/* --------------------------------------------------------------- output */

static int print(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    (void)printf("one\ntwo\nthree");
    (void)fprintf(stderr, "four");
    return 0;
}

static void is_captured(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->output[0].len, 13);
    CHECK(memcmp(outcome->output[0].data, "one\ntwo\nthree", 13) == 0);
    CHECK_INT(outcome->output[1].len, 4);
}

TEST(output_is_captured_by_stream)
{
    struct fm_job_opts opts = {.output = FM_OUTPUT_CAPTURE};

    run_job(&opts, print, NULL, is_captured);
}

static int flood(fm_child *child, void *ud)
{
    static char piece[65536];

    (void)child;
    (void)ud;
    memset(piece, 'a', sizeof piece);
    for (int i = 0; i < 320; i++) { /* 20 MiB */
        if (i == 319)
            piece[sizeof piece - 1] = 'z';
        (void)!write(1, piece, sizeof piece);
    }
    return 0;
}

static void is_flooded(const struct fm_outcome *outcome)
{
    const struct fm_captured *out = &outcome->output[0];

    CHECK_INT(out->len, 16 << 20);
    CHECK_INT(out->dropped, 4 << 20);
    CHECK(out->data[0] == 'a' && out->data[out->len - 1] == 'z');
}

TEST(captured_output_keeps_its_last_16_mib_and_counts_the_rest)
{
    struct fm_job_opts opts = {.output = FM_OUTPUT_CAPTURE};

    run_job(&opts, flood, NULL, is_flooded);
}

static char lines[256];

static void on_line(int stream, const char *line, size_t len, void *ud)
{
    size_t used = strlen(lines);

    (void)ud;
    (void)snprintf(lines + used, sizeof lines - used, "%d:%.*s;", stream,
                   (int)len, line);
}

TEST(lines_are_handed_over_one_by_one)
{
    struct fm_job_opts opts = {.output = FM_OUTPUT_LINES, .on_line = on_line};

    run_job(&opts, print, NULL, is_empty);
    CHECK(strstr(lines, "1:one;1:two;"));
    CHECK(strstr(lines, "1:three;"));
    CHECK(strstr(lines, "2:four;"));
}

/* ---------------------------------------------------------- descriptors */

static int use_fd(fm_child *child, void *ud)
{
    char byte;

    return read(*(int *)ud, &byte, 1) < 0 && errno == EBADF
               ? say_hello(child, NULL)
               : -EEXIST;
}

TEST(a_descriptor_that_is_not_kept_is_dead_and_its_number_taken)
{
    struct fm_job_opts opts = {.has_keep_fds = true};
    int fd = open("/dev/zero", O_RDONLY);

    run_job(&opts, use_fd, &fd, is_hello);
    (void)close(fd);
}

static int read_zero(fm_child *child, void *ud)
{
    char byte = 1;

    return read(*(int *)ud, &byte, 1) == 1 && byte == 0 ? say_hello(child, NULL)
                                                        : -errno;
}

TEST(a_descriptor_on_the_list_is_kept)
{
    int fd = open("/dev/zero", O_RDONLY);
    struct fm_job_opts opts = {
        .has_keep_fds = true, .keep_fds = &fd, .n_keep_fds = 1};

    run_job(&opts, read_zero, &fd, is_hello);
    run_job(NULL, read_zero, &fd, is_hello);
    (void)close(fd);
}

static int read_stdin(fm_child *child, void *ud)
{
    char byte;

    (void)ud;
    return read(0, &byte, 1) == 0 ? say_hello(child, NULL) : -EEXIST;
}

TEST(standard_input_of_a_child_is_empty)
{
    int fd = open("/dev/zero", O_RDONLY);

    CHECK(dup2(fd, 0) == 0);
    (void)close(fd);
    run_job(NULL, read_stdin, NULL, is_hello);
}

/* -------------------------------------------------- several at one time */

static void count_call(fm_future *future, void *ud)
{
    CHECK_INT(fm_future_get_state(future), FM_SETTLED);
    ++*(int *)ud;
}

TEST(jobs_beyond_max_children_queue_and_each_settles_once)
{
    struct fm_engine_opts opts = {.max_children = 3};
    fm_engine *engine;
    int calls = 0;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    for (int i = 0; i < 50; i++) {
        fm_future *future = spawn(engine, NULL, say_hello, NULL);
        struct fm_engine_stats stats;

        CHECK_INT(fm_future_on_settle(future, count_call, &calls), 0);
        CHECK_INT(fm_future_on_settle(future, count_call, &calls), -EEXIST);
        fm_engine_get_stats(engine, &stats);
        CHECK(stats.running <= 3);
        fm_future_unref(future);
    }
    while (calls < 50)
        CHECK(fm_engine_step(engine, -1) >= 0);
    CHECK_INT(fm_engine_step(engine, -1), 0);
    CHECK_INT(calls, 50);
    fm_engine_free(engine);
}

TEST(cancel_ends_a_running_job_and_a_queued_one)
{
    struct fm_engine_opts opts = {.max_children = 1};
    fm_future *running, *queued;
    fm_engine *engine;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    running = spawn(engine, NULL, hang, NULL);
    queued = spawn(engine, NULL, say_hello, NULL);
    CHECK_INT(fm_future_get_state(queued), FM_QUEUED);
    CHECK_INT(fm_future_cancel(queued, -1), 1);
    CHECK_INT(fm_future_cancel(queued, -1), 0);
    CHECK_INT(fm_future_cancel(running, -1), 1);
    CHECK_INT(fm_future_cancel(running, 0), 0);
    CHECK_INT(wait_for(engine, running)->kind, FM_CANCELLED);
    CHECK_INT(wait_for(engine, queued)->kind, FM_CANCELLED);
    CHECK_INT(fm_future_get_outcome(queued)->pid, 0);
    fm_future_unref(running);
    fm_future_unref(queued);
    fm_engine_free(engine);
}

TEST(closing_an_engine_settles_what_runs_and_what_waits)
{
    struct fm_engine_opts opts = {.max_children = 2};
    fm_future *futures[4];
    fm_engine *engine;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    for (int i = 0; i < 4; i++)
        futures[i] = spawn(engine, NULL, hang, NULL);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(fm_future_get_state(futures[i]), FM_SETTLED);
        CHECK_INT(fm_future_get_outcome(futures[i])->kind, FM_CLOSED);
        fm_future_unref(futures[i]);
    }
    CHECK_INT(fm_spawn(engine, NULL, hang, NULL, &futures[0]), FM_ECLOSED);
    CHECK_INT(fm_engine_step(engine, 0), FM_ECLOSED);
    fm_engine_free(engine);
}

static int fail_twice(fm_child *child, void *ud)
{
    (void)ud;
    write_mark();
    if (fm_child_get_attempt(child) < 3)
        (void)raise(SIGKILL);
    return say_hello(child, NULL);
}

TEST(retries_run_a_killed_job_again_and_only_so_often)
{
    struct fm_job_opts opts = {.retries = 2, .backoff_ns = MS};
    fm_engine *engine = new_engine();
    fm_future *future;

    make_mark();
    future = spawn(engine, &opts, fail_twice, NULL);
    CHECK_INT(wait_for(engine, future)->kind, FM_VALUE);
    CHECK_INT(fm_future_get_outcome(future)->attempt, 3);
    CHECK_INT(mark_size(), 3);
    fm_future_unref(future);
    opts.retries = 1;
    future = spawn(engine, &opts, fail_twice, NULL);
    CHECK_INT(wait_for(engine, future)->kind, FM_SIGNAL);
    CHECK_INT(mark_size(), 5);
    fm_future_unref(future);
    fm_engine_free(engine);
    CHECK_INT(unlink(mark), 0);
}

static void spawn_another(fm_future *future, void *ud)
{
    fm_engine *engine = ud;
    fm_future *next;

    (void)future;
    CHECK_INT(fm_engine_step(engine, -1), FM_EBUSY);
    CHECK_INT(fm_engine_close(engine, 0), FM_EBUSY);
    CHECK_INT(fm_spawn(engine, NULL, say_hello, NULL, &next), 0);
    fm_future_unref(next);
}

TEST(a_callback_may_spawn_but_neither_wait_nor_close)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, say_hello, NULL);
    struct fm_engine_stats stats;

    CHECK_INT(fm_future_on_settle(future, spawn_another, engine), 0);
    fm_future_unref(future);
    do {
        CHECK(fm_engine_step(engine, -1) >= 0);
        fm_engine_get_stats(engine, &stats);
    } while (stats.settled < 2);
    fm_engine_free(engine);
}

TEST(the_engine_fd_tells_when_a_step_has_work)
{
    fm_engine *engine = new_engine();
    struct pollfd pfd = {.fd = fm_engine_fd(engine), .events = POLLIN};
    fm_future *future;

    if (pfd.fd == -ENOSYS) { /* the poll() fallback has none */
        fm_engine_free(engine);
        return;
    }
    CHECK(pfd.fd >= 0);
    CHECK_INT(poll(&pfd, 1, 0), 0);
    future = spawn(engine, NULL, say_hello, NULL);
    CHECK(fm_engine_step(engine, 0) >= 0);
    while (fm_future_get_state(future) != FM_SETTLED) {
        CHECK_INT(poll(&pfd, 1, 5000), 1);
        CHECK(fm_engine_step(engine, 0) >= 0);
    }
    CHECK_INT(poll(&pfd, 1, 0), 0);
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* ----------------------------------------------------- hosts and children */

TEST(a_host_that_ignores_sigchld_gets_every_outcome_the_kernel_can_tell)
{
    int sig = SIGKILL;
    fm_engine *engine;
    fm_future *future;

    CHECK(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
    engine = new_engine();
    future = spawn(engine, NULL, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    future = spawn(engine, NULL, raise_signal, &sig);
    (void)wait_for(engine, future);
    CHECK(fm_future_get_outcome(future)->kind == FM_SIGNAL ||
          fm_future_get_outcome(future)->kind == FM_NO_RESULT);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(a_child_of_the_host_stays_the_hosts)
{
    fm_engine *engine = new_engine();
    fm_future *future;
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(7);
    future = spawn(engine, NULL, say_hello, NULL);
    (void)wait_for(engine, future);
    fm_future_unref(future);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    fm_engine_free(engine);
}

static int use_parents_engine(fm_child *child, void *ud)
{
    fm_engine *engine = ud;
    fm_future *future;

    if (fm_spawn(engine, NULL, say_hello, NULL, &future) != FM_ECLOSED ||
        fm_engine_step(engine, 0) != FM_ECLOSED)
        return -EEXIST;
    fm_engine_free(engine);
    return say_hello(child, NULL);
}

TEST(an_engine_of_the_parent_is_closed_in_a_child)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, use_parents_engine, engine);

    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
}

static int nest(fm_child *child, void *ud)
{
    int deeper = *(int *)ud - 1;
    fm_engine *engine = new_engine();
    fm_future *future;
    const struct fm_outcome *outcome;
    int rc;

    future = spawn(engine, NULL, deeper > 0 ? nest : say_hello, &deeper);
    outcome = wait_for(engine, future);
    if (outcome->kind == FM_VALUE)
        rc = fm_child_write(child, outcome->data, outcome->len);
    else
        rc = outcome->error_code < 0 ? outcome->error_code : -EIO;
    fm_future_unref(future);
    fm_engine_free(engine);
    return rc;
}

TEST(children_have_children_of_their_own)
{
    int depth = 4;

    run_job(NULL, nest, &depth, is_hello);
}

static void is_error(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_ERROR);
}

TEST(children_nest_no_deeper_than_max_depth)
{
    int depth = 40;

    run_job(NULL, nest, &depth, is_error);
}

static void hear_nothing(int sig)
{
    (void)sig;
}

TEST(a_signal_ends_a_wait_early)
{
    struct sigaction action = {.sa_handler = hear_nothing};
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, hang, NULL);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL,
                             .sigev_signo = SIGUSR1};
    struct itimerspec spec = {{0, 20000000}, {0, 20000000}};
    int rc;

    CHECK_INT(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_INT(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    CHECK_INT(timer_settime(timer, 0, &spec, NULL), 0);
    do {
        rc = fm_engine_step(engine, -1);
    } while (rc == 0);
    CHECK_INT(rc, -EINTR);
    CHECK_INT(timer_delete(timer), 0);
    (void)fm_future_cancel(future, 0);
    (void)wait_for(engine, future);
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* A host in a process of its own is killed with busy children; the pipe that
 * only they hold must hang up. */
TEST(when_the_host_is_killed_its_children_and_theirs_are_gone)
{
    int fds[2];
    struct pollfd end;
    pid_t host;
    char byte;

    CHECK_INT(pipe(fds), 0);
    host = fork();
    if (host == 0) {
        fm_engine *engine = new_engine();

        for (int i = 0; i < 8; i++)
            (void)spawn(engine, NULL, i % 2 ? spin : leave_a_grandchild, NULL);
        (void)fm_engine_step(engine, 0);
        (void)!write(fds[1], "r", 1);
        for (;;)
            (void)pause();
    }
    (void)close(fds[1]);
    CHECK_INT(read(fds[0], &byte, 1), 1);
    CHECK_INT(kill(host, SIGKILL), 0);
    CHECK(waitpid(host, NULL, 0) == host);
    end.fd = fds[0];
    end.events = POLLIN;
    CHECK_INT(poll(&end, 1, 1000), 1);
    CHECK(end.revents & POLLHUP);
    (void)close(fds[0]);
}

static int count_hook(void *ud)
{
    ++*(int *)ud;
    return 0;
}

static int refuse_hook(void *ud)
{
    (void)ud;
    return -EPERM;
}

static int tell_hooks(fm_child *child, void *ud)
{
    return fm_child_write(child, ud, sizeof(int));
}

TEST(hooks_run_around_each_fork_and_may_refuse_it)
{
    fm_engine *engine = new_engine();
    int before = 0, parent = 0, in_child = 0;
    fm_future *future;
    int id;

    CHECK(fm_at_fork(engine, count_hook, NULL, NULL, &before) > 0);
    CHECK(fm_at_fork(engine, NULL, count_hook, NULL, &parent) > 0);
    CHECK(fm_at_fork(engine, NULL, NULL, count_hook, &in_child) > 0);
    future = spawn(engine, NULL, tell_hooks, &in_child);
    CHECK_INT(wait_for(engine, future)->kind, FM_VALUE);
    CHECK_INT(*(const int *)fm_future_get_outcome(future)->data, 1);
    CHECK(before == 1 && parent == 1 && in_child == 0);
    fm_future_unref(future);
    id = fm_at_fork(NULL, refuse_hook, NULL, NULL, NULL);
    future = spawn(engine, NULL, say_hello, NULL);
    CHECK_INT(wait_for(engine, future)->kind, FM_SPAWN);
    CHECK_INT(fm_future_get_outcome(future)->error_code, -EPERM);
    fm_future_unref(future);
    fm_at_fork_remove(id);
    future = spawn(engine, NULL, say_hello, NULL);
    CHECK_INT(wait_for(engine, future)->kind, FM_VALUE);
    fm_future_unref(future);
    fm_engine_free(engine);
}

static int say_seed(fm_child *child, void *ud)
{
    uint64_t seed[2];

    (void)ud;
    fm_child_get_seed(child, seed);
    return fm_child_write(child, seed, sizeof seed);
}

static uint64_t seed_of(fm_engine *engine, const struct fm_job_opts *opts)
{
    fm_future *future = spawn(engine, opts, say_seed, NULL);
    uint64_t seed[2];

    CHECK_INT(wait_for(engine, future)->kind, FM_VALUE);
    memcpy(seed, fm_future_get_outcome(future)->data, sizeof seed);
    fm_future_unref(future);
    return seed[0] ^ seed[1];
}

TEST(the_same_seed_gives_the_same_numbers_and_none_gives_fresh_ones)
{
    struct fm_job_opts opts = {.has_seed = true, .seed = 42};
    fm_engine *engine = new_engine();
    uint64_t first = seed_of(engine, &opts);

    CHECK(seed_of(engine, &opts) == first);
    opts.seed_index = 1;
    CHECK(seed_of(engine, &opts) != first);
    CHECK(seed_of(engine, NULL) != seed_of(engine, NULL));
    fm_engine_free(engine);
}

TEST(bad_options_are_refused_by_name_before_anything_runs)
{
    struct fm_job_opts opts = {.timeout_ns = -1};
    fm_engine *engine = new_engine();
    fm_future *future = NULL;

    CHECK_INT(fm_spawn(engine, &opts, hang, NULL, &future), -EINVAL);
    CHECK_STR(fm_job_opts_error(&opts), "timeout_ns");
    CHECK(!future);
    fm_engine_free(engine);
}

TEST(preparing_a_host_measures_its_forks)
{
    struct fm_prepare_report report;

    CHECK_INT(fm_prepare(&report), 0);
    CHECK(report.fork_before_ns > 0 && report.fork_after_ns > 0);
}

static int step_hook(void *ud)
{
    return fm_engine_step(ud, -1) == FM_EBUSY ? 0 : -EPERM;
}

TEST(a_hook_may_not_wait)
{
    fm_engine *engine = new_engine();
    fm_future *future;

    CHECK(fm_at_fork(engine, step_hook, step_hook, NULL, engine) > 0);
    future = spawn(engine, NULL, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
}
