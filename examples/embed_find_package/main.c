/* SPDX-License-Identifier: MIT */
/*
 * A host with a loop of its own: it counts primes in two children, and a third
 * one crashes.  The loop waits for the engine's one descriptor, as it would
 * for a socket, and hears of each job as it settles.
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <fork_map.h>

struct range {
    const char *name;
    uint32_t from, to;
};

static bool is_prime(uint32_t n)
{
    for (uint32_t i = 2; i * i <= n; i++) {
        if (n % i == 0)
            return false;
    }
    return n >= 2;
}

/* Runs in the child: `ud` is there as it was at the fork. */
static int count_primes(fm_child *child, void *ud)
{
    const struct range *range = ud;
    uint64_t n = 0;

    for (uint32_t i = range->from; i < range->to; i++)
        n += is_prime(i);
    return fm_child_write(child, &n, sizeof n);
}

static int crash(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    return raise(SIGSEGV);
}

/* Runs here, from fm_engine_step(). */
static void report(fm_future *future, void *ud)
{
    const struct fm_outcome *outcome = fm_future_get_outcome(future);
    uint64_t n;

    (void)ud;
    if (outcome->kind == FM_VALUE && outcome->len == sizeof n) {
        memcpy(&n, outcome->data, sizeof n);
        (void)printf("%s: %" PRIu64 " primes\n", outcome->name, n);
    } else {
        (void)printf("%s: %s, %s\n", outcome->name, fm_kind_name(outcome->kind),
                     outcome->message);
    }
    fm_future_unref(future); /* the reference that start() kept */
}

static int start(fm_engine *engine, fm_job_fn fn, struct range *range)
{
    struct fm_job_opts opts = {.name = range->name,
                               .timeout_ns = INT64_C(60) * 1000000000};
    fm_future *future;
    int rc = fm_spawn(engine, &opts, fn, range, &future);

    if (rc < 0)
        return rc;
    rc = fm_future_on_settle(future, report, NULL);
    if (rc < 0)
        fm_future_unref(future);
    return rc;
}

/* The host's loop: until every job has settled. */
static int loop(fm_engine *engine, uint64_t n_jobs)
{
    struct fm_engine_stats stats = {0};

    while (stats.settled < n_jobs) {
        struct pollfd host = {.fd = fm_engine_fd(engine), .events = POLLIN};
        int rc;

        if (host.fd >= 0)
            (void)poll(&host, 1, -1); /* and the host's own descriptors */
        rc = fm_engine_step(engine, host.fd >= 0 ? 0 : -1);
        if (rc < 0)
            return rc;
        fm_engine_get_stats(engine, &stats);
    }
    return 0;
}

int main(void)
{
    struct range low = {"below 100000", 0, 100000};
    struct range high = {"below 200000", 100000, 200000};
    struct range none = {"the crash", 0, 0};
    fm_engine *engine;
    int rc = fm_engine_new(NULL, &engine);

    if (rc < 0) {
        (void)fprintf(stderr, "fork_map: %s\n", fm_strerror(rc));
        return 1;
    }
    rc = start(engine, count_primes, &low);
    if (rc == 0)
        rc = start(engine, count_primes, &high);
    if (rc == 0)
        rc = start(engine, crash, &none);
    if (rc == 0)
        rc = loop(engine, 3);
    if (rc < 0)
        (void)fprintf(stderr, "fork_map: %s\n", fm_strerror(rc));
    fm_engine_free(engine);
    return rc < 0;
}
