/* SPDX-License-Identifier: MIT */
/*
 * A tray: the ring by which a worker of a map gets items that came after its
 * fork.  The parent writes, without ever waiting; the worker reads.
 *
 * It holds records (record.h).  An item is DATA pieces and then ITEM, with the
 * last piece and its format; all of them tell its number.  DROP forgets the
 * pieces of an item that goes no further.  Nothing is ever taken out of a tray
 * but by its reader: items that were meant for this worker and then given to
 * another one are passed over.
 *
 * The reader may be hostile: all that the writer believes of it is how much it
 * has read, and a lie about that can only spoil this tray.
 */
#ifndef FM_WIRE_TRAY_H
#define FM_WIRE_TRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/buffer.h"
#include "wire/ring.h"

/* ------------------------------------------------------------- the writer */

struct fm__tray {
    struct fm__ring ring;
    bool is_cut; /* the item of the last piece goes no further */
};

struct fm__parcel {
    uint64_t index;
    int format; /* 0 to 255 */
    const unsigned char *data;
    size_t len;
};

/* Write the item from its byte `*done` on, as far as there is room, and count
 * what was written in `*done`.  Returns 1 when all of it is there, 0 when there
 * is no more room (the reader tells when there is), or FM_EPROTOCOL for a
 * reader that lies. */
int fm__tray_put(struct fm__tray *tray, const struct fm__parcel *parcel,
                 size_t *done);

/* ------------------------------------------------------------- the reader */

struct fm__tray_reader {
    struct fm__ring ring;
    struct fm__buffer pieces; /* of the item that is asked for */
    bool is_torn;             /* what comes is the rest of a lost item */
    bool tells;               /* the writer waits to be told of the room */
};

enum {
    FM__TRAY_WAIT, /* no more bytes are there */
    FM__TRAY_HAVE, /* the item is in `pieces` */
    FM__TRAY_TELL  /* neither, but `tells`: go on when that is done */
};

void fm__tray_reader_init(struct fm__tray_reader *reader,
                          const struct fm__ring *ring);

/* Read on until the item `index` is whole; others are passed over.  Whatever
 * comes of it, `tells` may be set, for the caller to act on.  Returns one of
 * the above, with its format in `*ret_format`, or a negative code:
 * -ENOMEM, after which the next item can be asked for, FM_ELIMIT,
 * FM_EPROTOCOL. */
int fm__tray_read(struct fm__tray_reader *reader, uint64_t index,
                  int *ret_format);

/* The same of whichever item is whole next; `*ret_index` tells which it is,
 * also when there is no memory for it. */
int fm__tray_next(struct fm__tray_reader *reader, uint64_t *ret_index,
                  int *ret_format);

/* Begin to read another item: forgets the one before. */
void fm__tray_reader_clear(struct fm__tray_reader *reader);

#endif
