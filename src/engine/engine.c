/* SPDX-License-Identifier: MIT */
/*
 * The loop.  One step: start what may start, read rings, act on deadlines,
 * wait if nothing happened, hear what ended, settle, run callbacks.
 *
 * Nothing here blocks but the poller, and that only as long as the caller
 * allows.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "engine/bind.h"
#include "engine/engine.h"
#include "engine/line.h"
#include "engine/template.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/proc.h"
#include "os/sys.h"
#include "process/stdio.h"

#define MAX_CHILDREN_LEAST 16
#define MAX_CHILDREN_PER_CPU 8
#define MAX_DEPTH_DEFAULT 16

/* Without pidfds the end of a child must be asked for. */
#define BLIND_WAIT_NS (10 * FM__NS_PER_MS)
#define BLIND_WAIT_END_NS (FM__NS_PER_MS)

/* As that of one which somebody withholds, less and less often. */
#define ASK_FIRST_NS (FM__NS_PER_MS)
#define ASK_MOST_NS (100 * FM__NS_PER_MS)

#define EVENTS 64

/* How long a step that may not wait goes on starting jobs. */
#define START_NS FM__NS_PER_MS

void fm__engine_warn(fm_engine *engine, const char *message)
{
    char line[256];
    int len;

    if (engine->opts.on_warning) {
        struct fm__entry before = fm__callback_begin(engine);

        engine->opts.on_warning(message, engine->opts.ud);
        fm__callback_end(engine, before);
        return;
    }
    len = snprintf(line, sizeof line, "%s\n", message);
    if (len > 0)
        (void)!fm__sys.write(
            2, line, (size_t)len < sizeof line ? (size_t)len : sizeof line - 1);
}

static void take_opts(fm_engine *engine, const struct fm_engine_opts *opts)
{
    unsigned cpus;

    if (opts) {
        engine->opts.on_threads = opts->on_threads;
        if (opts->max_children > 0)
            engine->opts.max_children = opts->max_children;
        if (opts->max_depth > 0)
            engine->opts.max_depth = opts->max_depth;
        if (opts->on_warning) {
            engine->opts.on_warning = opts->on_warning;
            engine->opts.ud = opts->ud;
        }
    }
    if (engine->opts.max_children == 0) {
        cpus = fm__proc_count_cpus() * MAX_CHILDREN_PER_CPU;
        engine->opts.max_children =
            cpus > MAX_CHILDREN_LEAST ? cpus : MAX_CHILDREN_LEAST;
    }
    if (engine->opts.max_depth == 0)
        engine->opts.max_depth = MAX_DEPTH_DEFAULT;
}

static int open_null(void)
{
    int fd = fm__fd_adopt(fm__sys.open("/dev/null", O_RDWR, 0));

    if (fd >= 0)
        fm__fd_keep(fd, true);
    return fd;
}

/* Everything but the memory; accepts a half-built engine. */
void fm__engine_close_parts(fm_engine *engine)
{
    fm__watchers_drop(engine);
    fm__channel_drop_idle(engine);
    if (engine->bell.hear_fd >= 0 && engine->poller.fd >= 0)
        fm__poller_remove(&engine->poller, engine->bell.hear_fd);
    fm__bell_close(&engine->bell);
    fm__fd_close(&engine->null_fd);
    fm__poller_close(&engine->poller);
    fm__slots_free(engine);
}

static int open_parts(fm_engine *engine)
{
    int rc = fm__poller_open(&engine->poller);

    if (rc == 0)
        rc = fm__bell_open(&engine->bell);
    if (rc == 0) {
        /* Children ring it; it is theirs too. */
        fm__fd_keep(engine->bell.ring_fd, true);
        rc = fm__poller_add(&engine->poller, engine->bell.hear_fd, FM__POLL_IN,
                            FM__BELL_TAG);
    }
    if (rc == 0) {
        engine->null_fd = open_null();
        rc = engine->null_fd < 0 ? engine->null_fd : 0;
    }
    return rc;
}

int fm_engine_new(const struct fm_engine_opts *opts, fm_engine **ret_engine)
{
    fm_engine *engine = fm__engine_alloc();
    int rc;

    if (!engine)
        return -ENOMEM;
    engine->refs = 1;
    engine->bell = (struct fm__bell)FM__BELL_INIT;
    engine->poller = (struct fm__poller)FM__POLLER_INIT;
    engine->null_fd = -1;
    rc = fm__engine_check_memory(engine);
    if (rc == 0)
        rc = fm__fds_open();
    if (rc < 0) {
        fm__engine_release(engine);
        return rc;
    }
    fm__stdio_find();
    take_opts(engine, opts);
    fm__proc_random(engine->random, sizeof engine->random);
    engine->pid = fm__sys.getpid();
    engine->generation = fm__fds_generation();
    engine->next_job = engine->random[0] | 1;
    rc = open_parts(engine);
    if (rc < 0) {
        fm__engine_close_parts(engine);
        fm__fds_close();
        fm__engine_release(engine);
        return rc;
    }
    *ret_engine = engine;
    return 0;
}

int fm_engine_configure(fm_engine *engine, const struct fm_engine_opts *opts)
{
    if (engine->closed || !fm__engine_is_ours(engine))
        return FM_ECLOSED;
    take_opts(engine, opts);
    return 0;
}

void fm_engine_forbid_direct(fm_engine *engine)
{
    engine->forbids_direct = true;
}

void fm_engine_get_stats(const fm_engine *engine, struct fm_engine_stats *ret)
{
    *ret = engine->stats;
    ret->running = engine->n_running;
    ret->queued = 0;
    for (const fm_future *f = engine->queue.first; f; f = f->next)
        ret->queued++;
    for (const fm_future *f = engine->waiting.first; f; f = f->next)
        ret->queued++;
    for (const fm_template *t = engine->templates; t; t = t->next) {
        for (const fm_future *f = t->waiting.first; f; f = f->next)
            ret->queued++;
    }
}

/* ------------------------------------------------------------- one step */

/* A debugger, say, has yet to take the status of a child that has ended. */
static void withhold(fm_future *future)
{
    fm__poller_remove(&future->engine->poller, fm__pid_fd(&future->pid));
    future->is_withheld = true;
    future->ask_ns = ASK_FIRST_NS;
}

/* Has a child ended whose descriptor does not tell? */
static void ask(fm_future *future, int64_t now)
{
    if (future->ask_ns < ASK_MOST_NS)
        future->ask_ns *= 2;
    fm__attempt_finish(future, now);
}

/* Read all rings and look at all deadlines. */
static void pump_all(fm_engine *engine)
{
    int64_t now = fm__clock_now();

    fm__maps_look(engine);
    for (unsigned i = 0; i < engine->n_slots; i++) {
        fm_future *future = engine->slots[i];

        if (!future)
            continue;
        fm__attempt_pump(future, now);
        if (!future->is_asked &&
            (fm__pid_fd(&future->pid) < 0 || future->is_withheld))
            ask(future, now);
        if (engine->slots[i] == future)
            fm__attempt_check_time(future, now);
    }
    if (engine->parked)
        fm__attempt_reap_parked(engine, false);
    if (engine->maps)
        fm__maps_tend(engine, now);
}

static int64_t next_time(const fm_engine *engine)
{
    int64_t at = fm__maps_next_time(engine);

    for (unsigned i = 0; i < engine->n_slots; i++) {
        if (engine->slots[i]) {
            int64_t t = fm__attempt_next_time(engine->slots[i]);

            at = t < at ? t : at;
        }
    }
    for (const fm_future *f = engine->waiting.first; f; f = f->next)
        at = f->next_at < at ? f->next_at : at;
    return at;
}

static int64_t time_to_ask(const fm_future *future)
{
    if (future->is_withheld)
        return future->ask_ns;
    if (future->is_asked || fm__pid_fd(&future->pid) >= 0)
        return FM__NEVER;
    return future->state == FM_DRAINING ? BLIND_WAIT_END_NS : BLIND_WAIT_NS;
}

/* How long a child whose end nobody tells may go unasked. */
static int64_t blind_wait(const fm_engine *engine)
{
    int64_t wait = engine->parked ? 100 * FM__NS_PER_MS : FM__NEVER;

    for (unsigned i = 0; i < engine->n_slots; i++) {
        const fm_future *future = engine->slots[i];

        if (future) {
            int64_t w = time_to_ask(future);

            wait = w < wait ? w : wait;
        }
    }
    return wait;
}

/* Tell the children that the bell is needed from now on.  True when one of
 * them has written something in the meantime. */
static bool go_to_sleep(fm_engine *engine)
{
    bool busy = false;

    for (unsigned i = 0; i < engine->n_slots; i++) {
        fm_future *future = engine->slots[i];

        if (future && future->inbox.ending == FM__ENDING_OPEN &&
            (!future->duplex || fm__duplex_room(future, 1) > 0) &&
            fm__ring_sleep(&future->channel->ring))
            busy = true;
    }
    return busy;
}

static void hear(fm_engine *engine, const struct fm__poller_event *event)
{
    uint64_t tag = event->tag, slot = tag / 4;
    fm_future *future = slot < engine->n_slots ? engine->slots[slot] : NULL;

    if (tag & FM__WATCHED_TAG) {
        fm__watchers_hear(engine, tag, event->events);
        return;
    }
    switch ((enum fm__tag)(tag % 4)) {
    case FM__TAG_BELL:
        fm__bell_silence(&engine->bell);
        break;
    case FM__TAG_PID:
        if (future)
            fm__attempt_finish(future, fm__clock_now());
        if (future && engine->slots[slot] == future)
            withhold(future);
        break;
    case FM__TAG_STDOUT:
    case FM__TAG_STDERR:
        if (future)
            fm__attempt_hear(future, tag % 4 == FM__TAG_STDERR,
                             fm__clock_now());
        break;
    }
}

/* The poller has failed, as when the host has closed its descriptor: nobody
 * tells which child has ended. */
static void ask_all(fm_engine *engine)
{
    for (unsigned i = 0; i < engine->n_slots; i++) {
        if (engine->slots[i])
            fm__attempt_finish(engine->slots[i], fm__clock_now());
    }
}

/* Wait for descriptors at most until `deadline`.  0, a count, or -errno. */
static int listen_once(fm_engine *engine, int64_t deadline)
{
    struct fm__poller_event events[EVENTS];
    int64_t now, at, wait;
    int n;

    wait = 0;
    if (deadline > 0) {
        now = fm__clock_now();
        at = next_time(engine);
        at = at < deadline ? at : deadline;
        wait = at == FM__NEVER ? FM__NEVER : at > now ? at - now : 0;
        at = blind_wait(engine);
        wait = at < wait ? at : wait;
        if (go_to_sleep(engine))
            wait = 0;
    }
    n = fm__poller_wait(&engine->poller, events, EVENTS, wait);
    engine->n_batches++;
    for (int i = 0; i < n; i++)
        hear(engine, &events[i]);
    if (n < 0 && n != -EINTR)
        ask_all(engine);
    return n;
}

static bool is_idle(const fm_engine *engine)
{
    return !engine->rests && fm__engine_count_jobs(engine) == 0 &&
           !fm__templates_are_busy(engine) && !engine->queue.first &&
           !engine->waiting.first && !engine->due.first && !engine->maps &&
           engine->n_holding == 0;
}

/* Callbacks of what has settled so far; those that they cause come next
 * time. */
int fm__engine_run_due(fm_engine *engine)
{
    struct fm__list batch = {NULL, NULL};
    int n = 0;

    while (engine->due.first) {
        fm_future *future = engine->due.first;

        fm__list_remove(future);
        fm__list_append(&batch, future);
    }
    while (batch.first) {
        fm_future *future = batch.first;
        fm_settle_cb cb = future->on_settle;
        void *ud = future->on_settle_ud;

        fm__list_remove(future);
        if (cb) {
            struct fm__entry before = fm__callback_begin(engine);

            future->on_settle_ud = NULL;
            cb(future, ud);
            fm__callback_end(engine, before);
        }
        fm_future_unref(future);
        n++;
    }
    return n;
}

static int step(fm_engine *engine, int64_t timeout_ns)
{
    int64_t deadline = 0;
    int rc = 0;

    if (timeout_ns > 0)
        deadline = fm__clock_after(fm__clock_now(), timeout_ns);
    else if (timeout_ns < 0)
        deadline = FM__NEVER;
    engine->has_news = false;
    for (;;) {
        pump_all(engine);
        if (engine->waiting.first)
            fm__engine_requeue(engine, fm__clock_now());
        fm__engine_start_queued(engine);
        if (engine->due.first || engine->has_news ||
            (is_idle(engine) && !engine->parked))
            deadline = 0; /* look, but do not wait */
        rc = listen_once(engine, deadline);
        if (rc < 0)
            break;
        if (rc > 0)
            pump_all(engine);
        if (engine->due.first || engine->has_news || is_idle(engine) ||
            deadline == 0 || fm__clock_now() >= deadline)
            break;
    }
    if (engine->due.first) {
        fm__engine_start_queued(engine);
        return fm__engine_run_due(engine);
    }
    return rc < 0 ? rc : 0;
}

/* When a host that polls has to come back for a deadline. */
static int64_t wake_time(const fm_engine *engine)
{
    int64_t at = next_time(engine);

    return engine->alarm_at > 0 && engine->alarm_at < at ? engine->alarm_at
                                                         : at;
}

int fm__engine_step(fm_engine *engine, int64_t timeout_ns)
{
    int rc;

    if (timeout_ns == 0)
        engine->start_until = fm__clock_after(fm__clock_now(), START_NS);
    rc = step(engine, timeout_ns);
    engine->start_until = 0;
    return rc;
}

/* The host may poll fm_engine_fd() whenever it likes, so flags and timer are
 * right whenever no step runs. */
static void leave_ready(fm_engine *engine)
{
    int64_t at, blind;

    if (engine->poller.timer_fd < 0)
        return;
    if (go_to_sleep(engine) || engine->due.first ||
        (engine->queue.first &&
         fm__engine_count_jobs(engine) < engine->opts.max_children))
        (void)fm__bell_ring(&engine->bell);
    at = wake_time(engine);
    blind = fm__clock_after(fm__clock_now(), blind_wait(engine));
    (void)fm__poller_set_deadline(&engine->poller, at < blind ? at : blind);
}

void fm__engine_leave(fm_engine *engine)
{
    bool is_last = !engine->in_callback && engine->free_after_callback;

    if (!engine->in_callback && !is_last)
        leave_ready(engine);
    fm__engine_exit(engine);
    if (is_last)
        fm_engine_free(engine);
}

/* Nothing will happen by itself.  Told without a system call: whose engine it
 * is matters to what is done with it, and nothing is. */
static bool is_at_rest(const fm_engine *engine)
{
    return engine->generation == fm__fds_generation() && !engine->closed &&
           !engine->in_callback && !engine->is_at_work && is_idle(engine) &&
           !engine->parked && engine->n_watchers == 0 &&
           engine->n_templates == 0;
}

int fm_engine_step(fm_engine *engine, int64_t timeout_ns)
{
    int rc;

    if (is_at_rest(engine))
        return 0;
    if (!fm__engine_is_ours(engine) || engine->closed)
        return FM_ECLOSED;
    if (engine->in_callback || !fm__engine_enter(engine))
        return FM_EBUSY;
    rc = fm__engine_step(engine, timeout_ns);
    fm__engine_leave(engine);
    return rc;
}

int fm__engine_rest(fm_engine *engine, int64_t timeout_ns)
{
    int rc;

    engine->rests = true;
    rc = fm_engine_step(engine, timeout_ns);
    engine->rests = false;
    return rc;
}

void fm__engine_set_alarm(fm_engine *engine, int64_t at_ns)
{
    if (engine->alarm_at == at_ns || engine->closed ||
        !fm__engine_is_ours(engine) || !fm__engine_enter(engine))
        return;
    engine->alarm_at = at_ns;
    fm__engine_leave(engine);
}

int fm_engine_fd(fm_engine *engine)
{
    int fd;

    if (!fm__engine_is_ours(engine) || engine->closed)
        return FM_ECLOSED;
    fd = fm__poller_fd(&engine->poller);
    if (fd >= 0)
        leave_ready(engine);
    return fd;
}

int64_t fm_engine_timeout(fm_engine *engine)
{
    int64_t at, now, blind;

    if (!fm__engine_is_ours(engine) || engine->closed)
        return -1;
    if (engine->due.first ||
        (engine->queue.first &&
         fm__engine_count_jobs(engine) < engine->opts.max_children))
        return 0;
    now = fm__clock_now();
    at = wake_time(engine);
    blind = blind_wait(engine);
    if (engine->n_watchers > 0 && engine->poller.fd < 0 &&
        blind > BLIND_WAIT_NS)
        blind = BLIND_WAIT_NS; /* no descriptor of ours tells of them */
    at = at == FM__NEVER ? FM__NEVER : at > now ? at - now : 0;
    at = blind < at ? blind : at;
    return at == FM__NEVER ? -1 : at;
}
