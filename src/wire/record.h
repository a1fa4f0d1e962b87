/* SPDX-License-Identifier: MIT */
/*
 * Records: what a worker says about its items.  A record is a head of 16 bytes
 * and a payload that is padded to a multiple of 16, so that no head is ever cut
 * by the end of the ring, and a payload neither: the writer fills the rest of
 * the ring with a PAD.  A head has the size and the order of a frame's, with
 * another magic number: the first frame ends the records, and frames follow.
 *
 * A conversation is: READY, then any number of claims.  A claim is CLAIM, then
 * for each of its items in order what became of it: a scalar, or DATA pieces
 * and a record that ends them (VALUE, FAIL, REFUSE, EXCEED, ENDED).  DROP
 * forgets the pieces since the last such record.  EVENT and STOP end pieces
 * too, and leave the item open.  A claim may be left before its end.
 */
#ifndef FM_WIRE_RECORD_H
#define FM_WIRE_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "wire/frame.h"

/* In FM__RECORD_ENDED, behind detail and texts: what became of the item's own
 * process.  Kinds are those of fork_map.h. */
struct fm__item_end {
    int32_t kind, error_code, signal, exit_code;
    int64_t pid;
    int64_t wall_ns, user_ns, sys_ns;
    uint64_t max_rss;
    int64_t elapsed_ns;
    uint32_t is_known; /* where it was seen last, */
    char where[124];   /* terminated */
};

#define FM__RECORD_MAGIC 0xF0ABu
#define FM__RECORD_HEAD 16

/* Longest payload of one record, a multiple of 16. */
#ifdef FM_TINY
#define FM__RECORD_PAYLOAD_MAX 1008u
#else
#define FM__RECORD_PAYLOAD_MAX 65536u
#endif

/* Most bytes of a failure beside the raised value. */
#define FM__RECORD_TEXTS_MAX (2 * (uint64_t)FM__FRAME_TEXT_MAX + 512)

/* Bounds of what can be told: items of a map, items of a claim. */
#define FM__ITEMS_MAX (UINT64_C(1) << 40)
#define FM__CLAIM_MAX ((UINT64_C(1) << 22) - 1)

enum fm__record_kind {
    FM__RECORD_PAD = 1,
    FM__RECORD_READY, /* the items may come */
    FM__RECORD_CLAIM, /* detail: attempt; len: items; u: the first */
    FM__RECORD_NIL,   /* the item's value, here and in the next four: */
    FM__RECORD_FALSE,
    FM__RECORD_TRUE,
    FM__RECORD_INTEGER, /* u */
    FM__RECORD_NUMBER,  /* the bits of u */
    FM__RECORD_DATA,    /* a piece of what a later record ends */
    FM__RECORD_DROP,
    FM__RECORD_VALUE,  /* detail: format; u: bytes of all pieces, as in all
                          that follow */
    FM__RECORD_FAIL,   /* u64 detail, texts message and traceback; then the
                          raised value */
    FM__RECORD_REFUSE, /* u64 detail, texts path and message */
    FM__RECORD_EXCEED, /* u64 detail, texts limit and message */
    FM__RECORD_ENDED,  /* u64 detail, texts message and traceback, path or
                          limit; struct fm__item_end; the raised value */
    FM__RECORD_EVENT,  /* fm_worker_emit() */
    FM__RECORD_STOP,   /* the whole map ends, with this value */
    FM__RECORD_ITEM,   /* from parent to worker: see tray.h */
    FM__RECORD_KINDS
};

/* A head in two words, so that a reader can load each once. */
struct fm__record {
    unsigned magic;
    unsigned kind;
    unsigned detail; /* 0 to 255 */
    uint32_t len;
    uint64_t u;
};

static inline uint64_t fm__record_word(unsigned kind, unsigned detail,
                                       uint32_t len)
{
    return (uint64_t)FM__RECORD_MAGIC | (uint64_t)kind << 16 |
           (uint64_t)detail << 24 | (uint64_t)len << 32;
}

/* Write a head at `at`, which is aligned to 16. */
static inline void fm__record_put(void *at, unsigned kind, unsigned detail,
                                  uint32_t len, uint64_t u)
{
    uint64_t *words = at;

    words[0] = fm__record_word(kind, detail, len);
    words[1] = u;
}

/* The magic number of the record or frame at `at`. */
static inline unsigned fm__record_get_magic(const void *at)
{
    return (unsigned)(*(const volatile uint64_t *)at & 0xffff);
}

/* Read a head from memory that may change meanwhile: each word once. */
static inline struct fm__record fm__record_get(const void *at)
{
    const volatile uint64_t *words = at;
    uint64_t word = words[0];

    return (struct fm__record){.magic = (unsigned)word & 0xffff,
                               .kind = (unsigned)(word >> 16) & 0xff,
                               .detail = (unsigned)(word >> 24) & 0xff,
                               .len = (uint32_t)(word >> 32),
                               .u = words[1]};
}

/* Bytes of a payload of `len` with its padding. */
static inline size_t fm__record_padded(uint32_t len)
{
    return ((size_t)len + 15) & ~(size_t)15;
}

#endif
