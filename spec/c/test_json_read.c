/* SPDX-License-Identifier: MIT */
#include "test.h"

#include "fork_map.h"
#include "os/sys.h"
#include "json_text.h"

static void describe_event(const struct fm__event *event, char *to, size_t size)
{
    switch (event->type) {
    case FM__EVENT_DONE:
        (void)snprintf(to, size, ".");
        break;
    case FM__EVENT_NIL:
        (void)snprintf(to, size, "nil ");
        break;
    case FM__EVENT_NULL:
        (void)snprintf(to, size, "null ");
        break;
    case FM__EVENT_BOOLEAN:
        (void)snprintf(to, size, event->u.boolean ? "true " : "false ");
        break;
    case FM__EVENT_INTEGER:
        (void)snprintf(to, size, "%lld ", (long long)event->u.integer);
        break;
    case FM__EVENT_NUMBER:
        (void)snprintf(to, size, "%.17gf ", event->u.number);
        break;
    case FM__EVENT_STRING:
    case FM__EVENT_KEY:
        (void)snprintf(to, size, "'%.*s'%s", (int)event->u.string.len,
                       event->u.string.data,
                       event->type == FM__EVENT_KEY ? "=" : " ");
        break;
    case FM__EVENT_LIST:
        (void)snprintf(to, size, "[ ");
        break;
    case FM__EVENT_TABLE:
        (void)snprintf(to, size, "{ ");
        break;
    case FM__EVENT_CLOSE:
        (void)snprintf(to, size, "] ");
        break;
    default:
        test_fail(__FILE__, __LINE__, "an event of no JSON text");
    }
}

/* The events of a text, in short, and at its end "." or the failure. */
static const char *describe(const char *data, size_t len,
                            const struct fm__bounds *bounds)
{
    static char description[1 << 16];
    struct text text = text_of(data, len);
    struct fm__json_reader reader;
    struct fm__event event;
    size_t n = 0;
    int rc;

    fm__json_reader_init(&reader, text.data, len, bounds);
    do {
        CHECK(n < sizeof description / 2);
        rc = fm__json_reader_next(&reader, &event);
        if (rc < 0)
            (void)snprintf(description + n, sizeof description - n, "%s %zu %s",
                           fm_err_name(rc), fm__json_reader_offset(&reader),
                           reader.error);
        else
            describe_event(&event, description + n, sizeof description - n);
        n += strlen(description + n);
    } while (rc == 0 && event.type != FM__EVENT_DONE);
    /* Both ends are for ever. */
    CHECK_INT(fm__json_reader_next(&reader, &event), rc);
    fm__json_reader_done(&reader);
    fm__json_reader_done(&reader);
    free(text.data);
    return description;
}

static void check_reads(const char *text, const char *description)
{
    CHECK_STR(describe(text, strlen(text), NULL), description);
}

/* Is the text refused, at this offset? */
static void check_refuses(const char *text, size_t len, size_t offset)
{
    const char *failure = strstr(describe(text, len, NULL), "FM_EPROTOCOL ");

    if (!failure || strtoul(failure + 13, NULL, 10) != offset) {
        (void)fprintf(stderr, "%s", describe(text, len, NULL));
        test_fail(__FILE__, __LINE__, text);
    }
}

TEST(values_are_read_one_event_at_a_time)
{
    check_reads("[1,-2.5,3e2,true,false,null,\"a\"]\n",
                "[ 1 -2.5f 300f true false null 'a' ] .");
    check_reads("{\"a\":1,\"b\":{\"\":[]},\"c\":[{},[[]]]}\n",
                "{ 'a'=1 'b'={ ''=[ ] ] 'c'=[ { ] [ [ ] ] ] ] .");
    check_reads(" \t\r[ 1 ,\n\t2 , { \"a\"\r\n: \n1 } ] \t\r\n",
                "[ 1 2 { 'a'=1 ] ] .");
    check_reads("-0\n", "0 .");
    check_reads("-0.0\n", "-0f .");
    check_reads("9223372036854775808\n", "9.2233720368547758e+18f .");
}

TEST(a_text_is_a_sequence_of_lines)
{
    check_reads("", ".");
    check_reads("\n", "nil .");
    check_reads("\n\n", "nil nil .");
    check_reads("1\n\n\"\"\n", "1 nil '' .");
    check_reads("[\n]\n \r\n\t{}\n", "[ ] nil { ] .");
}

static const struct {
    const char *text;
    size_t offset;
} refused[] = {
    {"1", 1},
    {"1 2\n", 2},
    {"[1,]\n", 3},
    {"[,1]\n", 1},
    {"[1 2]\n", 3},
    {"[1,,2]\n", 3},
    {"[1}\n", 2},
    {"{]\n", 1},
    {"]\n", 0},
    {"}\n", 0},
    {",\n", 0},
    {":\n", 0},
    {"{\"a\"}\n", 4},
    {"{\"a\":}\n", 5},
    {"{\"a\":1,}\n", 7},
    {"{,}\n", 1},
    {"{1:2}\n", 1},
    {"{a:1}\n", 1},
    {"{'a':1}\n", 1},
    {"{\"a\" 1}\n", 5},
    {"{\"a\":1 \"b\":2}\n", 7},
    {"{null:1}\n", 1},
    {"{\"a\"::1}\n", 5},
    {"nul\n", 0},
    {"nulll\n", 4},
    {"True\n", 0},
    {"NaN\n", 0},
    {"Infinity\n", 0},
    {"-Infinity\n", 1},
    {"nan\n", 0},
    {"01\n", 1},
    {"0x10\n", 1},
    {"1.\n", 2},
    {"+1\n", 0},
    {".5\n", 0},
    {"1e\n", 2},
    {"-\n", 1},
    {"1e999\n", 0},
    {"[1,-1e400]\n", 3},
    {"// x\n1\n", 0},
    {"[1/*x*/]\n", 2},
    {"\"a\n", 2},
    {"\"a\tb\"\n", 2},
    {"'a'\n", 0},
    {"\"a\" b\n", 4},
    {"[\n", 2},
    {"{\"a\":1\n", 7},
    {"[\"a\"\n", 5},
    {"{\n", 2},
    {"{\"a\":\n", 6},
    {"{\"a\":1,\n", 8},
    {"\f1\n", 0},
    {"\xef\xbb\xbf\x31\n", 0},
    {"[1]]\n", 3},
};

TEST(what_is_no_json_is_refused_where_it_is_wrong)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        check_refuses(refused[i].text, strlen(refused[i].text),
                      refused[i].offset);
    check_refuses("1\0\n", 3, 1);
    check_refuses("\"\0\"\n", 4, 1);
}

TEST(a_text_that_is_cut_short_is_never_whole)
{
    static const char whole[] = "{\"a\":[1,-2.5e-3,true,false,null,\"\\u00e9\\n"
                                "\xc3\xa9\"],\"b\\ud83d\\ude00\":{}}\n";

    CHECK(!strstr(describe(whole, sizeof whole - 1, NULL), "FM_E"));
    for (size_t len = 1; len < sizeof whole - 2; len++) {
        char cut[sizeof whole];

        memcpy(cut, whole, len);
        check_refuses(cut, len, len);
        cut[len] = '\n';
        CHECK(strstr(describe(cut, len + 1, NULL), "FM_EPROTOCOL"));
    }
}

/* ------------------------------------------------------------------ bounds */

static const char *describe_nested(size_t depth, size_t bound)
{
    struct fm__bounds bounds = {.depth = bound};
    char *text = malloc(6 * depth + 1), *p = text;
    const char *description;

    CHECK(text);
    for (size_t i = 0; i < depth; i++) {
        memcpy(p, i % 2 ? "{\"\":" : "[", i % 2 ? 4 : 1);
        p += i % 2 ? 4 : 1;
    }
    if (depth % 2 == 0)
        *p++ = '1';
    for (size_t i = depth; i-- > 0;)
        *p++ = i % 2 ? '}' : ']';
    *p++ = '\n';
    description = describe(text, (size_t)(p - text), &bounds);
    free(text);
    return description;
}

TEST(nesting_is_bounded)
{
    CHECK(!strstr(describe_nested(1, 1), "FM_E"));
    CHECK(strstr(describe_nested(2, 1), "FM_ELIMIT"));
    CHECK(!strstr(describe_nested(99, 100), "FM_E"));
    CHECK(!strstr(describe_nested(100, 100), "FM_E"));
    CHECK(strstr(describe_nested(101, 100), "FM_ELIMIT"));
    CHECK(!strstr(describe_nested(FM__DEPTH_MAX, 0), "FM_E"));
    CHECK(strstr(describe_nested(FM__DEPTH_MAX + 1, 0), "FM_ELIMIT"));
    CHECK(strstr(describe_nested(FM__DEPTH_MAX + 1, SIZE_MAX), "FM_ELIMIT"));
}

TEST(a_level_that_was_left_does_not_count)
{
    struct fm__bounds bounds = {.depth = 2};

    CHECK_STR(describe("[[],{},[],{}]\n[[]]\n", 19, &bounds),
              "[ [ ] { ] [ ] { ] ] [ [ ] ] .");
}

TEST(the_number_of_values_and_keys_is_bounded)
{
    struct fm__bounds bounds = {.nodes = 4};

    CHECK_STR(describe("[1,2,3]\n", 8, &bounds), "[ 1 2 3 ] .");
    CHECK_STR(describe("[1,2,3,4]\n", 10, &bounds),
              "[ 1 2 3 FM_ELIMIT 7 too many values");
    CHECK_STR(describe("{\"a\":1}\n\n", 9, &bounds), "{ 'a'=1 ] nil .");
    CHECK_STR(describe("{\"a\":[1,2]}\n", 12, &bounds),
              "{ 'a'=[ 1 FM_ELIMIT 8 too many values");
    CHECK_STR(describe("{\"a\":[],\"b\":[]}\n", 16, &bounds),
              "{ 'a'=[ ] 'b'=FM_ELIMIT 12 too many values");
    CHECK_STR(describe("[{\"a\":1,\"b\":2}]\n", 16, &bounds),
              "[ { 'a'=1 FM_ELIMIT 8 too many values");
    CHECK_STR(describe("\n\n\n\n\n", 5, &bounds),
              "nil nil nil nil FM_ELIMIT 4 too many values");
}

/* ----------------------------------------------------------------- strings */

TEST(escapes_are_resolved)
{
    check_reads("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"\n", "'\"\\/\b\f\n\r\t' .");
    check_reads("\"\\u0041\\u00e9\\u20ac\\uD83D\\uDE00\\uFFFF\"\n",
                "'A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbf' .");
    check_reads("\"0123456789012345678\\n0123456\\t\"\n",
                "'0123456789012345678\n0123456\t' .");
    check_reads("{\"\\u006b\":\"\\u0076\"}\n", "{ 'k'='v' ] .");
}

TEST(what_is_no_escape_is_refused)
{
    static const char *const strings[] = {"\\x",
                                          "\\u12",
                                          "\\u12g4",
                                          "\\U0041",
                                          "\\'",
                                          "\\0",
                                          "\\u",
                                          "\\ud800",
                                          "\\ud800x",
                                          "\\ud800\\n",
                                          "\\ud800\\u0041",
                                          "\\udc00",
                                          "\\ud800\\ud800",
                                          "\\udbff\\ue000",
                                          "\\ud83d \\ude00",
                                          "\\ud83d\\u",
                                          "\\\xc3\xa9",
                                          "\\u+123",
                                          "\\ua:bc",
                                          "\\u\xff\xff"};

    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
        char text[64];
        int len = snprintf(text, sizeof text, "[\"abc%s\"]\n", strings[i]);

        if (!strstr(describe(text, (size_t)len, NULL), "FM_EPROTOCOL"))
            test_fail(__FILE__, __LINE__, strings[i]);
    }
}

TEST(every_escaped_code_becomes_its_utf8)
{
    char text[32], string[16];

    for (unsigned code = 0; code < 0x110000; code++) {
        unsigned high = 0xd800 + ((code - 0x10000) >> 10), low;
        unsigned char *s = (unsigned char *)string;
        int n;

        low = 0xdc00 + ((code - 0x10000) & 0x3ff);
        n = code < 0x10000 ? snprintf(text, sizeof text, "\"\\u%04x\"\n", code)
                           : snprintf(text, sizeof text, "\"\\u%04X\\u%04x\"\n",
                                      high, low);
        n = read_one_string(text, (size_t)n, string);
        if (code >= 0xd800 && code < 0xe000)
            CHECK_INT(n, -1);
        else if (code < 0x80)
            CHECK(n == 1 && s[0] == code);
        else if (code < 0x800)
            CHECK(n == 2 && ((s[0] & 0x1fu) << 6 | (s[1] & 0x3f)) == code);
        else if (code < 0x10000)
            CHECK(n == 3 && ((s[0] & 0xfu) << 12 | (s[1] & 0x3fu) << 6 |
                             (s[2] & 0x3f)) == code);
        else
            CHECK(n == 4 && ((s[0] & 7u) << 18 | (s[1] & 0x3fu) << 12 |
                             (s[2] & 0x3fu) << 6 | (s[3] & 0x3f)) == code);
    }
}

TEST(a_string_without_escapes_is_not_copied)
{
    static const char text[] = "\"abcdefghijklmnopqrstuvwxyz\xc3\xa9\"\n";
    struct fm__json_reader reader;
    struct fm__event event;

    fm__json_reader_init(&reader, text, sizeof text - 1, NULL);
    CHECK_INT(fm__json_reader_next(&reader, &event), 0);
    CHECK(event.u.string.data == text + 1);
    CHECK_INT(event.u.string.len, sizeof text - 4);
    CHECK(!reader.scratch);
    fm__json_reader_done(&reader);
}

/* --------------------------------------------------------------- big texts */

TEST(a_string_of_64_mib_crosses_with_and_without_escapes)
{
    size_t size = (size_t)64 << 20;
    char *text = malloc(size + 4);
    struct fm__json_reader reader;
    struct fm__event event;

    CHECK(text);
    for (int escapes = 0; escapes < 2; escapes++) {
        memset(text, 'x', size + 4);
        text[0] = '"';
        if (escapes) {
            text[size - 1] = '\\';
            text[size] = 'n';
        }
        text[size + 1] = '"';
        text[size + 2] = '\n';
        fm__json_reader_init(&reader, text, size + 3, NULL);
        CHECK_INT(fm__json_reader_next(&reader, &event), 0);
        CHECK_INT(event.u.string.len, size - (size_t)escapes);
        CHECK(event.u.string.data[size / 2] == 'x');
        CHECK_INT(fm__json_reader_next(&reader, &event), 0);
        CHECK_INT(event.type, FM__EVENT_DONE);
        fm__json_reader_done(&reader);
    }
    free(text);
}

#ifdef FM_TESTING

static void *no_memory(void *p, size_t size)
{
    (void)p;
    (void)size;
    return NULL;
}

TEST(without_memory_for_an_escaped_string_the_reader_says_so)
{
    fm__sys.realloc = no_memory;
    CHECK_STR(describe("[\"a\",\"b\\n\"]\n", 12, NULL),
              "[ 'a' ENOMEM 7 not enough memory");
}

#endif
