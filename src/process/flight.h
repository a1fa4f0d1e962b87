/* SPDX-License-Identifier: MIT */
/*
 * The flight recorder: one struct in memory shared by a child and its parent.
 * It survives the child, so it tells where a killed one was.
 *
 * The child writes, the parent reads what it can check: words are loaded once,
 * text is copied, cut and terminated before it is used.  Nothing in it decides
 * an outcome.
 */
#ifndef FM_PROCESS_FLIGHT_H
#define FM_PROCESS_FLIGHT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FM__FLIGHT_WHERE 120

enum fm__stage {
    FM__STAGE_START,    /* before the gate, or putting itself in order */
    FM__STAGE_TRYING,   /* takes locks that it may hang on, see locks.h */
    FM__STAGE_RUN,      /* the job function runs */
    FM__STAGE_LEAVING,  /* the job is over; END follows */
    FM__STAGE_CONDEMNED /* may not run any more, the parent kills it */
};

enum fm__gate {
    FM__GATE_SHUT,
    FM__GATE_WAITED_AT, /* shut, and the child sleeps on it */
    FM__GATE_OPEN,
    FM__GATE_REFUSED /* the parent has given up: leave at once */
};

struct fm__flight {
    _Atomic uint32_t gate;    /* enum fm__gate */
    _Atomic uint32_t stage;   /* enum fm__stage */
    _Atomic uint32_t sampler; /* signal that asks for a sample, 0: none */
    _Atomic uint32_t notes;   /* how many notes were finished */
    char where[FM__FLIGHT_WHERE];
};

/* Child: publish where it is.  Async-signal-safe. */
void fm__flight_note(struct fm__flight *flight, const char *where);

/* Parent: a copy of the last note, terminated, control characters replaced;
 * "" when there is none. */
void fm__flight_read(struct fm__flight *flight,
                     char ret_where[FM__FLIGHT_WHERE]);

/* Child: wait until the parent opens the gate.  Returns 0, or -ECANCELED when
 * the parent refused or is gone. */
int fm__flight_pass_gate(struct fm__flight *flight, int parent);

/* Child: go from one stage to the next.  False when the parent has condemned
 * this child. */
bool fm__flight_enter(struct fm__flight *flight, enum fm__stage from,
                      enum fm__stage to);

/* Parent: has the job begun? */
bool fm__flight_has_begun(struct fm__flight *flight);

/* Parent: let a child in stage `from`, before its job, not go on.  False when
 * it is in another one. */
bool fm__flight_condemn(struct fm__flight *flight, enum fm__stage from);

/* Parent: open it, or refuse. */
void fm__flight_set_gate(struct fm__flight *flight, enum fm__gate gate);

#endif
