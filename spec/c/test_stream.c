/* SPDX-License-Identifier: MIT */
/* Frames on a stream of bytes, as what arrives is cut and as it lies. */
#include "test.h"

#include "fork_map.h"
#include "wire/stream.h"

/* Give the reader `n` bytes in pieces of at most `step`.  Returns how many it
 * took, up to the end of a frame, or its code. */
static long feed(struct fm__stream *stream, const unsigned char *p, size_t n,
                 size_t step)
{
    size_t used = 0;

    while (used < n && !fm__stream_is_whole(stream)) {
        unsigned char *at;
        size_t room;
        int rc = fm__stream_get_room(stream, &at, &room);

        if (rc < 0)
            return rc;
        room = room < step ? room : step;
        room = room < n - used ? room : n - used;
        memcpy(at, p + used, room);
        used += room;
        rc = fm__stream_advance(stream, room);
        if (rc < 0)
            return rc;
    }
    return (long)used;
}

static size_t make(unsigned char *frame, unsigned type, unsigned format,
                   const char *body)
{
    struct fm__stream_head head = {(uint8_t)type, (uint8_t)format,
                                   (uint32_t)strlen(body)};

    fm__stream_put_head(frame, &head);
    memcpy(frame + FM__STREAM_HEAD, body, head.len);
    return FM__STREAM_HEAD + head.len;
}

TEST(a_frame_is_the_same_however_it_is_cut)
{
    unsigned char bytes[64];
    size_t n = make(bytes, FM__STREAM_VALUE, 2, "hello world");
    struct fm__stream stream;

    fm__stream_init(&stream);
    for (size_t step = 1; step <= n; step++) {
        CHECK(fm__stream_is_between(&stream));
        CHECK_INT(feed(&stream, bytes, n, step), n);
        CHECK(fm__stream_is_whole(&stream));
        CHECK_INT(stream.head.type, FM__STREAM_VALUE);
        CHECK_INT(stream.head.format, 2);
        CHECK_INT(stream.body.len, 11);
        CHECK(memcmp(stream.body.data, "hello world", 11) == 0);
        fm__stream_next(&stream);
    }
    fm__stream_done(&stream);
}

TEST(nothing_is_read_beyond_a_frame)
{
    unsigned char bytes[128];
    size_t n = make(bytes, FM__STREAM_VALUE, 1, "a");
    size_t all = n + make(bytes + n, FM__STREAM_VALUE, 1, "");
    struct fm__stream stream;
    unsigned char *at;
    size_t room;

    fm__stream_init(&stream);
    CHECK_INT(feed(&stream, bytes, all, 1000), n);
    CHECK_INT(fm__stream_get_room(&stream, &at, &room), 0);
    CHECK_INT(room, 0);
    fm__stream_next(&stream);
    CHECK_INT(feed(&stream, bytes + n, all - n, 1000), all - n);
    CHECK(fm__stream_is_whole(&stream));
    CHECK_INT(stream.body.len, 0);
    fm__stream_done(&stream);
}

TEST(a_head_with_any_wrong_byte_is_refused_or_another_head)
{
    unsigned char good[64];
    size_t n = make(good, FM__STREAM_VALUE, 1, "");

    for (size_t i = 0; i < n; i++) {
        for (unsigned value = 0; value < 256; value++) {
            struct fm__stream stream;
            unsigned char bytes[64];
            bool may_be = i == 5 || (i >= 8 && i < 11) ||
                          (i == 11 && value <= 16) || good[i] == value;
            long rc;

            memcpy(bytes, good, sizeof bytes);
            bytes[i] = (unsigned char)value;
            fm__stream_init(&stream);
            rc = feed(&stream, bytes, n, 5);
            CHECK_INT(rc, may_be ? (long)n : FM_EPROTOCOL);
            fm__stream_done(&stream);
        }
    }
}

TEST(a_length_is_bounded_and_costs_nothing_until_bytes_come)
{
    static const uint32_t lens[] = {FM__STREAM_MAX, FM__STREAM_MAX + 1,
                                    0x7fffffff, 0x80000000, 0xffffffff};
    static unsigned char piece[1 << 16];

    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct fm__stream_head head = {FM__STREAM_VALUE, 1, lens[i]};
        unsigned char raw[FM__STREAM_HEAD];
        struct fm__stream stream;
        long rc;

        fm__stream_init(&stream);
        fm__stream_put_head(raw, &head);
        rc = feed(&stream, raw, sizeof raw, 12);
        CHECK_INT(rc, lens[i] <= FM__STREAM_MAX ? 12 : FM_EPROTOCOL);
        for (size_t fed = sizeof piece; rc >= 0 && fed <= 1 << 21;
             fed += sizeof piece) {
            CHECK_INT(feed(&stream, piece, sizeof piece, sizeof piece),
                      sizeof piece);
            CHECK(stream.body.size <= 4 * fed);
        }
        fm__stream_done(&stream);
    }
}

TEST(a_descriptor_has_a_body_of_one_byte)
{
    for (uint32_t len = 0; len < 3; len++) {
        struct fm__stream_head head = {FM__STREAM_FD, 0, len};
        unsigned char raw[FM__STREAM_HEAD];
        struct fm__stream stream;

        fm__stream_init(&stream);
        fm__stream_put_head(raw, &head);
        CHECK_INT(feed(&stream, raw, sizeof raw, 12),
                  len == 1 ? 12 : FM_EPROTOCOL);
        fm__stream_done(&stream);
    }
}

TEST(the_memory_of_a_long_frame_is_given_back)
{
    struct fm__stream_head head = {FM__STREAM_VALUE, 1, 3 << 20};
    static unsigned char body[3 << 20];
    unsigned char raw[FM__STREAM_HEAD];
    struct fm__stream stream;

    fm__stream_init(&stream);
    fm__stream_put_head(raw, &head);
    CHECK_INT(feed(&stream, raw, sizeof raw, 12), 12);
    CHECK_INT(feed(&stream, body, sizeof body, sizeof body), sizeof body);
    CHECK(fm__stream_is_whole(&stream));
    fm__stream_next(&stream);
    CHECK_INT(stream.body.size, 0);
    fm__stream_done(&stream);
}
