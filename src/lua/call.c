/* SPDX-License-Identifier: MIT */
/*
 * Call records: what anchors a function and its arguments while their job is
 * waiting or running.  They are kept by the engine and used again, so that a
 * call allocates no more than its handle.
 */
#include "lua/binding.h"

#include <errno.h>
#include <string.h>
#include <lauxlib.h>
#include "engine/duplex.h"

/* Slots that the job needs on its thread beside the function and arguments. */
#define CALL_STACK (2 * LUA_MINSTACK)

/* Records in no use that are kept. */
#define IDLE_MOST 32

/* Nested calls of most jobs: the job, its function, a function of that. */
#define CALL_FRAMES 3

struct fmL_call *fmL_call_take(lua_State *L, struct fmL_engine *box)
{
    struct fmL_call *call = box->idle;

    if (call != NULL) {
        box->idle = call->next_idle;
        box->n_idle--;
        return call;
    }
    if (box->calls == NULL) { /* beside the box itself */
        (void)lua_newuserdatauv(L, 0, 2);
        call = &box->first;
    } else {
        call = lua_newuserdatauv(L, sizeof *call, 2);
    }
    memset(call, 0, sizeof *call);
    call->engine = box;
    call->thread = lua_newthread(L);
    /* It inherits the hook of its maker, which may long be gone when it is
     * used again. */
    lua_sethook(call->thread, NULL, 0, 0);
    lua_setiuservalue(L, -2, FML_CALL_THREAD);
    lua_rawsetp(L, LUA_REGISTRYINDEX, call);
    /* It is anchored: from here on it can be found, and freed. */
    call->next = box->calls;
    if (call->next != NULL)
        call->next->prev = call;
    box->calls = call;
    return call;
}

void fmL_call_free_all(lua_State *L, struct fmL_engine *box)
{
    struct fmL_call *call = box->calls;

    box->calls = NULL;
    box->idle = NULL;
    box->n_idle = 0;
    while (call != NULL) {
        struct fmL_call *next = call->next;

        lua_pushnil(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, call);
        call = next;
    }
}

/* (depth): call itself so deep. */
static int descend(lua_State *L)
{
    lua_Integer depth = lua_tointeger(L, 1);

    if (depth > 0) {
        lua_pushcfunction(L, descend);
        lua_pushinteger(L, depth - 1);
        lua_call(L, 1, 0);
    }
    return 0;
}

/* Have the frames of the job's first calls allocated here: the child would
 * copy a page for each.  The collector takes them away now and then. */
static void call_warm(lua_State *thread)
{
    lua_pushcfunction(thread, descend);
    lua_pushinteger(thread, CALL_FRAMES - 1);
    if (lua_pcall(thread, 1, 0, 0) != LUA_OK)
        lua_pop(thread, 1); /* no memory; the job will tell */
}

/* Where the job is while it has run no line, for the flight recorder. */
static void call_set_home(lua_State *L, struct fmL_call *call, int idx)
{
    lua_Debug ar;

    lua_pushvalue(L, idx);
    lua_getinfo(L, ">S", &ar);
    memcpy(call->home, ar.short_src, sizeof call->home);
    call->home_line = ar.linedefined;
}

/* Anchor the options at `idx` for as long as the record uses no others: most
 * calls on an engine have the same.  Changes an existing field only, so it
 * cannot run out of memory. */
static void call_set_options(lua_State *L, struct fmL_call *call, int idx)
{
    const struct fmL_options *options = lua_touserdata(L, idx);

    if (call->options == options)
        return;
    (void)lua_rawgetp(L, LUA_REGISTRYINDEX, call);
    lua_pushvalue(L, idx);
    lua_setiuservalue(L, -2, FML_CALL_OPTIONS);
    lua_pop(L, 1);
    call->options = options;
}

/* Engine: no further attempt can need the function and its arguments. */
static void call_let_go(void *ud)
{
    struct fmL_call *call = ud;

    lua_settop(call->thread, 0);
}

/* One that nobody needs is left to the collector. */
static void call_free(lua_State *L, struct fmL_call *call)
{
    call->prev->next = call->next;
    if (call->next != NULL)
        call->next->prev = call->prev;
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, call);
}

void fmL_call_retire(struct fmL_call *call)
{
    struct fmL_engine *box = call->engine;
    lua_State *L = box->L;

    lua_settop(call->thread, 0);
    call->listener = NULL;
    call->is_duplex = false;
    if (box->n_idle >= IDLE_MOST && call != &box->first && call->prev != NULL &&
        L != NULL && lua_checkstack(L, 1)) {
        call_free(L, call);
        return;
    }
    call->next_idle = box->idle;
    box->idle = call;
    box->n_idle++;
}

/* Engine: a worker of a pool has told something. */
static void call_news(fm_future *future, void *ud)
{
    const struct fmL_call *call = ud;

    (void)future;
    if (call->listener != NULL)
        fmL_tell(call->engine, &call->listener->told);
}

static void call_settled(fm_future *future, void *ud)
{
    struct fmL_call *call = ud;
    struct fmL_engine *box = call->engine;
    struct fmL_future *listener = call->listener;

    (void)future;
    if (listener != NULL) {
        listener->told.stays = false;
        fmL_tell(box, &listener->told);
    }
    fmL_call_retire(call);
}

/* ------------------------------------------------ lines that a child prints */

struct line_event {
    struct fmL_call *call;
    const char *line;
    size_t len;
    int stream;
};

/* (event): call the handler of the call's options. */
static int deliver_line(lua_State *L)
{
    const struct line_event *event = lua_touserdata(L, 1);

    lua_rawgetp(L, LUA_REGISTRYINDEX, event->call);
    lua_getiuservalue(L, -1, FML_CALL_OPTIONS);
    lua_getiuservalue(L, -1, FML_OPTIONS_HANDLER);
    lua_pushlstring(L, event->line, event->len);
    lua_pushstring(L, event->stream == 1 ? "stdout" : "stderr");
    lua_call(L, 2, 0);
    return 0;
}

static void call_line(int stream, const char *line, size_t len, void *ud)
{
    struct fmL_call *call = ud;
    struct line_event event = {call, line, len, stream};
    lua_State *L = call->engine->L;

    if (!lua_checkstack(L, LUA_MINSTACK))
        return;
    lua_pushcfunction(L, deliver_line);
    lua_pushlightuserdata(L, &event);
    fmL_callback(L, call->engine, 1);
}

/* ------------------------------------------------------------------- snapshots
 */

/* Engine: the template's process has ended. */
static void call_done(void *ud)
{
    fmL_call_retire(ud);
}

int fmL_call_snapshot(lua_State *L, struct fmL_call *call, int options,
                      struct fm_job_opts *ret_job)
{
    call_set_options(L, call, options);
    if (!lua_checkstack(call->thread, 1 + CALL_STACK)) {
        fmL_call_retire(call);
        return -ENOMEM;
    }
    call_set_home(L, call, -1);
    lua_xmove(L, call->thread, 1);
    call_warm(call->thread);
    *ret_job = call->options->job;
    ret_job->on_line = call_line;
    ret_job->on_line_ud = call;
    ret_job->ud_free = call_done;
    return 0;
}

/* --------------------------------------------------------------------- start
 */

static int call_spawn(struct fmL_call *call, const struct fm_job_opts *job,
                      fm_future **ret_future)
{
    fm_engine *engine = call->engine->engine;
    int rc;

    if (!call->is_duplex)
        return fm_spawn(engine, job, fmL_run_job, call, ret_future);
    rc = fm__spawn_duplex(engine, job, fmL_run_job, call, ret_future);
    if (rc == 0)
        fm__duplex_on_news(*ret_future, call_news, call);
    return rc;
}

static int call_send(struct fmL_call *call, fm_template *template,
                     const struct fm_job_opts *job,
                     const struct fm__errand *errand, fm_future **ret_future)
{
    int rc;

    if (!call->is_duplex)
        return fm__template_spawn(template, job, errand, ret_future);
    rc = fm__template_spawn_duplex(template, job, errand, ret_future);
    if (rc == 0)
        fm__duplex_on_news(*ret_future, call_news, call);
    return rc;
}

int fmL_call_send(lua_State *L, struct fmL_call *call, int options,
                  fm_template *template, const struct fm__errand *errand,
                  struct fmL_future *listener)
{
    fm_future **future = &listener->future;
    struct fm_job_opts job;
    int rc;

    call_set_options(L, call, options);
    call->listener = listener;
    job = call->options->job;
    job.on_line = call_line;
    job.on_line_ud = call;
    rc = call_send(call, template, &job, errand, future);
    if (rc < 0)
        fmL_call_retire(call);
    else
        (void)fm_future_on_settle(*future, call_settled, call);
    return rc;
}

int fmL_call_start(lua_State *L, struct fmL_call *call, int options, int first,
                   struct fmL_future *listener, fm_future **ret_future)
{
    int n = lua_gettop(L) - first + 1;
    struct fm_job_opts job;
    int rc;

    call_set_options(L, call, options);
    if (!lua_checkstack(call->thread, n + CALL_STACK)) {
        fmL_call_retire(call);
        return -ENOMEM;
    }
    call_set_home(L, call, first);
    lua_xmove(L, call->thread, n);
    call_warm(call->thread);
    call->listener = listener;
    job = call->options->job;
    job.on_line = call_line;
    job.on_line_ud = call;
    job.ud_free = call_let_go;
    rc = call_spawn(call, &job, ret_future);
    if (rc < 0)
        fmL_call_retire(call);
    else if (fm_future_on_settle(*ret_future, call_settled, call) < 0)
        call_let_go(call); /* the record goes with the engine */
    return rc;
}
