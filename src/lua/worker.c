/* SPDX-License-Identifier: MIT */
/*
 * A worker of a map of Lua items, in its process: calls the user's function for
 * one item after the other, and writes each result straight into the ring.
 *
 * One protected call serves as many items as end well.  When one raises, the
 * failure is told and another protected call goes on with the next.
 */
#include <errno.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/job.h"
#include "lua/map.h"
#include "lua/values.h"
#include "os/sys.h"
#include "wire/buffer.h"

/* Detail of a failure without a raised value. */
#define NO_FORMAT 0xff

/* ----------------------------------------------------------------- results */

static int put_integer(struct fm_worker *worker, lua_Integer n)
{
    return fm__worker_put_scalar(worker, FM__RECORD_INTEGER, (uint64_t)n);
}

static int put_number(struct fm_worker *worker, lua_Number x)
{
    uint64_t bits;

    memcpy(&bits, &x, sizeof bits);
    return fm__worker_put_scalar(worker, FM__RECORD_NUMBER, bits);
}

static int put_failure(struct fm_worker *worker, unsigned kind,
                       const char *first, const char *second)
{
    int rc;

    fm__worker_begin(worker);
    rc = fm__worker_write_texts(worker, first, second);
    return rc < 0 ? rc : fm__worker_end(worker, kind, NO_FORMAT);
}

static int put_too_long(struct fm_worker *worker)
{
    return put_failure(worker, FM__RECORD_EXCEED, "result",
                       "the item exceeded limits.result");
}

static int put_string(lua_State *L, struct fm_worker *worker, int idx)
{
    size_t len;
    const char *s = lua_tolstring(L, idx, &len);
    int rc;

    fm__worker_begin(worker);
    rc = fm__sink_write(&worker->sink, s, len);
    if (rc == 0)
        rc = fm__worker_end(worker, FM__RECORD_VALUE, FML_FORMAT_STRING);
    return rc == FM_ELIMIT ? put_too_long(worker) : rc;
}

/* Any value, by the codec. */
static int put_encoded(lua_State *L, const struct fmL_job *job, int idx)
{
    struct fm_worker *worker = job->worker;
    int rc;

    fm__worker_begin(worker);
    rc = fmL_encode(L, idx, 1, &job->call->options->codec, &worker->sink,
                    "result");
    if (rc == 0)
        rc = fm__worker_end(worker, FM__RECORD_VALUE, (unsigned)worker->format);
    if (rc == FM_EENCODE)
        return put_failure(worker, FM__RECORD_REFUSE, lua_tostring(L, -2),
                           lua_tostring(L, -1));
    return rc == FM_ELIMIT ? put_too_long(worker) : rc;
}

/* What every codec of ours carries alike needs none.  JSON has no NaN, and its
 * strings are UTF-8: those are left to it. */
static int put_value(lua_State *L, const struct fmL_job *job, int idx)
{
    enum fmL_codec_kind codec = job->call->options->codec.kind;
    struct fm_worker *worker = job->worker;

    if (codec > FML_CODEC_LUA)
        return put_encoded(L, job, idx);
    switch (lua_type(L, idx)) {
    case LUA_TNIL:
        return fm__worker_put_scalar(worker, FM__RECORD_NIL, 0);
    case LUA_TBOOLEAN:
        return fm__worker_put_scalar(
            worker, lua_toboolean(L, idx) ? FM__RECORD_TRUE : FM__RECORD_FALSE,
            0);
    case LUA_TNUMBER: {
        lua_Number x;

        if (lua_isinteger(L, idx))
            return put_integer(worker, lua_tointeger(L, idx));
        x = lua_tonumber(L, idx);
        if (codec == FML_CODEC_JSON && x - x != 0)
            return put_encoded(L, job, idx);
        return put_number(worker, x);
    }
    case LUA_TSTRING:
        if (codec != FML_CODEC_JSON)
            return put_string(L, worker, idx);
        return put_encoded(L, job, idx);
    default:
        return put_encoded(L, job, idx);
    }
}

static int put_result(lua_State *L, const struct fmL_job *job, int idx)
{
    if (job->map->want == FML_WANT_VALUE)
        return put_value(L, job, idx);
    if (job->map->want == FML_WANT_NOTHING)
        return fm__worker_put_scalar(job->worker, FM__RECORD_NIL, 0);
    return fm__worker_put_scalar(
        job->worker, lua_toboolean(L, idx) ? FM__RECORD_TRUE : FM__RECORD_FALSE,
        0);
}

/* -------------------------------------------------------------------- items */

enum { AT_JOB = 1, AT_FN, AT_LIST, AT_RESULT };

static void push_item(lua_State *L, const struct fmL_job *job,
                      lua_Integer index)
{
    const struct fmL_map *map = job->map;

    if (lua_isnil(L, AT_LIST) && map->opts.is_source)
        fmL_push_source_item(L, map, job->worker);
    else if (lua_isnil(L, AT_LIST))
        lua_pushinteger(L, index);
    else if (map->is_raw)
        (void)lua_rawgeti(L, AT_LIST, index);
    else
        (void)lua_geti(L, AT_LIST, index);
}

static void seed_item(lua_State *L, const struct fmL_job *job)
{
    uint64_t seed[2];

    fm_worker_get_seed(job->worker, seed);
    fmL_job_seed(L, seed);
}

/* How many of (item, index) the function can see. */
static int count_args(lua_State *L)
{
    lua_Debug ar;

    lua_pushvalue(L, AT_FN);
    (void)lua_getinfo(L, ">Su", &ar);
    return *ar.what == 'C' || ar.isvararg || ar.nparams > 2 ? 2 : ar.nparams;
}

/* A result that needs no memory may stay on the stack for a while: to clear it
 * each time is one call more. */
#define RESULTS_KEPT 16

/* (job, fn, list, nil) -> code: work on the item that the worker is in, and on
 * all that follow. */
static int work(lua_State *L)
{
    const struct fmL_job *job = lua_touserdata(L, AT_JOB);
    struct fm_worker *worker = job->worker;
    int n_args = count_args(L);
    int n_kept = 0;
    int rc;

    lua_settop(L, AT_LIST);
    luaL_checkstack(L, RESULTS_KEPT + LUA_MINSTACK, NULL);
    do {
        lua_Integer index = (lua_Integer)fm__worker_index(worker) + 1;

        if (job->map->is_seeded)
            seed_item(L, job);
        lua_pushvalue(L, AT_FN);
        if (n_args > 0)
            push_item(L, job, index);
        if (n_args > 1)
            lua_pushinteger(L, index);
        lua_call(L, n_args, 1);
        if (worker->crew->is_heard)
            fm__worker_settle_output(worker);
        if (job->map->want == FML_WANT_VALUE && lua_isinteger(L, -1) &&
            job->call->options->codec.kind <= FML_CODEC_LUA) {
            rc = put_integer(worker, lua_tointegerx(L, -1, NULL));
            n_kept++;
        } else {
            rc = put_result(L, job, lua_gettop(L));
            n_kept = RESULTS_KEPT;
        }
        if (n_kept == RESULTS_KEPT) {
            lua_settop(L, AT_LIST);
            n_kept = 0;
        }
        if (rc == 0)
            rc = fm__worker_next(worker);
    } while (rc > 0);
    lua_pushinteger(L, rc);
    return 1;
}

/* ------------------------------------------- items with processes of their own
 */

/* (job, fn, list, thread) -> code: as work(), each item in a child, on the
 * thread, which is fresh there every time. */
static int work_apart(lua_State *L)
{
    const struct fmL_job *job = lua_touserdata(L, AT_JOB);
    struct fm_worker *worker = job->worker;
    struct fmL_call call = *job->call;
    int rc;

    call.thread = lua_tothread(L, AT_LIST + 1);
    call.map = job->map;
    call.place = worker;
    do {
        lua_Integer index = (lua_Integer)fm__worker_index(worker) + 1;

        lua_pushvalue(L, AT_FN);
        push_item(L, job, index);
        lua_pushinteger(L, index);
        lua_xmove(L, call.thread, 3);
        rc = fm_worker_run_item(worker, fmL_run_job, &call);
        lua_settop(call.thread, 0);
        if (rc == 0)
            rc = fm__worker_next(worker);
    } while (rc > 0);
    lua_pushinteger(L, rc);
    return 1;
}

/* ---------------------------------------------------------------- failures */

/* (job, value): append the raised value to the open failure.  Into a buffer
 * first: an encoder begins by forgetting what was written. */
static int append_value(lua_State *L)
{
    static const struct fmL_codec codec = FML_CODEC_INIT;
    const struct fmL_job *job = lua_touserdata(L, 1);
    struct fm__buffer_sink *sink = lua_touserdata(L, 3);
    int rc;

    rc = fmL_encode(L, 2, 1, &codec, &sink->sink, "value");
    if (rc == 0)
        rc = fm__buffer_sink_flush(sink);
    if (rc == 0)
        rc = fm__sink_write(&job->worker->sink, sink->buffer->data,
                            sink->buffer->len);
    lua_pushboolean(L, rc == 0);
    return 1;
}

/* The item failed with the error object at `value`. */
static int put_error(lua_State *L, struct fmL_job *job, int value)
{
    struct fm_worker *worker = job->worker;
    struct fm__buffer_sink sink;
    struct fm__buffer buffer;
    unsigned format = NO_FORMAT;
    int rc;

    fmL_job_push_texts(L, value);
    fm__worker_begin(worker);
    rc = fm__worker_write_texts(worker, lua_tostring(L, -2),
                                lua_tostring(L, -1));
    if (rc < 0)
        return rc;
    if (fmL_job_sends_value(L, value)) {
        fm__buffer_init(&buffer, FML_TEXT_MAX << 8);
        fm__buffer_sink_init(&sink, &buffer);
        lua_pushcfunction(L, append_value);
        lua_pushlightuserdata(L, job);
        lua_pushvalue(L, value);
        lua_pushlightuserdata(L, &sink);
        if (lua_pcall(L, 3, 1, 0) == LUA_OK && lua_toboolean(L, -1))
            format = (unsigned)sink.format;
        fm__buffer_done(&buffer);
    }
    return fm__worker_end(worker, FM__RECORD_FAIL, format);
}

/* (job): protected put_error() of the error object at 2. */
static int tell_error(lua_State *L)
{
    lua_pushinteger(L, put_error(L, lua_touserdata(L, 1), 2));
    return 1;
}

/* The item failed with this status and the error object on the top, which is
 * popped.  The item before the last record is closed then. */
static int fail_item(lua_State *L, struct fmL_job *job, int status)
{
    int64_t limit = job->heap.limit;
    int rc;

    if (job->worker->said) { /* said all, then failed to go on */
        lua_pop(L, 1);
        return FM_ECLOSED;
    }
    fm__worker_settle_output(job->worker);
    if (fmL_job_is_out_of_memory(L, job, status)) {
        lua_pop(L, 1);
        job->heap.hit = false;
        rc = put_failure(job->worker, FM__RECORD_EXCEED, "memory",
                         "the item exceeded limits.memory");
        (void)lua_gc(L, LUA_GCCOLLECT, 0);
        return rc;
    }
    fmL_heap_lift(&job->heap);
    lua_pushcfunction(L, tell_error);
    lua_insert(L, -2);
    lua_pushlightuserdata(L, job);
    lua_insert(L, -2);
    if (lua_pcall(L, 2, 1, 0) == LUA_OK)
        rc = (int)lua_tointeger(L, -1);
    else
        rc = put_failure(job->worker, FM__RECORD_FAIL, "not enough memory",
                         NULL);
    lua_pop(L, 1);
    job->heap.limit = limit;
    lua_pushboolean(L, 0);
    fmL_keep(L, FML_KEPT_TRACEBACK);
    return rc;
}

/* ---------------------------------------------------------------- the body */

/* Places on the thread, behind the message handler. */
#define AT(slot) ((slot) + 1)

static int call_hook(lua_State *L, struct fmL_job *job, int slot)
{
    int status;

    if (lua_isnil(L, AT(slot)))
        return LUA_OK;
    lua_pushvalue(L, AT(slot));
    status = lua_pcall(L, 0, 0, 1);
    if (status != LUA_OK)
        fmL_job_report(L, job, status);
    return status;
}

static int work_on_all(lua_State *L, struct fmL_job *job)
{
    uint64_t index;
    int rc;

    while ((rc = fm_worker_next(job->worker, &index)) > 0) {
        int status;

        lua_pushcfunction(L, job->map->by_item ? work_apart : work);
        lua_pushlightuserdata(L, job);
        lua_pushvalue(L, AT(FML_WORK_FN));
        lua_pushvalue(L, AT(FML_WORK_LIST));
        lua_pushvalue(L, AT(FML_WORK_SLOTS + 1));
        status = lua_pcall(L, 4, 1, 1);
        if (status == LUA_OK) {
            rc = (int)lua_tointeger(L, -1);
            lua_pop(L, 1);
        } else {
            rc = fail_item(L, job, status);
            if (rc == 0)
                continue;
        }
        if (rc <= 0)
            break;
    }
    return rc;
}

/* For items with processes of their own: push the thread that they run on, or
 * nil, and have the hooks run around their forks. */
static void prepare_items(lua_State *L, const struct fmL_job *job)
{
    struct fmL_engine *box = job->call->engine;
    fm_engine *engine;
    lua_State *thread;
    int rc;

    if (!job->map->by_item) {
        lua_pushnil(L);
        return;
    }
    rc = fm__worker_get_engine(job->worker, &engine);
    if (rc == 0)
        rc = fmL_hooks_attach(box, engine);
    if (rc < 0)
        luaL_error(L, "fork_map cannot make an engine: %s", fm_strerror(rc));
    box->L = L; /* for the hooks */
    thread = lua_newthread(L);
    luaL_checkstack(thread, 2 * LUA_MINSTACK, NULL);
}

/* (job, fn, list, init, exit) -> code */
static int run(lua_State *L)
{
    struct fmL_job *job = lua_touserdata(L, 1);
    int rc = 0;

    lua_settop(L, AT(FML_WORK_SLOTS));
    prepare_items(L, job);
    lua_pushcfunction(L, fmL_job_on_error);
    lua_replace(L, 1);
    lua_pushboolean(L, 1);
    fmL_keep(L, FML_KEPT_BELOW_MAP);
    fmL_job_begin(L, job);
    if (call_hook(L, job, FML_WORK_INIT) == LUA_OK) {
        rc = work_on_all(L, job);
        if (rc == 0)
            (void)call_hook(L, job, FML_WORK_EXIT);
    }
    lua_pushinteger(L, rc);
    return 1;
}

int fmL_run_worker(fm_worker *worker, void *ud)
{
    const struct fmL_map *map = ud;
    struct fmL_job job;

    job.child = fm_worker_get_child(worker);
    job.call = &map->call;
    job.worker = worker;
    job.place = worker;
    job.map = map;
    job.hears_cancel = false;
    return fmL_job_run(&job, run);
}
