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
 * A block is what is looked at in one step.  Both functions return how many
 * plain bytes are in front of the first other one, FM__TEXT_BLOCK if all are;
 * the second copies the whole block.
 */
#ifdef __SSE2__

#define FM__TEXT_BLOCK 16

/* The comparison is signed: what is below 0x20 includes what is above 0x7f. */
static inline unsigned fm__text_plain16(__m128i block)
{
    __m128i quote = _mm_cmpeq_epi8(block, _mm_set1_epi8('"'));
    __m128i backslash = _mm_cmpeq_epi8(block, _mm_set1_epi8('\\'));
    __m128i low = _mm_cmplt_epi8(block, _mm_set1_epi8(0x20));
    __m128i special = _mm_or_si128(low, _mm_or_si128(quote, backslash));

    return (unsigned)__builtin_ctz((unsigned)_mm_movemask_epi8(special) |
                                   1u << 16);
}

static inline unsigned fm__text_block(const unsigned char *p)
{
    return fm__text_plain16(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline unsigned fm__text_copy_block(unsigned char *to,
                                           const unsigned char *p)
{
    __m128i block = _mm_loadu_si128((const __m128i *)(const void *)p);

    _mm_storeu_si128((__m128i *)(void *)to, block);
    return fm__text_plain16(block);
}

#else

#define FM__TEXT_BLOCK 8

static inline unsigned fm__text_block(const unsigned char *p)
{
    uint64_t special = fm__text_special8(fm__load8(p));

    return special ? (unsigned)__builtin_ctzll(special) / 8 : 8;
}

static inline unsigned fm__text_copy_block(unsigned char *to,
                                           const unsigned char *p)
{
    memcpy(to, p, 8);
    return fm__text_block(p);
}

#endif

/* The first byte that is not plain, or `end`. */
static inline const unsigned char *fm__text_skip(const unsigned char *p,
                                                 const unsigned char *end)
{
    while (end - p >= FM__TEXT_BLOCK) {
        unsigned n = fm__text_block(p);

        if (n < FM__TEXT_BLOCK)
            return p + n;
        /* A constant, so that the next load need not wait for `n`. */
        p += FM__TEXT_BLOCK;
    }
    while (p < end && fm__text_is_plain(*p))
        p++;
    return p;
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
