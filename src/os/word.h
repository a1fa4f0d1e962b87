/* SPDX-License-Identifier: MIT */
/*
 * Sleeping on a 32-bit word in shared memory until another process changes it
 * and says so.  word_futex.c on Linux; word_sleep.c polls where there is no
 * futex.
 */
#ifndef FM_OS_WORD_H
#define FM_OS_WORD_H

#include <stdatomic.h>
#include <stdint.h>

/* Sleep while *word == value, at most timeout_ns.  May return early, for any
 * reason: the caller looks again. */
void fm__word_wait(_Atomic uint32_t *word, uint32_t value, int64_t timeout_ns);

/* Wake everyone who sleeps on the word. */
void fm__word_wake(_Atomic uint32_t *word);

#endif
