/* SPDX-License-Identifier: MIT */
/*
 * Duplex jobs in the parent: what is given, what is heard; see duplex.h.
 *
 * The desk, which the worker shares, lives from the fork to the reaping.  What
 * is believed is here: which calls the worker has, and which of them have
 * ended.
 */
#include "engine/duplex.h"

#include <errno.h>
#include <string.h>

#include "engine/bind.h"
#include "engine/engine.h"
#include "engine/line.h"
#include "engine/template.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/memory.h"
#include "os/sys.h"
#include "os/word.h"

/* An honest worker drops a result when a frame has gone beyond the limit. */
#define BEYOND_LIMIT ((uint64_t)FM__FRAME_DATA_MAX)

/* ------------------------------------------------------------------- desk */

/* With the desk, or errno. */
static int begin_desk(struct fm__duplex *duplex)
{
    int rc;

    if (!duplex->desk)
        return -errno;
    rc = fm__bell_open(&duplex->bell);
    if (rc < 0)
        return rc;
    /* The mapping is fresh, so the ring is empty and all slots are free. */
    memset(&duplex->tray, 0, sizeof duplex->tray);
    fm__ring_init(&duplex->tray.ring, &duplex->desk->ring,
                  fm__desk_bytes(duplex->desk), FM__DESK_RING);
    if (duplex->leaves)
        atomic_store(&duplex->desk->order, FM__DESK_LEAVE);
    return 0;
}

void fm__duplex_close(struct fm__duplex *duplex)
{
    if (!duplex->desk)
        return;
    for (size_t i = 0; i < FM__DESK_SLOTS; i++) {
        struct fm__duplex_call *call = &duplex->calls[i];

        if (call->number != 0)
            call->was_begun = atomic_load(&duplex->desk->words[i]) ==
                              fm__desk_word(call->number, FM__DESK_BEGUN);
    }
    fm__bell_close(&duplex->bell);
    fm__fd_close(&duplex->file);
    fm__memory_unshare(duplex->desk, FM__DESK_SIZE);
    duplex->desk = NULL;
    duplex->n_pours = 0;
}

int fm__duplex_open(struct fm__duplex *duplex)
{
    int rc;

    fm__duplex_close(duplex); /* of a child that has not begun its job */
    duplex->desk = fm__memory_share(FM__DESK_SIZE);
    rc = begin_desk(duplex);
    if (rc == 0)
        rc = fm__memory_inherit(duplex->desk, FM__DESK_SIZE, true);
    if (rc < 0)
        fm__duplex_close(duplex);
    else
        fm__fd_keep(duplex->bell.hear_fd, true);
    return rc;
}

int fm__duplex_open_file(struct fm__duplex *duplex)
{
    int rc;

    fm__duplex_close(duplex);
    duplex->file = fm__fd_take(fm__memory_open_file(FM__DESK_SIZE));
    if (duplex->file < 0)
        return duplex->file;
    duplex->desk = fm__memory_map_file(duplex->file, FM__DESK_SIZE);
    rc = begin_desk(duplex);
    if (rc < 0) {
        fm__fd_close(&duplex->file);
        fm__duplex_close(duplex);
    }
    return rc;
}

void fm__duplex_keep(const struct fm__duplex *duplex)
{
    if (!duplex->desk)
        return;
    fm__fd_keep(duplex->bell.hear_fd, false);
    (void)fm__memory_inherit(duplex->desk, FM__DESK_SIZE, false);
}

void fm__duplex_free(struct fm__duplex *duplex)
{
    if (!duplex)
        return;
    fm__duplex_close(duplex);
    fm__messages_done(&duplex->messages);
    fm__sys.free(duplex);
}

static void wake(struct fm__duplex *duplex)
{
    struct fm__desk *desk = duplex->desk;
    uint32_t how;

    if (atomic_load(&desk->asleep) == FM__DESK_AWAKE)
        return;
    how = atomic_exchange(&desk->asleep, FM__DESK_AWAKE);
    if (how == FM__DESK_AWAKE)
        return;
    (void)atomic_fetch_add(&desk->call, 1);
    if (how == FM__DESK_BY_WORD)
        fm__word_wake(&desk->call);
    else
        (void)fm__bell_ring(&duplex->bell);
}

/* ------------------------------------------------------------------- calls */

/* The call of this number, if the worker has it and it has not ended. */
static struct fm__duplex_call *find(const struct fm__duplex *duplex,
                                    uint64_t number)
{
    const struct fm__duplex_call *call =
        &duplex->calls[number & FM__DESK_SLOT_MASK];

    return number != 0 && call->number == number
               ? (struct fm__duplex_call *)(uintptr_t)call
               : NULL;
}

static void set_word(struct fm__duplex *duplex, size_t slot, uint64_t word)
{
    if (duplex->desk)
        atomic_store(&duplex->desk->words[slot], word);
}

static void forget(struct fm__duplex *duplex, struct fm__duplex_call *call)
{
    size_t slot = (size_t)(call - duplex->calls);

    set_word(duplex, slot, FM__DESK_FREE);
    call->number = 0;
    duplex->free[duplex->n_free++] = (unsigned char)slot;
}

/* What of its bytes has not been sent need not be. */
static void drop_pour(struct fm__duplex *duplex,
                      const struct fm__duplex_call *call)
{
    size_t slot = (size_t)(call - duplex->calls);
    size_t n = 0;

    if (call->is_sent)
        return;
    for (size_t i = 0; i < duplex->n_pours; i++) {
        if (duplex->pours[i] != slot)
            duplex->pours[n++] = duplex->pours[i];
    }
    duplex->n_pours = n;
    if (call->done > 0)
        duplex->tray.is_cut = true;
}

static void break_off(fm_future *future)
{
    future->inbox.ending = FM__ENDING_BROKEN;
}

void fm__duplex_pour(fm_future *future)
{
    struct fm__duplex *duplex = future->duplex;
    uint64_t before = duplex->tray.ring.at;
    size_t n = 0;
    int rc = 1;

    while (n < duplex->n_pours) {
        struct fm__duplex_call *call = &duplex->calls[duplex->pours[n]];
        const struct fm__parcel parcel = {.index = call->number,
                                          .format = call->format,
                                          .data = call->data,
                                          .len = call->len};

        rc = fm__tray_put(&duplex->tray, &parcel, &call->done);
        if (rc <= 0)
            break;
        call->is_sent = true;
        n++;
    }
    if (rc < 0)
        break_off(future);
    duplex->n_pours -= n;
    memmove(duplex->pours, duplex->pours + n, duplex->n_pours);
    if (duplex->tray.ring.at != before)
        wake(duplex);
}

static bool takes_calls(const fm_future *future)
{
    return future->duplex->desk && !future->duplex->leaves &&
           future->stop == FM__STOP_NONE &&
           future->inbox.ending == FM__ENDING_OPEN && !future->is_gone;
}

int fm__duplex_give(fm_future *future, const struct fm__gift *gift,
                    uint64_t *ret_number)
{
    struct fm__duplex *duplex = future->duplex;
    struct fm__duplex_call *call;
    size_t slot;

    if (!fm__engine_is_ours(future->engine) || !takes_calls(future))
        return FM_ECLOSED;
    if (duplex->n_free == 0)
        return -EAGAIN;
    slot = duplex->free[--duplex->n_free];
    call = &duplex->calls[slot];
    *call = (struct fm__duplex_call){
        .number = ++duplex->n_given * FM__DESK_SLOTS + slot,
        .given_at = fm__clock_now(),
        .data = gift->data,
        .len = gift->len,
        .format = gift->format};
    atomic_store_explicit(&duplex->desk->tags[slot], gift->tag,
                          memory_order_relaxed);
    set_word(duplex, slot, fm__desk_word(call->number, FM__DESK_GIVEN));
    duplex->pours[duplex->n_pours++] = (unsigned char)slot;
    *ret_number = call->number;
    fm__duplex_pour(future);
    return call->is_sent;
}

bool fm__duplex_is_sent(const fm_future *future, uint64_t number)
{
    const struct fm__duplex_call *call = find(future->duplex, number);

    return !call || call->is_sent || !future->duplex->desk;
}

bool fm__duplex_take_back(fm_future *future, uint64_t number)
{
    struct fm__duplex *duplex = future->duplex;
    struct fm__duplex_call *call = find(duplex, number);
    uint64_t word;

    if (!call)
        return false;
    word = fm__desk_word(number, FM__DESK_GIVEN);
    if (!duplex->desk) {
        if (call->was_begun)
            return false;
    } else if (!atomic_compare_exchange_strong(
                   &duplex->desk->words[call - duplex->calls], &word,
                   FM__DESK_FREE)) {
        return false;
    }
    drop_pour(duplex, call);
    forget(duplex, call);
    return true;
}

/* What the worker says is believed if it can be. */
static int64_t begun_at(const struct fm__duplex *duplex,
                        const struct fm__duplex_call *call)
{
    size_t slot = (size_t)(call - duplex->calls);
    int64_t said;

    if (!duplex->desk)
        return call->was_begun ? call->given_at : 0;
    if (atomic_load(&duplex->desk->words[slot]) !=
        fm__desk_word(call->number, FM__DESK_BEGUN))
        return 0;
    said = atomic_load(&duplex->desk->begun_at[slot]);
    return said >= call->given_at && said <= fm__clock_now() ? said
                                                             : call->given_at;
}

int64_t fm__duplex_begun_at(const fm_future *future, uint64_t number)
{
    const struct fm__duplex_call *call = find(future->duplex, number);

    return call ? begun_at(future->duplex, call) : 0;
}

void fm__duplex_order_leave(fm_future *future)
{
    struct fm__duplex *duplex = future->duplex;

    duplex->leaves = true;
    if (!duplex->desk || !fm__engine_is_ours(future->engine))
        return;
    atomic_store(&duplex->desk->order, FM__DESK_LEAVE);
    wake(duplex);
}

/* ---------------------------------------------------------------- messages */

static void tell_news(fm_future *future)
{
    struct fm__duplex *duplex = future->duplex;

    if (duplex->has_told)
        return;
    duplex->has_told = true;
    future->engine->has_news = true;
    if (duplex->on_news)
        duplex->on_news(future, duplex->news_ud);
}

static int take_tell(struct fm__inbox *inbox, const struct fm__tell *tell,
                     const char *texts, size_t texts_len, void *ud)
{
    fm_future *future = ud;
    struct fm__duplex *duplex = future->duplex;
    struct fm__duplex_call *call = find(duplex, tell->call);
    bool is_of_call = tell->what >= FM__TELL_EVENT;
    int64_t at;
    int rc;

    if (tell->call != 0 ? !call || !is_of_call : tell->what > FM__TELL_EVENT)
        return FM_EPROTOCOL;
    if (inbox->len > future->opts.limits.result) {
        inbox->over_limit = true;
        return FM_ELIMIT;
    }
    at = call ? begun_at(duplex, call) : 0;
    rc = fm__messages_add(&duplex->messages, inbox, tell, texts, texts_len, at);
    if (rc < 0)
        return rc;
    if (call && tell->what >= FM__TELL_VALUE) {
        drop_pour(duplex, call);
        forget(duplex, call);
    }
    tell_news(future);
    return 0;
}

void fm__duplex_attach(fm_future *future)
{
    struct fm__inbox *inbox = &future->inbox;

    if (inbox->limit < UINT64_MAX - BEYOND_LIMIT)
        inbox->limit += BEYOND_LIMIT;
    future->inbox.on_tell = take_tell;
    future->inbox.tell_ud = future;
}

size_t fm__duplex_room(const fm_future *future, size_t most)
{
    size_t kept = fm__messages_size(&future->duplex->messages);

    if (future->is_gone)
        return most; /* what is left is no more than a ring */
    return kept < FM__MESSAGES_MOST ? most : 0;
}

int fm__duplex_hear(fm_future *future, struct fm__message *message)
{
    struct fm__duplex *duplex = future->duplex;
    int rc = fm__messages_next(&duplex->messages, message);

    if (rc == 0)
        duplex->has_told = false;
    return rc;
}

void fm__duplex_listen(fm_future *future)
{
    fm_engine *engine = future->engine;

    if (!future->channel || engine->closed || !fm__engine_is_ours(engine) ||
        engine->in_callback || !fm__engine_enter(engine))
        return;
    fm__attempt_pump(future, fm__clock_now());
    fm__engine_leave(engine);
}

/* -------------------------------------------------------------------- life */

static int new_duplex(struct fm__duplex **ret_duplex)
{
    struct fm__duplex *duplex = fm__sys.calloc(1, sizeof *duplex);

    if (!duplex)
        return -ENOMEM;
    fm__messages_init(&duplex->messages);
    duplex->bell = (struct fm__bell)FM__BELL_INIT;
    duplex->file = -1;
    for (size_t i = FM__DESK_SLOTS; i > 0; i--)
        duplex->free[duplex->n_free++] = (unsigned char)(i - 1);
    *ret_duplex = duplex;
    return 0;
}

static int spawn(fm_engine *engine, const struct fm_job_opts *opts,
                 struct fm__work *work, fm_future **ret_future)
{
    int rc;

    if (opts && opts->retries > 0)
        return -EINVAL;
    rc = new_duplex(&work->duplex);
    if (rc < 0)
        return rc;
    rc = fm__host_spawn(engine, opts, work, ret_future);
    if (rc < 0)
        fm__duplex_free(work->duplex);
    return rc;
}

int fm__spawn_duplex(fm_engine *engine, const struct fm_job_opts *opts,
                     fm_job_fn fn, void *ud, fm_future **ret_future)
{
    struct fm__work work = {.fn = fn, .ud = ud};

    return spawn(engine, opts, &work, ret_future);
}

int fm__template_spawn_duplex(fm_template *template,
                              const struct fm_job_opts *opts,
                              const struct fm__errand *errand,
                              fm_future **ret_future)
{
    struct fm__work work = {.origin = template, .errand = errand};

    return spawn(template->engine, opts, &work, ret_future);
}

bool fm__future_is_duplex(const fm_future *future)
{
    return future->duplex != NULL;
}

void fm__duplex_on_news(fm_future *future, fm__news_cb cb, void *ud)
{
    future->duplex->on_news = cb;
    future->duplex->news_ud = ud;
}

int fm__duplex_stop(fm_future *future, enum fm_kind kind, int64_t grace_ns)
{
    fm_engine *engine = future->engine;
    bool is_early = future->state == FM_QUEUED || future->state == FM_BACKOFF ||
                    future->is_asked;

    if (kind == FM_CANCELLED || is_early || future->state == FM_SETTLED)
        return fm_future_cancel(future, grace_ns);
    if (!fm__engine_is_ours(engine))
        return FM_ECLOSED;
    if (!fm__engine_enter(engine))
        return FM_EBUSY;
    if (kind == FM_PROTOCOL)
        break_off(future);
    fm__future_stop(future,
                    kind == FM_TIMEOUT ? FM__STOP_SAMPLING : FM__STOP_FORCED,
                    kind, fm__clock_now());
    fm__engine_leave(engine);
    return 1;
}
