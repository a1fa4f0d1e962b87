/* SPDX-License-Identifier: MIT */
/* Templates and what they run, for the tests of them. */
#ifndef SPEC_C_TEMPLATE_JOBS_H
#define SPEC_C_TEMPLATE_JOBS_H

#include "jobs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "engine/duplex.h"
#include "engine/template.h"
#include "os/clock.h"
#include "os/sys.h"

#ifdef FM_TEMPLATES

#include "served.h"

enum {
    SAY_PIDS = 1,
    ECHO,
    SLEEP,
    EXIT_3,
    SERVE,
    FAIL,
    COUNT_FDS,
    COUNT_NULLS,
    SUM_FDS,
    BREAK_MMAP,
    LIMIT_FDS,
    UNLIMIT_FDS
};

/* ---------------------------------------------------------- in the template */

static int n_called;

static int __attribute__((unused)) write_int(fm_child *child, int64_t n)
{
    return fm_child_write(child, &n, sizeof n);
}

static int __attribute__((unused)) count_fds(void)
{
    int n = 0;

    for (int fd = 3; fd < 1024; fd++)
        n += fcntl(fd, F_GETFL) >= 0 && !(fcntl(fd, F_GETFL) & O_PATH);
    return n;
}

/* Standard streams that are /dev/null. */
static int __attribute__((unused)) count_nulls(void)
{
    struct stat null, st;
    int n = 0;

    if (stat("/dev/null", &null) < 0)
        return -1;
    for (int fd = 0; fd <= 2; fd++)
        n += fstat(fd, &st) == 0 && st.st_rdev == null.st_rdev;
    return n;
}

static int __attribute__((unused)) do_job(fm_child *child, void *ud)
{
    const struct fm__errand *errand = ud;
    int rc;

    switch (errand->kind) {
    case SAY_PIDS:
        rc = write_int(child, getppid());
        return rc < 0 ? rc : write_int(child, n_called);
    case ECHO:
        return fm_child_write(child, errand->data, errand->len);
    case SLEEP:
        for (;;)
            pause();
    case EXIT_3:
        _exit(3);
    case SERVE:
        return serve(child, NULL);
    case COUNT_FDS:
        return write_int(child, count_fds());
    case COUNT_NULLS:
        return write_int(child, count_nulls());
    default:
        return fm_child_fail(child, "no such job", NULL);
    }
}

static __attribute__((unused)) void *rest(void *ud)
{
    pause();
    return ud;
}

static void *__attribute__((unused))
failing_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset)
{
    (void)p;
    (void)len;
    (void)prot;
    (void)flags;
    (void)fd;
    (void)offset;
    fm__sys.mmap = fm__sys_real.mmap;
    errno = ENOMEM;
    return MAP_FAILED;
}

static int __attribute__((unused)) limit_fds(bool is_limited)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    limit.rlim_cur = is_limited ? 3 : limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

static int __attribute__((unused))
do_call(struct fm__server *server, const struct fm__errand *errand,
        const int *fds, size_t n_fds, void *ud)
{
    pthread_t thread;

    (void)ud;
    switch (errand->kind) {
    case FAIL:
        fm__server_fail(server, "it went wrong", "at some line");
        return FM_EPROTOCOL - 100;
    case SLEEP:
        return -pthread_create(&thread, NULL, rest, NULL);
    case SUM_FDS:
        for (size_t i = 0; i < n_fds; i++) {
            char byte = 'x';

            if (write(fds[i], &byte, 1) != 1)
                return -errno;
            (void)close(fds[i]);
        }
        return 0;
    case SERVE:
        return 1;
    case BREAK_MMAP:
        fm__sys.mmap = failing_mmap;
        return 0;
    case LIMIT_FDS:
    case UNLIMIT_FDS:
        return limit_fds(errand->kind == LIMIT_FDS);
    default:
        n_called++;
        return 0;
    }
}

static const struct fm__server_calls server_calls = {.job = do_job,
                                                     .call = do_call};

/* ------------------------------------------------------------- in the host */

static __attribute__((unused)) fm_template *new_template(fm_engine *engine)
{
    struct fm__template_opts opts = {.fn = serve};
    fm_template *template = NULL;

    CHECK_INT(fm__template_new(engine, &opts, &template), 0);
    return template;
}

static __attribute__((unused)) fm_template *exec_template(fm_engine *engine)
{
    struct fm__template_opts opts = {.argv = served_argv};
    fm_template *template = NULL;

    CHECK_INT(fm__template_new(engine, &opts, &template), 0);
    return template;
}

static void __attribute__((unused)) let_go(fm_template *template)
{
    fm__template_close(template, FM__NS_PER_S);
    fm__template_unref(template);
}

/* A template with an engine of its own. */
static __attribute__((unused)) fm_template *begin(void)
{
    return new_template(new_engine());
}

/* Both are let go, and the template is not closed first. */
static void __attribute__((unused)) drop(fm_template *template)
{
    fm_engine *engine = template->engine;

    fm__template_unref(template);
    fm_engine_free(engine);
}

/* Both, as it should be: the template is closed first. */
static void __attribute__((unused)) end(fm_template *template)
{
    fm__template_close(template, FM__NS_PER_S);
    drop(template);
}

static fm_future *__attribute__((unused))
ask(fm_template *template, uint32_t kind, const void *data, size_t len)
{
    struct fm__errand errand = {.kind = kind, .data = data, .len = len};
    fm_future *future = NULL;

    CHECK_INT(fm__template_spawn(template, NULL, &errand, &future), 0);
    return future;
}

static void __attribute__((unused)) settle(fm_template *template)
{
    while (!fm__template_is_settled(template))
        (void)fm__engine_rest(template->engine, FM__NS_PER_S);
}

static void __attribute__((unused)) call(fm_template *template, uint32_t kind)
{
    struct fm__errand errand = {.kind = kind};

    CHECK_INT(fm__template_call(template, &errand, NULL, 0), 0);
}

/* Children that were refused at their gates. */
static void __attribute__((unused)) reap_parked(fm_engine *engine)
{
    struct fm_engine_stats stats;

    do {
        (void)fm__engine_rest(engine, FM__NS_PER_MS);
        fm_engine_get_stats(engine, &stats);
    } while (stats.parked > 0);
}

/* It is a zombie, of which nobody has heard. */
static void __attribute__((unused)) kill_unheard(pid_t pid)
{
    siginfo_t info;

    CHECK_INT(kill(pid, SIGKILL), 0);
    CHECK_INT(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

/* What comes of a job of it; the future is let go. */
static void __attribute__((unused))
check_kind(fm_template *template, fm_future *future, enum fm_kind kind)
{
    CHECK_INT(wait_for(template->engine, future)->kind, kind);
    fm_future_unref(future);
}

/* It forks nothing now, for this reason. */
static void __attribute__((unused))
check_does_not_fork(fm_template *template, int error_code)
{
    fm_future *future = ask(template, ECHO, "x", 1);
    const struct fm_outcome *outcome = wait_for(template->engine, future);

    CHECK_INT(outcome->kind, FM_SPAWN);
    CHECK_INT(outcome->error_code, error_code);
    fm_future_unref(future);
}

/* The job was not forked, for the template was killed. */
static void __attribute__((unused))
check_is_told_of_the_kill(fm_template *template, fm_future *future)
{
    const struct fm_outcome *outcome = wait_for(template->engine, future);

    CHECK_INT(outcome->kind, FM_SPAWN);
    CHECK(strstr(outcome->message, "SIGKILL") != NULL);
    fm_future_unref(future);
}

static void __attribute__((unused))
check_echo(fm_template *template, size_t len)
{
    char *data = malloc(len + 1);
    const struct fm_outcome *outcome;
    fm_future *future;

    memset(data, 'e', len + 1);
    future = ask(template, ECHO, data, len);
    outcome = wait_for(template->engine, future);
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, len);
    CHECK(len == 0 || memcmp(outcome->data, data, len) == 0);
    fm_future_unref(future);
    free(data);
}

static void __attribute__((unused)) check_pids(fm_template *template)
{
    fm_future *future = ask(template, SAY_PIDS, NULL, 0);
    const struct fm_outcome *outcome = wait_for(template->engine, future);
    int64_t says[2];

    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, sizeof says);
    memcpy(says, outcome->data, sizeof says);
    CHECK_INT(says[0], getpid());
    CHECK(outcome->pid > 0 && outcome->pid != fm__template_get_pid(template));
    fm_future_unref(future);
}

#endif

#endif
