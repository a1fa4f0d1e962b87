/* SPDX-License-Identifier: MIT */
/* The growing buffer; see buffer.h. */
#include "wire/buffer.h"

#include <errno.h>
#include <string.h>
#include "fork_map.h"
#include "os/memory.h"

/* The first allocation: a small result fits without a second one. */
#define FIRST_SIZE 256

void fm__buffer_init(struct fm__buffer *buffer, size_t limit)
{
    memset(buffer, 0, sizeof *buffer);
    buffer->limit = limit;
}

void fm__buffer_done(struct fm__buffer *buffer)
{
    buffer->data = fm__bulk_resize(buffer->data, 0);
    fm__buffer_init(buffer, buffer->limit);
}

void fm__buffer_clear(struct fm__buffer *buffer)
{
    buffer->len = 0;
}

/* Have at least `size` bytes allocated; twice what there was if that is more
 * and not above `most`. */
static int grow(struct fm__buffer *buffer, size_t size, size_t most)
{
    size_t want = buffer->size > 0 ? buffer->size : FIRST_SIZE / 2;
    void *data;

    if (size <= buffer->size)
        return 0;
    want = want <= most / 2 ? want * 2 : most;
    if (want < size)
        want = size;
    data = fm__bulk_resize(buffer->data, want);
    if (data == NULL && want > size) {
        want = size; /* doubling was a wish */
        data = fm__bulk_resize(buffer->data, want);
    }
    if (data == NULL)
        return -ENOMEM;
    buffer->data = data;
    buffer->size = want;
    return 0;
}

int fm__buffer_reserve(struct fm__buffer *buffer, size_t n)
{
    if (n > buffer->limit - buffer->len)
        return FM_ELIMIT;
    return grow(buffer, buffer->len + n, buffer->limit);
}

int fm__buffer_append(struct fm__buffer *buffer, const void *data, size_t n)
{
    int rc;

    if (n == 0)
        return 0;
    rc = fm__buffer_reserve(buffer, n);
    if (rc < 0)
        return rc;
    memcpy(buffer->data + buffer->len, data, n);
    buffer->len += n;
    return 0;
}

int fm__buffer_sink_flush(struct fm__buffer_sink *sink)
{
    struct fm__buffer *buffer = sink->buffer;
    size_t len;

    if (buffer->data == NULL)
        return 0;
    len = (size_t)(sink->sink.next - buffer->data);
    if (len > buffer->limit)
        return FM_ELIMIT;
    buffer->len = len;
    return 0;
}

/* FM__SINK_ROOM bytes are allocated beyond the limit, so that the last bytes
 * of a text that just fits can be written; _flush() judges them. */
static int sink_more(struct fm__sink *base)
{
    struct fm__buffer_sink *sink = (struct fm__buffer_sink *)base;
    struct fm__buffer *buffer = sink->buffer;
    size_t most = buffer->limit;
    int rc = fm__buffer_sink_flush(sink);

    if (rc < 0)
        return rc;
    if (most > SIZE_MAX - FM__SINK_ROOM)
        most = SIZE_MAX - FM__SINK_ROOM;
    if (buffer->len > most)
        return FM_ELIMIT;
    rc = grow(buffer, buffer->len + FM__SINK_ROOM, most + FM__SINK_ROOM);
    if (rc < 0)
        return rc;
    base->next = buffer->data + buffer->len;
    base->end = buffer->data + buffer->size;
    return 0;
}

static int sink_restart(struct fm__sink *base, int format)
{
    struct fm__buffer_sink *sink = (struct fm__buffer_sink *)base;

    fm__buffer_clear(sink->buffer);
    base->next = sink->buffer->data;
    base->end = base->next == NULL ? NULL : base->next + sink->buffer->size;
    sink->format = format;
    return 0;
}

void fm__buffer_sink_init(struct fm__buffer_sink *sink,
                          struct fm__buffer *buffer)
{
    memset(sink, 0, sizeof *sink);
    sink->sink.more = sink_more;
    sink->sink.restart = sink_restart;
    sink->buffer = buffer;
    sink->format = -1;
}
