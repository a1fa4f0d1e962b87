/* SPDX-License-Identifier: MIT */
/*
 * What the kernel costs, for comparison: a Lua module with the smallest fork
 * that gives back eight bytes, in C alone and around a Lua function.  Nothing
 * is checked, encoded, limited or cleaned up.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
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

/* Fork, compute, eight bytes through a pipe, wait. */
static int64_t call(lua_State *L, lua_State *fn, int64_t i)
{
    int64_t x = 0;
    ssize_t got;
    int fds[2];
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return luaL_error(L, "pipe: %s", strerror(errno));
    pid = fork();
    if (pid < 0)
        return luaL_error(L, "fork: %s", strerror(errno));
    if (pid == 0) {
        x = result_of(fn, i);
        _exit(write(fds[1], &x, sizeof x) != sizeof x);
    }
    (void)close(fds[1]);
    got = read(fds[0], &x, sizeof x);
    (void)close(fds[0]);
    (void)waitpid(pid, NULL, 0);
    if (got != sizeof x)
        return luaL_error(L, "the child failed");
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
    static const luaL_Reg functions[] = {{"now", l_now},   {"raw", l_raw},
                                         {"lua", l_lua},   {"text", l_text},
                                         {"open", l_open}, {NULL, NULL}};

    luaL_newlib(L, functions);
    return 1;
}
