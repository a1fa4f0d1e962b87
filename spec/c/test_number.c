/* SPDX-License-Identifier: MIT */
#include "test.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#ifdef __SSE2__
#include <xmmintrin.h>
#endif

#include "wire/number.h"
#include "wire/powers.h"

#define RANDOM_COUNT 200000

static uint64_t seed = 88172645463325252u;

static uint64_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static uint64_t bits_of(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double from_bits(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Any bits, and many of the kinds that are rare among them. */
static double random_double(int i)
{
    double value;

    do {
        uint64_t bits = random_bits();

        if (i % 5 == 1) /* few bits in the mantissa */
            bits &= ~(((uint64_t)1 << (random_bits() % 53)) - 1);
        if (i % 5 == 2) /* subnormal */
            bits &= 0x800fffffffffffffu;
        value = from_bits(bits);
        if (i % 5 == 3) /* few decimal digits */
            value = (double)(int64_t)(bits >> 40) / 1000;
        if (i % 5 == 4) /* of ordinary size */
            value = (double)(int64_t)bits / 4503599627370496.0;
    } while (!isfinite(value));
    return value;
}

static const char *format(double value)
{
    static char text[FM__NUMBER_ROOM + 1];
    size_t len;

    memset(text, '#', sizeof text);
    len = fm__number_format(value, text);
    CHECK(len <= FM__NUMBER_SIZE);
    CHECK(text[FM__NUMBER_ROOM] == '#');
    text[len] = '\0';
    return text;
}

/* From memory that ends behind the newline, so that sanitizers see more. */
static struct fm__number read_bytes(const char *text, size_t len)
{
    unsigned char *copy = malloc(len + 1);
    struct fm__number number;

    CHECK(copy);
    memcpy(copy, text, len);
    copy[len] = '\n';
    number = fm__number_read(copy, copy + len + 1);
    CHECK(number.end <= copy + len);
    if (number.type != FM__NUMBER_NONE && number.end != copy + len)
        number.type = FM__NUMBER_NONE;
    free(copy);
    return number;
}

static struct fm__number read_text(const char *text)
{
    return read_bytes(text, strlen(text));
}

static void check_reads(const char *text, double value)
{
    struct fm__number number = read_text(text);

    if (number.type != FM__NUMBER_FLOAT ||
        bits_of(number.u.number) != bits_of(value))
        test_fail(__FILE__, __LINE__, text);
}

static void check_reads_as_strtod(const char *text)
{
    double value = strtod(text, NULL);

    if (isfinite(value))
        check_reads(text, value);
    else
        CHECK_INT(read_text(text).type, FM__NUMBER_INFINITE);
}

/* -------------------------------------------------------------- the table */

#define WORDS 40

struct natural {
    uint32_t words[WORDS]; /* lowest first */
};

static void times(struct natural *a, uint32_t factor)
{
    uint64_t carry = 0;

    for (int i = 0; i < WORDS; i++) {
        carry += (uint64_t)a->words[i] * factor;
        a->words[i] = (uint32_t)carry;
        carry >>= 32;
    }
    CHECK(carry == 0);
}

static int bit(const struct natural *a, int i)
{
    return i < 0 ? 0 : (int)(a->words[i / 32] >> (i % 32) & 1);
}

static int bit_length(const struct natural *a)
{
    int i = WORDS * 32;

    while (i > 0 && !bit(a, i - 1))
        i--;
    return i;
}

static bool subtract_if_not_less(struct natural *a, const struct natural *b)
{
    struct natural rest;
    int64_t borrow = 0;

    for (int i = 0; i < WORDS; i++) {
        borrow += (int64_t)a->words[i] - b->words[i];
        rest.words[i] = (uint32_t)borrow;
        borrow >>= 32;
    }
    if (borrow < 0)
        return false;
    *a = rest;
    return true;
}

static void push_bit(uint64_t entry[2], int b)
{
    entry[0] = entry[0] << 1 | entry[1] >> 63;
    entry[1] = entry[1] << 1 | (uint64_t)b;
}

static void compute_power(int k, uint64_t entry[2])
{
    struct natural power = {.words = {1}}, rest = {.words = {0}};
    int len;

    for (int i = 0; i < abs(k); i++)
        times(&power, 10);
    len = bit_length(&power);
    rest.words[(len - 1) / 32] = (uint32_t)1 << ((len - 1) % 32);
    for (int i = 1; i <= 128; i++) {
        if (k >= 0) {
            push_bit(entry, bit(&power, len - i));
            continue;
        }
        times(&rest, 2);
        push_bit(entry, subtract_if_not_less(&rest, &power));
    }
    if (k >= -27 && k < 0) {
        entry[1]++;
        entry[0] += entry[1] == 0;
    }
}

TEST(the_table_of_powers_is_what_its_formula_says)
{
    for (int k = FM__POWERS_MIN; k <= FM__POWERS_MAX; k++) {
        uint64_t entry[2] = {0, 0};
        struct fm__wide power = fm__power_of_ten(k);

        compute_power(k, entry);
        CHECK(power.high == entry[0] && power.low == entry[1]);
    }
}

/* --------------------------------------------------------------- integers */

TEST(integers_are_written_as_printf_does_and_read_back)
{
    static const int64_t edges[] = {0,
                                    1,
                                    -1,
                                    9,
                                    10,
                                    99999999,
                                    100000000,
                                    INT64_MAX,
                                    INT64_MIN,
                                    INT32_MIN,
                                    999999999,
                                    -100000000,
                                    9999999999999999,
                                    10000000000000000};
    char text[FM__NUMBER_ROOM + 1], expected[32];

    for (int i = 0; i < RANDOM_COUNT; i++) {
        size_t n_edges = sizeof edges / sizeof edges[0], len;
        int64_t value = (int64_t)(random_bits() >> (random_bits() % 64));
        struct fm__number number;

        if (i % 2)
            value = -value;
        if ((size_t)i < n_edges)
            value = edges[i];
        len = fm__integer_format(value, text);
        CHECK(len <= FM__INTEGER_SIZE);
        text[len] = '\0';
        (void)snprintf(expected, sizeof expected, "%lld", (long long)value);
        CHECK_STR(text, expected);
        number = read_text(text);
        CHECK_INT(number.type, FM__NUMBER_INTEGER);
        CHECK_INT(number.u.integer, value);
    }
}

TEST(whole_numbers_beyond_64_bits_are_read_as_floats)
{
    CHECK_INT(read_text("9223372036854775807").type, FM__NUMBER_INTEGER);
    CHECK_INT(read_text("-9223372036854775808").type, FM__NUMBER_INTEGER);
    check_reads("9223372036854775808", 9223372036854775808.0);
    check_reads("-9223372036854775809", -9223372036854775808.0);
    check_reads("18446744073709551615", 18446744073709551616.0);
    check_reads("18446744073709551616", 18446744073709551616.0);
    check_reads("18446744073709551617", 18446744073709551616.0);
    check_reads("100000000000000000000000", 1e23);
}

/* ---------------------------------------------------------------- writing */

TEST(doubles_are_written_in_these_forms)
{
    CHECK_STR(format(0.0), "0.0");
    CHECK_STR(format(-0.0), "-0.0");
    CHECK_STR(format(1), "1.0");
    CHECK_STR(format(-1), "-1.0");
    CHECK_STR(format(0.1), "0.1");
    CHECK_STR(format(0.1 + 0.2), "0.30000000000000004");
    CHECK_STR(format(100), "100.0");
    CHECK_STR(format(1.5e-5), "0.000015");
    CHECK_STR(format(1e-6), "1e-6");
    CHECK_STR(format(1e15), "1000000000000000.0");
    CHECK_STR(format(9007199254740992.0), "9007199254740992.0");
    CHECK_STR(format(9007199254740994.0), "9007199254740994.0");
    CHECK_STR(format(1e16), "1e16");
    CHECK_STR(format(1e23), "1e23");
    CHECK_STR(format(-1.2345678901234567e-308), "-1.2345678901234567e-308");
    CHECK_STR(format(1.2345678901234568e-5), "0.000012345678901234568");
    CHECK_STR(format(5e-324), "5e-324");
    CHECK_STR(format(DBL_MIN), "2.2250738585072014e-308");
    CHECK_STR(format(DBL_MAX), "1.7976931348623157e308");
    CHECK_STR(format(9007199254740993e1), "9.007199254740994e16");
}

TEST(every_double_reads_back_to_the_same_bits)
{
    for (int i = 0; i < RANDOM_COUNT; i++) {
        double value = random_double(i);
        const char *text = format(value);

        CHECK(strpbrk(text, ".e"));
        CHECK(bits_of(strtod(text, NULL)) == bits_of(value));
        check_reads(text, value);
    }
}

TEST(all_powers_of_two_read_back_to_the_same_bits)
{
    for (int i = 0; i < 52 + 2046; i++) {
        uint64_t bits = i < 52 ? (uint64_t)1 << i : (uint64_t)(i - 51) << 52;

        for (uint64_t near = bits - 1; near != bits + 2; near++)
            check_reads(format(from_bits(near)), from_bits(near));
    }
}

/* The digits that count, without point, exponent and zeros at both ends. */
static void digits_of(const char *text, char *digits)
{
    size_t n = 0;

    for (; *text && *text != 'e'; text++) {
        if (*text >= '0' && *text <= '9' && (n > 0 || *text != '0'))
            digits[n++] = *text;
    }
    while (n > 0 && digits[n - 1] == '0')
        n--;
    digits[n] = '\0';
}

TEST(no_shorter_digits_and_no_nearer_ones_would_do)
{
    for (int i = 0; i < RANDOM_COUNT; i++) {
        double value = random_double(i);
        char text[64], expected[64], digits[64];
        int precision = -1;

        do
            (void)snprintf(text, sizeof text, "%.*e", ++precision, value);
        while (strtod(text, NULL) != value);
        digits_of(text, expected);
        digits_of(format(value), digits);
        CHECK(strlen(digits) <= strlen(expected));
        if (strlen(digits) == strlen(expected))
            CHECK_STR(digits, expected);
    }
}

/* ---------------------------------------------------------------- reading */

TEST(doubles_are_read_as_strtod_does)
{
    for (int i = 0; i < RANDOM_COUNT; i++) {
        char text[64];
        size_t n = 0, digits = 1 + random_bits() % 30;

        if (random_bits() % 2)
            text[n++] = '-';
        text[n++] = (char)('1' + random_bits() % 9);
        text[n++] = '.';
        for (size_t d = 0; d < digits; d++)
            text[n++] = (char)('0' + random_bits() % 10);
        (void)snprintf(text + n, sizeof text - n, "%c%d", "eE"[i % 2],
                       (int)(random_bits() % 670) - 350);
        check_reads_as_strtod(text);
    }
}

TEST(edges_of_the_range_are_read_exactly)
{
    static const char *const texts[] = {
        "2.4703282292062327e-324",
        "2.4703282292062328e-324",
        "4.94e-324",
        "2.2250738585072011e-308",
        "2.2250738585072012e-308",
        "2.2250738585072014e-308",
        "1.7976931348623157e308",
        "1.7976931348623158e308",
        "1.7976931348623159e308",
        "1e308",
        "1e309",
        "1e-324",
        "1e999",
        "-1e-999",
        "0e999999999999999999999",
        "0.0e-99999999999999999999",
        "1e-99999999999999999999",
        "123456789012345678901234567890e-340",
        "9007199254740993.0",
        "9007199254740992.999999999999999",
        "9007199254740993.00000000000000000000000000000000000000000000001",
        "0.5",
        "1.0E+2",
        "1e23",
        "8.5e22",
        "9223372036854775807.5",
        "9999999999999999999.9",
        "99999999999999999999e-1"};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        check_reads_as_strtod(texts[i]);
}

/* The point halfway between two neighbours, just below it and just above. */
static void check_halfway(uint64_t bits)
{
    static char text[1400], near[1400];
    long double low = from_bits(bits), high = from_bits(bits + 1);
    char *exponent;
    size_t len;

    /* 780 digits hold it exactly; long double has a bit to spare. */
    (void)snprintf(text, sizeof text, "%.780Le", (low + high) / 2);
    check_reads_as_strtod(text);
    exponent = strchr(text, 'e');
    len = (size_t)(exponent - text);
    (void)snprintf(near, sizeof near, "%.*s00001%s", (int)len, text, exponent);
    check_reads_as_strtod(near);
    while (text[len - 1] == '0')
        len--;
    if (text[len - 1] != '.')
        text[len - 1]--;
    (void)snprintf(near, sizeof near, "%.*s99999%s", (int)len, text, exponent);
    check_reads_as_strtod(near);
}

TEST(a_tie_goes_to_even_however_many_digits_tell_of_it)
{
    CHECK(LDBL_MANT_DIG > DBL_MANT_DIG);
    for (int i = 0; i < 5000; i++) {
        uint64_t bits = bits_of(fabs(random_double(i)));

        if (bits < bits_of(DBL_MAX))
            check_halfway(bits);
    }
    for (uint64_t bits = 0; bits < 50; bits++)
        check_halfway(bits);
}

TEST(numbers_of_any_length_are_read)
{
    size_t len = 1000000;
    char *text = malloc(len + 8);
    struct fm__number number;

    CHECK(text);
    memset(text, '9', len);
    text[400] = '\0';
    CHECK_INT(read_text(text).type, FM__NUMBER_INFINITE);
    text[300] = '\0';
    check_reads_as_strtod(text);
    memset(text, '9', len);
    text[1] = '.';
    number = read_bytes(text, len);
    CHECK_INT(number.type, FM__NUMBER_FLOAT);
    CHECK(number.u.number == 10);
    memset(text, '0', len);
    text[1] = '.';
    memcpy(text + len, "1e999990", 8);
    number = read_bytes(text, len + 8);
    CHECK_INT(number.type, FM__NUMBER_FLOAT);
    CHECK(number.u.number == 1e-9);
    free(text);
}

TEST(what_is_no_json_number_is_refused)
{
    static const char *const texts[] = {"",
                                        "-",
                                        "+1",
                                        "01",
                                        "-01",
                                        "00",
                                        "1.",
                                        ".5",
                                        "1.e1",
                                        "1e",
                                        "1e+",
                                        "1e-",
                                        "1E",
                                        "0x10",
                                        "nan",
                                        "inf",
                                        "-inf",
                                        "--1",
                                        "1_0",
                                        "1,5",
                                        "1e1.",
                                        "1.5.",
                                        "1e5e",
                                        "Infinity",
                                        " 1",
                                        "1 ",
                                        "-.5",
                                        "1.5e",
                                        "12345678901234567890.",
                                        "0.e1",
                                        "1f",
                                        "0b1",
                                        "1e 5"};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (read_text(texts[i]).type != FM__NUMBER_NONE)
            test_fail(__FILE__, __LINE__, texts[i]);
    }
}

/* ------------------------------------------------------- the host's state */

TEST(numbers_do_not_follow_the_locale)
{
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8",
                                        "fr_FR.UTF-8", "de_DE"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!setlocale(LC_ALL, names[i]))
            continue;
        CHECK_STR(format(1.5), "1.5");
        check_reads("1.5", 1.5);
    }
}

#ifdef __SSE2__

TEST(numbers_do_not_follow_the_rounding_mode)
{
    static const unsigned modes[] = {_MM_ROUND_UP, _MM_ROUND_DOWN,
                                     _MM_ROUND_TOWARD_ZERO};

    for (int i = 0; i < 30000; i++) {
        double value = random_double(i);
        char text[64];

        (void)snprintf(text, sizeof text, "%s", format(value));
        _MM_SET_ROUNDING_MODE(modes[i % 3]);
        CHECK_STR(format(value), text);
        check_reads(text, value);
        _MM_SET_ROUNDING_MODE(_MM_ROUND_NEAREST);
    }
}

#endif
