/* SPDX-License-Identifier: MIT */
/* Jobs of C: what options keep them from, and where their output goes. */
#include "jobs.h"

/* --------------------------------------------------------------- limits */

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

static int fork_one(fm_child *child, void *ud)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    return waitpid(pid, NULL, 0) == pid ? say_hello(child, ud) : -errno;
}

TEST(a_limit_of_processes_lets_as_many_be_started)
{
    struct fm_job_opts opts = {.limits = {.processes = 1000}};

    run_job(&opts, fork_one, NULL, is_hello);
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
