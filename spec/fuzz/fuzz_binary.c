/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a binary text.  Whatever the reader takes must follow the
 * grammar as this file understands it, promise no more than the bytes can
 * hold, and written again give a text that is read and written as itself,
 * through a sink of any room; a text that ends earlier must be refused.
 */
#include "fuzz.h"

#include "fork_map.h"
#include "wire/binary.h"
#include "wire/buffer.h"

#define NODES_MAX 100000
#define BYTES_MAX ((size_t)4 << 20)

/* A sink that gives as little room as sinks may. */
struct narrow_sink {
    struct fm__sink sink;
    struct fm__buffer *buffer;
    unsigned char room[FM__SINK_ROOM];
};

static int narrow_more(struct fm__sink *base)
{
    struct narrow_sink *narrow = (struct narrow_sink *)base;

    REQUIRE(base->next <= base->end);
    REQUIRE(fm__buffer_append(narrow->buffer, narrow->room,
                              (size_t)(base->next - narrow->room)) == 0);
    base->next = narrow->room;
    base->end = narrow->room + sizeof narrow->room;
    return 0;
}

static void narrow_init(struct narrow_sink *narrow, struct fm__buffer *buffer)
{
    memset(narrow, 0, sizeof *narrow);
    narrow->buffer = buffer;
    narrow->sink.more = narrow_more;
    narrow->sink.next = narrow->room;
    narrow->sink.end = narrow->room + sizeof narrow->room;
}

/* An open list or table, as this file counts. */
struct level {
    size_t items, pairs;
    bool has_keys; /* the number of pairs has been written */
    bool in_pair;
};

/* A reader, the text that its events make, and what is open in it. */
struct walk {
    struct fm__binary_reader reader;
    struct fm__sink *sink;
    const uint8_t *data;
    size_t size, values, tables, depth;
    struct level levels[FM__DEPTH_MAX];
};

/* The innermost open level, or NULL. */
static struct level *innermost(struct walk *w)
{
    return w->depth > 0 ? &w->levels[w->depth - 1] : NULL;
}

static bool is_key(struct walk *w)
{
    const struct level *level = innermost(w);

    return level && level->items == 0 && !level->in_pair;
}

static void require_inside(const struct walk *w, const void *p, size_t n)
{
    const uint8_t *from = p;

    REQUIRE(from >= w->data && n <= w->size);
    REQUIRE((size_t)(from - w->data) <= w->size - n);
}

/* When something is opened, all that was promised so far must fit what is left,
 * or memory would be taken for what never comes. */
static void require_bounded(const struct walk *w)
{
    size_t owed = w->values;

    for (size_t i = 0; i < w->depth; i++) {
        const struct level *level = &w->levels[i];

        owed += level->items + 2 * level->pairs - level->in_pair;
    }
    REQUIRE(owed <= w->size - fm__binary_reader_offset(&w->reader));
}

/* The number of pairs is said behind the items; the reader knows it when the
 * first key or the end comes. */
static void write_pending_keys(struct walk *w)
{
    struct level *level = innermost(w);

    if (!level || level->items > 0 || level->has_keys)
        return;
    level->has_keys = true;
    level->pairs = w->reader.levels[w->depth - 1].pairs;
    REQUIRE(level->pairs <= w->size / 2);
    REQUIRE(fm__binary_write_keys(w->sink, level->pairs) == 0);
}

/* A value stands here: of the text, an item, a key or a key's value. */
static void count(struct walk *w, size_t n)
{
    struct level *level = innermost(w);

    if (!level) {
        REQUIRE(n == 1 && w->values > 0);
        w->values--;
    } else if (level->items > 0) {
        REQUIRE(n <= level->items);
        level->items -= n;
    } else {
        REQUIRE(n == 1 && level->pairs > 0);
        level->pairs -= level->in_pair;
        level->in_pair = !level->in_pair;
    }
}

static void open_level(struct walk *w, const struct fm__event *event)
{
    struct level *level;
    bool is_list = event->type == FM__EVENT_LIST;

    REQUIRE(w->depth < FM__DEPTH_MAX);
    level = &w->levels[w->depth++];
    level->items = is_list ? event->u.open.n_list : 0;
    level->pairs = is_list ? 0 : event->u.open.n_keys;
    level->has_keys = !is_list;
    level->in_pair = false;
    w->tables++;
    require_bounded(w);
    if (is_list)
        REQUIRE(fm__binary_write_list(w->sink, level->items) == 0);
    else
        REQUIRE(fm__binary_write_table(w->sink, level->pairs) == 0);
}

static void close_level(struct walk *w)
{
    const struct level *level = innermost(w);

    REQUIRE(level && level->items == 0 && level->pairs == 0);
    w->depth--;
}

static void write_numbers(struct walk *w, const unsigned char *p, size_t n)
{
    double values[FM__BINARY_RUN];

    for (size_t i = 0; i < n; i++)
        values[i] = fm__binary_load_number(p + 8 * i);
    REQUIRE(fm__binary_write_numbers(w->sink, values, n) == 0);
}

static void write_integers(struct walk *w, const unsigned char *p, size_t n,
                           unsigned width)
{
    int64_t values[FM__BINARY_RUN];

    for (size_t i = 0; i < n; i++)
        values[i] = fm__binary_load_signed(p + width * i, width);
    REQUIRE(fm__binary_write_integers(w->sink, values, n) == 0);
}

static void write_run(struct walk *w, const struct fm__event *event)
{
    const unsigned char *p = event->u.run.data;
    size_t left = event->u.run.n;
    unsigned width = event->u.run.width;

    REQUIRE(left > 0 && width > 0 && width <= 8);
    require_inside(w, p, left * width);
    while (left > 0) {
        size_t n = left < FM__BINARY_RUN ? left : FM__BINARY_RUN;

        if (event->type == FM__EVENT_NUMBERS)
            write_numbers(w, p, n);
        else
            write_integers(w, p, n, width);
        p += n * width;
        left -= n;
    }
}

static void write_string(struct walk *w, const struct fm__event *event)
{
    const char *p = event->u.string.data;
    size_t len = event->u.string.len;
    unsigned slot = event->u.string.slot;

    require_inside(w, p, len);
    if (event->type == FM__EVENT_STRING) {
        REQUIRE(fm__binary_write_string(w->sink, p, len) == 0);
        return;
    }
    REQUIRE(slot < FM__BINARY_SLOTS);
    REQUIRE(fm__binary_write_key(w->sink, slot, p, len) == 0);
}

static void write_integer(struct walk *w, int64_t value, bool as_key)
{
    if (as_key)
        REQUIRE(fm__binary_write_key_integer(w->sink, value) == 0);
    else
        REQUIRE(fm__binary_write_integer(w->sink, value) == 0);
}

/* A value of one event. */
static void write_plain(struct walk *w, const struct fm__event *event,
                        bool as_key)
{
    switch (event->type) {
    case FM__EVENT_NIL:
        REQUIRE(fm__binary_write_nil(w->sink) == 0);
        return;
    case FM__EVENT_NULL:
        REQUIRE(fm__binary_write_null(w->sink) == 0);
        return;
    case FM__EVENT_BOOLEAN:
        REQUIRE(fm__binary_write_boolean(w->sink, event->u.boolean) == 0);
        return;
    case FM__EVENT_INTEGER:
        write_integer(w, event->u.integer, as_key);
        return;
    case FM__EVENT_NUMBER:
        REQUIRE(!as_key || event->u.number == event->u.number);
        REQUIRE(fm__binary_write_number(w->sink, event->u.number) == 0);
        return;
    case FM__EVENT_EMPTY:
        w->tables++;
        REQUIRE(fm__binary_write_empty(w->sink, event->u.boolean) == 0);
        return;
    case FM__EVENT_REFERENCE:
        REQUIRE((w->reader.flags & FM__BINARY_REFERENCES) != 0);
        REQUIRE(event->u.reference < w->tables);
        REQUIRE(fm__binary_write_reference(w->sink, event->u.reference) == 0);
        return;
    default:
        abort();
    }
}

static void write_key_again(struct walk *w, unsigned slot)
{
    REQUIRE((w->reader.flags & FM__BINARY_KEYS) != 0);
    REQUIRE(slot < FM__BINARY_SLOTS);
    REQUIRE(fm__binary_write_key_again(w->sink, slot) == 0);
}

/* May this event stand here? */
static void check_place(struct walk *w, const struct fm__event *event)
{
    const struct level *level = innermost(w);
    bool as_item = level && level->items > 0;

    switch (event->type) {
    case FM__EVENT_KEY:
    case FM__EVENT_KEY_AGAIN:
        REQUIRE(is_key(w));
        return;
    case FM__EVENT_INTEGERS:
    case FM__EVENT_NUMBERS:
        REQUIRE(as_item);
        return;
    case FM__EVENT_NIL:
        REQUIRE(w->depth == 0 || as_item);
        return;
    default:
        return;
    }
}

/* An event that is a value or begins one. */
static void write_value(struct walk *w, const struct fm__event *event)
{
    bool as_key = is_key(w);

    check_place(w, event);
    switch (event->type) {
    case FM__EVENT_INTEGERS:
    case FM__EVENT_NUMBERS:
        count(w, event->u.run.n);
        write_run(w, event);
        return;
    case FM__EVENT_STRING:
    case FM__EVENT_KEY:
        count(w, 1);
        write_string(w, event);
        return;
    case FM__EVENT_KEY_AGAIN:
        count(w, 1);
        write_key_again(w, event->u.slot);
        return;
    case FM__EVENT_LIST:
    case FM__EVENT_TABLE:
        count(w, 1);
        open_level(w, event);
        return;
    default:
        count(w, 1);
        write_plain(w, event, as_key);
        return;
    }
}

/* Read `data` and write what it holds.  Returns whether all of it was read. */
static bool rewrite(const uint8_t *data, size_t size, struct fm__sink *sink)
{
    static struct walk w;
    struct fm__bounds bounds = {.nodes = NODES_MAX};
    struct fm__event event = {.type = FM__EVENT_DONE};
    int rc = fm__binary_reader_init(&w.reader, data, size, &bounds);

    w.sink = sink;
    w.data = data;
    w.size = size;
    w.depth = 0;
    w.tables = 0;
    w.values = w.reader.values;
    if (rc == 0) {
        require_bounded(&w);
        REQUIRE(fm__binary_write_begin(sink, w.values) == 0);
    }
    while (rc == 0) {
        rc = fm__binary_reader_next(&w.reader, &event);
        REQUIRE(fm__binary_reader_offset(&w.reader) <= size);
        if (rc < 0 || event.type == FM__EVENT_DONE)
            break;
        write_pending_keys(&w);
        if (event.type == FM__EVENT_CLOSE)
            close_level(&w);
        else
            write_value(&w, &event);
    }
    REQUIRE(rc == 0 || rc == FM_EPROTOCOL || rc == FM_ELIMIT);
    REQUIRE(rc == 0 || w.reader.error);
    w.sink = NULL;
    if (rc < 0)
        return false;
    REQUIRE(w.depth == 0 && w.values == 0);
    REQUIRE(fm__binary_write_end(sink, w.reader.flags) == 0);
    return true;
}

/* Read exactly `size` bytes of `data`, so that a read beyond them is seen. */
static bool rewrite_copy(const uint8_t *data, size_t size,
                         struct fm__sink *sink)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    bool is_text;

    REQUIRE(copy);
    if (size > 0)
        memcpy(copy, data, size);
    is_text = rewrite(copy, size, sink);
    free(copy);
    return is_text;
}

static bool to_buffer(const uint8_t *data, size_t size, struct fm__buffer *text)
{
    struct fm__buffer_sink sink;
    bool is_text;

    fm__buffer_init(text, BYTES_MAX);
    fm__buffer_sink_init(&sink, text);
    REQUIRE(sink.sink.restart(&sink.sink, 0) == 0);
    is_text = rewrite_copy(data, size, &sink.sink);
    REQUIRE(fm__buffer_sink_flush(&sink) == 0);
    return is_text;
}

static void require_same(const struct fm__buffer *a, const struct fm__buffer *b)
{
    REQUIRE(a->len == b->len && memcmp(a->data, b->data, a->len) == 0);
}

static void check_again(const struct fm__buffer *text)
{
    struct fm__buffer again, narrow_text;
    struct narrow_sink narrow;

    REQUIRE(to_buffer(text->data, text->len, &again));
    require_same(text, &again);
    fm__buffer_init(&narrow_text, BYTES_MAX);
    narrow_init(&narrow, &narrow_text);
    REQUIRE(rewrite_copy(text->data, text->len, &narrow.sink));
    REQUIRE(narrow_more(&narrow.sink) == 0);
    require_same(text, &narrow_text);
    fm__buffer_done(&narrow_text);
    fm__buffer_done(&again);
}

/* Of a text no part from its beginning is a text. */
static void check_cut(const uint8_t *data, size_t size, size_t at)
{
    struct fm__buffer cut;

    REQUIRE(!to_buffer(data, at % size, &cut));
    fm__buffer_done(&cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fm__buffer text;

    if (size > BYTES_MAX / 16)
        return 0;
    if (to_buffer(data, size, &text)) {
        check_again(&text);
        check_cut(data, size, size - 1);
        check_cut(data, size, data[size / 2]);
    }
    fm__buffer_done(&text);
    return 0;
}
