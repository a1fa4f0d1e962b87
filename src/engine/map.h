/* SPDX-License-Identifier: MIT */
/*
 * The inside of a map: many items, few workers.
 *
 * Who owns what
 *   map      the board, the ledger (what nobody has, what is to be tried
 *            again), the stock of a source, its members; one reference of the
 *            host, one of each member that lives
 *   member   a place for one worker: its future while it lives, its open
 *            claim, the gift it was offered, the pieces of a record, the
 *            tray by which items of a source come to it
 *   engine   the list of maps that are not over
 *
 * Where an item is, from the first to its one outcome
 *   given to nobody   map->spare; from the cursor on they are the workers' to
 *                     take, before it the parent's to give, as are all items
 *                     of a source
 *   waiting           map->again, after a failure that is retried
 *   offered           member->offered
 *   claimed           member->first + done … first + n
 *   settled           nowhere: counted
 *
 *   state  RUNNING -> ENDING (all are settled; the workers are asked to leave)
 *          RUNNING, ENDING -> STOPPING (it has failed or was stopped; the
 *          workers are ended)
 *          ENDING, STOPPING -> OVER (the last worker has ended)
 */
#ifndef FM_ENGINE_MAP_H
#define FM_ENGINE_MAP_H

#include "engine/engine.h"
#include "engine/spans.h"
#include "os/clock.h"
#include "process/worker.h"
#include "wire/buffer.h"
#include "wire/tray.h"

enum fm__map_state {
    FM__MAP_RUNNING,
    FM__MAP_ENDING,
    FM__MAP_STOPPING,
    FM__MAP_OVER
};

/* Items whose bytes are to be written into a member's tray. */
struct fm__pour {
    uint64_t next, end;
    size_t done; /* bytes of the next that are there */
};

struct fm__member {
    fm_map *map;
    fm_future *future; /* NULL: vacant */
    struct fm__crew crew;
    bool is_ready;           /* has said READY */
    bool in_frames;          /* no more records come */
    bool is_drained;         /* its ring was empty when last looked at */
    bool is_void;            /* its claim counts for nothing */
    bool is_fruitful;        /* has settled an item */
    bool is_lost;            /* there was no memory for the pieces */
    uint64_t first, n, done; /* the claim; none when done == n */
    unsigned attempt;
    uint64_t offered; /* a span, 0: none */
    int64_t offered_at;
    unsigned offered_attempt;
    bool is_slow;             /* did not wake up for a gift, */
    uint64_t slow_read;       /* n_read then */
    size_t n_void;            /* claims that were */
    uint64_t n_read;          /* bytes of its ring */
    uint64_t item_bytes;      /* of them, since the last outcome */
    struct fm__tray tray;     /* of a map with a source, while it lives */
    struct fm__pour pours[2]; /* for the claim; for the gift, after it */
    size_t taken;             /* of the bytes that are being looked at */
    struct fm__buffer pieces;
    /* What was seen of its word: for items that stand still. */
    uint64_t last_word, last_at,
        last_detail; /* of the process that has ended */
    uint64_t seen_item, seen_at;
    int64_t seen_item_since, seen_at_since;
    uint64_t looked_read; /* n_read at the last look at its time, */
    int64_t looked_at;    /* which was then */
    uint64_t moved_from;  /* the item, plus 1, which its word had left then */
    int64_t suspect_at;   /* since then it looks like a liar; 0: it does not */
    uint64_t suspect_word, suspect_read;
    unsigned suspect_looks;
};

/* An item that stands still for so long holds up others: they are taken from
 * its worker, if there is one without. */
#define FM__PATIENCE_NS FM__NS_PER_MS

#define FM__BOARD_SIZE 4096

/* What a source has given and is not settled: hashed by number. */
struct fm__stocked {
    struct fm__stocked *next; /* of the same hash */
    uint64_t index;
    size_t len;
    int format;
    unsigned char data[];
};

struct fm__stock {
    struct fm__stocked **heads; /* NULL while size is 0 */
    size_t size;                /* 0 or a power of two */
    size_t n;
    uint64_t bytes;
};

/* An item that has failed and is tried again. */
struct fm__again {
    uint64_t index;
    unsigned attempt; /* the next */
    int64_t at;
};

struct fm_map {
    fm_map *next; /* in engine->maps */
    fm_engine *engine;
    unsigned refs;
    enum fm__map_state state;
    struct fm_map_opts opts;
    struct fm__board *board;
    struct fm__spans spare;
    struct fm__again *again;
    size_t n_again, again_size;
    uint64_t n_items;    /* so far, of a source */
    uint64_t line_index; /* of the item whose line is being told */
    uint64_t n_settled, n_consumed;
    struct fm__stock stock;
    bool is_fed;   /* no more items come */
    uint64_t safe; /* before it, what is spare was claimed by nobody */
    bool distrusts_cursor;
    bool has_fence;        /* see os/fence.h */
    bool stops;            /* its workers have to be ended, */
    int64_t stop_grace_ns; /* with this grace */
    unsigned n_fruitless;  /* workers in a row that ended for nothing */
    int64_t ending_at;     /* since then: ENDING */
    unsigned n_living;
    int64_t deadline_at, look_at, hire_at;
    int64_t patience; /* between two looks at items that stand still */
    uint32_t pace;    /* items of about a millisecond, as a worker said last */
    struct fm_outcome failure; /* kind FM_VALUE: none */
    fm_future *failed; /* whose outcome `failure` is, referenced; or NULL */
    unsigned n_members;
    struct fm__member members[];
};

/* member.c: what a worker says, and its end */
void fm__member_drain(struct fm__member *member, size_t most);
/* Of one that has a channel. */
static inline struct fm__post *fm__member_post(const struct fm__member *member)
{
    return member->future->channel->post;
}

/* It says that it works on no more items. */
static inline bool fm__member_says_left(const struct fm__member *member)
{
    const struct fm__post *post = fm__member_post(member);

    return atomic_load(&post->leaves) != 0 &&
           fm__span_low(atomic_load(&post->word)) == FM__WORD_IDLE;
}

static inline bool fm__member_has_claim(const struct fm__member *member)
{
    return member->done < member->n;
}

/* What an item prints is read while the worker waits with its last record. */
bool fm__member_has_spoken(const struct fm__member *member);
void fm__member_was_heard(struct fm__member *member);
/* A line comes that was printed in the item that it is in. */
void fm__member_note_line(struct fm__member *member);
/* It has begun with items, lives, and was not told to end. */
bool fm__member_is_ready(const struct fm__member *member);
/* What it did is not ours: it is ended for this reason. */
void fm__member_refuse(struct fm__member *member, int rc);
/* The item that it is in has failed with this outcome, complete but for its
 * attempt. */
void fm__member_fail_item(struct fm__member *member, struct fm_outcome *outcome,
                          uint64_t detail);
/* member_end.c */
/* Before and after the fork of a member. */
int fm__member_prepare(struct fm__member *member);
void fm__member_forked(struct fm__member *member);
void fm__member_settled(struct fm__member *member);
/* The job function of a member; `ud` is the member. */
int fm__member_main(fm_child *child, void *ud);

/* ledger.c: who has which items */
/* These come in addition.  0 or -ENOMEM. */
int fm__ledger_add(fm_map *map, struct fm__range range);
/* It takes these.  0, FM_EPROTOCOL for what no honest worker claims, -ENOMEM.
 */
int fm__ledger_claim(struct fm__member *member, uint64_t first, uint64_t n);
/* Items of the claim that are not settled, and what was offered, go back. */
void fm__ledger_release(struct fm__member *member);
/* Should the item be tried again after this outcome?  Then it will be. */
bool fm__ledger_try_again(fm_map *map, uint64_t index, unsigned attempt,
                          enum fm_kind kind, int64_t now);
int fm__ledger_reserve(fm_map *map);
/* Its word is condemned, and was this: what it cannot begin any more goes
 * back. */
void fm__ledger_condemned(struct fm__member *member, uint64_t word);
void fm__ledger_look(fm_map *map);
void fm__ledger_hand_out(fm_map *map, int64_t now);
uint64_t fm__ledger_count_held(fm_map *map, int64_t now);
/* No more cursor: what is left is handed out. */
void fm__ledger_distrust(fm_map *map);

/* source.c: items that come after the fork */
void fm__source_done(fm_map *map);
/* The item has its outcome. */
void fm__source_drop(fm_map *map, uint64_t index);
/* Make the tray, before the fork, and let go of it.  0 or -errno. */
int fm__source_open_tray(struct fm__member *member);
/* No process that is forked from now on gets it. */
void fm__source_keep_tray(const struct fm__member *member);
void fm__source_close_tray(struct fm__member *member);
/* It was offered these; has taken the offer; the offer was taken back; of its
 * claim nothing from `end` on is wanted any more. */
void fm__source_offer(struct fm__member *member, uint64_t first, uint64_t n);
void fm__source_take(struct fm__member *member);
void fm__source_take_back(struct fm__member *member);
void fm__source_cut(struct fm__member *member, uint64_t end);
/* Write what there is room for now. */
void fm__source_pour(struct fm__member *member);
void fm__source_pour_all(fm_map *map);
/* hire.c */
/* Make workers for vacant places, as far as there is work for them. */
void fm__map_hire(fm_map *map, int64_t now);
/* No worker is made for a while. */
void fm__map_pause_hiring(fm_map *map);

/* watch.c: workers that take too long, or lie */
void fm__watch_items(fm_map *map, int64_t now);
void fm__watch_suspects(fm_map *map, int64_t now);
void fm__watch_leavers(fm_map *map, int64_t now);

/* map.c */
void fm__map_fail(fm_map *map, const struct fm_outcome *outcome,
                  fm_future *owner);
/* With an outcome that no process had. */
void fm__map_fail_plain(fm_map *map, enum fm_kind kind, int rc,
                        const char *message);
/* Call what calls the host's callbacks, below the host's guard. */
void fm__map_call_guarded(fm_map *map, void (*run)(void *arg), void *arg);
/* The map is tended then at the latest. */
static inline void fm__map_look_at(fm_map *map, int64_t at)
{
    if (at < map->look_at)
        map->look_at = at;
}

/* The item has its outcome, of which on_item is told next. */
static inline void fm__map_count(fm_map *map, uint64_t index)
{
    map->n_settled++;
    if (map->opts.is_source)
        fm__source_drop(map, index);
    if (map->opts.eager)
        map->engine->has_news = true;
}

void fm__map_deliver(fm_map *map, const struct fm_item *item);
void fm__map_deliver_event(fm_map *map, const struct fm_item *item);
void fm__map_set_limits(fm_map *map, struct fm__member *member);
void fm__map_call(struct fm__member *member);
bool fm__map_times_items(const fm_map *map);
void fm__map_unref(fm_map *map);

#endif
