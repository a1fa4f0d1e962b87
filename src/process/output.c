/* SPDX-License-Identifier: MIT */
/* What a child prints; see output.h. */
#include "process/output.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "os/fds.h"
#include "os/sys.h"

/* Bytes taken from one pipe in one go, so that a child that floods it cannot
 * keep the parent's step for ever. */
#define PIECE ((size_t)16 << 10)
#define PIECES_PER_PUMP 64

int fm__output_open(struct fm__output *output, enum fm_output mode, int stream)
{
    int fds[2];
    int flags, rc;

    *output = (struct fm__output)FM__OUTPUT_INIT;
    output->mode = mode;
    output->stream = stream;
    if (mode != FM_OUTPUT_CAPTURE && mode != FM_OUTPUT_LINES)
        return 0;
    rc = fm__fd_pipe(fds, 0);
    if (rc < 0)
        return rc;
    output->read_fd = fds[0];
    output->write_fd = fds[1];
    flags = fm__sys.fcntl(fds[0], F_GETFL, 0);
    if (flags < 0 || fm__sys.fcntl(fds[0], F_SETFL, flags | O_NONBLOCK) < 0) {
        rc = -errno;
        fm__output_done(output);
        return rc;
    }
    fm__fd_keep(output->write_fd, true);
    return 0;
}

void fm__output_forget_child_end(struct fm__output *output)
{
    fm__fd_close(&output->write_fd);
}

/* Room for `more` bytes behind the data, up to `most`; less when there is no
 * memory.  Returns how many fit. */
static size_t make_room(struct fm__output *output, size_t more, size_t most)
{
    size_t size = output->size;
    char *data;

    if (output->len + more <= size)
        return more;
    while (size < output->len + more && size < most)
        size = size > 0 ? size * 2 : 4096;
    if (size > output->size) {
        data = fm__sys.realloc(output->data, size);
        if (data) {
            output->data = data;
            output->size = size;
        }
    }
    return output->size - output->len < more ? output->size - output->len
                                             : more;
}

/* Append, dropping the oldest bytes when it is full. */
static void keep_last(struct fm__output *output, const char *p, size_t n)
{
    /* Once it turns it stays as it is, though there were memory again: what
     * lies behind its end would come in between. */
    size_t room =
        output->start == 0 ? make_room(output, n, FM__OUTPUT_KEEP) : 0;

    if (room > 0) {
        memcpy(output->data + output->len, p, room);
        output->len += room;
        p += room;
        n -= room;
    }
    for (; n > 0 && output->size > 0; n--) {
        output->data[output->start] = *p++;
        output->start = (output->start + 1) % output->size;
        output->dropped++;
    }
    output->dropped += n;
}

static void hand_over(struct fm__output *output, fm_line_cb on_line, void *ud)
{
    on_line(output->stream, output->data ? output->data : "", output->len, ud);
    output->len = 0;
}

/* Keep of the first `n` bytes what fits; returns how many that are. */
static size_t keep_piece(struct fm__output *output, const char *p, size_t n)
{
    size_t room = FM__OUTPUT_LINE - output->len;
    size_t fit = make_room(output, n < room ? n : room, FM__OUTPUT_LINE);

    if (fit > 0)
        memcpy(output->data + output->len, p, fit);
    output->len += fit;
    return fit;
}

static void split_lines(struct fm__output *output, const char *p, size_t n,
                        fm_line_cb on_line, void *ud)
{
    while (n > 0) {
        const char *newline = memchr(p, '\n', n);
        size_t want = newline ? (size_t)(newline - p) : n;
        size_t fit = keep_piece(output, p, want);
        bool ends = fit == want && newline;

        if (fit < want && output->size == 0) { /* no memory for any line */
            on_line(output->stream, p, want, ud);
            fit = want;
            ends = newline != NULL;
        } else if (ends || fit < want) {
            hand_over(output, on_line, ud);
        }
        p += fit + ends;
        n -= fit + ends;
    }
}

bool fm__output_pump(struct fm__output *output, size_t most, fm_line_cb on_line,
                     void *ud)
{
    char piece[PIECE];

    if (output->read_fd < 0)
        return false;
    for (int i = 0; i < PIECES_PER_PUMP && most > 0; i++) {
        ssize_t n = fm__sys.read(output->read_fd, piece,
                                 most < sizeof piece ? most : sizeof piece);

        if (n < 0 && errno == EINTR)
            continue; /* there may be no other time to read it */
        if (n < 0)
            return errno == EAGAIN;
        if (n == 0)
            return false;
        most -= (size_t)n;
        if (output->mode == FM_OUTPUT_LINES)
            split_lines(output, piece, (size_t)n, on_line, ud);
        else
            keep_last(output, piece, (size_t)n);
    }
    return true;
}

void fm__output_finish(struct fm__output *output, fm_line_cb on_line, void *ud)
{
    if (output->mode == FM_OUTPUT_LINES && output->len > 0)
        hand_over(output, on_line, ud);
}

static void reverse(char *p, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        char c = p[i];

        p[i] = p[n - 1 - i];
        p[n - 1 - i] = c;
    }
}

void fm__output_get(struct fm__output *output, struct fm_captured *ret)
{
    if (output->mode != FM_OUTPUT_CAPTURE)
        return;
    if (output->start > 0) { /* turn the ring so that it begins at 0 */
        reverse(output->data, output->start);
        reverse(output->data + output->start, output->len - output->start);
        reverse(output->data, output->len);
        output->start = 0;
    }
    ret->data = output->data ? output->data : "";
    ret->len = output->len;
    ret->dropped = output->dropped;
}

void fm__output_clear(struct fm__output *output)
{
    output->len = 0;
    output->start = 0;
    output->dropped = 0;
}

void fm__output_done(struct fm__output *output)
{
    fm__fd_close(&output->read_fd);
    fm__fd_close(&output->write_fd);
    fm__sys.free(output->data);
    output->data = NULL;
    output->len = 0;
    output->size = 0;
}

int fm__output_redirect(const struct fm__output *output, int stream,
                        enum fm_output mode, int null_fd)
{
    int from = output->write_fd;

    if (mode == FM_OUTPUT_INHERIT)
        return 0;
    if (mode == FM_OUTPUT_DISCARD)
        from = null_fd;
    return fm__sys.dup2(from, stream) < 0 ? -errno : 0;
}
