/* SPDX-License-Identifier: MIT */
/*
 * Frames: what a child says to its parent.  A frame is a header of 16 bytes
 * and a payload.  Both ends are the same build on the same machine, so the
 * header is in the machine's own byte order.
 *
 * A conversation is: any of FORMAT, DATA, ASIDE, FAIL, REFUSE, EXCEED, then
 * END; or EXITED, when the job left by exit(); or START_FAILED alone.  Nothing
 * is read after END, EXITED or START_FAILED.
 *
 * A worker of a pool says many things in one conversation: each is DATA and a
 * TELL that says what it was.
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
    FM__FRAME_ASIDE = 9, /* u8: what the data so far was, which is forgotten */
    FM__FRAME_TELL = 10  /* struct fm__tell, two texts: the same, of a worker of
                            a pool */
};

/* What a worker tells of a call: the last four end it. */
enum fm__tell_what {
    FM__TELL_READY,  /* calls may come; of no call */
    FM__TELL_RETIRE, /* it begins none any more; of no call */
    FM__TELL_EVENT,  /* emit(); of a call that it is in, or of none */
    FM__TELL_VALUE,  /* the data is what the call gave */
    FM__TELL_FAIL,   /* message, traceback; the data is what was raised */
    FM__TELL_REFUSE, /* path, message */
    FM__TELL_EXCEED, /* limit, message */
    FM__TELL_COUNT
};

struct fm__tell {
    uint64_t call; /* 0: none */
    uint8_t what;
    uint8_t format; /* of the data; 0xff: there is none */
    uint8_t zero[2];
    uint32_t first_len; /* of the first text; the second is the rest */
};

#define FM__TELL_NO_DATA 0xff

_Static_assert(sizeof(struct fm__tell) == 16, "a tell has no padding");

/* What an ASIDE says the data was. */
enum fm__aside { FM__ASIDE_EVENT, FM__ASIDE_STOP };

#define FM__FRAME_MAGIC 0xF0A9u
#define FM__FRAME_HEAD 16

/* Longest text of a pair; longer ones lose their middle. */
#define FM__FRAME_TEXT_MAX 65536u

/* Longest payload that is not DATA: a pair is u32 length of the first text,
 * the first text, the second. */
#define FM__FRAME_CONTROL_MAX (2 * FM__FRAME_TEXT_MAX + 4)
#define FM__FRAME_TELL_MAX (2 * FM__FRAME_TEXT_MAX + 16)

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
