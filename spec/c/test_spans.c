/* SPDX-License-Identifier: MIT */
/* Sets of item numbers, against a set of bits, with memory and without. */
#include "test.h"

#include "engine/spans.h"
#include "faults.h"

#define ITEMS 300

static unsigned char bits[ITEMS];
static struct fm__spans spans;
static uint64_t random_state = 1;

static uint64_t draw(uint64_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1;
    return (random_state >> 33) % below;
}

/* Sorted, apart, and the same items as the bits. */
static void check_same(void)
{
    uint64_t count = 0, at = 0;

    CHECK(spans.n <= spans.size);
    for (size_t i = 0; i < spans.n; i++) {
        struct fm__range range = spans.ranges[i];

        CHECK(range.first < range.end && range.end <= ITEMS);
        CHECK(i == 0 || range.first > spans.ranges[i - 1].end);
        for (; at < range.first; at++)
            CHECK(!bits[at]);
        for (; at < range.end; at++)
            CHECK(bits[at]);
        count += range.end - range.first;
    }
    for (; at < ITEMS; at++)
        CHECK(!bits[at]);
    CHECK_INT(spans.count, count);
}

static struct fm__range draw_range(void)
{
    uint64_t first = draw(ITEMS);
    uint64_t most = ITEMS - first < 20 ? ITEMS - first : 20;

    return (struct fm__range){first, first + draw(most + 1)};
}

static bool are_all(struct fm__range range, unsigned char bit)
{
    for (uint64_t i = range.first; i < range.end; i++) {
        if (bits[i] != bit)
            return false;
    }
    return true;
}

static void set_all(struct fm__range range, unsigned char bit)
{
    memset(bits + range.first, bit, range.end - range.first);
}

static void add(struct fm__range range)
{
    int rc;

    if (!are_all(range, 0))
        return;
    rc = fm__spans_add(&spans, range);
    CHECK(rc == 0 || rc == -ENOMEM);
    if (rc == 0)
        set_all(range, 1);
}

static void take(struct fm__range range)
{
    int rc = fm__spans_take(&spans, range);
    bool is_there = are_all(range, 1);

    CHECK(rc == is_there || (is_there && rc == -ENOMEM));
    if (rc == 1)
        set_all(range, 0);
}

static void step(void)
{
    struct fm__range first;

    if (draw(2))
        add(draw_range());
    else
        take(draw_range());
    check_same();
    CHECK_INT(fm__spans_first(&spans, &first), spans.n > 0);
    if (spans.n > 0)
        CHECK(first.first == spans.ranges[0].first &&
              first.end == spans.ranges[0].end);
}

TEST(spans_are_a_set)
{
    for (int i = 0; i < 100000; i++)
        step();
    CHECK(spans.count > 0);
    fm__spans_done(&spans);
    fm__spans_done(&spans);
    CHECK_INT(spans.n + spans.size + spans.count, 0);
}

/* Every other allocation fails; nothing is changed by a call that does. */
TEST(spans_without_memory_are_as_before)
{
    fault_install();
    for (int i = 0; i < 3000; i++) {
        struct fault next = {.call = FAULT_realloc,
                             .error = ENOMEM,
                             .k = 1 + draw(2),
                             .is_sticky = true};

        memset(bits, 0, sizeof bits);
        fault_arm(&next);
        for (int k = 0; k < 60; k++)
            step();
        fault_disarm();
        fm__spans_done(&spans);
    }
    CHECK_INT(fault_blocks, 0);
    fm__sys = fm__sys_real;
    (void)munmap(fault_page, sizeof *fault_page);
}

/* What was reserved is there, however the calls fall. */
TEST(spans_reserve_what_the_next_calls_need)
{
    fault_install();
    for (int i = 0; i < 3000; i++) {
        struct fault next = {
            .call = FAULT_realloc, .error = ENOMEM, .k = 1, .is_sticky = true};

        memset(bits, 0, sizeof bits);
        CHECK_INT(fm__spans_add(&spans, (struct fm__range){0, ITEMS / 2}), 0);
        set_all((struct fm__range){0, ITEMS / 2}, 1);
        for (uint64_t k = draw(30); k > 0; k--)
            step();
        CHECK_INT(fm__spans_reserve(&spans, 50), 0);
        fault_arm(&next);
        for (int k = 0; k < 50; k++)
            step();
        CHECK(!fault_page->reached);
        fault_disarm();
        fm__spans_done(&spans);
    }
    fm__sys = fm__sys_real;
    (void)munmap(fault_page, sizeof *fault_page);
}

TEST(spans_hold_the_largest_numbers)
{
    struct fm__range all = {0, UINT64_C(1) << 40}, first;
    struct fm__range middle = {UINT64_C(1) << 39, (UINT64_C(1) << 39) + 1};

    CHECK_INT(fm__spans_add(&spans, all), 0);
    CHECK_INT(fm__spans_take(&spans, middle), 1);
    CHECK_INT(fm__spans_take(&spans, middle), 0);
    CHECK_INT(spans.count, (UINT64_C(1) << 40) - 1);
    CHECK_INT(fm__spans_add(&spans, middle), 0);
    CHECK_INT(spans.n, 1);
    CHECK(fm__spans_first(&spans, &first));
    CHECK(first.first == all.first && first.end == all.end);
    fm__spans_done(&spans);
}
