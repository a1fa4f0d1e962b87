/* SPDX-License-Identifier: MIT */
/*
 * A template, as its host sees it: a process that forks for us.
 *
 * Who owns what
 *   template   the host's end of the socket; the process, which is a future of
 *              the engine like any other, but not counted; commands that are
 *              not sent yet; what was sent and is not answered; the channels of
 *              its children that are in no use
 *   future     of a job that is forked there: a reference on the template
 *   engine     the list of templates
 *
 *   state  STARTING -> READY (the first command was answered)
 *          STARTING, READY -> FAILED (a command has failed, or the process has
 *          ended) | CLOSED (by us) | AWAY (its process is somebody else's now)
 *
 * Where a future of it is
 *   QUEUED     engine->queue, or template->waiting while the template takes no
 *              more, or is not ready
 *   STARTING   asked for, without a process: template->asked; then as any other
 *
 * The template's death takes nothing with it but what was asked of it: a
 * process that it has forked is a child of the host.
 */
#ifndef FM_ENGINE_TEMPLATE_H
#define FM_ENGINE_TEMPLATE_H

#include "engine/bind.h"
#include "engine/command.h"
#include "engine/engine.h"
#include "engine/watcher.h"

#include <sys/uio.h>

/* Sent and not answered: it takes no more then. */
#define FM__ASKED_MAX 16

/* What has been sent, until it is answered. */
struct fm__asked {
    uint64_t seq;
    enum fm__command_type type;
    fm_future *future;           /* of FORK; NULL: nobody wants it any more */
    struct fm__channel *channel; /* of FORK without a future */
    bool is_last;                /* CALL: it leaves then */
};

/* What has not been sent yet. */
struct fm__unsent {
    struct fm__unsent *next;
    uint32_t kind;
    bool is_last;
    int fds[FM__COMMAND_FDS]; /* copies */
    size_t n_fds;
    size_t len;
    unsigned char data[];
};

struct fm_template {
    fm_template *next, **link; /* in engine->templates */
    fm_engine *engine;         /* holds a reference */
    unsigned refs;
    enum fm__template_state state;
    int fd; /* -1 when nothing is said any more */
    struct fm__watcher watcher;
    fm_future *process;
    bool is_over;    /* the process has ended */
    bool is_leaving; /* the last call was given */
    struct fm__asked asked[FM__ASKED_MAX];
    unsigned first_asked, n_asked;
    uint64_t seq;
    struct fm__unsent *unsent, *last_unsent;
    size_t n_unsent;
    struct fm__list waiting;
    struct fm__channel *idle;  /* known to it, and free */
    struct fm__channel *empty; /* closed: their ids are given again */
    unsigned n_idle, n_channels;
    struct fm__template_failure failure;
    fm__template_cb on_change;
    void *ud;
};

/* One message on its way: a head, at most two parts of its own, a payload. */
struct fm__letter {
    struct fm__command command;
    struct iovec parts[3];
    int fds[FM__COMMAND_FDS];
    size_t n_fds;
    int file; /* of the payload; ours */
    bool is_last;
};

/* template.c */
void fm__template_fail(fm_template *template, enum fm_kind kind, int rc,
                       const char *message);

/* template_talk.c */
int fm__template_say_hello(fm_template *template);
/* Calls that wait, as far as there is room for them. */
void fm__template_send_unsent(fm_template *template);
void fm__template_drop_unsent(fm_template *template);
void fm__letter_init(struct fm__letter *letter, enum fm__command_type type,
                     uint32_t kind);
void fm__letter_done(struct fm__letter *letter);
/* The payload, which may go in a file: its descriptor is the first. */
int fm__letter_put_payload(struct fm__letter *letter, const void *data,
                           size_t len);
/* 0, -EAGAIN when the socket is full, or another negative code. */
int fm__template_send(fm_template *template, struct fm__letter *letter,
                      fm_future *future);

/* template_fork.c */
void fm__template_take_child(fm_template *template,
                             const struct fm__asked *asked,
                             const struct fm__reply *reply, const char *texts);

/* start.c, engine.c */
/* It can take this one now. */
bool fm__template_is_free(const fm_template *template);
/* Nothing comes of a future that waits for it. */
bool fm__template_is_lost(const fm_template *template);
void fm__template_refuse(fm_template *template, fm_future *future);
int fm__template_take_channel(fm_template *template,
                              struct fm__channel **ret_channel);
void fm__template_give_channel(struct fm__channel *channel, bool reusable);
/* Those that are in no use. */
void fm__template_drop_channels(fm_template *template);
/* It lasts longer than the template may. */
void fm__template_lose_channel(struct fm__channel *channel);
/* Have it fork the future's child.  0 or a negative code. */
int fm__template_ask(fm_future *future);
/* The future wants its child no more, which it has not got yet. */
void fm__template_forsake(fm_future *future);
/* The process is gone, and not reaped: what it has answered before counts, and
 * takes the children that it has forked out of its group. */
void fm__template_hear_all(fm_template *template);
/* The process of this template has ended. */
void fm__template_ended(fm_template *template);
/* Something is to come of one of them. */
bool fm__templates_are_busy(const fm_engine *engine);
/* The engine closes; and has closed. */
void fm__templates_close(fm_engine *engine);
void fm__templates_drop(fm_engine *engine);

#endif
