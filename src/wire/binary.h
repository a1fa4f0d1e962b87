/* SPDX-License-Identifier: MIT */
/*
 * The binary form of Lua's data values: exact, compact, made to be written in
 * one pass and read without surprises.  All numbers are little-endian.
 *
 *   text     version(1)  varint n  value*n  flags(1)
 *   value    00..7f      the integer 0..127
 *            80..bf      a string of 0..63 bytes, which follow
 *            c0 c1 c2 c3 nil, false, true, null
 *            c4 c5 c6 c7 an integer of 1, 2, 4, 8 bytes, two's complement
 *            c8          a float: the 8 bytes of a binary64, NaNs as they are
 *            c9          varint length, a string
 *            ca          varint n, items for n slots of a list from 1 up (nil
 *                        is a hole), varint k, k pairs of key and value
 *            cb          varint k, k pairs: a table without a list
 *            cc          varint i: the i-th table begun in the text, from 0
 *            ce cf       an empty table, one that is marked as a list
 *            e0..ff      the integer -32..-1
 *   item     a value, or a run of numbers that fills n slots:
 *            cd          varint n > 0, n floats
 *            d0 d1 d2 d3 varint n > 0, n integers of 1, 2, 4, 8 bytes each
 *   key      00..3f      the string that this slot holds
 *            40..7f      varint length, a string, which is put in slot 0..63
 *            80..ff      a value as above, but no nil
 *   varint   7 bits a byte, lowest first, the last byte below 80
 *   flags    what a reader has to remember, bit 0: tables, for references; bit
 *            1: keys, since slots are used again; all other bits 0
 *
 * The length of a text is not in it: whoever carries texts knows it.
 */
#ifndef FM_WIRE_BINARY_H
#define FM_WIRE_BINARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "wire/event.h"
#include "wire/sink.h"

#define FM__BINARY_VERSION 1
#define FM__BINARY_SLOTS 64

/* Bits of the last byte. */
#define FM__BINARY_REFERENCES 1u
#define FM__BINARY_KEYS 2u

/* The most numbers in one run. */
#define FM__BINARY_RUN 256

/* The writers append one piece each and trust the driver to follow the grammar.
 * All return 0 or a negative code of the sink. */
int fm__binary_write_begin(struct fm__sink *sink, size_t n);
int fm__binary_write_end(struct fm__sink *sink, unsigned flags);
int fm__binary_write_nil(struct fm__sink *sink);
int fm__binary_write_null(struct fm__sink *sink);
int fm__binary_write_boolean(struct fm__sink *sink, bool value);
int fm__binary_write_integer(struct fm__sink *sink, int64_t value);
int fm__binary_write_number(struct fm__sink *sink, double value);
int fm__binary_write_string(struct fm__sink *sink, const char *data,
                            size_t len);
int fm__binary_write_empty(struct fm__sink *sink, bool is_list);
/* Followed by `n` slots of items, _write_keys() and its pairs. */
int fm__binary_write_list(struct fm__sink *sink, size_t n);
int fm__binary_write_keys(struct fm__sink *sink, size_t n);
/* Followed by `n` pairs. */
int fm__binary_write_table(struct fm__sink *sink, size_t n);
int fm__binary_write_reference(struct fm__sink *sink, size_t index);
/* Items: 1 <= n <= FM__BINARY_RUN numbers, the integers in the narrowest width
 * that holds them all. */
int fm__binary_write_integers(struct fm__sink *sink, const int64_t *values,
                              size_t n);
int fm__binary_write_numbers(struct fm__sink *sink, const double *values,
                             size_t n);
/* Keys; those of other types are written as values. */
int fm__binary_write_key_again(struct fm__sink *sink, unsigned slot);
int fm__binary_write_key(struct fm__sink *sink, unsigned slot, const char *data,
                         size_t len);
int fm__binary_write_key_integer(struct fm__sink *sink, int64_t value);

/* An open list or table. */
struct fm__binary_level {
    size_t items;   /* slots of the list still to come */
    size_t pairs;   /* pairs still to come, the one begun included */
    bool has_count; /* false: after the items, the number of pairs comes */
    bool in_pair;   /* its key has come, its value has not */
};

struct fm__binary_reader {
    const unsigned char *next, *end; /* `end`: of the values, at the flags */
    const unsigned char *start;
    unsigned flags;
    struct fm__bounds bounds;
    size_t values;   /* values of the text still to come */
    size_t promised; /* least bytes that all begun things still need */
    size_t depth, nodes, tables;
    const char *error; /* set when a call failed: static text */
    struct fm__binary_level levels[FM__DEPTH_MAX];
};

/* Read `len` bytes at `data`, which the caller owns and keeps.  Reads the head
 * at once and allocates nothing.  bounds->depth is at most FM__DEPTH_MAX.
 *
 * After success reader->values is the number of values to come, and
 * reader->flags says what there will be.  Returns 0, or
 * FM_EPROTOCOL and reader->error. */
int fm__binary_reader_init(struct fm__binary_reader *reader, const void *data,
                           size_t len, const struct fm__bounds *bounds);

/* The next event.  For a list u.open.n_list is its exact length and n_keys 0;
 * its items come first (a run is one event for several), then its pairs.  For
 * a table n_keys is exact.  The remaining bytes can hold what these counts
 * promise, over all that is open.  A pair is a key, which is FM__EVENT_KEY,
 * FM__EVENT_KEY_AGAIN or the event of a value, and a value.
 *
 * Neither nil nor a NaN nor a float of integral value is said as a key, and
 * references are to tables that were begun.  Duplicate keys, and slots that
 * hold nothing, are the driver's to refuse.
 *
 * Returns 0, FM_EPROTOCOL, or FM_ELIMIT when a bound is exceeded.  After a
 * failure it must not be called again. */
int fm__binary_reader_next(struct fm__binary_reader *reader,
                           struct fm__event *ret_event);

size_t fm__binary_reader_offset(const struct fm__binary_reader *reader);

/* The unsigned number of `width` <= 8 bytes at `p`.  Compilers make one load of
 * it where `width` is constant. */
static inline uint64_t fm__binary_load(const unsigned char *p, unsigned width)
{
    uint64_t value = 0;
    unsigned i;

    for (i = 0; i < width; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

/* The same, signed. */
static inline int64_t fm__binary_load_signed(const unsigned char *p,
                                             unsigned width)
{
    switch (width) {
    case 1:
        return (int8_t)p[0];
    case 2:
        return (int16_t)fm__binary_load(p, 2);
    case 4:
        return (int32_t)fm__binary_load(p, 4);
    default:
        return (int64_t)fm__binary_load(p, 8);
    }
}

static inline double fm__binary_load_number(const unsigned char *p)
{
    uint64_t bits = fm__binary_load(p, 8);
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
