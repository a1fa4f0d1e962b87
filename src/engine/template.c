/* SPDX-License-Identifier: MIT */
/*
 * A template, as its host sees it: its life, what is said to it and what it
 * answers; template.h has the states, template_fork.c the children.
 */
#include "engine/template.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "os/clock.h"
#include "os/fds.h"
#include "os/sibling.h"
#include "os/signals.h"
#include "os/socket.h"
#include "os/sys.h"

#define TO(state) (1u << (state))

/* Answers read in one go. */
#define HEAR_MAX 64

/* How long its process may last after it has closed its end. */
#define LEAVE_NS (100 * FM__NS_PER_MS)

/* One row per state: where it may go next. */
static const unsigned next_states[] = {
    [FM__TEMPLATE_STARTING] = TO(FM__TEMPLATE_READY) | TO(FM__TEMPLATE_FAILED) |
                              TO(FM__TEMPLATE_CLOSED),
    [FM__TEMPLATE_READY] = TO(FM__TEMPLATE_FAILED) | TO(FM__TEMPLATE_CLOSED) |
                           TO(FM__TEMPLATE_AWAY),
    [FM__TEMPLATE_FAILED] = TO(FM__TEMPLATE_CLOSED),
    [FM__TEMPLATE_CLOSED] = 0,
    [FM__TEMPLATE_AWAY] = TO(FM__TEMPLATE_CLOSED),
};

/* ---------------------------------------------------------------- the states
 */

static bool enter(fm_template *template, enum fm__template_state to)
{
    if (!(next_states[template->state] & TO(to)))
        return false;
    template->state = to;
    return true;
}

/* Somebody may wait for this. */
static void tell(fm_template *template)
{
    template->engine->has_news = true;
    if (template->on_change)
        template->on_change(template, template->ud);
}

bool fm__template_is_lost(const fm_template *template)
{
    return template->state > FM__TEMPLATE_READY;
}

bool fm__template_is_settled(const fm_template *template)
{
    return fm__template_is_lost(template) ||
           (template->state == FM__TEMPLATE_READY && template->n_asked == 0 &&
            !template->unsent);
}

size_t fm__template_count_open(const fm_template *template)
{
    return template->n_unsent + template->n_asked;
}

/* Of a failure for which there is no memory; never freed. */
static char no_memory[] = "not enough memory to tell what went wrong";

static char *copy_text(const char *text, size_t len)
{
    char *copy = fm__sys.malloc(len + 1);

    if (!copy)
        return no_memory;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

static void free_text(char *text)
{
    if (text != no_memory)
        fm__sys.free(text);
}

static void set_failure(fm_template *template, enum fm_kind kind, int rc,
                        const char *message)
{
    struct fm__template_failure *failure = &template->failure;

    if (failure->message)
        return;
    failure->kind = kind;
    failure->error_code = rc;
    failure->exit_code = -1;
    failure->message = copy_text(message, strlen(message));
}

/* One of its texts; what was there stays when there is no memory. */
static void set_text(char **text, const char *from, size_t len)
{
    char *copy = from && len > 0 ? copy_text(from, len) : NULL;

    if (!copy)
        return;
    fm__sys.free(*text);
    *text = copy;
}

/* Nothing is sent or heard any more. */
static void stop_talking(fm_template *template)
{
    fm__watcher_remove(&template->watcher);
    fm__fd_close(&template->fd);
}

/* Those that were asked for will get no child. */
static void refuse_asked(fm_template *template)
{
    while (template->n_asked > 0) {
        struct fm__asked *asked = &template->asked[template->first_asked];

        template->first_asked = (template->first_asked + 1) % FM__ASKED_MAX;
        template->n_asked--;
        if (asked->future)
            fm__template_refuse(template, asked->future);
        else if (asked->channel)
            fm__template_give_channel(asked->channel, false);
    }
}

static void refuse_waiting(fm_template *template)
{
    while (template->waiting.first)
        fm__template_refuse(template, template->waiting.first);
}

/* Nothing more is asked of it. */
static void give_up(fm_template *template)
{
    fm__template_drop_unsent(template);
    refuse_waiting(template);
    fm__template_drop_channels(template);
}

/* With the failure set: it serves no more, and its process is of no use. */
static void fail(fm_template *template)
{
    if (!enter(template, FM__TEMPLATE_FAILED))
        return;
    give_up(template);
    if (template->process && !template->is_over)
        (void)fm__future_cancel(template->process, 0);
    tell(template);
}

void fm__template_fail(fm_template *template, enum fm_kind kind, int rc,
                       const char *message)
{
    set_failure(template, kind, rc, message);
    fail(template);
}

/* ------------------------------------------------------------------ hearing */

/* What is not ours. */
static void distrust(fm_template *template)
{
    set_failure(template, FM_PROTOCOL, FM_EPROTOCOL,
                "the template has answered with bytes that are not ours");
    stop_talking(template);
    fail(template);
    refuse_asked(template);
}

/* A command has failed: the first error is the template's. */
static void take_error(fm_template *template, const struct fm__reply *reply,
                       const char *texts)
{
    struct fm__template_failure *failure = &template->failure;

    if (reply->message_len == 0) { /* not of the code that it runs */
        set_failure(template, FM_SPAWN, reply->rc, fm_strerror(reply->rc));
    } else if (!failure->message) {
        set_failure(template,
                    reply->rc == FM_EPROTOCOL ? FM_PROTOCOL : FM_ERROR,
                    reply->rc, "");
        set_text(&failure->message, texts, reply->message_len);
        set_text(&failure->traceback, texts + reply->message_len,
                 reply->traceback_len);
    }
    fail(template);
}

/* Its process has left its loop, and does something else. */
static void let_go(fm_template *template)
{
    if (!enter(template, FM__TEMPLATE_AWAY))
        return;
    stop_talking(template);
    give_up(template);
    tell(template);
}

static void take_reply(fm_template *template, const struct fm__reply *reply,
                       const char *texts)
{
    struct fm__asked asked = template->asked[template->first_asked];

    template->first_asked = (template->first_asked + 1) % FM__ASKED_MAX;
    template->n_asked--;
    switch (asked.type) {
    case FM__COMMAND_FORK:
        fm__template_take_child(template, &asked, reply, texts);
        break;
    case FM__COMMAND_HELLO:
        if (reply->rc == 0)
            (void)enter(template, FM__TEMPLATE_READY);
        else
            take_error(template, reply, texts);
        break;
    case FM__COMMAND_CALL:
    case FM__COMMAND_FORGET:
        if (reply->rc < 0)
            take_error(template, reply, texts);
        else if (asked.is_last)
            let_go(template);
        break;
    }
}

static bool is_honest(const fm_template *template,
                      const struct fm__reply *reply, size_t len)
{
    return len >= sizeof *reply && reply->magic == FM__REPLY_MAGIC &&
           reply->rc <= 0 && template->n_asked > 0 &&
           reply->seq == template->asked[template->first_asked].seq &&
           reply->message_len <= FM__REPLY_TEXT &&
           reply->traceback_len <= FM__REPLY_TEXT &&
           len == sizeof *reply + reply->message_len + reply->traceback_len;
}

/* When it has ended without having read all, that is told first, once; what it
 * has said before is still there. */
static long recv_reply(const fm_template *template, char *buffer, size_t size)
{
    size_t n_fds = 0;
    long n = fm__socket_recv(template->fd, buffer, size, NULL, &n_fds);

    if (n == -ECONNRESET)
        n = fm__socket_recv(template->fd, buffer, size, NULL, &n_fds);
    return n;
}

/* One answer.  False when there is no more. */
static bool hear_one(fm_template *template)
{
    char buffer[sizeof(struct fm__reply) + 2 * FM__REPLY_TEXT];
    struct fm__reply reply;
    long n;

    if (template->fd < 0)
        return false;
    n = recv_reply(template, buffer, sizeof buffer);
    if (n == -EAGAIN || n == -EINTR)
        return false;
    if (n == 0 || n == -ECONNRESET) {
        stop_talking(template); /* its process ends, or is ended */
        if (template->process && !template->is_over)
            fm__attempt_expect_end(template->process, fm__clock_now(),
                                   LEAVE_NS);
        return false;
    }
    memset(&reply, 0, sizeof reply);
    if (n > 0)
        memcpy(&reply, buffer,
               (size_t)n < sizeof reply ? (size_t)n : sizeof reply);
    if (n < 0 || !is_honest(template, &reply, (size_t)n)) {
        distrust(template);
        return false;
    }
    take_reply(template, &reply, buffer + sizeof reply);
    return true;
}

/* More can be asked of it. */
static void go_on(fm_template *template)
{
    fm_engine *engine = template->engine;
    unsigned room;

    fm__template_send_unsent(template);
    room = FM__ASKED_MAX - template->n_asked;
    while (template->waiting.first && room > 0 && !template->unsent &&
           template->state == FM__TEMPLATE_READY) {
        fm_future *future = template->waiting.first;

        fm__list_remove(future);
        fm__list_append(&engine->queue, future);
        room--;
    }
    if (fm__template_is_settled(template))
        tell(template);
}

static void hear(struct fm__watcher *watcher, unsigned events)
{
    fm_template *template = watcher->ud;

    (void)events;
    template->refs++;
    for (int i = 0; i < HEAR_MAX && hear_one(template); i++)
        ;
    go_on(template);
    fm__template_unref(template);
}

/* --------------------------------------------------------------------- end */

/* Errors of the code that it runs are those of commands. */
static enum fm_kind kind_of_end(enum fm_kind kind)
{
    if (kind == FM_ERROR)
        return FM_SPAWN;
    if (kind == FM_VALUE || kind == FM_CANCELLED || kind == FM_PROTOCOL)
        return FM_EXIT;
    return kind;
}

static void describe_end(fm_template *template)
{
    const struct fm_outcome *end = &template->process->outcome;
    struct fm__template_failure *failure = &template->failure;
    const char *name = fm__signal_name(end->signal);
    char text[256];

    if (failure->message)
        return;
    if (template->state == FM__TEMPLATE_AWAY && end->kind == FM_ERROR) {
        set_failure(template, FM_ERROR, 0, no_memory);
        set_text(&failure->message, end->message,
                 end->message ? strlen(end->message) : 0);
        set_text(&failure->traceback, end->traceback,
                 end->traceback ? strlen(end->traceback) : 0);
        return;
    }
    if (end->kind == FM_SPAWN)
        (void)snprintf(text, sizeof text, "the template was not started: %s",
                       end->message ? end->message : fm_strerror(-EAGAIN));
    else if (end->kind == FM_ERROR)
        (void)snprintf(text, sizeof text, "the template does not serve: %s",
                       end->message ? end->message : no_memory);
    else if (end->signal != 0)
        (void)snprintf(text, sizeof text, "the template was killed by %s",
                       name ? name : "a signal");
    else if (end->exit_code >= 0)
        (void)snprintf(text, sizeof text, "the template ended with code %d",
                       end->exit_code);
    else
        (void)snprintf(text, sizeof text, "the template has ended");
    set_failure(template, kind_of_end(end->kind), end->error_code, text);
    failure->signal = end->signal;
    failure->exit_code = end->exit_code;
    failure->pid = end->pid;
}

void fm__template_hear_all(fm_template *template)
{
    while (hear_one(template))
        ;
}

/* The process is gone and its outcome decided. */
void fm__template_ended(fm_template *template)
{
    fm__template_hear_all(template);
    template->is_over = true;
    template->process->serves = NULL;
    stop_talking(template);
    describe_end(template);
    fail(template);
    refuse_asked(template);
    tell(template);
    fm__template_unref(template); /* that of the process */
}

static void close_template(fm_template *template, int64_t grace_ns)
{
    if (!enter(template, FM__TEMPLATE_CLOSED))
        return;
    give_up(template);
    if (template->fd >= 0) /* it carries out what it was sent, then ends */
        (void)fm__socket_end(template->fd);
    if (template->process && !template->is_over) {
        fm__attempt_expect_end(template->process, fm__clock_now(), grace_ns);
    }
    tell(template);
}

void fm__template_close(fm_template *template, int64_t grace_ns)
{
    fm_engine *engine = template->engine;

    if (!fm__engine_is_ours(engine) || engine->closed) {
        (void)enter(template, FM__TEMPLATE_CLOSED);
        return;
    }
    if (!fm__engine_enter(engine))
        return; /* by a signal handler */
    close_template(template, grace_ns);
    fm__engine_leave(engine);
}

void fm__templates_close(fm_engine *engine)
{
    fm_template *next;

    for (fm_template *t = engine->templates; t; t = next) {
        next = t->next;
        t->refs++;
        (void)enter(t, FM__TEMPLATE_CLOSED);
        give_up(t);
        while (t->n_asked > 0 && t->fd >= 0 && hear_one(t))
            ;
        fm__template_unref(t);
    }
}

void fm__templates_drop(fm_engine *engine)
{
    for (fm_template *t = engine->templates; t; t = t->next) {
        refuse_asked(t);
        stop_talking(t);
        fm__template_drop_channels(t);
    }
}

/* ------------------------------------------------------------ first and last
 */

static void unlink_template(fm_template *template)
{
    if (!template->link)
        return;
    *template->link = template->next;
    if (template->next)
        template->next->link = template->link;
    template->link = NULL;
}

static void free_template(fm_template *template)
{
    fm_engine *engine = template->engine;

    if (fm__engine_is_ours(engine)) {
        stop_talking(template);
        fm__template_drop_unsent(template);
    }
    fm__template_drop_channels(template);
    unlink_template(template);
    fm_future_unref(template->process);
    free_text(template->failure.message);
    free_text(template->failure.traceback);
    fm__sys.free(template);
    fm__engine_unref(engine);
}

/* The engine has one of its own while the process lives. */
void fm__template_unref(fm_template *template)
{
    if (template && --template->refs == 0)
        free_template(template);
}

static int open_socket(fm_template *template, int *ret_child_end)
{
    int fds[2];
    int rc = fm__socket_pair(fds, SOCK_SEQPACKET | SOCK_NONBLOCK);

    if (rc < 0)
        return rc;
    template->fd = fds[0];
    template->watcher.fn = hear;
    template->watcher.ud = template;
    *ret_child_end = fds[1];
    return fm__watcher_add(template->engine, &template->watcher, fds[0],
                           FM__POLL_IN);
}

static int start_process(fm_template *template,
                         const struct fm__template_opts *opts, int child_end)
{
    struct fm__work work = {.fn = opts->fn,
                            .ud = opts->ud,
                            .argv = opts->argv,
                            .origin = opts->argv ? NULL : opts->from,
                            .errand = opts->errand,
                            .serves = template,
                            .socket = child_end};

    return fm__spawn(template->engine, opts->job, &work, &template->process);
}

static fm_template *alloc_template(fm_engine *engine,
                                   const struct fm__template_opts *opts)
{
    fm_template *template = fm__sys.calloc(1, sizeof *template);

    if (!template)
        return NULL;
    template->refs = 1;
    template->fd = -1;
    template->engine = engine;
    template->on_change = opts->on_change;
    template->ud = opts->cb_ud;
    engine->refs++;
    return template;
}

bool fm__has_templates(void)
{
    return fm__sibling_is_possible();
}

int fm__template_new(fm_engine *engine, const struct fm__template_opts *opts,
                     fm_template **ret_template)
{
    fm_template *template;
    int child_end = -1;
    int rc;

    if (!fm__engine_is_ours(engine) || engine->closed)
        return FM_ECLOSED;
    if (!fm__sibling_is_possible())
        return -ENOSYS;
    if (!fm__engine_enter(engine))
        return FM_EBUSY;
    template = alloc_template(engine, opts);
    if (!template) {
        fm__engine_exit(engine);
        return -ENOMEM;
    }
    rc = open_socket(template, &child_end);
    if (rc == 0)
        rc = fm__template_say_hello(template);
    if (rc == 0) {
        template->next = engine->templates;
        template->link = &engine->templates;
        if (template->next)
            template->next->link = &template->next;
        engine->templates = template;
        template->refs++; /* the process has one while it lives */
        rc = start_process(template, opts, child_end);
    }
    if (rc < 0) {
        fm__fd_close(&child_end);
        free_template(template);
        fm__engine_exit(engine);
        return rc;
    }
    *ret_template = template;
    fm__engine_leave(engine);
    return 0;
}

void fm__template_forget_change(fm_template *template)
{
    template->on_change = NULL;
}

enum fm__template_state fm__template_get_state(const fm_template *template)
{
    return template->state;
}

const struct fm__template_failure *
fm__template_get_failure(const fm_template *template)
{
    return &template->failure;
}

pid_t fm__template_get_pid(const fm_template *template)
{
    if (!template->process || template->is_over)
        return 0;
    return fm_future_get_pid(template->process);
}
