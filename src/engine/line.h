/* SPDX-License-Identifier: MIT */
/* The inside of duplex jobs: their record, and the messages that wait in it. */
#ifndef FM_ENGINE_LINE_H
#define FM_ENGINE_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/duplex.h"
#include "process/desk.h"
#include "wire/buffer.h"
#include "wire/inbox.h"
#include "wire/tray.h"

/* Bytes of messages that nobody has heard yet, above which the worker is read
 * no more: it waits when its ring is full. */
#define FM__MESSAGES_MOST ((size_t)4 << 20)

/* First in, first out, in one block; long data keep the block that they came
 * in. */
struct fm__messages {
    struct fm__buffer buffer;
    size_t at;                 /* of the first that was not heard */
    size_t in_blocks;          /* bytes in blocks */
    struct fm__buffer current; /* the message that was heard last, */
    void *block;               /* and its block */
};

void fm__messages_init(struct fm__messages *messages);

/* Keep a copy of what was told.  0, or -ENOMEM with nothing kept. */
int fm__messages_add(struct fm__messages *messages, struct fm__inbox *inbox,
                     const struct fm__tell *tell, const char *texts,
                     size_t texts_len, int64_t begun_at);

/* 1; 0 when there is none; or -ENOMEM: it is still the next one.  What the
 * message points to stays until the next call of this. */
int fm__messages_next(struct fm__messages *messages,
                      struct fm__message *ret_message);

/* Bytes that wait. */
size_t fm__messages_size(const struct fm__messages *messages);
void fm__messages_done(struct fm__messages *messages);

/* A call that the worker has. */
struct fm__duplex_call {
    uint64_t number; /* 0: the slot is free */
    int64_t given_at;
    const unsigned char *data; /* the caller's, while it is not sent */
    size_t len, done;
    int format;
    bool is_sent;
    bool was_begun; /* once the desk is closed */
};

struct fm__duplex {
    struct fm__desk *desk; /* NULL: before the fork, and when it was reaped */
    int file;              /* the desk's, until a template has it; or -1 */
    struct fm__tray tray;
    struct fm__bell bell; /* wakes a worker that sleeps in a poller */
    bool leaves, has_told;
    uint64_t n_given;
    struct fm__duplex_call calls[FM__DESK_SLOTS];
    unsigned char free[FM__DESK_SLOTS];  /* slots */
    unsigned char pours[FM__DESK_SLOTS]; /* slots of calls that are not sent */
    size_t n_free, n_pours;
    struct fm__messages messages;
    fm__news_cb on_news;
    void *news_ud;
};

/* Before a fork, with everything given back when it fails; after it, in both
 * processes; and when the child was reaped, or none was made.  0 or -errno. */
int fm__duplex_open(struct fm__duplex *duplex);
/* The same for a child that a template forks. */
int fm__duplex_open_file(struct fm__duplex *duplex);
void fm__duplex_keep(const struct fm__duplex *duplex);
void fm__duplex_close(struct fm__duplex *duplex);

/* NULL is a no-op. */
void fm__duplex_free(struct fm__duplex *duplex);

/* For the inbox of its attempt. */
void fm__duplex_attach(fm_future *future);

/* Send what there is room for now. */
void fm__duplex_pour(fm_future *future);

/* How much of `most` bytes may be read of its ring now. */
size_t fm__duplex_room(const fm_future *future, size_t most);

#endif
