/* SPDX-License-Identifier: MIT */
/*
 * What the kernel costs, for comparison: a Lua module with the smallest fork
 * that gives back eight bytes, in C alone and around a Lua function.  Nothing
 * is checked, encoded, limited or cleaned up.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>

static int l_now(lua_State *L)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    lua_pushnumber(L, (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec * 1e-3);
    return 1;
}

static int64_t result_of(lua_State *L, int64_t i)
{
    int64_t x;

    if (!L)
        return i * 10;
    lua_pushvalue(L, 1);
    lua_pushinteger(L, i);
    lua_call(L, 1, 1);
    (void)lua_getfield(L, -1, "x");
    x = lua_tointeger(L, -1);
    return x;
}

/* Fork, compute, eight bytes through a pipe, wait.  0, or -1 with errno. */
static int fork_once(lua_State *fn, int64_t i, int64_t *ret)
{
    int64_t x = 0;
    ssize_t got;
    int fds[2];
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -1;
    pid = fork();
    if (pid < 0) {
        (void)close(fds[0]);
        (void)close(fds[1]);
        return -1;
    }
    if (pid == 0) {
        x = result_of(fn, i);
        _exit(write(fds[1], &x, sizeof x) != sizeof x);
    }
    (void)close(fds[1]);
    got = read(fds[0], &x, sizeof x);
    (void)close(fds[0]);
    (void)waitpid(pid, NULL, 0);
    errno = ECHILD; /* should it have said less */
    *ret = x;
    return got == sizeof x ? 0 : -1;
}

static int64_t call(lua_State *L, lua_State *fn, int64_t i)
{
    int64_t x = 0;

    if (fork_once(fn, i, &x) < 0)
        return luaL_error(L, "a fork failed: %s", strerror(errno));
    return x;
}

/* floor.raw(i): C alone. */
static int l_raw(lua_State *L)
{
    lua_pushinteger(L, call(L, NULL, luaL_checkinteger(L, 1)));
    return 1;
}

/* floor.lua(fn, i) -> {x = ...}: a Lua function in the child. */
static int l_lua(lua_State *L)
{
    int64_t x = call(L, L, luaL_checkinteger(L, 2));

    lua_createtable(L, 0, 1);
    lua_pushinteger(L, x);
    lua_setfield(L, -2, "x");
    return 1;
}

/* All of `len` bytes, from or to a pipe.  Returns how many were moved. */
static size_t move(int fd, unsigned char *p, size_t len, int is_write)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = is_write ? write(fd, p + done, len - done)
                             : read(fd, p + done, len - done);

        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return done;
}

/* floor.text(s) -> a copy: the bytes through a pipe from a child, in pieces as
 * big as the pipe takes, into memory that is as big as the whole at once. */
static int l_text(lua_State *L)
{
    size_t len, got;
    const char *text = luaL_checklstring(L, 1, &len);
    luaL_Buffer buffer;
    unsigned char *to = (unsigned char *)luaL_buffinitsize(L, &buffer, len);
    int fds[2];
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return luaL_error(L, "pipe: %s", strerror(errno));
    (void)fcntl(fds[1], F_SETPIPE_SZ, 1 << 20);
    pid = fork();
    if (pid < 0)
        return luaL_error(L, "fork: %s", strerror(errno));
    if (pid == 0)
        _exit(move(fds[1], (unsigned char *)(uintptr_t)text, len, 1) != len);
    (void)close(fds[1]);
    got = move(fds[0], to, len, 0);
    (void)close(fds[0]);
    (void)waitpid(pid, NULL, 0);
    if (got != len)
        return luaL_error(L, "the child failed");
    luaL_pushresultsize(&buffer, len);
    return 1;
}

/* A child with a pipe to here: 0 in it. */
static pid_t start(lua_State *L, int fds[2])
{
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return luaL_error(L, "pipe: %s", strerror(errno));
    (void)fcntl(fds[1], F_SETPIPE_SZ, 1 << 20);
    pid = fork();
    if (pid < 0)
        return luaL_error(L, "fork: %s", strerror(errno));
    return pid;
}

/* Every second item from this one on, each in a process of its own. */
static int64_t run_master(int64_t first, int64_t n)
{
    int64_t sum = 0;

    for (int64_t i = first; i <= n; i += 2) {
        int64_t x;

        if (fork_once(NULL, i, &x) < 0)
            _exit(1);
        sum += x;
    }
    return sum;
}

/* floor.masters(n) -> sum: items 1 to n, each in a process of its own, forked
 * by two processes at once. */
static int l_masters(lua_State *L)
{
    int64_t n = luaL_checkinteger(L, 1);
    int64_t sum = 0;
    int fds[2][2];
    pid_t pids[2];

    for (int w = 0; w < 2; w++) {
        pids[w] = start(L, fds[w]);
        if (pids[w] == 0) {
            sum = run_master(1 + w, n);
            _exit(write(fds[w][1], &sum, sizeof sum) != sizeof sum);
        }
        (void)close(fds[w][1]);
    }
    for (int w = 0; w < 2; w++) {
        int64_t x;

        if (read(fds[w][0], &x, sizeof x) != sizeof x)
            return luaL_error(L, "a master failed");
        (void)close(fds[w][0]);
        (void)waitpid(pids[w], NULL, 0);
        sum += x;
    }
    lua_pushinteger(L, sum);
    return 1;
}

/* floor.split(fn): fn(1) and fn(2) in a bare fork each, at once; nothing comes
 * back.  What two processors can give here. */
static int l_split(lua_State *L)
{
    pid_t pids[2];

    for (int w = 0; w < 2; w++) {
        pids[w] = fork();
        if (pids[w] < 0)
            return luaL_error(L, "fork: %s", strerror(errno));
        if (pids[w] == 0) {
            lua_pushvalue(L, 1);
            lua_pushinteger(L, 1 + w);
            _exit(lua_pcall(L, 1, 0, 0) != LUA_OK);
        }
    }
    for (int w = 0; w < 2; w++) {
        int status = 0;

        (void)waitpid(pids[w], &status, 0);
        if (status != 0)
            return luaL_error(L, "a half failed");
    }
    return 0;
}

/* One of two processes that make every second text and write it into a pipe. */
struct writer {
    int fd;
    int64_t item; /* the one that comes next */
    size_t done;  /* bytes of it */
};

static _Noreturn void write_texts(int fd, int64_t item, int64_t n, size_t len)
{
    unsigned char *text = malloc(len);

    for (; text && item < n; item += 2) {
        memset(text, 'A' + (int)(item % 26), len);
        if (move(fd, text, len, 1) != len)
            _exit(1);
    }
    _exit(!text);
}

/* What is there now.  0, or -1. */
static int read_text(struct writer *writer, unsigned char **texts, size_t len)
{
    unsigned char **text = &texts[writer->item];
    ssize_t n;

    if (!*text)
        *text = malloc(len);
    if (!*text)
        return -1;
    n = read(writer->fd, *text + writer->done, len - writer->done);
    if (n <= 0)
        return -1;
    writer->done += (size_t)n;
    if (writer->done == len) {
        writer->item += 2;
        writer->done = 0;
    }
    return 0;
}

static int read_texts(struct writer *writers, unsigned char **texts, int64_t n,
                      size_t len)
{
    int rc = 0;

    while (rc == 0 && (writers[0].item < n || writers[1].item < n)) {
        struct pollfd fds[2];

        for (int w = 0; w < 2; w++) {
            fds[w].fd = writers[w].item < n ? writers[w].fd : -1;
            fds[w].events = POLLIN;
            fds[w].revents = 0;
        }
        if (poll(fds, 2, -1) < 0)
            return -1;
        for (int w = 0; w < 2 && rc == 0; w++) {
            if (fds[w].revents != 0)
                rc = read_text(&writers[w], texts, len);
        }
    }
    return rc;
}

/* floor.texts(n, len): so many texts of this length from two processes, each
 * into memory of its own. */
static int l_texts(lua_State *L)
{
    int64_t n = luaL_checkinteger(L, 1);
    size_t len = (size_t)luaL_checkinteger(L, 2);
    unsigned char **texts = calloc((size_t)n, sizeof *texts);
    struct writer writers[2];
    int rc;

    if (!texts)
        return luaL_error(L, "no memory");
    for (int w = 0; w < 2; w++) {
        int fds[2];

        if (start(L, fds) == 0)
            write_texts(fds[1], w, n, len);
        (void)close(fds[1]);
        writers[w] = (struct writer){.fd = fds[0], .item = w};
    }
    rc = read_texts(writers, texts, n, len);
    for (int w = 0; w < 2; w++) {
        (void)close(writers[w].fd);
        (void)wait(NULL);
    }
    for (int64_t i = 0; i < n; i++)
        free(texts[i]);
    free(texts);
    return rc == 0 ? 0 : luaL_error(L, "the texts did not come");
}

/* A fork server, as fuzzers have them: for each word that comes it forks a
 * process, waits for its end, and tells its number. */
static _Noreturn void serve(int orders, int answers)
{
    int32_t order, pid;

    while (read(orders, &order, sizeof order) == sizeof order) {
        pid = (int32_t)fork();
        if (pid == 0)
            _exit(0);
        if (pid < 0 || waitpid(pid, NULL, 0) < 0 ||
            write(answers, &pid, sizeof pid) != sizeof pid)
            break;
    }
    _exit(1);
}

#define SERVERS_MAX 2

/* Started when they are needed first, which should be while we are small, and
 * there until we end. */
static struct {
    int orders, answers;
} servers[SERVERS_MAX];
static int n_servers;

static int start_server(void)
{
    int down[2], up[2];
    pid_t pid;

    if (pipe2(down, O_CLOEXEC) < 0 || pipe2(up, O_CLOEXEC) < 0)
        return -1;
    pid = fork();
    if (pid == 0) {
        (void)close(down[1]);
        for (int i = 0; i < n_servers; i++)
            (void)close(servers[i].orders); /* or the others do not end */
        serve(down[0], up[1]);
    }
    (void)close(down[0]);
    (void)close(up[1]);
    servers[n_servers].orders = down[1];
    servers[n_servers].answers = up[0];
    return pid < 0 ? -1 : ++n_servers;
}

/* floor.forkserver(n, k): n processes from k servers, which work at once. */
static int l_forkserver(lua_State *L)
{
    int64_t n = luaL_checkinteger(L, 1);
    int k = (int)luaL_checkinteger(L, 2);

    luaL_argcheck(L, k >= 1 && k <= SERVERS_MAX, 2, "too many");
    while (n_servers < k) {
        if (start_server() < 0)
            return luaL_error(L, "a server: %s", strerror(errno));
    }
    for (int64_t i = 0; i < n; i += k) {
        int32_t word = 0;
        int at_once = n - i < k ? (int)(n - i) : k;
        int is_right = 1;

        for (int w = 0; w < at_once; w++)
            is_right &=
                write(servers[w].orders, &word, sizeof word) == sizeof word;
        for (int w = 0; w < at_once; w++)
            is_right &=
                read(servers[w].answers, &word, sizeof word) == sizeof word;
        if (!is_right)
            return luaL_error(L, "a server has failed");
    }
    return 0;
}

/* floor.sockets(n): n processes, one after the other, each with a pair of
 * sockets of which the parent hears the end. */
static int l_sockets(lua_State *L)
{
    int64_t n = luaL_checkinteger(L, 1);

    for (int64_t i = 0; i < n; i++) {
        int fds[2];
        char byte;
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
            return luaL_error(L, "a pair: %s", strerror(errno));
        pid = fork();
        if (pid == 0)
            _exit(0);
        (void)close(fds[1]);
        if (pid > 0)
            (void)(read(fds[0], &byte, 1) + waitpid(pid, NULL, 0));
        (void)close(fds[0]);
        if (pid < 0)
            return luaL_error(L, "fork: %s", strerror(errno));
    }
    return 0;
}

/* floor.open(n): n descriptors more, close-on-exec. */
static int l_open(lua_State *L)
{
    lua_Integer n = luaL_checkinteger(L, 1);

    for (lua_Integer i = 0; i < n; i++) {
        if (open("/dev/null", O_RDONLY | O_CLOEXEC) < 0)
            return luaL_error(L, "open: %s", strerror(errno));
    }
    return 0;
}

int luaopen_floor(lua_State *L);
int luaopen_floor(lua_State *L)
{
    static const luaL_Reg functions[] = {{"now", l_now},
                                         {"raw", l_raw},
                                         {"lua", l_lua},
                                         {"text", l_text},
                                         {"texts", l_texts},
                                         {"open", l_open},
                                         {"split", l_split},
                                         {"masters", l_masters},
                                         {"forkserver", l_forkserver},
                                         {"sockets", l_sockets},
                                         {NULL, NULL}};

    luaL_newlib(L, functions);
    return 1;
}
