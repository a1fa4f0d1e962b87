/* SPDX-License-Identifier: MIT */
/* Bytes that somebody says, for the fuzz targets that hear them. */
#ifndef SPEC_FUZZ_SAID_H
#define SPEC_FUZZ_SAID_H

#include "fuzz.h"

#define SAID_MAX ((size_t)1 << 17)

/* What is longer is cut. */
struct said {
    unsigned char bytes[SAID_MAX];
    size_t len;
};

static void append(struct said *said, const void *p, size_t n)
{
    if (n > SAID_MAX - said->len)
        n = SAID_MAX - said->len;
    memcpy(said->bytes + said->len, p, n);
    said->len += n;
}

#endif
