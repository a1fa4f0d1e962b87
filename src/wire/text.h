/* SPDX-License-Identifier: MIT */
/*
 * The bytes inside a JSON string: finding the first one that is not plain,
 * and stepping over UTF-8 (RFC 3629: shortest form, no surrogates, nothing
 * above U+10FFFF).
 *
 * A plain byte stands for itself, in a string as in the value: printable
 * ASCII but for quote and backslash.
 */
#ifndef FM_WIRE_TEXT_H
#define FM_WIRE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/word.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define FM__EACH_BYTE(byte) (0x0101010101010101u * (byte))

static inline bool fm__text_is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* The high bit of the lowest byte that is not plain is the lowest bit set; 0
 * when all 8 are plain.  Borrows only reach bytes above a true hit. */
static inline uint64_t fm__text_special8(uint64_t word)
{
    uint64_t quote = word ^ FM__EACH_BYTE('"');
    uint64_t backslash = word ^ FM__EACH_BYTE('\\');

    return (word | (word - FM__EACH_BYTE(0x20)) | (quote - FM__EACH_BYTE(1)) |
            (backslash - FM__EACH_BYTE(1))) &
           FM__EACH_BYTE(0x80);
}

/*
 * A block is what is looked at in one step: bit i of the masks is byte i.
 * `escapes` are the bytes below 0x20, quotes and backslashes.
 */
#define FM__TEXT_BLOCK 16

struct fm__text_masks {
    unsigned escapes, high; /* high: above 0x7f */
};

#ifdef __SSE2__

static inline struct fm__text_masks fm__text_look(const unsigned char *p)
{
    __m128i block = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i quote = _mm_cmpeq_epi8(block, _mm_set1_epi8('"'));
    __m128i backslash = _mm_cmpeq_epi8(block, _mm_set1_epi8('\\'));
    /* The comparison is signed: what is above 0x7f is found too. */
    __m128i low = _mm_cmplt_epi8(block, _mm_set1_epi8(0x20));
    __m128i special = _mm_or_si128(low, _mm_or_si128(quote, backslash));
    struct fm__text_masks masks;

    masks.high = (unsigned)_mm_movemask_epi8(block);
    masks.escapes = (unsigned)_mm_movemask_epi8(special) & ~masks.high;
    return masks;
}

#else

/* Bit i of the result is the high bit of byte i. */
static inline unsigned fm__text_gather(uint64_t word)
{
    return (unsigned)(((word >> 7 & FM__EACH_BYTE(1)) * 0x0102040810204080u) >>
                      56);
}

/* The high bit of each byte that equals `byte`, of those below 0x80. */
static inline uint64_t fm__text_equal8(uint64_t word, unsigned char byte)
{
    uint64_t x = word ^ FM__EACH_BYTE(byte);

    return ~(((x & FM__EACH_BYTE(0x7f)) + FM__EACH_BYTE(0x7f)) | x);
}

static inline uint64_t fm__text_escapes8(uint64_t word)
{
    /* The bit that is lent stays in its byte. */
    uint64_t low = ~((word | FM__EACH_BYTE(0x80)) - FM__EACH_BYTE(0x20));

    return (low | fm__text_equal8(word, '"') | fm__text_equal8(word, '\\')) &
           ~word;
}

static inline struct fm__text_masks fm__text_look(const unsigned char *p)
{
    uint64_t first = fm__load8(p), second = fm__load8(p + 8);
    struct fm__text_masks masks;

    masks.high = fm__text_gather(first) | fm__text_gather(second) << 8;
    masks.escapes = fm__text_gather(fm__text_escapes8(first)) |
                    fm__text_gather(fm__text_escapes8(second)) << 8;
    return masks;
}

#endif

/*
 * UTF-8, byte by byte and without branches.  A state is a shift count; a row
 * of the table, shifted by it, has the next state in its lowest 6 bits.
 */
enum {
    FM__UTF8_BAD = 0, /* for ever */
    FM__UTF8_WHOLE = 6
};

extern const uint64_t fm__utf8_rows[256];

/* The state after `n` bytes more. */
static inline unsigned fm__utf8_run(unsigned state, const unsigned char *p,
                                    size_t n)
{
    uint64_t row = state;

    for (size_t i = 0; i < n; i++)
        row = fm__utf8_rows[p[i]] >> (row & 63);
    return (unsigned)row & 63;
}

/* 4 bytes, the first one lowest; what is behind the end is 0. */
static inline uint32_t fm__text_load4(const unsigned char *p,
                                      const unsigned char *end)
{
    uint32_t word = 0;

    if (end - p >= 4)
        return fm__load4(p);
    for (int shift = 0; p < end; p++, shift += 8)
        word |= (uint32_t)*p << shift;
    return word;
}

/* Length of the character that `word` begins with, its first byte lowest and
 * above 0x7f, or 0 when there is no whole one. */
static inline unsigned fm__text_utf8_len(uint32_t word)
{
    uint32_t bits;

    if ((word & 0xc0e0) == 0x80c0)
        return word & 0x1e ? 2 : 0; /* not overlong? */
    if ((word & 0xc0c0f0) == 0x8080e0) {
        bits = word & 0x200f;
        return bits != 0 && bits != 0x200d ? 3 : 0; /* nor surrogate? */
    }
    if ((word & 0xc0c0c0f8) == 0x808080f0) {
        bits = word & 0x3007;
        return (word & 4 ? bits == 4 : bits != 0) ? 4 : 0; /* nor too great? */
    }
    return 0;
}

#endif
