/* SPDX-License-Identifier: MIT */
/*
 * Text to numbers, see number.h.  Doubles after D. Lemire, "Number parsing at
 * a gigabyte per second" (2021), an algorithm of M. Eisel; N. Mushtak and D.
 * Lemire, "Fast number parsing without fallback" (2023), prove that it always
 * decides when at most 19 digits matter.  More digits that leave a doubt are
 * compared with the halfway point in exact integers.  The fast path in
 * floating point of W. D. Clinger, "How to read floating point numbers
 * accurately" (1990), is left out on purpose: it follows the rounding mode of
 * the host.
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

static inline double from_bits(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* digits * 10^exponent rounded to the nearest double; its bits. */
static uint64_t nearest(uint64_t digits, int64_t exponent)
{
    struct fm__wide power, product;
    int zeros, field, shift;
    uint64_t mantissa;

    if (digits == 0 || exponent < FM__POWERS_MIN)
        return 0;
    if (exponent > 308)
        return INFINITE_BITS;
    zeros = __builtin_clzll(digits);
    digits <<= zeros;
    power = fm__power_of_ten((int)exponent);
    product = fm__multiply(digits, power.high);
    /* The low word of the power matters only if its carry could reach the
     * bits that are kept. */
    if ((product.high & 0x1ff) == 0x1ff) {
        uint64_t carried = fm__multiply(digits, power.low).high;

        product.low += carried;
        product.high += product.low < carried;
    }
    /* 54 bits: one more than a mantissa, to round by. */
    shift = (int)(product.high >> 63) + 64 - MANTISSA_BITS - 3;
    mantissa = product.high >> shift;
    field = fm__log2_of_power((int)exponent) + 1086 +
            (int)(product.high >> 63) - zeros;
    if (field <= 0) { /* subnormal? */
        if (field < -62)
            return 0;
        mantissa >>= 1 - field;
        /* Rounding up to 2^52 gives the smallest normal number by itself. */
        return (mantissa + (mantissa & 1)) >> 1;
    }
    /* A tie goes to even; only these powers can give one. */
    if (product.low <= 1 && exponent >= -4 && exponent <= 23 &&
        (mantissa & 3) == 1 && mantissa << shift == product.high)
        mantissa--;
    mantissa = (mantissa + (mantissa & 1)) >> 1;
    /* The hidden bit, or a carry out of it, adds to the field. */
    mantissa += (uint64_t)(field - 1) << MANTISSA_BITS;
    return mantissa < INFINITE_BITS ? mantissa : INFINITE_BITS;
}

/*
 * Exact integers for the rare doubt.  2592 bits hold both sides: 769 digits
 * are 2555 bits, and a halfway point of 54 bits times 5^1092 has 2590.
 */
#define LIMBS 84
#define DIGITS_MAX 768 /* no halfway point has more than 767 */

struct natural {
    unsigned n;
    uint32_t limbs[LIMBS]; /* lowest first */
};

static void multiply_add(struct natural *a, uint32_t factor, uint32_t term)
{
    uint64_t carry = term;

    for (unsigned i = 0; i < a->n; i++) {
        carry += (uint64_t)a->limbs[i] * factor;
        a->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry > 0) {
        assert(a->n < LIMBS);
        a->limbs[a->n++] = (uint32_t)carry;
    }
}

static void multiply_power_of_five(struct natural *a, int k)
{
    for (; k >= 13; k -= 13)
        multiply_add(a, 1220703125, 0);
    for (; k > 0; k--)
        multiply_add(a, 5, 0);
}

static void shift_left(struct natural *a, int bits)
{
    unsigned words = (unsigned)bits / 32;

    multiply_add(a, (uint32_t)1 << (bits % 32), 0);
    assert(a->n + words <= LIMBS);
    memmove(a->limbs + words, a->limbs, a->n * sizeof a->limbs[0]);
    memset(a->limbs, 0, words * sizeof a->limbs[0]);
    a->n += words;
}

static int compare(const struct natural *a, const struct natural *b)
{
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    for (unsigned i = a->n; i-- > 0;) {
        if (a->limbs[i] != b->limbs[i])
            return a->limbs[i] < b->limbs[i] ? -1 : 1;
    }
    return 0;
}

/* The digits [first, end), with a '.' somewhere, times 10^exponent.  The
 * first is not a zero. */
struct digits {
    const unsigned char *first, *end;
    size_t n; /* without the '.' */
    int64_t exponent;
};

/* The digits as an integer times 10^*ret_exponent.  What is beyond
 * DIGITS_MAX can only make it more: a further 1 stands for it. */
static void natural_from_digits(const struct digits *d, struct natural *ret,
                                int *ret_exponent)
{
    size_t n = d->n < DIGITS_MAX ? d->n : DIGITS_MAX, i = 0;
    const unsigned char *p = d->first;
    bool more = false;

    ret->n = 0;
    for (; i < n; p++) {
        if (*p == '.')
            continue;
        multiply_add(ret, 10, (uint32_t)*p - '0');
        i++;
    }
    for (; p < d->end && !more; p++)
        more = *p > '0';
    *ret_exponent = (int)(d->exponent + (int64_t)(d->n - n));
    if (more) {
        multiply_add(ret, 10, 1);
        --*ret_exponent;
    }
}

/* Whether the digits are below (-1), at (0) or above (1) the point halfway
 * between the double of these bits and the next greater one. */
static int compare_with_halfway(const struct digits *d, uint64_t bits)
{
    int field = (int)(bits >> MANTISSA_BITS), exponent, shift;
    uint64_t mantissa = bits & (HIDDEN_BIT - 1);
    struct natural value, halfway;

    if (field > 0)
        mantissa |= HIDDEN_BIT;
    else
        field = 1;
    mantissa = 2 * mantissa + 1;
    halfway.limbs[0] = (uint32_t)mantissa;
    halfway.limbs[1] = (uint32_t)(mantissa >> 32);
    halfway.n = mantissa >> 32 ? 2 : 1;
    natural_from_digits(d, &value, &exponent);
    /* value * 10^exponent against halfway * 2^(field - BIAS - 1) */
    if (exponent > 0)
        multiply_power_of_five(&value, exponent);
    else
        multiply_power_of_five(&halfway, -exponent);
    shift = exponent - (field - BIAS - 1);
    if (shift > 0)
        shift_left(&value, shift);
    else
        shift_left(&halfway, -shift);
    return compare(&value, &halfway);
}

/* The nearest double of more than 19 digits; its bits. */
static uint64_t nearest_of_many(const struct digits *d)
{
    const unsigned char *p = d->first;
    uint64_t head = 0, low, high;
    int64_t exponent = d->exponent + (int64_t)(d->n - 19);
    int order;

    for (int i = 0; i < 19; p++) {
        if (*p == '.')
            continue;
        head = 10 * head + (uint64_t)(*p - '0');
        i++;
    }
    low = nearest(head, exponent);
    high = nearest(head + 1, exponent);
    if (low == high)
        return low;
    order = compare_with_halfway(d, low);
    if (order == 0)
        return low & 1 ? high : low;
    return order < 0 ? low : high;
}

static inline bool is_digit(unsigned char c)
{
    return (unsigned char)(c - '0') < 10;
}

/* The highest bit of each byte that is not below 10, up to the first one:
 * carries only reach bytes above a true hit. */
static inline uint64_t not_digits(uint64_t word)
{
    return ((word + 0x7676767676767676) | word) & 0x8080808080808080;
}

/* The value of 8 digits: pairs, fours and eight are joined side by side. */
static inline uint32_t value_of_eight(uint64_t word)
{
    word = word * 10 + (word >> 8);
    return (
        uint32_t)(((word & 0x000000ff000000ff) * 0x000f424000000064 +
                   (word >> 16 & 0x000000ff000000ff) * 0x0000271000000001) >>
                  32);
}

/* Join a run of digits to *value, modulo 2^64.  Returns its end. */
static inline const unsigned char *
read_digits(const unsigned char *p, const unsigned char *end, uint64_t *value)
{
    static const uint32_t powers[] = {1,     10,     100,     1000,
                                      10000, 100000, 1000000, 10000000};
    uint64_t v = *value;

    while (end - p >= 8) {
        uint64_t word = fm__load8(p) ^ FM__ALL_ZERO_DIGITS;
        uint64_t others = not_digits(word);
        int n;

        if (others) {
            n = __builtin_ctzll(others) / 8;
            /* Right-aligned; in two shifts, as n may be 0. */
            *value = v * powers[n] + value_of_eight(word << 8 << (56 - 8 * n));
            return p + n;
        }
        v = v * 100000000 + value_of_eight(word);
        p += 8;
    }
    for (; is_digit(*p); p++)
        v = 10 * v + (uint64_t)(*p - '0');
    *value = v;
    return p;
}

/* The exponent behind an 'e'; what no double can have is cut to 10^17, so
 * that sums with the length of any text do not overflow.  Returns its end,
 * which is not behind a digit if there is none. */
static const unsigned char *read_exponent(const unsigned char *p,
                                          int64_t *ret_exponent)
{
    bool negative = *p == '-';
    int64_t value = 0;

    if (*p == '-' || *p == '+')
        p++;
    for (; is_digit(*p); p++) {
        if (value < 10000000000000000)
            value = 10 * value + (*p - '0');
    }
    *ret_exponent = negative ? -value : value;
    return p;
}

static struct fm__number fail_at(const unsigned char *p)
{
    return (struct fm__number){.type = FM__NUMBER_NONE, .end = p};
}

/* What was found of a float: value is its digits modulo 2^64. */
struct scan {
    struct digits digits;
    uint64_t value;
    const unsigned char *end;
    bool negative;
};

static struct fm__number make_float(struct scan *s)
{
    struct digits *d = &s->digits;
    uint64_t bits;

    /* Leading zeros do not count. */
    if (d->n > 19) {
        for (; d->first < d->end && (*d->first == '0' || *d->first == '.');
             d->first++)
            d->n -= *d->first == '0';
    }
    if (d->n <= 19)
        bits = nearest(s->value, d->exponent);
    else
        bits = nearest_of_many(d);
    if (bits == INFINITE_BITS)
        return (struct fm__number){.type = FM__NUMBER_INFINITE, .end = s->end};
    bits |= (uint64_t)s->negative << 63;
    return (struct fm__number){
        .type = FM__NUMBER_FLOAT, .end = s->end, .u.number = from_bits(bits)};
}

/* The fraction and exponent of a number whose whole digits are in `s`. */
static struct fm__number read_float(struct scan *s, const unsigned char *end)
{
    const unsigned char *p = s->digits.end, *mark;

    if (*p == '.') {
        mark = p + 1;
        p = read_digits(mark, end, &s->value);
        if (p == mark)
            return fail_at(p);
        s->digits.n += (size_t)(p - mark);
        s->digits.exponent = mark - p;
        s->digits.end = p;
    }
    if (*p == 'e' || *p == 'E') {
        int64_t exponent;

        p = read_exponent(p + 1, &exponent);
        if (!is_digit(p[-1]))
            return fail_at(p);
        s->digits.exponent += exponent;
    }
    s->end = p;
    return make_float(s);
}

struct fm__number fm__number_read(const unsigned char *p,
                                  const unsigned char *end)
{
    bool negative = *p == '-';
    struct scan s = {.negative = negative};
    const unsigned char *first = p + negative;
    uint64_t limit = (uint64_t)INT64_MAX + negative;

    if (*first == '0')
        p = first + 1;
    else
        p = read_digits(first, end, &s.value);
    if (p == first || is_digit(*p)) /* none, or behind a leading zero? */
        return fail_at(p);
    s.digits.first = first;
    s.digits.end = p;
    s.digits.n = (size_t)(p - first);
    if (*p == '.' || *p == 'e' || *p == 'E')
        return read_float(&s, end);
    s.end = p;
    if (s.digits.n > 19 || s.value > limit)
        return make_float(&s);
    if (negative)
        s.value = 0 - s.value;
    return (struct fm__number){
        .type = FM__NUMBER_INTEGER, .end = p, .u.integer = (int64_t)s.value};
}
