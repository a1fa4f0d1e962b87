/* SPDX-License-Identifier: MIT */
/* Descriptors in wrong hands: those of the host in children, those of the
 * engine in processes that it did not make. */
#include "jobs.h"
#include "os/sys.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#ifdef __linux__
#include <sys/epoll.h>
#endif

static const struct fm_job_opts bare = {.has_keep_fds = true};

static fm_future *spawn_running(fm_engine *engine,
                                const struct fm_job_opts *opts, fm_job_fn fn,
                                void *ud)
{
    fm_future *future = spawn(engine, opts, fn, ud);

    wait_running(engine, future);
    return future;
}

/* Nobody holds the other end of `fd` any more, within five seconds. */
static void check_hung_up(int fd)
{
    struct pollfd end = {.fd = fd, .events = POLLIN};
    char c;

    CHECK_INT(poll(&end, 1, 5000), 1);
    CHECK_INT(read(fd, &c, 1), 0);
    (void)close(fd);
}

/* -------------------------------------------------- the host's, in children */

#define SIBLINGS 8

TEST(siblings_that_hold_everything_do_not_hide_the_end_of_one)
{
    struct fm_job_opts opts = {.output = FM_OUTPUT_CAPTURE};
    fm_engine *engine = new_engine();
    fm_future *futures[SIBLINGS];

    for (int i = 0; i < SIBLINGS; i++)
        futures[i] = spawn_running(engine, &opts, hang, NULL);
    CHECK_INT(kill(fm_future_get_pid(futures[3]), SIGKILL), 0);
    CHECK_INT(wait_for(engine, futures[3])->kind, FM_SIGNAL);
    for (int i = 0; i < SIBLINGS; i++) {
        if (i != 3)
            CHECK_INT(fm_future_get_state(futures[i]), FM_RUNNING);
    }
    CHECK_INT(fm_engine_close(engine, 0), 0);
    for (int i = 0; i < SIBLINGS; i++)
        fm_future_unref(futures[i]);
    fm_engine_free(engine);
}

TEST(a_socket_that_the_host_closes_is_closed_though_a_child_lives)
{
    fm_engine *engine = new_engine();
    fm_future *future;
    int fds[2];

    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    future = spawn_running(engine, &bare, hang, NULL);
    (void)close(fds[0]);
    check_hung_up(fds[1]);
    CHECK_INT(fm_future_get_state(future), FM_RUNNING);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    fm_future_unref(future);
    fm_engine_free(engine);
}

static int read_on(fm_child *child, void *ud)
{
    char data[64];
    int fd = *(int *)ud;

    if (read(fd, data, sizeof data) >= 0 || errno != EBADF ||
        lseek(fd, 7, SEEK_SET) >= 0)
        return -EEXIST;
    return say_hello(child, NULL);
}

TEST(an_offset_of_the_host_is_not_moved_by_a_child_without_the_file)
{
    fm_engine *engine = new_engine();
    int fd;

    make_mark();
    fd = open(mark, O_RDWR | O_CLOEXEC);
    CHECK_INT(write(fd, "0123456789", 10), 10);
    CHECK_INT(lseek(fd, 3, SEEK_SET), 3);
    for (int i = 0; i < 4; i++) {
        fm_future *future = spawn(engine, &bare, read_on, &fd);

        is_hello(wait_for(engine, future));
        fm_future_unref(future);
    }
    CHECK_INT(lseek(fd, 0, SEEK_CUR), 3);
    (void)close(fd);
    (void)unlink(mark);
    fm_engine_free(engine);
}

#ifdef __linux__
struct watch {
    int epoll, fds[2];
};

static int disturb(fm_child *child, void *ud)
{
    const struct watch *watch = ud;

    if (epoll_ctl(watch->epoll, EPOLL_CTL_DEL, watch->fds[0], NULL) == 0 ||
        write(watch->fds[1], "x", 1) == 1)
        return -EEXIST;
    return say_hello(child, NULL);
}

TEST(what_the_host_watches_is_not_disturbed_by_a_child_without_it)
{
    struct epoll_event event = {.events = EPOLLIN};
    fm_engine *engine = new_engine();
    struct watch watch;
    fm_future *future;

    watch.epoll = epoll_create1(EPOLL_CLOEXEC);
    CHECK_INT(pipe2(watch.fds, O_CLOEXEC), 0);
    CHECK_INT(epoll_ctl(watch.epoll, EPOLL_CTL_ADD, watch.fds[0], &event), 0);
    future = spawn(engine, &bare, disturb, &watch);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    future = spawn_running(engine, &bare, hang, NULL);
    CHECK_INT(epoll_wait(watch.epoll, &event, 1, 0), 0);
    CHECK_INT(write(watch.fds[1], "x", 1), 1);
    CHECK_INT(epoll_wait(watch.epoll, &event, 1, 0), 1);
    /* Closed here, nobody holds it: the watch goes with it. */
    (void)close(watch.fds[0]);
    CHECK_INT(epoll_wait(watch.epoll, &event, 1, 0), 0);
    (void)close(watch.fds[1]);
    (void)close(watch.epoll);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    fm_future_unref(future);
    fm_engine_free(engine);
}
#endif

/* ------------------------------------------- the engine's, with strangers */

/* As luaposix, popen() and many a C library do it; back when it is there. */
static pid_t fork_stranger(int fd)
{
    int ready[2];
    pid_t pid;
    char c;

    CHECK_INT(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        (void)close(fd); /* and nothing else */
        (void)close(ready[0]);
        (void)close(ready[1]);
        for (;;)
            (void)pause();
    }
    CHECK(pid > 0);
    (void)close(ready[1]);
    CHECK_INT(read(ready[0], &c, 1), 0);
    (void)close(ready[0]);
    return pid;
}

static void __attribute__((unused)) end_stranger(pid_t pid)
{
    CHECK_INT(kill(pid, SIGKILL), 0);
    CHECK_INT(waitpid(pid, NULL, 0), pid);
}

#ifdef __linux__
/* Every number that is open in process `pid` and leads to what `name` begins
 * with. */
static int count_links(pid_t pid, const char *name)
{
    char path[64], target[256];
    int n = 0;

    for (int fd = 0; fd < 256; fd++) {
        ssize_t len;

        (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
        len = readlink(path, target, sizeof target - 1);
        if (len <= 0)
            continue;
        target[len] = '\0';
        n += strncmp(target, name, strlen(name)) == 0;
    }
    return n;
}

/* Of the kinds that engines have. */
static int count_own(pid_t pid)
{
    return count_links(pid, "pipe:") + count_links(pid, "anon_inode:");
}

TEST(a_stranger_gets_no_pipe_of_the_engine)
{
    struct fm_job_opts opts = {.output = FM_OUTPUT_CAPTURE};
    int before = count_own(getpid());
    fm_engine *engine = new_engine();
    fm_future *future = spawn_running(engine, &opts, hang, NULL);
    pid_t stranger = fork_stranger(-1);

    CHECK(count_own(getpid()) > before);
    CHECK_INT(count_own(stranger), before);
    CHECK_INT(fm_future_cancel(future, 0), 1);
    CHECK_INT(wait_for(engine, future)->kind, FM_CANCELLED);
    fm_future_unref(future);
    future = spawn(engine, &opts, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    fm_engine_free(engine);
    end_stranger(stranger);
}

#define LIFELINES 8

static struct {
    ino_t let_go[LIFELINES]; /* whose read ends are buried */
    int n, n_late;
} burials;

static void note_burial(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    struct stat st;

    if (flags < 0 || fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
        return;
    if ((flags & O_ASYNC) && burials.n < LIFELINES)
        burials.let_go[burials.n++] = st.st_ino;
    for (int i = 0; i < burials.n; i++)
        burials.n_late +=
            (flags & O_ACCMODE) == O_WRONLY && burials.let_go[i] == st.st_ino;
}

static int note_dup3(int from, int to, int flags)
{
    note_burial(to);
    return fm__sys_real.dup3(from, to, flags);
}

static int note_close(int fd)
{
    note_burial(fd);
    return fm__sys_real.close(fd);
}

/* Else the read end could go before a write end that the host's death has left
 * with a process that was just being forked. */
TEST(who_is_forked_lets_go_of_the_write_ends_of_lifelines_first)
{
    fm_engine *engine = new_engine();
    fm_future *futures[LIFELINES / 2];
    int status;
    pid_t stranger;

    for (int i = 0; i < LIFELINES / 2; i++) /* two each */
        futures[i] = spawn_running(engine, NULL, hang, NULL);
    /* The order of what is registered changes when something goes. */
    CHECK_INT(fm_future_cancel(futures[0], 0), 1);
    CHECK_INT(wait_for(engine, futures[0])->kind, FM_CANCELLED);
    fm__sys.dup3 = note_dup3;
    fm__sys.close = note_close;
    stranger = fork();
    if (stranger == 0)
        _exit(burials.n >= LIFELINES - 2 ? burials.n_late : 100);
    fm__sys.dup3 = fm__sys_real.dup3;
    fm__sys.close = fm__sys_real.close;
    CHECK_INT(waitpid(stranger, &status, 0), stranger);
    CHECK_INT(status, 0);
    for (int i = 0; i < LIFELINES / 2; i++)
        fm_future_unref(futures[i]);
    fm_engine_free(engine);
}

static pid_t own_pid;

/* Only the host's own requests reach the kernel. */
static int own_in_host(int fd, int command, long arg)
{
    if (getpid() != own_pid)
        return 0;
    return fm__sys_real.fcntl_own(fd, command, arg);
}

static _Noreturn void be_anchored_host(int fd)
{
    fm_engine *engine;

    own_pid = getpid();
    fm__sys.fcntl_own = own_in_host;
    engine = new_engine();
    (void)spawn_running(engine, NULL, hang, NULL);
    (void)!write(fd, "x", 1);
    for (;;)
        (void)fm_engine_step(engine, -1);
}

/* A child that dies when its host does may let go of its lifeline too early. */
TEST(a_child_whose_own_lifeline_is_lost_ends_with_its_host)
{
    pid_t host;
    int fds[2];
    char c;

    CHECK_INT(pipe(fds), 0);
    host = fork();
    if (host == 0)
        be_anchored_host(fds[1]);
    (void)close(fds[1]);
    CHECK_INT(read(fds[0], &c, 1), 1);
    CHECK_INT(kill(host, SIGKILL), 0);
    CHECK_INT(waitpid(host, NULL, 0), host);
    check_hung_up(fds[0]);
}
#endif

/* A host with children and a stranger, which then waits for its death. */
static _Noreturn void be_host(int fd, int held)
{
    fm_engine *engine = new_engine();
    pid_t stranger;

    (void)spawn_running(engine, NULL, hang, NULL);
    (void)spawn_running(engine, NULL, spin, NULL);
    stranger = fork_stranger(held);
    (void)!write(fd, &stranger, sizeof stranger);
    for (;;)
        (void)fm_engine_step(engine, -1);
}

TEST(a_stranger_keeps_no_child_alive_when_the_host_is_killed)
{
    int told[2], held[2];
    pid_t host, stranger;

    CHECK_INT(pipe2(told, O_CLOEXEC), 0);
    CHECK_INT(pipe2(held, O_CLOEXEC), 0);
    host = fork();
    if (host == 0)
        be_host(told[1], held[1]);
    CHECK_INT(read(told[0], &stranger, sizeof stranger), sizeof stranger);
    CHECK_INT(kill(host, SIGKILL), 0);
    CHECK_INT(waitpid(host, NULL, 0), host);
    (void)close(held[1]);
    check_hung_up(held[0]); /* the children are gone */
    CHECK_INT(kill(stranger, 0), 0);
    CHECK_INT(kill(stranger, SIGKILL), 0);
    (void)close(told[0]);
    (void)close(told[1]);
}

/* What daemon() does: the parent leaves, the child goes on with all it has. */
static _Noreturn void be_daemon(int fd, fm_engine *stale)
{
    fm_engine *engine;
    fm_future *future;
    char answer = 'n';

    if (setsid() > 0 && fm_engine_step(stale, 0) == FM_ECLOSED &&
        fm_engine_new(NULL, &engine) == 0) {
        future = spawn(engine, NULL, say_hello, NULL);
        is_hello(wait_for(engine, future));
        fm_future_unref(future);
        fm_engine_free(engine);
        fm_engine_free(stale);
        answer = 'y';
    }
    (void)!write(fd, &answer, 1);
    _exit(0);
}

TEST(a_host_that_becomes_a_daemon_leaves_its_children_and_makes_new_ones)
{
    int told[2], held[2];
    char answer = 0;
    pid_t host;

    CHECK_INT(pipe2(told, O_CLOEXEC), 0);
    CHECK_INT(pipe2(held, O_CLOEXEC), 0);
    host = fork();
    if (host == 0) {
        fm_engine *engine = new_engine();

        (void)spawn_running(engine, NULL, hang, NULL);
        if (fork() == 0)
            be_daemon(told[1], engine);
        _exit(0);
    }
    CHECK_INT(waitpid(host, NULL, 0), host);
    (void)close(told[1]);
    (void)close(held[1]);
    CHECK_INT(read(told[0], &answer, 1), 1);
    CHECK_INT(answer, 'y');
    check_hung_up(held[0]); /* neither the daemon nor the child is left */
    (void)close(told[0]);
}
