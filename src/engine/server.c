/* SPDX-License-Identifier: MIT */
/*
 * A template from the inside: what its host asks for, one command after the
 * other, until the host is gone or a call says to leave.
 *
 * Who owns what: the server has the socket, the bell and one file for each
 * channel of the host, and hands descriptors that come with a command on to
 * what that is.  It holds nothing of its children: they are the host's.
 *
 * Whatever fails is the answer; only a socket that cannot be read or written
 * ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "engine/bind.h"
#include "engine/command.h"
#include "os/bell.h"
#include "os/fds.h"
#include "os/memory.h"
#include "os/proc.h"
#include "os/sibling.h"
#include "os/socket.h"
#include "os/sys.h"
#include "process/child.h"
#include "process/stdio.h"

#define MESSAGE_MAX                                                            \
    (sizeof(struct fm__command) + sizeof(struct fm__fork_order) +              \
     FM__COMMAND_NAME + FM__COMMAND_INLINE)

struct fm__server {
    const struct fm__server_calls *calls;
    int fd;
    int null_fd;
    struct fm__bell bell;
    bool is_met;     /* HELLO has come */
    bool has_failed; /* a call: nothing else is carried out */
    struct fm__hello hello;
    int *channels; /* by their ids, -1 where there is none */
    size_t n_channels;
    char message[FM__REPLY_TEXT], traceback[FM__REPLY_TEXT];
};

/* One command and what came with it. */
struct order {
    struct fm__command head;
    const unsigned char *body; /* behind the head: what its type says */
    size_t body_len;
    int fds[FM__COMMAND_FDS];
    size_t n_fds, next_fd;
    void *file; /* the payload, when that is a mapped file */
    pid_t pid;  /* of FORK: the answer */
    int rc;     /* negative: what came along was lost, for want of room here */
};

/* -------------------------------------------------------------------- texts */

/* As much as fits, without half of a character of UTF-8 at its end. */
static void cut_text(char *to, const char *text)
{
    size_t len = text ? strnlen(text, FM__REPLY_TEXT - 1) : 0;

    if (len > 0)
        memcpy(to, text, len);
    if (len == FM__REPLY_TEXT - 1) {
        while (len > 0 && ((unsigned char)to[len - 1] & 0xc0) == 0x80)
            len--;
        if (len > 0 && (unsigned char)to[len - 1] >= 0xc0)
            len--;
    }
    to[len] = '\0';
}

void fm__server_fail(struct fm__server *server, const char *message,
                     const char *traceback)
{
    cut_text(server->message, message);
    cut_text(server->traceback, traceback);
}

/* A code of our own making: it tells more than its name. */
static int refuse(struct fm__server *server, int rc, const char *what)
{
    fm__server_fail(server, what, NULL);
    return rc;
}

/* ----------------------------------------------------------- what came along
 */

static void close_rest(struct order *order)
{
    while (order->next_fd < order->n_fds)
        (void)fm__sys.close(order->fds[order->next_fd++]);
}

/* The next descriptor, if the flags tell of it, adopted; -1 for none.  0 or a
 * negative code. */
static int take_fd(struct order *order, unsigned flag, int *ret_fd)
{
    int fd;

    *ret_fd = -1;
    if (!(order->head.flags & flag))
        return 0;
    if (order->next_fd == order->n_fds)
        return FM_EPROTOCOL;
    fd = fm__fd_adopt(order->fds[order->next_fd++]);
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

static int map_payload(struct order *order, const void **ret_data)
{
    size_t len = (size_t)order->head.len;
    int fd, rc;

    rc = take_fd(order, FM__WITH_FILE, &fd);
    if (rc < 0)
        return rc;
    if (fd < 0) {
        if (len > order->body_len)
            return FM_EPROTOCOL;
        *ret_data = order->body + (order->body_len - len);
        return 0;
    }
    order->file = fm__memory_read_file(fd, len);
    rc = order->file ? 0 : -errno;
    fm__fd_close(&fd);
    *ret_data = order->file;
    return rc;
}

/* ----------------------------------------------------------------- channels */

static int keep_channel(struct fm__server *server, size_t id, int fd)
{
    if (id >= 65536)
        return FM_EPROTOCOL;
    if (id >= server->n_channels) {
        size_t n = 2 * id + 16;
        int *channels = fm__sys.realloc(server->channels, n * sizeof *channels);

        if (!channels)
            return -ENOMEM;
        for (size_t i = server->n_channels; i < n; i++)
            channels[i] = -1;
        server->channels = channels;
        server->n_channels = n;
    }
    fm__fd_close(&server->channels[id]);
    server->channels[id] = fd;
    return 0;
}

static int find_channel(struct fm__server *server, struct order *order,
                        size_t id, int *ret_fd)
{
    int fd;
    int rc = take_fd(order, FM__WITH_CHANNEL, &fd);

    if (rc == 0 && fd >= 0) {
        rc = keep_channel(server, id, fd);
        if (rc < 0)
            fm__fd_close(&fd);
    }
    if (rc < 0)
        return rc;
    if (id >= server->n_channels || server->channels[id] < 0)
        return FM_EPROTOCOL;
    *ret_fd = server->channels[id];
    return 0;
}

/* --------------------------------------------------------------------- fork */

/* What a child gets beside its channel: ours until it has them. */
struct gifts {
    struct fm__channel channel; /* its lifeline alone */
    struct fm__output outputs[2];
    int socket;
    int desk_fd, desk_bell_fd;
};

static void drop_gifts(struct gifts *gifts)
{
    fm__fd_close(&gifts->channel.lifeline.read_fd);
    fm__fd_close(&gifts->outputs[0].write_fd);
    fm__fd_close(&gifts->outputs[1].write_fd);
    fm__fd_close(&gifts->socket);
    fm__fd_close(&gifts->desk_fd);
    fm__fd_close(&gifts->desk_bell_fd);
}

static void keep(int fd)
{
    if (fd >= 0)
        fm__fd_keep(fd, true);
}

static int take_gifts(struct order *order, struct gifts *gifts)
{
    int rc;

    memset(gifts, 0, sizeof *gifts);
    gifts->channel.lifeline = (struct fm__lifeline)FM__LIFELINE_INIT;
    gifts->outputs[0] = (struct fm__output)FM__OUTPUT_INIT;
    gifts->outputs[1] = (struct fm__output)FM__OUTPUT_INIT;
    gifts->socket = -1;
    gifts->desk_fd = -1;
    gifts->desk_bell_fd = -1;
    rc = take_fd(order, FM__WITH_LIFELINE, &gifts->channel.lifeline.read_fd);
    if (rc == 0)
        rc = take_fd(order, FM__WITH_OUTPUT, &gifts->outputs[0].write_fd);
    if (rc == 0)
        rc = take_fd(order, FM__WITH_ERRORS, &gifts->outputs[1].write_fd);
    if (rc == 0)
        rc = take_fd(order, FM__WITH_SOCKET, &gifts->socket);
    if (rc == 0)
        rc = take_fd(order, FM__WITH_DESK, &gifts->desk_fd);
    if (rc == 0)
        rc = take_fd(order, FM__WITH_DESK, &gifts->desk_bell_fd);
    if (rc == 0 && gifts->channel.lifeline.read_fd < 0)
        rc = FM_EPROTOCOL;
    keep(gifts->outputs[0].write_fd);
    keep(gifts->outputs[1].write_fd);
    keep(gifts->socket);
    keep(gifts->desk_fd);
    keep(gifts->desk_bell_fd);
    return rc;
}

/* Those of the host were run there, and are not in a program's memory. */
static int no_hooks(void *ud)
{
    (void)ud;
    return 0;
}

static void fill_launch(struct fm__launch *launch,
                        const struct fm__server *server,
                        const struct fm__fork_order *order, struct gifts *gifts)
{
    memset(launch, 0, sizeof *launch);
    launch->channel = &gifts->channel;
    launch->bell = &server->bell;
    launch->opts = &order->opts;
    launch->outputs = gifts->outputs;
    launch->fn = server->calls->job;
    launch->child_hooks = no_hooks;
    launch->job = order->job;
    memcpy(launch->seed, order->seed, sizeof launch->seed);
    launch->attempt = order->attempt;
    launch->parent_group = server->hello.host_group;
    launch->null_fd = server->null_fd;
    launch->depth = server->hello.depth;
    launch->socket = gifts->socket;
    launch->is_worker = order->is_worker != 0;
    launch->desk_fd = gifts->desk_fd;
    launch->desk_bell.hear_fd = gifts->desk_bell_fd;
    launch->desk_bell.ring_fd = gifts->desk_bell_fd;
}

static int check_threads(struct fm__server *server)
{
    if (fm__proc_count_threads() == 1)
        return 0;
    return refuse(server, FM_ETHREADS,
                  "the template has more than one thread and does not fork");
}

/* Of the order's options those that are of use in the child, and the name. */
static int read_order(const struct order *order, struct fm__fork_order *fork,
                      char *name)
{
    if (order->body_len < sizeof *fork)
        return FM_EPROTOCOL;
    memcpy(fork, order->body, sizeof *fork);
    if (fork->name_len > FM__COMMAND_NAME ||
        fork->name_len > order->body_len - sizeof *fork)
        return FM_EPROTOCOL;
    memcpy(name, order->body + sizeof *fork, fork->name_len);
    name[fork->name_len] = '\0';
    fork->opts.name = fork->name_len > 0 ? name : NULL;
    fork->opts.keep_fds = NULL;
    fork->opts.n_keep_fds = 0;
    fork->opts.has_keep_fds = false; /* it has what it was sent */
    fork->opts.on_line = NULL;
    fork->opts.ud_free = NULL;
    return 0;
}

static int do_fork(struct fm__server *server, struct order *order)
{
    char name[FM__COMMAND_NAME + 1];
    struct fm__fork_order fork;
    struct fm__errand errand;
    struct fm__launch launch;
    struct gifts gifts;
    int channel_fd = -1;
    int rc;

    rc = read_order(order, &fork, name);
    if (rc < 0)
        return rc;
    memset(&errand, 0, sizeof errand);
    errand.kind = order->head.kind;
    errand.len = (size_t)order->head.len;
    rc = map_payload(order, &errand.data);
    if (rc == 0)
        rc = find_channel(server, order, fork.channel, &channel_fd);
    if (rc < 0)
        return rc;
    rc = take_gifts(order, &gifts);
    if (rc == 0)
        rc = check_threads(server);
    if (rc == 0) {
        errand.ud = server->calls->ud;
        errand.socket = gifts.socket;
        fill_launch(&launch, server, &fork, &gifts);
        launch.ud = &errand;
        rc = fm__child_fork_sibling(&launch, channel_fd, &order->pid);
    }
    drop_gifts(&gifts);
    return rc;
}

/* -------------------------------------------------------------------- others
 */

static int do_hello(struct fm__server *server, struct order *order)
{
    const void *data = NULL;
    struct fm__hello hello;
    int rc;

    if (server->is_met || order->head.len != sizeof hello ||
        order->body_len != sizeof hello || order->n_fds != 1)
        return FM_EPROTOCOL;
    rc = map_payload(order, &data);
    if (rc < 0)
        return rc;
    memcpy(&hello, data, sizeof hello);
    hello.version[sizeof hello.version - 1] = '\0';
    if (strcmp(hello.version, FM_VERSION) != 0 ||
        hello.size != sizeof(struct fm__fork_order) ||
        hello.channel != fm__channel_get_size())
        return refuse(server, FM_EPROTOCOL,
                      "the template is of another version than its host");
    rc = fm__fd_adopt(order->fds[order->next_fd++]);
    if (rc < 0)
        return rc;
    fm__fd_keep(rc, true);
    server->bell.ring_fd = rc;
    server->bell.hear_fd = rc;
    server->hello = hello;
    server->is_met = true;
    return 0;
}

static int do_call(struct fm__server *server, struct order *order)
{
    struct fm__errand errand = {
        .kind = order->head.kind, .len = (size_t)order->head.len, .socket = -1};
    const int *fds;
    size_t n_fds;
    int rc = map_payload(order, &errand.data);

    if (rc < 0)
        return rc;
    fds = order->fds + order->next_fd;
    n_fds = order->n_fds - order->next_fd;
    order->next_fd = order->n_fds; /* they are the call's */
    rc = server->calls->call(server, &errand, fds, n_fds, server->calls->ud);
    fm__memory_settle();
    return rc;
}

static int do_forget(struct fm__server *server, const struct order *order)
{
    /* One that was lost on its way here is forgotten all the same. */
    if (order->head.kind < server->n_channels)
        fm__fd_close(&server->channels[order->head.kind]);
    return 0;
}

static int carry_out(struct fm__server *server, struct order *order)
{
    if (!server->is_met && order->head.type != FM__COMMAND_HELLO)
        return FM_EPROTOCOL;
    if (order->rc < 0)
        return order->rc;
    if (server->has_failed)
        return FM_ECLOSED;
    switch ((enum fm__command_type)order->head.type) {
    case FM__COMMAND_HELLO:
        return do_hello(server, order);
    case FM__COMMAND_CALL:
        return do_call(server, order);
    case FM__COMMAND_FORK:
        return do_fork(server, order);
    case FM__COMMAND_FORGET:
        return do_forget(server, order);
    }
    return FM_EPROTOCOL;
}

/* ------------------------------------------------------------------- the loop
 */

static int answer(struct fm__server *server, const struct order *order, int rc)
{
    struct fm__reply reply;
    struct iovec parts[3];
    long sent;

    memset(&reply, 0, sizeof reply);
    reply.magic = FM__REPLY_MAGIC;
    reply.rc = rc < 0 ? rc : 0;
    reply.seq = order->head.seq;
    reply.pid = order->pid;
    reply.message_len = rc < 0 ? (uint32_t)strlen(server->message) : 0;
    reply.traceback_len = rc < 0 ? (uint32_t)strlen(server->traceback) : 0;
    parts[0] = (struct iovec){&reply, sizeof reply};
    parts[1] = (struct iovec){server->message, reply.message_len};
    parts[2] = (struct iovec){server->traceback, reply.traceback_len};
    sent = fm__socket_send(server->fd, parts, 3, NULL, 0);
    return sent < 0 ? (int)sent : 0;
}

/* The next command.  1, 0 when the host is gone, or a negative code. */
static int receive(struct fm__server *server, unsigned char *buffer,
                   struct order *order)
{
    long n;

    memset(order, 0, sizeof *order);
    memset(buffer, 0, sizeof order->head);
    do {
        order->n_fds = FM__COMMAND_FDS;
        n = fm__socket_recv(server->fd, buffer, MESSAGE_MAX, order->fds,
                            &order->n_fds);
    } while (n == -EINTR);
    if (n == 0 || n == -ECONNRESET)
        return 0;
    /* Its head is there, and is answered. */
    if (n == -EMFILE)
        order->rc = (int)n;
    else if (n < 0)
        return (int)n;
    if (order->rc < 0 || (size_t)n >= sizeof order->head)
        memcpy(&order->head, buffer, sizeof order->head);
    if (order->rc < 0 && order->head.magic == FM__COMMAND_MAGIC)
        return 1;
    if (order->head.magic != FM__COMMAND_MAGIC ||
        order->head.n_fds != order->n_fds) {
        close_rest(order);
        return FM_EPROTOCOL;
    }
    order->body = buffer + sizeof order->head;
    order->body_len = (size_t)n - sizeof order->head;
    return 1;
}

static int serve_one(struct fm__server *server, unsigned char *buffer)
{
    struct order order;
    int rc = receive(server, buffer, &order);
    int sent;
    bool leaves;

    if (rc <= 0)
        return rc < 0 ? rc : -ESHUTDOWN;
    server->message[0] = '\0';
    server->traceback[0] = '\0';
    rc = carry_out(server, &order);
    leaves = rc == 1;
    if (rc < 0 && order.head.type == FM__COMMAND_CALL)
        server->has_failed = true;
    close_rest(&order);
    fm__memory_unshare(order.file, (size_t)order.head.len);
    sent = answer(server, &order, rc);
    if (sent == -EPIPE || sent == -ECONNRESET)
        return -ESHUTDOWN;
    return sent < 0 ? sent : leaves;
}

static int open_server(struct fm__server *server, int fd)
{
    int flags = fm__sys.fcntl(fd, F_GETFL, 0);
    int rc;

    if (flags < 0 || fm__sys.fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return -errno;
    rc = fm__sibling_open();
    if (rc < 0)
        return rc;
    server->null_fd = fm__fd_adopt(fm__sys.open("/dev/null", O_RDWR, 0));
    if (server->null_fd < 0)
        return server->null_fd;
    fm__fd_keep(server->null_fd, true);
    return 0;
}

static void close_server(struct fm__server *server)
{
    for (size_t i = 0; i < server->n_channels; i++)
        fm__fd_close(&server->channels[i]);
    fm__sys.free(server->channels);
    fm__fd_close(&server->bell.ring_fd);
    fm__fd_close(&server->null_fd);
    fm__fd_close(&server->fd);
    fm__sys.free(server);
    fm__fds_close();
}

int fm__serve(int fd, const struct fm__server_calls *calls)
{
    _Alignas(16) unsigned char buffer[MESSAGE_MAX];
    struct fm__server *server;
    int rc;

    rc = fm__fds_open();
    if (rc < 0)
        return rc;
    server = fm__sys.calloc(1, sizeof *server);
    if (!server) {
        fm__fds_close();
        return -ENOMEM;
    }
    fm__stdio_find();
    server->calls = calls;
    server->null_fd = -1;
    server->bell = (struct fm__bell)FM__BELL_INIT;
    server->fd = fd;
    rc = open_server(server, fd);
    fm__memory_settle();
    while (rc == 0)
        rc = serve_one(server, buffer);
    close_server(server);
    return rc == -ESHUTDOWN ? 0 : rc;
}
