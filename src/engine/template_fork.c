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
#include <poll.h>
#include <signal.h>
#include <string.h>

#include "engine/line.h"
#include "engine/template.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/sys.h"

/* Channels kept for the next children of one template. */
#define IDLE_MAX FM__ASKED_MAX

/* A child that is refused leaves at once. */
#define LEAVE_NS (100 * FM__NS_PER_MS)

bool fm__template_is_free(const fm_template *template)
{
    return template->state == FM__TEMPLATE_READY && !template->unsent &&
           !template->is_leaving && template->n_asked < FM__ASKED_MAX;
}

/* ----------------------------------------------------------------- channels */

int fm__template_take_channel(fm_template *template,
                              struct fm__channel **ret_channel)
{
    struct fm__channel *channel = template->idle;
    int rc;

    if (channel) {
        template->idle = channel->next;
        template->n_idle--;
        fm__channel_clear(channel);
        *ret_channel = channel;
        return 0;
    }
    channel = fm__sys.malloc(sizeof *channel);
    if (!channel)
        return -ENOMEM;
    rc = fm__channel_open_file(channel);
    if (rc < 0) {
        fm__sys.free(channel);
        return rc;
    }
    channel->owner = template;
    channel->id = template->n_channels++;
    *ret_channel = channel;
    return 0;
}

/* The template lets go of its descriptor.  When that cannot be said now, it is
 * one too many there until its end. */
static void forget_channel(fm_template *template, unsigned id)
{
    struct fm__letter letter;

    if (template->state != FM__TEMPLATE_READY)
        return;
    fm__letter_init(&letter, FM__COMMAND_FORGET, id);
    (void)fm__template_send(template, &letter, NULL);
}

void fm__template_give_channel(struct fm__channel *channel, bool reusable)
{
    fm_template *template = channel->owner;

    if (reusable && !fm__template_is_lost(template) &&
        template->n_idle < IDLE_MAX && channel->lifeline.write_fd >= 0) {
        channel->next = template->idle;
        template->idle = channel;
        template->n_idle++;
        return;
    }
    if (channel->fd < 0)
        forget_channel(template, channel->id);
    fm__channel_close(channel);
    fm__sys.free(channel);
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

/* Our child, at its gate, which nobody wants. */
static void dispose(fm_template *template, struct fm__channel *channel,
                    pid_t pid)
{
    struct fm__pid handle = FM__PID_INIT;
    struct fm__exit_status status;
    struct pollfd end = {.events = POLLIN};
    bool is_empty = false;

    (void)template;
    fm__flight_set_gate(channel->flight, FM__GATE_REFUSED);
    if (fm__pid_open(&handle, pid) == 0) {
        (void)fm__pid_signal(&handle, SIGKILL);
        end.fd = fm__pid_fd(&handle);
        if (end.fd >= 0)
            (void)fm__sys.poll(&end, 1, (int)(LEAVE_NS / FM__NS_PER_MS));
        (void)fm__pid_reap(&handle, &status, &is_empty);
    }
    fm__pid_close(&handle);
    fm__template_give_channel(channel, is_empty);
}

void fm__template_take_child(fm_template *template,
                             const struct fm__asked *asked,
                             const struct fm__reply *reply, const char *texts)
{
    fm_future *future = asked->future;

    if (!future) {
        if (reply->rc == 0 && reply->pid > 0)
            dispose(template, asked->channel, reply->pid);
        else
            fm__template_give_channel(asked->channel, false);
        return;
    }
    future->is_asked = false;
    if (reply->rc == 0 && reply->pid > 0) {
        fm__attempt_launched(future, reply->pid);
        return;
    }
    if (fm__template_is_lost(template)) {
        fm__template_refuse(template, future);
        return;
    }
    fm__attempt_unmade(future, FM_SPAWN,
                       reply->rc < 0 ? reply->rc : FM_EPROTOCOL,
                       reply->message_len > 0 ? texts : NULL);
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
    if (future->channel)
        fm__attempt_give_back(future);
    fm__attempt_refused(future, &outcome);
}

int fm__template_spawn(fm_template *template, const struct fm_job_opts *opts,
                       const struct fm__errand *errand, fm_future **ret_future)
{
    fm_engine *engine = template->engine;
    struct fm__work work = {.origin = template, .errand = errand};
    int rc;

    if (!fm__engine_is_ours(engine) || engine->closed)
        return FM_ECLOSED;
    if (opts && fm_job_opts_error(opts))
        return -EINVAL;
    if (!fm__engine_enter(engine))
        return FM_EBUSY;
    rc = fm__spawn(engine, opts, &work, ret_future);
    if (rc < 0)
        fm__engine_exit(engine);
    else
        fm__engine_leave(engine);
    return rc;
}
