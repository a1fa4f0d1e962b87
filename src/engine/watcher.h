/* SPDX-License-Identifier: MIT */
/*
 * Watchers: steps of the engine call C code of ours when a descriptor is ready.
 *
 * A watcher lies in its owner, who sets `fn`, `ud` and `holds`, adds it, and
 * removes it before the descriptor is closed: a forked child may hold a copy,
 * which would keep it in an epoll set.  It is level-triggered.  Several may
 * watch one descriptor, and are called in the order in which they were added.
 *
 * `fn` runs inside of a step, as the engine's own code: it may add, pause and
 * remove any watcher, and neither waits nor runs code of the host.  What a
 * batch of events told of a watcher that was removed meanwhile is not heard.
 *
 * Closing the engine removes what is left.  In a forked process, where its
 * descriptors are buried, nothing can be added, and removing does nothing.
 */
#ifndef FM_ENGINE_WATCHER_H
#define FM_ENGINE_WATCHER_H

#include <stdbool.h>
#include <stdint.h>

#include "fork_map.h"
#include "os/poller.h"

struct fm__watcher {
    fm_engine *engine;               /* NULL: not added */
    struct fm__watcher *prev, *next; /* of the same descriptor */
    int fd;
    unsigned slot;
    unsigned since;  /* which batch of events the engine was at when added */
    unsigned events; /* FM__POLL_IN, FM__POLL_OUT; 0: paused */
    void (*fn)(struct fm__watcher *watcher, unsigned events);
    void *ud;
    bool holds;      /* a step waits for it though nothing else is alive */
    bool is_counted; /* among those for which steps wait now */
};

/* Start watching.  Returns 0, FM_ECLOSED, or -errno: -EPERM for what is always
 * ready, as files are. */
int fm__watcher_add(fm_engine *engine, struct fm__watcher *watcher, int fd,
                    unsigned events);

/* Watch for other events; 0 pauses it.  Returns 0 or -errno, with what was
 * watched before. */
int fm__watcher_set(struct fm__watcher *watcher, unsigned events);

/* Idempotent, also for one that is all zero. */
void fm__watcher_remove(struct fm__watcher *watcher);

/* From `fn`: the step that has called it waits no longer. */
void fm__watcher_end_step(const struct fm__watcher *watcher);

#endif
