/* SPDX-License-Identifier: MIT */
#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "fork_map.h"
#include "os/sys.h"
#include "talk.h"
#include "wire/inbox.h"

#define JOB 77

static int hear(struct fm__inbox *inbox, const struct talk *talk)
{
    fm__inbox_init(inbox, JOB, 0);
    return fm__inbox_feed(inbox, talk->bytes, talk->len);
}

static void value_talk(struct talk *talk)
{
    unsigned char format = 2;

    talk->len = 0;
    say(talk, JOB, FM__FRAME_FORMAT, &format, 1);
    say(talk, JOB, FM__FRAME_DATA, "hello ", 6);
    say(talk, JOB, FM__FRAME_DATA, "world", 5);
    say_end(talk, JOB, 11);
}

TEST(a_whole_conversation_gives_its_value)
{
    struct fm__inbox inbox;
    struct talk talk;

    value_talk(&talk);
    CHECK_INT(hear(&inbox, &talk), 0);
    CHECK_INT(inbox.ending, FM__ENDING_ENDED);
    CHECK_INT(inbox.format, 2);
    CHECK_INT(inbox.len, 11);
    CHECK(memcmp(inbox.data, "hello world", 11) == 0);
    fm__inbox_done(&inbox);
}

TEST(a_conversation_may_be_split_at_any_byte)
{
    struct talk talk;

    value_talk(&talk);
    for (size_t cut = 0; cut <= talk.len; cut++) {
        struct fm__inbox inbox;

        fm__inbox_init(&inbox, JOB, 0);
        CHECK_INT(fm__inbox_feed(&inbox, talk.bytes, cut), 0);
        CHECK(cut == talk.len || inbox.ending == FM__ENDING_OPEN);
        CHECK_INT(fm__inbox_feed(&inbox, talk.bytes + cut, talk.len - cut), 0);
        CHECK_INT(inbox.ending, FM__ENDING_ENDED);
        CHECK_INT(inbox.len, 11);
        fm__inbox_done(&inbox);
    }
}

TEST(a_conversation_cut_at_any_byte_is_never_a_value)
{
    struct talk talk;

    value_talk(&talk);
    for (size_t cut = 0; cut < talk.len; cut++) {
        struct fm__inbox inbox;

        fm__inbox_init(&inbox, JOB, 0);
        CHECK_INT(fm__inbox_feed(&inbox, talk.bytes, cut), 0);
        CHECK_INT(inbox.ending, FM__ENDING_OPEN);
        fm__inbox_done(&inbox);
    }
}

TEST(every_changed_bit_of_a_header_is_refused_or_changes_nothing)
{
    struct talk talk, changed;

    value_talk(&talk);
    for (size_t bit = 0; bit < (size_t)FM__FRAME_HEAD * 8; bit++) {
        struct fm__inbox inbox;

        changed = talk;
        changed.bytes[bit / 8] ^= (unsigned char)(1u << (bit % 8));
        (void)hear(&inbox, &changed);
        CHECK(inbox.ending != FM__ENDING_ENDED);
        fm__inbox_done(&inbox);
    }
}

TEST(a_frame_of_another_job_is_refused)
{
    struct fm__inbox inbox;
    struct talk talk;

    value_talk(&talk);
    fm__inbox_init(&inbox, JOB + 1, 0);
    CHECK_INT(fm__inbox_feed(&inbox, talk.bytes, talk.len), FM_EPROTOCOL);
    CHECK_INT(inbox.ending, FM__ENDING_BROKEN);
    fm__inbox_done(&inbox);
}

TEST(lengths_that_lie_are_refused_before_memory_is_taken)
{
    const uint32_t lies[] = {0, FM__FRAME_DATA_MAX + 1, 1u << 31, UINT32_MAX};

    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct fm__inbox inbox;
        struct talk talk = {.len = 0};

        say(&talk, JOB, FM__FRAME_DATA, "x", 1);
        memcpy(talk.bytes + 4, &lies[i], sizeof lies[i]);
        CHECK_INT(hear(&inbox, &talk), FM_EPROTOCOL);
        CHECK(inbox.size == 0);
        fm__inbox_done(&inbox);
    }
}

TEST(an_end_that_counts_other_bytes_than_came_is_refused)
{
    struct fm__inbox inbox;
    struct talk talk = {.len = 0};

    say(&talk, JOB, FM__FRAME_DATA, "abc", 3);
    say_end(&talk, JOB, 4);
    CHECK_INT(hear(&inbox, &talk), FM_EPROTOCOL);
    fm__inbox_done(&inbox);
}

TEST(nothing_is_read_after_the_end)
{
    struct fm__inbox inbox;
    struct talk talk;

    value_talk(&talk);
    say(&talk, JOB, FM__FRAME_DATA, "more", 4);
    say(&talk, JOB, 99, "junk", 4);
    CHECK_INT(hear(&inbox, &talk), 0);
    CHECK_INT(inbox.len, 11);
    fm__inbox_done(&inbox);
}

TEST(data_over_the_limit_ends_the_conversation)
{
    struct fm__inbox inbox;
    struct talk talk;

    value_talk(&talk);
    fm__inbox_init(&inbox, JOB, 10);
    CHECK_INT(fm__inbox_feed(&inbox, talk.bytes, talk.len), FM_ELIMIT);
    CHECK(inbox.over_limit);
    fm__inbox_done(&inbox);
    fm__inbox_init(&inbox, JOB, 11);
    CHECK_INT(fm__inbox_feed(&inbox, talk.bytes, talk.len), 0);
    CHECK_INT(inbox.ending, FM__ENDING_ENDED);
    fm__inbox_done(&inbox);
}

TEST(a_restart_forgets_the_data_before_it)
{
    struct fm__inbox inbox;
    struct talk talk = {.len = 0};
    unsigned char format = 5;

    say(&talk, JOB, FM__FRAME_DATA, "abc", 3);
    say(&talk, JOB, FM__FRAME_FORMAT, &format, 1);
    say(&talk, JOB, FM__FRAME_DATA, "de", 2);
    say_end(&talk, JOB, 2);
    CHECK_INT(hear(&inbox, &talk), 0);
    CHECK_INT(inbox.format, 5);
    CHECK_INT(inbox.len, 2);
    fm__inbox_done(&inbox);
}

TEST(a_failure_carries_two_texts_and_the_raised_value)
{
    struct fm__inbox inbox;
    struct talk talk = {.len = 0};
    const char pair[] = "\3\0\0\0boostack";

    say(&talk, JOB, FM__FRAME_DATA, "lost", 4);
    say(&talk, JOB, FM__FRAME_FAIL, pair, sizeof pair - 1);
    say(&talk, JOB, FM__FRAME_DATA, "v", 1);
    say_end(&talk, JOB, 1);
    CHECK_INT(hear(&inbox, &talk), 0);
    CHECK_INT(inbox.verdict, FM__VERDICT_FAILED);
    CHECK_STR(inbox.first, "boo");
    CHECK_STR(inbox.second, "stack");
    CHECK_INT(inbox.len, 1);
    fm__inbox_done(&inbox);
}

TEST(a_pair_whose_first_length_is_too_long_is_refused)
{
    struct fm__inbox inbox;
    struct talk talk = {.len = 0};

    say(&talk, JOB, FM__FRAME_FAIL,
        "\xff\xff\xff\xff"
        "abc",
        7);
    CHECK_INT(hear(&inbox, &talk), FM_EPROTOCOL);
    fm__inbox_done(&inbox);
}

/* What a thread changes while it is read, as a child can change its ring. */
static union {
    struct fm__frame_head head;
    _Atomic uint64_t word; /* with type and length */
} changing;

static atomic_bool has_ended;

static void *flip(void *unused)
{
    struct fm__frame_head lie = changing.head;
    uint64_t honest = atomic_load(&changing.word), other;

    lie.type = 0x43;
    lie.len = 0x7F000000;
    memcpy(&other, &lie, sizeof other);
    while (!atomic_load(&has_ended)) {
        for (volatile int i = 0; i < 8; i++)
            atomic_store_explicit(&changing.word, i % 4 == 0 ? other : honest,
                                  memory_order_relaxed);
    }
    return unused;
}

TEST(a_head_that_changes_while_it_is_read_is_judged_as_it_was_taken)
{
    pthread_t thread;
    int n_whole = 0;

    changing.head.magic = FM__FRAME_MAGIC;
    changing.head.type = FM__FRAME_DATA;
    changing.head.len = 100;
    changing.head.job = JOB;
    CHECK_INT(pthread_create(&thread, NULL, flip, NULL), 0);
    /* As long as it takes until a head was honest: the thread may be kept from
     * its processor between two changes. */
    for (int i = 0; i < 4000000 || n_whole == 0; i++) {
        struct fm__inbox inbox;

        fm__inbox_init(&inbox, JOB, 0);
        if (fm__inbox_feed(&inbox, &changing, FM__FRAME_HEAD) == 0) {
            n_whole++;
            CHECK_INT(inbox.head.len, 100);
            CHECK_INT(inbox.head.type, FM__FRAME_DATA);
        }
        fm__inbox_done(&inbox);
    }
    atomic_store(&has_ended, true);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK(n_whole > 0);
}

#ifdef FM_TESTING
static void *no_realloc(void *p, size_t size)
{
    (void)p;
    (void)size;
    errno = ENOMEM;
    return NULL;
}

TEST(lack_of_memory_for_what_came_is_told_from_bytes_that_are_wrong)
{
    struct fm__inbox inbox;
    struct talk talk;

    value_talk(&talk);
    talk.bytes[0] ^= 1;
    CHECK_INT(hear(&inbox, &talk), FM_EPROTOCOL);
    CHECK(!inbox.no_memory);
    fm__inbox_done(&inbox);
    value_talk(&talk);
    fm__sys.realloc = no_realloc;
    CHECK_INT(hear(&inbox, &talk), -ENOMEM);
    fm__sys.realloc = realloc;
    CHECK_INT(inbox.ending, FM__ENDING_BROKEN);
    CHECK(inbox.no_memory);
    fm__inbox_done(&inbox);
}

static int n_allowed;

static void *little_malloc(size_t size)
{
    if (n_allowed-- > 0)
        return malloc(size);
    errno = ENOMEM;
    return NULL;
}

TEST(lack_of_memory_for_a_text_ends_the_conversation)
{
    const int types[] = {FM__FRAME_FAIL, FM__FRAME_START_FAILED};

    fm__sys.malloc = little_malloc;
    for (int i = 0; i < 3; i++) {
        struct talk talk = {.len = 0};
        struct fm__inbox inbox;

        say(&talk, JOB, types[i / 2], "\1\0\0\0ab", 6);
        n_allowed = i % 2;
        CHECK_INT(hear(&inbox, &talk), -ENOMEM);
        CHECK_INT(inbox.ending, FM__ENDING_BROKEN);
        CHECK(inbox.no_memory);
        fm__inbox_done(&inbox);
    }
    fm__sys.malloc = malloc;
}
#endif
