/* SPDX-License-Identifier: MIT */
/* Processes by handle, with kernels that refuse, interrupt and do not know. */
#include "test.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include "os/fds.h"
#include "os/pid.h"
#include "os/sys.h"

/* ------------------------------------------------------- other answers */

static int answer; /* errno of what refuse_… fakes */

static int refuse_open(pid_t pid, unsigned flags)
{
    (void)pid;
    (void)flags;
    errno = answer;
    return -1;
}

static int refuse_signal(int pidfd, int sig, siginfo_t *info, unsigned flags)
{
    (void)pidfd;
    (void)sig;
    (void)info;
    (void)flags;
    errno = answer;
    return -1;
}

static int refuse_wait(int pidfd, siginfo_t *info, int options,
                       struct rusage *usage)
{
    (void)pidfd;
    (void)info;
    (void)options;
    (void)usage;
    errno = answer;
    return -1;
}

/* As for a process that its tracer has yet to reap. */
static int wait_for_nothing(int pidfd, siginfo_t *info, int options,
                            struct rusage *usage)
{
    (void)pidfd;
    (void)options;
    memset(info, 0, sizeof *info);
    memset(usage, 0, sizeof *usage);
    return 0;
}

static int refuse_look(pid_t pid, siginfo_t *info, int options)
{
    (void)pid;
    (void)info;
    (void)options;
    errno = answer;
    return -1;
}

static int refuse_poll(struct pollfd *fds, unsigned long n, int timeout_ms)
{
    (void)fds;
    (void)n;
    (void)timeout_ms;
    errno = answer;
    return -1;
}

static int refuse_info(int pidfd, void *info)
{
    (void)pidfd;
    (void)info;
    errno = answer;
    return -1;
}

/* Answers, but has nothing of what was asked. */
static int know_nothing(int pidfd, void *info)
{
    (void)pidfd;
    memset(info, 0, sizeof(uint64_t));
    return 0;
}

static int refuse_copy(int fd, int command, int argument)
{
    if (command != F_DUPFD_CLOEXEC)
        return fm__sys_real.fcntl(fd, command, argument);
    errno = EINVAL; /* its lowest number is over the limit */
    return -1;
}

static pid_t refuse_wait4(pid_t pid, int *status, int options,
                          struct rusage *usage)
{
    (void)pid;
    (void)options;
    *status = 0;
    memset(usage, 0, sizeof *usage);
    errno = answer;
    return answer == 0 ? 0 : -1;
}

/* ------------------------------------------------------------- helpers */

static int gate[2]; /* children live until its end is closed */

/* A child that leads its group and exits with `code` once the gate opens. */
static struct fm__pid start(int code)
{
    struct fm__pid pid = FM__PID_INIT;
    pid_t child;
    char byte;

    CHECK_INT(pipe(gate), 0);
    child = fork();
    if (child == 0) {
        (void)setpgid(0, 0);
        (void)close(gate[1]);
        (void)!read(gate[0], &byte, 1);
        _exit(code);
    }
    CHECK(child > 0);
    (void)setpgid(child, child);
    CHECK_INT(fm__pid_open(&pid, child), 0);
    return pid;
}

static void let_end(const struct fm__pid *pid)
{
    siginfo_t info;

    CHECK_INT(close(gate[0]) + close(gate[1]), 0);
    CHECK_INT(waitid(P_PID, (id_t)pid->pid, &info, WEXITED | WNOWAIT), 0);
}

/* Reap it; what it exited with. */
static int reap(struct fm__pid *pid)
{
    struct fm__exit_status status;
    bool is_empty = false;

    CHECK_INT(fm__pid_reap(pid, &status, &is_empty), 1);
    CHECK(status.known);
    CHECK(is_empty);
    fm__pid_close(pid);
    return status.exit_code;
}

static bool is_left(struct fm__pid *pid)
{
    struct fm__exit_status status;
    bool is_empty;

    return fm__pid_reap(pid, &status, &is_empty) == 0;
}

static bool has_pidfds(void)
{
    struct fm__pid pid = FM__PID_INIT;
    bool has;

    CHECK_INT(fm__pid_open(&pid, getpid()), 0);
    has = fm__pid_fd(&pid) >= 0;
    fm__pid_close(&pid);
    return has;
}

/* --------------------------------------------------------------- tests */

TEST(a_kernel_that_has_no_pidfds_is_asked_by_number)
{
    const int refusals[] = {ENOSYS, EPERM, EINVAL};

    CHECK_INT(fm__fds_open(), 0);
    for (int i = 0; i < 3; i++) {
        struct fm__pid pid;

        answer = refusals[i];
        fm__sys.pidfd_open = refuse_open;
        pid = start(3 + i);
        fm__sys = fm__sys_real;
        CHECK_INT(fm__pid_fd(&pid), -1);
        CHECK(!fm__pid_is_gone(&pid) && is_left(&pid));
        let_end(&pid);
        CHECK(fm__pid_is_gone(&pid));
        CHECK_INT(reap(&pid), 3 + i);
    }
    fm__fds_close();
}

TEST(another_refusal_of_a_pidfd_is_told)
{
    struct fm__pid pid = FM__PID_INIT;

    if (!has_pidfds())
        return;
    answer = EMFILE;
    fm__sys.pidfd_open = refuse_open;
    CHECK_INT(fm__pid_open(&pid, getpid()), -EMFILE);
}

TEST(a_pidfd_for_which_there_is_no_number_is_told_and_closed)
{
    struct fm__pid pid = FM__PID_INIT;

    if (!has_pidfds())
        return;
    fm__sys.fcntl = refuse_copy;
    CHECK_INT(fm__pid_open(&pid, getpid()), -EMFILE);
    CHECK_INT(fm__pid_fd(&pid), -1);
    fm__sys = fm__sys_real;
}

/* As on a kernel without pidfds. */
static struct fm__pid start_without_pidfd(int code)
{
    struct fm__pid pid;

    answer = ENOSYS;
    fm__sys.pidfd_open = refuse_open;
    pid = start(code);
    CHECK_INT(fm__pid_fd(&pid), -1);
    return pid;
}

TEST(an_end_that_is_asked_for_by_number_is_asked_for_again)
{
    struct fm__pid pid;

    CHECK_INT(fm__fds_open(), 0);
    pid = start_without_pidfd(4);
    let_end(&pid);
    fm__sys.wait_look = refuse_look;
    answer = EINTR;
    CHECK(!fm__pid_is_gone(&pid) && is_left(&pid));
    fm__sys = fm__sys_real;
    CHECK(fm__pid_is_gone(&pid));
    fm__sys.wait4 = refuse_wait4;
    CHECK(is_left(&pid)); /* interrupted between look and reap */
    answer = 0;
    CHECK(is_left(&pid)); /* its tracer has it */
    fm__sys = fm__sys_real;
    CHECK_INT(reap(&pid), 4);
    fm__fds_close();
}

TEST(a_status_that_is_taken_between_look_and_reap_is_not_known)
{
    struct fm__exit_status status;
    struct fm__pid pid;
    bool is_empty;

    CHECK_INT(fm__fds_open(), 0);
    pid = start_without_pidfd(4);
    let_end(&pid);
    fm__sys.wait4 = refuse_wait4;
    answer = ECHILD;
    CHECK_INT(fm__pid_reap(&pid, &status, &is_empty), 1);
    CHECK(!status.known);
    fm__sys = fm__sys_real;
    CHECK_INT(reap(&pid), 4);
    fm__fds_close();
}

TEST(a_group_is_signalled_by_number_where_the_pidfd_cannot)
{
    struct fm__pid pid;

    CHECK_INT(fm__fds_open(), 0);
    pid = start(0);
    answer = EINVAL;
    fm__sys.pidfd_send_signal = refuse_signal;
    CHECK_INT(fm__pid_signal_group(&pid, 0), 0);
    CHECK_INT(fm__pid_signal(&pid, 0), 0);
    answer = ESRCH;
    CHECK_INT(fm__pid_signal_group(&pid, 0), has_pidfds() ? -ESRCH : 0);
    CHECK_INT(fm__pid_signal(&pid, 0), 0);
    fm__sys = fm__sys_real;
    let_end(&pid);
    CHECK_INT(reap(&pid), 0);
    fm__fds_close();
}

TEST(an_end_whose_status_is_not_there_yet_is_asked_for_again)
{
    struct fm__pid pid;

    CHECK_INT(fm__fds_open(), 0);
    pid = start(7);
    let_end(&pid);
    if (has_pidfds()) {
        fm__sys.pidfd_wait = wait_for_nothing;
        CHECK(is_left(&pid));
        fm__sys.pidfd_wait = refuse_wait;
        answer = EINTR;
        /* Asked by number then, which is not interrupted. */
        CHECK_INT(reap(&pid), 7);
    } else {
        answer = EINTR;
        fm__sys.wait_look = refuse_look;
        CHECK(!fm__pid_is_gone(&pid) && is_left(&pid));
        fm__sys = fm__sys_real;
        CHECK_INT(reap(&pid), 7);
    }
    fm__sys = fm__sys_real;
    fm__fds_close();
}

TEST(an_end_is_seen_without_poll)
{
    struct fm__pid pid;

    CHECK_INT(fm__fds_open(), 0);
    pid = start(9);
    answer = ENOMEM;
    fm__sys.poll = refuse_poll;
    CHECK(!fm__pid_is_gone(&pid));
    let_end(&pid);
    CHECK(fm__pid_is_gone(&pid));
    CHECK_INT(reap(&pid), 9);
    fm__sys = fm__sys_real;
    fm__fds_close();
}

TEST(a_status_that_was_taken_is_known_or_said_not_to_be)
{
    struct fm__exit_status status;
    struct fm__pid pid;
    bool is_empty;

    CHECK_INT(fm__fds_open(), 0);
    pid = start(5);
    let_end(&pid);
    CHECK_INT(waitpid(pid.pid, NULL, 0), pid.pid);
    if (has_pidfds()) {
        fm__sys.pidfd_get_info = know_nothing;
        CHECK(is_left(&pid)); /* it is about to be told */
        answer = ESRCH;
        fm__sys.pidfd_get_info = refuse_info;
        for (int i = 0; i < 6; i++)
            CHECK(is_left(&pid)); /* so it says in between, too */
        CHECK_INT(fm__pid_reap(&pid, &status, &is_empty), 1);
        CHECK(!status.known);
    }
    answer = ENOTTY;
    fm__sys.pidfd_get_info = refuse_info;
    CHECK_INT(fm__pid_reap(&pid, &status, &is_empty), 1);
    CHECK(!status.known);
    fm__sys = fm__sys_real;
    fm__pid_close(&pid);
    fm__fds_close();
}

TEST(no_process_is_not_our_own_group)
{
    struct fm__pid none = FM__PID_INIT;

    CHECK_INT(fm__pid_signal(&none, 0), -ESRCH);
    CHECK_INT(fm__pid_signal_group(&none, 0), -ESRCH);
}
