/* SPDX-License-Identifier: MIT */
#include "test.h"

#include "fork_map.h"
#include "json_text.h"

/* ---------------------------------------------------- a sink for the specs */

/* Gives 64 bytes or a few more at a time and collects them in `data`. */
struct collector {
    struct fm__sink sink;
    unsigned char window[2 * FM__SINK_ROOM];
    char *data;
    size_t len, size;
    int pieces; /* how many `more` gives before it fails */
};

static int collect(struct fm__sink *sink)
{
    struct collector *c = (struct collector *)(void *)sink;
    size_t n = (size_t)(sink->next - c->window);

    CHECK(c->len + n <= c->size);
    CHECK(sink->next <= sink->end);
    memcpy(c->data + c->len, c->window, n);
    c->len += n;
    sink->next = c->window;
    sink->end = c->window + FM__SINK_ROOM + c->len % FM__SINK_ROOM;
    return c->pieces-- > 0 ? 0 : FM_ECLOSED;
}

static void collector_init(struct collector *c, size_t size)
{
    memset(c, 0, sizeof *c);
    c->sink.more = collect;
    c->sink.next = c->sink.end = c->window;
    c->data = malloc(size);
    c->size = size;
    c->pieces = INT32_MAX;
    CHECK(c->data);
}

/* ------------------------------------------------------------------ UTF-8 */

/* The definition of UTF-8 in RFC 3629, as a slow table. */
static bool is_utf8(const unsigned char *s, size_t n)
{
    if (n == 2)
        return s[0] >= 0xc2 && s[0] <= 0xdf && s[1] >= 0x80 && s[1] <= 0xbf;
    if (s[2] < 0x80 || s[2] > 0xbf || s[1] < 0x80 || s[1] > 0xbf)
        return false;
    if (n == 3)
        return s[0] >= 0xe0 && s[0] <= 0xef && (s[0] != 0xe0 || s[1] > 0x9f) &&
               (s[0] != 0xed || s[1] < 0xa0);
    return s[3] >= 0x80 && s[3] <= 0xbf && s[0] >= 0xf0 && s[0] <= 0xf4 &&
           (s[0] != 0xf0 || s[1] > 0x8f) && (s[0] != 0xf4 || s[1] < 0x90);
}

/* Both directions must think the same of `n` bytes between others. */
static void check_utf8(struct collector *c, const unsigned char *bytes,
                       size_t n, size_t before)
{
    char text[64], string[64];
    bool valid = is_utf8(bytes, n);
    int rc;

    text[0] = '"';
    memset(text + 1, 'x', before);
    memcpy(text + 1 + before, bytes, n);
    memcpy(text + 1 + before + n, "y\"\n", 3);
    CHECK((read_one_string(text, before + n + 4, string) >= 0) == valid);
    c->len = 0;
    c->sink.next = c->sink.end = c->window;
    rc = fm__json_write_string(&c->sink, text + 1, before + n + 1);
    CHECK_INT(rc, valid ? 0 : FM_EENCODE);
}

TEST(exactly_the_utf8_of_the_standard_is_read_and_written)
{
    static const unsigned char edges[] = {0x00, 0x22, 0x7f, 0x80, 0x8f, 0x90,
                                          0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    size_t n_edges = sizeof edges;
    struct collector c;

    collector_init(&c, 1000);
    for (unsigned first = 0x80; first < 0x100; first++) {
        for (size_t i = 0; i < n_edges * n_edges * n_edges; i++) {
            unsigned char s[4] = {(unsigned char)first, edges[i % n_edges],
                                  edges[i / n_edges % n_edges],
                                  edges[i / n_edges / n_edges]};
            size_t n = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

            check_utf8(&c, s, n, i % 20);
        }
    }
    free(c.data);
}

TEST(a_character_that_is_cut_off_by_the_end_is_refused)
{
    static const char character[] = "\xf0\x9f\x98\x80";
    char text[64], string[64];

    for (size_t n = 1; n < 4; n++) {
        for (size_t before = 0; before < 20; before++) {
            struct collector c;

            text[0] = '"';
            memset(text + 1, 'x', before);
            memcpy(text + 1 + before, character, n);
            text[1 + before + n] = '"';
            text[2 + before + n] = '\n';
            CHECK_INT(read_one_string(text, before + n + 3, string), -1);
            collector_init(&c, 1000);
            CHECK_INT(fm__json_write_string(&c.sink, text + 1, before + n),
                      FM_EENCODE);
            free(c.data);
        }
    }
}

/* ----------------------------------------------------------------- strings */

/* What fm__json_write_string() must write, one character after the other. */
static size_t quote_slowly(const char *data, size_t len, char *to)
{
    char *p = to;

    *p++ = '"';
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)data[i];
        const char *letter = c ? strchr("\bb\tt\nn\ff\rr\"\"\\\\", c) : NULL;

        if (letter && (c < 0x20 || c == '"' || c == '\\'))
            p += sprintf(p, "\\%c", letter[1]);
        else if (c < 0x20)
            p += sprintf(p, "\\u%04x", c);
        else
            *p++ = (char)c;
    }
    *p++ = '"';
    return (size_t)(p - to);
}

static void check_quoted(const char *data, size_t len, size_t used)
{
    char expected[1024], string[256];
    size_t n = quote_slowly(data, len, expected);
    struct collector c;

    collector_init(&c, 2048);
    for (size_t i = 0; i < used; i++)
        CHECK_INT(fm__sink_write(&c.sink, "#", 1), 0);
    CHECK_INT(fm__json_write_string(&c.sink, data, len), 0);
    CHECK_INT(fm__sink_write(&c.sink, "\n", 1), 0);
    (void)collect(&c.sink);
    CHECK_INT(c.len, used + n + 1);
    CHECK(memcmp(c.data + used, expected, n) == 0);
    CHECK_INT(read_one_string(c.data + used, n + 1, string), len);
    CHECK(memcmp(string, data, len) == 0);
    free(c.data);
}

TEST(strings_are_quoted_whatever_is_where_in_them)
{
    static const char *const specials[] = {
        "\"", "\\", "\n", "\x1f", "\xc3\xa9", "\xf0\x9f\x98\x80"};

    for (size_t len = 0; len < 70; len++) {
        for (size_t at = 0; at <= len; at++) {
            char data[80];
            const char *special = specials[(at + len) % 6];
            size_t n = strlen(special);

            /* Bytes just outside the special ones. */
            for (size_t i = 0; i < sizeof data; i++)
                data[i] = " !#[]\x7f~"[i % 7];
            for (size_t i = 0; i < n; i++)
                data[at + i] = special[i];
            check_quoted(data, len < at + n ? at + n : len, len + at);
            check_quoted(data + at + n, len - at, at);
        }
    }
}

TEST(every_byte_below_0x80_is_written_and_read_back)
{
    char data[128];

    for (int i = 0; i < 128; i++)
        data[i] = (char)i;
    check_quoted(data, 128, 0);
    for (int i = 0; i < 128; i++) {
        check_quoted(data + i, 1, 0);
        memset(data, i, 100);
        check_quoted(data, 100, (size_t)i);
        for (int k = 0; k < 128; k++)
            data[k] = (char)k;
    }
}

TEST(an_empty_string_may_have_no_address)
{
    struct collector c;

    collector_init(&c, 16);
    CHECK_INT(fm__json_write_string(&c.sink, NULL, 0), 0);
    (void)collect(&c.sink);
    CHECK(c.len == 2 && memcmp(c.data, "\"\"", 2) == 0);
    free(c.data);
}

TEST(numbers_are_written_into_any_room)
{
    struct collector c;
    size_t len = 0;

    collector_init(&c, 10000);
    for (int i = 0; i < 200; i++) {
        CHECK_INT(fm__json_write_integer(&c.sink, INT64_MIN), 0);
        len += 20;
        CHECK_INT(fm__json_write_number(&c.sink, -1.2345678901234567e-308), 0);
        len += 24;
    }
    (void)collect(&c.sink);
    CHECK_INT(c.len, len);
    for (size_t i = 0; i < len; i += 44)
        CHECK(memcmp(c.data + i, "-9223372036854775808-1.2345678901234567e-308",
                     44) == 0);
    free(c.data);
}

TEST(a_sink_that_fails_ends_every_writer)
{
    static const char data[] = "0123456789012345678901234567890123456789\n\n\n"
                               "0123456789012345678901234567890123456789\n\n\n"
                               "\xc3\xa9\xc3\xa9";
    struct collector c;
    int pieces, rc = FM_ECLOSED;

    for (pieces = 0; rc < 0; pieces++) {
        collector_init(&c, 1000);
        c.pieces = pieces;
        rc = fm__json_write_string(&c.sink, data, sizeof data - 1);
        if (rc < 0)
            CHECK_INT(rc, FM_ECLOSED);
        free(c.data);
    }
    CHECK(pieces > 2);
    collector_init(&c, 1000);
    c.pieces = 0;
    CHECK_INT(fm__json_write_integer(&c.sink, 1), FM_ECLOSED);
    c.sink.next = c.sink.end;
    CHECK_INT(fm__json_write_number(&c.sink, 1), FM_ECLOSED);
    free(c.data);
}
