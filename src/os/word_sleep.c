/* SPDX-License-Identifier: MIT */
/* Words in shared memory without a futex: look again every half millisecond.
 * Nothing is lost by a waker that does not wake. */
#include "os/clock.h"
#include "os/sys.h"
#include "os/word.h"

#define NAP_NS (FM__NS_PER_MS / 2)

void fm__word_wait(_Atomic uint32_t *word, uint32_t value, int64_t timeout_ns)
{
    struct timespec ts =
        fm__clock_spec(timeout_ns < NAP_NS ? timeout_ns : NAP_NS);

    if (atomic_load(word) == value)
        (void)fm__sys.nanosleep(&ts, NULL);
}

void fm__word_wake(_Atomic uint32_t *word)
{
    (void)word;
}
