/* SPDX-License-Identifier: MIT */
/* Words in shared memory: the Linux futex, shared between processes. */
#include <limits.h>
#include <linux/futex.h>

#include "os/clock.h"
#include "os/sys.h"
#include "os/word.h"

void fm__word_wait(_Atomic uint32_t *word, uint32_t value, int64_t timeout_ns)
{
    struct timespec ts = fm__clock_spec(timeout_ns);

    (void)fm__sys.futex((uint32_t *)word, FUTEX_WAIT, value, &ts);
}

void fm__word_wake(_Atomic uint32_t *word)
{
    (void)fm__sys.futex((uint32_t *)word, FUTEX_WAKE, INT_MAX, NULL);
}
