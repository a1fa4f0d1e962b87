/* SPDX-License-Identifier: MIT */
/* Strings for the reader of JSON texts; no one else's business. */
#ifndef FM_WIRE_JSON_STRING_H
#define FM_WIRE_JSON_STRING_H

#include "wire/json.h"

/*
 * Read the string whose first quote is at `*at`, in a text that ends with a
 * newline.  `*at` is moved behind the last quote, or to the offence.  Without
 * escapes the string is where it was, else in reader->scratch.
 *
 * Returns 0, or with reader->error set FM_EPROTOCOL or -ENOMEM.
 */
int fm__json_read_string(struct fm__json_reader *reader,
                         const unsigned char **at, struct fm__event *ret_event);

#endif
