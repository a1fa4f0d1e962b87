/* SPDX-License-Identifier: MIT */
/* A set of item numbers; see spans.h. */
#include "engine/spans.h"

#include <errno.h>
#include <string.h>

#include "os/sys.h"

#define SIZE_LEAST 8

void fm__spans_done(struct fm__spans *spans)
{
    fm__sys.free(spans->ranges);
    *spans = (struct fm__spans)FM__SPANS_INIT;
}

int fm__spans_reserve(struct fm__spans *spans, size_t n)
{
    size_t size = spans->size < SIZE_LEAST ? SIZE_LEAST : spans->size;
    struct fm__range *ranges;

    /* Each call makes one range more at most. */
    while (size < spans->n + n)
        size *= 2;
    if (size == spans->size)
        return 0;
    ranges = fm__sys.realloc(spans->ranges, size * sizeof *ranges);
    if (!ranges)
        return -ENOMEM;
    spans->ranges = ranges;
    spans->size = size;
    return 0;
}

/* The first range that ends behind `item`, or n. */
static size_t find(const struct fm__spans *spans, uint64_t item)
{
    size_t low = 0, high = spans->n;

    /* Most of what is asked for is at the front. */
    if (high > 0 && spans->ranges[0].end > item)
        return 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (spans->ranges[middle].end > item)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void insert(struct fm__spans *spans, size_t i, struct fm__range range)
{
    memmove(spans->ranges + i + 1, spans->ranges + i,
            (spans->n - i) * sizeof range);
    spans->ranges[i] = range;
    spans->n++;
}

static void erase(struct fm__spans *spans, size_t i)
{
    spans->n--;
    memmove(spans->ranges + i, spans->ranges + i + 1,
            (spans->n - i) * sizeof *spans->ranges);
}

int fm__spans_add(struct fm__spans *spans, struct fm__range range)
{
    struct fm__range *ranges;
    bool joins_before, joins_after;
    size_t i;
    int rc;

    if (range.first >= range.end)
        return 0;
    rc = fm__spans_reserve(spans, 1);
    if (rc < 0)
        return rc;
    i = find(spans, range.first);
    ranges = spans->ranges;
    joins_before = i > 0 && ranges[i - 1].end == range.first;
    joins_after = i < spans->n && ranges[i].first == range.end;
    if (joins_before && joins_after) {
        ranges[i - 1].end = ranges[i].end;
        erase(spans, i);
    } else if (joins_before) {
        ranges[i - 1].end = range.end;
    } else if (joins_after) {
        ranges[i].first = range.first;
    } else {
        insert(spans, i, range);
    }
    spans->count += range.end - range.first;
    return 0;
}

int fm__spans_take(struct fm__spans *spans, struct fm__range range)
{
    struct fm__range rest;
    size_t i;
    int rc;

    if (range.first >= range.end)
        return 1;
    i = find(spans, range.first);
    if (i == spans->n || spans->ranges[i].first > range.first ||
        spans->ranges[i].end < range.end)
        return 0;
    rest = (struct fm__range){range.end, spans->ranges[i].end};
    if (spans->ranges[i].first == range.first) {
        spans->ranges[i].first = range.end;
        if (rest.first == rest.end)
            erase(spans, i);
    } else {
        rc = fm__spans_reserve(spans, 1);
        if (rc < 0)
            return rc;
        spans->ranges[i].end = range.first;
        if (rest.first < rest.end)
            insert(spans, i + 1, rest);
    }
    spans->count -= range.end - range.first;
    return 1;
}

bool fm__spans_first(const struct fm__spans *spans, struct fm__range *ret)
{
    if (spans->n == 0)
        return false;
    *ret = spans->ranges[0];
    return true;
}
