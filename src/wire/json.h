/* SPDX-License-Identifier: MIT */
/*
 * JSON (RFC 8259), exact and locale-free.
 *
 * Integers are written without, floats always with '.' or 'e' ("1.0", "-0.0",
 * shortest digits that read back to the same bits), so that the subtype of a
 * Lua number survives.  Reading: a number without fraction and exponent that
 * fits an int64 is an integer, all others are the nearest double; a number
 * whose double would be infinite is refused.  Strings are UTF-8 (RFC 3629)
 * both ways; lone surrogates are refused.  Duplicate keys are the driver's to
 * refuse.
 *
 * A text here is a sequence of lines: each JSON value is followed by '\n',
 * an empty line is an absent value (Lua's nil), no line at all no value.
 */
#ifndef FM_WIRE_JSON_H
#define FM_WIRE_JSON_H

#include "wire/event.h"
#include "wire/sink.h"

/* The writers append one token each and know nothing of commas: the driver
 * writes those with fm__sink_write() or by hand.  All return 0 or a negative
 * code of the sink. */
int fm__json_write_integer(struct fm__sink *sink, int64_t value);
/* `value` must be finite. */
int fm__json_write_number(struct fm__sink *sink, double value);
/* With quotes and escapes.  Returns FM_EENCODE when not UTF-8; a part of it
 * may have been written then. */
int fm__json_write_string(struct fm__sink *sink, const char *data, size_t len);

struct fm__json_reader {
    const unsigned char *next, *end, *start;
    struct fm__bounds bounds; /* no default in it any more */
    size_t depth, nodes;      /* open levels, values and keys so far */
    char *scratch;            /* memory for an unescaped string */
    size_t scratch_size;
    int expect;        /* state of the grammar, json_read.c */
    int failure;       /* what failed calls return */
    const char *error; /* set when a call failed: static text */
    unsigned char stack[(FM__DEPTH_MAX + 7) / 8]; /* one bit per open level:
                                                     set for a list */
};

/* Read `len` bytes at `data`, which the caller owns and keeps until _done.
 * The text must not be shared memory: it is read more than once. */
void fm__json_reader_init(struct fm__json_reader *reader, const void *data,
                          size_t len, const struct fm__bounds *bounds);

/* The next event.  Returns 0; FM_EPROTOCOL with reader->error and the place
 * in fm__json_reader_offset() when the text is not as above; FM_ELIMIT when a
 * bound is exceeded; -ENOMEM.  A failure stays: further calls return it. */
int fm__json_reader_next(struct fm__json_reader *reader,
                         struct fm__event *ret_event);

size_t fm__json_reader_offset(const struct fm__json_reader *reader);

/* Free the scratch memory; accepts a half-read or finished reader. */
void fm__json_reader_done(struct fm__json_reader *reader);

#endif
