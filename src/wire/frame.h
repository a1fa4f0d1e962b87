/* SPDX-License-Identifier: MIT */
/*
 * Frames: what a child says to its parent.  A frame is a header of 16 bytes
 * and a payload.  Both ends are the same build on the same machine, so the
 * header is in the machine's own byte order.
 *
 * A conversation is: any of FORMAT, DATA, ASIDE, FAIL, REFUSE, EXCEED, then
 * END; or EXITED, when the job left by exit(); or START_FAILED alone.  Nothing
 * is read after END, EXITED or START_FAILED.
 */
#ifndef FM_WIRE_FRAME_H
#define FM_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>

/* Of a child that called exit(), where the C library does not tell it. */
#define FM__CODE_UNKNOWN (-1)

enum fm__frame_type {
    FM__FRAME_START_FAILED = 1, /* i32 code, text: the step that failed */
    FM__FRAME_FORMAT = 2,       /* u8: forget the data; its format from now */
    FM__FRAME_DATA = 3,         /* bytes of the result */
    FM__FRAME_FAIL = 4,         /* pair: message, traceback */
    FM__FRAME_REFUSE = 5,       /* pair: path, message */
    FM__FRAME_EXCEED = 6,       /* pair: limit, message */
    FM__FRAME_EXITED = 7,       /* i32: exit code, or FM__CODE_UNKNOWN */
    FM__FRAME_END = 8,          /* u64: bytes of data since the last FORMAT */
    FM__FRAME_ASIDE = 9 /* u8: what the data so far was, which is forgotten */
};

/* What an ASIDE says the data was. */
enum fm__aside { FM__ASIDE_EVENT, FM__ASIDE_STOP };

#define FM__FRAME_MAGIC 0xF0A9u
#define FM__FRAME_HEAD 16

/* Longest text of a pair; longer ones lose their middle. */
#define FM__FRAME_TEXT_MAX 65536u

/* Longest payload that is not DATA: a pair is u32 length of the first text,
 * the first text, the second. */
#define FM__FRAME_CONTROL_MAX (2 * FM__FRAME_TEXT_MAX + 4)

/* Longest payload of one DATA frame. */
#define FM__FRAME_DATA_MAX (1u << 20)

struct fm__frame_head {
    uint16_t magic;
    uint8_t type;
    uint8_t reserved; /* 0 */
    uint32_t len;     /* of the payload */
    uint64_t job;     /* whose conversation this is */
};

_Static_assert(sizeof(struct fm__frame_head) == FM__FRAME_HEAD,
               "a frame head has no padding");

/* Is this a header that the conversation of `job` may contain? */
int fm__frame_check(const struct fm__frame_head *head, uint64_t job);

#endif
