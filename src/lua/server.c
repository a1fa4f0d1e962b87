/* SPDX-License-Identifier: MIT */
/*
 * The inside of a template: the Lua state that calls of the host change, and
 * from which its children run functions.
 *
 * Both go through functions of the Lua half (lua/fork_map/server.lua), which
 * the server keeps on the stack of who serves: `call` carries out what the host
 * asks for, `find` gives the function of a child and what it gets first.
 *
 * The thread that a child's job runs on is made here, so that a child that
 * cannot get memory for it never comes to be.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/job.h"
#include "lua/values.h"
#include "os/fds.h"
#include "os/sys.h"

/* Slots of a job's thread. */
#define JOB_STACK (4 * LUA_MINSTACK)

/* Places on the stack of l_serve(). */
enum { AT_FD = 1, AT_CALL, AT_FIND, AT_THREAD };

struct lua_server {
    lua_State *L;      /* who serves, */
    lua_State *thread; /* and what a child's job runs on */
};

/* ------------------------------------------------------------------- payloads
 */

/* Push the values that were packed by core.encode().  [-0, +n, e] */
static int push_values(lua_State *L, const void *data, size_t len)
{
    static const struct fmL_codec codec = {FML_CODEC_LUA, LUA_NOREF, LUA_NOREF};
    int n;

    if (len == 0)
        return 0;
    n = fmL_decode(L, FM__FORMAT_LUA, &codec, data, len, 0);
    if (n < 0)
        (void)lua_error(L);
    return n;
}

/* ---------------------------------------------------------------------- calls
 */

struct call {
    const struct fm__errand *errand;
    const int *fds;
    size_t n_fds, n_given; /* given to Lua */
};

/* (call) -> leaves: protected */
static int run_call(lua_State *L)
{
    struct call *call = lua_touserdata(L, 1);

    luaL_checkstack(L, LUA_MINSTACK + (int)call->n_fds, NULL);
    lua_pushvalue(L, 2);
    lua_pushinteger(L, call->errand->kind);
    lua_createtable(L, (int)call->n_fds, 0);
    for (size_t i = 0; i < call->n_fds; i++) {
        lua_pushinteger(L, call->fds[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    call->n_given = call->n_fds;
    lua_call(L, 2 + push_values(L, call->errand->data, call->errand->len), 1);
    return 1;
}

static int on_call_error(lua_State *L)
{
    const char *text;

    luaL_tolstring(L, 1, NULL);
    text = lua_tostring(L, -1);
    luaL_traceback(L, L, NULL, 1);
    lua_createtable(L, 2, 0);
    lua_pushstring(L, text);
    lua_rawseti(L, -2, 1);
    lua_pushvalue(L, -2);
    lua_rawseti(L, -2, 2);
    return 1;
}

/* Of what on_call_error() made. */
static void tell_error(lua_State *L, struct fm__server *server)
{
    if (!lua_istable(L, -1)) {
        fm__server_fail(server, "not enough memory", NULL);
        return;
    }
    (void)lua_rawgeti(L, -1, 1);
    (void)lua_rawgeti(L, -2, 2);
    fm__server_fail(server, lua_tostring(L, -2), lua_tostring(L, -1));
    lua_pop(L, 2);
}

static int do_call(struct fm__server *server, const struct fm__errand *errand,
                   const int *fds, size_t n_fds, void *ud)
{
    struct lua_server *own = ud;
    struct call call = {.errand = errand, .fds = fds, .n_fds = n_fds};
    lua_State *L = own->L;
    int top = lua_gettop(L);
    int rc = 0;

    lua_pushcfunction(L, on_call_error);
    lua_pushcfunction(L, run_call);
    lua_pushlightuserdata(L, &call);
    lua_pushvalue(L, AT_CALL);
    if (lua_pcall(L, 2, 1, top + 1) != LUA_OK) {
        tell_error(L, server);
        rc = -ECANCELED;
        for (size_t i = call.n_given; i < n_fds; i++)
            (void)fm__sys.close(fds[i]);
    } else {
        rc = lua_toboolean(L, -1);
    }
    lua_settop(L, top);
    return rc;
}

/* ----------------------------------------------------------------------- jobs
 */

/* (find, errand) -> codec, fn, arguments…: protected. */
static int find_job(lua_State *L)
{
    const struct fm__errand *errand = lua_touserdata(L, 2);
    int n;

    lua_settop(L, 2);
    lua_remove(L, 2);
    lua_pushinteger(L, errand->kind);
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    n = push_values(L, errand->data, errand->len);
    lua_call(L, 1 + n, LUA_MULTRET);
    return lua_gettop(L);
}

static void set_home(lua_State *L, struct fmL_call *call, int idx)
{
    lua_Debug ar;

    if (!lua_isfunction(L, idx))
        return;
    lua_pushvalue(L, idx);
    (void)lua_getinfo(L, ">S", &ar);
    memcpy(call->home, ar.short_src, sizeof call->home);
    call->home_line = ar.linedefined;
}

/* What find() gave: codec, fn, arguments….  Takes the codec away. */
static void take_codec(lua_State *L, struct fmL_options *options, int first)
{
    fmL_check_codec(L, first, &options->codec);
    lua_remove(L, first);
}

/* (job, find) -> code: the whole job. */
static int run_job(lua_State *L)
{
    struct fmL_job *job = lua_touserdata(L, 1);
    /* Of this process alone, on its C stack. */
    struct fmL_call *call = (struct fmL_call *)(uintptr_t)job->call;
    struct fmL_options *options =
        (struct fmL_options *)(uintptr_t)call->options;
    int status;
    int rc = 0;

    lua_pushcfunction(L, fmL_job_on_error);
    lua_replace(L, 1);
    fmL_job_begin(L, job);
    lua_pushcfunction(L, find_job);
    lua_insert(L, 2);
    status = lua_pcall(L, 2, LUA_MULTRET, 1);
    if (status == LUA_OK) {
        take_codec(L, options, 2);
        set_home(L, call, 2);
        job->recorder.home_line = call->home_line;
        status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 1);
    }
    if (status == LUA_OK)
        rc = fmL_job_send_results(L, job, 2);
    else
        fmL_job_report(L, job, status);
    lua_pushinteger(L, rc);
    return 1;
}

/* The job of every child: `ud` is the errand. */
static int run_errand(fm_child *child, void *ud)
{
    const struct fm__errand *errand = ud;
    const struct lua_server *server = errand->ud;
    struct fmL_options options;
    struct fmL_engine engine;
    struct fmL_call call;
    struct fmL_job job;

    memset(&options, 0, sizeof options);
    memset(&engine, 0, sizeof engine);
    memset(&call, 0, sizeof call);
    memset(&job, 0, sizeof job);
    options.job = *fm_child_get_opts(child);
    options.codec = (struct fmL_codec)FML_CODEC_INIT;
    call.engine = &engine;
    call.options = &options;
    call.thread = server->thread;
    job.child = child;
    job.call = &call;
    lua_pushvalue(server->L, AT_FIND);
    lua_xmove(server->L, call.thread, 1);
    lua_pushlightuserdata(call.thread, ud);
    return fmL_job_run(&job, run_job);
}

/* ---------------------------------------------------------------------- serve
 */

/* server_socket() -> integer | nil: of a child that is to be a template */
static int l_server_socket(lua_State *L)
{
    fm_child *child = fm_child_current();
    int fd = child != NULL ? fm__child_get_socket(child) : -1;

    if (fd < 0)
        return 0;
    lua_pushinteger(L, fd);
    return 1;
}

/* serve(fd, call, find) -> whether a call said to leave; false when the host is
 * gone | nil, message, NAME */
static int l_serve(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, AT_FD);
    fm_child *child = fm_child_current();
    struct lua_server server;
    struct fm__server_calls calls = {
        .job = run_errand, .call = do_call, .ud = &server};
    int rc;

    luaL_checktype(L, AT_CALL, LUA_TFUNCTION);
    luaL_checktype(L, AT_FIND, LUA_TFUNCTION);
    lua_settop(L, AT_FIND);
    server.L = L;
    server.thread = lua_newthread(L); /* AT_THREAD */
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    luaL_checkstack(server.thread, JOB_STACK, NULL);
    if (child == NULL || fd != fm__child_get_socket(child)) {
        /* A program gets it by its number. */
        if (fm__sys.fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
            return fmL_push_code(L, -errno);
        fd = fm__fd_adopt(fd);
        if (fd < 0)
            return fmL_push_code(L, fd);
    }
    rc = fm__serve(fd, &calls);
    if (rc < 0)
        return fmL_push_code(L, rc);
    lua_pushboolean(L, rc);
    return 1;
}

void fmL_open_server(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"serve", l_serve}, {"server_socket", l_server_socket}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
