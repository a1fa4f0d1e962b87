/* SPDX-License-Identifier: MIT */
/*
 * Workers that say one thing that no honest one says, before the others begin:
 * what each costs is known.
 */
#include "liars.h"

/* In its first life worker 1 lies; the others begin when it has what it needs,
 * which it says by run.word. */
static int lie_first(fm_worker *worker, void *ud)
{
    void (*tell)(fm_worker * worker) = *(void (**)(fm_worker *))ud;

    if (fm_worker_get_id(worker) == 1 && atomic_load(run.word) == 0) {
        tell(worker);
        wait_for_the_end(worker);
        _exit(1);
    }
    while (atomic_load(run.word) == 0)
        (void)usleep(100);
    return say_all(worker, NULL);
}

static void let_others_begin(void)
{
    atomic_store(run.word, 1);
}

/* The lie costs its worker, and `failed` items. */
static void check_lie(void (*tell)(fm_worker *worker), uint64_t failed)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(100, 2, lie_first);

    opts.ud = &tell;
    opts.on_item = take;
    opts.job.grace_ns = -1;
    opts.job.limits.result = 1 << 20;
    is_liars = share(N_ITEMS);
    run_map(engine, &opts);
    for (uint64_t i = 0; i < run.n; i++)
        CHECK(run.kinds[i] == FM_VALUE || run.kinds[i] == FM_PROTOCOL);
    check_all(failed);
    fm_engine_free(engine);
}

/* ------------------------------------------------------------------ claims */

static void claims_twice(fm_worker *worker)
{
    be_ready(worker);
    (void)claim(worker, 3);
    (void)claim(worker, 3);
    let_others_begin();
}

TEST(a_claim_over_a_claim_loses_none_of_its_items)
{
    check_lie(claims_twice, 1);
}

/* Its end is behind the last number that there is. */
static void claims_what_wraps(fm_worker *worker)
{
    be_ready(worker);
    put(worker, FM__RECORD_CLAIM, 2, UINT64_MAX);
    put(worker, FM__RECORD_INTEGER, 0, 666);
    put(worker, FM__RECORD_INTEGER, 0, 666);
    fm__worker_wake_parent(worker);
    let_others_begin();
}

TEST(a_claim_of_what_is_not_there_has_no_outcomes)
{
    check_lie(claims_what_wraps, 0);
}

/* The others' last item waits until who claims item 0 for ever, which has
 * ended, is gone. */
static int claim_for_ever(fm_worker *worker, void *ud)
{
    uint64_t index;
    int rc;

    (void)ud;
    if (fm_worker_get_id(worker) == 1 && atomic_load(run.word) == 0) {
        be_ready(worker);
        atomic_store(run.word, (uint64_t)getpid());
        while (atomic_load(&run.word[1]) == 0)
            (void)usleep(100);
        while (getppid() == worker->outbox->parent) {
            put(worker, FM__RECORD_CLAIM, 1, 0);
            fm__worker_wake_parent(worker);
        }
        _exit(1);
    }
    while (atomic_load(run.word) == 0)
        (void)usleep(100);
    while ((rc = fm_worker_next(worker, &index)) > 0) {
        while (index == run.n - 1 && kill((pid_t)*run.word, 0) == 0)
            (void)usleep(100);
        CHECK_INT(say(worker, index), 0);
    }
    return rc;
}

static void take_and_count(fm_map *map, const struct fm_item *item, void *ud)
{
    on_item(map, item, ud);
    atomic_fetch_add(&run.word[1], 1);
}

TEST(a_worker_that_claims_without_end_is_ended)
{
    fm_engine *engine = new_engine();
    struct fm_map_opts opts = map_opts(10, 2, claim_for_ever);

    opts.on_item = take_and_count;
    opts.eager = true;
    opts.job.grace_ns = -1;
    run_map(engine, &opts);
    check_all(0);
    check_ran_once();
    fm_engine_free(engine);
}

/* ----------------------------------------------------------------- records */

/* What is in the ring, of which `len` bytes follow the head. */
static struct {
    unsigned kind;
    uint32_t said_len;
    uint64_t u;
    size_t len;
    unsigned char payload[512];
} forged;

static void forges_it(fm_worker *worker)
{
    unsigned char *at;

    (void)enter_one(worker);
    at = fm__worker_at(worker);
    fm__record_put(at, forged.kind, 0, forged.said_len, forged.u);
    memcpy(at + FM__RECORD_HEAD, forged.payload, forged.len);
    fm__worker_commit(worker, FM__RECORD_HEAD +
                                  fm__record_padded((uint32_t)forged.len));
    let_others_begin();
}

static void forge(unsigned kind, uint32_t said_len, uint64_t u)
{
    memset(&forged, 0, sizeof forged);
    forged.kind = kind;
    forged.said_len = said_len;
    forged.u = u;
}

static void append(const void *data, size_t len)
{
    memcpy(forged.payload + forged.len, data, len);
    forged.len += len;
    forged.said_len = (uint32_t)forged.len;
    forged.u = forged.len;
}

TEST(a_value_whose_end_counts_other_bytes_than_came_is_none)
{
    forge(FM__RECORD_VALUE, 16, 17);
    forged.len = 16;
    check_lie(forges_it, 1);
}

TEST(a_record_that_is_longer_than_what_was_written_is_none)
{
    forge(FM__RECORD_VALUE, 1000, 1000);
    forged.len = 16;
    check_lie(forges_it, 1);
}

/* The front of a failure: where in the item, and the length of a text. */
static void forge_texts(unsigned kind, uint32_t first_len)
{
    uint64_t detail = 0;

    forge(kind, 0, 0);
    append(&detail, sizeof detail);
    append(&first_len, sizeof first_len);
}

TEST(texts_of_a_failure_that_are_longer_than_it_are_none)
{
    static const uint32_t lens[] = {5, 4096, UINT32_MAX};
    static const unsigned kinds[] = {FM__RECORD_FAIL, FM__RECORD_REFUSE,
                                     FM__RECORD_EXCEED, FM__RECORD_ENDED};

    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; k < 4; k++) {
            forge_texts(kinds[k], lens[i]);
            append("text", 4);
            check_lie(forges_it, 1);
        }
    }
}

TEST(an_end_of_an_items_process_of_no_kind_is_none)
{
    static const int32_t kinds[] = {FM_VALUE, FM_KIND_COUNT, -1, INT32_MAX};

    for (size_t i = 0; i < 4; i++) {
        struct fm__item_end end;
        uint32_t none = 0;

        memset(&end, 0, sizeof end);
        end.kind = kinds[i];
        forge_texts(FM__RECORD_ENDED, 0);
        append(&none, sizeof none);
        append(&end, sizeof end);
        check_lie(forges_it, 1);
    }
}
