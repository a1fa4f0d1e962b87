/* SPDX-License-Identifier: MIT */
/* The writer of the binary codec; the grammar is in binary.h. */
#include "wire/binary.h"

#include <string.h>
#include "wire/binary_tags.h"

/* Strings shorter than this have their length in the tag. */
#define SHORT_STRING (TAG_STRING_END - TAG_STRING)

static unsigned char *put_varint(unsigned char *p, uint64_t value)
{
    while (value >= 0x80) {
        *p++ = (unsigned char)(value | 0x80);
        value >>= 7;
    }
    *p++ = (unsigned char)value;
    return p;
}

static void store(unsigned char *p, uint64_t value, unsigned width)
{
    unsigned i;

    for (i = 0; i < width; i++)
        p[i] = (unsigned char)(value >> (8 * i));
}

static int write_byte(struct fm__sink *sink, unsigned byte)
{
    int rc = fm__sink_room(sink);

    if (rc < 0)
        return rc;
    *sink->next++ = (unsigned char)byte;
    return 0;
}

static int write_counted(struct fm__sink *sink, unsigned tag, uint64_t count)
{
    int rc = fm__sink_room(sink);

    if (rc < 0)
        return rc;
    *sink->next++ = (unsigned char)tag;
    sink->next = put_varint(sink->next, count);
    return 0;
}

int fm__binary_write_begin(struct fm__sink *sink, size_t n)
{
    return write_counted(sink, FM__BINARY_VERSION, n);
}

int fm__binary_write_end(struct fm__sink *sink, unsigned flags)
{
    return write_byte(sink, flags);
}

int fm__binary_write_nil(struct fm__sink *sink)
{
    return write_byte(sink, TAG_NIL);
}

int fm__binary_write_null(struct fm__sink *sink)
{
    return write_byte(sink, TAG_NULL);
}

int fm__binary_write_boolean(struct fm__sink *sink, bool value)
{
    return write_byte(sink, value ? TAG_TRUE : TAG_FALSE);
}

/* An integer that no one-byte tag says, or that stands for a key. */
static int write_wide(struct fm__sink *sink, int64_t value)
{
    uint64_t bits = (uint64_t)value;
    int rc = fm__sink_room(sink);

    if (rc < 0)
        return rc;
    if (value >= INT8_MIN && value <= INT8_MAX) {
        *sink->next++ = TAG_INTEGER1;
        *sink->next++ = (unsigned char)bits;
    } else if (value >= INT16_MIN && value <= INT16_MAX) {
        *sink->next++ = TAG_INTEGER2;
        store(sink->next, bits, 2);
        sink->next += 2;
    } else if (value >= INT32_MIN && value <= INT32_MAX) {
        *sink->next++ = TAG_INTEGER4;
        store(sink->next, bits, 4);
        sink->next += 4;
    } else {
        *sink->next++ = TAG_INTEGER8;
        store(sink->next, bits, 8);
        sink->next += 8;
    }
    return 0;
}

int fm__binary_write_integer(struct fm__sink *sink, int64_t value)
{
    if (value >= -32 && value < TAG_INTEGER_END)
        return write_byte(sink, (unsigned)value & 0xff);
    return write_wide(sink, value);
}

int fm__binary_write_number(struct fm__sink *sink, double value)
{
    uint64_t bits;
    int rc = fm__sink_room(sink);

    if (rc < 0)
        return rc;
    memcpy(&bits, &value, sizeof bits);
    *sink->next++ = TAG_NUMBER;
    store(sink->next, bits, 8);
    sink->next += 8;
    return 0;
}

/* Append the bytes of a string whose head was just written. */
static int write_bytes(struct fm__sink *sink, const char *data, size_t len)
{
    if (len <= (size_t)(sink->end - sink->next)) {
        if (len > 0)
            memcpy(sink->next, data, len);
        sink->next += len;
        return 0;
    }
    return fm__sink_write(sink, data, len);
}

int fm__binary_write_string(struct fm__sink *sink, const char *data, size_t len)
{
    int rc = len < SHORT_STRING ? write_byte(sink, TAG_STRING + (unsigned)len)
                                : write_counted(sink, TAG_LONG_STRING, len);

    return rc < 0 ? rc : write_bytes(sink, data, len);
}

int fm__binary_write_empty(struct fm__sink *sink, bool is_list)
{
    return write_byte(sink, is_list ? TAG_EMPTY_LIST : TAG_EMPTY);
}

int fm__binary_write_list(struct fm__sink *sink, size_t n)
{
    return write_counted(sink, TAG_LIST, n);
}

int fm__binary_write_keys(struct fm__sink *sink, size_t n)
{
    int rc = fm__sink_room(sink);

    if (rc < 0)
        return rc;
    sink->next = put_varint(sink->next, n);
    return 0;
}

int fm__binary_write_table(struct fm__sink *sink, size_t n)
{
    return write_counted(sink, TAG_TABLE, n);
}

int fm__binary_write_reference(struct fm__sink *sink, size_t index)
{
    return write_counted(sink, TAG_REFERENCE, index);
}

int fm__binary_write_integers(struct fm__sink *sink, const int64_t *values,
                              size_t n)
{
    unsigned char packed[FM__BINARY_RUN * 8];
    unsigned shift = 0, width;
    uint64_t bits = 0; /* what any value needs beside its sign */
    size_t i;
    int rc;

    for (i = 0; i < n; i++)
        bits |= (uint64_t)(values[i] < 0 ? ~values[i] : values[i]);
    while (shift < 3 && bits >> ((8u << shift) - 1) != 0)
        shift++;
    width = 1u << shift;
    for (i = 0; i < n; i++)
        store(packed + i * width, (uint64_t)values[i], width);
    rc = write_counted(sink, TAG_INTEGERS1 + shift, n);
    return rc < 0 ? rc : fm__sink_write(sink, packed, n * width);
}

int fm__binary_write_numbers(struct fm__sink *sink, const double *values,
                             size_t n)
{
    unsigned char packed[FM__BINARY_RUN * 8];
    size_t i;
    int rc;

    for (i = 0; i < n; i++) {
        uint64_t bits;

        memcpy(&bits, &values[i], sizeof bits);
        store(packed + i * 8, bits, 8);
    }
    rc = write_counted(sink, TAG_NUMBERS, n);
    return rc < 0 ? rc : fm__sink_write(sink, packed, n * 8);
}

int fm__binary_write_key_again(struct fm__sink *sink, unsigned slot)
{
    return write_byte(sink, KEY_AGAIN + slot);
}

int fm__binary_write_key(struct fm__sink *sink, unsigned slot, const char *data,
                         size_t len)
{
    int rc = write_counted(sink, KEY_NEW + slot, len);

    return rc < 0 ? rc : write_bytes(sink, data, len);
}

int fm__binary_write_key_integer(struct fm__sink *sink, int64_t value)
{
    return write_wide(sink, value);
}
