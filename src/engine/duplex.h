/* SPDX-License-Identifier: MIT */
/*
 * A duplex job: one that is given calls while it runs, and tells what became of
 * each.  It is an ordinary job beside that (start.c, attempt.c): with its own
 * gate, lifeline, limits, output and outcome.  Workers of pools are such jobs.
 *
 * A call is known by a number that the worker gets with it.  It is given, then
 * begun, then ended, and what it gave waits as a message; or it is taken back
 * before it is begun.  Calls that have not ended when the job has settled say
 * whether they were begun.  What a worker says of a call that it does not have
 * ends the worker, with kind FM_PROTOCOL.
 *
 * Internal: shared with src/lua, no promise to hosts.
 */
#ifndef FM_ENGINE_DUPLEX_H
#define FM_ENGINE_DUPLEX_H

#include "engine/bind.h"
#include "fork_map.h"
#include "process/desk.h"
#include "wire/frame.h"

/* ------------------------------------------------------------- the parent */

/* Messages have come; fm__duplex_hear() has them.  Called from a step, once
 * until all of them were heard.  May not change anything of the engine. */
typedef void (*fm__news_cb)(fm_future *future, void *ud);

/* As fm_spawn().  `opts` are without retries: who gives calls knows what to do
 * when their worker has ended. */
int fm__spawn_duplex(fm_engine *engine, const struct fm_job_opts *opts,
                     fm_job_fn fn, void *ud, fm_future **ret_future);

/* The same in a process forked off the template, where the errand is run. */
int fm__template_spawn_duplex(fm_template *template,
                              const struct fm_job_opts *opts,
                              const struct fm__errand *errand,
                              fm_future **ret_future);

bool fm__future_is_duplex(const fm_future *future);

/* Register the one listener. */
void fm__duplex_on_news(fm_future *future, fm__news_cb cb, void *ud);

/* What is given: bytes, their format, and a number that the worker is told with
 * them. */
struct fm__gift {
    const void *data;
    size_t len;
    int format;
    uint64_t tag;
};

/* Give it a call, when it has said FM__TELL_READY.  Returns 1, or 0 when there
 * was no room for all of it: then the bytes have to stay where they are until
 * fm__duplex_is_sent() or the end of the call.  Or -EAGAIN when it has as many
 * calls as it can, FM_ECLOSED when it is ending. */
int fm__duplex_give(fm_future *future, const struct fm__gift *gift,
                    uint64_t *ret_number);
bool fm__duplex_is_sent(const fm_future *future, uint64_t number);

/* True when the call was not begun, and never will be here. */
bool fm__duplex_take_back(fm_future *future, uint64_t number);

/* When it was begun, by the monotonic clock, as the worker says; 0 when it was
 * not.  Of a job that has settled too, while the call has not ended. */
int64_t fm__duplex_begun_at(const fm_future *future, uint64_t number);

/* It is to begin no more calls, and to end when it has ended those it has. */
void fm__duplex_order_leave(fm_future *future);

/* As fm_future_cancel(), with this kind as the reason: FM_TIMEOUT asks where it
 * is first. */
int fm__duplex_stop(fm_future *future, enum fm_kind kind, int64_t grace_ns);

/* Read what it has said so far, without a step. */
void fm__duplex_listen(fm_future *future);

struct fm__message {
    uint64_t call; /* 0: of none; FM__TELL_VALUE and above have ended it */
    enum fm__tell_what what;
    int format; /* FM__TELL_NO_DATA: there are none */
    const void *data;
    size_t len;
    const char *first, *second; /* terminated */
    int64_t begun_at;           /* of a call, by the clock of this process */
};

/* The next message; what `message` points to is good until the next call of
 * this.  1, 0 when there is none, or -ENOMEM. */
int fm__duplex_hear(fm_future *future, struct fm__message *message);

#endif
