/* SPDX-License-Identifier: MIT */
/* Workers that lie over the cursor, their post and their records; see liars.h.
 */
#include "liars.h"

/* ------------------------------------------------------------------ cursor */

static void set_cursor(fm_worker *worker, uint64_t at)
{
    atomic_store(&worker->crew->board->cursor, at);
}

static void cursor_to_0(fm_worker *worker)
{
    (void)usleep(2000);
    set_cursor(worker, 0);
}

static void cursor_to_end(fm_worker *worker)
{
    set_cursor(worker, N_ITEMS);
}

static void cursor_to_max(fm_worker *worker)
{
    set_cursor(worker, UINT64_MAX);
}

static void cursor_ahead(fm_worker *worker)
{
    for (int i = 0; i < 50 && goes_on(worker); i++) {
        atomic_fetch_add(&worker->crew->board->cursor, 13);
        (void)usleep(100);
    }
}

static void cursor_anywhere(fm_worker *worker)
{
    while (goes_on(worker))
        set_cursor(worker, draw() % (N_ITEMS + 10));
}

static void cursor_back(fm_worker *worker)
{
    while (goes_on(worker)) {
        atomic_fetch_sub(&worker->crew->board->cursor, 3);
        (void)usleep(50);
    }
}

TEST(a_cursor_may_say_what_it_likes)
{
    static const struct lie lies[] = {
        {"cursor to 0", cursor_to_0, 0, 5},
        {"cursor to the end", cursor_to_end, 0, 1},
        {"cursor beyond the end", cursor_to_max, 0, 1},
        {"cursor ahead", cursor_ahead, 0, 1},
        {"cursor back", cursor_back, 0, 1},
        {"cursor anywhere", cursor_anywhere, 0, 1},
    };

    LIE_WITH(lies);
}

/* -------------------------------------------------------------------- post */

static void claims_for_ever(fm_worker *worker)
{
    be_ready(worker);
    atomic_fetch_add(&worker->crew->board->cursor, 100);
    atomic_store(&worker->post->claiming, 1);
    sleep_for_ever(worker);
}

static void takes_gifts_only(fm_worker *worker)
{
    struct fm__post *post = worker->post;

    be_ready(worker);
    while (getppid() == worker->outbox->parent) {
        uint64_t gift = atomic_load(&post->gift);

        if (fm__span_low(gift) == FM__GIFT_OFFERED)
            atomic_store(&post->gift, gift + 1);
        (void)usleep(100);
    }
}

static void forges_gifts(fm_worker *worker)
{
    be_ready(worker);
    while (goes_on(worker)) {
        atomic_store(&worker->post->gift, draw());
        (void)usleep(100);
    }
}

static void is_nowhere(fm_worker *worker)
{
    be_ready(worker);
    atomic_store(&worker->post->word, fm__span(N_ITEMS + 5, 7, FM__WORD_RUN));
    atomic_store(&worker->post->at, N_ITEMS + 5);
    (void)claim(worker, 50);
    sleep_for_ever(worker);
}

static void never_begins(fm_worker *worker)
{
    be_ready(worker);
    (void)claim(worker, 50);
    sleep_for_ever(worker);
}

static void is_everywhere(fm_worker *worker)
{
    be_ready(worker);
    (void)claim(worker, 50);
    while (getppid() == worker->outbox->parent) {
        atomic_store(&worker->post->word, draw());
        atomic_store(&worker->post->at, draw() % N_ITEMS);
        (void)usleep(20);
    }
}

static void waits_for_ever(fm_worker *worker)
{
    (void)enter_one(worker);
    atomic_store(&worker->post->word, atomic_load(&worker->post->word) ^
                                          FM__WORD_RUN ^ FM__WORD_WAIT);
    sleep_for_ever(worker);
}

static void begins_later_always(fm_worker *worker)
{
    (void)enter_one(worker);
    while (getppid() == worker->outbox->parent)
        atomic_store(&worker->post->started_at, INT64_MAX);
}

static void began_long_ago(fm_worker *worker)
{
    (void)enter_one(worker);
    atomic_store(&worker->post->started_at, INT64_MIN);
    sleep_for_ever(worker);
}

static void is_idle_in_an_item(fm_worker *worker)
{
    (void)enter_one(worker);
    atomic_store(&worker->post->word,
                 atomic_load(&worker->post->word) & ~(uint64_t)FM__SPAN_LOW);
    sleep_for_ever(worker);
}

static void says_that_it_leaves(fm_worker *worker)
{
    (void)enter_one(worker);
    atomic_store(&worker->post->leaves, 1);
    sleep_for_ever(worker);
}

static void all_of_the_post(fm_worker *worker)
{
    unsigned char *post = (unsigned char *)worker->post;

    be_ready(worker);
    random_state = (uint64_t)getpid();
    for (int i = 0; i < 20000 && getppid() == worker->outbox->parent; i++) {
        post[draw() % sizeof *worker->post] = (unsigned char)draw();
        if (i % 100 == 0)
            (void)usleep(10);
    }
    _exit(0);
}

TEST(a_post_may_say_what_it_likes)
{
    static const struct lie lies[] = {
        {"claims for ever", claims_for_ever, 0, 1},
        {"takes gifts only", takes_gifts_only, 0, 1},
        {"forges gifts", forges_gifts, 0, 1},
        {"is nowhere", is_nowhere, 0, 1},
        {"never begins", never_begins, 0, 1},
        {"is everywhere", is_everywhere, 0, 1},
        {"waits for ever", waits_for_ever, 50 * MS, 1},
        {"begins later always", begins_later_always, 50 * MS, 1},
        {"began long ago", began_long_ago, 50 * MS, 1},
        {"is idle in an item", is_idle_in_an_item, 0, 1},
        {"says that it leaves", says_that_it_leaves, 0, 1},
        {"all of the post", all_of_the_post, 0, 5},
    };

    LIE_WITH(lies);
}

/* ----------------------------------------------------------------- records */

static const struct record {
    unsigned kind, detail;
    uint32_t len;
    uint64_t u;
} forged[] = {
    {0, 0, 0, 0},
    {FM__RECORD_KINDS, 0, 0, 0},
    {255, 255, 0, 0},
    {FM__RECORD_PAD, 0, UINT32_MAX, 0},
    {FM__RECORD_PAD, 0, FM__RING_SIZE, 0},
    {FM__RECORD_READY, 0, 0, 0}, /* the second */
    {FM__RECORD_CLAIM, 0, 0, 0},
    {FM__RECORD_CLAIM, 0, 1, N_ITEMS},
    {FM__RECORD_CLAIM, 0, UINT32_MAX, 0},
    {FM__RECORD_CLAIM, 0, 2, UINT64_MAX},
    {FM__RECORD_CLAIM, 0, N_ITEMS + 1, 0},
    {FM__RECORD_NIL, 0, 0, 0},
    {FM__RECORD_INTEGER, 0, 0, 7},
    {FM__RECORD_VALUE, 0, 0, 0},
    {FM__RECORD_VALUE, 0, 0, 5},
    {FM__RECORD_VALUE, 0, UINT32_MAX, UINT64_MAX},
    {FM__RECORD_DATA, 0, UINT32_MAX, 0},
    {FM__RECORD_DATA, 0, FM__RECORD_PAYLOAD_MAX + 1, 0},
    {FM__RECORD_DROP, 0, UINT32_MAX, 0},
    {FM__RECORD_FAIL, 0, 0, 0},
    {FM__RECORD_FAIL, 0, 16, 16},
    {FM__RECORD_REFUSE, 0, 16, 16},
    {FM__RECORD_EXCEED, 0, 16, 16},
    {FM__RECORD_ENDED, 0, 256, 256},
    {FM__RECORD_EVENT, 0, 0, 0},
    {FM__RECORD_STOP, 0, 0, 0},
    {FM__RECORD_ITEM, 0, 0, 0},
};

static size_t which;

/* Without a claim. */
static void forges_one(fm_worker *worker)
{
    const struct record *r = &forged[which];

    be_ready(worker);
    CHECK_INT(fm__worker_put(worker, r->kind, r->detail, r->len, r->u), 0);
    wait_for_the_end(worker);
}

/* In an item of its own. */
static void forges_one_in_an_item(fm_worker *worker)
{
    const struct record *r = &forged[which];

    if (r->kind == FM__RECORD_STOP)
        return; /* its item may */
    (void)enter_one(worker);
    CHECK_INT(fm__worker_put(worker, r->kind, r->detail, r->len, r->u), 0);
    wait_for_the_end(worker);
}

TEST(a_forged_record_costs_its_writers_item_at_most)
{
    static const struct lie lies[] = {
        {"forges one", forges_one, 0, 1},
        {"forges one in an item", forges_one_in_an_item, 50 * MS, 1},
    };

    for (which = 0; which < sizeof forged / sizeof forged[0]; which++)
        LIE_WITH(lies);
}

/* ------------------------------------------------------- what others have */

/* Items that others have had for long, with values of its own. */
static void claims_what_has_ended(fm_worker *worker)
{
    be_ready(worker);
    while (atomic_load(&run.ran[5]) == 0 && goes_on(worker))
        (void)usleep(100);
    (void)usleep(20000);
    for (int i = 0; i < 100 && goes_on(worker); i++) {
        put(worker, FM__RECORD_CLAIM, 6, 0);
        for (uint64_t k = 0; k < 6; k++)
            put(worker, FM__RECORD_INTEGER, 0, 666);
    }
    wait_for_the_end(worker);
}

/* Claims of nothing, as long as it lives. */
static void claims_and_claims(fm_worker *worker)
{
    be_ready(worker);
    while (atomic_load(&run.ran[5]) == 0 && goes_on(worker))
        (void)usleep(100);
    (void)usleep(20000);
    while (getppid() == worker->outbox->parent) {
        put(worker, FM__RECORD_CLAIM, 1, 0);
        fm__worker_wake_parent(worker);
    }
}

/* Everything there is, one by one, to make holes. */
static void claims_every_other(fm_worker *worker)
{
    be_ready(worker);
    for (uint64_t i = N_ITEMS / 2; i < N_ITEMS; i += 2) {
        is_liars[i] = 1;
        put(worker, FM__RECORD_CLAIM, 1, i);
        put(worker, FM__RECORD_INTEGER, 0, 666);
    }
    wait_for_the_end(worker);
}

static void says_more_than_it_claimed(fm_worker *worker)
{
    be_ready(worker);
    (void)claim(worker, 3);
    for (int i = 0; i < 100; i++)
        put(worker, FM__RECORD_INTEGER, 0, 666);
    wait_for_the_end(worker);
}

/* Bytes of one value, without end. */
static void says_without_end(fm_worker *worker)
{
    static unsigned char bytes[4096];

    (void)enter_one(worker);
    worker->most = UINT64_MAX;
    while (fm__sink_write(&worker->sink, bytes, sizeof bytes) == 0)
        ;
}

/* The same, and then that it was nothing. */
static void drops_without_end(fm_worker *worker)
{
    (void)enter_one(worker);
    for (;;) {
        uint64_t zero = 0;

        (void)fm__sink_write(&worker->sink, &zero, sizeof zero);
        (void)fm_worker_set_format(worker, 1);
        if (getppid() != worker->outbox->parent)
            _exit(1);
    }
}

static void says_frames(fm_worker *worker)
{
    (void)enter_one(worker);
    (void)fm_child_write(worker->child, "frame", 5);
    (void)fm__outbox_put(worker->outbox, FM__FRAME_FORMAT, "x", 1);
    wait_for_the_end(worker);
}

TEST(what_others_have_is_theirs)
{
    static const struct lie lies[] = {
        {"claims what has ended", claims_what_has_ended, 0, 1},
        {"claims and claims", claims_and_claims, 0, 1},
        {"claims every other", claims_every_other, 0, 1},
        {"says more than it claimed", says_more_than_it_claimed, 0, 1},
        {"says without end", says_without_end, 0, 1},
        {"drops without end", drops_without_end, 50 * MS, 1},
        {"says frames", says_frames, 50 * MS, 1},
        {"says frames for ever", says_frames, 0, 1},
    };

    LIE_WITH(lies);
}
