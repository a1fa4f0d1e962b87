/* SPDX-License-Identifier: MIT */
/*
 * The children of a template: asked for by their futures, forked there, ours.
 *
 *   QUEUED -> asked (STARTING, no process) -> forked (STARTING, with one)
 *
 * A future that is cancelled while it is asked for settles at once; the child,
 * when it comes, is refused at its gate, and reaped here.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "engine/line.h"
#include "engine/template.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/sys.h"

/* Channels kept for the next children of one template. */
#define IDLE_MAX FM__ASKED_MAX

bool fm__template_is_free(const fm_template *template)
{
    return template->state == FM__TEMPLATE_READY && !template->unsent &&
           template->fd >= 0 && !template->is_leaving &&
           template->n_asked < FM__ASKED_MAX;
}

/* One that rests is heard of when it dies, but nobody waits for that. */
bool fm__templates_are_busy(const fm_engine *engine)
{
    for (const fm_template *t = engine->templates; t; t = t->next) {
        if (!t->is_over && (t->state == FM__TEMPLATE_STARTING ||
                            t->state == FM__TEMPLATE_FAILED ||
                            t->state == FM__TEMPLATE_CLOSED || t->n_asked > 0 ||
                            t->unsent || t->waiting.first))
            return true;
    }
    return false;
}

/* ----------------------------------------------------------------- channels */

static void push(struct fm__channel **list, struct fm__channel *channel)
{
    channel->next = *list;
    *list = channel;
}

static struct fm__channel *pop(struct fm__channel **list)
{
    struct fm__channel *channel = *list;

    if (channel)
        *list = channel->next;
    return channel;
}

/* The template has a place for each id for ever, so they are given again. */
static int new_channel(fm_template *template, struct fm__channel **ret_channel)
{
    struct fm__channel *channel = pop(&template->empty);
    unsigned id = channel ? channel->id : template->n_channels;
    int rc;

    if (!channel) {
        channel = fm__sys.malloc(sizeof *channel);
        if (!channel)
            return -ENOMEM;
        template->n_channels++;
    }
    rc = fm__channel_open_file(channel);
    channel->owner = template;
    channel->id = id;
    if (rc < 0)
        push(&template->empty, channel);
    else
        *ret_channel = channel;
    return rc;
}

int fm__template_take_channel(fm_template *template,
                              struct fm__channel **ret_channel)
{
    struct fm__channel *channel = pop(&template->idle);

    if (!channel)
        return new_channel(template, ret_channel);
    template->n_idle--;
    fm__channel_clear(channel);
    *ret_channel = channel;
    return 0;
}

/* The template lets go of its descriptor.  When that cannot be said now, it is
 * one too many there until its end. */
static void forget_channel(fm_template *template, unsigned id)
{
    struct fm__letter letter;

    if (template->state != FM__TEMPLATE_READY || template->is_leaving)
        return;
    fm__letter_init(&letter, FM__COMMAND_FORGET, id);
    (void)fm__template_send(template, &letter, NULL);
}

void fm__template_give_channel(struct fm__channel *channel, bool reusable)
{
    fm_template *template = channel->owner;

    if (reusable && !fm__template_is_lost(template) &&
        template->n_idle < IDLE_MAX && channel->lifeline.write_fd >= 0) {
        push(&template->idle, channel);
        template->n_idle++;
        return;
    }
    if (channel->fd < 0)
        forget_channel(template, channel->id);
    fm__channel_close(channel);
    push(&template->empty, channel);
}

void fm__template_lose_channel(struct fm__channel *channel)
{
    channel->owner = NULL;
}

void fm__template_drop_channels(fm_template *template)
{
    struct fm__channel *channel;

    while ((channel = pop(&template->idle)) != NULL) {
        /* In a forked process nothing of it is ours but the memory. */
        if (fm__engine_is_ours(template->engine))
            fm__channel_close(channel);
        fm__sys.free(channel);
    }
    while ((channel = pop(&template->empty)) != NULL)
        fm__sys.free(channel);
    template->n_idle = 0;
}

/* ------------------------------------------------------------------- asking */

static void fill_order(struct fm__fork_order *order, const fm_future *future)
{
    memset(order, 0, sizeof *order);
    order->job = future->job;
    order->seed[0] = future->seed[0];
    order->seed[1] = future->seed[1];
    order->channel = future->channel->id;
    order->attempt = future->attempt;
    order->is_worker = future->member || future->duplex;
    order->opts = future->opts;
}

static void add_fd(struct fm__letter *letter, int fd, unsigned flag)
{
    if (fd < 0)
        return;
    letter->fds[letter->n_fds++] = fd;
    letter->command.flags |= (uint16_t)flag;
}

static size_t name_len(const fm_future *future)
{
    return future->opts.name ? strnlen(future->opts.name, FM__COMMAND_NAME) : 0;
}

static int send_order(fm_template *template, fm_future *future,
                      struct fm__letter *letter)
{
    const struct fm__errand *errand = future->errand;
    struct fm__fork_order order;
    int rc;

    fill_order(&order, future);
    order.name_len = (uint32_t)name_len(future);
    letter->parts[0] = (struct iovec){&order, sizeof order};
    letter->parts[1] =
        (struct iovec){(void *)(uintptr_t)future->opts.name, order.name_len};
    rc = fm__letter_put_payload(letter, errand->data, errand->len);
    if (rc < 0)
        return rc;
    add_fd(letter, future->channel->fd, FM__WITH_CHANNEL);
    add_fd(letter, future->channel->lifeline.read_fd, FM__WITH_LIFELINE);
    add_fd(letter, future->outputs[0].write_fd, FM__WITH_OUTPUT);
    add_fd(letter, future->outputs[1].write_fd, FM__WITH_ERRORS);
    add_fd(letter, future->socket, FM__WITH_SOCKET);
    if (future->duplex) {
        add_fd(letter, future->duplex->file, FM__WITH_DESK);
        add_fd(letter, future->duplex->bell.hear_fd, FM__WITH_DESK);
    }
    return fm__template_send(template, letter, future);
}

int fm__template_ask(fm_future *future)
{
    struct fm__letter letter;
    int rc;

    if (future->duplex) {
        rc = fm__duplex_open_file(future->duplex);
        if (rc < 0)
            return rc;
    }
    fm__letter_init(&letter, FM__COMMAND_FORK, future->errand->kind);
    rc = send_order(future->origin, future, &letter);
    fm__letter_done(&letter);
    if (rc < 0)
        return rc;
    fm__fd_close(&future->channel->fd); /* it has them now */
    if (future->duplex)
        fm__fd_close(&future->duplex->file);
    future->is_asked = true;
    return 0;
}

/* ------------------------------------------------------------------- coming */

/* Our child, at its gate, which nobody wants: the engine reaps it when it has
 * left.  Without memory for that, it is reaped with the template, of whose
 * group it is. */
static void dispose(fm_template *template, struct fm__channel *channel,
                    pid_t pid)
{
    struct fm__parked *parked = fm__sys.calloc(1, sizeof *parked);

    fm__flight_set_gate(channel->flight, FM__GATE_REFUSED);
    if (!parked) {
        fm__template_give_channel(channel, false);
        return;
    }
    parked->pid = (struct fm__pid)FM__PID_INIT;
    if (fm__pid_open(&parked->pid, pid) < 0)
        parked->pid.pid = pid;
    (void)fm__pid_signal(&parked->pid, SIGKILL);
    fm__template_lose_channel(channel);
    parked->channel = channel;
    fm__attempt_park(template->engine, parked);
}

/* A child is at its gate, in the group of its template: no other process can
 * be meant, whatever the template says.  0 or a negative code. */
static int check_child(const fm_template *template, pid_t pid)
{
    pid_t group = template->process->pid.pid;
    pid_t found;

    if (pid <= 0 || group <= 0 || pid == group)
        return FM_EPROTOCOL;
    found = fm__sys.getpgid(pid);
    if (found < 0)
        return -errno; /* somebody has killed it, and somebody reaped it */
    return found == group ? 0 : FM_EPROTOCOL;
}

/* SIGKILL was sent to its group. */
static bool is_condemned(const fm_template *template)
{
    return template->process->stop == FM__STOP_FORCED;
}

static void unmake(fm_template *template, fm_future *future, int rc,
                   const struct fm__reply *reply, const char *texts)
{
    size_t len = reply->message_len;
    char message[128];

    len = len < sizeof message ? len : sizeof message - 1;
    memcpy(message, texts, len);
    message[len] = '\0';
    if (fm__template_is_lost(template))
        fm__template_refuse(template, future);
    else
        fm__attempt_unmade(future, FM_SPAWN, rc, len > 0 ? message : NULL);
}

void fm__template_take_child(fm_template *template,
                             const struct fm__asked *asked,
                             const struct fm__reply *reply, const char *texts)
{
    fm_future *future = asked->future;
    int rc = reply->rc < 0 ? reply->rc : check_child(template, reply->pid);

    if (future)
        future->is_asked = false;
    if (rc == 0 && future && !is_condemned(template)) {
        fm__attempt_launched(future, reply->pid);
        return;
    }
    if (rc == 0 && future) {
        /* Dead before it was ours: it has not begun. */
        dispose(template, future->channel, reply->pid);
        future->channel = NULL;
        fm__template_refuse(template, future);
    } else if (rc == 0) {
        dispose(template, asked->channel, reply->pid);
    } else if (future) {
        unmake(template, future, rc, reply, texts);
    } else {
        fm__template_give_channel(asked->channel, false);
    }
}

static struct fm__asked *find_asked(fm_template *template,
                                    const fm_future *future)
{
    for (unsigned i = 0; i < template->n_asked; i++) {
        unsigned at = (template->first_asked + i) % FM__ASKED_MAX;

        if (template->asked[at].future == future)
            return &template->asked[at];
    }
    return NULL;
}

void fm__template_forsake(fm_future *future)
{
    struct fm__asked *asked = find_asked(future->origin, future);

    future->is_asked = false;
    if (!asked)
        return;
    asked->future = NULL;
    asked->channel = future->channel;
    future->channel = NULL;
}

/* Its failure, for who was to be forked off it. */
static void describe(const fm_template *template, struct fm_outcome *outcome)
{
    const struct fm__template_failure *failure = &template->failure;

    memset(outcome, 0, sizeof *outcome);
    outcome->exit_code = -1;
    if (template->state == FM__TEMPLATE_FAILED) {
        outcome->kind = failure->kind == FM_ERROR ? FM_ERROR : FM_SPAWN;
        outcome->message = failure->message;
        outcome->traceback = failure->traceback;
        outcome->error_code = failure->error_code;
        return;
    }
    outcome->kind = FM_CLOSED;
    outcome->message = "the template is closed";
}

void fm__template_refuse(fm_template *template, fm_future *future)
{
    struct fm_outcome outcome;

    describe(template, &outcome);
    future->is_asked = false;
    if (future->state == FM_STARTING)
        fm__attempt_give_back(future, false);
    fm__attempt_refused(future, &outcome);
}

int fm__template_spawn(fm_template *template, const struct fm_job_opts *opts,
                       const struct fm__errand *errand, fm_future **ret_future)
{
    const struct fm__work work = {.origin = template, .errand = errand};

    return fm__host_spawn(template->engine, opts, &work, ret_future);
}
