/* SPDX-License-Identifier: MIT */
/*
 * A memory barrier that one process makes in others: those then need none of
 * their own where they are in a hurry.  fence_membarrier.c on Linux;
 * fence_none.c where there is no such thing.
 */
#ifndef FM_OS_FENCE_H
#define FM_OS_FENCE_H

#include <stdbool.h>

/* Is there such a thing? */
bool fm__fence_is_there(void);

/* This process takes part from now on.  False when it cannot. */
bool fm__fence_join(void);

/* Afterwards, every process that takes part has passed a full barrier since
 * the call began: what it stored before is seen here, what was stored here
 * before is seen there.  False when that could not be done. */
bool fm__fence_all(void);

#endif
