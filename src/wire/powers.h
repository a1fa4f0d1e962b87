/* SPDX-License-Identifier: MIT */
/*
 * Powers of ten, 128 bits each, for number_format.c and number_read.c.
 *
 * Entry k - FM__POWERS_MIN is 10^k scaled by a power of two so that its
 * highest bit is set: exact for 0 <= k <= 55, rounded down for greater and
 * for k < -27, rounded up for -27 <= k < 0, where 5^-k still divides 64-bit
 * integers and a product that should be exact must not come out too small.
 */
#ifndef FM_WIRE_POWERS_H
#define FM_WIRE_POWERS_H

#include <stddef.h>
#include <stdint.h>

#define FM__POWERS_MIN (-342)
#define FM__POWERS_MAX 324
#define FM__POWERS_COUNT (FM__POWERS_MAX - FM__POWERS_MIN + 1)

/* The high word of entry i is at 2 * i, the low word follows. */
extern const uint64_t fm__powers_of_ten[2 * FM__POWERS_COUNT];

struct fm__wide {
    uint64_t high, low;
};

#ifdef __SIZEOF_INT128__

/* All 128 bits of a product. */
static inline struct fm__wide fm__multiply(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = a;

    product *= b;
    return (struct fm__wide){(uint64_t)(product >> 64), (uint64_t)product};
}

#else

static inline struct fm__wide fm__multiply(uint64_t a, uint64_t b)
{
    uint64_t a0 = (uint32_t)a, a1 = a >> 32;
    uint64_t b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t low = a0 * b0;
    uint64_t middle = a1 * b0 + (low >> 32);
    uint64_t carry = a0 * b1 + (uint32_t)middle;

    return (struct fm__wide){a1 * b1 + (middle >> 32) + (carry >> 32),
                             (carry << 32) | (uint32_t)low};
}

#endif

/* floor(log2(10^k)) for |k| < 1233; shifts of negative numbers are
 * arithmetic in every compiler that we build with. */
static inline int fm__log2_of_power(int k)
{
    return (k * 1741647) >> 19;
}

static inline struct fm__wide fm__power_of_ten(int k)
{
    const uint64_t *entry =
        fm__powers_of_ten + 2 * (size_t)(k - FM__POWERS_MIN);

    return (struct fm__wide){entry[0], entry[1]};
}

#endif
