/* SPDX-License-Identifier: MIT */
/* Faults in calls that are ended, tried again or made by children: sweep.h. */
#include "sweep.h"

static bool is_cancelled_own(const struct fm_outcome *outcome)
{
    return outcome->kind == FM_CANCELLED;
}

static bool is_timed_out(const struct fm_outcome *outcome)
{
    return outcome->kind == FM_TIMEOUT;
}

static int fail_twice(fm_child *child, void *ud)
{
    if (fm_child_get_attempt(child) < 3)
        fm_child_exit(child, 3);
    return say_hello(child, ud);
}

static int call_from_child(fm_child *child, void *ud)
{
    fm_engine *engine = NULL;
    fm_future *future = NULL;
    const struct fm_outcome *outcome;
    int rc = fm_engine_new(NULL, &engine);

    (void)ud;
    if (rc < 0)
        return rc;
    rc = fm_spawn(engine, NULL, say_hello, NULL, &future);
    while (rc >= 0 && fm_future_get_state(future) != FM_SETTLED) {
        rc = fm_engine_step(engine, -1);
        rc = rc == -EINTR ? 0 : rc;
    }
    outcome = future ? fm_future_get_outcome(future) : NULL;
    if (outcome && outcome->kind == FM_VALUE)
        rc = fm_child_write(child, outcome->data, outcome->len);
    else if (rc >= 0)
        rc = -EIO;
    fm_future_unref(future);
    fm_engine_free(engine);
    return rc;
}

TEST(a_fault_while_a_job_is_cancelled_costs_at_most_its_outcome)
{
    static const struct scenario scenario = {.fn = hang,
                                             .is_own = is_cancelled_own,
                                             .opts = {.grace_ns = 10 * MS},
                                             .is_cancelled = true,
                                             .kinds = KINDS};

    sweep(&scenario);
}

TEST(a_fault_while_a_job_is_timed_out_costs_at_most_its_outcome)
{
    static const struct scenario scenario = {
        .fn = hang,
        .is_own = is_timed_out,
        .opts = {.timeout_ns = 2 * MS, .grace_ns = 10 * MS},
        .kinds = KINDS};

    sweep(&scenario);
}

TEST(a_fault_between_attempts_costs_at_most_the_outcome)
{
    static const struct scenario scenario = {.fn = fail_twice,
                                             .is_own = is_hello_own,
                                             .opts = {.retries = 2},
                                             .kinds =
                                                 KINDS | FM_KIND_BIT(FM_EXIT)};

    sweep(&scenario);
}

TEST(a_fault_in_a_child_of_a_child_costs_at_most_the_outcome)
{
    static const struct scenario scenario = {.fn = call_from_child,
                                             .is_own = is_hello_own,
                                             .kinds =
                                                 KINDS | FM_KIND_BIT(FM_ERROR)};

    sweep(&scenario);
}
