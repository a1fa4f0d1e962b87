/* SPDX-License-Identifier: MIT */
/* The recorder page and the gate; see flight.h. */
#include "process/flight.h"

#include <errno.h>
#include <string.h>

#include "os/clock.h"
#include "os/sys.h"
#include "os/word.h"

void fm__flight_note(struct fm__flight *flight, const char *where)
{
    size_t len = strlen(where);

    if (len >= FM__FLIGHT_WHERE)
        len = FM__FLIGHT_WHERE - 1;
    memcpy(flight->where, where, len);
    flight->where[len] = '\0';
    atomic_fetch_add(&flight->notes, 1);
}

void fm__flight_read(struct fm__flight *flight,
                     char ret_where[FM__FLIGHT_WHERE])
{
    memcpy(ret_where, flight->where, FM__FLIGHT_WHERE);
    ret_where[FM__FLIGHT_WHERE - 1] = '\0';
    for (char *p = ret_where; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
}

/* How long the child sleeps before it looks whether its parent still lives:
 * the lifeline kills it then, this is the second net. */
#define GATE_NAP_NS (100 * FM__NS_PER_MS)

int fm__flight_pass_gate(struct fm__flight *flight, int parent)
{
    for (;;) {
        uint32_t gate = FM__GATE_SHUT;

        if (atomic_compare_exchange_strong(&flight->gate, &gate,
                                           FM__GATE_WAITED_AT))
            gate = FM__GATE_WAITED_AT;
        if (gate == FM__GATE_OPEN)
            return 0;
        if (gate != FM__GATE_WAITED_AT || fm__sys.getppid() != parent)
            return -ECANCELED;
        fm__word_wait(&flight->gate, FM__GATE_WAITED_AT, GATE_NAP_NS);
    }
}

bool fm__flight_enter(struct fm__flight *flight, enum fm__stage from,
                      enum fm__stage to)
{
    uint32_t stage = from;

    return atomic_compare_exchange_strong(&flight->stage, &stage, to);
}

bool fm__flight_condemn(struct fm__flight *flight, enum fm__stage from)
{
    return fm__flight_enter(flight, from, FM__STAGE_CONDEMNED);
}

bool fm__flight_has_begun(struct fm__flight *flight)
{
    uint32_t stage = atomic_load(&flight->stage);

    return stage != FM__STAGE_START && stage != FM__STAGE_TRYING &&
           stage != FM__STAGE_CONDEMNED;
}

void fm__flight_set_gate(struct fm__flight *flight, enum fm__gate gate)
{
    if (atomic_exchange(&flight->gate, gate) == FM__GATE_WAITED_AT)
        fm__word_wake(&flight->gate);
}
