/* SPDX-License-Identifier: MIT */
/* Descriptors under tight limits, and hosts that have closed theirs. */
#include "jobs.h"

#include <sys/resource.h>

static void limit_files(rlim_t n)
{
    struct rlimit limit;

    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = n;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static int count_open(void)
{
    int n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

TEST(every_limit_on_descriptors_is_told_as_such_and_leaks_none)
{
    struct fm_job_opts opts = {.output = FM_OUTPUT_CAPTURE};
    int before = count_open();
    int values = 0;

    for (int n = 3; n <= 40; n++) {
        fm_engine *engine;
        int rc;

        limit_files((rlim_t)n);
        rc = fm_engine_new(NULL, &engine);
        if (rc == 0) {
            fm_future *future = spawn(engine, &opts, say_hello, NULL);
            const struct fm_outcome *outcome = wait_for(engine, future);

            if (outcome->kind == FM_VALUE)
                values++;
            else
                CHECK_STR(fm_err_name(outcome->error_code), "EMFILE");
            fm_future_unref(future);
            fm_engine_free(engine);
        } else {
            CHECK_STR(fm_err_name(rc), "EMFILE");
        }
        CHECK_INT(count_open(), before);
    }
    limit_files(1024);
    CHECK(values > 5);
    CHECK(values < 35);
}

static int write_everywhere(fm_child *child, void *ud)
{
    (void)ud;
    if (printf("printed\n") < 0 || fflush(stdout) != 0)
        return -EIO;
    return fm_child_write(child, "hello", 5);
}

TEST(a_host_without_standard_streams_gets_result_and_output)
{
    struct fm_job_opts opts = {.output = FM_OUTPUT_CAPTURE};
    const struct fm_outcome *outcome;
    fm_engine *engine;
    fm_future *future;
    int kept[3];

    for (int i = 0; i < 3; i++) {
        kept[i] = fcntl(i, F_DUPFD_CLOEXEC, 200);
        (void)close(i);
    }
    engine = new_engine();
    future = spawn(engine, &opts, write_everywhere, NULL);
    outcome = wait_for(engine, future);
    for (int i = 0; i < 3; i++) {
        bool was_free = fcntl(i, F_GETFD) < 0;

        (void)dup2(kept[i], i);
        (void)close(kept[i]);
        CHECK(was_free);
    }
    is_hello(outcome);
    CHECK_INT(outcome->output[0].len, 8);
    CHECK(memcmp(outcome->output[0].data, "printed\n", 8) == 0);
    fm_future_unref(future);
    fm_engine_free(engine);
}

static int tell_fds(fm_child *child, void *ud)
{
    char answer[2];

    for (int i = 0; i < 2; i++)
        answer[i] = write(((int *)ud)[i], "x", 1) == 1 ? 'y' : 'n';
    return fm_child_write(child, answer, sizeof answer);
}

TEST(descriptors_are_buried_under_a_limit_that_poll_refuses)
{
    struct fm_job_opts opts = {.n_keep_fds = 1, .has_keep_fds = true};
    const struct fm_outcome *outcome;
    fm_engine *engine;
    fm_future *future;
    int fds[2];

    limit_files(40);
    for (int i = 0; i < 2; i++)
        fds[i] = open("/dev/null", O_WRONLY | O_CLOEXEC);
    opts.keep_fds = &fds[1];
    engine = new_engine();
    future = spawn(engine, &opts, tell_fds, fds);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(((const char *)outcome->data)[0], 'n');
    CHECK_INT(((const char *)outcome->data)[1], 'y');
    fm_future_unref(future);
    fm_engine_free(engine);
    (void)close(fds[0]);
    (void)close(fds[1]);
}
