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

#include "fork_map.h"
#include "process/outbox.h"
#include "process/post.h"
#include "wire/record.h"
#include "wire/sink.h"

/* What a worker is told before the fork.  Read only. */
struct fm__crew {
    struct fm__board *board;
    unsigned id;        /* 1, 2, …: which worker */
    unsigned n_workers; /* how many there are */
    uint64_t n_items;
    uint64_t chunk_min, chunk_max; /* items of a claim */
    bool adapts;                   /* claims grow with the items' speed */
    bool eager;     /* every item is to be heard of within a tick */
    bool timed;     /* items have a time limit */
    uint64_t limit; /* most bytes of a result, 0: none */
    uint64_t max_tasks, max_claims, max_rss; /* 0: none */
};

struct fm_worker {
    struct fm__sink sink; /* first: of the item's value */
    fm_child *child;
    struct fm__outbox *outbox;
    struct fm__ring *ring;
    struct fm__post *post;
    const struct fm__crew *crew;
    uint64_t word;       /* as this side left it */
    bool timed;          /* as in crew */
    bool said;           /* the item has its last record */
    bool is_ready;       /* READY was said */
    unsigned attempt;    /* of the claim's items */
    unsigned countdown;  /* items until the next tick */
    unsigned stride;     /* items from tick to tick */
    unsigned counted;    /* countdown at the last tick */
    int64_t tick_at;     /* when that was */
    unsigned char *open; /* the head of the piece that the sink fills */
    uint64_t total;      /* bytes of the pieces before */
    int format;
    uint64_t n_done, n_claims;
    fm_engine *engine; /* of the items' own processes; NULL at first */
    const struct fm_map_opts *opts;
};

void fm__worker_init(struct fm_worker *worker, fm_child *child,
                     const struct fm__crew *crew);

/* As fm_worker_next(), behind what is inline below. */
int fm__worker_next_slow(struct fm_worker *worker);

/* Wait until the ring has `need` bytes of room in one piece, at most an eighth
 * of it.  0 or FM_ECLOSED. */
int fm__worker_wait_room(struct fm_worker *worker, size_t need);

int64_t fm__worker_clock(void);

/* The item that the worker is in. */
static inline uint64_t fm__worker_index(const struct fm_worker *worker)
{
    return fm__span_first(worker->word);
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
    uint64_t word = worker->word;
    uint64_t next = word + FM__SPAN_NEXT;

    if (--worker->countdown == 0 || fm__span_count(word) == 0)
        return fm__worker_next_slow(worker);
    if (worker->timed)
        atomic_store(&worker->post->started_at, fm__worker_clock());
    if (!atomic_compare_exchange_strong(&worker->post->word, &word, next))
        return fm__worker_next_slow(worker);
    worker->word = next;
    worker->said = false;
    worker->n_done++;
    return 1;
}

/* Begin the bytes of a value, event or failure: then write into the sink. */
void fm__worker_begin(struct fm_worker *worker);

/* End them with a record of this kind.  0 or a negative code. */
int fm__worker_end(struct fm_worker *worker, unsigned kind, unsigned detail);

/* The detail and two texts, each cut to FM__FRAME_TEXT_MAX: as a failure
 * begins. */
int fm__worker_write_texts(struct fm_worker *worker, const char *first,
                           const char *second);

/* What is said shall be heard soon. */
void fm__worker_wake_parent(struct fm_worker *worker);

#endif
