/* SPDX-License-Identifier: MIT */
/*
 * The job of a call: runs the user's function in the child and tells the
 * parent what became of it.
 *
 * It runs on the call's own thread, which has a C stack budget and hooks of
 * its own, below two protected calls: the inner one for the user's function,
 * whose failure is the outcome, the outer one for everything around it, so that
 * no error of any kind reaches the host's frames.  A yield cannot pass either.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/job.h"
#include "lua/leave.h"
#include "lua/map.h"
#include "lua/values.h"

struct fmL_job *fmL_current_job(void)
{
    return fm__process_get_job();
}

struct fmL_job *fmL_get_job(lua_State *L)
{
    struct fmL_job *job = fm__process_get_job();

    if (job == NULL || job->main_thread != fmL_main_thread(L))
        return NULL;
    return job;
}

/* ------------------------------------------------------------------- failures
 */

/* Message handler of the user's function: keep the traceback, which is gone
 * when the call has returned; leave the error object alone. */
int fmL_job_on_error(lua_State *L)
{
    luaL_traceback(L, L, NULL, 1);
    fmL_keep(L, FML_KEPT_TRACEBACK);
    return 1;
}

static int call_tostring(lua_State *L)
{
    luaL_tolstring(L, 1, NULL);
    return 1;
}

/* Push what the error object at `idx` says: itself when it is a text, what its
 * __tostring says, else what it is.  As lua.c does, and never raising what a
 * __tostring raises.  [-0, +1, m] */
static void push_message(lua_State *L, int idx)
{
    if (lua_type(L, idx) == LUA_TSTRING || lua_type(L, idx) == LUA_TNUMBER) {
        lua_pushvalue(L, idx);
        (void)lua_tostring(L, -1);
        return;
    }
    if (luaL_getmetafield(L, idx, "__tostring") != LUA_TNIL) {
        lua_pop(L, 1);
        lua_pushcfunction(L, call_tostring);
        lua_pushvalue(L, idx);
        if (lua_pcall(L, 1, 1, 0) == LUA_OK)
            return;
        lua_pop(L, 1);
    }
    lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, idx));
}

/* Replace the string on the top by one of at most FML_TEXT_MAX bytes. */
static void cut_text(lua_State *L)
{
    size_t len;
    const char *text = lua_tolstring(L, -1, &len);

    fmL_push_text(L, text, len);
    lua_remove(L, -2);
}

/* Push the traceback that on_error() kept, or nil, without the frames that
 * are ours: they are the last line. */
static void push_traceback(lua_State *L)
{
    static const char ours[] = "\n\t[C]: in ?";
    size_t tail = sizeof ours - 1;
    const char *text;
    size_t len;

    if (fmL_push_kept(L, FML_KEPT_TRACEBACK) != LUA_TSTRING) {
        lua_pop(L, 1);
        lua_pushnil(L);
        return;
    }
    text = lua_tolstring(L, -1, &len);
    if (len > tail && strcmp(text + len - tail, ours) == 0) {
        lua_pushlstring(L, text, len - tail);
        lua_remove(L, -2);
    }
    cut_text(L);
}

/* The raised value crosses whole when it can; a text too long for a message
 * crosses as the message only. */
bool fmL_job_sends_value(lua_State *L, int value)
{
    return lua_type(L, value) != LUA_TSTRING ||
           lua_rawlen(L, value) <= FML_TEXT_MAX;
}

void fmL_job_push_texts(lua_State *L, int value)
{
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    push_message(L, value);
    cut_text(L);
    push_traceback(L);
}

/* The job failed with the error object on the top of the stack. */
static void report_error(lua_State *L, fm_child *child)
{
    static const struct fmL_codec codec = FML_CODEC_INIT;
    int value = lua_gettop(L);
    const char *traceback;
    const char *message;

    fmL_job_push_texts(L, value);
    message = lua_tostring(L, -2);
    traceback = lua_tostring(L, -1);
    (void)fm_child_fail(child, message, traceback);
    if (fmL_job_sends_value(L, value) &&
        fmL_encode(L, value, 1, &codec, fm__child_sink(child), "value") < 0)
        (void)fm_child_fail(child, message, traceback);
}

/* Did the job end because it may not have more memory?  Lua's own error says
 * so, or its text when it was caught and raised again. */
bool fmL_job_is_out_of_memory(lua_State *L, const struct fmL_job *job,
                              int status)
{
    if (job->call->options->job.limits.memory == 0)
        return false;
    if (status == LUA_ERRMEM)
        return true;
    return job->heap.hit && lua_type(L, -1) == LUA_TSTRING &&
           strstr(lua_tostring(L, -1), "not enough memory") != NULL;
}

void fmL_job_report(lua_State *L, struct fmL_job *job, int status)
{
    if (fmL_job_is_out_of_memory(L, job, status)) {
        fmL_heap_lift(&job->heap);
        (void)fm_child_exceed(job->child, "memory",
                              "the child exceeded limits.memory");
        return;
    }
    fmL_heap_lift(&job->heap);
    report_error(L, job->child);
}

/* ---------------------------------------------------------------- the journey
 */

void fmL_job_seed(lua_State *L, const uint64_t seed[2])
{
    if (fmL_push_kept(L, FML_KEPT_RANDOMSEED) != LUA_TFUNCTION) {
        lua_pop(L, 1);
        return;
    }
    lua_pushinteger(L, (lua_Integer)seed[0]);
    lua_pushinteger(L, (lua_Integer)seed[1]);
    lua_call(L, 2, 0);
}

/* Write the values above index `first - 1` as the result. */
int fmL_job_send_results(lua_State *L, const struct fmL_job *job, int first)
{
    int n = lua_gettop(L) - first + 1;
    int rc = fmL_encode(L, first, n, &job->call->options->codec,
                        fm__child_sink(job->child), "result");

    if (rc == FM_EENCODE)
        return fm_child_refuse(job->child, lua_tostring(L, -2),
                               lua_tostring(L, -1));
    if (rc == FM_ELIMIT)
        return fm_child_exceed(job->child, "result",
                               "the child exceeded limits.result");
    return rc;
}

void fmL_job_begin(lua_State *L, struct fmL_job *job)
{
    uint64_t seed[2];

    fmL_leave_guard(L, job->call->engine->closing);
    fm_child_get_seed(job->child, seed);
    fmL_job_seed(L, seed);
    job->recorder.child = job->child;
    job->recorder.home = job->call->home;
    job->recorder.home_line = job->call->home_line;
    fmL_recorder_start(L, &job->recorder);
    fmL_hooks_run_child(L);
}

/* Of an item its first value counts, or whether that is true. */
static void trim_results(lua_State *L, const struct fmL_map *map)
{
    lua_settop(L, 2);
    if (map->want == FML_WANT_TRUTH) {
        lua_pushboolean(L, lua_toboolean(L, 2));
        lua_replace(L, 2);
    } else if (map->want == FML_WANT_NOTHING) {
        lua_pushnil(L);
        lua_replace(L, 2);
    }
}

/* (job, fn, args…) -> code: the whole job. */
static int run(lua_State *L)
{
    struct fmL_job *job = lua_touserdata(L, 1);
    int n = lua_gettop(L) - 2;
    int status;
    int rc = 0;

    lua_pushcfunction(L, fmL_job_on_error);
    lua_replace(L, 1);
    fmL_job_begin(L, job);
    status = lua_pcall(L, n, LUA_MULTRET, 1);
    if (status == LUA_OK && job->map != NULL)
        trim_results(L, job->map);
    if (status == LUA_OK)
        rc = fmL_job_send_results(L, job, 2);
    else
        fmL_job_report(L, job, status);
    lua_pushinteger(L, rc);
    return 1;
}

/* An error outside of every protected call would find the host's.  There is
 * none; should there be one, it ends here. */
static int on_panic(lua_State *L)
{
    fm_child *child = fm_child_current();

    (void)L;
    if (child != NULL)
        fm_child_exit(child, EXIT_FAILURE);
    return 0;
}

/* (error): protected report_error(). */
static int report_protected(lua_State *L)
{
    report_error(L, fmL_get_job(L)->child);
    return 0;
}

/* Something around the user's function raised: a hook, a codec, memory. */
static int report_breakdown(lua_State *L, struct fmL_job *job, int status)
{
    if (fmL_job_is_out_of_memory(L, job, status))
        return fm_child_exceed(job->child, "memory",
                               "the child exceeded limits.memory");
    fmL_heap_lift(&job->heap);
    lua_pushcfunction(L, report_protected);
    lua_insert(L, -2);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK)
        return 0;
    return fm_child_fail(job->child, "not enough memory", NULL);
}

int fmL_job_run(struct fmL_job *job, lua_CFunction body)
{
    lua_State *L = job->call->thread;
    int status;
    int rc;

    job->thread = L;
    (void)lua_atpanic(L, on_panic);
    /* A thread inherits the hook of its maker; hooks are the host's. */
    lua_sethook(L, NULL, 0, 0);
    job->main_thread = fmL_main_thread(L);
    fm__process_set_job(job);
    fmL_heap_rest(L);
    fmL_heap_limit(L, &job->heap, job->call->options->job.limits.memory);
    lua_pushcfunction(L, body);
    lua_pushlightuserdata(L, job);
    lua_rotate(L, 1, 2);
    status = lua_pcall(L, lua_gettop(L) - 1, 1, 0);
    if (status == LUA_OK)
        rc = (int)lua_tointeger(L, -1);
    else
        rc = report_breakdown(L, job, status);
    fm__child_sample(job->child, NULL, NULL); /* its recorder goes */
    return rc < 0 ? rc : 0;
}

int fmL_run_job(fm_child *child, void *ud)
{
    struct fmL_job job;

    job.child = child;
    job.call = ud;
    job.worker = NULL;
    job.hears_cancel = false;
    job.place = job.call->place;
    job.map = job.call->map;
    return fmL_job_run(&job, run);
}
