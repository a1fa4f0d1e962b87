/* SPDX-License-Identifier: MIT */
/* Items on their way to a worker; see tray.h. */
#include "wire/tray.h"

#include <string.h>

#include "fork_map.h"
#include "wire/record.h"

/* A long item goes in pieces that are not shorter than this part of the ring,
 * so that there are few of them. */
#define PIECE_SHARE 16

/* ------------------------------------------------------------- the writer */

/* Bytes that are not read, or FM_EPROTOCOL. */
static long count_unread(struct fm__ring *ring)
{
    ring->far = atomic_load(&ring->shared->head);
    if (ring->at - ring->far > ring->size)
        return FM_EPROTOCOL;
    return (long)(ring->at - ring->far);
}

/* Is there room for `need` bytes, which are less than half of the ring?  When
 * there is not, the reader will tell when half of it is free. */
static int has_room(struct fm__ring *ring, size_t need)
{
    long unread = count_unread(ring);

    if (unread < 0 || ring->size - (size_t)unread >= need)
        return unread < 0 ? (int)unread : 1;
    atomic_store(&ring->shared->starved, 1);
    unread = count_unread(ring);
    if (unread < 0 || (size_t)unread > ring->size / 2)
        return unread < 0 ? (int)unread : 0;
    atomic_store(&ring->shared->starved, 0);
    return 1;
}

/* Contiguous room for a head and `payload` bytes.  1, 0 or FM_EPROTOCOL. */
static int find_room(struct fm__ring *ring, size_t payload)
{
    size_t need = FM__RECORD_HEAD + payload;
    size_t offset = (size_t)ring->at & (ring->size - 1);
    size_t to_end = ring->size - offset;
    int rc;

    if (to_end >= need)
        return has_room(ring, need);
    rc = has_room(ring, to_end);
    if (rc <= 0)
        return rc;
    fm__record_put(ring->data + offset, FM__RECORD_PAD, 0,
                   (uint32_t)(to_end - FM__RECORD_HEAD), 0);
    fm__ring_commit(ring, to_end);
    return has_room(ring, need);
}

static int put_drop(struct fm__tray *tray)
{
    struct fm__ring *ring = &tray->ring;
    int rc = find_room(ring, 0);

    if (rc <= 0)
        return rc;
    fm__record_put(ring->data + ((size_t)ring->at & (ring->size - 1)),
                   FM__RECORD_DROP, 0, 0, 0);
    fm__ring_commit(ring, FM__RECORD_HEAD);
    tray->is_cut = false;
    return 1;
}

/* How long the next piece may be. */
static size_t piece_room(const struct fm__ring *ring)
{
    size_t to_end = ring->size - ((size_t)ring->at & (ring->size - 1));
    size_t room = ring->size - (size_t)(ring->at - ring->far);

    room = (room < to_end ? room : to_end) - FM__RECORD_HEAD;
    return room < FM__RECORD_PAYLOAD_MAX ? room : FM__RECORD_PAYLOAD_MAX;
}

int fm__tray_put(struct fm__tray *tray, const struct fm__parcel *parcel,
                 size_t *done)
{
    struct fm__ring *ring = &tray->ring;
    int rc = tray->is_cut ? put_drop(tray) : 1;

    while (rc > 0) {
        size_t left = parcel->len - *done;
        size_t share = ring->size / PIECE_SHARE;
        size_t n = left < share ? fm__record_padded((uint32_t)left) : share;
        unsigned char *at;

        rc = find_room(ring, n);
        if (rc <= 0)
            break;
        n = piece_room(ring);
        n = n < left ? n : left;
        at = ring->data + ((size_t)ring->at & (ring->size - 1));
        fm__record_put(at, n == left ? FM__RECORD_ITEM : FM__RECORD_DATA,
                       (unsigned)parcel->format & 0xff, (uint32_t)n,
                       parcel->index);
        if (n > 0)
            memcpy(at + FM__RECORD_HEAD, parcel->data + *done, n);
        fm__ring_commit(ring, FM__RECORD_HEAD + fm__record_padded((uint32_t)n));
        *done += n;
        if (n == left)
            break;
    }
    return rc;
}

/* ------------------------------------------------------------- the reader */

void fm__tray_reader_init(struct fm__tray_reader *reader,
                          const struct fm__ring *ring)
{
    fm__ring_init(&reader->ring, ring->shared, ring->data, ring->size);
    fm__buffer_init(&reader->pieces, SIZE_MAX / 2);
    reader->is_torn = false;
    reader->tells = false;
}

void fm__tray_reader_clear(struct fm__tray_reader *reader)
{
    fm__buffer_clear(&reader->pieces);
}

/* Give bytes back. */
static void consume(struct fm__tray_reader *reader, size_t len)
{
    struct fm__ring *ring = &reader->ring;
    struct fm__ring_shared *shared = ring->shared;

    ring->at += len;
    atomic_store(&shared->head, ring->at);
    if (atomic_load(&shared->starved) != 0 &&
        atomic_load(&shared->tail) - ring->at <= ring->size / 2 &&
        atomic_exchange(&shared->starved, 0) != 0)
        reader->tells = true;
}

/* Take what one record says about the item.  1 when it is whole. */
static int take(struct fm__tray_reader *reader, const struct fm__record *r,
                const unsigned char *payload, uint64_t index)
{
    bool is_item = r->kind == FM__RECORD_ITEM;
    bool was_torn = reader->is_torn;
    int rc;

    if (r->kind == FM__RECORD_DROP)
        fm__buffer_clear(&reader->pieces);
    if (r->kind == FM__RECORD_DROP || is_item)
        reader->is_torn = false;
    if (was_torn || r->u != index || (!is_item && r->kind != FM__RECORD_DATA))
        return 0;
    rc = fm__buffer_append(&reader->pieces, payload, r->len);
    if (rc < 0)
        reader->is_torn = !is_item;
    return rc < 0 ? rc : is_item;
}

/* Read on until the item `*wanted`, or, when that is NULL, any is whole. */
static int read_on(struct fm__tray_reader *reader, const uint64_t *wanted,
                   uint64_t *ret_index, int *ret_format)
{
    for (;;) {
        const unsigned char *at;
        struct fm__record r;
        size_t size;
        long n = fm__ring_peek_all(&reader->ring, &at);
        int rc;

        if (n <= 0)
            return n < 0 ? (int)n : FM__TRAY_WAIT;
        if (n < FM__RECORD_HEAD || fm__record_get_magic(at) != FM__RECORD_MAGIC)
            return FM_EPROTOCOL;
        r = fm__record_get(at);
        size = FM__RECORD_HEAD + fm__record_padded(r.len);
        if (size > (size_t)n)
            return FM_EPROTOCOL;
        rc = take(reader, &r, at + FM__RECORD_HEAD, wanted ? *wanted : r.u);
        consume(reader, size);
        if (rc != 0) {
            *ret_index = r.u;
            *ret_format = (int)r.detail;
            return rc < 0 ? rc : FM__TRAY_HAVE;
        }
        if (reader->tells)
            return FM__TRAY_TELL;
    }
}

int fm__tray_read(struct fm__tray_reader *reader, uint64_t index,
                  int *ret_format)
{
    uint64_t found;

    return read_on(reader, &index, &found, ret_format);
}

int fm__tray_next(struct fm__tray_reader *reader, uint64_t *ret_index,
                  int *ret_format)
{
    return read_on(reader, NULL, ret_index, ret_format);
}
