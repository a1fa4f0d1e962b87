/* SPDX-License-Identifier: MIT */
/* The tags of the binary codec, for its writer and its reader; the grammar is
 * in binary.h. */
#ifndef FM_WIRE_BINARY_TAGS_H
#define FM_WIRE_BINARY_TAGS_H

enum tag {
    TAG_INTEGER_END = 0x80, /* below: small integers */
    TAG_STRING = 0x80,
    TAG_STRING_END = 0xc0,
    TAG_NIL = 0xc0,
    TAG_FALSE,
    TAG_TRUE,
    TAG_NULL,
    TAG_INTEGER1,
    TAG_INTEGER2,
    TAG_INTEGER4,
    TAG_INTEGER8,
    TAG_NUMBER,
    TAG_LONG_STRING,
    TAG_LIST,
    TAG_TABLE,
    TAG_REFERENCE,
    TAG_NUMBERS,
    TAG_EMPTY,
    TAG_EMPTY_LIST,
    TAG_INTEGERS1, /* d0 */
    TAG_INTEGERS2,
    TAG_INTEGERS4,
    TAG_INTEGERS8,
    TAG_NEGATIVE = 0xe0 /* and above: -32..-1 */
};

/* In the place of a key. */
enum key_tag {
    KEY_AGAIN = 0x00,
    KEY_NEW = 0x40,
    KEY_VALUE = 0x80 /* and above: as a value */
};

#endif
