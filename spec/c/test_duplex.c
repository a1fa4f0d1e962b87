/* SPDX-License-Identifier: MIT */
/* Jobs that are given calls while they run: every call ends once, is taken
 * back, or is known to have been begun when its worker dies. */
#include "duplex.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/engine.h"
#include "engine/line.h"
#include "os/sys.h"

static unsigned char *bytes; /* what calls are made of */

#define LONGEST ((size_t)3 << 20)

static void make_bytes(void)
{
    bytes = malloc(LONGEST + 256);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < LONGEST + 256; i++)
        bytes[i] = (unsigned char)(i * 7 + i / 251);
}

/* ------------------------------------------------------------ calls go through
 */

/* Call n has so many bytes, from its own place on. */
static size_t len_of(unsigned n)
{
    static const size_t lens[] = {0, 1, 15, 16, 17, 300, 5000, 70000};

    return n % 1000 == 999 ? LONGEST : lens[n % 8];
}

#define N_CALLS 4000
#define AHEAD 40

TEST(calls_of_every_length_come_back_as_they_were_given)
{
    fm_engine *engine = new_engine();
    fm_future *worker = hire(engine, NULL, serve_echo, NULL);
    uint64_t numbers[N_CALLS];
    unsigned n_given = 0;

    make_bytes();
    wait_ready(engine, worker);
    for (unsigned n = 0; n < N_CALLS; n++) {
        struct fm__message message;

        while (n_given < N_CALLS && n_given < n + AHEAD) {
            CHECK(give_bytes(worker, bytes + n_given % 256, len_of(n_given),
                             &numbers[n_given]) >= 0);
            n_given++;
        }
        CHECK(hear(engine, worker, &message));
        CHECK_INT(message.what, FM__TELL_VALUE);
        CHECK(message.call == numbers[n]);
        CHECK_INT(message.len, len_of(n));
        CHECK(message.len == 0 ||
              memcmp(message.data, bytes + n % 256, message.len) == 0);
        CHECK(message.begun_at > 0);
        CHECK(fm__duplex_is_sent(worker, message.call));
    }
    dismiss(engine, worker);
    fm_engine_free(engine);
    free(bytes);
}

TEST(a_worker_takes_no_more_calls_than_there_are_slots)
{
    fm_engine *engine = new_engine();
    fm_future *worker = hire(engine, NULL, serve_echo, NULL);
    struct fm__message message;
    uint64_t call;

    wait_ready(engine, worker);
    for (int i = 0; i < FM__DESK_SLOTS; i++)
        CHECK(give_bytes(worker, "x", 1, &call) >= 0);
    CHECK_INT(give_bytes(worker, "x", 1, &call), -EAGAIN);
    for (int i = 0; i < FM__DESK_SLOTS; i++)
        CHECK(hear(engine, worker, &message));
    CHECK_INT(give_bytes(worker, "x", 1, &call), 1);
    CHECK(hear(engine, worker, &message));
    dismiss(engine, worker);
    fm_engine_free(engine);
}

/* One that sleeps in a poller hears of a call too. */
static int serve_by_poller(fm_child *child, void *ud)
{
    struct fm__serving *serving = fm__child_get_serving(child);
    int fds[2];
    int rc = tell(serving, 0, FM__TELL_READY);

    (void)ud;
    CHECK_INT(pipe(fds), 0);
    while (rc >= 0 && !fm__serving_must_leave(serving)) {
        rc = fm__serving_take(serving);
        if (rc == 0)
            rc = fm__serving_sleep_with(serving, fds, 1, 10 * S);
        else if (rc > 0)
            rc = echo(serving);
    }
    return rc;
}

TEST(a_worker_that_sleeps_in_a_poller_is_woken)
{
    fm_engine *engine = new_engine();
    fm_future *worker = hire(engine, NULL, serve_by_poller, NULL);
    struct fm__message message;

    wait_ready(engine, worker);
    for (int i = 0; i < 200; i++) {
        uint64_t call = give(worker, "ping");

        CHECK(hear(engine, worker, &message));
        CHECK(message.call == call);
    }
    dismiss(engine, worker);
    fm_engine_free(engine);
}

/* --------------------------------------------------------- taking calls back
 */

static int gate[2]; /* a byte lets one call end */

static int answer_at_gate(struct fm__serving *serving)
{
    char byte;

    CHECK_INT(tell(serving, serving->call, FM__TELL_EVENT), 0);
    CHECK_INT(read(gate[0], &byte, 1), 1);
    return echo(serving);
}

static int serve_at_gate(fm_child *child, void *ud)
{
    (void)ud;
    return serve(fm__child_get_serving(child), answer_at_gate);
}

static fm_future *hire_at_gate(fm_engine *engine)
{
    fm_future *worker;

    CHECK_INT(pipe(gate), 0);
    worker = hire(engine, NULL, serve_at_gate, NULL);
    wait_ready(engine, worker);
    return worker;
}

static void close_gate(void)
{
    (void)close(gate[0]);
    (void)close(gate[1]);
}

static void hear_of(fm_engine *engine, fm_future *worker, uint64_t call,
                    enum fm__tell_what what)
{
    struct fm__message message;

    CHECK(hear(engine, worker, &message));
    CHECK_INT(message.what, what);
    CHECK(message.call == call);
}

TEST(a_call_that_was_not_begun_is_taken_back_and_never_begins)
{
    fm_engine *engine = new_engine();
    fm_future *worker = hire_at_gate(engine);
    uint64_t first, second, third;

    first = give(worker, "first");
    second = give(worker, "second");
    third = give(worker, "third");
    hear_of(engine, worker, first, FM__TELL_EVENT);
    CHECK(!fm__duplex_take_back(worker, first));
    CHECK(fm__duplex_begun_at(worker, first) > 0);
    CHECK(fm__duplex_take_back(worker, second));
    CHECK(!fm__duplex_take_back(worker, second));
    CHECK(fm__duplex_begun_at(worker, third) == 0);
    CHECK_INT(write(gate[1], "xx", 2), 2);
    hear_of(engine, worker, first, FM__TELL_VALUE);
    hear_of(engine, worker, third, FM__TELL_EVENT);
    hear_of(engine, worker, third, FM__TELL_VALUE);
    dismiss(engine, worker);
    close_gate();
    fm_engine_free(engine);
}

TEST(a_call_is_taken_back_in_the_middle_of_its_bytes)
{
    fm_engine *engine = new_engine();
    fm_future *worker;
    struct fm__message message;
    uint64_t first, second, third;

    make_bytes();
    worker = hire_at_gate(engine);
    first = give(worker, "first");
    hear_of(engine, worker, first, FM__TELL_EVENT);
    CHECK_INT(give_bytes(worker, bytes, LONGEST, &second), 0);
    CHECK_INT(give_bytes(worker, "third", 5, &third), 0);
    CHECK(!fm__duplex_is_sent(worker, second));
    CHECK(fm__duplex_take_back(worker, second));
    CHECK(fm__duplex_is_sent(worker, second));
    free(bytes); /* nobody reads them any more */
    CHECK_INT(write(gate[1], "xx", 2), 2);
    hear_of(engine, worker, first, FM__TELL_VALUE);
    hear_of(engine, worker, third, FM__TELL_EVENT);
    CHECK(hear(engine, worker, &message));
    CHECK(message.call == third && message.len == 5);
    CHECK(memcmp(message.data, "third", 5) == 0);
    dismiss(engine, worker);
    close_gate();
    fm_engine_free(engine);
}

TEST(calls_that_were_begun_are_known_when_the_worker_is_killed)
{
    fm_engine *engine = new_engine();
    fm_future *worker = hire_at_gate(engine);
    uint64_t first, second, third;

    first = give(worker, "first");
    second = give(worker, "second");
    third = give(worker, "third");
    hear_of(engine, worker, first, FM__TELL_EVENT);
    CHECK_INT(write(gate[1], "x", 1), 1);
    hear_of(engine, worker, first, FM__TELL_VALUE);
    hear_of(engine, worker, second, FM__TELL_EVENT);
    CHECK_INT(kill(fm_future_get_pid(worker), SIGKILL), 0);
    CHECK_INT(wait_for(engine, worker)->kind, FM_SIGNAL);
    CHECK(fm__duplex_begun_at(worker, first) == 0);
    CHECK(fm__duplex_begun_at(worker, second) > 0);
    CHECK(fm__duplex_begun_at(worker, third) == 0);
    CHECK(!fm__duplex_take_back(worker, second));
    CHECK(fm__duplex_take_back(worker, third));
    CHECK_INT(give_bytes(worker, "", 0, &third), FM_ECLOSED);
    fm_future_unref(worker);
    close_gate();
    fm_engine_free(engine);
}

/* It answers all it can, and is killed at any moment: what was committed
 * counts, and no call is lost. */
TEST(every_call_is_ended_or_open_after_a_kill_at_any_moment)
{
    fm_engine *engine = new_engine();

    for (int round = 0; round < 60; round++) {
        fm_future *worker = hire(engine, NULL, serve_echo, NULL);
        struct fm__message message;
        uint64_t calls[FM__DESK_SLOTS];
        int n_ended = 0, n_open = 0;

        wait_ready(engine, worker);
        for (int i = 0; i < FM__DESK_SLOTS; i++)
            CHECK(give_bytes(worker, "x", 1, &calls[i]) >= 0);
        for (volatile int i = 0; i < round * 2000; i++)
            ;
        CHECK_INT(kill(fm_future_get_pid(worker), SIGKILL), 0);
        (void)wait_for(engine, worker);
        while (hear(engine, worker, &message)) {
            CHECK(message.call == calls[n_ended]);
            n_ended++;
        }
        for (int i = n_ended; i < FM__DESK_SLOTS; i++) {
            bool is_begun = fm__duplex_begun_at(worker, calls[i]) > 0;

            /* One at a time, in order. */
            CHECK(!is_begun || i == n_ended);
            CHECK(fm__duplex_take_back(worker, calls[i]) == !is_begun);
            n_open++;
        }
        CHECK_INT(n_ended + n_open, FM__DESK_SLOTS);
        fm_future_unref(worker);
    }
    fm_engine_free(engine);
}

/* ------------------------------------------------------- what waits is bounded
 */

static int chatter(fm_child *child, void *ud)
{
    struct fm__serving *serving = fm__child_get_serving(child);
    static const char text[1000];
    int rc = 0;

    (void)ud;
    while (rc == 0)
        rc = tell_data(serving, 0, FM__TELL_EVENT, text, sizeof text);
    return rc;
}

TEST(messages_that_nobody_hears_stay_within_their_bound)
{
    fm_engine *engine = new_engine();
    fm_future *worker = hire(engine, NULL, chatter, NULL);
    struct fm__message message;
    size_t most = FM__MESSAGES_MOST + 9 * FM__RING_SIZE;

    for (int i = 0; i < 50; i++) {
        CHECK(fm_engine_step(engine, MS) >= 0);
        CHECK(fm__messages_size(&worker->duplex->messages) <= most);
    }
    for (int i = 0; i < 20000; i++)
        CHECK(hear(engine, worker, &message));
    CHECK_INT(fm_future_cancel(worker, 0), 1);
    CHECK_INT(wait_for(engine, worker)->kind, FM_CANCELLED);
    fm_future_unref(worker);
    fm_engine_free(engine);
}

static void count_news(fm_future *future, void *ud)
{
    (void)future;
    ++*(int *)ud;
}

TEST(news_are_told_once_until_all_was_heard)
{
    fm_engine *engine = new_engine();
    fm_future *worker = hire(engine, NULL, serve_echo, NULL);
    struct fm__message message;
    int n_news = 0;

    fm__duplex_on_news(worker, count_news, &n_news);
    wait_ready(engine, worker);
    CHECK_INT(fm__duplex_hear(worker, &message), 0);
    CHECK_INT(n_news, 1);
    for (int i = 0; i < 10; i++)
        (void)give(worker, "x");
    for (int i = 0; i < 10; i++)
        CHECK(hear(engine, worker, &message));
    CHECK(n_news >= 2 && n_news <= 11);
    dismiss(engine, worker);
    fm_engine_free(engine);
}

/* ------------------------------------------------------------------ the rest
 */

TEST(a_worker_cannot_be_tried_again)
{
    struct fm_job_opts opts = {.retries = 1};
    fm_engine *engine = new_engine();
    fm_future *worker = NULL;

    CHECK_INT(fm__spawn_duplex(engine, &opts, serve_echo, NULL, &worker),
              -EINVAL);
    fm_engine_free(engine);
}

TEST(a_worker_ends_with_its_engine)
{
    fm_engine *engine = new_engine();
    fm_future *worker = hire(engine, NULL, serve_echo, NULL);
    uint64_t call;

    wait_ready(engine, worker);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    CHECK_INT(fm_future_get_outcome(worker)->kind, FM_CLOSED);
    CHECK_INT(give_bytes(worker, "", 0, &call), FM_ECLOSED);
    fm_future_unref(worker);
    fm_engine_free(engine);
}

static int sleep_in_call(struct fm__serving *serving)
{
    CHECK_INT(tell(serving, serving->call, FM__TELL_EVENT), 0);
    (void)pause();
    return 0;
}

static int serve_sleeping(fm_child *child, void *ud)
{
    (void)ud;
    return serve(fm__child_get_serving(child), sleep_in_call);
}

TEST(a_worker_is_stopped_for_the_reason_that_is_given)
{
    static const enum fm_kind kinds[] = {FM_TIMEOUT, FM_CANCELLED, FM_PROTOCOL};
    fm_engine *engine = new_engine();

    for (int i = 0; i < 3; i++) {
        fm_future *worker = hire(engine, NULL, serve_sleeping, NULL);
        uint64_t call;

        wait_ready(engine, worker);
        call = give(worker, "x");
        hear_of(engine, worker, call, FM__TELL_EVENT);
        CHECK_INT(fm__duplex_stop(worker, kinds[i], -1), 1);
        CHECK_INT(wait_for(engine, worker)->kind, kinds[i]);
        CHECK(fm__duplex_begun_at(worker, call) > 0);
        fm_future_unref(worker);
    }
    fm_engine_free(engine);
}
