/* SPDX-License-Identifier: MIT */
/* What a host says to its template: messages, payloads, and the queue of calls
 * that wait for their turn. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/template.h"
#include "os/fds.h"
#include "os/memory.h"
#include "os/socket.h"
#include "os/sys.h"
#include "process/child.h"

static struct fm__asked *next_asked(fm_template *template)
{
    unsigned at = (template->first_asked + template->n_asked) % FM__ASKED_MAX;

    return &template->asked[at];
}

int fm__template_send(fm_template *template, struct fm__letter *letter,
                      fm_future *future)
{
    struct fm__asked *asked = next_asked(template);
    struct fm__command *command = &letter->command;
    struct iovec parts[4];
    int n = 0;
    long rc;

    if (template->fd < 0 || template->n_asked == FM__ASKED_MAX)
        return FM_ECLOSED;
    command->magic = FM__COMMAND_MAGIC;
    command->seq = template->seq;
    command->n_fds = (uint32_t)letter->n_fds;
    parts[n++] = (struct iovec){command, sizeof *command};
    for (int i = 0; i < 3; i++) {
        if (letter->parts[i].iov_len > 0)
            parts[n++] = letter->parts[i];
    }
    rc = fm__socket_send(template->fd, parts, n, letter->fds, letter->n_fds);
    if (rc < 0)
        return (int)rc;
    *asked = (struct fm__asked){.seq = template->seq++,
                                .type = (enum fm__command_type)command->type,
                                .future = future,
                                .is_last = letter->is_last};
    template->n_asked++;
    return 0;
}

int fm__letter_put_payload(struct fm__letter *letter, const void *data,
                           size_t len)
{
    size_t done = 0;
    int fd;

    letter->command.len = len;
    if (len <= FM__COMMAND_INLINE) {
        letter->parts[2] = (struct iovec){(void *)(uintptr_t)data, len};
        return 0;
    }
    fd = fm__fd_take(fm__memory_open_file(len));
    if (fd < 0)
        return fd;
    letter->file = fd;
    letter->fds[letter->n_fds++] = fd;
    letter->command.flags |= FM__WITH_FILE;
    while (done < len) {
        ssize_t n = fm__sys.write(fd, (const char *)data + done, len - done);

        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

void fm__letter_init(struct fm__letter *letter, enum fm__command_type type,
                     uint32_t kind)
{
    memset(letter, 0, sizeof *letter);
    letter->command.type = (uint16_t)type;
    letter->command.kind = kind;
    letter->file = -1;
}

void fm__letter_done(struct fm__letter *letter)
{
    fm__fd_close(&letter->file);
}

int fm__template_say_hello(fm_template *template)
{
    fm_engine *engine = template->engine;
    struct fm__letter letter;
    struct fm__hello hello;
    int rc;

    memset(&hello, 0, sizeof hello);
    hello.size = sizeof(struct fm__fork_order);
    hello.depth = fm__child_depth();
    hello.channel = fm__channel_get_size();
    (void)snprintf(hello.version, sizeof hello.version, "%s", FM_VERSION);
    hello.host = fm__sys.getpid();
    hello.host_group = fm__sys.getpgid(0);
    fm__letter_init(&letter, FM__COMMAND_HELLO, 0);
    letter.fds[letter.n_fds++] = engine->bell.ring_fd;
    (void)fm__letter_put_payload(&letter, &hello, sizeof hello);
    rc = fm__template_send(template, &letter, NULL);
    fm__letter_done(&letter);
    return rc;
}

static int send_call(fm_template *template, const struct fm__unsent *unsent)
{
    struct fm__letter letter;
    int rc;

    fm__letter_init(&letter, FM__COMMAND_CALL, unsent->kind);
    letter.is_last = unsent->is_last;
    rc = fm__letter_put_payload(&letter, unsent->data, unsent->len);
    for (size_t i = 0; i < unsent->n_fds; i++)
        letter.fds[letter.n_fds++] = unsent->fds[i];
    if (rc == 0)
        rc = fm__template_send(template, &letter, NULL);
    fm__letter_done(&letter);
    return rc;
}

/* As much as it takes now. */
void fm__template_send_unsent(fm_template *template)
{
    while (template->unsent && template->state == FM__TEMPLATE_READY &&
           template->fd >= 0 && template->n_asked < FM__ASKED_MAX) {
        struct fm__unsent *unsent = template->unsent;
        int rc = send_call(template, unsent);

        if (rc == -EAGAIN && template->n_asked > 0)
            return; /* when something has been answered */
        if (rc == -EPIPE || rc == -ECONNRESET)
            return; /* it is not carried out: the process's end tells why */
        if (rc < 0) {
            fm__template_fail(template, FM_SPAWN, rc, fm_strerror(rc));
            return;
        }
        template->unsent = unsent->next;
        if (!unsent->next)
            template->last_unsent = NULL;
        template->n_unsent--;
        for (size_t i = 0; i < unsent->n_fds; i++)
            fm__fd_close(&unsent->fds[i]);
        fm__sys.free(unsent);
    }
}

static int copy_fds(struct fm__unsent *unsent, const int *fds, size_t n_fds)
{
    for (size_t i = 0; i < n_fds; i++) {
        int fd = fm__fd_take(fm__fd_copy(fds[i], FM__FD_LOWEST));

        if (fd < 0)
            return fd;
        unsent->fds[unsent->n_fds++] = fd;
    }
    return 0;
}

static int add_call(fm_template *template, const struct fm__errand *errand,
                    const int *fds, size_t n_fds)
{
    struct fm__unsent *unsent;
    int rc;

    unsent = fm__sys.malloc(sizeof *unsent + errand->len);
    if (!unsent)
        return -ENOMEM;
    memset(unsent, 0, sizeof *unsent);
    unsent->kind = errand->kind;
    unsent->is_last = errand->is_last;
    unsent->len = errand->len;
    if (errand->len > 0)
        memcpy(unsent->data, errand->data, errand->len);
    rc = copy_fds(unsent, fds, n_fds);
    if (rc < 0) {
        while (unsent->n_fds > 0)
            fm__fd_close(&unsent->fds[--unsent->n_fds]);
        fm__sys.free(unsent);
        return rc;
    }
    if (template->last_unsent)
        template->last_unsent->next = unsent;
    else
        template->unsent = unsent;
    template->last_unsent = unsent;
    template->n_unsent++;
    template->is_leaving = errand->is_last;
    fm__template_send_unsent(template);
    return 0;
}

int fm__template_call(fm_template *template, const struct fm__errand *errand,
                      const int *fds, size_t n_fds)
{
    fm_engine *engine = template->engine;
    int rc;

    if (fm__template_is_lost(template) || template->is_leaving ||
        !fm__engine_is_ours(engine) || engine->closed)
        return FM_ECLOSED;
    if (n_fds > FM__COMMAND_FDS - 1)
        return -EINVAL;
    if (!fm__engine_enter(engine))
        return FM_EBUSY;
    rc = add_call(template, errand, fds, n_fds);
    fm__engine_leave(engine);
    return rc;
}

void fm__template_drop_unsent(fm_template *template)
{
    while (template->unsent) {
        struct fm__unsent *unsent = template->unsent;

        template->unsent = unsent->next;
        for (size_t i = 0; i < unsent->n_fds; i++)
            fm__fd_close(&unsent->fds[i]);
        fm__sys.free(unsent);
    }
    template->last_unsent = NULL;
    template->n_unsent = 0;
}
