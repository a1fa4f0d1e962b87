/* SPDX-License-Identifier: MIT */
/* Children that say what they like: lies in every field, words and bytes
 * changed while the parent reads, floods, and ends at every byte. */
#include "jobs.h"

#include <stddef.h>
#include <time.h>

#include "engine/bind.h"
#include "os/bell.h"
#include "os/sys.h"
#include "process/channel.h"
#include "process/outbox.h"
#include "talk.h"

/* The child's sink is the beginning of its outbox. */
static struct fm__outbox *outbox_of(fm_child *child)
{
    return (struct fm__outbox *)fm__child_sink(child);
}

/* Into the ring as they are, waiting for room. */
static void put_raw(fm_child *child, const void *bytes, size_t len)
{
    struct fm__outbox *outbox = outbox_of(child);
    const unsigned char *p = bytes;

    while (len > 0) {
        unsigned char *room;
        size_t n = fm__ring_window(&outbox->ring, &room);

        n = n < len ? n : len;
        memcpy(room, p, n);
        fm__ring_commit(&outbox->ring, n);
        /* After the commit: who is woken before finds nothing and sleeps. */
        if (fm__ring_must_ring(&outbox->ring))
            fm__bell_ring(&outbox->bell);
        p += n;
        len -= n;
    }
}

/* A value of two frames, whole. */
static void say_value(struct talk *talk, uint64_t job)
{
    unsigned char format = 2;

    talk->len = 0;
    say(talk, job, FM__FRAME_FORMAT, &format, 1);
    say(talk, job, FM__FRAME_DATA, "hel", 3);
    say(talk, job, FM__FRAME_DATA, "lo", 2);
    say_end(talk, job, 5);
}

/* ------------------------------------------------- one word that is wrong */

struct lie {
    size_t at, size; /* of the head of the second frame */
    uint64_t value;
};

static const size_t second = FM__FRAME_HEAD + 1;

static int tell_lie(fm_child *child, void *ud)
{
    const struct lie *lie = ud;
    struct talk talk;

    say_value(&talk, outbox_of(child)->job);
    memcpy(talk.bytes + second + lie->at, &lie->value, lie->size);
    put_raw(child, talk.bytes, talk.len);
    _exit(0);
}

static enum fm_kind kind_of(fm_engine *engine, const struct fm_job_opts *opts,
                            fm_job_fn fn, void *ud)
{
    fm_future *future = spawn(engine, opts, fn, ud);
    enum fm_kind kind = wait_for(engine, future)->kind;

    fm_future_unref(future);
    return kind;
}

static void still_works(fm_engine *engine)
{
    fm_future *future = spawn(engine, NULL, say_hello, NULL);

    is_hello(wait_for(engine, future));
    fm_future_unref(future);
}

#define HEAD(field) offsetof(struct fm__frame_head, field)

TEST(a_head_with_any_lie_is_a_protocol_error_and_no_more)
{
    static struct lie lies[] = {
        {HEAD(magic), 2, 0},
        {HEAD(magic), 2, 0xFFFF},
        {HEAD(type), 1, 0},
        {HEAD(type), 1, FM__FRAME_END + 1},
        {HEAD(type), 1, 0xFF},
        {HEAD(reserved), 1, 1},
        {HEAD(len), 4, 0},
        {HEAD(len), 4, 1},
        {HEAD(len), 4, 4},
        {HEAD(len), 4, FM__FRAME_DATA_MAX + 1},
        {HEAD(len), 4, 0x7FFFFFFF},
        {HEAD(len), 4, 0xFFFFFFFF},
        {HEAD(job), 8, 0},
        {HEAD(job), 8, UINT64_MAX},
        {HEAD(type), 1, FM__FRAME_START_FAILED},
        {HEAD(type), 1, FM__FRAME_EXITED},
        {HEAD(type), 1, FM__FRAME_END},
        {HEAD(type), 1, FM__FRAME_FAIL},
        {HEAD(type), 1, FM__FRAME_FORMAT},
    };
    fm_engine *engine = new_engine();

    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++)
        CHECK_INT(kind_of(engine, NULL, tell_lie, &lies[i]), FM_PROTOCOL);
    still_works(engine);
    fm_engine_free(engine);
}

static int report_a_failed_start(fm_child *child, void *ud)
{
    struct talk talk = {.len = 0};
    uint64_t job = outbox_of(child)->job;

    if (ud)
        say(&talk, job, FM__FRAME_DATA, "x", 1);
    say(&talk, job, FM__FRAME_START_FAILED, "\0\0\0\0here", 8);
    put_raw(child, talk.bytes, talk.len);
    _exit(0);
}

TEST(a_failed_start_is_not_believed_after_anything_else)
{
    fm_engine *engine = new_engine();
    int behind = 1;

    CHECK_INT(kind_of(engine, NULL, report_a_failed_start, &behind),
              FM_PROTOCOL);
    fm_engine_free(engine);
}

/* ------------------------------------------------------ cut at every byte */

enum end { LEAVE, LEAVE_WITH_3, DIE };

struct cut {
    size_t at;
    enum end how;
};

static int say_a_part(fm_child *child, void *ud)
{
    const struct cut *cut = ud;
    struct talk talk;

    say_value(&talk, outbox_of(child)->job);
    put_raw(child, talk.bytes, cut->at);
    if (cut->how == DIE)
        (void)raise(SIGKILL);
    _exit(cut->how == LEAVE ? 0 : 3);
}

TEST(a_result_cut_at_any_byte_is_the_error_of_how_its_process_ended)
{
    static const enum fm_kind kinds[] = {
        [LEAVE] = FM_PROTOCOL, [LEAVE_WITH_3] = FM_EXIT, [DIE] = FM_SIGNAL};
    fm_engine *engine = new_engine();
    struct cut cut;
    struct talk talk;

    say_value(&talk, 1);
    for (int how = LEAVE; how <= DIE; how++) {
        for (cut.at = 1; cut.at < talk.len; cut.at++) {
            /* A head that only says how the data is written is no part of
             * it. */
            bool is_empty = how == LEAVE && cut.at == second;

            cut.how = (enum end)how;
            CHECK_INT(kind_of(engine, NULL, say_a_part, &cut),
                      is_empty ? FM_NO_RESULT : kinds[how]);
        }
        CHECK_INT(kind_of(engine, NULL, say_a_part, &cut), FM_VALUE);
    }
    fm_engine_free(engine);
}

/* ------------------------------------------------------- after the end */

static int say_more(fm_child *child, void *ud)
{
    struct talk talk;

    (void)ud;
    say_value(&talk, outbox_of(child)->job);
    say_end(&talk, outbox_of(child)->job, 5);
    say(&talk, outbox_of(child)->job, FM__FRAME_FAIL, "\0\0\0\0no", 6);
    put_raw(child, talk.bytes, talk.len);
    put_raw(child, "junk", 4);
    _exit(7);
}

static int stay(fm_child *child, void *ud)
{
    struct talk talk;

    say_value(&talk, outbox_of(child)->job);
    put_raw(child, talk.bytes, talk.len);
    fm__bell_ring(&outbox_of(child)->bell);
    (void)signal(SIGTERM, SIG_IGN);
    return hang(child, ud);
}

static int fill_up(fm_child *child, void *ud)
{
    static unsigned char junk[65536];
    struct talk talk;

    (void)ud;
    say_value(&talk, outbox_of(child)->job);
    put_raw(child, talk.bytes, talk.len);
    for (;;)
        put_raw(child, junk, sizeof junk);
    return 0;
}

static int stop_here(fm_child *child, void *ud)
{
    struct talk talk;

    (void)ud;
    say_value(&talk, outbox_of(child)->job);
    put_raw(child, talk.bytes, talk.len);
    fm__bell_ring(&outbox_of(child)->bell);
    return raise(SIGSTOP);
}

/* Ends without a timeout or a grace that could end it. */
static void is_whole(fm_engine *engine, const struct fm_job_opts *opts,
                     fm_job_fn fn)
{
    fm_future *future = spawn(engine, opts, fn, NULL);
    const struct fm_outcome *outcome = wait_for(engine, future);

    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, 5);
    CHECK(memcmp(outcome->data, "hello", 5) == 0);
    fm_future_unref(future);
}

TEST(a_whole_result_counts_whatever_is_said_or_done_after_it)
{
    struct fm_job_opts timed = {.timeout_ns = 50 * MS,
                                .grace_ns = 3600000 * MS};
    fm_job_fn jobs[] = {say_more, stay, fill_up, stop_here};
    fm_engine *engine = new_engine();

    for (size_t i = 0; i < sizeof jobs / sizeof jobs[0]; i++) {
        is_whole(engine, NULL, jobs[i]);
        is_whole(engine, &timed, jobs[i]);
    }
    still_works(engine);
    fm_engine_free(engine);
}

static int say_all_when_asked(fm_child *child, void *ud)
{
    sigset_t term;
    int sig;

    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &term, NULL);
    fm_child_note(child, "ready");
    (void)sigwait(&term, &sig);
    return stay(child, ud);
}

TEST(a_child_that_says_all_when_it_is_cancelled_and_stays_ends_before_its_grace)
{
    struct fm_job_opts opts = {.grace_ns = 3600000 * MS};
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, &opts, say_all_when_asked, NULL);

    wait_running(engine, future);
    (void)fm_engine_step(engine, 50 * MS); /* it is waiting by now */
    CHECK_INT(fm_future_cancel(future, -1), 1);
    (void)wait_for(engine, future);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(an_engine_closes_without_waiting_for_who_stays_after_its_result)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, stay, NULL);

    while (fm_future_get_state(future) != FM_DRAINING)
        CHECK(fm_engine_step(engine, 10 * MS) >= 0);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    CHECK_INT(fm_future_get_outcome(future)->kind, FM_VALUE);
    fm_future_unref(future);
    fm_engine_free(engine);
}

/* As where the C library does not tell exit handlers the code. */
static int say_that_it_exits(fm_child *child, void *ud)
{
    const int32_t code = FM__CODE_UNKNOWN;
    struct talk talk = {.len = 0};

    (void)ud;
    say(&talk, outbox_of(child)->job, FM__FRAME_EXITED, &code, sizeof code);
    put_raw(child, talk.bytes, talk.len);
    _exit(0);
}

static void is_exit_without_code(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_NO_RESULT);
    CHECK_INT(outcome->exit_code, -1);
    CHECK(strstr(outcome->message, "does not tell") != NULL);
}

TEST(an_exit_whose_code_is_not_told_is_no_result)
{
    run_job(NULL, say_that_it_exits, NULL, is_exit_without_code);
}

#ifdef __linux__
static int tell_nothing(int pidfd, void *info)
{
    (void)pidfd;
    (void)info;
    errno = ENOTTY;
    return -1;
}
#endif

static int say_junk(fm_child *child, void *ud)
{
    put_raw(child, "all this is nothing but junk", FM__FRAME_HEAD);
    return hang(child, ud);
}

static void is_junk(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_PROTOCOL);
    CHECK_INT(outcome->signal, 0);
    CHECK_INT(outcome->exit_code, -1);
}

TEST(bytes_that_are_wrong_are_told_without_a_status_too)
{
    struct sigaction action = {.sa_handler = SIG_IGN};

    CHECK_INT(sigaction(SIGCHLD, &action, NULL), 0);
#ifdef __linux__
    fm__sys.pidfd_get_info = tell_nothing;
#endif
    run_job(NULL, say_junk, NULL, is_junk);
}

/* --------------------------------------------------------------- floods */

/* The sanitizer keeps what was freed. */
#ifdef __SANITIZE_ADDRESS__
#define KEPT_KIB (512L << 10)
#else
#define KEPT_KIB 0L
#endif

static long peak_rss(void)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    long kib = -1;

    while (file && kib < 0 && fgets(line, sizeof line, file)) {
        if (strncmp(line, "VmHWM:", 6) == 0)
            kib = strtol(line + 6, NULL, 10);
    }
    if (file)
        (void)fclose(file);
    return kib;
}

/* Without end: data, and that it is void. */
static int restart_for_ever(fm_child *child, void *ud)
{
    static unsigned char data[60000];
    uint64_t job = outbox_of(child)->job;
    struct fm__frame_head head;
    struct talk talk = {.len = 0};
    unsigned char format = 1;

    (void)ud;
    say(&talk, job, FM__FRAME_FORMAT, &format, 1);
    say(&talk, job, FM__FRAME_DATA, "x", 1);
    memcpy(&head, talk.bytes + second, sizeof head);
    head.len = sizeof data;
    for (;;) {
        put_raw(child, talk.bytes, second);
        put_raw(child, &head, sizeof head);
        put_raw(child, data, sizeof data);
    }
    return 0;
}

/* Without end: failures with the longest texts. */
static int fail_for_ever(fm_child *child, void *ud)
{
    static unsigned char texts[FM__FRAME_CONTROL_MAX];
    struct fm__frame_head head;
    struct talk talk = {.len = 0};

    (void)ud;
    say(&talk, outbox_of(child)->job, FM__FRAME_FAIL, "\0\0\0\0", 4);
    memcpy(&head, talk.bytes, sizeof head);
    head.len = sizeof texts;
    for (;;) {
        put_raw(child, &head, sizeof head);
        put_raw(child, texts, sizeof texts);
    }
    return 0;
}

TEST(a_child_that_never_stops_talking_takes_little_memory_and_ends_in_time)
{
    struct fm_job_opts opts = {
        .timeout_ns = 300 * MS, .grace_ns = -1, .limits = {.result = 65536}};
    fm_job_fn jobs[] = {restart_for_ever, fail_for_ever};
    fm_engine *engine = new_engine();
    long before;

    still_works(engine);
    before = peak_rss();
    for (size_t i = 0; i < sizeof jobs / sizeof jobs[0]; i++)
        CHECK_INT(kind_of(engine, &opts, jobs[i], NULL), FM_TIMEOUT);
    /* The ring (1 MiB), the texts and twice the result. */
    CHECK(peak_rss() - before < 8192 + KEPT_KIB);
    still_works(engine);
    fm_engine_free(engine);
}

/* -------------------------------------------- while the parent reads */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Change one word of what is shared: of the ring's and of the recorder's. */
static void change_word(fm_child *child, uint64_t random)
{
    struct fm__ring *ring = &outbox_of(child)->ring;
    uint64_t value = random >> (random & 63);

    switch (random >> 8 & 7) {
    case 0:
        atomic_store(&ring->shared->tail, value);
        break;
    case 1:
        atomic_fetch_add(&ring->shared->tail, random >> 56);
        break;
    case 2:
        atomic_store(&ring->shared->head, value);
        break;
    case 3:
        atomic_store(&ring->shared->asleep, (uint32_t)value);
        break;
    case 4:
        atomic_store(&ring->shared->starved, (uint32_t)value);
        break;
    case 5:
        atomic_store(&ring->shared->room, (uint32_t)value);
        break;
    default: /* the recorder's words lie behind the ring's */
        ((unsigned char *)ring->shared)[random >> 16 & 511] ^=
            (unsigned char)(1u << (random & 7));
        break;
    }
}

/* Honest frames, and everything about them changed behind the parent's back;
 * how often, and what, depends on the seed. */
static int scribble(fm_child *child, void *ud)
{
    struct fm__outbox *outbox = outbox_of(child);
    uint64_t state = *(uint64_t *)ud * UINT64_C(0x9E3779B97F4A7C15) + 1;
    unsigned rarity = (unsigned)(*(uint64_t *)ud % 4) * 5;
    struct talk talk;

    say_value(&talk, outbox->job);
    for (int i = 0; i < 20000; i++) {
        uint64_t random = next_random(&state);
        unsigned char *room = outbox->ring.data;

        if ((random & ((UINT64_C(1) << rarity) - 1)) == 0)
            change_word(child, next_random(&state));
        memcpy(room + (random >> 20 & 2047), talk.bytes, second + 19);
        outbox->ring.at += random >> 40 & 63;
        atomic_store(&outbox->ring.shared->tail, outbox->ring.at);
        if (i % 64 == 0)
            fm__bell_ring(&outbox->bell);
    }
    _exit(0);
}

TEST(whatever_a_child_changes_while_the_parent_reads_costs_that_child_only)
{
    struct fm_job_opts opts = {.timeout_ns = 5000 * MS,
                               .limits = {.result = 1 << 20}};
    struct fm_job_opts fair = {.timeout_ns = 20000 * MS};
    fm_engine *engine = new_engine();
    fm_future *honest;
    int pieces = 40;
    long before;

    still_works(engine);
    before = peak_rss();
    honest = spawn(engine, &fair, say_much, &pieces);
    for (uint64_t seed = 0; seed < 60; seed++) {
        enum fm_kind kind = kind_of(engine, &opts, scribble, &seed);

        CHECK(kind == FM_PROTOCOL || kind == FM_NO_RESULT);
    }
    CHECK_INT(wait_for(engine, honest)->len, 40 * 100001);
    CHECK(peak_rss() - before < 32768 + KEPT_KIB);
    fm_future_unref(honest);
    still_works(engine);
    fm_engine_free(engine);
}
