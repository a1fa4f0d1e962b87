/* SPDX-License-Identifier: MIT */
/*
 * The hosts whose children, or which themselves, kill_each.c kills:
 *
 *   kill_jobs small|large|captured|failing|limited|calls|many
 *
 * Each of the first five runs a job that is killed, and tells by its exit code
 * what came of it: 0 all that the job was to give, 10 that it was killed.
 * Anything else ends with 1: a part of a result, another outcome, anything left
 * behind, a next call that fails.  The other two are killed themselves.
 */
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "limited.h"

#define S INT64_C(1000000000)
#define LARGE_PIECE ((size_t)100001)
#ifdef FM_TINY
#define LARGE_PIECES 1
#else
#define LARGE_PIECES 30
#endif
#define BUSY 32
#define EXIT_KILLED 10

static _Noreturn void fail(const char *what, long long found)
{
    (void)fprintf(stderr, "kill_jobs: %s: %lld\n", what, found);
    exit(1);
}

static void check(bool is_right, const char *what, long long found)
{
    if (!is_right)
        fail(what, found);
}

/* See kill_each.c. */
static void make_mark(void)
{
    check(rename("", "") < 0, "rename", 0);
}

/* ------------------------------------------------------------------ jobs */

static int say_hello(fm_child *child, void *ud)
{
    int rc = fm_child_write(child, "hello", 5);

    (void)ud;
    make_mark();
    return rc;
}

static bool is_hello(const struct fm_outcome *outcome)
{
    return outcome->kind == FM_VALUE && outcome->len == 5 &&
           memcmp(outcome->data, "hello", 5) == 0;
}

static unsigned char byte_at(size_t i)
{
    return (unsigned char)(i % LARGE_PIECE * 7);
}

/* Several times as much as the ring holds. */
static int say_much(fm_child *child, void *ud)
{
    static unsigned char piece[LARGE_PIECE];
    int rc = 0;

    (void)ud;
    for (size_t i = 0; i < sizeof piece; i++)
        piece[i] = byte_at(i);
    for (int i = 0; rc == 0 && i < LARGE_PIECES; i++)
        rc = fm_child_write(child, piece, sizeof piece);
    make_mark();
    return rc;
}

static bool is_much(const struct fm_outcome *outcome)
{
    const unsigned char *data = outcome->data;

    if (outcome->kind != FM_VALUE || outcome->len != LARGE_PIECE * LARGE_PIECES)
        return false;
    for (size_t i = 0; i < outcome->len; i++) {
        if (data[i] != byte_at(i))
            return false;
    }
    return true;
}

static int print_and_say(fm_child *child, void *ud)
{
    (void)printf("printed\n");
    (void)fprintf(stderr, "warned\n");
    return say_hello(child, ud);
}

static bool is_printed(const struct fm_outcome *outcome)
{
    return is_hello(outcome) && outcome->output[0].len == 8 &&
           memcmp(outcome->output[0].data, "printed\n", 8) == 0 &&
           outcome->output[1].len == 7 &&
           memcmp(outcome->output[1].data, "warned\n", 7) == 0;
}

static int fail_job(fm_child *child, void *ud)
{
    int rc = fm_child_fail(child, "it failed", "here");

    (void)ud;
    if (rc == 0)
        rc = fm_child_write(child, "value", 5);
    make_mark();
    return rc;
}

static bool is_failed(const struct fm_outcome *outcome)
{
    return outcome->kind == FM_ERROR && outcome->message &&
           strcmp(outcome->message, "it failed") == 0 && outcome->traceback &&
           strcmp(outcome->traceback, "here") == 0 && outcome->len == 5 &&
           memcmp(outcome->data, "value", 5) == 0;
}

struct scenario {
    const char *name;
    fm_job_fn fn;
    bool (*is_own)(const struct fm_outcome *outcome);
    struct fm_job_opts opts;
};

static const struct scenario scenarios[] = {
    {"small", say_hello, is_hello, {0}},
    {"large", say_much, is_much, {0}},
    {"captured", print_and_say, is_printed, {.output = FM_OUTPUT_CAPTURE}},
    {"failing", fail_job, is_failed, {0}},
    {"limited", say_hello, is_hello, LIMITED_OPTS},
};

#define N_SCENARIOS (sizeof scenarios / sizeof scenarios[0])

/* -------------------------------------------------- a child that is killed */

static void count_settled(fm_future *future, void *ud)
{
    (void)future;
    ++*(int *)ud;
}

static bool was_killed(const struct fm_outcome *outcome)
{
    return outcome->kind == FM_SIGNAL && outcome->signal == SIGKILL &&
           !outcome->data && outcome->len == 0;
}

/* True when the outcome is the job's own, false when it was killed. */
static bool call(fm_engine *engine, const struct scenario *scenario)
{
    const struct fm_outcome *outcome;
    fm_future *future = NULL;
    int n_settled = 0;
    bool is_own;
    int rc = fm_spawn(engine, &scenario->opts, scenario->fn, NULL, &future);

    check(rc == 0, "fm_spawn", rc);
    rc = fm_future_on_settle(future, count_settled, &n_settled);
    check(rc == 0, "fm_future_on_settle", rc);
    while (fm_future_get_state(future) != FM_SETTLED)
        (void)fm_engine_step(engine, -1);
    while (fm_engine_step(engine, 0) > 0)
        ;
    check(n_settled == 1, "outcomes", n_settled);
    outcome = fm_future_get_outcome(future);
    is_own = scenario->is_own(outcome);
    check(is_own || was_killed(outcome), "kind", outcome->kind);
    fm_future_unref(future);
    return is_own;
}

struct stock {
    int fds, shared;
    size_t bytes;
};

/* Where the C library tells it. */
static size_t count_bytes(void)
{
#ifdef __GLIBC__
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
#else
    return 0;
#endif
}

/* Descriptors, mappings shared with children, and bytes in use. */
static struct stock take_stock(void)
{
    struct stock stock = {0, 0, 0};
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");

    check(maps != NULL, "maps", 0);
    while (fgets(line, sizeof line, maps))
        stock.shared += strstr(line, " rw-s ") != NULL;
    (void)fclose(maps);
    for (int fd = 0; fd < 1024; fd++)
        stock.fds += fcntl(fd, F_GETFD) >= 0;
    stock.bytes = count_bytes();
    return stock;
}

static fm_engine *new_engine(void)
{
    fm_engine *engine = NULL;
    int rc = fm_engine_new(NULL, &engine);

    check(rc == 0, "fm_engine_new", rc);
    return engine;
}

static int run_killed(const struct scenario *scenario)
{
    struct stock before, after;
    fm_engine *engine = new_engine();
    bool is_own;

    check(call(engine, scenario), "warm-up", 0);
    fm_engine_free(engine);
    before = take_stock();
    engine = new_engine();
    is_own = call(engine, scenario);
    check(waitpid(-1, NULL, WNOHANG) < 0, "a child is left", 0);
    check(call(engine, scenario), "the next call", 0);
    fm_engine_free(engine);
    after = take_stock();
    check(after.fds == before.fds, "descriptors", after.fds);
    check(after.shared == before.shared, "mappings", after.shared);
    check(after.bytes == before.bytes, "bytes",
          (long long)after.bytes - (long long)before.bytes);
    return is_own ? 0 : EXIT_KILLED;
}

/* --------------------------------------------------- a host that is killed */

static int ready[2];

static int be_busy(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    if (fork() == 0)
        (void)!write(ready[1], "x", 1);
    for (volatile unsigned long i = 0;; i++)
        ;
    return 0;
}

static void wait_for(fm_engine *engine, const fm_future *future)
{
    while (fm_future_get_state(future) != FM_SETTLED)
        (void)fm_engine_step(engine, -1);
}

/* Every kind of call, some cancelled, and an engine that is closed over one
 * that runs. */
static int run_calls(void)
{
    struct fm_job_opts opts = {.grace_ns = -1};
    fm_future *futures[3];
    fm_engine *engine;

    make_mark();
    engine = new_engine();
    for (size_t i = 0; i < N_SCENARIOS; i++)
        check(call(engine, &scenarios[i]), scenarios[i].name, 0);
    for (int i = 0; i < 3; i++)
        check(fm_spawn(engine, &opts, be_busy, NULL, &futures[i]) == 0,
              "fm_spawn", i);
    check(fm_future_cancel(futures[0], 0) == 1, "fm_future_cancel", 0);
    check(fm_future_cancel(futures[1], S / 100) == 1, "fm_future_cancel", 1);
    wait_for(engine, futures[0]);
    wait_for(engine, futures[1]);
    check(fm_engine_close(engine, 0) == 0, "fm_engine_close", 0);
    for (int i = 0; i < 3; i++)
        fm_future_unref(futures[i]);
    fm_engine_free(engine);
    return 0;
}

/* As many busy children as can be, with children of their own.  Leaves them
 * all behind when nobody kills it before. */
static int run_many(void)
{
    struct fm_engine_opts engine_opts = {.max_children = BUSY};
    struct fm_job_opts opts = {.nice = 19};
    fm_future *futures[BUSY];
    fm_engine *engine = NULL;
    char c;

    make_mark();
    check(fm_engine_new(&engine_opts, &engine) == 0, "fm_engine_new", 0);
    for (int i = 0; i < BUSY; i++)
        check(fm_spawn(engine, &opts, be_busy, NULL, &futures[i]) == 0,
              "fm_spawn", i);
    for (int i = 0; i < BUSY; i++)
        check(read(ready[0], &c, 1) == 1, "read", i);
    (void)fm_engine_step(engine, S / 1000);
    check(fm_future_cancel(futures[0], 0) == 1, "fm_future_cancel", 0);
    wait_for(engine, futures[0]);
    _exit(0);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    check(pipe(ready) == 0, "pipe", 0);
    if (strcmp(name, "calls") == 0)
        return run_calls();
    if (strcmp(name, "many") == 0)
        return run_many();
    for (size_t i = 0; i < N_SCENARIOS; i++) {
        if (strcmp(name, scenarios[i].name) == 0)
            return run_killed(&scenarios[i]);
    }
    fail("no such scenario", 0);
}
