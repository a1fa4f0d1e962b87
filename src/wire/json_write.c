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

/* Copy at most 16 bytes if all of them are plain, else write garbage and
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

#ifdef __SSE2__

/* Copy 16 plain bytes at a time while there is room; see copy_plain(). */
static const unsigned char *copy_blocks(struct fm__sink *sink,
                                        const unsigned char *p,
                                        const unsigned char *end)
{
    unsigned char *to = sink->next;

    while (end - p >= 16 && sink->end - to >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned special = fm__text_special16(v);
        int n = special ? __builtin_ctz(special) : 16;

        _mm_storeu_si128((__m128i *)(void *)to, v);
        p += n;
        to += n;
        if (special)
            break;
    }
    sink->next = to;
    return p;
}

#else

static const unsigned char *copy_blocks(struct fm__sink *sink,
                                        const unsigned char *p,
                                        const unsigned char *end)
{
    (void)sink;
    (void)end;
    return p;
}

#endif

/* Copy plain bytes up to the first other one, the end, or the end of the
 * room.  Returns what is left to do. */
static const unsigned char *copy_plain(struct fm__sink *sink,
                                       const unsigned char *p,
                                       const unsigned char *end)
{
    p = copy_blocks(sink, p, end);
    while (end - p >= 8 && sink->end - sink->next >= 8) {
        uint64_t word = fm__load8(p), special = fm__text_special8(word);
        int n = special ? __builtin_ctzll(special) / 8 : 8;

        fm__store8(sink->next, word);
        sink->next += n;
        p += n;
        if (special)
            return p;
    }
    while (p < end && sink->next < sink->end && fm__text_is_plain(*p))
        *sink->next++ = *p++;
    return p;
}

/* Two-letter escapes; the others become \u00XX. */
static char escape_letter(unsigned char c)
{
    static const char letters[] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};

    if (c == '"' || c == '\\')
        return (char)c;
    return c < sizeof letters ? letters[c] : 0;
}

static void write_escape(struct fm__sink *sink, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char *to = sink->next;
    char letter = escape_letter(c);

    to[0] = '\\';
    if (letter) {
        to[1] = (unsigned char)letter;
        sink->next += 2;
        return;
    }
    memcpy(to + 1, "u00", 3);
    to[4] = (unsigned char)hex[c >> 4];
    to[5] = (unsigned char)hex[c & 15];
    sink->next += ESCAPE_SIZE;
}

/* Write the bytes at `p` that are not plain, while there is room.  Returns
 * what is left to do, NULL when it is not UTF-8. */
static const unsigned char *write_special(struct fm__sink *sink,
                                          const unsigned char *p,
                                          const unsigned char *end)
{
    while (p < end && !fm__text_is_plain(*p) &&
           sink->end - sink->next >= ESCAPE_SIZE) {
        size_t n = 1;

        if (*p < 0x80) {
            write_escape(sink, *p);
        } else {
            n = fm__text_utf8_len(p, end);
            if (n == 0)
                return NULL;
            for (size_t i = 0; i < n; i++)
                *sink->next++ = p[i];
        }
        p += n;
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
    if (len <= 16 && copy_short(sink->next, p, len)) {
        sink->next += len;
        *sink->next++ = '"';
        return 0;
    }
    for (end = p + len; p < end;) {
        rc = fm__sink_room(sink);
        if (rc < 0)
            return rc;
        p = copy_plain(sink, p, end);
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
