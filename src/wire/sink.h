/* SPDX-License-Identifier: MIT */
/*
 * A sink takes encoded bytes.  Encoders write through [next, end) and ask for
 * room when it is used up, so that the same encoder fills a buffer in memory
 * or the shared ring of a child, without a copy in between.
 */
#ifndef FM_WIRE_SINK_H
#define FM_WIRE_SINK_H

#include <stddef.h>
#include <string.h>

/* Room that `more` gives at least: enough for any number, escape or header. */
#define FM__SINK_ROOM 64

struct fm__sink {
    unsigned char *next; /* the next byte goes here */
    unsigned char *end;  /* first byte that must not be written */
    /* Make room: afterwards end - next >= FM__SINK_ROOM.  What was written
     * before `next` is taken.  Returns 0 or a negative code, which is final
     * (FM_ELIMIT, FM_ECLOSED, -ENOMEM). */
    int (*more)(struct fm__sink *sink);
    /* Forget everything written so far; what follows has this format tag.
     * Called once before the first byte too.  Returns as `more`. */
    int (*restart)(struct fm__sink *sink, int format);
};

/* Ensure FM__SINK_ROOM bytes.  Returns 0 or a negative code. */
static inline int fm__sink_room(struct fm__sink *sink)
{
    if ((size_t)(sink->end - sink->next) >= FM__SINK_ROOM)
        return 0;
    return sink->more(sink);
}

/* Append `len` bytes of any length.  Returns 0 or a negative code. */
static inline int fm__sink_write(struct fm__sink *sink, const void *data,
                                 size_t len)
{
    const unsigned char *p = data;

    for (;;) {
        size_t room = (size_t)(sink->end - sink->next);
        size_t n = len < room ? len : room;
        int rc;

        /* A sink may begin without room, at NULL. */
        if (n > 0) {
            memcpy(sink->next, p, n);
            sink->next += n;
            len -= n;
        }
        if (len == 0)
            return 0;
        p += n;
        rc = sink->more(sink);
        if (rc < 0)
            return rc;
    }
}

#endif
