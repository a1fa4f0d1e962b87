/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as what comes over a channel, in any pieces.
 *
 * The first byte chooses the pieces; the second, whether the rest is raw or a
 * script of frames, so that bodies are reached.  Whatever comes: no more memory
 * than a few times the bytes (and a fixed amount), never a byte too many, and
 * the same frames for every way to cut.
 */
#include "said.h"

#include "fork_map.h"
#include "wire/stream.h"

/* Type, length, change; then the body. */
static size_t append_frame(struct said *said, const uint8_t *p, size_t n)
{
    size_t len = p[1] < n - 3 ? p[1] : n - 3;
    struct fm__stream_head head = {p[0] % 4, p[0] / 4, (uint32_t)len};
    unsigned char raw[FM__STREAM_HEAD];

    fm__stream_put_head(raw, &head);
    if (p[2] >= 0xf0) /* rarely: one byte of the head is another */
        raw[(p[2] & 15) % FM__STREAM_HEAD] ^= p[0];
    append(said, raw, sizeof raw);
    append(said, p + 3, len);
    return 3 + len;
}

/* What was heard: a sum over all that was whole, and how it ended. */
struct heard {
    uint64_t sum, frames;
    int rc;
};

static void note(struct heard *heard, const struct fm__stream *stream)
{
    heard->frames++;
    heard->sum = heard->sum * 31 + stream->head.type;
    heard->sum = heard->sum * 31 + stream->head.format;
    REQUIRE(stream->head.len == stream->body.len);
    for (size_t i = 0; i < stream->body.len; i++)
        heard->sum = heard->sum * 31 + stream->body.data[i];
}

static struct heard hear(const struct said *said, size_t step)
{
    struct heard heard = {0, 0, 0};
    struct fm__stream stream;
    size_t at = 0;

    fm__stream_init(&stream);
    while (at < said->len && heard.rc == 0) {
        unsigned char *room;
        size_t n;

        REQUIRE(fm__stream_get_room(&stream, &room, &n) == 0);
        REQUIRE(n > 0 && n <= FM__STREAM_MAX);
        n = n < step ? n : step;
        n = n < said->len - at ? n : said->len - at;
        memcpy(room, said->bytes + at, n);
        at += n;
        heard.rc = fm__stream_advance(&stream, n);
        REQUIRE(heard.rc == 0 || heard.rc == FM_EPROTOCOL);
        REQUIRE(stream.body.size <= 4 * at + ((size_t)1 << 17));
        if (heard.rc == 0 && fm__stream_is_whole(&stream)) {
            note(&heard, &stream);
            fm__stream_next(&stream);
            REQUIRE(fm__stream_is_between(&stream));
        }
    }
    fm__stream_done(&stream);
    return heard;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct said said;
    struct heard whole, cut;

    if (size < 2)
        return 0;
    said.len = 0;
    if (data[1] & 1) {
        append(&said, data + 2, size - 2);
    } else {
        for (size_t at = 2; size - at >= 3;)
            at += append_frame(&said, data + at, size - at);
    }
    whole = hear(&said, SAID_MAX);
    cut = hear(&said, data[0] % 31u + 1);
    REQUIRE(whole.sum == cut.sum && whole.frames == cut.frames);
    REQUIRE(whole.rc == cut.rc);
    return 0;
}
