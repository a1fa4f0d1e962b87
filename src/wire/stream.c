/* SPDX-License-Identifier: MIT */
/* Frames on a stream of bytes; see stream.h. */
#include "wire/stream.h"

#include <string.h>

#include "fork_map.h"

static const unsigned char magic[4] = {0xF0, 'm', 'c', 1};

/* The first piece of a body; later ones are as long as what came before. */
#define PIECE_FIRST ((size_t)64 << 10)

/* Memory that is kept from one frame to the next. */
#define BODY_KEPT ((size_t)1 << 20)

void fm__stream_init(struct fm__stream *stream)
{
    memset(stream, 0, sizeof *stream);
    fm__buffer_init(&stream->body, FM__STREAM_MAX);
}

void fm__stream_done(struct fm__stream *stream)
{
    fm__buffer_done(&stream->body);
    stream->n_raw = 0;
}

void fm__stream_put_head(unsigned char ret_raw[FM__STREAM_HEAD],
                         const struct fm__stream_head *head)
{
    memcpy(ret_raw, magic, sizeof magic);
    ret_raw[4] = head->type;
    ret_raw[5] = head->format;
    ret_raw[6] = 0;
    ret_raw[7] = 0;
    for (unsigned i = 0; i < 4; i++)
        ret_raw[8 + i] = (unsigned char)(head->len >> (8 * i));
}

static int get_head(struct fm__stream *stream)
{
    const unsigned char *raw = stream->raw;
    uint32_t len = 0;

    for (unsigned i = 0; i < 4; i++)
        len |= (uint32_t)raw[8 + i] << (8 * i);
    stream->head = (struct fm__stream_head){raw[4], raw[5], len};
    if (memcmp(raw, magic, sizeof magic) != 0 || raw[6] != 0 || raw[7] != 0)
        return FM_EPROTOCOL;
    switch (raw[4]) {
    case FM__STREAM_VALUE:
        return len <= FM__STREAM_MAX ? 0 : FM_EPROTOCOL;
    case FM__STREAM_FD:
        return len == 1 && raw[5] == 0 ? 0 : FM_EPROTOCOL;
    default:
        return FM_EPROTOCOL;
    }
}

bool fm__stream_is_between(const struct fm__stream *stream)
{
    return stream->n_raw == 0;
}

bool fm__stream_has_head(const struct fm__stream *stream)
{
    return stream->n_raw == FM__STREAM_HEAD;
}

bool fm__stream_is_whole(const struct fm__stream *stream)
{
    return fm__stream_has_head(stream) && stream->body.len == stream->head.len;
}

int fm__stream_get_room(struct fm__stream *stream, unsigned char **ret_at,
                        size_t *ret_n)
{
    size_t have = stream->body.len, n;
    int rc;

    if (!fm__stream_has_head(stream)) {
        *ret_at = stream->raw + stream->n_raw;
        *ret_n = FM__STREAM_HEAD - stream->n_raw;
        return 0;
    }
    n = have > PIECE_FIRST ? have : PIECE_FIRST;
    if (n > stream->head.len - have)
        n = stream->head.len - have;
    rc = n > 0 ? fm__buffer_reserve(&stream->body, n) : 0;
    if (rc < 0)
        return rc;
    *ret_at = n > 0 ? stream->body.data + have : stream->raw;
    *ret_n = n;
    return 0;
}

int fm__stream_advance(struct fm__stream *stream, size_t n)
{
    if (fm__stream_has_head(stream)) {
        stream->body.len += n;
        return 0;
    }
    stream->n_raw += n;
    return fm__stream_has_head(stream) ? get_head(stream) : 0;
}

void fm__stream_next(struct fm__stream *stream)
{
    stream->n_raw = 0;
    if (stream->body.size > BODY_KEPT)
        fm__buffer_done(&stream->body);
    else
        fm__buffer_clear(&stream->body);
}
