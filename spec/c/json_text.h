/* SPDX-License-Identifier: MIT */
/*
 * Texts for the specs of JSON, and the string in one.
 */
#ifndef SPEC_C_JSON_TEXT_H
#define SPEC_C_JSON_TEXT_H

#include "test.h"

#include "wire/json.h"

struct text {
    char *data; /* of exactly `len` bytes, so that sanitizers see the end */
    size_t len;
};

static struct text text_of(const char *data, size_t len)
{
    struct text text = {malloc(len > 0 ? len : 1), len};

    CHECK(text.data);
    memcpy(text.data, data, len);
    return text;
}

/* Read a text that begins with a string into `to`.  Returns its length, or -1
 * when it is refused. */
static int read_one_string(const char *data, size_t len, char *to)
{
    struct text text = text_of(data, len);
    struct fm__json_reader reader;
    struct fm__event event;
    int n = -1;

    fm__json_reader_init(&reader, text.data, len, NULL);
    if (fm__json_reader_next(&reader, &event) == 0) {
        CHECK_INT(event.type, FM__EVENT_STRING);
        n = (int)event.u.string.len;
        memcpy(to, event.u.string.data, event.u.string.len);
    }
    fm__json_reader_done(&reader);
    free(text.data);
    return n;
}

#endif
