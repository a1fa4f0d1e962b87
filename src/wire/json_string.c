/* SPDX-License-Identifier: MIT */
/*
 * Strings for the reader of JSON texts, see json_string.h.
 *
 * A string is looked at in place up to its first escape; only from there on it
 * is copied, in one pass.  The newline at the end of the text is not plain, no
 * part of an escape and no part of UTF-8, so nothing runs past it.
 */
#include "wire/json_string.h"

#include <errno.h>

#include "fork_map.h"
#include "os/sys.h"
#include "wire/text.h"

/* What one step may write behind what counts. */
#define ROOM 16

/* Where a string with escapes goes. */
struct output {
    unsigned char *next, *end;
};

static int refuse(struct fm__json_reader *r, const char *error)
{
    r->error = error;
    return FM_EPROTOCOL;
}

/* Make room for one step. */
static int grow(struct fm__json_reader *r, struct output *out)
{
    size_t len =
        out->next ? (size_t)(out->next - (unsigned char *)r->scratch) : 0;
    size_t size = r->scratch_size + r->scratch_size / 2 + 256;
    char *scratch;

    scratch = size > len ? fm__sys.realloc(r->scratch, size) : NULL;
    if (!scratch) {
        r->error = "not enough memory";
        return -ENOMEM;
    }
    r->scratch = scratch;
    r->scratch_size = size;
    out->next = (unsigned char *)scratch + len;
    out->end = (unsigned char *)scratch + size;
    return 0;
}

/* One more than the value of each hexadecimal digit, 0 for other bytes. */
static const unsigned char hex_digits[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,
    ['6'] = 7,  ['7'] = 8,  ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12,
    ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16, ['A'] = 11, ['B'] = 12,
    ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

/* The code unit of an escape such as \u20ac, or -1. */
static int32_t read_unit(const unsigned char *p, const unsigned char *end)
{
    int32_t unit = 0;

    if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
        return -1;
    for (int i = 2; i < 6; i++) {
        int32_t digit = hex_digits[p[i]];

        if (digit == 0)
            return -1;
        unit = unit << 4 | (digit - 1);
    }
    return unit;
}

static void put_utf8(struct output *out, uint32_t code)
{
    unsigned char *to = out->next;

    if (code < 0x80) {
        to[0] = (unsigned char)code;
        out->next += 1;
    } else if (code < 0x800) {
        to[0] = (unsigned char)(0xc0 | code >> 6);
        to[1] = (unsigned char)(0x80 | (code & 0x3f));
        out->next += 2;
    } else if (code < 0x10000) {
        to[0] = (unsigned char)(0xe0 | code >> 12);
        to[1] = (unsigned char)(0x80 | (code >> 6 & 0x3f));
        to[2] = (unsigned char)(0x80 | (code & 0x3f));
        out->next += 3;
    } else {
        to[0] = (unsigned char)(0xf0 | code >> 18);
        to[1] = (unsigned char)(0x80 | (code >> 12 & 0x3f));
        to[2] = (unsigned char)(0x80 | (code >> 6 & 0x3f));
        to[3] = (unsigned char)(0x80 | (code & 0x3f));
        out->next += 4;
    }
}

/* The \u escape at `*p`, or the pair of them that is one character. */
static int read_unicode(struct fm__json_reader *r, const unsigned char **p,
                        struct output *out)
{
    int32_t unit = read_unit(*p, r->end), low;

    if (unit < 0)
        return refuse(r, "unknown escape");
    if (unit < 0xd800 || unit > 0xdfff) {
        put_utf8(out, (uint32_t)unit);
        *p += 6;
        return 0;
    }
    low = read_unit(*p + 6, r->end);
    if (unit > 0xdbff || low < 0xdc00 || low > 0xdfff)
        return refuse(r, "half of a surrogate pair");
    put_utf8(out, 0x10000 + ((uint32_t)(unit - 0xd800) << 10 |
                             (uint32_t)(low - 0xdc00)));
    *p += 12;
    return 0;
}

/* The bytes that two-letter escapes stand for, 0 where there is none. */
static const unsigned char escaped_bytes[256] = {
    ['b'] = '\b', ['f'] = '\f', ['n'] = '\n',  ['r'] = '\r',
    ['t'] = '\t', ['"'] = '"',  ['\\'] = '\\', ['/'] = '/',
};

static int read_escape(struct fm__json_reader *r, const unsigned char **p,
                       struct output *out)
{
    unsigned char byte = escaped_bytes[(*p)[1]];

    if (byte == 0)
        return read_unicode(r, p, out);
    *out->next++ = byte;
    *p += 2;
    return 0;
}

/* Where in [p, end) the first character that is not UTF-8 begins. */
static const unsigned char *find_bad(const unsigned char *p,
                                     const unsigned char *end)
{
    while (p < end) {
        unsigned n = *p < 0x80 ? 1 : fm__text_utf8_len(fm__text_load4(p, end));

        if (n == 0)
            break;
        p += n;
    }
    return p;
}

/* Some bytes were no UTF-8, between `start` and where the string was left. */
static int refuse_bytes(struct fm__json_reader *r, const unsigned char *start,
                        const unsigned char **p)
{
    *p = find_bad(start, r->end);
    return refuse(r, "not UTF-8");
}

/* How many bytes of the block at `p` are neither escapes nor the end of the
 * string. */
static size_t look(const unsigned char *p, unsigned *state)
{
    struct fm__text_masks masks = fm__text_look(p);
    size_t n = (size_t)__builtin_ctz(masks.escapes | 1u << FM__TEXT_BLOCK);

    if (masks.high != 0 || *state != FM__UTF8_WHOLE)
        *state = fm__utf8_run(*state, p, n);
    return n;
}

/* Step over what is neither an escape nor the end of the string. */
static const unsigned char *skip(const unsigned char *p,
                                 const unsigned char *end, unsigned *state)
{
    while (end - p >= FM__TEXT_BLOCK) {
        size_t n = look(p, state);

        if (n < FM__TEXT_BLOCK)
            return p + n;
        /* A constant, so that the next load need not wait for `n`. */
        p += FM__TEXT_BLOCK;
    }
    while (p < end && (*p >= 0x80 || fm__text_is_plain(*p))) {
        *state = fm__utf8_run(*state, p, 1);
        p++;
    }
    return p;
}

/* Copy some of what is no escape. */
static int copy_some(struct fm__json_reader *r, const unsigned char **p,
                     struct output *out, unsigned *state)
{
    size_t n = 1;

    if (**p < 0x20)
        return refuse(r, "control character in a string");
    if (r->end - *p >= FM__TEXT_BLOCK) {
        n = look(*p, state);
        memcpy(out->next, *p, FM__TEXT_BLOCK);
    } else {
        *state = fm__utf8_run(*state, *p, 1);
        *out->next = **p;
    }
    out->next += n;
    *p += n;
    return 0;
}

/* Copy up to the end of the string, with room for each step.  `*state` is
 * whole in front of an escape, or bad for ever. */
static int unescape(struct fm__json_reader *r, const unsigned char **p,
                    struct output *out, unsigned *state)
{
    int rc = 0;

    while (rc == 0 && **p != '"') {
        if (out->end - out->next < ROOM)
            rc = grow(r, out);
        else if (**p != '\\')
            rc = copy_some(r, p, out, state);
        else if (*state != FM__UTF8_WHOLE)
            break;
        else
            rc = read_escape(r, p, out);
    }
    return rc;
}

/* The rest of the string from its first escape at `*p` on. */
static int read_escaped(struct fm__json_reader *r, const unsigned char *start,
                        const unsigned char **p, struct fm__event *ret_event)
{
    size_t len = (size_t)(*p - start);
    struct output out = {NULL, NULL};
    unsigned state = FM__UTF8_WHOLE;
    int rc = 0;

    if (r->scratch)
        out.end = (unsigned char *)r->scratch + r->scratch_size;
    out.next = (unsigned char *)r->scratch;
    while (rc == 0 && (!out.next || r->scratch_size < len + ROOM))
        rc = grow(r, &out);
    if (rc < 0)
        return rc;
    memcpy(out.next, start, len);
    out.next += len;
    rc = unescape(r, p, &out, &state);
    /* What is no UTF-8 comes before whatever else was found. */
    if (rc != -ENOMEM && state != FM__UTF8_WHOLE)
        return refuse_bytes(r, start, p);
    if (rc < 0)
        return rc;
    ret_event->u.string.data = r->scratch;
    ret_event->u.string.len = (size_t)(out.next - (unsigned char *)r->scratch);
    ++*p;
    return 0;
}

int fm__json_read_string(struct fm__json_reader *reader,
                         const unsigned char **at, struct fm__event *ret_event)
{
    unsigned state = FM__UTF8_WHOLE;
    const unsigned char *start = *at + 1;
    const unsigned char *p = skip(start, reader->end, &state);

    *at = p;
    if (state != FM__UTF8_WHOLE)
        return refuse_bytes(reader, start, at);
    if (*p == '\\')
        return read_escaped(reader, start, at, ret_event);
    if (*p != '"')
        return refuse(reader, "control character in a string");
    ret_event->u.string.data = (const char *)start;
    ret_event->u.string.len = (size_t)(p - start);
    *at = p + 1;
    return 0;
}
