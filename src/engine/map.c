/* SPDX-License-Identifier: MIT */
/* A map: its options, its workers, its time, its end; see map.h. */
#include "engine/map.h"

#include <errno.h>
#include <string.h>

#include "os/clock.h"
#include "os/fence.h"
#include "os/memory.h"
#include "os/proc.h"
#include "os/sys.h"
#include "os/word.h"

/* Workers of an eager map may leave finished items unmentioned for so long. */
#define QUIET_NS (50 * FM__NS_PER_MS)

/* ----------------------------------------------------------------- options */

const char *fm_map_opts_error(const struct fm_map_opts *opts)
{
    if (opts->n_items > (opts->is_source ? 0 : FM__ITEMS_MAX))
        return "n_items";
    if (opts->chunk_max > 0 && opts->chunk_min > opts->chunk_max)
        return "chunk_min";
    if (opts->chunk_max > FM__CLAIM_MAX || opts->chunk_min > FM__CLAIM_MAX)
        return "chunk_max";
    if (opts->isolate > FM_ISOLATE_ITEM)
        return "isolate";
    if (opts->deadline_ns < 0)
        return "deadline_ns";
    if (!opts->fn)
        return "fn";
    if (!opts->on_item)
        return "on_item";
    return fm_job_opts_error(&opts->job);
}

static void take_opts(fm_map *map, const struct fm_map_opts *opts)
{
    struct fm_map_opts *own = &map->opts;

    *own = *opts;
    if (own->chunk_min == 0)
        own->chunk_min = 1;
    fm__job_fill_opts(&own->job);
    own->job.ud_free = NULL;
}

/* Items with a process of their own are timed by their worker. */
bool fm__map_times_items(const fm_map *map)
{
    return map->opts.job.timeout_ns > 0 && map->opts.isolate != FM_ISOLATE_ITEM;
}

static void brief(fm_map *map, struct fm__member *member, unsigned id)
{
    const struct fm_map_opts *opts = &map->opts;
    struct fm__crew *crew = &member->crew;

    member->map = map;
    crew->board = map->board;
    crew->id = id;
    crew->n_workers = map->n_members;
    crew->n_items = opts->n_items;
    crew->chunk_min = opts->chunk_min;
    crew->chunk_max = opts->chunk_max ? opts->chunk_max : FM__CLAIM_MAX;
    crew->adapts = opts->chunk_max != opts->chunk_min;
    crew->is_heard = opts->job.output == FM_OUTPUT_CAPTURE ||
                     opts->job.output == FM_OUTPUT_LINES;
    crew->eager = opts->eager;
    crew->timed = fm__map_times_items(map);
    crew->has_fence = map->has_fence;
    crew->limit = opts->job.limits.result;
    if (opts->isolate != FM_ISOLATE_ITEM)
        crew->cpu_ns = opts->job.limits.cpu_ns;
    crew->max_tasks = opts->max_tasks;
    crew->max_rss = opts->max_rss;
    crew->max_claims = opts->isolate == FM_ISOLATE_CHUNK ? 1 : 0;
    crew->tray = opts->is_source ? &member->tray.ring : NULL;
}

/* ------------------------------------------------------------- the workers */

static uint64_t open_end(const fm_map *map)
{
    uint64_t end = map->n_items;

    if (map->opts.max_active > 0 &&
        map->opts.max_active < end - map->n_consumed)
        end = map->n_consumed + map->opts.max_active;
    return end;
}

void fm__map_set_limits(fm_map *map, struct fm__member *member)
{
    struct fm__channel *channel = member->future->channel;

    if (!channel)
        return; /* when it starts */
    atomic_store(&channel->post->limit,
                 map->distrusts_cursor ? 0 : open_end(map));
    if (map->state != FM__MAP_RUNNING)
        atomic_store(&channel->post->order, FM__ORDER_LEAVE);
}

/* Wake a worker that sleeps for want of items. */
void fm__map_call(struct fm__member *member)
{
    struct fm__channel *channel = member->future->channel;

    if (!channel)
        return;
    atomic_fetch_add(&channel->post->call, 1);
    if (atomic_load(&channel->post->asleep) != 0)
        fm__word_wake(&channel->post->call);
}

static void call_all(fm_map *map)
{
    for (unsigned i = 0; i < map->n_members; i++) {
        struct fm__member *member = &map->members[i];

        if (!member->future)
            continue;
        fm__map_set_limits(map, member);
        fm__map_call(member);
    }
}

/* ------------------------------------------------------------------ states */

static void enter(fm_map *map, enum fm__map_state to)
{
    if (to > map->state)
        map->state = to;
    if (to == FM__MAP_OVER)
        map->engine->has_news = true;
}

/* One that hears of it by fm_child_is_cancelled() comes to the end of its item
 * and leaves then. */
static void stop_members(fm_map *map)
{
    for (unsigned i = 0; i < map->n_members; i++) {
        struct fm__member *member = &map->members[i];
        fm_future *future = member->future;

        if (!future || future->state == FM_SETTLED)
            continue;
        fm__map_set_limits(map, member);
        if (future->channel)
            atomic_store(&future->channel->post->recall, 1);
        fm__map_call(member);
        (void)fm__future_cancel(future, map->stop_grace_ns);
    }
}

/* By the loop, later: here a worker may be half-way out. */
static void stop_soon(fm_map *map, int64_t grace_ns)
{
    map->stops = true;
    map->stop_grace_ns = grace_ns;
    enter(map, FM__MAP_STOPPING);
    map->engine->has_news = true;
}

void fm__map_fail(fm_map *map, const struct fm_outcome *outcome,
                  fm_future *owner)
{
    if (map->failure.kind != FM_VALUE || map->state >= FM__MAP_STOPPING)
        return;
    map->failure = *outcome;
    if (owner)
        map->failed = fm_future_ref(owner);
    stop_soon(map, -1);
}

void fm__map_fail_plain(fm_map *map, enum fm_kind kind, int rc,
                        const char *message)
{
    struct fm_outcome outcome;

    memset(&outcome, 0, sizeof outcome);
    outcome.kind = kind;
    outcome.error_code = rc;
    outcome.message = message;
    outcome.exit_code = -1;
    outcome.name = map->opts.job.name;
    fm__map_fail(map, &outcome, NULL);
}

void fm__map_call_guarded(fm_map *map, void (*run)(void *arg), void *arg)
{
    struct fm__entry before = fm__callback_begin(map->engine);

    if (map->opts.guard)
        map->opts.guard(run, arg, map->opts.cb_ud);
    else
        run(arg);
    fm__callback_end(map->engine, before);
}

void fm__map_deliver(fm_map *map, const struct fm_item *item)
{
    if (map->state != FM__MAP_RUNNING)
        return;
    fm__map_count(map, item->index);
    if (item->type == FM_ITEM_FAILED)
        map->engine->has_news = true;
    map->opts.on_item(map, item, map->opts.cb_ud);
}

void fm__map_deliver_event(fm_map *map, const struct fm_item *item)
{
    if (map->state != FM__MAP_RUNNING)
        return;
    map->engine->has_news = true;
    if (item->type == FM_ITEM_STOP)
        stop_soon(map, -1);
    if (map->opts.on_event)
        map->opts.on_event(map, item, map->opts.cb_ud);
}

/* -------------------------------------------------------------------- time */

/* Items that have ended lie in a ring whose bell is not rung for a while. */
static void plan_quiet_look(fm_map *map, int64_t now)
{
    for (unsigned i = 0; i < map->n_members; i++) {
        fm_future *future = map->members[i].future;

        if (future && future->channel &&
            atomic_load(&future->channel->post->quiet) != 0)
            fm__map_look_at(map, now + QUIET_NS);
    }
}

static void tend_running(fm_map *map, int64_t now)
{
    if (map->n_settled >= map->n_items && map->is_fed) {
        enter(map, FM__MAP_ENDING);
        map->ending_at = now;
        call_all(map);
        return;
    }
    if (now >= map->deadline_at) {
        fm__map_fail_plain(map, FM_TIMEOUT, 0, "the deadline has passed");
        return;
    }
    if (fm__map_times_items(map))
        fm__watch_items(map, now);
    fm__watch_suspects(map, now);
    fm__ledger_hand_out(map, now);
    if (map->opts.is_source)
        fm__source_pour_all(map);
    fm__map_hire(map, now);
    for (size_t i = 0; i < map->n_again; i++) {
        if (map->again[i].at > now)
            fm__map_look_at(map, map->again[i].at);
    }
    if (map->opts.eager)
        plan_quiet_look(map, now);
}

/* All items have their outcomes: the deadline is of the workers alone. */
static void tend_ending(fm_map *map, int64_t now)
{
    map->look_at = FM__NEVER;
    if (now >= map->deadline_at)
        stop_soon(map, -1);
    else
        map->look_at = map->deadline_at;
    fm__watch_leavers(map, now);
}

static void tend(fm_map *map, int64_t now)
{
    map->look_at = map->deadline_at;
    if (map->state == FM__MAP_RUNNING)
        tend_running(map, now);
    if (map->state == FM__MAP_ENDING)
        tend_ending(map, now);
    if (map->stops) {
        map->stops = false;
        stop_members(map);
    }
    if (map->state != FM__MAP_RUNNING && map->state != FM__MAP_ENDING)
        map->look_at = FM__NEVER;
    if (map->state > FM__MAP_RUNNING && map->n_living == 0)
        enter(map, FM__MAP_OVER);
}

/* ---------------------------------------------------------------- the loop */

void fm__maps_look(fm_engine *engine)
{
    for (fm_map *map = engine->maps; map; map = map->next) {
        if (map->state == FM__MAP_RUNNING)
            fm__ledger_look(map);
    }
}

static void unlink_map(fm_map *map)
{
    fm_map **link = &map->engine->maps;

    while (*link && *link != map)
        link = &(*link)->next;
    if (*link)
        *link = map->next;
}

void fm__maps_tend(fm_engine *engine, int64_t now)
{
    for (fm_map *map = engine->maps, *next; map; map = next) {
        map->refs++; /* tending may end it */
        tend(map, now);
        next = map->next;
        if (map->state == FM__MAP_OVER)
            unlink_map(map);
        fm__map_unref(map);
    }
}

int64_t fm__maps_next_time(const fm_engine *engine)
{
    int64_t at = FM__NEVER;

    for (const fm_map *map = engine->maps; map; map = map->next)
        at = map->look_at < at ? map->look_at : at;
    return at;
}

/* ------------------------------------------------------------------ public */

static unsigned count_places(const fm_engine *engine,
                             const struct fm_map_opts *opts)
{
    unsigned n = opts->workers ? opts->workers : fm__proc_count_cpus();
    unsigned most = engine->opts.max_children;
    unsigned free = most > fm__engine_count_jobs(engine)
                        ? most - fm__engine_count_jobs(engine)
                        : 1;

    n = n < free ? n : free;
    return opts->n_items > 0 && opts->n_items < n ? (unsigned)opts->n_items : n;
}

static void free_map(fm_map *map)
{
    fm__spans_done(&map->spare);
    fm__source_done(map);
    fm__sys.free(map->again);
    /* In a process that inherited this no mapping came along. */
    if (fm__engine_is_ours(map->engine))
        fm__memory_unshare(map->board, FM__BOARD_SIZE);
    if (map->failed)
        fm_future_unref(map->failed);
    fm__sys.free(map);
}

void fm__map_unref(fm_map *map)
{
    fm_engine *engine = map->engine;

    if (--map->refs > 0)
        return;
    unlink_map(map);
    free_map(map);
    fm__engine_unref(engine);
}

static fm_map *make(fm_engine *engine, const struct fm_map_opts *opts)
{
    unsigned n = count_places(engine, opts);
    fm_map *map =
        fm__sys.calloc(1, sizeof *map + n * sizeof(struct fm__member));

    if (!map)
        return NULL;
    map->engine = engine;
    map->refs = 1;
    map->n_members = n;
    map->patience = FM__PATIENCE_NS;
    map->n_items = opts->n_items;
    map->is_fed = !opts->is_source;
    map->distrusts_cursor = opts->is_source;
    map->board = fm__memory_share(FM__BOARD_SIZE);
    map->has_fence = fm__fence_is_there();
    take_opts(map, opts);
    for (unsigned i = 0; map->board && i < n; i++)
        brief(map, &map->members[i], i + 1);
    if (!map->board || fm__ledger_reserve(map) < 0 ||
        fm__spans_add(&map->spare, (struct fm__range){0, opts->n_items}) < 0) {
        free_map(map);
        return NULL;
    }
    return map;
}

int fm_map_start(fm_engine *engine, const struct fm_map_opts *opts,
                 fm_map **ret_map)
{
    int64_t now = fm__clock_now();
    fm_map *map;

    if (!fm__engine_is_ours(engine) || engine->closed)
        return FM_ECLOSED;
    if (fm_map_opts_error(opts))
        return -EINVAL;
    if (!fm__engine_enter(engine))
        return FM_EBUSY;
    map = make(engine, opts);
    if (!map) {
        fm__engine_exit(engine);
        return -ENOMEM;
    }
    engine->refs++;
    map->deadline_at = opts->deadline_ns > 0
                           ? fm__clock_after(now, opts->deadline_ns)
                           : FM__NEVER;
    map->next = engine->maps;
    engine->maps = map;
    map->refs++; /* a worker that cannot be made may end it */
    tend(map, now);
    fm__map_unref(map);
    *ret_map = map;
    fm__engine_leave(engine);
    return 0;
}

bool fm_map_is_over(const fm_map *map)
{
    return map->state == FM__MAP_OVER || !fm__engine_is_ours(map->engine) ||
           (map->engine->closed && map->n_living == 0);
}

uint64_t fm_map_get_line_index(const fm_map *map)
{
    return map->line_index;
}

uint64_t fm_map_count_settled(const fm_map *map)
{
    return map->n_settled;
}

void fm_map_consume(fm_map *map, uint64_t n)
{
    map->n_consumed += n;
    if (map->opts.max_active > 0 && map->state == FM__MAP_RUNNING &&
        !map->opts.is_source && fm__engine_is_ours(map->engine))
        call_all(map);
}

void fm_map_stop(fm_map *map, int64_t grace_ns)
{
    fm_engine *engine = map->engine;

    if (map->state == FM__MAP_OVER || !fm__engine_is_ours(engine))
        return;
    stop_soon(map, grace_ns);
    /* Inside of the engine its loop comes by; outside nobody may for long. */
    if (engine->in_callback || !fm__engine_enter(engine))
        return;
    fm__maps_tend(engine, fm__clock_now());
    fm__engine_leave(engine);
}

const struct fm_outcome *fm_map_get_failure(const fm_map *map)
{
    return map->failure.kind == FM_VALUE ? NULL : &map->failure;
}

static void drop_item(fm_map *map, const struct fm_item *item, void *ud)
{
    (void)map;
    (void)item;
    (void)ud;
}

static void drop_line(int stream, const char *line, size_t len, void *ud)
{
    (void)stream;
    (void)line;
    (void)len;
    (void)ud;
}

/* Nothing of the host is called any more. */
static void detach(fm_map *map)
{
    map->opts.guard = NULL;
    map->opts.on_item = drop_item;
    map->opts.on_event = NULL;
    for (unsigned i = 0; i < map->n_members; i++) {
        if (map->members[i].future)
            map->members[i].future->opts.on_line = drop_line;
    }
}

void fm_map_free(fm_map *map)
{
    if (!map)
        return;
    detach(map);
    if (fm__engine_is_ours(map->engine))
        fm_map_stop(map, 0);
    fm__map_unref(map);
}
