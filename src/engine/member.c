/* SPDX-License-Identifier: MIT */
/*
 * One worker of a map, as its parent sees it: what it says, read from a ring
 * that it may scribble on at any time.
 *
 * Heads are loaded once, payloads copied before they are looked at.  Which item
 * a record is about follows from the ledger, never from the record.
 */
#include <errno.h>
#include <string.h>

#include "engine/map.h"
#include "os/clock.h"
#include "os/memory.h"
#include "os/word.h"
#include "process/child.h"

/* Bytes of the ring that are given back to its writer at once. */
#define BATCH_MAX (FM__RING_SIZE / 8)

/* ------------------------------------------------------------------ output */

static bool captures(const struct fm__member *member)
{
    return member->future->opts.output == FM_OUTPUT_CAPTURE;
}

bool fm__member_has_spoken(const struct fm__member *member)
{
    return atomic_load(&fm__member_post(member)->spoke) != 0;
}

void fm__member_was_heard(struct fm__member *member)
{
    atomic_store(&fm__member_post(member)->spoke, 0);
    fm__map_call(member);
}

void fm__member_note_line(struct fm__member *member)
{
    member->map->line_index = fm__member_has_claim(member)
                                  ? member->first + member->done
                                  : UINT64_MAX;
}

/* What was captured is the item's that has ended. */
static void forget_output(struct fm__member *member)
{
    if (!captures(member))
        return;
    fm__output_clear(&member->future->outputs[0]);
    fm__output_clear(&member->future->outputs[1]);
}

/* ----------------------------------------------------------------- records */

/* The item that the next record is about is this one; go on to the next.
 * False when it is nobody's business. */
static bool settle_next(struct fm__member *member, struct fm_item *item)
{
    item->index = member->first + member->done;
    item->attempt = member->attempt;
    member->done++;
    member->item_bytes = 0;
    if (member->is_void)
        return false;
    member->is_fruitful = true;
    member->map->n_fruitless = 0;
    return true;
}

static int take_scalar(struct fm__member *member, unsigned kind, uint64_t u)
{
    fm_map *map = member->map;
    struct fm_item item;

    if (!fm__member_has_claim(member) || member->pieces.len > 0 ||
        member->is_lost)
        return FM_EPROTOCOL;
    item.type = (enum fm_item_type)(FM_ITEM_NIL + (kind - FM__RECORD_NIL));
    item.format = 0;
    memcpy(&item.u, &u, sizeof u);
    item.data = NULL;
    item.len = 0;
    item.outcome = NULL;
    item.detail = 0;
    if (settle_next(member, &item))
        fm__map_deliver(map, &item);
    forget_output(member);
    return 0;
}

/* The front of a failure, and what follows it. */
struct texts {
    uint64_t detail;
    char *first, *second;
    const unsigned char *rest;
    size_t len;
};

static bool cut_text(struct texts *texts, char **ret_text)
{
    uint32_t len;

    if (texts->len < sizeof len)
        return false;
    memcpy(&len, texts->rest, sizeof len);
    if (len > texts->len - sizeof len || len > FM__FRAME_TEXT_MAX)
        return false;
    /* The length's own place takes the terminator: one byte to the left. */
    *ret_text = (char *)(uintptr_t)texts->rest;
    memmove(*ret_text, texts->rest + sizeof len, len);
    (*ret_text)[len] = '\0';
    texts->rest += sizeof len + len;
    texts->len -= sizeof len + len;
    return true;
}

/* The bytes of all pieces, which are copies.  They stay where they are until
 * the next record: who is called with them may not come back. */
struct bytes {
    unsigned char *data;
    size_t len;
};

static struct bytes take_pieces(struct fm__member *member)
{
    struct bytes bytes = {member->pieces.data, member->pieces.len};

    fm__buffer_clear(&member->pieces);
    return bytes;
}

static bool cut_texts(struct bytes bytes, struct texts *ret)
{
    ret->rest = bytes.data;
    ret->len = bytes.len;
    if (ret->len < sizeof ret->detail)
        return false;
    memcpy(&ret->detail, ret->rest, sizeof ret->detail);
    ret->rest += sizeof ret->detail;
    ret->len -= sizeof ret->detail;
    return cut_text(ret, &ret->first) && cut_text(ret, &ret->second);
}

static void describe(struct fm__member *member, struct fm_outcome *outcome)
{
    memset(outcome, 0, sizeof *outcome);
    outcome->name = member->future->opts.name;
    outcome->exit_code = -1;
    outcome->pid = member->future->pid.pid;
}

/* The item has failed with this outcome, complete but for its attempt. */
void fm__member_fail_item(struct fm__member *member, struct fm_outcome *outcome,
                          uint64_t detail)
{
    fm_map *map = member->map;
    struct fm_item item;

    memset(&item, 0, sizeof item);
    item.type = FM_ITEM_FAILED;
    if (!settle_next(member, &item))
        return;
    outcome->attempt = item.attempt;
    item.outcome = outcome;
    item.detail = detail;
    if (!fm__ledger_try_again(map, item.index, item.attempt, outcome->kind,
                              fm__clock_now()))
        fm__map_deliver(map, &item);
}

/* Texts that a worker says its own child has said. */
static void set_end_texts(struct fm_outcome *outcome, struct texts *texts)
{
    outcome->message = texts->first;
    if (outcome->kind == FM_ENCODE)
        outcome->path = texts->second;
    else if (outcome->kind == FM_LIMIT)
        outcome->limit = texts->second;
    else if (texts->second[0])
        outcome->traceback = texts->second;
}

static void set_last(struct fm_last *last, const struct fm__item_end *end)
{
    size_t len = strnlen(end->where, sizeof last->where - 1);

    last->known = end->is_known != 0;
    last->elapsed_ns = end->elapsed_ns;
    last->max_rss = end->max_rss;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)end->where[i];

        last->where[i] = '?';
        if (c >= ' ' && c != 0x7f)
            last->where[i] = end->where[i];
    }
    last->where[len] = '\0';
}

/* The item had a process of its own, of which its worker tells. */
static bool take_item_end(struct texts *texts, struct fm_outcome *outcome)
{
    struct fm__item_end end;

    if (texts->len < sizeof end)
        return false;
    memcpy(&end, texts->rest, sizeof end);
    texts->rest += sizeof end;
    texts->len -= sizeof end;
    if (end.kind <= FM_VALUE || end.kind >= FM_KIND_COUNT)
        return false;
    outcome->kind = (enum fm_kind)end.kind;
    outcome->error_code = end.error_code;
    outcome->signal = end.signal;
    outcome->exit_code = end.exit_code;
    outcome->pid = (pid_t)end.pid;
    outcome->usage.wall_ns = end.wall_ns;
    outcome->usage.user_ns = end.user_ns;
    outcome->usage.sys_ns = end.sys_ns;
    outcome->usage.max_rss = end.max_rss;
    set_end_texts(outcome, texts);
    set_last(&outcome->last, &end);
    if (outcome->kind == FM_ERROR) {
        outcome->data = texts->rest;
        outcome->len = texts->len;
    }
    return true;
}

static int take_failure(struct fm__member *member, const struct fm__record *r)
{
    struct fm_outcome outcome;
    struct texts texts;

    if (!cut_texts(take_pieces(member), &texts))
        return FM_EPROTOCOL;
    describe(member, &outcome);
    if (r->kind == FM__RECORD_ENDED && !take_item_end(&texts, &outcome))
        return FM_EPROTOCOL;
    switch (r->kind) {
    case FM__RECORD_FAIL:
        outcome.kind = FM_ERROR;
        outcome.message = texts.first;
        outcome.traceback = texts.second[0] ? texts.second : NULL;
        outcome.data = texts.rest;
        outcome.len = texts.len;
        outcome.format = (int)r->detail;
        break;
    case FM__RECORD_REFUSE:
        outcome.kind = FM_ENCODE;
        outcome.path = texts.first;
        outcome.message = texts.second;
        break;
    case FM__RECORD_ENDED:
        outcome.format = (int)r->detail;
        break;
    default:
        outcome.kind = FM_LIMIT;
        outcome.limit = texts.first;
        outcome.message = texts.second;
        break;
    }
    fm__output_get(&member->future->outputs[0], &outcome.output[0]);
    fm__output_get(&member->future->outputs[1], &outcome.output[1]);
    fm__member_fail_item(member, &outcome, texts.detail);
    forget_output(member);
    return 0;
}

static int take_bytes(struct fm__member *member, const struct fm__record *r)
{
    fm_map *map = member->map;
    uint64_t limit = member->future->opts.limits.result;
    struct bytes bytes = take_pieces(member);
    struct fm_item item;

    if (bytes.len > limit)
        return FM_ELIMIT;
    memset(&item, 0, sizeof item);
    item.type = FM_ITEM_BYTES;
    item.format = (int)r->detail;
    item.data = bytes.data;
    item.len = bytes.len;
    if (r->kind == FM__RECORD_VALUE) {
        if (settle_next(member, &item))
            fm__map_deliver(map, &item);
        forget_output(member);
        return 0;
    }
    item.index = member->first + member->done;
    item.attempt = member->attempt;
    if (r->kind == FM__RECORD_STOP)
        item.type = FM_ITEM_STOP;
    if (!member->is_void)
        fm__map_deliver_event(map, &item);
    return 0;
}

/* There was no memory for the pieces. */
static int take_lost(struct fm__member *member, const struct fm__record *r)
{
    struct fm_outcome outcome;

    if (r->kind == FM__RECORD_STOP)
        return -ENOMEM;
    if (r->kind == FM__RECORD_EVENT)
        return 0; /* the item fails, as its event was lost */
    member->is_lost = false;
    describe(member, &outcome);
    outcome.kind = FM_LIMIT;
    outcome.limit = "result";
    outcome.message = "not enough memory to take the result";
    fm__member_fail_item(member, &outcome, 0);
    return 0;
}

/* A record that ends pieces. */
static int take_end(struct fm__member *member, const struct fm__record *r)
{
    if (!fm__member_has_claim(member))
        return FM_EPROTOCOL;
    if (member->is_lost)
        return take_lost(member, r);
    if (r->u != member->pieces.len)
        return FM_EPROTOCOL;
    switch (r->kind) {
    case FM__RECORD_VALUE:
    case FM__RECORD_EVENT:
    case FM__RECORD_STOP:
        return take_bytes(member, r);
    case FM__RECORD_FAIL:
    case FM__RECORD_REFUSE:
    case FM__RECORD_EXCEED:
    case FM__RECORD_ENDED:
        return take_failure(member, r);
    default:
        return FM_EPROTOCOL;
    }
}

static int take_plain(struct fm__member *member, const struct fm__record *r)
{
    switch (r->kind) {
    case FM__RECORD_PAD:
        return 0;
    case FM__RECORD_READY:
        if (member->is_ready)
            return FM_EPROTOCOL;
        member->is_ready = true;
        return 0;
    case FM__RECORD_CLAIM:
        if (!member->is_ready || member->pieces.len > 0 || member->is_lost)
            return FM_EPROTOCOL;
        return fm__ledger_claim(member, r->u, r->len);
    case FM__RECORD_DROP:
        fm__buffer_clear(&member->pieces);
        member->is_lost = false;
        return 0;
    default:
        return FM_EPROTOCOL;
    }
}

static bool has_payload(unsigned kind)
{
    return kind == FM__RECORD_PAD || kind >= FM__RECORD_DATA;
}

/* Append a payload to the pieces.  When there is no memory for them, they are
 * let go: that costs their item, not the worker. */
static int keep_piece(struct fm__member *member, const struct fm__record *r,
                      const unsigned char *payload)
{
    int rc;

    if (r->kind == FM__RECORD_PAD || r->kind == FM__RECORD_DROP ||
        member->is_lost)
        return 0;
    if (r->len > FM__RECORD_PAYLOAD_MAX)
        return FM_EPROTOCOL;
    rc = fm__buffer_append(&member->pieces, payload, r->len);
    if (rc != -ENOMEM)
        return rc;
    fm__buffer_done(&member->pieces);
    member->is_lost = true;
    return 0;
}

/* One record at `at`, of which `len` bytes are there.  Counts what it took. */
static int take_record(struct fm__member *member, const unsigned char *at,
                       size_t len)
{
    struct fm__record r = fm__record_get(at);
    size_t size = FM__RECORD_HEAD;
    int rc;

    if (has_payload(r.kind))
        size += fm__record_padded(r.len);
    if (size > len)
        return FM_EPROTOCOL;
    member->taken += size; /* first: who is called may not come back */
    member->item_bytes += size;
    if (r.kind >= FM__RECORD_NIL && r.kind <= FM__RECORD_NUMBER)
        return take_scalar(member, r.kind, r.u);
    if (!has_payload(r.kind))
        return take_plain(member, &r);
    rc = keep_piece(member, &r, at + FM__RECORD_HEAD);
    if (rc < 0 || r.kind == FM__RECORD_DATA)
        return rc;
    if (r.kind == FM__RECORD_PAD || r.kind == FM__RECORD_DROP)
        return take_plain(member, &r);
    return take_end(member, &r);
}

/* ------------------------------------------------------------------- drain */

struct batch {
    struct fm__member *member;
    const unsigned char *data;
    size_t len;
    int rc;
};

/* What comes by the million: scalars in a row, values of the claim's items.
 * Whatever else comes, and the first that comes, is left to take_record(). */
static void take_scalars(struct fm__member *member, const struct batch *batch)
{
    fm_map *map = member->map;
    struct fm_item item;

    if (member->is_void || member->pieces.len > 0 || member->is_lost ||
        !member->is_fruitful || captures(member))
        return;
    memset(&item, 0, sizeof item);
    item.attempt = member->attempt;
    while (member->taken + FM__RECORD_HEAD <= batch->len &&
           fm__member_has_claim(member) && map->state == FM__MAP_RUNNING) {
        const unsigned char *at = batch->data + member->taken;
        struct fm__record r = fm__record_get(at);

        if (r.magic != FM__RECORD_MAGIC || r.kind < FM__RECORD_NIL ||
            r.kind > FM__RECORD_NUMBER)
            return;
        item.type = (enum fm_item_type)(FM_ITEM_NIL + r.kind - FM__RECORD_NIL);
        memcpy(&item.u, &r.u, sizeof r.u);
        item.index = member->first + member->done;
        member->taken += FM__RECORD_HEAD; /* first: it may not come back */
        member->done++;
        member->item_bytes = 0;
        fm__map_count(map, item.index);
        map->opts.on_item(map, &item, map->opts.cb_ud);
    }
}

static void take_batch(void *arg)
{
    struct batch *batch = arg;
    struct fm__member *member = batch->member;

    while (batch->rc == 0 && member->taken < batch->len &&
           member->taken < BATCH_MAX) {
        const unsigned char *at = batch->data + member->taken;
        size_t len = batch->len - member->taken;

        if (len < FM__RECORD_HEAD) {
            batch->rc = FM_EPROTOCOL;
        } else if (fm__record_get_magic(at) == FM__RECORD_MAGIC) {
            batch->rc = take_record(member, at, len);
            take_scalars(member, batch);
        } else {
            member->in_frames = true;
            return;
        }
    }
}

static void take_frames(struct fm__member *member, const struct batch *batch)
{
    (void)fm__inbox_feed(&member->future->inbox, batch->data + member->taken,
                         batch->len - member->taken);
    member->taken = batch->len;
}

/* What is not ours ends the worker. */
void fm__member_refuse(struct fm__member *member, int rc)
{
    struct fm__inbox *inbox = &member->future->inbox;

    inbox->ending = FM__ENDING_BROKEN;
    inbox->over_limit = rc == FM_ELIMIT;
    inbox->no_memory = rc == -ENOMEM;
}

/* What the next worker of this map begins with: one that lasts for a claim, or
 * few items, has no time to learn it. */
static void note_pace(const struct fm__member *member)
{
    uint32_t pace = atomic_load(&fm__member_post(member)->pace);

    if (pace > 0)
        member->map->pace = pace;
}

void fm__member_drain(struct fm__member *member, size_t most)
{
    fm_future *future = member->future;
    struct fm__ring *ring = &future->channel->ring;
    struct batch batch = {.member = member, .rc = 0};
    size_t total = 0;

    member->is_drained = false;
    member->last_word = atomic_load(&future->channel->post->word);
    member->last_at = atomic_load(&future->channel->post->at);
    member->last_detail = atomic_load(&future->channel->post->detail);
    note_pace(member);
    while (total < most && future->inbox.ending == FM__ENDING_OPEN) {
        long n = fm__ring_peek_all(ring, &batch.data);

        if (n == 0) {
            member->is_drained = true;
            return;
        }
        batch.len = (size_t)(n < 0 ? 0 : n);
        batch.rc = n < 0 ? FM_EPROTOCOL : 0;
        member->taken = 0;
        if (!member->in_frames && batch.rc == 0) {
            fm__map_call_guarded(member->map, take_batch, &batch);
            /* The guard lets nobody in any more: the host has given up. */
            if (member->taken == 0 && batch.rc == 0 && !member->in_frames)
                member->taken = batch.len;
        }
        if (member->in_frames)
            take_frames(member, &batch);
        if (batch.rc < 0)
            fm__member_refuse(member, batch.rc);
        total += member->taken;
        member->n_read += member->taken;
        if (fm__ring_consume(ring, member->taken))
            fm__word_wake(&ring->shared->room);
    }
}
