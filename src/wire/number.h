/* SPDX-License-Identifier: MIT */
/*
 * Numbers to text and back: exact, independent of the locale and of the
 * floating-point rounding mode, without allocation.
 */
#ifndef FM_WIRE_NUMBER_H
#define FM_WIRE_NUMBER_H

#include <stddef.h>
#include <stdint.h>

/* Longest texts: "-9223372036854775808", "-1.2345678901234567e-308". */
#define FM__INTEGER_SIZE 20
#define FM__NUMBER_SIZE 24
/* Bytes at `to` that the two formatters may overwrite. */
#define FM__NUMBER_ROOM 40

/* Write decimal digits to `to`, without a final zero.  Returns the length. */
size_t fm__integer_format(int64_t value, char to[FM__NUMBER_ROOM]);

/*
 * Write the shortest decimal that reads back to the same bits, and of those
 * the nearest to `value`; always with '.' or 'e' ("1.0", "-0.0", "5e-324").
 * `value` must be finite.  Returns the length, at most FM__NUMBER_SIZE.
 */
size_t fm__number_format(double value, char to[FM__NUMBER_ROOM]);

enum fm__number_type {
    FM__NUMBER_NONE,    /* no JSON number begins here, or not a whole one */
    FM__NUMBER_INTEGER, /* no fraction, no exponent, fits: u.integer */
    FM__NUMBER_FLOAT,   /* the nearest double, ties to even: u.number */
    FM__NUMBER_INFINITE /* the nearest double would be infinite */
};

struct fm__number {
    enum fm__number_type type;
    const unsigned char *end; /* behind the number, or at the offence */
    union {
        int64_t integer;
        double number;
    } u;
};

/*
 * Read the longest JSON number (RFC 8259) that begins at `p`.  Of any length;
 * a text that has no end would be read past: there must be a byte in [p, end)
 * that cannot be part of a number.
 */
struct fm__number fm__number_read(const unsigned char *p,
                                  const unsigned char *end);

#endif
