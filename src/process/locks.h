/* SPDX-License-Identifier: MIT */
/*
 * Locks of the C library that fork() does not repair.
 *
 * A child has only the thread that forked it.  A lock that another thread held
 * at that moment is held in the child for ever, and glibc repairs only those of
 * malloc and stdio: os.date, require of a C module, os.setlocale and the like
 * would hang.  No lock can be looked at, but each can be taken: a child that
 * gets them all before its job begins finds them free from then on, as nobody
 * else is there.  One that does not is replaced by another fork, see
 * engine/attempt.c.
 */
#ifndef FM_PROCESS_LOCKS_H
#define FM_PROCESS_LOCKS_H

#include <stdbool.h>

/* Parent: may a child that is forked now hang in fm__locks_try()? */
bool fm__locks_are_suspect(void);

/* Child: take each lock and give it back.  Hangs if one of them is lost;
 * changes nothing otherwise. */
void fm__locks_try(void);

#endif
