/* SPDX-License-Identifier: MIT */
/*
 * The reader of JSON texts, see json.h.
 *
 * One call gives one event and moves the grammar on by one state; what is open
 * is one bit per level.  A text that does not end with a newline is refused
 * before the first event, so that every loop over a token ends at that newline
 * at the latest and needs no test of its own.
 */
#include "wire/json.h"

#include <string.h>

#include "fork_map.h"
#include "os/sys.h"
#include "wire/json_string.h"
#include "wire/number.h"

/* What may come next. */
enum {
    EXPECT_LINE,        /* a value, an empty line, or the end of the text */
    EXPECT_LINE_END,    /* the newline behind a value */
    EXPECT_FIRST_ITEM,  /* of a list, or its end */
    EXPECT_MORE_ITEMS,  /* a comma, or the end of the list */
    EXPECT_FIRST_KEY,   /* of a table, or its end */
    EXPECT_MORE_KEYS,   /* a comma, or the end of the table */
    EXPECT_FIELD,       /* the value of a key; its colon has been read */
    EXPECT_NOTHING_MORE /* failed */
};

static int fail(struct fm__json_reader *r, const unsigned char *p, int rc,
                const char *error)
{
    r->next = p;
    r->expect = EXPECT_NOTHING_MORE;
    r->failure = rc;
    r->error = error;
    return rc;
}

static int refuse(struct fm__json_reader *r, const unsigned char *p,
                  const char *error)
{
    if (r->end - p <= 1) /* nothing but the last newline is left? */
        error = "the text ends too early";
    return fail(r, p, FM_EPROTOCOL, error);
}

/* The string whose first quote is at `p`; *ret_next is behind the last one. */
static int read_string(struct fm__json_reader *r, const unsigned char *p,
                       struct fm__event *ret_event,
                       const unsigned char **ret_next)
{
    int rc = fm__json_read_string(r, &p, ret_event);

    if (rc == FM_EPROTOCOL)
        return refuse(r, p, r->error);
    if (rc < 0)
        return fail(r, p, rc, r->error);
    *ret_next = p;
    return 0;
}

/* White space of RFC 8259; `p` is not at the end, what is returned may be. */
static inline const unsigned char *skip_space(const struct fm__json_reader *r,
                                              const unsigned char *p)
{
    while (*p <= ' ') {
        if (*p != ' ' && *p != '\n' && *p != '\t' && *p != '\r')
            break;
        if (++p == r->end)
            break;
    }
    return p;
}

static bool in_list(const struct fm__json_reader *r)
{
    size_t level = r->depth - 1;

    return r->stack[level / 8] >> (level % 8) & 1;
}

/* What follows the value that has just been closed. */
static int expect_after_close(const struct fm__json_reader *r)
{
    if (r->depth == 0)
        return EXPECT_LINE_END;
    return in_list(r) ? EXPECT_MORE_ITEMS : EXPECT_MORE_KEYS;
}

static int take_node(struct fm__json_reader *r, const unsigned char *p)
{
    if (r->nodes == r->bounds.nodes)
        return fail(r, p, FM_ELIMIT, "too many values");
    r->nodes++;
    return 0;
}

static int open_level(struct fm__json_reader *r, const unsigned char *p,
                      struct fm__event *ret_event)
{
    unsigned char *bits = r->stack + r->depth / 8;
    unsigned char bit = (unsigned char)(1u << (r->depth % 8));

    if (r->depth == r->bounds.depth)
        return fail(r, p, FM_ELIMIT, "nested too deep");
    r->depth++;
    r->next = p + 1;
    ret_event->u.open.n_list = 0;
    ret_event->u.open.n_keys = 0;
    if (*p == '[') {
        *bits |= bit;
        r->expect = EXPECT_FIRST_ITEM;
        ret_event->type = FM__EVENT_LIST;
    } else {
        *bits &= (unsigned char)~bit;
        r->expect = EXPECT_FIRST_KEY;
        ret_event->type = FM__EVENT_TABLE;
    }
    return 0;
}

static int close_level(struct fm__json_reader *r, const unsigned char *p,
                       struct fm__event *ret_event)
{
    r->depth--;
    r->next = p + 1;
    r->expect = expect_after_close(r);
    ret_event->type = FM__EVENT_CLOSE;
    return 0;
}

static int read_number(struct fm__json_reader *r, const unsigned char *p,
                       struct fm__event *ret_event)
{
    struct fm__number number = fm__number_read(p, r->end);

    switch (number.type) {
    case FM__NUMBER_INTEGER:
        ret_event->type = FM__EVENT_INTEGER;
        ret_event->u.integer = number.u.integer;
        break;
    case FM__NUMBER_FLOAT:
        ret_event->type = FM__EVENT_NUMBER;
        ret_event->u.number = number.u.number;
        break;
    case FM__NUMBER_INFINITE:
        return refuse(r, p, "number too great");
    case FM__NUMBER_NONE:
        return refuse(r, number.end, "not a number");
    }
    r->next = number.end;
    return 0;
}

static int read_literal(struct fm__json_reader *r, const unsigned char *p,
                        struct fm__event *ret_event)
{
    size_t room = (size_t)(r->end - p);

    if (room >= 4 && memcmp(p, "null", 4) == 0) {
        ret_event->type = FM__EVENT_NULL;
        r->next = p + 4;
    } else if (room >= 4 && memcmp(p, "true", 4) == 0) {
        ret_event->type = FM__EVENT_BOOLEAN;
        ret_event->u.boolean = true;
        r->next = p + 4;
    } else if (room >= 5 && memcmp(p, "false", 5) == 0) {
        ret_event->type = FM__EVENT_BOOLEAN;
        ret_event->u.boolean = false;
        r->next = p + 5;
    } else {
        return refuse(r, p, "not a value");
    }
    return 0;
}

/* `after` is what to expect behind a value that opens no level. */
static int read_value(struct fm__json_reader *r, const unsigned char *p,
                      int after, struct fm__event *ret_event)
{
    int rc = take_node(r, p);

    if (rc < 0)
        return rc;
    if (*p == '[' || *p == '{')
        return open_level(r, p, ret_event);
    if (*p == '"') {
        ret_event->type = FM__EVENT_STRING;
        rc = read_string(r, p, ret_event, &r->next);
    } else if (*p == '-' || (unsigned char)(*p - '0') < 10) {
        rc = read_number(r, p, ret_event);
    } else {
        rc = read_literal(r, p, ret_event);
    }
    if (rc == 0)
        r->expect = after;
    return rc;
}

static int read_key(struct fm__json_reader *r, const unsigned char *p,
                    struct fm__event *ret_event)
{
    int rc = take_node(r, p);

    if (rc < 0)
        return rc;
    if (*p != '"')
        return refuse(r, p, "not a key");
    rc = read_string(r, p, ret_event, &p);
    if (rc < 0)
        return rc;
    p = skip_space(r, p);
    if (p == r->end || *p != ':')
        return refuse(r, p, "no colon behind a key");
    r->next = p + 1;
    r->expect = EXPECT_FIELD;
    ret_event->type = FM__EVENT_KEY;
    return 0;
}

/* An item or the end of the list. */
static int read_item(struct fm__json_reader *r, const unsigned char *p,
                     struct fm__event *ret_event)
{
    p = skip_space(r, p);
    if (p == r->end)
        return refuse(r, p, NULL);
    if (*p == ']')
        return close_level(r, p, ret_event);
    if (r->expect == EXPECT_MORE_ITEMS) {
        if (*p != ',')
            return refuse(r, p, "neither comma nor end of the list");
        p = skip_space(r, p + 1);
    }
    if (p == r->end)
        return refuse(r, p, NULL);
    return read_value(r, p, EXPECT_MORE_ITEMS, ret_event);
}

/* A key or the end of the table. */
static int read_field(struct fm__json_reader *r, const unsigned char *p,
                      struct fm__event *ret_event)
{
    p = skip_space(r, p);
    if (p == r->end)
        return refuse(r, p, NULL);
    if (*p == '}')
        return close_level(r, p, ret_event);
    if (r->expect == EXPECT_MORE_KEYS) {
        if (*p != ',')
            return refuse(r, p, "neither comma nor end of the table");
        p = skip_space(r, p + 1);
    }
    if (p == r->end)
        return refuse(r, p, NULL);
    return read_key(r, p, ret_event);
}

/* White space within a line.  Ends at the newline at the latest. */
static const unsigned char *skip_blanks(const unsigned char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\r')
        p++;
    return p;
}

static int read_line(struct fm__json_reader *r, const unsigned char *p,
                     struct fm__event *ret_event)
{
    if (r->expect == EXPECT_LINE_END) {
        p = skip_blanks(p);
        if (*p++ != '\n')
            return refuse(r, p - 1, "more than one value in a line");
        r->expect = EXPECT_LINE;
    }
    r->next = p;
    if (p == r->end) {
        ret_event->type = FM__EVENT_DONE;
        return 0;
    }
    p = skip_blanks(p);
    if (*p != '\n')
        return read_value(r, p, EXPECT_LINE_END, ret_event);
    r->next = p + 1;
    ret_event->type = FM__EVENT_NIL;
    return take_node(r, p);
}

void fm__json_reader_init(struct fm__json_reader *reader, const void *data,
                          size_t len, const struct fm__bounds *bounds)
{
    /* Not the bits of the levels: each is written when its level opens. */
    memset(reader, 0, offsetof(struct fm__json_reader, stack));
    reader->start = data;
    reader->next = data;
    reader->end = len > 0 ? reader->start + len : reader->start;
    reader->bounds.depth = FM__DEPTH_MAX;
    reader->bounds.nodes = SIZE_MAX;
    if (bounds && bounds->depth > 0 && bounds->depth < FM__DEPTH_MAX)
        reader->bounds.depth = bounds->depth;
    if (bounds && bounds->nodes > 0)
        reader->bounds.nodes = bounds->nodes;
    if (len > 0 && reader->end[-1] != '\n')
        (void)refuse(reader, reader->end, NULL);
}

int fm__json_reader_next(struct fm__json_reader *reader,
                         struct fm__event *ret_event)
{
    const unsigned char *p = reader->next;

    switch (reader->expect) {
    case EXPECT_FIRST_ITEM:
    case EXPECT_MORE_ITEMS:
        return read_item(reader, p, ret_event);
    case EXPECT_FIRST_KEY:
    case EXPECT_MORE_KEYS:
        return read_field(reader, p, ret_event);
    case EXPECT_FIELD:
        p = skip_space(reader, p);
        if (p == reader->end)
            return refuse(reader, p, NULL);
        return read_value(reader, p, EXPECT_MORE_KEYS, ret_event);
    case EXPECT_LINE:
    case EXPECT_LINE_END:
        return read_line(reader, p, ret_event);
    default:
        return reader->failure;
    }
}

size_t fm__json_reader_offset(const struct fm__json_reader *reader)
{
    return (size_t)(reader->next - reader->start);
}

void fm__json_reader_done(struct fm__json_reader *reader)
{
    fm__sys.free(reader->scratch);
    reader->scratch = NULL;
    reader->scratch_size = 0;
}
