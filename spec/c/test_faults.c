/* SPDX-License-Identifier: MIT */
/* Faults in calls that come to their end: see sweep.h. */
#include "limited.h"
#include "sweep.h"

static int n_lines;

static int print_line(fm_child *child, void *ud)
{
    (void)printf("one\ntwo\n");
    return say_hello(child, ud);
}

static void count_line(int stream, const char *line, size_t len, void *ud)
{
    (void)stream;
    (void)line;
    (void)len;
    (void)ud;
    n_lines++;
}

/* A pipe that cannot be read any more is not one of the faults that there are:
 * what was in it is lost. */
static bool is_printed(const struct fm_outcome *outcome)
{
    const struct fm_captured *printed = &outcome->output[0];

    if (!is_hello_own(outcome) || fault.error == EIO)
        return is_hello_own(outcome);
    return printed->len + printed->dropped == 8 &&
           memcmp(printed->data, "one\ntwo\n" + printed->dropped,
                  printed->len) == 0;
}

static bool has_heard_lines(const struct fm_outcome *outcome)
{
    bool has_heard = n_lines >= 2 || fault.error == EIO;

    n_lines = 0;
    return is_hello_own(outcome) && has_heard;
}

TEST(a_fault_in_a_plain_call_costs_at_most_its_outcome)
{
    sweep(&plain);
}

/* Where a ring holds next to nothing, each of many waits would time out. */
#ifndef FM_TINY
static int say_3mb(fm_child *child, void *ud)
{
    int n = 30;

    (void)ud;
    return say_much(child, &n);
}

static bool is_3mb(const struct fm_outcome *outcome)
{
    const unsigned char *data = outcome->data;

    if (outcome->kind != FM_VALUE || outcome->len != (size_t)30 * 100001)
        return false;
    for (size_t i = 0; i < outcome->len; i++) {
        if (data[i] != (unsigned char)(i % 100001 * 7))
            return false;
    }
    return true;
}

TEST(a_fault_while_a_large_result_comes_costs_at_most_its_outcome)
{
    static const struct scenario scenario = {
        .fn = say_3mb, .is_own = is_3mb, .kinds = KINDS | FM_KIND_BIT(FM_EXIT)};

    sweep(&scenario);
}
#endif

TEST(a_fault_while_output_is_captured_costs_at_most_its_outcome)
{
    static const struct scenario scenario = {
        .fn = print_line,
        .is_own = is_printed,
        .opts = {.output = FM_OUTPUT_CAPTURE},
        .kinds = KINDS | FM_KIND_BIT(FM_SIGNAL)};

    sweep(&scenario);
}

TEST(a_fault_while_lines_are_heard_costs_at_most_its_outcome)
{
    static const struct scenario scenario = {
        .fn = print_line,
        .is_own = has_heard_lines,
        .opts = {.output = FM_OUTPUT_LINES, .on_line = count_line},
        .is_polled = true,
        .kinds = KINDS | FM_KIND_BIT(FM_SIGNAL)};

    sweep(&scenario);
}

TEST(a_fault_under_limits_costs_at_most_its_outcome)
{
    static const struct scenario scenario = {.fn = say_hello,
                                             .is_own = is_hello_own,
                                             .opts = LIMITED_OPTS,
                                             .kinds = KINDS};

    sweep(&scenario);
}
