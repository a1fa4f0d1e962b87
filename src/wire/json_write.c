/* SPDX-License-Identifier: MIT */
/*
 * Tokens of JSON texts, see json.h.  Every token but a string fits the room
 * of a sink, so it is made in place.
 */
#include "wire/json.h"

#include "fork_map.h"
#include "wire/number.h"
#include "wire/text.h"

#define SHORT 16 /* bytes that copy_short() takes */

/* What a block of escapes becomes, and a block that is copied behind it. */
#define BLOCK_ROOM (6 * FM__TEXT_BLOCK + FM__TEXT_BLOCK)

int fm__json_write_integer(struct fm__sink *sink, int64_t value)
{
    int rc = fm__sink_room(sink);

    if (rc < 0)
        return rc;
    sink->next += fm__integer_format(value, (char *)sink->next);
    return 0;
}

int fm__json_write_number(struct fm__sink *sink, double value)
{
    int rc = fm__sink_room(sink);

    if (rc < 0)
        return rc;
    sink->next += fm__number_format(value, (char *)sink->next);
    return 0;
}

/* Copy at most SHORT bytes if all of them are plain, else write garbage and
 * return false.  The words at both ends overlap in the middle. */
static bool copy_short(unsigned char *to, const unsigned char *from, size_t len)
{
    uint64_t head, tail;
    uint32_t low, high;

    if (len >= 8) {
        head = fm__load8(from);
        tail = fm__load8(from + len - 8);
        fm__store8(to, head);
        fm__store8(to + len - 8, tail);
        return (fm__text_special8(head) | fm__text_special8(tail)) == 0;
    }
    if (len >= 4) {
        memcpy(&low, from, 4);
        memcpy(&high, from + len - 4, 4);
        memcpy(to, &low, 4);
        memcpy(to + len - 4, &high, 4);
        return fm__text_special8((uint64_t)high << 32 | low) == 0;
    }
    for (size_t i = 0; i < len; i++) {
        to[i] = from[i];
        if (!fm__text_is_plain(from[i]))
            return false;
    }
    return true;
}

/* What stands for a byte in a string, and in the last place how long it is. */
#define SHORT_ESCAPE(c)                                                        \
    {                                                                          \
        '\\', c, 0, 0, 0, 0, 0, 2                                              \
    }
#define LONG_ESCAPE(a, b)                                                      \
    {                                                                          \
        '\\', 'u', '0', '0', a, b, 0, 6                                        \
    }

static const unsigned char escapes[128][8] = {
    LONG_ESCAPE('0', '0'),     LONG_ESCAPE('0', '1'),
    LONG_ESCAPE('0', '2'),     LONG_ESCAPE('0', '3'),
    LONG_ESCAPE('0', '4'),     LONG_ESCAPE('0', '5'),
    LONG_ESCAPE('0', '6'),     LONG_ESCAPE('0', '7'),
    SHORT_ESCAPE('b'),         SHORT_ESCAPE('t'),
    SHORT_ESCAPE('n'),         LONG_ESCAPE('0', 'b'),
    SHORT_ESCAPE('f'),         SHORT_ESCAPE('r'),
    LONG_ESCAPE('0', 'e'),     LONG_ESCAPE('0', 'f'),
    LONG_ESCAPE('1', '0'),     LONG_ESCAPE('1', '1'),
    LONG_ESCAPE('1', '2'),     LONG_ESCAPE('1', '3'),
    LONG_ESCAPE('1', '4'),     LONG_ESCAPE('1', '5'),
    LONG_ESCAPE('1', '6'),     LONG_ESCAPE('1', '7'),
    LONG_ESCAPE('1', '8'),     LONG_ESCAPE('1', '9'),
    LONG_ESCAPE('1', 'a'),     LONG_ESCAPE('1', 'b'),
    LONG_ESCAPE('1', 'c'),     LONG_ESCAPE('1', 'd'),
    LONG_ESCAPE('1', 'e'),     LONG_ESCAPE('1', 'f'),
    ['"'] = SHORT_ESCAPE('"'), ['\\'] = SHORT_ESCAPE('\\'),
};

/* Write the block at `p`, of which `len` bytes count; those behind it, as many
 * again, are read too.  Bytes beyond what counts are written, but no more than
 * BLOCK_ROOM.  Returns where the next byte goes. */
static unsigned char *write_block(unsigned char *to, const unsigned char *p,
                                  size_t len, unsigned *state)
{
    struct fm__text_masks masks = fm__text_look(p);
    unsigned at = 0;

    if (masks.high != 0 || *state != FM__UTF8_WHOLE)
        *state = fm__utf8_run(*state, p, FM__TEXT_BLOCK);
    memcpy(to, p, FM__TEXT_BLOCK);
    for (; masks.escapes != 0; masks.escapes &= masks.escapes - 1) {
        unsigned n = (unsigned)__builtin_ctz(masks.escapes);
        const unsigned char *escape = escapes[p[n]];

        to += n - at;
        memcpy(to, escape, 8);
        to += escape[7];
        at = n + 1;
        memcpy(to, p + at, FM__TEXT_BLOCK);
    }
    return to + (len - at);
}

/* Write `len` bytes.  As many as a block has may be read behind them, and what
 * is in their last block must be blanks. */
static int write_blocks(struct fm__sink *sink, const unsigned char *p,
                        size_t len, unsigned *state)
{
    while (len > 0) {
        size_t n = len < FM__TEXT_BLOCK ? len : FM__TEXT_BLOCK;

        if (sink->end - sink->next >= BLOCK_ROOM) {
            sink->next = write_block(sink->next, p, n, state);
        } else {
            unsigned char room[BLOCK_ROOM];
            unsigned char *end = write_block(room, p, n, state);
            int rc = fm__sink_write(sink, room, (size_t)(end - room));

            if (rc < 0)
                return rc;
        }
        if (*state == FM__UTF8_BAD)
            return FM_EENCODE;
        p += n;
        len -= n;
    }
    return 0;
}

/* A string that is not short and plain, between its quotes. */
static int write_long(struct fm__sink *sink, const unsigned char *p, size_t len)
{
    unsigned char tail[3 * FM__TEXT_BLOCK];
    unsigned state = FM__UTF8_WHOLE;
    size_t head = 0;
    int rc = 0;

    if (len >= sizeof tail - FM__TEXT_BLOCK) {
        head = (len - FM__TEXT_BLOCK) & ~(size_t)(FM__TEXT_BLOCK - 1);
        rc = write_blocks(sink, p, head, &state);
    }
    if (rc < 0)
        return rc;
    memset(tail, ' ', sizeof tail);
    memcpy(tail, p + head, len - head);
    rc = write_blocks(sink, tail, len - head, &state);
    if (rc < 0)
        return rc;
    return state == FM__UTF8_WHOLE ? 0 : FM_EENCODE;
}

int fm__json_write_string(struct fm__sink *sink, const char *data, size_t len)
{
    const unsigned char *p = (const unsigned char *)data;
    int rc = fm__sink_room(sink);

    if (rc < 0)
        return rc;
    *sink->next++ = '"';
    if (len <= SHORT && copy_short(sink->next, p, len)) {
        sink->next += len;
        *sink->next++ = '"';
        return 0;
    }
    rc = write_long(sink, p, len);
    if (rc == 0)
        rc = fm__sink_room(sink);
    if (rc < 0)
        return rc;
    *sink->next++ = '"';
    return 0;
}
