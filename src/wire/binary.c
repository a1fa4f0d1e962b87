/* SPDX-License-Identifier: MIT */
/* The reader of the binary codec; the grammar is in binary.h. */
#include "wire/binary.h"

#include <string.h>
#include "fork_map.h"
#include "wire/binary_tags.h"

#define VARINT_MAX 10 /* bytes */

static int malformed(struct fm__binary_reader *reader, const char *error)
{
    reader->error = error;
    return FM_EPROTOCOL;
}

static int exceeded(struct fm__binary_reader *reader, const char *error)
{
    reader->error = error;
    return FM_ELIMIT;
}

static int cut_short(struct fm__binary_reader *reader)
{
    return malformed(reader, "the text is cut short");
}

static size_t remaining(const struct fm__binary_reader *reader)
{
    return (size_t)(reader->end - reader->next);
}

static int read_varint(struct fm__binary_reader *reader, size_t *ret_value)
{
    uint64_t value = 0;
    unsigned shift;

    for (shift = 0; shift < 7 * VARINT_MAX; shift += 7) {
        unsigned byte;

        if (reader->next == reader->end)
            return cut_short(reader);
        byte = *reader->next++;
        if (shift == 63 && byte > 1)
            break;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            if (value > SIZE_MAX)
                break;
            *ret_value = (size_t)value;
            return 0;
        }
    }
    return malformed(reader, "a number of more than 64 bits");
}

/* Read a count of things of at least `least` bytes each, which the rest of the
 * text must have room for, beside all that was promised before. */
static int read_count(struct fm__binary_reader *reader, size_t least,
                      size_t *ret_n)
{
    size_t n, room;
    int rc = read_varint(reader, &n);

    if (rc < 0)
        return rc;
    room = remaining(reader);
    if (reader->promised > room)
        return cut_short(reader);
    room -= reader->promised;
    if (n > room / least)
        return malformed(reader, "a count that the text cannot hold");
    reader->promised += n * least;
    *ret_n = n;
    return 0;
}

static int read_string(struct fm__binary_reader *reader, size_t len,
                       struct fm__event *event)
{
    if (len > remaining(reader))
        return cut_short(reader);
    event->u.string.data = (const char *)reader->next;
    event->u.string.len = len;
    reader->next += len;
    return 0;
}

static int read_integer(struct fm__binary_reader *reader, unsigned width,
                        struct fm__event *event)
{
    if (width > remaining(reader))
        return cut_short(reader);
    event->type = FM__EVENT_INTEGER;
    event->u.integer = fm__binary_load_signed(reader->next, width);
    reader->next += width;
    return 0;
}

static int read_number(struct fm__binary_reader *reader,
                       struct fm__event *event)
{
    if (remaining(reader) < 8)
        return cut_short(reader);
    event->type = FM__EVENT_NUMBER;
    event->u.number = fm__binary_load_number(reader->next);
    reader->next += 8;
    return 0;
}

static int read_long_string(struct fm__binary_reader *reader,
                            struct fm__event *event)
{
    size_t len;
    int rc = read_varint(reader, &len);

    event->type = FM__EVENT_STRING;
    return rc < 0 ? rc : read_string(reader, len, event);
}

static int open_level(struct fm__binary_reader *reader, bool is_list,
                      struct fm__event *event)
{
    struct fm__binary_level *level = &reader->levels[reader->depth];
    size_t n;
    int rc;

    if (reader->depth >= reader->bounds.depth)
        return exceeded(reader, "nested too deep");
    rc = read_count(reader, is_list ? 1 : 2, &n);
    if (rc < 0)
        return rc;
    reader->promised += is_list; /* the number of pairs */
    level->items = is_list ? n : 0;
    level->pairs = is_list ? 0 : n;
    level->has_count = !is_list;
    level->in_pair = false;
    event->type = is_list ? FM__EVENT_LIST : FM__EVENT_TABLE;
    event->u.open.n_list = level->items;
    event->u.open.n_keys = level->pairs;
    reader->depth++;
    reader->tables++;
    return 0;
}

static int read_empty(struct fm__binary_reader *reader, bool is_list,
                      struct fm__event *event)
{
    if (reader->depth >= reader->bounds.depth)
        return exceeded(reader, "nested too deep");
    event->type = FM__EVENT_EMPTY;
    event->u.boolean = is_list;
    reader->tables++;
    return 0;
}

static int read_reference(struct fm__binary_reader *reader,
                          struct fm__event *event)
{
    size_t index;
    int rc = read_varint(reader, &index);

    if (rc < 0)
        return rc;
    if ((reader->flags & FM__BINARY_REFERENCES) == 0)
        return malformed(reader, "an unannounced reference");
    if (index >= reader->tables)
        return malformed(reader, "a reference to no table");
    event->type = FM__EVENT_REFERENCE;
    event->u.reference = index;
    return 0;
}

static int read_boolean(bool value, struct fm__event *event)
{
    event->type = FM__EVENT_BOOLEAN;
    event->u.boolean = value;
    return 0;
}

/* A value whose tag, not one of the ranges, has been read. */
static int read_tagged(struct fm__binary_reader *reader, unsigned tag,
                       struct fm__event *event)
{
    switch (tag) {
    case TAG_NIL:
        event->type = FM__EVENT_NIL;
        return 0;
    case TAG_FALSE:
    case TAG_TRUE:
        return read_boolean(tag == TAG_TRUE, event);
    case TAG_NULL:
        event->type = FM__EVENT_NULL;
        return 0;
    case TAG_INTEGER1:
    case TAG_INTEGER2:
    case TAG_INTEGER4:
    case TAG_INTEGER8:
        return read_integer(reader, 1u << (tag - TAG_INTEGER1), event);
    case TAG_NUMBER:
        return read_number(reader, event);
    case TAG_LONG_STRING:
        return read_long_string(reader, event);
    case TAG_LIST:
    case TAG_TABLE:
        return open_level(reader, tag == TAG_LIST, event);
    case TAG_EMPTY:
    case TAG_EMPTY_LIST:
        return read_empty(reader, tag == TAG_EMPTY_LIST, event);
    case TAG_REFERENCE:
        return read_reference(reader, event);
    default:
        return malformed(reader, "an unknown tag");
    }
}

/* A value, whose place was promised a byte. */
static int read_value(struct fm__binary_reader *reader, struct fm__event *event)
{
    unsigned tag;

    if (reader->next == reader->end)
        return cut_short(reader);
    tag = *reader->next++;
    reader->promised--;
    if (tag < TAG_INTEGER_END) {
        event->type = FM__EVENT_INTEGER;
        event->u.integer = (int64_t)tag;
        return 0;
    }
    if (tag < TAG_STRING_END) {
        event->type = FM__EVENT_STRING;
        return read_string(reader, tag - TAG_STRING, event);
    }
    if (tag >= TAG_NEGATIVE) {
        event->type = FM__EVENT_INTEGER;
        event->u.integer = (int64_t)tag - 0x100;
        return 0;
    }
    return read_tagged(reader, tag, event);
}

/* A run of numbers of `width` bytes, whose tag has not been consumed. */
static int read_run(struct fm__binary_reader *reader,
                    struct fm__binary_level *level, unsigned width,
                    struct fm__event *event)
{
    size_t n;
    int rc;

    reader->next++;
    rc = read_varint(reader, &n);
    if (rc < 0)
        return rc;
    if (n == 0 || n > level->items)
        return malformed(reader, "a run that does not fit its list");
    if (n > remaining(reader) / width)
        return cut_short(reader);
    event->u.run.data = reader->next;
    event->u.run.n = n;
    event->u.run.width = width;
    reader->next += n * width;
    level->items -= n;
    reader->promised -= n;
    reader->nodes += n - 1;
    return 0;
}

static int read_item(struct fm__binary_reader *reader,
                     struct fm__binary_level *level, struct fm__event *event)
{
    unsigned tag;

    if (reader->next == reader->end)
        return cut_short(reader);
    tag = *reader->next;
    if (tag == TAG_NUMBERS) {
        event->type = FM__EVENT_NUMBERS;
        return read_run(reader, level, 8, event);
    }
    if (tag >= TAG_INTEGERS1 && tag <= TAG_INTEGERS8) {
        event->type = FM__EVENT_INTEGERS;
        return read_run(reader, level, 1u << (tag - TAG_INTEGERS1), event);
    }
    level->items--;
    return read_value(reader, event);
}

/* Lua makes an integer of a float key that has an integer's value, so that an
 * honest writer never sends one. */
static bool is_float_key(double value)
{
    if (value >= -0x1p63 && value < 0x1p63)
        return (double)(int64_t)value != value;
    return value == value; /* no NaN */
}

static int read_key(struct fm__binary_reader *reader, struct fm__event *event)
{
    size_t len;
    unsigned tag;
    int rc;

    if (reader->next == reader->end)
        return cut_short(reader);
    tag = *reader->next;
    if (tag >= KEY_VALUE) {
        rc = read_value(reader, event);
        if (rc == 0 && event->type == FM__EVENT_NIL)
            return malformed(reader, "nil as a key");
        if (rc == 0 && event->type == FM__EVENT_NUMBER &&
            !is_float_key(event->u.number))
            return malformed(reader, "a float that cannot be a key");
        return rc;
    }
    reader->next++;
    reader->promised--;
    if (tag < KEY_NEW) {
        if ((reader->flags & FM__BINARY_KEYS) == 0)
            return malformed(reader, "an unannounced key");
        event->type = FM__EVENT_KEY_AGAIN;
        event->u.slot = tag;
        return 0;
    }
    event->type = FM__EVENT_KEY;
    rc = read_varint(reader, &len);
    if (rc < 0)
        return rc;
    event->u.string.slot = tag - KEY_NEW;
    return read_string(reader, len, event);
}

/* What follows the items of a list or is in a table. */
static int read_pairs(struct fm__binary_reader *reader,
                      struct fm__binary_level *level, struct fm__event *event)
{
    int rc;

    if (!level->has_count) {
        reader->promised--;
        rc = read_count(reader, 2, &level->pairs);
        if (rc < 0)
            return rc;
        level->has_count = true;
    }
    if (level->pairs == 0) {
        event->type = FM__EVENT_CLOSE;
        reader->depth--;
        return 0;
    }
    if (!level->in_pair) {
        level->in_pair = true;
        return read_key(reader, event);
    }
    level->in_pair = false;
    level->pairs--;
    rc = read_value(reader, event);
    if (rc == 0 && event->type == FM__EVENT_NIL)
        return malformed(reader, "nil as the value of a key");
    return rc;
}

static int read_top(struct fm__binary_reader *reader, struct fm__event *event)
{
    if (reader->values > 0) {
        reader->values--;
        return read_value(reader, event);
    }
    if (reader->next != reader->end)
        return malformed(reader, "bytes after the last value");
    event->type = FM__EVENT_DONE;
    return 0;
}

int fm__binary_reader_next(struct fm__binary_reader *reader,
                           struct fm__event *ret_event)
{
    struct fm__binary_level *level;
    int rc;

    if (reader->depth == 0) {
        rc = read_top(reader, ret_event);
    } else {
        level = &reader->levels[reader->depth - 1];
        rc = level->items > 0 ? read_item(reader, level, ret_event)
                              : read_pairs(reader, level, ret_event);
    }
    if (rc == 0 && ++reader->nodes > reader->bounds.nodes)
        return exceeded(reader, "too many values");
    return rc;
}

int fm__binary_reader_init(struct fm__binary_reader *reader, const void *data,
                           size_t len, const struct fm__bounds *bounds)
{
    int rc;

    /* Not the levels: they are a page or more, written as they are used. */
    memset(reader, 0, offsetof(struct fm__binary_reader, levels));
    reader->start = data;
    reader->next = data;
    reader->end = data;
    if (bounds != NULL)
        reader->bounds = *bounds;
    if (reader->bounds.depth == 0 || reader->bounds.depth > FM__DEPTH_MAX)
        reader->bounds.depth = FM__DEPTH_MAX;
    if (reader->bounds.nodes == 0)
        reader->bounds.nodes = SIZE_MAX;
    if (len < 3) /* version, count, flags */
        return cut_short(reader);
    reader->end += len - 1;
    reader->flags = *reader->end;
    if (*reader->next++ != FM__BINARY_VERSION)
        return malformed(reader, "an unknown version");
    if ((reader->flags & ~(FM__BINARY_REFERENCES | FM__BINARY_KEYS)) != 0)
        return malformed(reader, "unknown flags");
    rc = read_count(reader, 1, &reader->values);
    return rc;
}

size_t fm__binary_reader_offset(const struct fm__binary_reader *reader)
{
    return (size_t)(reader->next - reader->start);
}
