/* SPDX-License-Identifier: MIT */
/* A worker of a map, inside its process; see worker.h. */
#include "process/worker.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "os/clock.h"
#include "os/fence.h"
#include "os/proc.h"
#include "os/sys.h"
#include "os/word.h"
#include "process/child.h"
#include "process/stdio.h"

/* From one tick to the next.  The dearest thing at a tick is to wake the
 * parent: about a hundredth of this. */
#define TICK_NS FM__NS_PER_MS
#define STRIDE_MAX 65536u

/* How long a worker without items sleeps before it looks around itself. */
#define IDLE_NAP_NS FM__NS_PER_S

/* ------------------------------------------------------------- the parent */

void fm__worker_wake_parent(struct fm_worker *worker)
{
    atomic_thread_fence(memory_order_seq_cst);
    (void)fm__outbox_wake_parent(worker->outbox);
}

/* The parent has condemned this worker, and its items go to others.  What it
 * has committed counts; it is being killed, so it need not wait for that. */
static _Noreturn void give_up(void)
{
    fm__stdio_flush();
    fm__exit_now(1);
}

/* Change the flags of the word; the parent may have taken items meanwhile. */
static void set_flag(struct fm_worker *worker, unsigned flag)
{
    uint64_t word = worker->word;
    uint64_t next;

    do {
        if (fm__span_low(word) == FM__WORD_CONDEMNED)
            give_up();
        next = (word & ~(uint64_t)FM__SPAN_LOW) | flag;
    } while (!atomic_compare_exchange_strong(&worker->post->word, &word, next));
    worker->word = next;
}

static int wait_room(struct fm_worker *worker, size_t need)
{
    struct fm__ring *ring = worker->ring;
    int rc = 0;

    atomic_thread_fence(memory_order_seq_cst); /* as for any wake-up */
    for (;;) {
        ring->far = atomic_load(&ring->shared->head);
        if (ring->size - (size_t)(ring->at - ring->far) >= need)
            return 0;
        rc = fm__outbox_wait_room(worker->outbox, need);
        if (rc < 0)
            return rc;
    }
}

int64_t fm__worker_pause(struct fm_worker *worker)
{
    if (worker->timed && fm__span_low(worker->word) == FM__WORD_RUN)
        set_flag(worker, FM__WORD_WAIT);
    return fm__clock_now();
}

void fm__worker_resume(struct fm_worker *worker, int64_t since)
{
    int64_t spent = fm__clock_now() - since;

    worker->tick_at += spent;
    if (!worker->timed || fm__span_low(worker->word) != FM__WORD_WAIT)
        return;
    atomic_store(&worker->post->started_at,
                 atomic_load(&worker->post->started_at) + spent);
    set_flag(worker, FM__WORD_RUN);
}

/* Waiting for the parent is not the item's time. */
int fm__worker_wait_room(struct fm_worker *worker, size_t need)
{
    struct fm__ring *ring = worker->ring;
    int64_t since;
    int rc;

    ring->far = atomic_load(&ring->shared->head);
    if (ring->size - (size_t)(ring->at - ring->far) >= need)
        return 0;
    if (!worker->timed || fm__span_low(worker->word) != FM__WORD_RUN)
        return wait_room(worker, need);
    since = fm__worker_pause(worker);
    rc = wait_room(worker, need);
    fm__worker_resume(worker, since);
    return rc;
}

/* ------------------------------------------------------------------- ticks */

/* Count items so that the next tick comes in about TICK_NS. */
static void adapt_stride(struct fm_worker *worker, int64_t now)
{
    unsigned n = worker->counted - worker->countdown;
    int64_t spent = now - worker->tick_at;
    double fit;

    if (n == 0 || worker->n_claims == 0)
        return;
    fit = spent > 0 ? (double)n * (double)TICK_NS / (double)spent : STRIDE_MAX;
    if (fit > 2.0 * worker->stride)
        fit = 2.0 * worker->stride; /* one quick item proves little */
    if (fit > STRIDE_MAX)
        fit = STRIDE_MAX;
    worker->stride = fit < 1 ? 1 : (unsigned)fit;
}

void fm__worker_wake_if_due(struct fm_worker *worker)
{
    struct fm__ring *ring = worker->ring;

    ring->far = atomic_load(&ring->shared->head);
    if (worker->crew->eager || fm__ring_used(ring) >= ring->size / 4)
        fm__worker_wake_parent(worker);
}

static void tick(struct fm_worker *worker)
{
    int64_t now = fm__clock_now();

    adapt_stride(worker, now);
    worker->tick_at = now;
    worker->countdown = worker->stride;
    worker->counted = worker->stride;
    if (worker->crew->eager)
        atomic_store_explicit(&worker->post->quiet, worker->stride > 1,
                              memory_order_relaxed);
    atomic_store_explicit(&worker->post->pace, worker->stride,
                          memory_order_relaxed);
    fm__worker_wake_if_due(worker);
}

/* ------------------------------------------------------------------- limits */

/* The first signal may be ignored. */
#define KILL_EXTRA_NS FM__NS_PER_S

static int make_cpu_timers(struct fm_worker *worker)
{
    static const int signals[] = {SIGXCPU, SIGKILL};
    int rc = 0;

    for (int i = 0; i < 2 && rc == 0 && worker->crew->cpu_ns > 0; i++)
        rc = fm__timer_make(CLOCK_PROCESS_CPUTIME_ID, signals[i],
                            &worker->cpu_timers[i]);
    return rc;
}

/* The next `ns` of processor time are an item's; 0: nobody's. */
static void limit_cpu(struct fm_worker *worker, uint64_t ns)
{
    int64_t first = ns < INT64_MAX ? (int64_t)ns : INT64_MAX;

    if (worker->crew->cpu_ns == 0)
        return;
    (void)fm__timer_set(worker->cpu_timers[0], first, 0);
    (void)fm__timer_set(worker->cpu_timers[1],
                        ns > 0 ? fm__clock_after(first, KILL_EXTRA_NS) : 0, 0);
}

/* Before it is entered; the one before has its last record. */
static void start_item(struct fm_worker *worker)
{
    limit_cpu(worker, worker->crew->cpu_ns);
    if (worker->timed)
        atomic_store(&worker->post->started_at, fm__clock_now());
}

/* ------------------------------------------------------------------ claims */

/* Items begun. */
static uint64_t count_begun(const struct fm_worker *worker)
{
    return worker->n_before +
           (worker->n_claims > 0 ? worker->at - worker->first + 1 : 0);
}

/* For good: what is left of its claim goes to others. */
static bool is_spent(struct fm_worker *worker)
{
    const struct fm__crew *crew = worker->crew;
    uint64_t n = count_begun(worker);

    if (crew->max_tasks > 0 && n >= crew->max_tasks)
        worker->is_spent = true;
    if (crew->max_rss > 0 && n > 0 && fm__proc_rss() > crew->max_rss)
        worker->is_spent = true;
    return worker->is_spent;
}

static bool may_claim(const struct fm_worker *worker)
{
    const struct fm__crew *crew = worker->crew;

    return crew->max_claims == 0 || worker->n_claims < crew->max_claims;
}

/* How many of the items from `first` to `end` to claim: about a tick's worth,
 * fewer towards the end, so that all workers end together. */
static uint64_t claim_size(const struct fm_worker *worker, uint64_t left)
{
    const struct fm__crew *crew = worker->crew;
    uint64_t n = crew->chunk_max;

    if (crew->adapts) {
        uint64_t share = left / (2 * (uint64_t)crew->n_workers);

        n = worker->stride < n ? worker->stride : n;
        n = share < n ? share : n;
    }
    if (n < crew->chunk_min)
        n = crew->chunk_min;
    if (crew->max_tasks > 0 && n > crew->max_tasks - count_begun(worker))
        n = crew->max_tasks - count_begun(worker);
    if (n > FM__CLAIM_MAX)
        n = FM__CLAIM_MAX;
    return n < left ? n : left;
}

/* Enter the first item of a claim; unless the parent has given this worker up
 * in the meantime, because it stood still here. */
static int begin_claim(struct fm_worker *worker, uint64_t first, uint64_t n)
{
    uint64_t before = worker->word;

    worker->n_before = count_begun(worker);
    worker->n_claims++;
    worker->at = first;
    worker->first = first;
    worker->last = first + n - 1;
    worker->swap_at = worker->has_fence ? worker->last : first;
    worker->word = fm__span(first, n - 1, FM__WORD_RUN);
    worker->said = false;
    start_item(worker);
    atomic_store(&worker->post->at, first);
    if (!atomic_compare_exchange_strong(&worker->post->word, &before,
                                        worker->word))
        give_up();
    return 1;
}

static int take_gift(struct fm_worker *worker)
{
    struct fm__post *post = worker->post;
    uint64_t gift = atomic_load(&post->gift);
    uint64_t taken = (gift & ~(uint64_t)FM__SPAN_LOW) | FM__GIFT_TAKEN;
    uint64_t n = fm__span_count(gift);
    int rc;

    if (fm__span_low(gift) != FM__GIFT_OFFERED ||
        !atomic_compare_exchange_strong(&post->gift, &gift, taken))
        return 0;
    worker->attempt = atomic_load(&post->gift_attempt);
    rc = fm__worker_put(worker, FM__RECORD_CLAIM, worker->attempt & 0xff,
                        (uint32_t)n, fm__span_first(gift));
    if (rc < 0)
        return rc;
    /* Where there are gifts only, another one is wanted beside it. */
    if (worker->crew->tray)
        fm__worker_wake_parent(worker);
    return begin_claim(worker, fm__span_first(gift), n);
}

/* Move the cursor over `*ret_n` items.  False when it is at the end. */
static bool move_cursor(struct fm_worker *worker, uint64_t *ret_first,
                        uint64_t *ret_n)
{
    _Atomic uint64_t *cursor = &worker->crew->board->cursor;
    uint64_t at = atomic_load(cursor);
    uint64_t n;

    do {
        uint64_t end = atomic_load(&worker->post->limit);

        if (end > worker->crew->n_items)
            end = worker->crew->n_items;
        if (at >= end)
            return false;
        n = claim_size(worker, end - at);
    } while (!atomic_compare_exchange_weak(cursor, &at, at + n));
    *ret_first = at;
    *ret_n = n;
    return true;
}

/* Between the cursor's move and the CLAIM record nobody but us knows who has
 * the items; `claiming` tells the parent that there may be such. */
static int take_chunk(struct fm_worker *worker)
{
    struct fm__post *post = worker->post;
    uint64_t first, n;
    int rc = 0;

    atomic_store(&post->claiming, 1);
    if (move_cursor(worker, &first, &n)) {
        worker->attempt = 1;
        rc = fm__worker_put(worker, FM__RECORD_CLAIM, 1, (uint32_t)n, first);
        if (rc == 0)
            rc = begin_claim(worker, first, n);
    }
    atomic_store(&post->claiming, 0);
    return rc;
}

/* Have the parent look at the word.  The record, which says nothing, keeps it
 * from going to sleep if it has looked before and has not announced its sleep
 * yet. */
static int tell(struct fm_worker *worker)
{
    int rc = fm__worker_put(worker, FM__RECORD_PAD, 0, 0, 0);

    if (rc == 0)
        fm__worker_wake_parent(worker);
    return rc;
}

/* Nothing to do: say so once, or when asked, and sleep until there is. */
static int rest(struct fm_worker *worker, bool *is_told)
{
    struct fm__post *post = worker->post;
    uint32_t call = atomic_load(&post->call);
    bool has_gift, has_more;
    int rc = 0;

    atomic_store(&post->asleep, 1);
    has_gift = fm__span_low(atomic_load(&post->gift)) == FM__GIFT_OFFERED;
    has_more =
        atomic_load(&worker->crew->board->cursor) < atomic_load(&post->limit);
    if (!has_gift && !has_more && atomic_load(&post->order) == FM__ORDER_WORK) {
        if (atomic_exchange(&post->ask, 0) != 0 || !*is_told)
            rc = tell(worker);
        *is_told = true;
        if (rc == 0)
            fm__word_wait(&post->call, call, IDLE_NAP_NS);
    }
    atomic_store(&post->asleep, 0);
    worker->tick_at = fm__clock_now();
    if (rc == 0 && fm__sys.getppid() != worker->outbox->parent)
        rc = FM_ECLOSED;
    return rc;
}

/* The claim is over, or there was none. */
static int next_claim(struct fm_worker *worker)
{
    struct fm__post *post = worker->post;
    bool is_told = false;
    int rc = 0;

    if (fm__span_low(worker->word) != FM__WORD_IDLE)
        set_flag(worker, FM__WORD_IDLE);
    tick(worker);
    while (rc == 0) {
        if (atomic_load(&post->order) == FM__ORDER_LEAVE ||
            !may_claim(worker) || is_spent(worker))
            return 0;
        rc = take_gift(worker);
        if (rc == 0 && !worker->crew->tray)
            rc = take_chunk(worker);
        if (rc == 0)
            rc = rest(worker, &is_told);
    }
    return rc;
}

/* Enter the next item by a swap, if the parent has left us any. */
static int swap_to_next(struct fm_worker *worker)
{
    uint64_t word = worker->word;
    uint64_t next = worker->at + 1;
    uint64_t last, entered;

    do {
        if (fm__span_low(word) == FM__WORD_CONDEMNED)
            give_up();
        last = fm__span_first(word) + fm__span_count(word);
        if (next > last) {
            worker->word = word;
            return next_claim(worker);
        }
        entered = fm__span(next, last - next, FM__WORD_RUN);
    } while (
        !atomic_compare_exchange_strong(&worker->post->word, &word, entered));
    worker->word = entered;
    worker->at = next;
    worker->last = last;
    atomic_store(&worker->post->at, next);
    worker->said = false;
    return 1;
}

/* The tick was due, or a swap, or both. */
static int next_of_claim(struct fm_worker *worker)
{
    start_item(worker);
    /* Recalled: by swaps to the end of the claim. */
    if (atomic_load(&worker->post->recall) != 0)
        worker->swap_at = worker->at;
    if (worker->at < worker->swap_at) {
        worker->countdown++; /* only the tick was due */
        return fm__worker_next(worker);
    }
    return swap_to_next(worker);
}

int fm__worker_next_slow(struct fm_worker *worker)
{
    int rc;

    if (fm__span_low(worker->word) == FM__WORD_IDLE ||
        worker->at >= worker->last) {
        rc = next_claim(worker);
    } else {
        if (worker->countdown == 0)
            tick(worker);
        rc = 0;
        if (is_spent(worker) ||
            atomic_load(&worker->post->order) == FM__ORDER_LEAVE)
            set_flag(worker, FM__WORD_IDLE);
        else
            rc = next_of_claim(worker);
    }
    if (rc == 0) {
        limit_cpu(worker, 0);
        atomic_store(&worker->post->leaves, 1);
        rc = tell(worker);
    }
    return rc;
}

/* ------------------------------------------------------------------ output */

void fm__worker_settle_output(struct fm_worker *worker)
{
    struct fm__post *post = worker->post;
    int64_t since;

    if (!worker->crew->is_heard)
        return;
    fm__stdio_flush();
    if (fm__sys.count_unread(1) <= 0 && fm__sys.count_unread(2) <= 0)
        return;
    since = fm__worker_pause(worker);
    atomic_store(&post->spoke, 1);
    atomic_store(&post->asleep, 1);
    while (atomic_load(&post->spoke) != 0 &&
           fm__sys.getppid() == worker->outbox->parent) {
        uint32_t call = atomic_load(&post->call);

        fm__worker_wake_parent(worker);
        if (atomic_load(&post->spoke) != 0)
            fm__word_wait(&post->call, call, IDLE_NAP_NS);
    }
    atomic_store(&post->asleep, 0);
    fm__worker_resume(worker, since);
}

/* ------------------------------------------------------------------ public */

int fm__worker_init(struct fm_worker *worker, fm_child *child,
                    const struct fm__crew *crew)
{
    struct fm__channel *channel = fm__child_get_channel(child);

    memset(worker, 0, sizeof *worker);
    fm__worker_open_sink(worker);
    worker->child = child;
    worker->outbox = fm__child_get_outbox(child);
    worker->ring = &worker->outbox->ring;
    worker->post = channel->post;
    worker->crew = crew;
    worker->most = crew->limit > 0 ? crew->limit : UINT64_MAX;
    worker->timed = crew->timed;
    worker->has_fence = crew->has_fence && !crew->timed && crew->cpu_ns == 0 &&
                        fm__fence_join();
    worker->said = true;
    worker->attempt = 1;
    worker->stride = crew->pace > 0 ? crew->pace : 1;
    if (worker->stride > STRIDE_MAX)
        worker->stride = STRIDE_MAX;
    worker->countdown = 1;
    worker->counted = 1;
    worker->tick_at = fm__clock_now();
    if (crew->tray)
        fm__tray_reader_init(&worker->items, crew->tray);
    return make_cpu_timers(worker);
}
