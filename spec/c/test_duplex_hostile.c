/* SPDX-License-Identifier: MIT */
/* Workers that say what is not so: it costs them their own calls, and the host
 * nothing. */
#include "duplex.h"

#include "os/memory.h"
#include "os/sys.h"
#include "wire/record.h"

/* The worker takes one call, which it knows then, and says the lie. */
struct lie {
    const char *name;
    void (*say)(struct fm__serving *serving);
};

static void idle(void)
{
    for (;;)
        (void)pause();
}

static int liar(fm_child *child, void *ud)
{
    struct fm__serving *serving = fm__child_get_serving(child);
    const struct lie *lie = ud;

    CHECK_INT(tell(serving, 0, FM__TELL_READY), 0);
    while (fm__serving_take(serving) == 0)
        (void)fm__serving_sleep(serving, S);
    lie->say(serving);
    (void)fm__outbox_wake_parent(serving->outbox);
    idle();
    return 0;
}

static void say_of_a_stranger(struct fm__serving *serving)
{
    (void)tell(serving, serving->call + 1, FM__TELL_VALUE);
}

static void say_of_another_round(struct fm__serving *serving)
{
    (void)tell(serving, serving->call + FM__DESK_SLOTS, FM__TELL_VALUE);
}

static void say_an_event_of_a_stranger(struct fm__serving *serving)
{
    (void)tell(serving, serving->call + 1, FM__TELL_EVENT);
}

static void say_a_value_of_none(struct fm__serving *serving)
{
    (void)tell(serving, 0, FM__TELL_VALUE);
}

static void say_ready_of_a_call(struct fm__serving *serving)
{
    (void)tell(serving, serving->call, FM__TELL_READY);
}

static void say_twice(struct fm__serving *serving)
{
    (void)tell(serving, serving->call, FM__TELL_VALUE);
    (void)tell(serving, serving->call, FM__TELL_VALUE);
}

static void say_the_unknown(struct fm__serving *serving)
{
    (void)tell(serving, serving->call, FM__TELL_COUNT);
}

static void put_raw(struct fm__serving *serving, struct fm__tell head,
                    size_t len)
{
    unsigned char payload[64] = {0};

    memcpy(payload, &head, sizeof head);
    (void)fm__outbox_put(serving->outbox, FM__FRAME_TELL, payload, len);
}

static void lie_about_a_text(struct fm__serving *serving)
{
    put_raw(serving,
            (struct fm__tell){
                .call = serving->call, .what = FM__TELL_FAIL, .first_len = 33},
            48);
}

static void fill_what_is_zero(struct fm__serving *serving)
{
    put_raw(serving,
            (struct fm__tell){
                .call = serving->call, .what = FM__TELL_VALUE, .zero = {0, 1}},
            16);
}

static void cut_the_head(struct fm__serving *serving)
{
    put_raw(serving,
            (struct fm__tell){.call = serving->call, .what = FM__TELL_VALUE},
            15);
}

static void tear_the_ring(struct fm__serving *serving)
{
    atomic_store(&serving->outbox->ring.shared->tail, UINT64_MAX / 2);
}

static void lie_about_what_was_read(struct fm__serving *serving)
{
    atomic_store(&serving->desk->ring.head, UINT64_MAX / 2);
    (void)tell(serving, 0, FM__TELL_EVENT);
}

static const struct lie lies[] = {
    {"stranger", say_of_a_stranger},
    {"round", say_of_another_round},
    {"event", say_an_event_of_a_stranger},
    {"none", say_a_value_of_none},
    {"ready", say_ready_of_a_call},
    {"twice", say_twice},
    {"unknown", say_the_unknown},
    {"text", lie_about_a_text},
    {"zero", fill_what_is_zero},
    {"head", cut_the_head},
    {"tail", tear_the_ring},
    {"read", lie_about_what_was_read},
};

TEST(what_is_not_so_ends_the_worker)
{
    fm_engine *engine = new_engine();

    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        fm_future *worker =
            hire(engine, NULL, liar, (void *)(uintptr_t)&lies[i]);
        struct fm__message message;
        uint64_t call;

        wait_ready(engine, worker);
        call = give(worker, "one");
        while (hear(engine, worker, &message)) {
            CHECK(message.call == call || message.call == 0);
            if (message.what == FM__TELL_EVENT)
                (void)give_bytes(worker, "two", 3, &call);
        }
        CHECK_STR(fm_kind_name(fm_future_get_outcome(worker)->kind),
                  "protocol");
        fm_future_unref(worker);
    }
    fm_engine_free(engine);
}

/* ----------------------------------------------------------------- the desk */

/* It writes over all of the desk that it can, and answers what it can. */
static int scribble(fm_child *child, void *ud)
{
    struct fm__serving *serving = fm__child_get_serving(child);
    unsigned seed = *(unsigned *)ud;

    CHECK_INT(tell(serving, 0, FM__TELL_READY), 0);
    while (fm__serving_take(serving) == 0)
        (void)fm__serving_sleep(serving, S);
    for (int i = 0; i < 2000; i++) {
        unsigned char *at = (unsigned char *)serving->desk;

        seed = seed * 1103515245 + 12345;
        at[seed / 7 % FM__DESK_SIZE] = (unsigned char)(seed >> 16);
        at[seed / 11 % sizeof *serving->desk] = (unsigned char)(seed >> 8);
    }
    (void)tell(serving, serving->call, FM__TELL_VALUE);
    idle();
    return 0;
}

TEST(a_desk_that_is_written_over_costs_its_own_calls_only)
{
    fm_engine *engine = new_engine();

    for (unsigned round = 0; round < 50; round++) {
        unsigned seed = round;
        fm_future *worker = hire(engine, NULL, scribble, &seed);
        struct fm__message message;
        uint64_t calls[FM__DESK_SLOTS];
        int n = 0, n_ended = 0;

        wait_ready(engine, worker);
        while (n < 50 && give_bytes(worker, "x", 1, &calls[n]) >= 0)
            n++;
        while (n_ended == 0 && hear(engine, worker, &message))
            n_ended += message.what == FM__TELL_VALUE;
        (void)give_bytes(worker, "x", 1, &calls[n]);
        (void)fm_future_cancel(worker, 0);
        (void)wait_for(engine, worker);
        for (int i = 0; i < n; i++) {
            int64_t at = fm__duplex_begun_at(worker, calls[i]);
            bool is_back = fm__duplex_take_back(worker, calls[i]);

            CHECK(!(is_back && at > 0));
        }
        fm_future_unref(worker);
    }
    fm_engine_free(engine);
}

/* --------------------------------------------------------------- other jobs */

static int tells_where_nobody_asks(fm_child *child, void *ud)
{
    struct fm__tell head = {.call = 1, .what = FM__TELL_VALUE};

    (void)ud;
    CHECK(fm__child_get_serving(child) == NULL);
    return fm__outbox_put(fm__child_get_outbox(child), FM__FRAME_TELL, &head,
                          sizeof head);
}

static void check_protocol(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_PROTOCOL);
}

TEST(an_ordinary_job_that_tells_of_calls_is_not_believed)
{
    run_job(NULL, tells_where_nobody_asks, NULL, check_protocol);
}

static int answer_too_long(struct fm__serving *serving)
{
    static const char text[5000];
    struct fm__tell head = {.call = serving->call, .what = FM__TELL_EXCEED};
    int rc =
        tell_data(serving, serving->call, FM__TELL_VALUE, text, sizeof text);

    CHECK_INT(rc, FM_ELIMIT);
    CHECK_INT(fm_child_set_format(fm_child_current(), 0), 0); /* forget it */
    return fm__serving_tell(serving, &head, "result", "too long");
}

static int serve_too_long(fm_child *child, void *ud)
{
    (void)ud;
    return serve(fm__child_get_serving(child), answer_too_long);
}

TEST(a_value_beyond_the_limit_fails_its_call_and_no_other)
{
    struct fm_job_opts opts = {.limits = {.result = 1000}};
    fm_engine *engine = new_engine();
    fm_future *worker = hire(engine, &opts, serve_too_long, NULL);
    struct fm__message message;

    wait_ready(engine, worker);
    for (int i = 0; i < 3; i++) {
        uint64_t call = give(worker, "x");

        CHECK(hear(engine, worker, &message));
        CHECK(message.call == call && message.what == FM__TELL_EXCEED);
        CHECK_STR(message.first, "result");
        CHECK_STR(message.second, "too long");
    }
    dismiss(engine, worker);
    fm_engine_free(engine);
}

static int exceed_by_force(struct fm__serving *serving)
{
    static const char text[5000];

    serving->outbox->limit = 0;
    return tell_data(serving, serving->call, FM__TELL_VALUE, text, sizeof text);
}

static int serve_by_force(fm_child *child, void *ud)
{
    (void)ud;
    return serve(fm__child_get_serving(child), exceed_by_force);
}

TEST(a_worker_that_ignores_the_limit_is_ended)
{
    struct fm_job_opts opts = {.limits = {.result = 1000}};
    fm_engine *engine = new_engine();
    fm_future *worker = hire(engine, &opts, serve_by_force, NULL);
    struct fm__message message;

    wait_ready(engine, worker);
    (void)give(worker, "x");
    CHECK(!hear(engine, worker, &message));
    CHECK_INT(fm_future_get_outcome(worker)->kind, FM_LIMIT);
    fm_future_unref(worker);
    fm_engine_free(engine);
}
