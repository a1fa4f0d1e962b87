/* SPDX-License-Identifier: MIT */
/*
 * Any messages as what a template answers.
 *
 * The input is a script: a head of eight bytes for each message, which says
 * how much of it is as it should be, then its texts.  The host is all there, a
 * kernel that has no processes is not: fork() gives numbers, and nobody who
 * has them can be seen or killed.  Whatever is said: each job settles once with
 * a kind that it may have, no number but that of a child at its gate is used,
 * and no descriptor is left.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/duplex.h"
#include "engine/template.h"
#include "os/clock.h"
#include "os/socket.h"
#include "os/sys.h"

#define N_JOBS 20
#define FDS_LOOKED_AT 512

/* Numbers of processes: no kernel has so many. */
#define TEMPLATE_PID 5000000
#define CHILD_PID 6000000
#define STRANGER_PID 7000000

static int peer = -1; /* the template's end of the socket */
static bool is_over;  /* no process is there any more */
static size_t n_settled;

/* ----------------------------------------------------------------- doubles */

static pid_t fork_nothing(void)
{
    return TEMPLATE_PID;
}

static int keep_peer(int domain, int type, int protocol, int fds[2])
{
    int rc = fm__sys_real.socketpair(domain, type, protocol, fds);

    if (rc == 0 && peer < 0)
        peer = fcntl(fds[1], F_DUPFD_CLOEXEC, 3);
    return rc;
}

/* Those whose number is even are where children are. */
static pid_t find_group(pid_t pid)
{
    if (pid >= CHILD_PID && pid < STRANGER_PID)
        return pid % 2 == 0 ? TEMPLATE_PID : CHILD_PID;
    if (pid == 0)
        return fm__sys_real.getpgid(0);
    errno = ESRCH;
    return -1;
}

/* A number that was checked, or the template's; never ours, or all. */
static void check_number(pid_t pid)
{
    REQUIRE(pid == TEMPLATE_PID ||
            (pid >= CHILD_PID && pid < STRANGER_PID && pid % 2 == 0));
}

static int set_group(pid_t pid, pid_t group)
{
    check_number(pid);
    REQUIRE(group == pid);
    return 0;
}

static int kill_nobody(pid_t pid, int sig)
{
    (void)sig;
    check_number(pid < 0 ? -pid : pid);
    errno = ESRCH;
    return -1;
}

static int open_none(pid_t pid, unsigned flags)
{
    (void)flags;
    check_number(pid);
    errno = ENOSYS;
    return -1;
}

static int look_for_none(pid_t pid, siginfo_t *info, int options)
{
    (void)options;
    check_number(pid);
    info->si_pid = 0;
    errno = ECHILD;
    return is_over ? -1 : 0;
}

static pid_t wait_for_none(pid_t pid, int *status, int options,
                           struct rusage *usage)
{
    (void)options;
    check_number(pid < 0 ? -pid : pid);
    *status = 0;
    memset(usage, 0, sizeof *usage);
    errno = ECHILD;
    return is_over ? -1 : 0;
}

static int own_nobody(int fd, int command, long argument)
{
    (void)fd;
    (void)command;
    (void)argument;
    return 0;
}

static void begin(void)
{
    fm__sys.fork = fork_nothing;
    fm__sys.socketpair = keep_peer;
    fm__sys.getpgid = find_group;
    fm__sys.setpgid = set_group;
    fm__sys.kill = kill_nobody;
    fm__sys.pidfd_open = open_none;
    fm__sys.wait_look = look_for_none;
    fm__sys.wait4 = wait_for_none;
    fm__sys.fcntl_own = own_nobody;
    is_over = false;
    n_settled = 0;
    peer = -1;
}

static int count_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < FDS_LOOKED_AT; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* -------------------------------------------------------------------- host */

static int no_job(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    abort(); /* nobody is forked */
}

static void count_settled(fm_future *future, void *ud)
{
    enum fm_kind kind = fm_future_get_outcome(future)->kind;

    (void)ud;
    n_settled++;
    REQUIRE(kind == FM_SPAWN || kind == FM_CANCELLED || kind == FM_CLOSED ||
            kind == FM_ERROR || kind == FM_NO_RESULT);
}

static void spawn_jobs(fm_template *template, fm_future *futures[N_JOBS])
{
    struct fm__errand errand = {.kind = 1, .data = "x", .len = 1};
    const struct fm_job_opts captured = {.output = FM_OUTPUT_CAPTURE};

    for (int i = 0; i < N_JOBS; i++) {
        int rc = i % 4 == 3 ? fm__template_spawn_duplex(template, NULL, &errand,
                                                        &futures[i])
                            : fm__template_spawn(template,
                                                 i % 4 == 2 ? &captured : NULL,
                                                 &errand, &futures[i]);

        REQUIRE(rc == 0);
        REQUIRE(fm_future_on_settle(futures[i], count_settled, NULL) == 0);
        if (i % 8 == 5) {
            errand.is_last = i > 16;
            (void)fm__template_call(template, &errand, NULL, 0);
            errand.is_last = false;
        }
    }
}

/* ------------------------------------------------------------------ script */

struct script {
    const uint8_t *data;
    size_t size;
    uint64_t seq;
};

static pid_t choose_pid(unsigned choice)
{
    if (choice < 160)
        return CHILD_PID + (pid_t)(choice & ~1u);
    switch (choice % 8) {
    case 0:
        return getpid();
    case 1:
        return TEMPLATE_PID;
    case 2:
        return 1;
    case 3:
        return -1;
    case 4:
        return CHILD_PID + 1;
    case 5:
        return STRANGER_PID;
    case 6:
        return INT32_MIN;
    default:
        return 0;
    }
}

/* Head: lies, code, pid, descriptor, lengths of the texts, of what is sent;
 * which job to cancel meanwhile. */
static void answer(struct script *script, fm_future *futures[N_JOBS])
{
    const uint8_t *head = script->data;
    size_t len = (size_t)head[6] * 4;
    struct fm__reply reply = {.magic = FM__REPLY_MAGIC,
                              .rc = head[1] < 200 ? 0 : -(int)(head[1] - 199),
                              .seq = script->seq,
                              .pid = choose_pid(head[2])};
    struct iovec parts[2] = {{&reply, sizeof reply}, {NULL, 0}};

    script->data += 8;
    script->size -= 8;
    len = len < script->size ? len : script->size;
    if (reply.rc < 0 && len > 0) {
        reply.message_len = (uint32_t)(head[4] % len);
        reply.traceback_len = (uint32_t)(len - reply.message_len);
    } else if (head[0] < 0xf0) {
        len = 0;
    }
    if (head[0] >= 0xf8)
        ((unsigned char *)&reply)[head[5] % sizeof reply] ^= head[4];
    parts[1] = (struct iovec){(void *)(uintptr_t)script->data, len};
    if (fm__socket_send(peer, parts, 2, &peer, head[3] == 0xff) > 0)
        script->seq++;
    script->data += len;
    script->size -= len;
    if (head[7] < N_JOBS)
        (void)fm_future_cancel(futures[head[7]], 0);
}

/* Read and forget what the host says, that it may say more. */
static void hear(void)
{
    char byte;

    while (recv(peer, &byte, 1, MSG_DONTWAIT) > 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script script = {.data = data, .size = size};
    struct fm__template_opts opts = {.fn = no_job};
    const struct fm_engine_opts many = {.max_children = N_JOBS,
                                        .on_threads = FM_THREADS_IGNORE};
    fm_future *futures[N_JOBS];
    fm_template *template = NULL;
    fm_engine *engine = NULL;
    int before = count_fds();

    if (size < 8 || size > 16384)
        return 0;
    begin();
    REQUIRE(fm_engine_new(&many, &engine) == 0);
    REQUIRE(fm__template_new(engine, &opts, &template) == 0 && peer >= 0);
    spawn_jobs(template, futures);
    while (script.size >= 8) {
        hear();
        answer(&script, futures);
        (void)fm_engine_step(engine, 0);
    }
    is_over = true;
    (void)fm_engine_step(engine, 0);
    fm__template_unref(template);
    fm_engine_free(engine);
    REQUIRE(n_settled == N_JOBS);
    for (int i = 0; i < N_JOBS; i++)
        fm_future_unref(futures[i]);
    close(peer);
    fm__sys = fm__sys_real;
    REQUIRE(count_fds() == before);
    return 0;
}
