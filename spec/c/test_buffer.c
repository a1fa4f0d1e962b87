/* SPDX-License-Identifier: MIT */
#include "test.h"

#include "fork_map.h"
#include "os/sys.h"
#include "wire/buffer.h"

static void *no_realloc(void *p, size_t size)
{
    (void)p;
    (void)size;
    return NULL;
}

/* Succeeds for sizes that are no powers of 2: doubling fails, the need not. */
static void *exact_realloc(void *p, size_t size)
{
    return (size & (size - 1)) == 0 ? NULL : realloc(p, size);
}

/* Refuses what is larger than any object; sanitizers would report the call. */
static void *sane_realloc(void *p, size_t size)
{
    return size > PTRDIFF_MAX ? NULL : realloc(p, size);
}

TEST(buffer_allocates_nothing_before_the_first_byte)
{
    struct fm__buffer buffer;

    fm__buffer_init(&buffer, 10);
    CHECK(buffer.data == NULL);
    CHECK_INT(fm__buffer_append(&buffer, NULL, 0), 0);
    CHECK(buffer.data == NULL);
    fm__buffer_done(&buffer);
}

TEST(buffer_holds_what_was_appended)
{
    struct fm__buffer buffer;
    char expected[5000];
    int i;

    fm__buffer_init(&buffer, sizeof expected);
    for (i = 0; i < (int)sizeof expected; i++) {
        expected[i] = (char)(i * 7);
        CHECK_INT(fm__buffer_append(&buffer, &expected[i], 1), 0);
    }
    CHECK_INT(buffer.len, sizeof expected);
    CHECK(memcmp(buffer.data, expected, sizeof expected) == 0);
    fm__buffer_done(&buffer);
}

TEST(buffer_takes_up_to_its_limit_and_no_byte_more)
{
    struct fm__buffer buffer;

    fm__buffer_init(&buffer, 10);
    CHECK_INT(fm__buffer_append(&buffer, "123456789", 9), 0);
    CHECK_INT(fm__buffer_append(&buffer, "ab", 2), FM_ELIMIT);
    CHECK_INT(buffer.len, 9);
    CHECK_INT(fm__buffer_append(&buffer, "a", 1), 0);
    CHECK_INT(fm__buffer_append(&buffer, "b", 1), FM_ELIMIT);
    CHECK_INT(fm__buffer_reserve(&buffer, SIZE_MAX), FM_ELIMIT);
    CHECK(memcmp(buffer.data, "123456789a", 10) == 0);
    fm__buffer_done(&buffer);
}

TEST(buffer_without_a_limit_refuses_what_no_memory_holds)
{
    struct fm__buffer buffer;

    fm__buffer_init(&buffer, SIZE_MAX);
    CHECK_INT(fm__buffer_append(&buffer, "a", 1), 0);
    fm__sys.realloc = sane_realloc;
    CHECK_INT(fm__buffer_reserve(&buffer, SIZE_MAX - 1), -ENOMEM);
    CHECK_INT(fm__buffer_reserve(&buffer, SIZE_MAX), FM_ELIMIT);
    fm__sys = fm__sys_real;
    CHECK(buffer.data[0] == 'a');
    fm__buffer_done(&buffer);
}

TEST(buffer_is_unchanged_when_memory_runs_out)
{
    struct fm__buffer buffer;

    fm__buffer_init(&buffer, 1 << 20);
    CHECK_INT(fm__buffer_append(&buffer, "abc", 3), 0);
    fm__sys.realloc = no_realloc;
    CHECK_INT(fm__buffer_reserve(&buffer, 1 << 19), -ENOMEM);
    fm__sys = fm__sys_real;
    CHECK_INT(buffer.len, 3);
    CHECK(memcmp(buffer.data, "abc", 3) == 0);
    fm__buffer_done(&buffer);
}

TEST(buffer_takes_what_it_needs_where_twice_as_much_is_not_to_be_had)
{
    struct fm__buffer buffer;

    fm__buffer_init(&buffer, 1 << 20);
    CHECK_INT(fm__buffer_reserve(&buffer, 256), 0);
    CHECK_INT(buffer.size, 256);
    fm__sys.realloc = exact_realloc;
    CHECK_INT(fm__buffer_reserve(&buffer, 300), 0);
    CHECK_INT(buffer.size, 300);
    fm__sys = fm__sys_real;
    fm__buffer_done(&buffer);
}

TEST(buffer_grows_by_doubling_but_not_beyond_its_limit)
{
    struct fm__buffer buffer;
    char byte = 'x';
    int i;

    fm__buffer_init(&buffer, 1000);
    for (i = 0; i < 1000; i++) {
        CHECK_INT(fm__buffer_append(&buffer, &byte, 1), 0);
        CHECK(buffer.size <= 1000);
        CHECK(buffer.size <= 2 * buffer.len || buffer.size == 256);
    }
    fm__buffer_done(&buffer);
}

TEST(buffer_clear_keeps_the_memory_and_done_may_be_repeated)
{
    struct fm__buffer buffer;

    fm__buffer_init(&buffer, 1000);
    CHECK_INT(fm__buffer_append(&buffer, "abc", 3), 0);
    fm__buffer_clear(&buffer);
    CHECK_INT(buffer.len, 0);
    CHECK(buffer.data != NULL);
    fm__buffer_done(&buffer);
    CHECK(buffer.data == NULL);
    CHECK_INT(buffer.limit, 1000);
    fm__buffer_done(&buffer);
}

static void write_all(struct fm__buffer_sink *sink, const char *data,
                      size_t len, size_t piece)
{
    while (len > 0) {
        size_t n = len < piece ? len : piece;

        CHECK_INT(fm__sink_write(&sink->sink, data, n), 0);
        data += n;
        len -= n;
    }
}

TEST(buffer_sink_fills_the_buffer_in_pieces_of_any_size)
{
    static char data[10000];
    size_t piece;

    for (piece = 0; piece < sizeof data; piece++)
        data[piece] = (char)(piece * 13);
    for (piece = 1; piece <= sizeof data; piece = piece * 3 + 1) {
        struct fm__buffer buffer;
        struct fm__buffer_sink sink;

        fm__buffer_init(&buffer, sizeof data);
        fm__buffer_sink_init(&sink, &buffer);
        CHECK_INT(sink.format, -1);
        CHECK_INT(sink.sink.restart(&sink.sink, 2), 0);
        write_all(&sink, data, sizeof data, piece);
        CHECK_INT(fm__buffer_sink_flush(&sink), 0);
        CHECK_INT(sink.format, 2);
        CHECK_INT(buffer.len, sizeof data);
        CHECK(memcmp(buffer.data, data, sizeof data) == 0);
        fm__buffer_done(&buffer);
    }
}

TEST(buffer_sink_restart_forgets_what_was_written)
{
    struct fm__buffer buffer;
    struct fm__buffer_sink sink;

    fm__buffer_init(&buffer, 1000);
    fm__buffer_sink_init(&sink, &buffer);
    CHECK_INT(sink.sink.restart(&sink.sink, 1), 0);
    write_all(&sink, "first", 5, 5);
    CHECK_INT(sink.sink.restart(&sink.sink, 2), 0);
    write_all(&sink, "new", 3, 3);
    CHECK_INT(fm__buffer_sink_flush(&sink), 0);
    CHECK_INT(buffer.len, 3);
    CHECK(memcmp(buffer.data, "new", 3) == 0);
    CHECK_INT(sink.format, 2);
    fm__buffer_done(&buffer);
}

TEST(buffer_sink_that_got_nothing_leaves_an_empty_buffer)
{
    struct fm__buffer buffer;
    struct fm__buffer_sink sink;

    fm__buffer_init(&buffer, 10);
    fm__buffer_sink_init(&sink, &buffer);
    CHECK_INT(sink.sink.restart(&sink.sink, 1), 0);
    CHECK_INT(fm__buffer_sink_flush(&sink), 0);
    CHECK_INT(buffer.len, 0);
    fm__buffer_done(&buffer);
}

/* Writes `n` bytes in pieces of 7 and returns what came of it. */
static int fill(size_t limit, size_t n)
{
    struct fm__buffer buffer;
    struct fm__buffer_sink sink;
    int rc;

    fm__buffer_init(&buffer, limit);
    fm__buffer_sink_init(&sink, &buffer);
    rc = sink.sink.restart(&sink.sink, 1);
    while (n > 0 && rc == 0) {
        size_t piece = n < 7 ? n : 7;

        rc = fm__sink_write(&sink.sink, "1234567", piece);
        n -= piece;
    }
    if (rc == 0)
        rc = fm__buffer_sink_flush(&sink);
    CHECK(buffer.len <= limit);
    fm__buffer_done(&buffer);
    return rc;
}

TEST(buffer_sink_takes_up_to_the_limit_and_no_byte_more)
{
    size_t limit;

    for (limit = 0; limit < 700; limit++) {
        CHECK_INT(fill(limit, limit), 0);
        CHECK_INT(fill(limit, limit + 1), FM_ELIMIT);
        CHECK_INT(fill(limit, limit + 1000), FM_ELIMIT);
        if (limit > 0)
            CHECK_INT(fill(limit, limit - 1), 0);
    }
}

TEST(buffer_sink_says_when_memory_runs_out)
{
    struct fm__buffer buffer;
    struct fm__buffer_sink sink;

    fm__buffer_init(&buffer, 1000);
    fm__buffer_sink_init(&sink, &buffer);
    CHECK_INT(sink.sink.restart(&sink.sink, 1), 0);
    fm__sys.realloc = no_realloc;
    CHECK_INT(fm__sink_write(&sink.sink, "a", 1), -ENOMEM);
    fm__sys = fm__sys_real;
    CHECK_INT(fm__buffer_sink_flush(&sink), 0);
    fm__buffer_done(&buffer);
}
