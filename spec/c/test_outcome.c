/* SPDX-License-Identifier: MIT */
/* Jobs of C: one outcome each, whatever the child does. */
#include "jobs.h"

#include <poll.h>

/* -------------------------------------------------------------- values */

TEST(a_job_gives_back_what_it_wrote)
{
    run_job(NULL, say_hello, NULL, is_hello);
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

static int fail_and_give_code(fm_child *child, void *ud)
{
    (void)ud;
    CHECK_INT(fm_child_fail(child, "as said", NULL), 0);
    return -ENOMEM;
}

static void is_as_said(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_ERROR);
    CHECK_STR(outcome->message, "as said");
}

TEST(a_failure_that_was_told_is_not_replaced_by_a_code)
{
    run_job(NULL, fail_and_give_code, NULL, is_as_said);
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
    is_exit(outcome, 5, false);
}

static void is_exit_5_by_exit(const struct fm_outcome *outcome)
{
    is_exit(outcome, 5, true);
}

TEST(every_way_to_exit_tells_its_code)
{
    for (int how = 0; how < 3; how++)
        run_job(NULL, leave_by, &how, how == 1 ? is_exit_5_by_exit : is_exit_5);
}

static int exit_below(fm_child *child, void *ud)
{
    int status;
    pid_t pid = fork();

    (void)ud;
    if (pid == 0) {
        (void)raise(SIGPROF); /* no sample of it is taken */
        if (fm_child_current())
            _exit(1);
        exit(6);
    }
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
        WEXITSTATUS(status) != (EXIT_TELLS_CODE ? 6 : 0) ||
        fm_child_current() != child)
        return -EIO;
    return say_hello(child, ud);
}

TEST(a_process_that_a_job_forks_is_no_child_of_the_engine)
{
    make_mark();
    CHECK(!fm_child_current());
    CHECK_INT(atexit(write_mark), 0);
    run_job(NULL, exit_below, NULL, is_hello);
    CHECK_INT(mark_size(), 0);
    CHECK_INT(unlink(mark), 0);
}

/* More than the ring holds, so that a part of it is on its way. */
static int leave_in_the_middle(fm_child *child, void *ud)
{
    int n = MUCH;

    CHECK_INT(say_much(child, &n), 0);
    if (*(int *)ud == 0)
        _exit(0);
    if (*(int *)ud == 9)
        (void)raise(9);
    _exit(*(int *)ud);
}

static void is_protocol(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_PROTOCOL);
}

static void is_sigkill(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_SIGNAL);
    CHECK_INT(outcome->signal, 9);
}

TEST(a_result_cut_short_tells_how_the_process_ended)
{
    int well = 0, badly = 5, killed = 9;

    run_job(NULL, leave_in_the_middle, &well, is_protocol);
    run_job(NULL, leave_in_the_middle, &badly, is_exit_5);
    run_job(NULL, leave_in_the_middle, &killed, is_sigkill);
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
    is_exit(outcome, 0, false);
}

static void is_no_result_by_exit(const struct fm_outcome *outcome)
{
    is_exit(outcome, 0, true);
}

TEST(code_0_without_a_result_is_no_result)
{
    for (int how = 0; how < 2; how++)
        run_job(NULL, leave_well, &how,
                how == 0 ? is_no_result_by_exit : is_no_result);
}

TEST(no_exit_handler_of_the_host_runs_in_a_child)
{
    make_mark();
    CHECK_INT(atexit(write_mark), 0);
    for (int how = 0; how < 3; how++)
        run_job(NULL, leave_by, &how, how == 1 ? is_exit_5_by_exit : is_exit_5);
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
        run_job(NULL, leave_by, &how, how == 1 ? is_exit_5_by_exit : is_exit_5);
    CHECK_INT(fclose(file), 0);
    CHECK_INT(mark_size(), 5);
    CHECK_INT(unlink(mark), 0);
}

#ifdef __GLIBC__ /* elsewhere only stdout and stderr are, see process/stdio.h  \
                  */
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
#endif

/* ----------------------------------------------------------------- time */

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
