/* SPDX-License-Identifier: MIT */
/* Limits of jobs under hosts that have limits of their own. */
#include "jobs.h"

#include <sys/resource.h>

#include "os/sys.h"

static int tell_limit(fm_child *child, void *ud)
{
    struct rlimit limit;

    if (getrlimit((unsigned)*(int *)ud, &limit) < 0)
        return -errno;
    return fm_child_write(child, &limit, sizeof limit);
}

static struct rlimit limit_in_child(const struct fm_job_opts *opts,
                                    int resource)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, opts, tell_limit, &resource);
    const struct fm_outcome *outcome = wait_for(engine, future);
    struct rlimit limit;

    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, sizeof limit);
    memcpy(&limit, outcome->data, sizeof limit);
    fm_future_unref(future);
    fm_engine_free(engine);
    return limit;
}

TEST(a_limit_does_not_loosen_what_the_host_stands_under)
{
    struct fm_job_opts opts = {
        .limits = {.files = 900, .file_size = 1 << 20, .cpu_ns = 100000 * MS}};
    const struct rlimit few = {64, 500}, small = {1000, RLIM_INFINITY},
                        brief = {50, 60};
    struct rlimit got;

    CHECK_INT(setrlimit(RLIMIT_NOFILE, &few), 0);
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &small), 0);
    CHECK_INT(setrlimit(RLIMIT_CPU, &brief), 0);
    got = limit_in_child(&opts, RLIMIT_NOFILE);
    CHECK_INT(got.rlim_cur, 64);
    CHECK_INT(got.rlim_max, 500);
    got = limit_in_child(&opts, RLIMIT_FSIZE);
    CHECK_INT(got.rlim_cur, 1000);
    CHECK_INT(got.rlim_max, 1 << 20);
    got = limit_in_child(&opts, RLIMIT_CPU);
    CHECK_INT(got.rlim_cur, 50);
    CHECK_INT(got.rlim_max, 60);
}

TEST(a_limit_that_no_job_can_reach_is_none)
{
    struct fm_job_opts opts = {
        .limits = {.memory = UINT64_MAX, .cpu_ns = UINT64_MAX}};

    CHECK(limit_in_child(&opts, RLIMIT_DATA).rlim_cur >= UINT64_MAX / 2);
    CHECK(limit_in_child(&opts, RLIMIT_CPU).rlim_cur >= UINT32_MAX);
}

#ifdef RLIMIT_SIGPENDING
/* Where the child would make the kernel prefer it when memory runs out. */
static int hide_proc(const char *path, int flags, mode_t mode)
{
    if (strncmp(path, "/proc/", 6) != 0)
        return fm__sys_real.open(path, flags, mode);
    errno = ENOENT;
    return -1;
}

TEST(a_job_runs_when_the_kernel_has_no_timer_left_for_its_recorder)
{
    const struct rlimit none = {0, 0};
    fm_engine *engine = new_engine();
    fm_future *future;

    CHECK_INT(setrlimit(RLIMIT_SIGPENDING, &none), 0);
    future = spawn(engine, NULL, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm__sys.open = hide_proc;
    future = spawn(engine, NULL, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm__sys = fm__sys_real;
    fm_future_unref(future);
    fm_engine_free(engine);
}
#endif
