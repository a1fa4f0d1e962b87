/* SPDX-License-Identifier: MIT */
/* Pairs of sockets: what crosses them, and that no descriptor is left. */
#include "test.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "faults.h"
#include "fork_map.h"
#include "os/fds.h"
#include "os/socket.h"

static int types[] = {SOCK_STREAM, SOCK_SEQPACKET};

static long send_bytes(int fd, const char *text, const int *fds, size_t n)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)text,
                         .iov_len = strlen(text)};

    return fm__socket_send(fd, &part, 1, fds, n);
}

static void close_both(int fds[2])
{
    fm__fd_close(&fds[0]);
    fm__fd_close(&fds[1]);
}

static void close_some(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        CHECK_INT(close(fds[i]), 0);
}

static bool is_same_file(int a, int b)
{
    struct stat sa, sb;

    CHECK_INT(fstat(a, &sa), 0);
    CHECK_INT(fstat(b, &sb), 0);
    return sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* Send `n` copies of `what`, receive with room for `room`. */
static long cross(int type, int what, size_t n, size_t room, size_t *ret_n)
{
    int pair[2], sent[FM__SOCKET_FDS_MAX + 1], got[FM__SOCKET_FDS_MAX + 1];
    char byte = 0;
    long rc;

    for (size_t i = 0; i < n; i++)
        sent[i] = what;
    CHECK_INT(fm__socket_pair(pair, type), 0);
    rc = send_bytes(pair[0], "x", sent, n);
    if (rc == 1) {
        *ret_n = room;
        rc = fm__socket_recv(pair[1], &byte, 1, got, ret_n);
        for (size_t i = 0; i < *ret_n; i++) {
            CHECK(got[i] >= 3);
            CHECK_INT(fcntl(got[i], F_GETFD), FD_CLOEXEC);
            CHECK(is_same_file(got[i], what));
        }
        close_some(got, *ret_n);
    }
    close_both(pair);
    return rc;
}

TEST(bytes_cross_both_ways_and_end_when_the_peer_closes)
{
    for (int i = 0; i < 2; i++) {
        int pair[2];
        char bytes[8];
        size_t none = 0;

        CHECK_INT(fm__socket_pair(pair, types[i]), 0);
        CHECK(pair[0] >= FM__FD_LOWEST && pair[1] >= FM__FD_LOWEST);
        CHECK_INT(fcntl(pair[0], F_GETFD), FD_CLOEXEC);
        CHECK_INT(send_bytes(pair[0], "hello", NULL, 0), 5);
        CHECK_INT(fm__socket_recv(pair[1], bytes, 8, NULL, &none), 5);
        CHECK(memcmp(bytes, "hello", 5) == 0);
        CHECK_INT(send_bytes(pair[1], "you", NULL, 0), 3);
        CHECK_INT(fm__socket_recv(pair[0], bytes, 8, NULL, &none), 3);
        fm__fd_close(&pair[0]);
        CHECK_INT(fm__socket_recv(pair[1], bytes, 8, NULL, &none), 0);
        CHECK_INT(send_bytes(pair[1], "x", NULL, 0), -EPIPE);
        fm__fd_close(&pair[1]);
    }
}

TEST(nothing_is_refused_since_it_would_look_like_the_end)
{
    int pair[2];

    CHECK_INT(fm__socket_pair(pair, SOCK_SEQPACKET), 0);
    CHECK_INT(send_bytes(pair[0], "", NULL, 0), -EINVAL);
    CHECK_INT(fm__socket_send(pair[0], NULL, 0, pair, 1), -EINVAL);
    close_both(pair);
}

TEST(a_pair_that_does_not_block_says_so)
{
    int pair[2];
    char byte;
    size_t none = 0;

    CHECK_INT(fm__socket_pair(pair, SOCK_STREAM | SOCK_NONBLOCK), 0);
    CHECK_INT(fm__socket_recv(pair[0], &byte, 1, NULL, &none), -EAGAIN);
    close_both(pair);
}

TEST(any_number_of_descriptors_up_to_the_limit_crosses)
{
    const size_t counts[] = {0, 1, 2, 3, 251, 252};
    int file = open("/dev/null", O_RDONLY);
    size_t n;

    for (int t = 0; t < 2; t++) {
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            int before = test_count_fds();

            CHECK_INT(cross(types[t], file, counts[i], counts[i], &n), 1);
            CHECK_INT(n, counts[i]);
            CHECK_INT(test_count_fds(), before);
        }
    }
    CHECK_INT(cross(SOCK_STREAM, file, 1, 999, &n), 1);
    CHECK_INT(n, 1);
    CHECK_INT(cross(SOCK_STREAM, file, 253, 252, &n), -EINVAL);
    (void)close(file);
}

TEST(more_descriptors_than_expected_are_a_protocol_error_and_closed)
{
    const size_t rooms[] = {0, 1, 2, 3, 100, 251};
    int file = open("/dev/null", O_RDONLY);
    size_t n = 0;

    for (int t = 0; t < 2; t++) {
        for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) {
            int before = test_count_fds();

            CHECK_INT(cross(types[t], file, rooms[i] + 1, rooms[i], &n),
                      FM_EPROTOCOL);
            CHECK_INT(n, 0);
            CHECK_INT(test_count_fds(), before);
        }
    }
    (void)close(file);
}

TEST(descriptors_of_any_kind_cross)
{
    char path[] = "/tmp/fork_map_spec_XXXXXX";
    int kinds[4];
    size_t n;

    CHECK(mkdtemp(path));
    kinds[0] = open(path, O_RDONLY | O_DIRECTORY);
    CHECK_INT(mkfifoat(kinds[0], "fifo", 0600), 0);
    kinds[1] = openat(kinds[0], "fifo", O_RDWR);
    kinds[2] = epoll_create1(0);
    kinds[3] = open("/", O_PATH);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(cross(SOCK_SEQPACKET, kinds[i], 2, 2, &n), 1);
        CHECK_INT(n, 2);
    }
    CHECK_INT(unlinkat(kinds[0], "fifo", 0), 0);
    CHECK_INT(rmdir(path), 0);
    close_some(kinds, 4);
}

TEST(a_thousand_messages_with_descriptors_leave_none)
{
    int pair[2], file = open("/dev/null", O_RDONLY);
    int before = test_count_fds();

    CHECK_INT(fm__socket_pair(pair, SOCK_SEQPACKET), 0);
    for (int i = 0; i < 1000; i++) {
        int sent[3] = {file, pair[0], file}, got[4];
        size_t n = 4;
        char byte;

        CHECK_INT(send_bytes(pair[0], "x", sent, 3), 1);
        CHECK_INT(fm__socket_recv(pair[1], &byte, 1, got, &n), 1);
        CHECK_INT(n, 3);
        close_some(got, n);
    }
    close_both(pair);
    CHECK_INT(test_count_fds(), before);
    (void)close(file);
}

TEST(descriptors_that_nobody_received_go_with_the_pair)
{
    int before = test_count_fds(), file = open("/dev/null", O_RDONLY);
    int pair[2];

    CHECK_INT(fm__socket_pair(pair, SOCK_STREAM), 0);
    CHECK_INT(send_bytes(pair[0], "x", &file, 1), 1);
    close_both(pair);
    (void)close(file);
    CHECK_INT(test_count_fds(), before);
}

TEST(a_message_that_is_longer_than_expected_is_a_protocol_error)
{
    int pair[2], got, file = open("/dev/null", O_RDONLY);
    int before;
    char bytes[4];
    size_t n = 1;

    CHECK_INT(fm__socket_pair(pair, SOCK_SEQPACKET), 0);
    before = test_count_fds();
    CHECK_INT(send_bytes(pair[0], "hello", &file, 1), 5);
    CHECK_INT(fm__socket_recv(pair[1], bytes, 4, &got, &n), FM_EPROTOCOL);
    CHECK_INT(n, 0);
    CHECK_INT(test_count_fds(), before);
    close_both(pair);
    (void)close(file);
}

TEST(what_is_no_descriptor_beside_the_bytes_is_a_protocol_error)
{
    int pair[2], got[8], on = 1;
    size_t n = 8;
    char byte;

    CHECK_INT(fm__socket_pair(pair, SOCK_STREAM), 0);
    CHECK_INT(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
    CHECK_INT(send_bytes(pair[0], "x", NULL, 0), 1);
    CHECK_INT(fm__socket_recv(pair[1], &byte, 1, got, &n), FM_EPROTOCOL);
    CHECK_INT(n, 0);
    close_both(pair);
}

TEST(no_room_for_descriptors_here_is_no_fault_of_the_sender)
{
    int pair[2], got[8], sent[8], file = open("/dev/null", O_RDONLY);
    struct rlimit limit, low;
    int before;
    size_t n = 8;
    char byte;

    CHECK_INT(fm__socket_pair(pair, SOCK_STREAM), 0);
    for (int i = 0; i < 8; i++)
        sent[i] = file;
    CHECK_INT(send_bytes(pair[0], "x", sent, 8), 1);
    before = test_count_fds();
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    low.rlim_cur = (rlim_t)dup(file) + 3;
    (void)close((int)low.rlim_cur - 3);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &low), 0);
    CHECK_INT(fm__socket_recv(pair[1], &byte, 1, got, &n), -EMFILE);
    CHECK_INT(n, 0);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK_INT(test_count_fds(), before);
    close_both(pair);
    (void)close(file);
}

TEST(descriptors_do_not_take_the_place_of_closed_standard_streams)
{
    int pair[2], got[4], sent[4];
    size_t n = 4;
    char byte;

    CHECK_INT(fm__socket_pair(pair, SOCK_STREAM), 0);
    for (int i = 0; i < 4; i++)
        sent[i] = pair[0];
    CHECK_INT(send_bytes(pair[0], "x", sent, 4), 1);
    test_report_fd = dup(2);
    for (int i = 0; i < 3; i++)
        (void)close(i);
    CHECK_INT(fm__socket_recv(pair[1], &byte, 1, got, &n), 1);
    CHECK_INT(n, 4);
    for (int i = 0; i < 4; i++)
        CHECK(got[i] >= 3);
    for (int i = 0; i < 3; i++)
        CHECK_INT(fcntl(i, F_GETFD), -1);
    close_some(got, n);
    close_both(pair);
    for (int i = 0; i < 3; i++)
        CHECK_INT(dup(test_report_fd), i);
    (void)close(test_report_fd);
}

/* One round with the k-th call of `call` failing; returns whether it came. */
static bool try_fault(int call, int error, unsigned long k)
{
    struct fault next = {.call = call, .error = error, .k = k};
    int pair[2], got[2], file = 2, before = test_count_fds();
    size_t n = 2;
    char byte;

    fault_arm(&next);
    if (fm__socket_pair(pair, SOCK_STREAM) == 0) {
        if (send_bytes(pair[0], "x", &file, 1) == 1) {
            (void)fm__socket_recv(pair[1], &byte, 1, got, &n);
            fault_disarm();
            close_some(got, n == 2 ? 0 : n);
        }
        fault_disarm();
        close_both(pair);
    }
    fault_disarm();
    CHECK_INT(test_count_fds(), before);
    return fault_page->reached;
}

TEST(a_fault_in_any_call_leaves_nothing_open)
{
    const int calls[] = {FAULT_socketpair, FAULT_fcntl, FAULT_sendmsg,
                         FAULT_recvmsg, FAULT_close};

    fault_install();
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        unsigned long k = 1;

        while (try_fault(calls[i], EIO, k))
            k++;
        CHECK(k > 1);
    }
}

static int interruptions = 3;

static ssize_t interrupted(int fd, const struct msghdr *message, int flags)
{
    if (interruptions-- > 0) {
        errno = EINTR;
        return -1;
    }
    return fm__sys_real.sendmsg(fd, message, flags);
}

TEST(a_signal_does_not_end_a_message)
{
    int pair[2];

    CHECK_INT(fm__socket_pair(pair, SOCK_STREAM), 0);
    fm__sys.sendmsg = interrupted;
    CHECK_INT(send_bytes(pair[0], "x", NULL, 0), 1);
    CHECK_INT(interruptions, -1);
    close_both(pair);
}
