/* SPDX-License-Identifier: MIT */
/*
 * Tokens of JSON texts, see json.h.  Every token but a string fits the room
 * of a sink, so it is made in place.
 */
#include "wire/json.h"

#include "fork_map.h"
#include "wire/number.h"
#include "wire/text.h"

#define ESCAPE_SIZE 6 /* \u001f */
#define SHORT 16      /* bytes that copy_short() takes */

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

/* Copy the plain bytes in front of the first other one of 8; all are written.
 * Returns how many were copied. */
static size_t copy_word(unsigned char *to, const unsigned char *p)
{
    uint64_t word = fm__load8(p), special = fm__text_special8(word);

    fm__store8(to, word);
    return special ? (size_t)__builtin_ctzll(special) / 8 : 8;
}

/* Copy the 1 to 7 bytes at the end of a string of 8 or more up to the first
 * that is not plain; the others of the word count as blanks.  Returns how
 * many were copied; 8 bytes are written. */
static size_t copy_tail(unsigned char *to, const unsigned char *end, size_t len)
{
    uint64_t word = fm__load8(end - 8) >> (8 * (8 - len));
    uint64_t special = fm__text_special8(word | FM__EACH_BYTE(' ') << 8 * len);

    fm__store8(to, word);
    return special ? (size_t)__builtin_ctzll(special) / 8 : len;
}

/* Copy plain bytes of [p, end), the rest of a string of `len` bytes, up to
 * the first other one or the end of the room.  Returns what is left to do. */
static const unsigned char *copy_plain(struct fm__sink *sink,
                                       const unsigned char *p,
                                       const unsigned char *end, size_t len)
{
    unsigned char *to = sink->next;
    size_t n;

    while (end - p >= FM__TEXT_BLOCK && sink->end - to >= FM__TEXT_BLOCK) {
        n = fm__text_copy_block(to, p);
        if (n < FM__TEXT_BLOCK) {
            sink->next = to + n;
            return p + n;
        }
        /* Constants, so that the next load need not wait for `n`. */
        p += FM__TEXT_BLOCK;
        to += FM__TEXT_BLOCK;
    }
    if (end - p >= 8 && sink->end - to >= 8) {
        n = copy_word(to, p);
        p += n;
        to += n;
    }
    if (end - p > 0 && end - p < 8 && len >= 8 && sink->end - to >= 8) {
        n = copy_tail(to, end, (size_t)(end - p));
        p += n;
        to += n;
    }
    while (p < end && to < sink->end && fm__text_is_plain(*p))
        *to++ = *p++;
    sink->next = to;
    return p;
}

/* Letters of the short escapes; the other bytes become \u00XX. */
static const char letters[128] = {
    ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n',  ['\f'] = 'f',
    ['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\',
};

static void write_escape(struct fm__sink *sink, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char *to = sink->next;

    to[0] = '\\';
    to[1] = (unsigned char)letters[c];
    sink->next += 2;
    if (to[1])
        return;
    to[1] = 'u';
    to[2] = '0';
    to[3] = '0';
    to[4] = (unsigned char)hex[c >> 4];
    to[5] = (unsigned char)hex[c & 15];
    sink->next = to + ESCAPE_SIZE;
}

/* Write the bytes at `p` that are not plain, while there is room.  Returns
 * what is left to do, NULL when it is not UTF-8. */
static const unsigned char *write_special(struct fm__sink *sink,
                                          const unsigned char *p,
                                          const unsigned char *end)
{
    while (p < end && sink->end - sink->next >= ESCAPE_SIZE) {
        if (*p >= 0x80) {
            uint32_t word = fm__text_load4(p, end);
            unsigned len = fm__text_utf8_len(word);

            if (len == 0)
                return NULL;
            fm__store4(sink->next, word);
            sink->next += len;
            p += len;
        } else if (!fm__text_is_plain(*p)) {
            write_escape(sink, *p++);
        } else {
            /* One between two others, such as a blank, is soon copied. */
            if (end - p < 2 || fm__text_is_plain(p[1]))
                break;
            *sink->next++ = *p++;
        }
    }
    return p;
}

int fm__json_write_string(struct fm__sink *sink, const char *data, size_t len)
{
    const unsigned char *p = (const unsigned char *)data, *end;
    int rc = fm__sink_room(sink);

    if (rc < 0)
        return rc;
    *sink->next++ = '"';
    if (len <= SHORT && copy_short(sink->next, p, len)) {
        sink->next += len;
        *sink->next++ = '"';
        return 0;
    }
    for (end = p + len; p < end;) {
        rc = fm__sink_room(sink);
        if (rc < 0)
            return rc;
        p = copy_plain(sink, p, end, len);
        p = write_special(sink, p, end);
        if (!p)
            return FM_EENCODE;
    }
    rc = fm__sink_room(sink);
    if (rc < 0)
        return rc;
    *sink->next++ = '"';
    return 0;
}
