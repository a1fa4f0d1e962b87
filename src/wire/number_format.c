/* SPDX-License-Identifier: MIT */
/*
 * Numbers to text, see number.h.  Doubles after R. Giulietti, "The Schubfach
 * way to render doubles" (2020), but the ends of the rounding interval come
 * from the product of its middle by addition.
 */
#include "wire/number.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "wire/powers.h"
#include "wire/word.h"

#define MANTISSA_BITS 52
#define HIDDEN_BIT ((uint64_t)1 << MANTISSA_BITS)
#define INFINITE_BITS ((uint64_t)0x7ff << MANTISSA_BITS)

/* A double is mantissa * 2^(exponent field - BIAS), hidden bit included. */
#define BIAS 1075

/* The 8 decimal digits of n < 10^8, one per byte, first digit lowest: halves,
 * quarters and digits are split side by side in one word. */
static inline uint64_t eight_digits(uint32_t n)
{
    uint64_t halves = n / 10000 | (uint64_t)(n % 10000) << 32;
    uint64_t hundreds = (halves * 10486 >> 20) & 0x0000007f0000007f;
    uint64_t pairs = hundreds | (halves - 100 * hundreds) << 16;
    uint64_t tens = (pairs * 103 >> 10) & 0x000f000f000f000f;

    return tens | (pairs - 10 * tens) << 8;
}

/* Digits of n < 10^8 without leading zeros. */
static inline size_t format_small(uint32_t n, char *to)
{
    uint64_t digits = eight_digits(n);
    unsigned zeros;

    /* The last digit stays, even if it is a zero. */
    zeros = (unsigned)__builtin_ctzll(digits | (uint64_t)1 << 56) / 8;
    fm__store8(to, (digits | FM__ALL_ZERO_DIGITS) >> (8 * zeros));
    return 8 - zeros;
}

static size_t format_unsigned(uint64_t n, char *to)
{
    size_t len;

    if (n < 100000000)
        return format_small((uint32_t)n, to);
    if (n < 10000000000000000) {
        len = format_small((uint32_t)(n / 100000000), to);
    } else {
        len = format_small((uint32_t)(n / 10000000000000000), to);
        n %= 10000000000000000;
        fm__store8(to + len, eight_digits((uint32_t)(n / 100000000)) |
                                 FM__ALL_ZERO_DIGITS);
        len += 8;
    }
    fm__store8(to + len,
               eight_digits((uint32_t)(n % 100000000)) | FM__ALL_ZERO_DIGITS);
    return len + 8;
}

size_t fm__integer_format(int64_t value, char to[FM__NUMBER_ROOM])
{
    uint64_t magnitude = (uint64_t)value;
    size_t sign = value < 0;

    to[0] = '-';
    if (sign)
        magnitude = 0 - magnitude;
    return sign + format_unsigned(magnitude, to + sign);
}

/* digits * 10^exponent */
struct decimal {
    uint64_t digits;
    int exponent;
};

/* 192 bits of a product, lowest word last. */
struct product {
    uint64_t high, middle, low;
};

static inline struct product multiply_wide(struct fm__wide a, uint64_t b)
{
    struct fm__wide high = fm__multiply(a.high, b),
                    low = fm__multiply(a.low, b);
    uint64_t middle = high.low + low.high;

    return (struct product){high.high + (middle < low.high), middle, low.low};
}

static inline struct product add(struct product a, struct product b)
{
    struct product sum;
    uint64_t carry;

    sum.low = a.low + b.low;
    carry = sum.low < a.low;
    sum.middle = a.middle + b.middle;
    sum.high = a.high + b.high + (sum.middle < a.middle);
    sum.middle += carry;
    sum.high += sum.middle < carry;
    return sum;
}

static inline struct product subtract(struct product a, struct product b)
{
    struct product rest;
    uint64_t borrow = a.low < b.low;

    rest.low = a.low - b.low;
    rest.middle = a.middle - b.middle;
    rest.high = a.high - b.high - (a.middle < b.middle);
    rest.high -= rest.middle < borrow;
    rest.middle -= borrow;
    return rest;
}

/* Round to odd: the last bit says whether anything was cut off.  The low word
 * and the last bit of the middle one are within the error of the power. */
static inline uint64_t round_to_odd(struct product p)
{
    return p.high | (p.middle > 1);
}

/*
 * The shortest decimal in the rounding interval of mantissa * 2^exponent, for
 * mantissa > 0.  Names are Giulietti's: v is the value, scaled by 10^-k and
 * by 4; the interval reaches halfway to its neighbours, of which the lower
 * one is nearer (`closer`) when v is a power of two.
 */
static struct decimal shortest(uint64_t mantissa, int exponent, bool closer)
{
    int k = (exponent * 1262611 - (closer ? 524031 : 0)) >> 22;
    int h = exponent + fm__log2_of_power(-k) + 1;
    struct fm__wide g = fm__power_of_ten(-k);
    struct product v, half, step;
    uint64_t odd = mantissa & 1, middle, lower, upper, s, t;
    bool down, up;

    /* The paper wants g rounded up; these entries are rounded down. */
    g.low += -k > 55 || -k < -27;
    g.high += g.low == 0 && (-k > 55 || -k < -27);
    v = multiply_wide(g, mantissa << (h + 2));
    half = multiply_wide(g, (uint64_t)2 << h);
    step = closer ? multiply_wide(g, (uint64_t)1 << h) : half;
    middle = round_to_odd(v);
    lower = round_to_odd(subtract(v, step)) + odd;
    upper = round_to_odd(add(v, half)) - odd;

    s = middle / 4;
    t = s / 10;
    down = lower <= 40 * t;
    up = 40 * t + 40 <= upper;
    if (t > 0 && down != up)
        return (struct decimal){t + up, k + 1};
    down = lower <= 4 * s;
    up = 4 * s + 4 <= upper;
    if (down == up)
        up = middle > 4 * s + 2 || (middle == 4 * s + 2 && (s & 1));
    return (struct decimal){s + up, k};
}

#define DIGITS 17 /* of any double, at most */

/* Write exactly 17 digits of d and then zeros, 32 bytes in all, and return
 * how many count: trailing zeros do not.  The exponent becomes that of the
 * first digit. */
static size_t format_digits(struct decimal *d, char digits[32])
{
    uint64_t n = d->digits, high, low;
    uint32_t rest;
    size_t len;

    d->exponent += DIGITS - 1;
    while (n < 10000000000000000) {
        n *= 10;
        d->exponent--;
    }
    digits[0] = (char)('0' + n / 10000000000000000);
    n %= 10000000000000000;
    rest = (uint32_t)(n % 100000000);
    high = eight_digits((uint32_t)(n / 100000000));
    low = eight_digits(rest);
    fm__store8(digits + 1, high | FM__ALL_ZERO_DIGITS);
    fm__store8(digits + 9, low | FM__ALL_ZERO_DIGITS);
    memset(digits + DIGITS, '0', 32 - DIGITS);
    len = low ? 9 : 1;
    if (low | high)
        len += 8 - (unsigned)__builtin_clzll(low ? low : high) / 8;
    return len;
}

/* d.ddde-ddd */
static size_t format_scientific(const char *digits, size_t n, int exponent,
                                char *to)
{
    size_t len = n == 1 ? 1 : n + 1;

    to[0] = digits[0];
    to[1] = '.';
    memcpy(to + 2, digits + 1, DIGITS - 1);
    to[len++] = 'e';
    to[len] = '-';
    len += exponent < 0;
    return len + format_small((uint32_t)(exponent < 0 ? -exponent : exponent),
                              to + len);
}

/* ddd.ddd, or 0.000ddd */
static size_t format_plain(const char *digits, size_t n, int exponent, char *to)
{
    size_t whole, zeros;

    if (exponent < 0) {
        zeros = (size_t)-exponent;
        memset(to, '0', 8);
        to[1] = '.';
        memcpy(to + 1 + zeros, digits, DIGITS);
        return 1 + zeros + n;
    }
    whole = (size_t)exponent + 1;
    memcpy(to, digits, DIGITS);
    to[whole] = '.';
    memcpy(to + whole + 1, digits + whole, DIGITS - 1);
    return n > whole ? n + 1 : whole + 2;
}

static size_t format_positive(uint64_t bits, char *to)
{
    int field = (int)(bits >> MANTISSA_BITS);
    uint64_t fraction = bits & (HIDDEN_BIT - 1);
    struct decimal d;
    char digits[32];
    size_t n;

    if (field == 0)
        d = shortest(fraction, 1 - BIAS, false);
    else
        d = shortest(fraction | HIDDEN_BIT, field - BIAS,
                     fraction == 0 && field > 1);
    n = format_digits(&d, digits);
    if (d.exponent < -5 || d.exponent > 15)
        return format_scientific(digits, n, d.exponent, to);
    return format_plain(digits, n, d.exponent, to);
}

size_t fm__number_format(double value, char to[FM__NUMBER_ROOM])
{
    uint64_t bits, whole;
    size_t sign, len;

    memcpy(&bits, &value, sizeof bits);
    sign = bits >> 63;
    bits &= ~((uint64_t)1 << 63);
    assert(bits < INFINITE_BITS);
    to[0] = '-';
    to += sign;
    value = sign ? -value : value;
    /* Below 2^53 a whole number's own digits are the shortest. */
    whole = value < 9007199254740992.0 ? (uint64_t)value : 0;
    if ((double)whole == value) {
        len = format_unsigned(whole, to);
        to[len] = '.';
        to[len + 1] = '0';
        return sign + len + 2;
    }
    return sign + format_positive(bits, to);
}
