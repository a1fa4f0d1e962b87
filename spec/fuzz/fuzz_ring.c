/* SPDX-License-Identifier: MIT */
/*
 * A script of writes, reads and lies on one ring.  An honest writer's bytes
 * arrive in order; after a lie the reader stays within the ring, and either
 * says that it is lied to or gets bytes of the ring.
 */
#include "fuzz.h"

#include "fork_map.h"
#include "wire/ring.h"

#define SIZE 64

struct both {
    struct fm__ring_shared shared;
    struct fm__ring writer, reader;
    unsigned char *bytes;
    unsigned char next_out, next_in;
    int lied;
};

static void write_some(struct both *b, size_t want)
{
    unsigned char *room;
    size_t n = fm__ring_window(&b->writer, &room);

    REQUIRE(n <= SIZE);
    n = n < want ? n : want;
    for (size_t i = 0; i < n; i++)
        room[i] = b->next_out++;
    fm__ring_commit(&b->writer, n);
}

static void read_some(struct both *b, size_t want)
{
    const unsigned char *data;
    long n = fm__ring_peek(&b->reader, &data);

    if (n < 0) {
        REQUIRE(b->lied && n == FM_EPROTOCOL);
        return;
    }
    REQUIRE(n <= SIZE && data >= b->bytes && data + n <= b->bytes + SIZE);
    n = (size_t)n < want ? n : (long)want;
    for (long i = 0; i < n; i++)
        REQUIRE(data[i] == b->next_in++ || b->lied);
    (void)fm__ring_consume(&b->reader, (size_t)n);
}

static void lie(struct both *b, uint8_t how)
{
    uint64_t value = UINT64_MAX >> (how % 64u);

    b->lied = 1;
    if (how & 0x80)
        atomic_store(&b->shared.tail, value);
    else
        atomic_store(&b->shared.head, value);
}

static void act(struct both *b, uint8_t op, uint8_t operand)
{
    uint32_t value;

    switch (op % 6) {
    case 0:
    case 1:
        if (!b->lied)
            write_some(b, operand);
        break;
    case 2:
    case 3:
        read_some(b, operand);
        break;
    case 4:
        if (fm__ring_starve(&b->writer, 1, &value))
            REQUIRE(b->lied || fm__ring_used(&b->writer) == SIZE);
        break;
    case 5:
        if (op >= 0xf0)
            lie(b, operand);
        else if (fm__ring_sleep(&b->reader))
            fm__ring_wake(&b->reader);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct both *b = calloc(1, sizeof *b + 64);
    struct both *both = (void *)(((uintptr_t)b + 63) & ~(uintptr_t)63);

    REQUIRE(b);
    both->bytes = malloc(SIZE);
    REQUIRE(both->bytes);
    fm__ring_init(&both->writer, &both->shared, both->bytes, SIZE);
    fm__ring_init(&both->reader, &both->shared, both->bytes, SIZE);
    for (size_t i = 0; i + 1 < size; i += 2)
        act(both, data[i], data[i + 1]);
    free(both->bytes);
    free(b);
    return 0;
}
