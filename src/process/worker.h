/* SPDX-License-Identifier: MIT */
/*
 * A worker of a map, inside its process: takes ranges of items, goes from one
 * to the next, and says what became of each.
 *
 * What is done for every item is here, inline: no allocation, no system call.
 * Commits are plain releases; who might sleep on them is thought of at ticks,
 * about every millisecond and at the end of every claim, behind a fence.
 */
#ifndef FM_PROCESS_WORKER_H
#define FM_PROCESS_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "fork_map.h"
#include "process/outbox.h"
#include "process/post.h"
#include "wire/record.h"
#include "wire/sink.h"
#include "wire/tray.h"

/* What a worker is told before the fork.  Read only. */
struct fm__crew {
    struct fm__board *board;
    unsigned id;        /* 1, 2, …: which worker */
    unsigned n_workers; /* how many there are */
    uint64_t n_items;
    uint64_t chunk_min, chunk_max; /* items of a claim */
    uint32_t pace;   /* items of about a millisecond, as far as known; 0 */
    bool adapts;     /* claims grow with the items' speed */
    bool is_heard;   /* the host wants to know what which item prints */
    bool eager;      /* every item is to be heard of within a tick */
    bool timed;      /* items have a time limit */
    bool has_fence;  /* the parent can make barriers here */
    uint64_t limit;  /* most bytes of a result, 0: none */
    uint64_t cpu_ns; /* of an item, 0: no limit */
    uint64_t max_tasks, max_claims, max_rss; /* 0: none */
    const struct fm__ring *tray; /* items come by it; NULL: they are there */
};

struct fm_worker {
    struct fm__sink sink; /* first: of the item's value */
    fm_child *child;
    struct fm__outbox *outbox;
    struct fm__ring *ring;
    struct fm__post *post;
    const struct fm__crew *crew;
    uint64_t word;         /* as this side left it */
    uint64_t at;           /* the item that it is in */
    uint64_t first;        /* of the claim */
    uint64_t last;         /* of the claim, as far as is known */
    uint64_t swap_at;      /* up to this one no swap is needed to go on */
    bool has_fence;        /* as in crew, and this process takes part */
    bool timed;            /* as in crew */
    timer_t cpu_timers[2]; /* of crew->cpu_ns: asks, kills */
    bool said;             /* the item has its last record */
    bool is_ready;         /* READY was said */
    bool is_spent;         /* no more items, whatever comes */
    unsigned attempt;      /* of the claim's items */
    unsigned countdown;    /* items until the next tick */
    unsigned stride;       /* items from tick to tick */
    unsigned counted;      /* countdown at the last tick */
    int64_t tick_at;       /* when that was */
    unsigned char *open;   /* the head of the piece that the sink fills */
    uint64_t total;        /* bytes of the pieces before */
    uint64_t most;         /* that total may be */
    int format;
    uint64_t n_before; /* items of the claims before */
    uint64_t n_claims;
    struct fm__tray_reader items; /* of crew->tray */
    uint64_t fetched; /* the item whose bytes are there, plus 1; 0: none */
    int item_format;
    fm_engine *engine; /* of the items' own processes; NULL at first */
    const struct fm_map_opts *opts;
};

/* 0 or -errno. */
int fm__worker_init(struct fm_worker *worker, fm_child *child,
                    const struct fm__crew *crew);

/* As fm_worker_next(), behind what is inline below. */
int fm__worker_next_slow(struct fm_worker *worker);

/* Wait until the ring has `need` bytes of room in one piece, at most an eighth
 * of it.  0 or FM_ECLOSED. */
int fm__worker_wait_room(struct fm_worker *worker, size_t need);

/* The item that the worker is in. */
static inline uint64_t fm__worker_index(const struct fm_worker *worker)
{
    return worker->at;
}

/* Room for a record without payload.  0 or FM_ECLOSED. */
static inline int fm__worker_room(struct fm_worker *worker)
{
    const struct fm__ring *ring = worker->ring;

    if (ring->size - (size_t)(ring->at - ring->far) >= FM__RECORD_HEAD)
        return 0;
    return fm__worker_wait_room(worker, FM__RECORD_HEAD);
}

static inline unsigned char *fm__worker_at(const struct fm_worker *worker)
{
    const struct fm__ring *ring = worker->ring;

    return ring->data + ((size_t)ring->at & (ring->size - 1));
}

static inline void fm__worker_commit(struct fm_worker *worker, size_t len)
{
    struct fm__ring *ring = worker->ring;

    ring->at += len;
    atomic_store_explicit(&ring->shared->tail, ring->at, memory_order_release);
}

/* Write a record without payload.  0 or FM_ECLOSED. */
static inline int fm__worker_put(struct fm_worker *worker, unsigned kind,
                                 unsigned detail, uint32_t len, uint64_t u)
{
    int rc = fm__worker_room(worker);

    if (rc < 0)
        return rc;
    fm__record_put(fm__worker_at(worker), kind, detail, len, u);
    fm__worker_commit(worker, FM__RECORD_HEAD);
    return 0;
}

/* The item's value is a scalar: FM__RECORD_NIL to FM__RECORD_NUMBER. */
static inline int fm__worker_put_scalar(struct fm_worker *worker, unsigned kind,
                                        uint64_t u)
{
    worker->said = true;
    return fm__worker_put(worker, kind, 0, 0, u);
}

/* Go to the next item, when the one before has its last record.  1, 0 when
 * there is none, or a negative code. */
static inline int fm__worker_next(struct fm_worker *worker)
{
    struct fm__post *post = worker->post;

    if (--worker->countdown == 0 || worker->at >= worker->swap_at)
        return fm__worker_next_slow(worker);
    atomic_store_explicit(&post->at, worker->at + 1, memory_order_release);
    /* Between these two the parent makes a barrier, when it needs one. */
    atomic_signal_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&post->recall, memory_order_relaxed) != 0)
        return fm__worker_next_slow(worker);
    worker->at++;
    worker->said = false;
    return 1;
}

/* The sink has no window yet. */
void fm__worker_open_sink(struct fm_worker *worker);

/* Begin the bytes of a value, event or failure: then write into the sink. */
void fm__worker_begin(struct fm_worker *worker);

/* End them with a record of this kind.  0 or a negative code. */
int fm__worker_end(struct fm_worker *worker, unsigned kind, unsigned detail);

/* The detail and two texts, each cut to FM__FRAME_TEXT_MAX: as a failure
 * begins. */
int fm__worker_write_texts(struct fm_worker *worker, const char *first,
                           const char *second);

/* Between these two the item waits for the parent: that is not its time. */
int64_t fm__worker_pause(struct fm_worker *worker);
void fm__worker_resume(struct fm_worker *worker, int64_t since);

/* Have the bytes of the item that the worker is in, which came by the tray, in
 * worker->items.pieces, with their format in worker->item_format.  Waits for
 * them.  0, FM_ECLOSED when the parent is gone, -ENOMEM, or -EINVAL when items
 * do not come by a tray. */
int fm__worker_fetch(struct fm_worker *worker);

/* Before the last record of an item: have the host read what the item printed,
 * so that it knows whose it is.  Does nothing when nobody listens. */
void fm__worker_settle_output(struct fm_worker *worker);

/* What was said has to be heard, if it is much. */
void fm__worker_wake_if_due(struct fm_worker *worker);

/* What is said shall be heard soon. */
void fm__worker_wake_parent(struct fm_worker *worker);

#endif
