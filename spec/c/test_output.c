/* SPDX-License-Identifier: MIT */
/* Captured output when memory runs short, or pipes are small. */
#include "jobs.h"

#include <sys/resource.h>

#include "os/sys.h"
#include "process/output.h"

static bool is_short;

static void *short_realloc(void *p, size_t size)
{
    return is_short ? NULL : fm__sys_real.realloc(p, size);
}

#define PIECE 4000
#define PIECES 6

TEST(captured_output_stays_whole_when_memory_was_short_for_a_while)
{
    struct fm__output output;
    struct fm_captured got = {NULL, 0, 0};
    char piece[PIECE];

    CHECK_INT(fm__output_open(&output, FM_OUTPUT_CAPTURE, 1), 0);
    fm__sys.realloc = short_realloc;
    for (int i = 0; i < PIECES; i++) {
        is_short = i == 2 || i == 3;
        memset(piece, 'a' + i, sizeof piece);
        CHECK_INT(write(output.write_fd, piece, sizeof piece), PIECE);
        CHECK(fm__output_pump(&output, SIZE_MAX, NULL, NULL));
    }
    fm__output_get(&output, &got);
    CHECK(got.len >= PIECE);
    CHECK_INT(got.len + got.dropped, PIECE * PIECES);
    for (size_t i = 0; i < got.len; i++)
        CHECK_INT(got.data[i], 'a' + (int)((got.dropped + i) / PIECE));
    fm__output_done(&output);
}

#ifdef __linux__
/* For a user who has many pipes the kernel makes them small. */
#define PIPES_MAX 1100
#define NOBODY 65534

static int pipes[PIPES_MAX][2];
static int n_pipes;

static bool use_up_pipes(void)
{
    struct rlimit limit;

    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (geteuid() == 0) {
        CHECK_INT(setgid(NOBODY), 0);
        CHECK_INT(setuid(NOBODY), 0);
    }
    while (n_pipes < PIPES_MAX && pipe2(pipes[n_pipes], O_CLOEXEC) == 0) {
        if (fcntl(pipes[n_pipes++][0], F_GETPIPE_SZ) <= 8192)
            return true;
    }
    return false;
}

static void close_pipes(void)
{
    while (n_pipes > 0) {
        n_pipes--;
        (void)close(pipes[n_pipes][0]);
        (void)close(pipes[n_pipes][1]);
    }
}

static void is_3_mb(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, (size_t)30 * 100001);
}

static int print_200_kb(fm_child *child, void *ud)
{
    for (int i = 0; i < 20000; i++)
        (void)printf("%09d\n", i);
    return say_hello(child, ud);
}

static void is_200_kb(const struct fm_outcome *outcome)
{
    char line[16];

    is_hello(outcome);
    CHECK_INT(outcome->output[0].len, 200000);
    for (int i = 0; i < 20000; i++) {
        (void)snprintf(line, sizeof line, "%09d\n", i);
        CHECK(memcmp(outcome->output[0].data + (size_t)i * 10, line, 10) == 0);
    }
}

TEST(pipes_that_the_kernel_has_made_small_carry_the_same)
{
    struct fm_job_opts opts = {.output = FM_OUTPUT_CAPTURE};
    struct fm_job_opts bare = {.output = FM_OUTPUT_CAPTURE,
                               .has_keep_fds = true};
    int n = 30;

    if (use_up_pipes()) {
        run_job(&opts, print_200_kb, NULL, is_200_kb);
        run_job(&bare, print_200_kb, NULL, is_200_kb);
        run_job(&opts, say_much, &n, is_3_mb);
    } else {
        (void)printf("skipped: the kernel leaves pipes as they are\n");
    }
    close_pipes();
}
#endif
