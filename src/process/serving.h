/* SPDX-License-Identifier: MIT */
/*
 * A worker of a pool, inside its process: takes calls from its desk, says what
 * became of each.  Nothing here allocates but for calls that are longer than
 * any before.
 */
#ifndef FM_PROCESS_SERVING_H
#define FM_PROCESS_SERVING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "process/desk.h"
#include "process/outbox.h"
#include "wire/tray.h"

struct fm__serving {
    struct fm__outbox *outbox;
    struct fm__desk *desk;
    struct fm__bell bell;        /* of the desk */
    struct fm__tray_reader tray; /* tray.pieces are the bytes of the call */
    uint64_t call;               /* that was taken last */
    uint64_t tag;                /* of it */
    int format;                  /* of its bytes */
    bool is_taken;           /* the bytes are those of a call that was taken */
    unsigned luck, n_sleeps; /* of looking around before it sleeps */
};

/* `desk` and `bell` are those of this process's own parent. */
void fm__serving_init(struct fm__serving *serving, struct fm__outbox *outbox,
                      struct fm__desk *desk, const struct fm__bell *bell);

/* Begin the next call that was not taken back.  Never waits.  1 with it in
 * `serving`; 0 when there is none now; -ENOMEM for one that is begun and too
 * long for this process's memory; another negative code when the parent is
 * gone. */
int fm__serving_take(struct fm__serving *serving);

/* Does the parent want no more to begin? */
bool fm__serving_must_leave(const struct fm__serving *serving);

/* Sleep until there may be something to take, at most so long; a signal ends it
 * too.  0, or FM_ECLOSED when the parent is gone. */
int fm__serving_sleep(struct fm__serving *serving, int64_t timeout_ns);

/* The same, or until one of these descriptors can be read. */
int fm__serving_sleep_with(struct fm__serving *serving, const int *fds,
                           size_t n_fds, int64_t timeout_ns);

/* Tell what the outbox's sink holds, as fm__outbox_put_tell(), and have it
 * heard soon. */
int fm__serving_tell(struct fm__serving *serving, struct fm__tell *tell,
                     const char *first, const char *second);

#endif
