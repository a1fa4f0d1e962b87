/* SPDX-License-Identifier: MIT */
/* One end of a conversation in frames; see link.h. */
#include "process/link.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "fork_map.h"
#include "os/fds.h"
#include "os/signals.h"
#include "os/socket.h"
#include "os/sys.h"

#ifdef FM_TINY
#define PIECE_MOST ((size_t)7)
#else
#define PIECE_MOST ((size_t)1 << 30)
#endif

static int set_nonblocking(int fd)
{
    int flags = fm__sys.fcntl(fd, F_GETFL, 0);

    if (flags < 0)
        return -errno;
    if (flags & O_NONBLOCK)
        return 0;
    return fm__sys.fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

/* Is it a socket?  1, 0 or -errno. */
static int is_socket(int fd)
{
    struct stat st;

    return fm__sys.fstat(fd, &st) < 0 ? -errno : S_ISSOCK(st.st_mode);
}

/* A copy of its own, close-on-exec, high and registered.  It or -errno. */
static int copy(int fd)
{
    int high = fm__fd_copy(fd, FM__FD_LOWEST);

    if (high < 0)
        return high;
    return fm__fd_adopt(high);
}

int fm__link_open(struct fm__link *link, int read_fd, int write_fd)
{
    struct fm__link fresh;
    int rc = set_nonblocking(read_fd);

    memset(&fresh, 0, sizeof fresh);
    fresh.read_fd = -1;
    fresh.write_fd = -1;
    fresh.got_fd = -1;
    fresh.generation = fm__fds_generation();
    fm__stream_init(&fresh.in);
    if (rc == 0)
        rc = set_nonblocking(write_fd);
    if (rc == 0)
        rc = is_socket(write_fd);
    if (rc < 0)
        return rc;
    fresh.is_socket = rc;
    fresh.read_fd = copy(read_fd);
    if (fresh.read_fd < 0)
        return fresh.read_fd;
    fresh.write_fd = read_fd == write_fd ? fresh.read_fd : copy(write_fd);
    if (fresh.write_fd < 0) {
        rc = fresh.write_fd;
        fm__fd_close(&fresh.read_fd);
        return rc;
    }
    (void)fm__sys.close(read_fd);
    if (write_fd != read_fd)
        (void)fm__sys.close(write_fd);
    *link = fresh;
    return 0;
}

int fm__link_pair(struct fm__link *link, int *ret_fd)
{
    int fds[2], fd, rc;

    if (fm__sys.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    fd = fm__fd_copy(fds[1], FM__FD_LOWEST);
    rc = fd < 0 ? fd : fm__link_open(link, fds[0], fds[0]);
    (void)fm__sys.close(fds[1]);
    if (rc == 0) {
        *ret_fd = fd;
        return 0;
    }
    (void)fm__sys.close(fds[0]);
    if (fd >= 0)
        (void)fm__sys.close(fd);
    return rc;
}

static void forget(struct fm__link *link)
{
    link->out_len = 0;
    link->out_at = 0;
    link->out = NULL;
}

void fm__link_close(struct fm__link *link)
{
    /* In a forked process they were buried. */
    bool is_ours = link->generation == fm__fds_generation();

    if (link->got_fd >= 0)
        (void)fm__sys.close(link->got_fd);
    link->got_fd = -1;
    if (is_ours && link->write_fd != link->read_fd)
        fm__fd_close(&link->write_fd);
    link->write_fd = -1;
    if (is_ours)
        fm__fd_close(&link->read_fd);
    link->read_fd = -1;
    forget(link);
    fm__stream_done(&link->in);
}

/* ------------------------------------------------------------------ writing */

/* Do descriptors cross? */
static bool takes_fds(const struct fm__link *link)
{
    return link->is_socket && link->read_fd == link->write_fd;
}

bool fm__link_is_sending(const struct fm__link *link)
{
    return link->out_len > 0;
}

/* What is left of head and body; returns how many parts. */
static int list_parts(const struct fm__link *link, struct iovec parts[2])
{
    size_t at = link->out_at, body = link->out_len - FM__STREAM_HEAD;
    int n = 0;

    if (at < FM__STREAM_HEAD) {
        parts[n].iov_base = (void *)(uintptr_t)(link->out_head + at);
        parts[n++].iov_len = FM__STREAM_HEAD - at;
        at = FM__STREAM_HEAD;
    }
    at -= FM__STREAM_HEAD;
    if (at < body) {
        parts[n].iov_base = (void *)(uintptr_t)(link->out + at);
        parts[n++].iov_len = body - at;
    }
    if (parts[0].iov_len >= PIECE_MOST) {
        parts[0].iov_len = PIECE_MOST;
        n = 1;
    }
    return n;
}

/* A head and the beginning of its body go together, as far as a pipe takes them
 * at once. */
#define JOINED_MAX 4096

static long write_parts(const struct fm__link *link, const struct iovec *parts,
                        int n)
{
    unsigned char joined[JOINED_MAX];
    size_t len = parts[0].iov_len, more;

    if (n < 2)
        return fm__signals_write(link->write_fd, parts[0].iov_base, len);
    more = parts[1].iov_len < JOINED_MAX - len ? parts[1].iov_len
                                               : JOINED_MAX - len;
    memcpy(joined, parts[0].iov_base, len);
    memcpy(joined + len, parts[1].iov_base, more);
    return fm__signals_write(link->write_fd, joined, len + more);
}

/* Write what is left of the frame, with a descriptor beside its first byte.
 * Returns 1 when all of it is out, -EAGAIN or another code. */
static int push(struct fm__link *link, const int *fd)
{
    while (link->out_at < link->out_len) {
        struct iovec parts[2] = {{NULL, 0}, {NULL, 0}};
        int n = list_parts(link, parts);
        bool is_first = link->out_at == 0;
        long rc = link->is_socket ? fm__socket_send(link->write_fd, parts, n,
                                                    fd, fd && is_first ? 1 : 0)
                                  : write_parts(link, parts, n);

        if (rc < 0)
            return (int)rc;
        link->out_at += (size_t)rc;
    }
    forget(link);
    return 1;
}

/* What a failed write means from now on: nothing, when no byte of the frame
 * went, as of a descriptor that the kernel does not take. */
static int note_write(struct fm__link *link, int rc)
{
    if (rc == -ECONNRESET)
        rc = -EPIPE;
    if (rc >= 0 || (rc == -EAGAIN && link->out_at > 0))
        return rc;
    if (rc == -EPIPE || link->out_at > 0)
        link->write_rc = rc;
    forget(link);
    return rc;
}

int fm__link_flush(struct fm__link *link)
{
    if (link->write_rc < 0)
        return link->write_rc;
    return note_write(link, push(link, NULL));
}

static int send_frame(struct fm__link *link, const struct fm__stream_head *head,
                      const void *data, const int *fd)
{
    int rc = fm__link_flush(link);

    if (rc < 0)
        return rc;
    fm__stream_put_head(link->out_head, head);
    link->out = data;
    link->out_len = FM__STREAM_HEAD + head->len;
    link->out_at = 0;
    rc = note_write(link, push(link, fd));
    return rc == -EAGAIN && fm__link_is_sending(link) ? 0 : rc;
}

int fm__link_send(struct fm__link *link, unsigned format, const void *data,
                  size_t len)
{
    struct fm__stream_head head = {FM__STREAM_VALUE, (uint8_t)format,
                                   (uint32_t)len};

    return len <= FM__STREAM_MAX ? send_frame(link, &head, data, NULL)
                                 : FM_ELIMIT;
}

int fm__link_send_fd(struct fm__link *link, int fd)
{
    static const struct fm__stream_head head = {FM__STREAM_FD, 0, 1};
    static const unsigned char body[1] = {0};

    return takes_fds(link) ? send_frame(link, &head, body, &fd) : -ENOTSOCK;
}

/* ------------------------------------------------------------------ reading */

/* Read some bytes of the head, with which a descriptor may come, or of the
 * body.  Returns how many, 0 at the end, or a negative code. */
static long pull(struct fm__link *link, unsigned char *at, size_t n)
{
    bool in_head = !fm__stream_has_head(&link->in);
    size_t n_fds = in_head && link->got_fd < 0 ? 1 : 0;
    long got;
    int fd;

    n = n < PIECE_MOST ? n : PIECE_MOST;
    if (!takes_fds(link)) {
        do
            got = fm__sys.read(link->read_fd, at, n);
        while (got < 0 && errno == EINTR);
        return got < 0 ? -errno : got;
    }
    got = fm__socket_recv(link->read_fd, at, n, &fd, &n_fds);
    if (n_fds == 1)
        link->got_fd = fd;
    return got;
}

/* Read until the head is there, or all of the frame.  Returns 1, or what
 * fm__link_recv() does. */
static int fill(struct fm__link *link, bool whole)
{
    struct fm__stream *in = &link->in;

    while (whole ? !fm__stream_is_whole(in) : !fm__stream_has_head(in)) {
        unsigned char *at;
        size_t room;
        long rc = fm__stream_get_room(in, &at, &room);

        if (rc < 0)
            return (int)rc;
        rc = pull(link, at, room);
        if (rc == 0 || rc == -ECONNRESET)
            return fm__stream_is_between(in) ? 0 : FM_EPROTOCOL;
        if (rc > 0)
            rc = fm__stream_advance(in, (size_t)rc);
        if (rc < 0)
            return (int)rc;
        if (fm__stream_has_head(in) &&
            (in->head.type == FM__STREAM_FD) != (link->got_fd >= 0))
            return FM_EPROTOCOL;
    }
    return 1;
}

/* Failures that end the reading for ever. */
static int note_read(struct fm__link *link, int rc)
{
    if (rc < 0 && rc != -EAGAIN && rc != -ENOMEM && rc != -EBADMSG)
        link->read_rc = rc;
    return rc;
}

static int read_frame(struct fm__link *link, unsigned type)
{
    int rc = link->read_rc < 0 ? link->read_rc : fill(link, false);

    if (rc == 1 && link->in.head.type != type)
        rc = -EBADMSG;
    if (rc == 1)
        rc = fill(link, true);
    return note_read(link, rc);
}

int fm__link_recv(struct fm__link *link)
{
    return read_frame(link, FM__STREAM_VALUE);
}

int fm__link_recv_fd(struct fm__link *link, int *ret_fd)
{
    int rc = read_frame(link, FM__STREAM_FD);

    if (rc != 1)
        return rc;
    *ret_fd = link->got_fd;
    link->got_fd = -1;
    fm__stream_next(&link->in);
    return 1;
}
