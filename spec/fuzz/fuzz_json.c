/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a JSON text.  What the reader takes must make sense as events,
 * and written again it must give a text that is read and written as itself.
 * The same bytes are also written as a string and, 8 at a time, as numbers.
 */
#include "fuzz.h"

#include <math.h>

#include "fork_map.h"
#include "wire/buffer.h"
#include "wire/json.h"

#define NODES_MAX 100000
#define BYTES_MAX ((size_t)16 << 20)

/* The text that events make, and what is open in it. */
struct writer {
    struct fm__buffer buffer;
    struct fm__buffer_sink to;
    size_t depth;
    bool is_list[FM__DEPTH_MAX];
    bool has_items; /* the innermost list or table */
    bool has_key;
};

static void put(struct writer *w, const char *text)
{
    REQUIRE(fm__sink_write(&w->to.sink, text, strlen(text)) == 0);
}

static void writer_init(struct writer *w)
{
    memset(w, 0, sizeof *w);
    fm__buffer_init(&w->buffer, BYTES_MAX);
    fm__buffer_sink_init(&w->to, &w->buffer);
    REQUIRE(w->to.sink.restart(&w->to.sink, 0) == 0);
}

/* A key or an item of a list may begin: write what stands in front of it. */
static void begin(struct writer *w, bool is_key)
{
    if (w->depth == 0 || w->has_key) {
        REQUIRE(!is_key);
        w->has_key = false;
        return;
    }
    REQUIRE(w->is_list[w->depth - 1] != is_key);
    if (w->has_items)
        put(w, ",");
    w->has_items = true;
    w->has_key = is_key;
}

static void end(struct writer *w)
{
    if (w->depth == 0)
        put(w, "\n");
}

static void open_level(struct writer *w, bool is_list)
{
    begin(w, false);
    REQUIRE(w->depth < FM__DEPTH_MAX);
    w->is_list[w->depth++] = is_list;
    w->has_items = false;
    put(w, is_list ? "[" : "{");
}

static void close_level(struct writer *w)
{
    REQUIRE(w->depth > 0 && !w->has_key);
    w->depth--;
    w->has_items = true;
    put(w, w->is_list[w->depth] ? "]" : "}");
    end(w);
}

static void write_string(struct writer *w, const struct fm__event *event)
{
    bool is_key = event->type == FM__EVENT_KEY;

    begin(w, is_key);
    REQUIRE(fm__json_write_string(&w->to.sink, event->u.string.data,
                                  event->u.string.len) == 0);
    if (is_key)
        put(w, ":");
    else
        end(w);
}

static void write_plain(struct writer *w, const struct fm__event *event)
{
    begin(w, false);
    switch (event->type) {
    case FM__EVENT_NIL:
        REQUIRE(w->depth == 0);
        break;
    case FM__EVENT_NULL:
        put(w, "null");
        break;
    case FM__EVENT_BOOLEAN:
        put(w, event->u.boolean ? "true" : "false");
        break;
    case FM__EVENT_INTEGER:
        REQUIRE(fm__json_write_integer(&w->to.sink, event->u.integer) == 0);
        break;
    case FM__EVENT_NUMBER:
        REQUIRE(isfinite(event->u.number));
        REQUIRE(fm__json_write_number(&w->to.sink, event->u.number) == 0);
        break;
    default:
        abort();
    }
    end(w);
}

static void write_event(struct writer *w, const struct fm__event *event)
{
    if (event->type == FM__EVENT_LIST || event->type == FM__EVENT_TABLE)
        open_level(w, event->type == FM__EVENT_LIST);
    else if (event->type == FM__EVENT_CLOSE)
        close_level(w);
    else if (event->type == FM__EVENT_STRING || event->type == FM__EVENT_KEY)
        write_string(w, event);
    else
        write_plain(w, event);
}

/* Read `data` and write what it holds.  Returns whether all of it was read. */
static bool rewrite(const void *data, size_t size, struct writer *w)
{
    struct fm__bounds bounds = {.nodes = NODES_MAX};
    struct fm__json_reader reader;
    struct fm__event event;
    int rc;

    writer_init(w);
    fm__json_reader_init(&reader, data, size, &bounds);
    for (;;) {
        rc = fm__json_reader_next(&reader, &event);
        REQUIRE(fm__json_reader_offset(&reader) <= size);
        if (rc < 0 || event.type == FM__EVENT_DONE)
            break;
        write_event(w, &event);
    }
    REQUIRE(rc == 0 || reader.error);
    REQUIRE(rc < 0 || w->depth == 0);
    REQUIRE(fm__buffer_sink_flush(&w->to) == 0);
    fm__json_reader_done(&reader);
    return rc == 0;
}

static void check_text(const uint8_t *data, size_t size)
{
    struct writer first, second;

    if (rewrite(data, size, &first)) {
        REQUIRE(rewrite(first.buffer.data, first.buffer.len, &second));
        REQUIRE(second.buffer.len == first.buffer.len);
        REQUIRE(first.buffer.len == 0 ||
                memcmp(first.buffer.data, second.buffer.data,
                       first.buffer.len) == 0);
        fm__buffer_done(&second.buffer);
    }
    fm__buffer_done(&first.buffer);
}

/* One event that was written must be read back. */
static void check_event(const struct fm__event *event)
{
    struct fm__json_reader reader;
    struct fm__event back;
    struct writer w;

    writer_init(&w);
    write_event(&w, event);
    REQUIRE(fm__buffer_sink_flush(&w.to) == 0);
    fm__json_reader_init(&reader, w.buffer.data, w.buffer.len, NULL);
    REQUIRE(fm__json_reader_next(&reader, &back) == 0);
    REQUIRE(back.type == event->type);
    if (event->type == FM__EVENT_STRING) {
        REQUIRE(back.u.string.len == event->u.string.len);
        REQUIRE(memcmp(back.u.string.data, event->u.string.data,
                       back.u.string.len) == 0);
    } else {
        REQUIRE(back.u.integer == event->u.integer);
    }
    REQUIRE(fm__json_reader_next(&reader, &back) == 0);
    REQUIRE(back.type == FM__EVENT_DONE);
    fm__json_reader_done(&reader);
    fm__buffer_done(&w.buffer);
}

static void check_numbers(const uint8_t *data, size_t size)
{
    struct fm__event event;
    double number;

    for (size_t i = 0; i + 8 <= size && i < 800; i += 8) {
        event.type = FM__EVENT_INTEGER;
        memcpy(&event.u.integer, data + i, 8);
        check_event(&event);
        memcpy(&number, data + i, 8);
        if (!isfinite(number))
            continue;
        event.type = FM__EVENT_NUMBER;
        event.u.number = number;
        check_event(&event);
    }
}

/* Is it text in the eyes of the writer?  Then it must be in the reader's. */
static void check_string(const uint8_t *data, size_t size)
{
    struct fm__event event = {.type = FM__EVENT_STRING};
    struct writer w;
    int rc;

    writer_init(&w);
    rc = fm__json_write_string(&w.to.sink, (const char *)data, size);
    fm__buffer_done(&w.buffer);
    REQUIRE(rc == 0 || rc == FM_EENCODE);
    event.u.string.data = (const char *)data;
    event.u.string.len = size;
    if (rc == 0)
        check_event(&event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Escapes make a string up to 6 times as long. */
    if (size > BYTES_MAX / 8)
        return 0;
    check_text(data, size);
    check_string(data, size);
    check_numbers(data, size);
    return 0;
}
