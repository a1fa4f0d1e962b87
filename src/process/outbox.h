/* SPDX-License-Identifier: MIT */
/*
 * The child's side of a conversation: frames written straight into the ring.
 *
 * A data frame is built in place: its header is left out until the window is
 * full or the next frame begins.  When the ring is full the child sleeps on a
 * word in it; the parent's death kills it there through the lifeline.
 */
#ifndef FM_PROCESS_OUTBOX_H
#define FM_PROCESS_OUTBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "os/bell.h"
#include "wire/frame.h"
#include "wire/ring.h"
#include "wire/sink.h"

#define FM__OUTBOX_BOUNCE 512

struct fm__outbox {
    struct fm__sink sink; /* first: more() and restart() find the outbox */
    struct fm__ring ring; /* the writer's side */
    struct fm__bell bell;
    int parent; /* its process id, to notice its death while waiting */
    uint64_t job;
    uint64_t limit;       /* most bytes of data, 0: none */
    uint64_t total;       /* bytes of data since the last restart */
    unsigned char *frame; /* where the open data frame's header goes */
    bool bounced;         /* it is in `bounce`, not in the ring */
    bool closed;          /* END, EXITED or START_FAILED was written */
    unsigned char bounce[FM__OUTBOX_BOUNCE];
};

void fm__outbox_init(struct fm__outbox *outbox, const struct fm__ring *ring,
                     const struct fm__bell *bell, int parent, uint64_t job);

/* Write a frame that is not DATA, after what the sink holds.  Returns 0 or
 * FM_ECLOSED when the parent is gone or the conversation is over. */
int fm__outbox_put(struct fm__outbox *outbox, enum fm__frame_type type,
                   const void *payload, size_t len);

/* FAIL, REFUSE, EXCEED: two texts, NULL for "", cut to FM__FRAME_TEXT_MAX;
 * data written before is forgotten. */
int fm__outbox_put_pair(struct fm__outbox *outbox, enum fm__frame_type type,
                        const char *first, const char *second);

/* Commit what the sink holds as something beside the result, and have it heard
 * soon.  0 or a negative code. */
int fm__outbox_put_aside(struct fm__outbox *outbox, enum fm__aside what);

/* In a worker of a pool: what the sink holds is the data of this, with two
 * texts as in _put_pair; the caller sets call, what and format.  FM_ELIMIT,
 * with nothing told and the data forgotten, when that is more than the limit.
 */
int fm__outbox_put_tell(struct fm__outbox *outbox, struct fm__tell *tell,
                        const char *first, const char *second);

/* Wake the parent if it sleeps.  When that cannot be done, it sleeps on, and
 * the next one tries again.  0 or a negative code. */
int fm__outbox_wake_parent(struct fm__outbox *outbox);

/* Sleep until the ring has `need` bytes of room, or for a while.  0 or
 * FM_ECLOSED. */
int fm__outbox_wait_room(struct fm__outbox *outbox, size_t need);

/* Commit what the sink holds, then END. */
int fm__outbox_end(struct fm__outbox *outbox);

#endif
