/* SPDX-License-Identifier: MIT */
/*
 * What the parent has understood of one child's conversation so far.
 *
 * Bytes come in pieces of any size; frames are assembled in private memory,
 * data goes straight to its buffer.  Every length is checked before memory is
 * taken for it, and no more memory is ever held than twice what was received.
 *
 *   verdict NONE -> FAILED | REFUSED | EXCEEDED   (the last one counts)
 *   ending  OPEN -> ENDED | EXITED | NOT_STARTED | BROKEN   (final)
 */
#ifndef FM_WIRE_INBOX_H
#define FM_WIRE_INBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/frame.h"

enum fm__verdict {
    FM__VERDICT_NONE, /* the data is the value */
    FM__VERDICT_FAILED,
    FM__VERDICT_REFUSED,
    FM__VERDICT_EXCEEDED
};

enum fm__ending {
    FM__ENDING_OPEN,
    FM__ENDING_ENDED,       /* END was whole: the verdict holds */
    FM__ENDING_EXITED,      /* code */
    FM__ENDING_NOT_STARTED, /* code, first: the step that failed */
    FM__ENDING_BROKEN       /* bytes that are not ours */
};

struct fm__inbox;

/* Called with data that is no part of the result: inbox->data, len, format. */
typedef void (*fm__aside_fn)(const struct fm__inbox *inbox, int what, void *ud);

/* Called with what a worker of a pool tells: inbox->data and len, the head, and
 * the texts, which are not terminated.  It may take the data's memory, and
 * leaves NULL then.  0, or a negative code: the conversation is broken. */
typedef int (*fm__tell_fn)(struct fm__inbox *inbox, const struct fm__tell *tell,
                           const char *texts, size_t texts_len, void *ud);

struct fm__inbox {
    fm__aside_fn on_aside; /* NULL: dropped */
    void *aside_ud;
    fm__tell_fn on_tell; /* NULL: no worker of a pool speaks here */
    void *tell_ud;
    uint64_t job;
    uint64_t limit; /* most bytes of data */
    enum fm__verdict verdict;
    enum fm__ending ending;
    int format;
    int32_t code;
    bool over_limit; /* more data than `limit`: BROKEN follows */
    bool no_memory;  /* for what came, here: BROKEN follows */
    unsigned char *data;
    size_t len, size;
    char *first, *second; /* texts of the verdict, NUL-terminated; or NULL */
    bool begun;           /* a frame has come, or its head */
    /* The frame being read. */
    struct fm__frame_head head;
    unsigned char head_bytes[FM__FRAME_HEAD];
    size_t have; /* bytes of the head, then of the payload */
    bool in_payload;
    unsigned char *control; /* payload of a frame that is not DATA */
    size_t control_size;
};

/* `limit` 0 means none. */
void fm__inbox_init(struct fm__inbox *inbox, uint64_t job, uint64_t limit);

/* Take `len` bytes.  Returns 0; FM_EPROTOCOL, FM_ELIMIT (ending BROKEN), or
 * -ENOMEM (ending BROKEN too).  After an ending, bytes are ignored. */
int fm__inbox_feed(struct fm__inbox *inbox, const void *data, size_t len);

/* True between two frames: nothing was cut short. */
bool fm__inbox_is_between(const struct fm__inbox *inbox);

/* Free everything; accepts a zeroed inbox and repeated calls. */
void fm__inbox_done(struct fm__inbox *inbox);

#endif
