/* SPDX-License-Identifier: MIT */
/* Links: frames and descriptors over sockets and pipes. */
#include "test.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "faults.h"
#include "fork_map.h"
#include "os/fds.h"
#include "os/sys.h"
#include "process/link.h"

static void open_sockets(struct fm__link *a, struct fm__link *b)
{
    int fds[2];

    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    CHECK_INT(fm__link_open(a, fds[0], fds[0]), 0);
    CHECK_INT(fm__link_open(b, fds[1], fds[1]), 0);
}

static void open_pipes(struct fm__link *a, struct fm__link *b)
{
    int there[2], back[2];

    CHECK_INT(pipe(there), 0);
    CHECK_INT(pipe(back), 0);
    CHECK_INT(fm__link_open(a, back[0], there[1]), 0);
    CHECK_INT(fm__link_open(b, there[0], back[1]), 0);
}

static void (*const openers[])(struct fm__link *,
                               struct fm__link *) = {open_sockets, open_pipes};

static void close_both(struct fm__link *a, struct fm__link *b)
{
    fm__link_close(a);
    fm__link_close(b);
    fm__link_close(b);
}

static void expect(struct fm__link *link, const char *text)
{
    CHECK_INT(fm__link_recv(link), 1);
    CHECK_INT(link->in.body.len, strlen(text));
    CHECK(memcmp(link->in.body.data, text, strlen(text)) == 0);
    fm__stream_next(&link->in);
}

static bool is_readable(const struct fm__link *link)
{
    struct pollfd pfd = {.fd = link->read_fd, .events = POLLIN};

    return poll(&pfd, 1, 0) == 1;
}

TEST(frames_cross_in_both_directions)
{
    for (int i = 0; i < 2; i++) {
        struct fm__link a, b;

        openers[i](&a, &b);
        CHECK(a.read_fd >= FM__FD_LOWEST && a.write_fd >= FM__FD_LOWEST);
        CHECK_INT(fm__link_recv(&b), -EAGAIN);
        CHECK_INT(fm__link_send(&a, 1, "one", 3), 1);
        CHECK_INT(fm__link_send(&a, 2, "two", 3), 1);
        CHECK_INT(fm__link_send(&b, 2, "back", 4), 1);
        expect(&b, "one");
        CHECK(is_readable(&b));
        expect(&b, "two");
        CHECK(!is_readable(&b));
        expect(&a, "back");
        fm__link_close(&a);
        CHECK_INT(fm__link_recv(&b), 0);
        CHECK_INT(fm__link_recv(&b), 0);
        CHECK_INT(fm__link_send(&b, 1, "x", 1), -EPIPE);
        CHECK_INT(fm__link_send(&b, 1, "x", 1), -EPIPE);
        close_both(&a, &b);
    }
}

TEST(a_full_link_keeps_the_rest_of_a_frame_and_refuses_the_next)
{
    size_t len = (size_t)3 << 20;
    unsigned char *data = malloc(len);

    for (size_t i = 0; i < len; i++)
        data[i] = (unsigned char)(i % 251);
    for (int i = 0; i < 2; i++) {
        struct fm__link a, b;
        int rc = 0;

        openers[i](&a, &b);
        CHECK_INT(fm__link_send(&a, 1, data, len), 0);
        CHECK(fm__link_is_sending(&a));
        CHECK_INT(fm__link_send(&a, 1, "x", 1), -EAGAIN);
        CHECK_INT(fm__link_flush(&a), -EAGAIN);
        while (rc != 1) {
            rc = fm__link_recv(&b);
            CHECK(rc == 1 || rc == -EAGAIN);
            if (fm__link_is_sending(&a))
                CHECK(fm__link_flush(&a) != 0);
        }
        CHECK_INT(b.in.body.len, len);
        CHECK(memcmp(b.in.body.data, data, len) == 0);
        fm__stream_next(&b.in);
        CHECK(!fm__link_is_sending(&a));
        CHECK_INT(fm__link_send(&a, 1, "x", 1), 1);
        expect(&b, "x");
        close_both(&a, &b);
    }
    free(data);
}

TEST(a_frame_of_which_nothing_went_is_forgotten)
{
    struct fm__link a, b;
    unsigned n = 0;
    int rc;

    open_sockets(&a, &b);
    while ((rc = fm__link_send(&a, 1, "12345678", 8)) == 1)
        n++;
    CHECK(rc == -EAGAIN || rc == 0);
    if (rc == 0) {
        n++;
        CHECK_INT(fm__link_recv(&b), 1);
        n--;
        fm__stream_next(&b.in);
        CHECK_INT(fm__link_flush(&a), 1);
    }
    CHECK(!fm__link_is_sending(&a));
    for (; n > 0; n--)
        expect(&b, "12345678");
    CHECK_INT(fm__link_recv(&b), -EAGAIN);
    close_both(&a, &b);
}

TEST(values_and_descriptors_come_in_the_order_sent)
{
    struct fm__link a, b;
    struct stat null, got;
    int fd, file = open("/dev/null", O_RDONLY);

    open_sockets(&a, &b);
    CHECK_INT(fm__link_recv_fd(&b, &fd), -EAGAIN);
    CHECK_INT(fm__link_send_fd(&a, file), 1);
    CHECK_INT(fm__link_send(&a, 1, "one", 3), 1);
    CHECK_INT(fm__link_send_fd(&a, a.read_fd), 1);
    CHECK_INT(fm__link_recv(&b), -EBADMSG);
    CHECK_INT(fm__link_recv(&b), -EBADMSG);
    CHECK(is_readable(&b));
    CHECK_INT(fm__link_recv_fd(&b, &fd), 1);
    CHECK(fd >= 3);
    CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_INT(fstat(file, &null), 0);
    CHECK_INT(fstat(fd, &got), 0);
    CHECK_INT(null.st_rdev, got.st_rdev);
    (void)close(fd);
    CHECK_INT(fm__link_recv_fd(&b, &fd), -EBADMSG);
    expect(&b, "one");
    CHECK_INT(fm__link_recv(&b), -EBADMSG);
    CHECK(is_readable(&b));
    (void)close(file);
    close_both(&a, &b); /* with one that nobody took */
}

TEST(no_descriptor_crosses_pipes)
{
    struct fm__link a, b;

    open_pipes(&a, &b);
    CHECK_INT(fm__link_send_fd(&a, 0), -ENOTSOCK);
    CHECK_INT(fm__link_send(&a, 1, "x", 1), 1);
    expect(&b, "x");
    close_both(&a, &b);
}

TEST(a_descriptor_that_is_none_does_not_break_the_link)
{
    struct fm__link a, b;

    open_sockets(&a, &b);
    CHECK_INT(fm__link_send_fd(&a, 999), -EBADF);
    CHECK_INT(fm__link_send(&a, 1, "x", 1), 1);
    expect(&b, "x");
    close_both(&a, &b);
}

/* Send these bytes, with `n_fds` descriptors beside the first one. */
static void send_raw(int to, const void *data, size_t len, int n_fds)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    int fds[2] = {0, 1};

    union {
        char bytes[CMSG_SPACE(sizeof fds)];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    memset(&control, 0, sizeof control);
    if (n_fds > 0) {
        struct cmsghdr *head = &control.align;

        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE((unsigned)n_fds * sizeof(int));
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN((unsigned)n_fds * sizeof(int));
        memcpy(CMSG_DATA(head), fds, (unsigned)n_fds * sizeof(int));
    }
    CHECK_INT(sendmsg(to, &message, 0), len);
}

/* What a link says of a frame of this type with so many descriptors, sent in
 * two pieces, of which the second has `late` of them. */
static int judge(unsigned type, int n_fds, int late)
{
    struct fm__stream_head head = {(uint8_t)type, 0, 1};
    unsigned char frame[FM__STREAM_HEAD + 1] = {0};
    struct fm__link link;
    int fds[2], rc, fd;

    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    CHECK_INT(fm__link_open(&link, fds[1], fds[1]), 0);
    fm__stream_put_head(frame, &head);
    send_raw(fds[0], frame, 5, n_fds);
    send_raw(fds[0], frame + 5, sizeof frame - 5, late);
    rc = type == FM__STREAM_FD ? fm__link_recv_fd(&link, &fd)
                               : fm__link_recv(&link);
    if (rc == 1 && type == FM__STREAM_FD)
        (void)close(fd);
    if (rc < 0)
        CHECK_INT(fm__link_recv(&link), rc); /* for ever */
    fm__link_close(&link);
    (void)close(fds[0]);
    return rc;
}

TEST(descriptors_without_their_frame_are_a_protocol_error_and_closed)
{
    CHECK_INT(judge(FM__STREAM_VALUE, 0, 0), 1);
    CHECK_INT(judge(FM__STREAM_FD, 1, 0), 1);
    CHECK_INT(judge(FM__STREAM_VALUE, 1, 0), FM_EPROTOCOL);
    CHECK_INT(judge(FM__STREAM_FD, 0, 0), FM_EPROTOCOL);
    CHECK_INT(judge(FM__STREAM_FD, 2, 0), FM_EPROTOCOL);
    CHECK_INT(judge(FM__STREAM_FD, 1, 1), FM_EPROTOCOL);
    CHECK_INT(judge(FM__STREAM_VALUE, 0, 1), FM_EPROTOCOL);
}

TEST(an_end_within_a_frame_is_a_protocol_error)
{
    struct fm__stream_head head = {FM__STREAM_VALUE, 1, 4};
    unsigned char frame[FM__STREAM_HEAD + 4] = {0};

    fm__stream_put_head(frame, &head);
    for (size_t cut = 0; cut <= sizeof frame; cut++) {
        struct fm__link link;
        int fds[2];

        CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        CHECK_INT(fm__link_open(&link, fds[1], fds[1]), 0);
        if (cut > 0)
            CHECK_INT(write(fds[0], frame, cut), cut);
        (void)close(fds[0]);
        CHECK_INT(fm__link_recv(&link), cut == 0             ? 0
                                        : cut < sizeof frame ? FM_EPROTOCOL
                                                             : 1);
        fm__link_close(&link);
    }
}

TEST(what_is_too_long_is_refused_before_anything_goes)
{
    struct fm__link a, b;

    open_sockets(&a, &b);
    CHECK_INT(fm__link_send(&a, 1, "", FM__STREAM_MAX + 1), FM_ELIMIT);
    CHECK_INT(fm__link_send(&a, 1, "x", 1), 1);
    expect(&b, "x");
    close_both(&a, &b);
}

static volatile sig_atomic_t n_pipe_signals;

static void count_signal(int sig)
{
    (void)sig;
    n_pipe_signals++;
}

TEST(a_dead_peer_is_no_signal_and_one_of_the_hosts_stays)
{
    struct fm__link a, b;
    sigset_t set, old;

    (void)signal(SIGPIPE, count_signal);
    for (int i = 0; i < 2; i++) {
        openers[i](&a, &b);
        fm__link_close(&b);
        CHECK_INT(fm__link_send(&a, 1, "x", 1), -EPIPE);
        fm__link_close(&a);
    }
    CHECK_INT(n_pipe_signals, 0);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGPIPE);
    CHECK_INT(sigprocmask(SIG_BLOCK, &set, &old), 0);
    CHECK_INT(raise(SIGPIPE), 0);
    open_pipes(&a, &b);
    fm__link_close(&b);
    CHECK_INT(fm__link_send(&a, 1, "x", 1), -EPIPE);
    fm__link_close(&a);
    CHECK_INT(sigprocmask(SIG_SETMASK, &old, NULL), 0);
    CHECK_INT(n_pipe_signals, 1);
}

TEST(a_forked_process_closes_nothing_of_its_parent)
{
    struct fm__link a, b;
    int status;
    pid_t pid;

    CHECK_INT(fm__fds_open(), 0);
    open_sockets(&a, &b);
    pid = fork();
    if (pid == 0) {
        CHECK_INT(read(a.read_fd, &status, 1), -1);
        CHECK_INT(errno, EBADF);
        close_both(&a, &b);
        _exit(0);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    CHECK_INT(fm__link_send(&a, 1, "x", 1), 1);
    expect(&b, "x");
    close_both(&a, &b);
    fm__fds_close();
}

TEST(descriptors_that_cannot_be_taken_stay_the_callers)
{
    struct fm__link link;
    int fds[2];

    CHECK_INT(pipe(fds), 0);
    CHECK_INT(fm__link_open(&link, fds[0], 999), -EBADF);
    CHECK_INT(fm__link_open(&link, 999, fds[1]), -EBADF);
    CHECK(fcntl(fds[0], F_GETFD) >= 0);
    CHECK(fcntl(fds[1], F_GETFD) >= 0);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* A pair, a value and a descriptor, with the k-th call of `call` failing. */
static bool try_fault(int call, int error, unsigned long k)
{
    struct fault next = {.call = call, .error = error, .k = k};
    int before = test_count_fds(), other, fd = -1;
    struct fm__link a, b;

    fault_arm(&next);
    if (fm__link_pair(&a, &other) == 0) {
        if (fm__link_open(&b, other, other) == 0) {
            (void)fm__link_send(&a, 1, "value", 5);
            (void)fm__link_send_fd(&a, 2);
            if (fm__link_recv(&b) == 1)
                fm__stream_next(&b.in);
            if (fm__link_recv_fd(&b, &fd) == 1)
                (void)close(fd);
            fm__link_close(&b);
        } else {
            (void)close(other);
        }
        fm__link_close(&a);
    }
    fault_disarm();
    CHECK_INT(test_count_fds(), before);
    return fault_page->reached;
}

TEST(a_fault_in_any_call_leaves_nothing_open)
{
    const int calls[] = {FAULT_socketpair, FAULT_fcntl,   FAULT_fstat,
                         FAULT_sendmsg,    FAULT_recvmsg, FAULT_close,
                         FAULT_realloc};

    fault_install();
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        for (unsigned long k = 1; try_fault(calls[i], EIO, k); k++)
            CHECK(k < 100);
    }
}

TEST(short_writes_and_reads_lose_nothing)
{
    const int calls[] = {FAULT_sendmsg, FAULT_recvmsg};
    struct fm__link a, b;

    fault_install();
    open_sockets(&a, &b);
    for (int i = 0; i < 2; i++) {
        struct fault next = {
            .call = calls[i], .error = FAULT_SHORT, .k = 1, .is_sticky = true};

        fault_arm(&next);
        CHECK_INT(fm__link_send(&a, 1, "a byte at a time", 16), 1);
        expect(&b, "a byte at a time");
    }
    fault_disarm();
    close_both(&a, &b);
}
