/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as what a child says, in any pieces.
 *
 * The first byte chooses: raw bytes, or a script of frames whose heads are
 * right but for what the script changes, so that the payloads are reached.
 * Whatever is said: no more memory than twice what came (and a fixed amount),
 * the same verdict for every way to split, and nothing read after an ending.
 */
#include "said.h"

#include "fork_map.h"
#include "wire/inbox.h"

#define JOB 0x1122334455667788u
#define LIMIT 4096

/* One frame of the script: type, length of payload, change; then payload. */
static size_t append_frame(struct said *said, const uint8_t *p, size_t n)
{
    struct fm__frame_head head;
    unsigned char raw[FM__FRAME_HEAD];
    size_t len = p[1] < n - 3 ? p[1] : n - 3;

    memset(&head, 0, sizeof head);
    head.magic = FM__FRAME_MAGIC;
    head.type = p[0] % 10;
    head.len = (uint32_t)len;
    head.job = JOB;
    memcpy(raw, &head, sizeof raw);
    if (p[2] >= 0xf0) /* rarely: one byte of the head is another */
        raw[p[2] & 15] ^= p[0];
    append(said, raw, sizeof raw);
    append(said, p + 3, len);
    return 3 + len;
}

static void read_script(struct said *said, const uint8_t *p, size_t n)
{
    while (n >= 3) {
        size_t used = append_frame(said, p, n);

        p += used;
        n -= used;
    }
}

static void check_memory(const struct fm__inbox *inbox, size_t fed)
{
    REQUIRE(inbox->len <= inbox->size);
    REQUIRE(inbox->len <= LIMIT && inbox->len <= fed);
    REQUIRE(inbox->size <= 2 * fed + 256);
    REQUIRE(inbox->control_size <= FM__FRAME_CONTROL_MAX);
}

static void hear(struct fm__inbox *inbox, const struct said *said, size_t step)
{
    fm__inbox_init(inbox, JOB, LIMIT);
    for (size_t at = 0; at < said->len; at += step) {
        size_t n = said->len - at < step ? said->len - at : step;
        /* A copy of its own, so that a read beyond it is seen. */
        unsigned char *piece = malloc(n);
        int rc;

        REQUIRE(piece);
        memcpy(piece, said->bytes + at, n);
        rc = fm__inbox_feed(inbox, piece, n);
        free(piece);
        REQUIRE((rc < 0) <= (inbox->ending == FM__ENDING_BROKEN));
        check_memory(inbox, at + n);
    }
}

static void require_same(const struct fm__inbox *a, const struct fm__inbox *b)
{
    REQUIRE(a->ending == b->ending && a->verdict == b->verdict);
    if (a->ending != FM__ENDING_ENDED)
        return;
    REQUIRE(a->len == b->len && a->format == b->format);
    REQUIRE(a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
    REQUIRE(!a->first == !b->first);
    REQUIRE(!a->first || strcmp(a->first, b->first) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct said said;
    struct fm__inbox whole, split;

    if (size < 2)
        return 0;
    said.len = 0;
    if (data[0] & 1)
        append(&said, data + 2, size - 2);
    else
        read_script(&said, data + 2, size - 2);
    hear(&whole, &said, SAID_MAX);
    hear(&split, &said, data[1] % 31u + 1);
    require_same(&whole, &split);
    fm__inbox_done(&whole);
    fm__inbox_done(&split);
    return 0;
}
