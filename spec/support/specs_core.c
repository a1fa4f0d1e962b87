/* SPDX-License-Identifier: MIT */
/*
 * What specs need of the system and Lua does not give: signals, descriptors,
 * processes, and ways to end one that no Lua function has.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <lauxlib.h>
#include <lua.h>

int luaopen_specs_core(lua_State *L);

/* 0 or more as an integer; else nil and the name of the error. */
static int push_result(lua_State *L, long rc)
{
    if (rc >= 0) {
        lua_pushinteger(L, rc);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, strerrorname_np(errno));
    return 2;
}

static int check_int(lua_State *L, int idx)
{
    return (int)luaL_checkinteger(L, idx);
}

/* ------------------------------------------------------------------ processes
 */

static int l_getpid(lua_State *L)
{
    return push_result(L, getpid());
}

static int l_getpgrp(lua_State *L)
{
    return push_result(L, getpgrp());
}

static int l_getpriority(lua_State *L)
{
    lua_pushinteger(L, getpriority(PRIO_PROCESS, 0));
    return 1;
}

static int l_setuid(lua_State *L)
{
    return push_result(L, setuid((uid_t)luaL_checkinteger(L, 1)));
}

/* fork_and_hold() -> pid: a process that keeps all descriptors open and waits
 * for its death. */
static int l_fork_and_hold(lua_State *L)
{
    pid_t pid = fork();

    if (pid == 0) {
        for (;;)
            (void)pause();
    }
    return push_result(L, pid);
}

/* fork_once() -> 0 in the new process, its pid in the old one */
static int l_fork_once(lua_State *L)
{
    return push_result(L, fork());
}

/* wait_any() -> pid | nil, "ECHILD": of a process that ended or is a zombie */
static int l_wait_any(lua_State *L)
{
    return push_result(L, waitpid(-1, NULL, WNOHANG));
}

/* wait(pid) -> exit code, or minus the signal */
static int l_wait(lua_State *L)
{
    int status = 0;
    pid_t pid;

    do
        pid = waitpid((pid_t)check_int(L, 1), &status, 0);
    while (pid < 0 && errno == EINTR);
    if (pid < 0)
        return push_result(L, -1);
    lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status)
                                         : -WTERMSIG(status));
    return 1;
}

static int l_setrlimit(lua_State *L)
{
    static const char *const names[] = {"nofile", "nproc", NULL};
    static const int resources[] = {RLIMIT_NOFILE, RLIMIT_NPROC};
    int resource = resources[luaL_checkoption(L, 1, NULL, names)];
    struct rlimit limit;

    if (getrlimit(resource, &limit) < 0)
        return push_result(L, -1);
    limit.rlim_cur = (rlim_t)luaL_checkinteger(L, 2);
    return push_result(L, setrlimit(resource, &limit));
}

/* --------------------------------------------------------------- ways to leave
 */

static int l_abort(lua_State *L)
{
    (void)L;
    abort();
}

static int l_exit(lua_State *L)
{
    exit(check_int(L, 1));
}

static int l_quick_exit(lua_State *L)
{
    _exit(check_int(L, 1));
}

static int l_segv(lua_State *L)
{
    /* A page without rights: to write there is an accident, but one that the
     * language allows. */
    volatile char *page =
        mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return push_result(L, -1);
    *page = 1;
    return 0;
}

static const char *atexit_path;

static void on_host_exit(void)
{
    int fd = open(atexit_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (fd >= 0) {
        (void)!write(fd, "x", 1);
        (void)close(fd);
    }
}

/* atexit_append(path): a handler of the host that writes one byte to a file.
 * The path must be a string that stays. */
static int l_atexit_append(lua_State *L)
{
    atexit_path = luaL_checkstring(L, 1);
    return push_result(L, atexit(on_host_exit));
}

/* -------------------------------------------------------------------- signals
 */

static int l_kill(lua_State *L)
{
    return push_result(L, kill((pid_t)check_int(L, 1), check_int(L, 2)));
}

static int l_raise(lua_State *L)
{
    return push_result(L, raise(check_int(L, 1)));
}

static void do_nothing(int sig)
{
    (void)sig;
}

/* handle(signal, "default" | "ignore" | "nothing") */
static int l_handle(lua_State *L)
{
    static const char *const names[] = {"default", "ignore", "nothing", NULL};
    void (*const handlers[])(int) = {SIG_DFL, SIG_IGN, do_nothing};
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = handlers[luaL_checkoption(L, 2, NULL, names)];
    return push_result(L, sigaction(check_int(L, 1), &action, NULL));
}

/* handler(signal) -> "default" | "ignore" | "other" */
static int l_handler(lua_State *L)
{
    struct sigaction action;

    if (sigaction(check_int(L, 1), NULL, &action) < 0)
        return push_result(L, -1);
    if (action.sa_handler == SIG_DFL)
        lua_pushliteral(L, "default");
    else if (action.sa_handler == SIG_IGN)
        lua_pushliteral(L, "ignore");
    else
        lua_pushliteral(L, "other");
    return 1;
}

/* block(signal, boolean) */
static int l_block(lua_State *L)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, check_int(L, 1));
    return push_result(
        L,
        sigprocmask(lua_toboolean(L, 2) ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL));
}

/* blocked() -> "1 2 …": the signals that are blocked */
static int l_blocked(lua_State *L)
{
    luaL_Buffer buffer;
    sigset_t set;
    int sig;

    (void)sigprocmask(SIG_BLOCK, NULL, &set);
    luaL_buffinit(L, &buffer);
    for (sig = 1; sig <= SIGRTMAX; sig++) {
        if (sigismember(&set, sig) == 1) {
            lua_pushfstring(L, "%d ", sig);
            luaL_addvalue(&buffer);
        }
    }
    luaL_pushresult(&buffer);
    return 1;
}

/* ---------------------------------------------------------------- descriptors
 */

/* fds() -> {[fd] = what it is, …}, without the one that reads them */
static int l_fds(lua_State *L)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;

    if (dir == NULL)
        return push_result(L, -1);
    lua_newtable(L);
    while ((entry = readdir(dir)) != NULL) {
        char target[256];
        ssize_t n;

        n = readlinkat(dirfd(dir), entry->d_name, target, sizeof target);
        if (n < 0 || strtol(entry->d_name, NULL, 10) == dirfd(dir))
            continue;
        lua_pushlstring(L, target, (size_t)n);
        lua_rawseti(L, -2, strtol(entry->d_name, NULL, 10));
    }
    (void)closedir(dir);
    return 1;
}

static int l_pipe(lua_State *L)
{
    int fds[2];

    if (pipe(fds) < 0)
        return push_result(L, -1);
    lua_pushinteger(L, fds[0]);
    lua_pushinteger(L, fds[1]);
    return 2;
}

static int l_close(lua_State *L)
{
    return push_result(L, close(check_int(L, 1)));
}

static int l_write(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 2, &len);

    return push_result(L, write(check_int(L, 1), text, len));
}

/* read(fd [, most]) -> some bytes, "" at the end */
static int l_read(lua_State *L)
{
    char data[4096];
    lua_Integer most = luaL_optinteger(L, 2, sizeof data);
    ssize_t n;

    luaL_argcheck(L, most > 0 && most <= (lua_Integer)sizeof data, 2, "size");
    do
        n = read(check_int(L, 1), data, (size_t)most);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return push_result(L, -1);
    lua_pushlstring(L, data, (size_t)n);
    return 1;
}

/* is_readable(fd[, seconds]): at once, or within that time */
static int l_is_readable(lua_State *L)
{
    struct pollfd pfd = {.fd = check_int(L, 1), .events = POLLIN};
    double seconds = luaL_optnumber(L, 2, 0);

    lua_pushboolean(L, poll(&pfd, 1, (int)(seconds * 1000)) > 0);
    return 1;
}

/* ----------------------------------------------------------------------- time
 */

static int l_now(lua_State *L)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    lua_pushnumber(L, (lua_Number)ts.tv_sec + (lua_Number)ts.tv_nsec * 1e-9);
    return 1;
}

/* sleep(seconds): goes on after a signal */
static int l_sleep(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    struct timespec left;

    left.tv_sec = (time_t)seconds;
    left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        continue;
    return 0;
}

static void *wait_for_ever(void *unused)
{
    for (;;)
        (void)pause();
    return unused;
}

/* start_thread(): one that does nothing, to the end of the process */
static int l_start_thread(lua_State *L)
{
    pthread_t thread;

    errno = pthread_create(&thread, NULL, wait_for_ever, NULL);
    if (errno == 0)
        (void)pthread_detach(thread);
    return push_result(L, errno == 0 ? 0 : -1);
}

/* scribble(byte) -> n: overwrite all the memory, n mappings of it, that this
 * process shares with its parent. */
static int l_scribble(lua_State *L)
{
    int byte = check_int(L, 1);
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    int n = 0;

    if (!maps)
        return push_result(L, -1);
    while (fgets(line, sizeof line, maps)) {
        char *end;
        uintptr_t from = strtoul(line, &end, 16);
        uintptr_t to = strtoul(end + 1, &end, 16);

        if (strncmp(end, " rw-s", 5) != 0 || !strstr(line, "/dev/zero"))
            continue;
        memset((void *)from, byte, to - from);
        n++;
    }
    (void)fclose(maps);
    return push_result(L, n);
}

#ifdef __GLIBC__
static size_t heap_in_use(void)
{
    struct mallinfo2 info;

    (void)malloc_trim(0);
    info = mallinfo2();
    return info.uordblks + info.hblkhd;
}
#else
static size_t heap_in_use(void)
{
    return 0;
}
#endif

/* heap() -> bytes that malloc() has given out, after it has returned to the
 * kernel what it can */
static int l_heap(lua_State *L)
{
    return push_result(L, (long)heap_in_use());
}

#define HOOKED_FUNCTION "specs_core.hooked"

static lua_State *hooked;

static void hook_once(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lua_sethook(L, NULL, 0, 0);
    if (lua_getfield(L, LUA_REGISTRYINDEX, HOOKED_FUNCTION) == LUA_TNIL)
        luaL_error(L, "interrupted!");
    lua_call(L, 0, 0);
}

static void on_alarm(int sig)
{
    (void)sig;
    lua_sethook(hooked, hook_once,
                LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

/* interrupt_after(seconds [, fn]): after that time this thread gets the hook
 * that lua.c sets for Ctrl-C, by SIGALRM; with `fn` it calls that instead of
 * raising. */
static int l_interrupt_after(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    struct itimerval timer;
    struct sigaction action;

    hooked = L;
    lua_settop(L, 2);
    lua_setfield(L, LUA_REGISTRYINDEX, HOOKED_FUNCTION);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    (void)sigaction(SIGALRM, &action, NULL);
    memset(&timer, 0, sizeof timer);
    timer.it_value.tv_sec = (time_t)seconds;
    timer.it_value.tv_usec =
        (suseconds_t)((seconds - (double)timer.it_value.tv_sec) * 1e6);
    return push_result(L, setitimer(ITIMER_REAL, &timer, NULL));
}

/* ------------------------------------------------------------------------ Lua
 */

static int nested(lua_State *L)
{
    lua_Integer n = luaL_checkinteger(L, 2);

    if (n == 0) {
        lua_settop(L, 1);
        lua_call(L, 0, LUA_MULTRET);
        return lua_gettop(L);
    }
    lua_pushcfunction(L, nested);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, n - 1);
    lua_call(L, 2, LUA_MULTRET);
    return lua_gettop(L) - 2;
}

#ifdef __SANITIZE_ADDRESS__
#define IS_SANITIZED 1
#else
#define IS_SANITIZED 0
#endif

int luaopen_specs_core(lua_State *L)
{
    static const luaL_Reg functions[] = {{"getpid", l_getpid},
                                         {"getpgrp", l_getpgrp},
                                         {"getpriority", l_getpriority},
                                         {"setuid", l_setuid},
                                         {"fork_and_hold", l_fork_and_hold},
                                         {"fork_once", l_fork_once},
                                         {"wait_any", l_wait_any},
                                         {"wait", l_wait},
                                         {"setrlimit", l_setrlimit},
                                         {"abort", l_abort},
                                         {"exit", l_exit},
                                         {"quick_exit", l_quick_exit},
                                         {"segv", l_segv},
                                         {"atexit_append", l_atexit_append},
                                         {"kill", l_kill},
                                         {"raise", l_raise},
                                         {"handle", l_handle},
                                         {"handler", l_handler},
                                         {"block", l_block},
                                         {"blocked", l_blocked},
                                         {"fds", l_fds},
                                         {"pipe", l_pipe},
                                         {"close", l_close},
                                         {"write", l_write},
                                         {"read", l_read},
                                         {"is_readable", l_is_readable},
                                         {"now", l_now},
                                         {"sleep", l_sleep},
                                         {"interrupt_after", l_interrupt_after},
                                         {"nested", nested},
                                         {"start_thread", l_start_thread},
                                         {"scribble", l_scribble},
                                         {"heap", l_heap},
                                         {NULL, NULL}};

    luaL_newlib(L, functions);
    /* Memory is not what it would be without the sanitizer. */
    lua_pushboolean(L, IS_SANITIZED);
    lua_setfield(L, -2, "sanitized");
    return 1;
}
