/* SPDX-License-Identifier: MIT */
#include "test.h"

#include <sys/mman.h>

#include "fork_map.h"
#include "wire/ring.h"

#define SIZE 64

static struct fm__ring_shared shared;
static unsigned char bytes[SIZE];

static void bind(struct fm__ring *writer, struct fm__ring *reader)
{
    fm__ring_init(writer, &shared, bytes, SIZE);
    fm__ring_init(reader, &shared, bytes, SIZE);
    fm__ring_clear(writer);
}

static size_t put(struct fm__ring *ring, const char *text, size_t len)
{
    size_t done = 0;

    while (done < len) {
        unsigned char *room;
        size_t n = fm__ring_window(ring, &room);

        if (n == 0)
            break;
        n = n < len - done ? n : len - done;
        memcpy(room, text + done, n);
        fm__ring_commit(ring, n);
        done += n;
    }
    return done;
}

static size_t get(struct fm__ring *ring, char *text, size_t len)
{
    size_t done = 0;

    while (done < len) {
        const unsigned char *data;
        long n = fm__ring_peek(ring, &data);

        if (n <= 0)
            break;
        if ((size_t)n > len - done)
            n = (long)(len - done);
        memcpy(text + done, data, (size_t)n);
        (void)fm__ring_consume(ring, (size_t)n);
        done += (size_t)n;
    }
    return done;
}

TEST(a_ring_gives_back_what_was_written_across_its_end)
{
    struct fm__ring writer, reader;
    char text[40], back[40];

    bind(&writer, &reader);
    for (int round = 0; round < 1000; round++) {
        size_t len = (size_t)(round % 40) + 1;

        for (size_t i = 0; i < len; i++)
            text[i] = (char)(round + (int)i);
        CHECK_INT(put(&writer, text, len), len);
        CHECK_INT(get(&reader, back, sizeof back), len);
        CHECK(memcmp(text, back, len) == 0);
    }
}

TEST(a_full_ring_takes_exactly_its_size_and_no_more)
{
    struct fm__ring writer, reader;
    char text[SIZE + 1] = {0};

    bind(&writer, &reader);
    CHECK_INT(put(&writer, text, SIZE - 1), SIZE - 1);
    CHECK_INT(put(&writer, text, 2), 1);
    CHECK_INT(put(&writer, text, 1), 0);
    CHECK_INT(get(&reader, text, 1), 1);
    CHECK_INT(put(&writer, text, 2), 1);
}

TEST(a_writer_that_lies_about_its_tail_is_found_out)
{
    struct fm__ring writer, reader;
    const unsigned char *data;
    const uint64_t lies[] = {SIZE + 1, UINT64_MAX, (uint64_t)1 << 63};

    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        bind(&writer, &reader);
        atomic_store(&shared.tail, lies[i]);
        CHECK_INT(fm__ring_peek(&reader, &data), FM_EPROTOCOL);
    }
}

TEST(a_starved_writer_is_woken_by_the_first_byte_that_is_read)
{
    struct fm__ring writer, reader;
    const unsigned char *data;
    char text[SIZE] = {0};
    uint32_t value;

    bind(&writer, &reader);
    (void)put(&writer, text, SIZE);
    CHECK(fm__ring_starve(&writer, 1, &value));
    CHECK(fm__ring_peek(&reader, &data) > 0);
    CHECK(fm__ring_consume(&reader, 1));
    CHECK(atomic_load(&shared.room) != value);
    CHECK(!fm__ring_consume(&reader, 1));
    CHECK(!fm__ring_starve(&writer, 1, &value));
}

TEST(the_bell_is_rung_once_per_sleep_of_the_reader)
{
    struct fm__ring writer, reader;

    bind(&writer, &reader);
    CHECK(!fm__ring_must_ring(&writer));
    CHECK(!fm__ring_sleep(&reader));
    (void)put(&writer, "x", 1);
    CHECK(fm__ring_must_ring(&writer));
    CHECK(!fm__ring_must_ring(&writer));
    CHECK(fm__ring_sleep(&reader)); /* there is something: do not sleep */
}

/* Two processes, one cursor each, no sleeping: every byte arrives in order
 * whatever the interleaving. */
TEST(a_ring_between_two_processes_keeps_every_byte_in_order)
{
    enum { TOTAL = 1 << 20 };
    struct fm__ring_shared *front = mmap(NULL, 8192, PROT_READ | PROT_WRITE,
                                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned char *room = (unsigned char *)front + 4096;
    struct fm__ring ring;
    unsigned char expect = 0;
    size_t total = 0;
    pid_t pid;

    CHECK(front != MAP_FAILED);
    fm__ring_init(&ring, front, room, 256);
    pid = fork();
    if (pid == 0) {
        unsigned char next = 0;

        for (size_t i = 0; i < TOTAL;) {
            unsigned char *p;
            size_t n = fm__ring_window(&ring, &p);

            n = n < TOTAL - i ? n : TOTAL - i;
            for (size_t k = 0; k < n; k++)
                p[k] = next++;
            fm__ring_commit(&ring, n);
            i += n;
        }
        _exit(0);
    }
    while (total < TOTAL) {
        const unsigned char *p;
        long n = fm__ring_peek(&ring, &p);

        CHECK(n >= 0);
        for (long k = 0; k < n; k++)
            CHECK_INT(p[k], expect++);
        (void)fm__ring_consume(&ring, (size_t)n);
        total += (size_t)n;
    }
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK(munmap(front, 8192) == 0);
}
