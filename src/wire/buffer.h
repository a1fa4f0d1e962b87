/* SPDX-License-Identifier: MIT */
/*
 * A growing byte buffer in private memory with a hard limit, and the sink that
 * fills one.
 */
#ifndef FM_WIRE_BUFFER_H
#define FM_WIRE_BUFFER_H

#include <stddef.h>
#include "wire/sink.h"

/* Fields are for reading.  `data` may be NULL while `len` is 0. */
struct fm__buffer {
    unsigned char *data;
    size_t len;   /* bytes in use */
    size_t size;  /* bytes allocated */
    size_t limit; /* `len` never exceeds it */
};

/* An empty buffer of at most `limit` bytes; allocates nothing. */
void fm__buffer_init(struct fm__buffer *buffer, size_t limit);

/* Free the memory; as after _init then.  May be repeated. */
void fm__buffer_done(struct fm__buffer *buffer);

/* Forget the bytes, keep the memory. */
void fm__buffer_clear(struct fm__buffer *buffer);

/* Make room for `n` more bytes at data + len.  Grows by doubling, so that the
 * memory stays under twice the bytes that came.  Returns 0, FM_ELIMIT when the
 * limit would be exceeded, or -ENOMEM; the buffer is unchanged then. */
int fm__buffer_reserve(struct fm__buffer *buffer, size_t n);

/* Append `n` bytes.  Returns as _reserve. */
int fm__buffer_append(struct fm__buffer *buffer, const void *data, size_t n);

/* A sink whose bytes are in `buffer` after fm__buffer_sink_flush(). */
struct fm__buffer_sink {
    struct fm__sink sink; /* first: callbacks cast it back */
    struct fm__buffer *buffer;
    int format; /* of the last restart; -1 before the first */
};

/* `buffer` must outlive the sink and belongs to the caller.  What it holds is
 * forgotten at the first restart. */
void fm__buffer_sink_init(struct fm__buffer_sink *sink,
                          struct fm__buffer *buffer);

/* Count what was written into buffer->len.  Call it once after the last byte:
 * a sink may run over by less than FM__SINK_ROOM, which is found here.
 * Returns 0 or FM_ELIMIT. */
int fm__buffer_sink_flush(struct fm__buffer_sink *sink);

#endif
