/* SPDX-License-Identifier: MIT */
/*
 * Eight or four bytes at a time, the first byte of memory lowest on every
 * machine.
 */
#ifndef FM_WIRE_WORD_H
#define FM_WIRE_WORD_H

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FM__FIRST_BYTE_LOW(word) __builtin_bswap64(word)
#define FM__FIRST_BYTE_LOW4(word) __builtin_bswap32(word)
#else
#define FM__FIRST_BYTE_LOW(word) (word)
#define FM__FIRST_BYTE_LOW4(word) (word)
#endif

static inline uint64_t fm__load8(const void *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof word);
    return FM__FIRST_BYTE_LOW(word);
}

static inline void fm__store8(void *p, uint64_t word)
{
    word = FM__FIRST_BYTE_LOW(word);
    memcpy(p, &word, sizeof word);
}

static inline uint32_t fm__load4(const void *p)
{
    uint32_t word;

    memcpy(&word, p, sizeof word);
    return FM__FIRST_BYTE_LOW4(word);
}

static inline void fm__store4(void *p, uint32_t word)
{
    word = FM__FIRST_BYTE_LOW4(word);
    memcpy(p, &word, sizeof word);
}

#define FM__ALL_ZERO_DIGITS 0x3030303030303030u /* "00000000" */

#endif
