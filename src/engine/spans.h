/* SPDX-License-Identifier: MIT */
/*
 * A set of item numbers, kept as sorted ranges that do not touch.
 *
 * It is what the ledger of a map has not given to anybody.  Most of the time it
 * is one range, so memory and time depend on how many holes there are, not on
 * how many items.
 */
#ifndef FM_ENGINE_SPANS_H
#define FM_ENGINE_SPANS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Items from `first` up to, not including, `end`. */
struct fm__range {
    uint64_t first, end;
};

struct fm__spans {
    struct fm__range *ranges; /* NULL while size is 0 */
    size_t n, size;
    uint64_t count; /* items in all of them */
};

#define FM__SPANS_INIT                                                         \
    {                                                                          \
        NULL, 0, 0, 0                                                          \
    }

/* Free the memory; the set is empty then.  May be repeated. */
void fm__spans_done(struct fm__spans *spans);

/* Ensure that the next `n` calls of _add and _take need no memory.  0 or
 * -ENOMEM. */
int fm__spans_reserve(struct fm__spans *spans, size_t n);

/* Add items, of which none is in the set.  0, or -ENOMEM with nothing
 * changed. */
int fm__spans_add(struct fm__spans *spans, struct fm__range range);

/* Take items out: all of them or, when one is not there, none.  1, 0 or
 * -ENOMEM with nothing changed. */
int fm__spans_take(struct fm__spans *spans, struct fm__range range);

/* The first range; false when the set is empty. */
bool fm__spans_first(const struct fm__spans *spans, struct fm__range *ret);

#endif
