/* SPDX-License-Identifier: MIT */
#include "test.h"

#include "fork_map.h"
#include "wire/binary.h"
#include "wire/buffer.h"

/* -------------------------------------------------------------- writing */

static struct fm__buffer hex_buffer;
static struct fm__buffer_sink hex_sink;
static struct fm__sink *const hex_out = &hex_sink.sink;

static void begin_hex(void)
{
    fm__buffer_init(&hex_buffer, 1 << 20);
    fm__buffer_sink_init(&hex_sink, &hex_buffer);
    CHECK_INT(hex_out->restart(hex_out, 0), 0);
}

static const char *end_hex(void)
{
    static char text[1 << 16];
    size_t i;

    CHECK_INT(fm__buffer_sink_flush(&hex_sink), 0);
    CHECK(hex_buffer.len < sizeof text / 2);
    for (i = 0; i < hex_buffer.len; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", hex_buffer.data[i]);
    text[2 * i] = '\0';
    fm__buffer_done(&hex_buffer);
    return text;
}

/* What the call writes to `hex_out`, in hex. */
#define HEX_OF(call) (begin_hex(), CHECK_INT(call, 0), end_hex())

TEST(binary_writes_scalars_as_documented)
{
    CHECK_STR(HEX_OF(fm__binary_write_begin(hex_out, 2)), "0102");
    CHECK_STR(HEX_OF(fm__binary_write_begin(hex_out, 300)), "01ac02");
    CHECK_STR(HEX_OF(fm__binary_write_end(hex_out, 1)), "01");
    CHECK_STR(HEX_OF(fm__binary_write_nil(hex_out)), "c0");
    CHECK_STR(HEX_OF(fm__binary_write_boolean(hex_out, false)), "c1");
    CHECK_STR(HEX_OF(fm__binary_write_boolean(hex_out, true)), "c2");
    CHECK_STR(HEX_OF(fm__binary_write_null(hex_out)), "c3");
    CHECK_STR(HEX_OF(fm__binary_write_number(hex_out, 1.0)),
              "c8000000000000f03f");
    CHECK_STR(HEX_OF(fm__binary_write_string(hex_out, "ab", 2)), "826162");
    CHECK_STR(HEX_OF(fm__binary_write_reference(hex_out, 200)), "ccc801");
    CHECK_STR(HEX_OF(fm__binary_write_empty(hex_out, false)), "ce");
    CHECK_STR(HEX_OF(fm__binary_write_empty(hex_out, true)), "cf");
}

TEST(binary_writes_integers_in_the_fewest_bytes)
{
    CHECK_STR(HEX_OF(fm__binary_write_integer(hex_out, 0)), "00");
    CHECK_STR(HEX_OF(fm__binary_write_integer(hex_out, 127)), "7f");
    CHECK_STR(HEX_OF(fm__binary_write_integer(hex_out, -1)), "ff");
    CHECK_STR(HEX_OF(fm__binary_write_integer(hex_out, -32)), "e0");
    CHECK_STR(HEX_OF(fm__binary_write_integer(hex_out, -33)), "c4df");
    CHECK_STR(HEX_OF(fm__binary_write_integer(hex_out, -128)), "c480");
    CHECK_STR(HEX_OF(fm__binary_write_integer(hex_out, 128)), "c58000");
    CHECK_STR(HEX_OF(fm__binary_write_integer(hex_out, 32767)), "c5ff7f");
    CHECK_STR(HEX_OF(fm__binary_write_integer(hex_out, 32768)), "c600800000");
    CHECK_STR(HEX_OF(fm__binary_write_integer(hex_out, INT32_MIN)),
              "c600000080");
    CHECK_STR(HEX_OF(fm__binary_write_integer(hex_out, INT64_MAX)),
              "c7ffffffffffffff7f");
    CHECK_STR(HEX_OF(fm__binary_write_integer(hex_out, INT64_MIN)),
              "c70000000000000080");
}

TEST(binary_writes_tables_and_keys_as_documented)
{
    CHECK_STR(HEX_OF(fm__binary_write_list(hex_out, 300)), "caac02");
    CHECK_STR(HEX_OF(fm__binary_write_keys(hex_out, 5)), "05");
    CHECK_STR(HEX_OF(fm__binary_write_table(hex_out, 1)), "cb01");
    CHECK_STR(HEX_OF(fm__binary_write_key(hex_out, 5, "ab", 2)), "45026162");
    CHECK_STR(HEX_OF(fm__binary_write_key_again(hex_out, 63)), "3f");
    CHECK_STR(HEX_OF(fm__binary_write_key_integer(hex_out, 5)), "c405");
    CHECK_STR(HEX_OF(fm__binary_write_key_integer(hex_out, 300)), "c52c01");
}

static const char *hex_of_run(int64_t a, int64_t b)
{
    int64_t values[2] = {a, b};

    return HEX_OF(fm__binary_write_integers(hex_out, values, 2));
}

TEST(binary_writes_runs_in_the_narrowest_width_that_holds_all)
{
    double numbers[] = {0.0, -2.0};

    CHECK_STR(hex_of_run(1, -1), "d00201ff");
    CHECK_STR(hex_of_run(127, -128), "d0027f80");
    CHECK_STR(hex_of_run(1, 128), "d10201008000");
    CHECK_STR(hex_of_run(-129, 0), "d1027fff0000");
    CHECK_STR(hex_of_run(32768, 0), "d2020080000000000000");
    CHECK_STR(hex_of_run(INT32_MIN, 0), "d2020000008000000000");
    CHECK_STR(hex_of_run(INT64_C(1) << 31, 0),
              "d30200000080000000000000000000000000");
    CHECK_STR(hex_of_run(INT64_MIN, INT64_MAX),
              "d3020000000000000080ffffffffffffff7f");
    CHECK_STR(HEX_OF(fm__binary_write_numbers(hex_out, numbers, 2)),
              "cd02000000000000000000000000000000c0");
}

/* A sink of exactly FM__SINK_ROOM bytes at a time, which ends after `left`
 * pieces with FM_ECLOSED. */
struct small_sink {
    struct fm__sink sink;
    unsigned char room[FM__SINK_ROOM], all[8192];
    size_t len;
    int left;
};

static int small_more(struct fm__sink *base)
{
    struct small_sink *sink = (struct small_sink *)base;
    size_t n = (size_t)(base->next - sink->room);

    memcpy(sink->all + sink->len, sink->room, n);
    sink->len += n;
    base->next = sink->room;
    base->end = sink->room + sizeof sink->room;
    return sink->left-- > 0 ? 0 : FM_ECLOSED;
}

static void small_init(struct small_sink *sink, int left)
{
    memset(sink, 0, sizeof *sink);
    sink->sink.more = small_more;
    sink->sink.next = sink->room;
    sink->sink.end = sink->room;
    sink->left = left;
}

/* Something of everything, long and short. */
static int write_samples(struct fm__sink *sink)
{
    int64_t integers[FM__BINARY_RUN];
    double numbers[FM__BINARY_RUN];
    char text[500];
    int i, rc = fm__binary_write_begin(sink, 7);

    memset(text, 'x', sizeof text);
    for (i = 0; i < FM__BINARY_RUN; i++) {
        integers[i] = (int64_t)i << 30;
        numbers[i] = i / 4.0;
    }
    if (rc == 0)
        rc = fm__binary_write_list(sink, (size_t)2 * FM__BINARY_RUN);
    if (rc == 0)
        rc = fm__binary_write_integers(sink, integers, FM__BINARY_RUN);
    if (rc == 0)
        rc = fm__binary_write_numbers(sink, numbers, FM__BINARY_RUN);
    if (rc == 0)
        rc = fm__binary_write_keys(sink, 1);
    if (rc == 0)
        rc = fm__binary_write_key(sink, 7, text, 30);
    if (rc == 0)
        rc = fm__binary_write_string(sink, text, sizeof text);
    for (i = 0; i < 3 && rc == 0; i++)
        rc = fm__binary_write_integer(sink, INT64_MIN);
    for (i = 0; i < 3 && rc == 0; i++)
        rc = fm__binary_write_number(sink, 0.1);
    return rc < 0 ? rc : fm__binary_write_end(sink, 0);
}

TEST(binary_writes_the_same_through_a_sink_of_little_room)
{
    static struct small_sink small;

    begin_hex();
    small_init(&small, 1000);
    CHECK_INT(write_samples(&small.sink), 0);
    (void)small_more(&small.sink);
    CHECK_INT(write_samples(hex_out), 0);
    CHECK_INT(fm__buffer_sink_flush(&hex_sink), 0);
    CHECK_INT(small.len, hex_buffer.len);
    CHECK(memcmp(small.all, hex_buffer.data, small.len) == 0);
    fm__buffer_done(&hex_buffer);
}

TEST(binary_returns_what_the_sink_says_whenever_it_fails)
{
    static struct small_sink small;
    int left, rc = -1;

    for (left = 0; rc != 0; left++) {
        small_init(&small, left);
        rc = write_samples(&small.sink);
        CHECK(rc == 0 || rc == FM_ECLOSED);
    }
    CHECK(left > 50);
}

/* -------------------------------------------------------------- reading */

struct text {
    unsigned char *data; /* of exactly `len` bytes: sanitizers see the end */
    size_t len;
};

/* From hex; blanks are skipped. */
static struct text text_of(const char *hex)
{
    struct text text = {malloc(strlen(hex) / 2 + 1), 0};

    CHECK(text.data);
    while (*hex != '\0') {
        if (*hex == ' ') {
            hex++;
            continue;
        }
        char digits[] = {hex[0], hex[1], '\0'};
        char *end;

        text.data[text.len++] = (unsigned char)strtoul(digits, &end, 16);
        CHECK(end == digits + 2);
        hex += 2;
    }
    text.data = realloc(text.data, text.len > 0 ? text.len : 1);
    CHECK(text.data);
    return text;
}

struct description {
    char text[1 << 14];
    size_t len;
};

#define ADD(...)                                                               \
    ((void)(to->len += (size_t)snprintf(                                       \
                to->text + to->len, sizeof to->text - to->len, __VA_ARGS__)))

static void describe_run(const struct fm__event *event, struct description *to)
{
    const unsigned char *p = event->u.run.data;
    size_t i;

    ADD("<");
    for (i = 0; i < event->u.run.n; i++, p += event->u.run.width) {
        if (event->type == FM__EVENT_NUMBERS)
            ADD("%gf,", fm__binary_load_number(p));
        else
            ADD("%lld,",
                (long long)fm__binary_load_signed(p, event->u.run.width));
    }
    ADD("> ");
}

static void describe_event(const struct fm__event *event,
                           struct description *to)
{
    switch (event->type) {
    case FM__EVENT_DONE:
        ADD(".");
        return;
    case FM__EVENT_NIL:
        ADD("nil ");
        return;
    case FM__EVENT_NULL:
        ADD("null ");
        return;
    case FM__EVENT_BOOLEAN:
        ADD(event->u.boolean ? "true " : "false ");
        return;
    case FM__EVENT_INTEGER:
        ADD("%lld ", (long long)event->u.integer);
        return;
    case FM__EVENT_NUMBER:
        ADD("%gf ", event->u.number);
        return;
    case FM__EVENT_STRING:
        ADD("'%.*s' ", (int)event->u.string.len, event->u.string.data);
        return;
    case FM__EVENT_KEY:
        ADD("%u:'%.*s'=", event->u.string.slot, (int)event->u.string.len,
            event->u.string.data);
        return;
    case FM__EVENT_KEY_AGAIN:
        ADD("%u=", event->u.slot);
        return;
    case FM__EVENT_LIST:
        ADD("[%zu ", event->u.open.n_list);
        return;
    case FM__EVENT_TABLE:
        ADD("{%zu ", event->u.open.n_keys);
        return;
    case FM__EVENT_EMPTY:
        ADD(event->u.boolean ? "[] " : "{} ");
        return;
    case FM__EVENT_CLOSE:
        ADD("] ");
        return;
    case FM__EVENT_REFERENCE:
        ADD("#%zu ", event->u.reference);
        return;
    case FM__EVENT_INTEGERS:
    case FM__EVENT_NUMBERS:
        describe_run(event, to);
        return;
    }
    test_fail(__FILE__, __LINE__, "an unknown event");
}

/* The events of a text in short; at the end "." or the reason of failure. */
static const char *describe_text(struct text text,
                                 const struct fm__bounds *bounds)
{
    static struct description description;
    static struct fm__binary_reader reader;
    struct description *to = &description;
    struct fm__event event;
    int rc;

    to->len = 0;
    rc = fm__binary_reader_init(&reader, text.data, text.len, bounds);
    while (rc == 0) {
        rc = fm__binary_reader_next(&reader, &event);
        if (rc < 0)
            break;
        describe_event(&event, to);
        if (event.type == FM__EVENT_DONE)
            break;
    }
    CHECK(fm__binary_reader_offset(&reader) <= text.len);
    if (rc < 0) {
        CHECK(rc == FM_EPROTOCOL || rc == FM_ELIMIT);
        ADD("%s: %s", rc == FM_ELIMIT ? "limit" : "protocol", reader.error);
    }
    return to->text;
}

static const char *describe_bounded(const char *hex, size_t depth, size_t nodes)
{
    struct fm__bounds bounds = {depth, nodes};
    struct text text = text_of(hex);
    const char *result = describe_text(text, &bounds);

    free(text.data);
    return result;
}

static const char *describe(const char *hex)
{
    return describe_bounded(hex, 0, 0);
}

TEST(binary_reads_scalars)
{
    CHECK_STR(describe("0100 00"), ".");
    CHECK_STR(describe("0104 c0 c1 c2 c3 00"), "nil false true null .");
    CHECK_STR(describe("0105 00 7f ff e0 c4df 00"), "0 127 -1 -32 -33 .");
    CHECK_STR(describe("0103 c58000 c600800000 c70000000000000080 00"),
              "128 32768 -9223372036854775808 .");
    CHECK_STR(describe("0102 c8000000000000f03f c8000000000000f07f 00"),
              "1f inff .");
    CHECK_STR(describe("0103 80 826162 c9026162 00"), "'' 'ab' 'ab' .");
}

TEST(binary_reads_tables)
{
    CHECK_STR(describe("0102 ce cf 00"), "{} [] .");
    CHECK_STR(describe("0101 ca 02 05 c0 00 00"), "[2 5 nil ] .");
    CHECK_STR(describe("0101 ca 01 05 01 41 0161 06 00"), "[1 5 1:'a'=6 ] .");
    CHECK_STR(describe("0101 cb 02 41 0161 06 01 07 02"), "{2 1:'a'=6 1=7 ] .");
    CHECK_STR(describe("0101 ca 02 ca 01 01 00 cb 01 41 0161 ce 00 00"),
              "[2 [1 1 ] {1 1:'a'={} ] ] .");
    CHECK_STR(describe("0101 cb 01 ca 01 05 00 06 00"), "{1 [1 5 ] 6 ] .");
}

TEST(binary_reads_runs)
{
    CHECK_STR(describe("0101 ca 04 d0 03 01ff80 07 00 00"),
              "[4 <1,-1,-128,> 7 ] .");
    CHECK_STR(describe("0101 ca 02 d1 01 0080 d2 01 00000080 00 00"),
              "[2 <-32768,> <-2147483648,> ] .");
    CHECK_STR(describe("0101 ca 01 d3 01 ffffffffffffff7f 00 00"),
              "[1 <9223372036854775807,> ] .");
    CHECK_STR(describe("0101 ca 01 cd 01 000000000000f0bf 00 00"),
              "[1 <-1f,> ] .");
}

TEST(binary_refuses_runs_that_do_not_fit_their_list)
{
    const char *why = "[2 protocol: a run that does not fit its list";

    CHECK_STR(describe("0101 ca 02 d0 03 010203 00 00"), why);
    CHECK_STR(describe("0101 ca 02 d0 00 010203 00 00"), why);
    CHECK_STR(describe("0101 ca 02 d0 ffffffffffffffffff01 010203 00 00"), why);
    CHECK_STR(describe("0101 ca 02 cd 02 0102030405060708 01 00 00"),
              "[2 protocol: the text is cut short");
    CHECK_STR(describe("0101 d0 01 01 00"), "protocol: an unknown tag");
}

TEST(binary_reads_references_that_were_announced_to_tables_that_were_begun)
{
    CHECK_STR(describe("0101 ca 02 cc00 ce 00 01"), "[2 #0 {} ] .");
    CHECK_STR(describe("0102 ce cc00 01"), "{} #0 .");
    CHECK_STR(describe("0102 ce cc01 01"),
              "{} protocol: a reference to no table");
    CHECK_STR(describe("0102 ce cc00 00"),
              "{} protocol: an unannounced reference");
}

TEST(binary_refuses_keys_that_no_table_can_have)
{
    CHECK_STR(describe("0101 cb 01 c0 01 00"), "{1 protocol: nil as a key");
    CHECK_STR(describe("0101 cb 01 c4 05 c0 00"),
              "{1 5 protocol: nil as the value of a key");
    CHECK_STR(describe("0101 cb 01 c8000000000000f87f 01 00"),
              "{1 protocol: a float that cannot be a key");
    CHECK_STR(describe("0101 cb 01 c80000000000000080 01 00"),
              "{1 protocol: a float that cannot be a key");
    CHECK_STR(describe("0101 cb 01 c8000000000000e0c3 01 00"), /* -2^63 */
              "{1 protocol: a float that cannot be a key");
    CHECK_STR(describe("0101 cb 01 c8000000000000e043 01 00"), /* 2^63 */
              "{1 9.22337e+18f 1 ] .");
    CHECK_STR(describe("0101 cb 01 c8000000000000f07f 01 00"), "{1 inff 1 ] .");
    CHECK_STR(describe("0101 cb 01 c8000000000000e03f 01 00"), "{1 0.5f 1 ] .");
    CHECK_STR(describe("0101 cb 01 05 01 00"),
              "{1 protocol: an unannounced key");
}

TEST(binary_refuses_counts_that_the_rest_of_the_text_cannot_hold)
{
    const char *why = "protocol: a count that the text cannot hold";

    CHECK_STR(describe("0103 01 02 00"), why);
    CHECK_STR(describe("01 ffffffffffffffffff01 02 00"), why);
    CHECK_STR(describe("0101 ca 03 01 02 00"), why);
    CHECK_STR(describe("0101 cb 02 41 00 01 00"), why);
    CHECK_STR(describe("0101 cb ffffffffffffffff7f 41 00 01 00"), why);
    CHECK_STR(describe("0101 c9 04 010203 00"),
              "protocol: the text is cut short");
    CHECK_STR(describe("0101 c9 ffffffffffffffffff01 010203 00"),
              "protocol: the text is cut short");
    CHECK_STR(describe("0101 c9 ffffffffffffffffff02 010203 00"),
              "protocol: a number of more than 64 bits");
    CHECK_STR(describe("0101 c9 8080808080808080808000 010203 00"),
              "protocol: a number of more than 64 bits");
}

TEST(binary_adds_up_what_all_open_tables_promise)
{
    /* The outer list needs 3 more bytes and its count, so the inner one may
     * have 2 items and not 3 of what is left. */
    CHECK_STR(describe("0101 ca 04 ca 02 01 02 00 01 02 03 00 00"),
              "[4 [2 1 2 ] 1 2 3 ] .");
    CHECK_STR(describe("0101 ca 04 ca 04 01 02 00 01 02 03 00 00"),
              "[4 protocol: a count that the text cannot hold");
    CHECK_STR(describe("0103 ca 05 01 01 01 01 00"),
              "protocol: a count that the text cannot hold");
}

TEST(binary_refuses_what_surrounds_a_text_wrongly)
{
    CHECK_STR(describe(""), "protocol: the text is cut short");
    CHECK_STR(describe("01"), "protocol: the text is cut short");
    CHECK_STR(describe("0100"), "protocol: the text is cut short");
    CHECK_STR(describe("0200 00"), "protocol: an unknown version");
    CHECK_STR(describe("0100 04"), "protocol: unknown flags");
    CHECK_STR(describe("0101 05 06 00"),
              "5 protocol: bytes after the last value");
    CHECK_STR(describe("0101 d4 00"), "protocol: an unknown tag");
    CHECK_STR(describe("0101 df 00"), "protocol: an unknown tag");
}

TEST(binary_bounds_depth_and_values)
{
    CHECK_STR(describe_bounded("0101 ca01 ca01 05 00 00 00", 2, 0),
              "[1 [1 5 ] ] .");
    CHECK_STR(describe_bounded("0101 ca01 ca01 05 00 00 00", 1, 0),
              "[1 limit: nested too deep");
    CHECK_STR(describe_bounded("0101 ca01 ce 00 00", 1, 0),
              "[1 limit: nested too deep");
    CHECK_STR(describe_bounded("0101 ca03 d003 010203 00 00", 0, 3),
              "[3 limit: too many values");
    CHECK_STR(describe_bounded("0101 ca03 d003 010203 00 00", 0, 6),
              "[3 <1,2,3,> ] .");
}

TEST(binary_bounds_depth_by_default)
{
    char hex[8 * FM__DEPTH_MAX + 64];
    size_t depth, i;

    for (depth = FM__DEPTH_MAX; depth <= FM__DEPTH_MAX + 1; depth++) {
        size_t len = (size_t)snprintf(hex, sizeof hex, "0101");
        const char *result;

        for (i = 0; i < depth; i++)
            len += (size_t)snprintf(hex + len, sizeof hex - len, "ca01");
        len += (size_t)snprintf(hex + len, sizeof hex - len, "05");
        for (i = 0; i <= depth; i++)
            len += (size_t)snprintf(hex + len, sizeof hex - len, "00");
        result = describe(hex);
        CHECK_INT(strstr(result, "limit: nested too deep") != NULL,
                  depth > FM__DEPTH_MAX);
    }
}

TEST(binary_reads_what_it_wrote_and_refuses_it_cut_short_anywhere)
{
    struct text text;
    const char *result;
    size_t len;

    begin_hex();
    CHECK_INT(write_samples(hex_out), 0);
    CHECK_INT(fm__buffer_sink_flush(&hex_sink), 0);
    text.data = hex_buffer.data;
    text.len = hex_buffer.len;
    result = describe_text(text, NULL);
    CHECK(strstr(result, "<0,1073741824,2147483648,") != NULL);
    CHECK(strstr(result, "<0f,0.25f,0.5f,") != NULL);
    CHECK_STR(result + strlen(result) - 2, " .");
    for (len = 0; len < hex_buffer.len; len++) {
        text.len = len;
        text.data = malloc(len > 0 ? len : 1);
        CHECK(text.data);
        memcpy(text.data, hex_buffer.data, len);
        CHECK(strstr(describe_text(text, NULL), "protocol: ") != NULL);
        free(text.data);
    }
    fm__buffer_done(&hex_buffer);
}
