/* SPDX-License-Identifier: MIT */
/*
 * What a reader of foreign bytes says, one event at a time.  Readers never
 * recurse, never allocate per event and never keep a pointer of the driver's.
 */
#ifndef FM_WIRE_EVENT_H
#define FM_WIRE_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fm__event_type {
    FM__EVENT_DONE,      /* the text is complete; nothing follows */
    FM__EVENT_NIL,       /* an absent top-level value */
    FM__EVENT_NULL,      /* JSON null */
    FM__EVENT_BOOLEAN,   /* u.boolean */
    FM__EVENT_INTEGER,   /* u.integer */
    FM__EVENT_NUMBER,    /* u.number, a float */
    FM__EVENT_STRING,    /* u.string */
    FM__EVENT_LIST,      /* a list begins; u.open has size hints */
    FM__EVENT_TABLE,     /* a table begins; u.open has size hints */
    FM__EVENT_KEY,       /* u.string; in binary texts with its slot */
    FM__EVENT_CLOSE,     /* the innermost list or table ends */
    FM__EVENT_REFERENCE, /* u.reference: the n-th table begun, from 0 */
    /* Of the binary reader only: */
    FM__EVENT_EMPTY,     /* u.boolean: a whole table; true: it is a list */
    FM__EVENT_KEY_AGAIN, /* u.slot: the last key that had this slot */
    FM__EVENT_INTEGERS,  /* u.run: items of a list */
    FM__EVENT_NUMBERS    /* u.run: floats, items of a list */
};

struct fm__event {
    enum fm__event_type type;
    union {
        bool boolean;
        int64_t integer;
        double number;
        struct {
            const char *data; /* lives until the next call of the reader */
            size_t len;
            unsigned slot; /* of a key in a binary text */
        } string;
        struct {
            size_t n_list, n_keys; /* hints, already checked against what
                                      the remaining bytes can hold */
        } open;
        size_t reference;
        unsigned slot;
        struct {
            const unsigned char *data; /* little-endian, not aligned */
            size_t n;
            unsigned width; /* bytes of each: 1, 2, 4, 8 */
        } run;
    } u;
};

/* Bounds that every reader enforces; 0 means the default in brackets. */
struct fm__bounds {
    size_t depth; /* nesting of lists and tables [FM__DEPTH_MAX] */
    size_t nodes; /* values, keys included [SIZE_MAX] */
};

#define FM__DEPTH_MAX 1000

#endif
