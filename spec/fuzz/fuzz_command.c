/* SPDX-License-Identifier: MIT */
/*
 * Any messages as what a template is told, with any descriptors.
 *
 * The input is a script: a head of eight bytes for each message, which says
 * how much of it is as it should be, then its body.  Whatever comes: each
 * message is answered once and in order, or the server ends; no descriptor is
 * left, and nothing is forked without all that a child needs.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/bind.h"
#include "engine/command.h"
#include "os/fds.h"
#include "os/memory.h"
#include "os/socket.h"
#include "os/sys.h"
#include "process/channel.h"

#define MESSAGES_MAX 24
#define BODY_MAX 6000
#define FDS_LOOKED_AT 128

/* Descriptors that a message may bring. */
enum { NULL_FD, CHANNEL_FD, FILE_FD, SHORT_FD, SOCKET_FD, N_KINDS };

static int given[N_KINDS];
static size_t n_forked, n_called;
static int call_answer;

/* ----------------------------------------------------------------- doubles */

/* NOLINTNEXTLINE(readability-non-const-parameter): as in the table */
static pid_t fork_nothing(int *tid)
{
    (void)tid;
    n_forked++;
    errno = EAGAIN;
    return n_forked % 3 == 0 ? -1 : 4000000 + (pid_t)n_forked;
}

/* The fuzzer's own threads are not the template's. */
static int open_status(const char *path, int flags, mode_t mode)
{
    static const char status[] = "Name:\tx\nThreads:\t1\n";
    int fds[2];

    if (strcmp(path, "/proc/self/status") != 0)
        return fm__sys_real.open(path, flags, mode);
    REQUIRE(pipe(fds) == 0);
    REQUIRE(write(fds[1], status, sizeof status - 1) > 0);
    close(fds[1]);
    return fds[0];
}

static int do_job(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    abort(); /* nobody is forked */
}

/* Reads all that it is given. */
static int do_call(struct fm__server *server, const struct fm__errand *errand,
                   const int *fds, size_t n_fds, void *ud)
{
    const unsigned char *bytes = errand->data;
    unsigned sum = 0;

    (void)ud;
    n_called++;
    for (size_t i = 0; i < errand->len; i++)
        sum += bytes[i];
    for (size_t i = 0; i < n_fds; i++)
        REQUIRE(close(fds[i]) == 0);
    if (call_answer < 0 && sum % 2 == 0)
        fm__server_fail(server, "it went wrong", "there");
    return call_answer;
}

static const struct fm__server_calls server_calls = {.job = do_job,
                                                     .call = do_call};

/* ------------------------------------------------------------------ set-up */

static int new_file(size_t len)
{
    int fd = fm__memory_open_file(len);

    REQUIRE(fd >= 0);
    return fd;
}

static void begin(void)
{
    static bool has_begun;

    if (has_begun)
        return;
    has_begun = true;
    given[NULL_FD] = open("/dev/null", O_RDWR | O_CLOEXEC);
    given[CHANNEL_FD] = new_file(fm__channel_get_size());
    given[FILE_FD] = new_file(BODY_MAX);
    given[SHORT_FD] = memfd_create("short", MFD_CLOEXEC);
    given[SOCKET_FD] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (int i = 0; i < N_KINDS; i++)
        REQUIRE(given[i] >= 0);
    fm__sys.fork_sibling = fork_nothing;
    fm__sys.open = open_status;
}

static int count_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < FDS_LOOKED_AT; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* ------------------------------------------------------------------ script */

struct script {
    const uint8_t *data;
    size_t size;
    size_t n_sent;
};

static void send_message(struct script *script, int fd,
                         const struct fm__command *command,
                         const struct iovec parts[2], const int *fds,
                         size_t n_fds)
{
    struct iovec all[3] = {
        {(void *)(uintptr_t)command, sizeof *command}, parts[0], parts[1]};

    if (fm__socket_send(fd, all, 3, fds, n_fds) > 0)
        script->n_sent++;
}

static void send_hello(struct script *script, int fd)
{
    struct fm__hello hello = {.size = sizeof(struct fm__fork_order),
                              .channel = fm__channel_get_size()};
    struct fm__command command = {.magic = FM__COMMAND_MAGIC,
                                  .type = FM__COMMAND_HELLO,
                                  .seq = script->n_sent,
                                  .n_fds = 1,
                                  .len = sizeof hello};
    struct iovec parts[2] = {{&hello, sizeof hello}, {NULL, 0}};

    memcpy(hello.version, FM_VERSION, sizeof FM_VERSION);
    send_message(script, fd, &command, parts, given, 1);
}

static size_t add_fds(int fds[FM__COMMAND_FDS], unsigned choice, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        fds[i] = given[(choice + i * (1 + choice / 16)) % N_KINDS];
    return n;
}

/* Head: type and lies, flags, descriptors, which, kind, length of the body in
 * two, of the payload. */
static void send_next(struct script *script, int fd)
{
    const uint8_t *head = script->data;
    size_t len = (size_t)head[5] * 32 + head[6];
    struct fm__fork_order order;
    struct fm__command command = {.magic = FM__COMMAND_MAGIC,
                                  .type = head[0] % 5,
                                  .flags = head[1],
                                  .kind = head[4],
                                  .seq = script->n_sent};
    int fds[FM__COMMAND_FDS];
    struct iovec parts[2] = {{&order, 0}, {NULL, 0}};

    script->data += 8;
    script->size -= 8;
    len = len < script->size ? len : script->size;
    len = len < BODY_MAX ? len : BODY_MAX;
    command.n_fds = (uint32_t)add_fds(fds, head[3], head[2] % 17);
    command.len = head[7] < 250 ? head[7] % (len + 1) : BODY_MAX;
    if (head[0] & 0x10)
        command.magic ^= head[7];
    if (head[0] & 0x20)
        command.n_fds ^= 1;
    if (command.type == FM__COMMAND_FORK && head[0] < 0xe0) {
        memset(&order, 0, sizeof order);
        order.channel = head[4] % 4;
        order.name_len = head[6] % 8;
        parts[0].iov_len = sizeof order;
    }
    parts[1] = (struct iovec){(void *)(uintptr_t)script->data, len};
    send_message(script, fd, &command, parts, fds, head[2] % 17);
    script->data += len;
    script->size -= len;
}

/* Returns how many messages were answered. */
static size_t read_answers(int fd)
{
    char buffer[sizeof(struct fm__reply) + 2 * FM__REPLY_TEXT];
    size_t n = 0;

    for (;;) {
        struct fm__reply reply;
        long len = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);

        if (len < 0 && errno == ECONNRESET)
            continue; /* told once: it has not read all */
        if (len <= 0)
            return n;
        REQUIRE((size_t)len >= sizeof reply);
        memcpy(&reply, buffer, sizeof reply);
        REQUIRE(reply.magic == FM__REPLY_MAGIC && reply.rc <= 0);
        REQUIRE(reply.seq == n);
        REQUIRE((size_t)len ==
                sizeof reply + reply.message_len + reply.traceback_len);
        REQUIRE(reply.pid == 0 || reply.rc == 0);
        n++;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script script = {.data = data, .size = size};
    size_t n_answered;
    int fds[2], before, rc, server_fd;

    if (size < 9 || size > 16384)
        return 0;
    begin();
    n_forked = n_called = 0;
    call_answer = data[size - 1] < 200 ? 0 : data[size - 1] < 230 ? 1 : -EIO;
    before = count_fds();
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
    REQUIRE(fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0);
    if (data[size - 1] & 1)
        send_hello(&script, fds[0]);
    for (int i = 0; i < MESSAGES_MAX && script.size >= 8; i++)
        send_next(&script, fds[0]);
    REQUIRE(shutdown(fds[0], SHUT_WR) == 0);
    REQUIRE(fm__fds_open() == 0);
    server_fd = fm__fd_adopt(fds[1]);
    REQUIRE(server_fd >= 0);
    rc = fm__serve(server_fd, &server_calls);
    fm__fds_close();
    n_answered = read_answers(fds[0]);
    REQUIRE(rc != 0 || n_answered == script.n_sent);
    REQUIRE(n_answered <= script.n_sent && n_called <= n_answered);
    close(fds[0]);
    REQUIRE(count_fds() == before);
    return 0;
}
