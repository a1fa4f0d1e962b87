/* SPDX-License-Identifier: MIT */
/*
 * Templates of this host.  A template is a userdata that holds one reference;
 * who waits for it has an entry, a table of the Lua half, which the loop is
 * told of when something has changed.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/binding.h"
#include "os/clock.h"

#define TEMPLATE_MT "fork_map.core.template"
#define ARGV_MAX 64

struct template_box {
    fm_template *template; /* NULL when closed */
    struct fmL_engine *engine;
    struct fmL_told told;
    bool is_awaited; /* an entry is there, and the loop was not told */
};

enum { TEMPLATE_ENGINE = 1 };

static struct template_box *check_box(lua_State *L, int idx)
{
    struct template_box *box = luaL_checkudata(L, idx, TEMPLATE_MT);

    luaL_argcheck(L, box->template != NULL, idx, "closed template");
    return box;
}

/* Engine: its state has changed, or all is answered. */
static void on_change(fm_template *template, void *ud)
{
    struct template_box *box = ud;

    (void)template;
    if (!box->is_awaited)
        return;
    box->is_awaited = false;
    fmL_tell(box->engine, &box->told);
}

/* Push an empty box for the engine at 1.  [-0, +1, m] */
static struct template_box *push_box(lua_State *L)
{
    struct template_box *box = lua_newuserdatauv(L, sizeof *box, 1);

    memset(box, 0, sizeof *box);
    box->engine = fmL_check_engine(L, 1);
    luaL_setmetatable(L, TEMPLATE_MT);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, TEMPLATE_ENGINE);
    return box;
}

static int start(lua_State *L, struct template_box *box,
                 struct fm__template_opts *opts)
{
    lua_State *previous;
    int rc;

    opts->on_change = on_change;
    opts->cb_ud = box;
    previous = fmL_enter(L, box->engine);
    rc = fm__template_new(box->engine->engine, opts, &box->template);
    fmL_leave(box->engine, previous);
    return rc;
}

static int finish(lua_State *L, int rc)
{
    if (rc == -ENOSYS) {
        fmL_push_failure(L, FM_SPAWN,
                         "templates are not available in this build (ENOSYS)");
        return lua_error(L);
    }
    return rc < 0 ? fmL_raise_code(L, rc) : 1;
}

/* template_exec(engine, options, argv) -> template: a program, whose last
 * argument will be the number of a socket */
static int l_template_exec(lua_State *L)
{
    const struct fmL_options *options = fmL_check_options(L, 2);
    struct fm__template_opts opts = {.job = &options->job};
    struct template_box *box;
    char *argv[ARGV_MAX + 1];
    int n = 0;

    luaL_checktype(L, 3, LUA_TTABLE);
    lua_settop(L, 3);
    while (n < ARGV_MAX && lua_rawgeti(L, 3, n + 1) == LUA_TSTRING)
        argv[n++] = (char *)(uintptr_t)lua_tostring(L, -1);
    luaL_argcheck(L, n > 0 && n < ARGV_MAX, 3, "no program");
    argv[n] = NULL;
    opts.argv = argv;
    box = push_box(L);
    if (box->engine->engine == NULL)
        return fmL_raise_code(L, FM_ECLOSED);
    return finish(L, start(L, box, &opts));
}

/* template_snapshot(engine, options, fn) -> template: a copy of this process
 * that runs fn() */
static int l_template_snapshot(lua_State *L)
{
    struct fm__template_opts opts = {.fn = fmL_run_job};
    struct template_box *box;
    struct fm_job_opts job;
    struct fmL_call *call;
    int rc;

    (void)fmL_check_options(L, 2);
    luaL_checktype(L, 3, LUA_TFUNCTION);
    lua_settop(L, 3);
    box = push_box(L);
    if (box->engine->engine == NULL)
        return fmL_raise_code(L, FM_ECLOSED);
    call = fmL_call_take(L, box->engine);
    lua_pushvalue(L, 3);
    rc = fmL_call_snapshot(L, call, 2, &job);
    if (rc < 0)
        return fmL_raise_code(L, rc);
    opts.job = &job;
    opts.ud = call;
    rc = start(L, box, &opts);
    if (rc < 0)
        fmL_call_retire(call);
    return finish(L, rc);
}

/* A string that is what an errand carries. */
static void check_errand(lua_State *L, int idx, struct fm__errand *errand)
{
    memset(errand, 0, sizeof *errand);
    errand->kind = (uint32_t)luaL_checkinteger(L, idx);
    errand->data = luaL_checklstring(L, idx + 1, &errand->len);
    errand->socket = -1;
}

/* template_fork(engine, options, template, kind, bytes) -> template: another
 * one, forked off this one */
static int l_template_fork(lua_State *L)
{
    const struct fmL_options *options = fmL_check_options(L, 2);
    const struct template_box *from = check_box(L, 3);
    struct fm__template_opts opts = {.job = &options->job,
                                     .from = from->template};
    struct fm__errand errand;
    struct template_box *box;

    check_errand(L, 4, &errand);
    opts.errand = &errand;
    lua_settop(L, 5);
    box = push_box(L);
    if (box->engine->engine == NULL)
        return fmL_raise_code(L, FM_ECLOSED);
    return finish(L, start(L, box, &opts));
}

/* template_call(template, kind, bytes, is_last, ...) -> true | nil, message,
 * NAME: have it carried out, with copies of the descriptors that follow */
static int l_template_call(lua_State *L)
{
    const struct template_box *box = check_box(L, 1);
    int n_fds = lua_gettop(L) - 4;
    struct fm__errand errand;
    lua_State *previous;
    int fds[16];
    int rc;

    check_errand(L, 2, &errand);
    errand.is_last = lua_toboolean(L, 4);
    luaL_argcheck(L, n_fds <= 15, 5, "too many descriptors");
    for (int i = 0; i < n_fds; i++) {
        lua_Integer fd = luaL_checkinteger(L, 5 + i);

        fds[i] = fd < 0 || fd > INT_MAX ? -1 : (int)fd;
    }
    previous = fmL_enter(L, box->engine);
    rc = fm__template_call(box->template, &errand, fds,
                           (size_t)(n_fds > 0 ? n_fds : 0));
    fmL_leave(box->engine, previous);
    if (rc < 0)
        return fmL_push_code(L, rc);
    lua_pushboolean(L, 1);
    return 1;
}

/* template_spawn(template, options, cell, kind, bytes [, is_worker]) -> future;
 * `is_worker`: as hire() */
static int l_template_spawn(lua_State *L)
{
    const struct template_box *box = check_box(L, 1);
    struct fmL_future *handle;
    struct fm__errand errand;
    struct fmL_call *call;
    lua_State *previous;
    bool is_duplex = lua_toboolean(L, 6);
    int rc;

    luaL_checktype(L, 3, LUA_TTABLE);
    check_errand(L, 4, &errand);
    lua_settop(L, 5);
    lua_getiuservalue(L, 1, TEMPLATE_ENGINE); /* 6 */
    if (box->engine->engine == NULL)
        return fmL_raise_code(L, FM_ECLOSED);
    handle = fmL_future_push(L, 6, 2); /* 7 */
    fmL_push_live(L, 6);
    lua_pushvalue(L, 3);
    lua_rawsetp(L, -2, &handle->told);
    call = fmL_call_take(L, box->engine);
    call->is_duplex = is_duplex;
    handle->told.stays = is_duplex;
    lua_settop(L, 8); /* cells */
    previous = fmL_enter(L, box->engine);
    rc = fmL_call_send(L, call, 2, box->template, &errand, handle);
    fmL_leave(box->engine, previous);
    if (rc < 0) {
        lua_pushnil(L);
        lua_rawsetp(L, 8, &handle->told);
        return fmL_raise_code(L, rc);
    }
    lua_settop(L, 7);
    return 1;
}

/* template_state(template) -> "starting" | "ready" | "failed" | "closed" |
 * "away", whether all is answered, commands that are not */
static int l_template_state(lua_State *L)
{
    static const char *const names[] = {[FM__TEMPLATE_STARTING] = "starting",
                                        [FM__TEMPLATE_READY] = "ready",
                                        [FM__TEMPLATE_FAILED] = "failed",
                                        [FM__TEMPLATE_CLOSED] = "closed",
                                        [FM__TEMPLATE_AWAY] = "away"};
    const fm_template *template = check_box(L, 1)->template;

    lua_pushstring(L, names[fm__template_get_state(template)]);
    lua_pushboolean(L, fm__template_is_settled(template));
    lua_pushinteger(L, (lua_Integer)fm__template_count_open(template));
    return 3;
}

/* template_failure(template) -> fork_map.Error | nil */
static int l_template_failure(lua_State *L)
{
    const struct template_box *box = check_box(L, 1);
    const struct fm__template_failure *failure =
        fm__template_get_failure(box->template);
    struct fm_outcome outcome;

    if (failure->message == NULL)
        return 0;
    memset(&outcome, 0, sizeof outcome);
    outcome.kind = failure->kind;
    outcome.error_code = failure->error_code;
    outcome.message = failure->message;
    outcome.traceback = failure->traceback;
    outcome.signal = failure->signal;
    outcome.exit_code = failure->exit_code;
    outcome.pid = failure->pid;
    fmL_push_outcome_error(L, box->engine, &outcome, 0);
    return 1;
}

/* template_pid(template) -> integer | nil */
static int l_template_pid(lua_State *L)
{
    pid_t pid = fm__template_get_pid(check_box(L, 1)->template);

    if (pid == 0)
        return 0;
    lua_pushinteger(L, pid);
    return 1;
}

/* template_watch(template, entry or nil): next_settled() gives the entry, once,
 * when something has changed */
static int l_template_watch(lua_State *L)
{
    struct template_box *box = check_box(L, 1);

    lua_settop(L, 2);
    lua_getiuservalue(L, 1, TEMPLATE_ENGINE);
    fmL_push_live(L, 3);
    lua_pushvalue(L, 2);
    lua_rawsetp(L, -2, &box->told);
    box->is_awaited = !lua_isnil(L, 2);
    return 0;
}

static int64_t grace_of(lua_State *L, int idx)
{
    double seconds = luaL_checknumber(L, idx);

    return seconds >= 1e9 ? INT64_MAX : (int64_t)(seconds * 1e9);
}

/* template_close(template, seconds) */
static int l_template_close(lua_State *L)
{
    const struct template_box *box = check_box(L, 1);
    lua_State *previous = fmL_enter(L, box->engine);

    fm__template_close(box->template, grace_of(L, 2));
    fmL_leave(box->engine, previous);
    return 0;
}

static int template_gc(lua_State *L)
{
    struct template_box *box = luaL_checkudata(L, 1, TEMPLATE_MT);

    if (box->template == NULL)
        return 0;
    fm__template_forget_change(box->template);
    if (box->engine->engine != NULL)
        fm__template_close(box->template, FM__NS_PER_S / 10);
    fm__template_unref(box->template);
    box->template = NULL;
    return 0;
}

void fmL_open_template(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"template_exec", l_template_exec},
        {"template_snapshot", l_template_snapshot},
        {"template_fork", l_template_fork},
        {"template_call", l_template_call},
        {"template_spawn", l_template_spawn},
        {"template_state", l_template_state},
        {"template_failure", l_template_failure},
        {"template_pid", l_template_pid},
        {"template_watch", l_template_watch},
        {"template_close", l_template_close},
        {NULL, NULL}};

    luaL_newmetatable(L, TEMPLATE_MT);
    lua_pushcfunction(L, template_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
    lua_pushboolean(L, fm__has_templates());
    lua_setfield(L, -2, "has_templates");
}
