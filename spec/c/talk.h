/* SPDX-License-Identifier: MIT */
/* What a child says, frame by frame, right or wrong. */
#ifndef SPEC_C_TALK_H
#define SPEC_C_TALK_H

#include <stdint.h>
#include <string.h>

#include "test.h"

#include "wire/frame.h"

struct talk {
    unsigned char bytes[4096];
    size_t len;
};

static void __attribute__((unused))
say(struct talk *talk, uint64_t job, int type, const void *payload, size_t len)
{
    struct fm__frame_head head;

    CHECK(len <= sizeof talk->bytes - sizeof head - talk->len);
    memset(&head, 0, sizeof head);
    head.magic = FM__FRAME_MAGIC;
    head.type = (uint8_t)type;
    head.len = (uint32_t)len;
    head.job = job;
    memcpy(talk->bytes + talk->len, &head, sizeof head);
    memcpy(talk->bytes + talk->len + sizeof head, payload, len);
    talk->len += sizeof head + len;
}

static void __attribute__((unused))
say_end(struct talk *talk, uint64_t job, uint64_t total)
{
    say(talk, job, FM__FRAME_END, &total, sizeof total);
}

#endif
