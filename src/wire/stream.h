/* SPDX-License-Identifier: MIT */
/*
 * Frames on a stream of bytes: what crosses a channel.  A frame is a head of 12
 * bytes, the same on every machine, and a body:
 *
 *   0xF0 'm' 'c' 1   and in the 1 the version
 *   u8 type, u8 format, u16 0
 *   u32 length of the body, lowest byte first
 *
 * The reader is incremental: whoever has bytes puts them where it says, never
 * more than it asks for, so that nothing is read ahead.  What arrives is
 * hostile; memory grows with the bytes that came, not with what a head says.
 */
#ifndef FM_WIRE_STREAM_H
#define FM_WIRE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/buffer.h"

#define FM__STREAM_HEAD 12

/* Longest body. */
#define FM__STREAM_MAX ((size_t)256 << 20)

enum fm__stream_type {
    FM__STREAM_VALUE = 1, /* encoded values; the head has their format */
    /* A descriptor, which comes with the first byte.  Its body is one byte, 0,
     * which is read when the descriptor is taken: until then what waits for
     * the stream sees that there is something. */
    FM__STREAM_FD = 2
};

struct fm__stream_head {
    uint8_t type;
    uint8_t format;
    uint32_t len;
};

struct fm__stream {
    unsigned char raw[FM__STREAM_HEAD];
    size_t n_raw;
    struct fm__stream_head head; /* once n_raw is all of it */
    struct fm__buffer body;
};

void fm__stream_init(struct fm__stream *stream);
void fm__stream_done(struct fm__stream *stream);

/* Write a head.  The length is at most FM__STREAM_MAX. */
void fm__stream_put_head(unsigned char ret_raw[FM__STREAM_HEAD],
                         const struct fm__stream_head *head);

/* Between two frames, where a stream may end? */
bool fm__stream_is_between(const struct fm__stream *stream);

/* Is the head known? */
bool fm__stream_has_head(const struct fm__stream *stream);

/* Is all of the frame there? */
bool fm__stream_is_whole(const struct fm__stream *stream);

/* Where the next bytes go, and how many of them at most: 0 when the frame is
 * whole.  Returns 0 or -ENOMEM. */
int fm__stream_get_room(struct fm__stream *stream, unsigned char **ret_at,
                        size_t *ret_n);

/* So many bytes were put there.  Returns 0, or FM_EPROTOCOL for a head that is
 * none, after which the stream is of no use. */
int fm__stream_advance(struct fm__stream *stream, size_t n);

/* The frame was taken: forget it.  Memory that a long one needed is given
 * back. */
void fm__stream_next(struct fm__stream *stream);

#endif
