/* SPDX-License-Identifier: MIT */
/* How a worker comes by the bytes of an item that was not there at its fork. */
#include <errno.h>

#include "os/clock.h"
#include "os/sys.h"
#include "os/word.h"
#include "process/worker.h"

/* How long it sleeps for want of bytes before it looks for its parent. */
#define NAP_NS FM__NS_PER_S

/* Read what there is.  As fm__tray_read(), but never FM__TRAY_TELL. */
static int read_tray(struct fm_worker *worker)
{
    struct fm__tray_reader *items = &worker->items;
    uint64_t index = fm__worker_index(worker);
    int rc;

    do {
        rc = fm__tray_read(items, index, &worker->item_format);
        if (!items->tells)
            continue;
        items->tells = false;
        if (fm__bell_ring(&worker->outbox->bell) < 0)
            return FM_ECLOSED; /* the body has closed it: no more will come */
    } while (rc == FM__TRAY_TELL);
    return rc;
}

/* The parent changes `call` after it has written.  It has been told already,
 * if there was no room for more. */
static int wait_for_bytes(struct fm_worker *worker)
{
    struct fm__post *post = worker->post;

    for (;;) {
        uint32_t call = atomic_load(&post->call);
        int rc;

        atomic_store(&post->asleep, 1);
        rc = read_tray(worker);
        if (rc == FM__TRAY_WAIT)
            fm__word_wait(&post->call, call, NAP_NS);
        atomic_store(&post->asleep, 0);
        if (rc != FM__TRAY_WAIT)
            return rc;
        if (fm__sys.getppid() != worker->outbox->parent)
            return FM_ECLOSED;
    }
}

int fm__worker_fetch(struct fm_worker *worker)
{
    uint64_t name = fm__worker_index(worker) + 1;
    int64_t since;
    int rc;

    if (!worker->crew->tray || worker->said)
        return -EINVAL;
    if (worker->fetched == name)
        return 0;
    worker->fetched = 0;
    fm__tray_reader_clear(&worker->items);
    rc = read_tray(worker);
    if (rc == FM__TRAY_WAIT) {
        since = fm__worker_pause(worker);
        rc = wait_for_bytes(worker);
        fm__worker_resume(worker, since);
    }
    if (rc < 0)
        return rc == FM_ELIMIT ? -ENOMEM : rc;
    worker->fetched = name;
    return 0;
}
