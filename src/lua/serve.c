/* SPDX-License-Identifier: MIT */
/*
 * A worker of a pool in its process: takes calls, and tells what became of
 * them. What is done with a call is the affair of lua/fork_map/serve.lua.
 *
 * A result is written straight into the ring.  Whatever encoding it raises is
 * what the call fails with.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/job.h"
#include "lua/values.h"
#include "os/clock.h"
#include "os/proc.h"
#include "process/child.h"
#include "process/serving.h"
#include "wire/buffer.h"

/* Engines that it waits for beside its calls. */
#define ENGINES_MOST 32

/* The first signal of a limit of processor time may be ignored. */
#define KILL_EXTRA_NS FM__NS_PER_S

/* Something is being written: an encoder of the user's may not tell more. */
static bool is_telling;

static bool has_timers;
static timer_t cpu_timers[2];

/* The serving of this process, for which the Lua state is the right one. */
static struct fm__serving *find_serving(lua_State *L)
{
    const struct fmL_job *job = fmL_get_job(L);

    if (job == NULL || fm_child_current() != job->child)
        return NULL;
    return fm__child_get_serving(job->child);
}

static struct fm__serving *check_serving(lua_State *L)
{
    struct fm__serving *serving = find_serving(L);

    if (serving == NULL)
        luaL_error(L, "fork_map: not in a worker of a pool");
    return serving;
}

static const struct fmL_options *get_options(lua_State *L)
{
    return fmL_get_job(L)->call->options;
}

static int tell(struct fm__serving *serving, uint64_t call,
                enum fm__tell_what what, int format, const char *const texts[2])
{
    struct fm__tell head;

    memset(&head, 0, sizeof head);
    head.call = call;
    head.what = (uint8_t)what;
    head.format = (uint8_t)format;
    return fm__serving_tell(serving, &head, texts[0], texts[1]);
}

static int tell_plain(struct fm__serving *serving, enum fm__tell_what what)
{
    static const char *const none[2] = {NULL, NULL};

    return tell(serving, 0, what, FM__TELL_NO_DATA, none);
}

/* ------------------------------------------------------------------ writing */

/* The child's sink, which notes the format. */
struct noting_sink {
    struct fm__sink sink; /* first: it is the outbox's, by turns */
    struct fm__sink *under;
    int format;
};

static void borrow(struct noting_sink *noting)
{
    noting->sink.next = noting->under->next;
    noting->sink.end = noting->under->end;
}

static int noting_more(struct fm__sink *sink)
{
    struct noting_sink *noting = (struct noting_sink *)sink;
    int rc;

    noting->under->next = sink->next;
    rc = noting->under->more(noting->under);
    borrow(noting);
    return rc;
}

static int noting_restart(struct fm__sink *sink, int format)
{
    struct noting_sink *noting = (struct noting_sink *)sink;
    int rc;

    noting->format = format;
    noting->under->next = sink->next;
    rc = noting->under->restart(noting->under, format);
    borrow(noting);
    return rc;
}

/* Encode the values from index `first` on into the outbox.  As fmL_encode(),
 * with the format in `*ret_format`. */
static int encode(lua_State *L, struct fm__serving *serving, int first, int n,
                  const char *root, int *ret_format)
{
    struct noting_sink noting;
    int rc;

    noting.under = &serving->outbox->sink;
    noting.sink.more = noting_more;
    noting.sink.restart = noting_restart;
    noting.format = 0;
    borrow(&noting);
    rc = fmL_encode(L, first, n, &get_options(L)->codec, &noting.sink, root);
    noting.under->next = noting.sink.next;
    *ret_format = noting.format;
    return rc;
}

/* Forget what was written of a message. */
static void drop_written(struct fm__serving *serving)
{
    (void)serving->outbox->sink.restart(&serving->outbox->sink, 0);
}

/* (number, values…) -> code, in a protected call */
static int put_values(lua_State *L)
{
    struct fm__serving *serving = check_serving(L);
    uint64_t call = (uint64_t)lua_tointeger(L, 1);
    const char *texts[2] = {NULL, NULL};
    enum fm__tell_what what = FM__TELL_VALUE;
    int format;
    int rc = encode(L, serving, 2, lua_gettop(L) - 1, "result", &format);

    if (rc == 0)
        rc = tell(serving, call, what, format, texts);
    if (rc == FM_EENCODE) {
        what = FM__TELL_REFUSE;
        texts[0] = lua_tostring(L, -2);
        texts[1] = lua_tostring(L, -1);
    } else if (rc == FM_ELIMIT) {
        what = FM__TELL_EXCEED;
        texts[0] = "result";
        texts[1] = "the call exceeded limits.result";
    }
    if (what != FM__TELL_VALUE) {
        drop_written(serving);
        rc = tell(serving, call, what, FM__TELL_NO_DATA, texts);
    }
    lua_pushinteger(L, rc);
    return 1;
}

/* ----------------------------------------------------------------- failures */

/* (value) -> its bytes, format | nothing: into a buffer of Lua's, which an
 * error leaves to the collector. */
static int encode_value(lua_State *L)
{
    static const struct fmL_codec codec = FML_CODEC_INIT;
    struct fm__buffer_sink *sink = lua_touserdata(L, 2);
    int rc = fmL_encode(L, 1, 1, &codec, &sink->sink, "value");

    lua_pushboolean(L, rc == 0 && fm__buffer_sink_flush(sink) == 0);
    return 1;
}

/* Append the raised value at `value` to the outbox, if it can cross.  Its
 * format, or FM__TELL_NO_DATA. */
static int append_value(lua_State *L, struct fm__serving *serving, int value)
{
    struct fm__outbox *outbox = serving->outbox;
    struct fm__buffer_sink sink;
    struct fm__buffer buffer;
    int format = FM__TELL_NO_DATA;

    drop_written(serving);
    if (!fmL_job_sends_value(L, value))
        return format;
    fm__buffer_init(&buffer, FML_TEXT_MAX << 8);
    fm__buffer_sink_init(&sink, &buffer);
    lua_pushcfunction(L, encode_value);
    lua_pushvalue(L, value);
    lua_pushlightuserdata(L, &sink);
    if (lua_pcall(L, 2, 1, 0) == LUA_OK && lua_toboolean(L, -1) &&
        (outbox->limit == 0 || buffer.len <= outbox->limit) &&
        fm__sink_write(&outbox->sink, buffer.data, buffer.len) == 0)
        format = sink.format;
    fm__buffer_done(&buffer);
    return format;
}

/* (number, value, traceback|nil) -> code, in a protected call */
static int put_error(lua_State *L)
{
    struct fm__serving *serving = check_serving(L);
    uint64_t call = (uint64_t)lua_tointeger(L, 1);
    const char *texts[2];
    int format;

    fmL_job_push_texts(L, 2);
    texts[0] = lua_tostring(L, -2);
    if (lua_isstring(L, 3)) {
        size_t len;
        const char *traceback = lua_tolstring(L, 3, &len);

        fmL_push_text(L, traceback, len);
    } else {
        lua_pushnil(L);
    }
    texts[1] = lua_tostring(L, -1);
    format = append_value(L, serving, 2);
    lua_pushinteger(L, tell(serving, call, FM__TELL_FAIL, format, texts));
    return 1;
}

/* Memory ran out within the limit of this process. */
static int tell_out_of_memory(lua_State *L, struct fm__serving *serving,
                              uint64_t call, bool is_limit)
{
    static const char *const limit[2] = {"memory",
                                         "the call exceeded limits.memory"};
    static const char *const plain[2] = {"not enough memory", NULL};
    int rc;

    drop_written(serving);
    rc = tell(serving, call, is_limit ? FM__TELL_EXCEED : FM__TELL_FAIL,
              FM__TELL_NO_DATA, is_limit ? limit : plain);
    (void)lua_gc(L, LUA_GCCOLLECT, 0);
    return rc;
}

/* The call has failed with the error object on the top, by this status; a
 * traceback is at `traceback`, or 0. */
static int fail_call(lua_State *L, uint64_t call, int status, int traceback)
{
    struct fm__serving *serving = check_serving(L);
    struct fmL_job *job = fmL_get_job(L);
    int value = lua_gettop(L);
    int64_t limit = job->heap.limit;
    int rc;

    if (fmL_job_is_out_of_memory(L, job, status)) {
        job->heap.hit = false;
        return tell_out_of_memory(L, serving, call, true);
    }
    fmL_heap_lift(&job->heap);
    lua_pushcfunction(L, put_error);
    lua_pushinteger(L, (lua_Integer)call);
    lua_pushvalue(L, value);
    if (traceback > 0)
        lua_pushvalue(L, traceback);
    else
        lua_pushnil(L);
    if (lua_pcall(L, 3, 1, 0) == LUA_OK)
        rc = (int)lua_tointeger(L, -1);
    else
        rc = tell_out_of_memory(L, serving, call, false);
    job->heap.limit = limit;
    return rc;
}

static int end_telling(lua_State *L, int rc)
{
    is_telling = false;
    lua_pushboolean(L, rc == 0);
    return 1;
}

/* ----------------------------------------------------------------- the calls
 */

/* serve_begin() -> boolean: this is a worker; calls may come now */
static int l_serve_begin(lua_State *L)
{
    struct fm__serving *serving = find_serving(L);

    is_telling = false;
    has_timers = false;
    lua_pushboolean(L, serving != NULL &&
                           tell_plain(serving, FM__TELL_READY) == 0);
    return 1;
}

/* serve_retire() -> boolean: no more calls are begun */
static int l_serve_retire(lua_State *L)
{
    lua_pushboolean(L, tell_plain(check_serving(L), FM__TELL_RETIRE) == 0);
    return 1;
}

/* (options, bytes) -> values… */
static int decode_call(lua_State *L)
{
    const struct fmL_options *options = lua_touserdata(L, 1);
    const struct fm__serving *serving = lua_touserdata(L, 2);
    const struct fm__buffer *bytes = &serving->tray.pieces;
    int n;

    /* They are the parent's; what memory they take is the call's affair. */
    n = fmL_decode(L, serving->format, &options->codec, bytes->data, bytes->len,
                   0);
    return n >= 0 ? n : lua_error(L);
}

/* The next `ns` of processor time are a call's. */
static void limit_cpu(uint64_t cpu_ns)
{
    static const int signals[] = {SIGXCPU, SIGKILL};
    int64_t first = cpu_ns < INT64_MAX ? (int64_t)cpu_ns : INT64_MAX;
    int i;

    for (i = 0; i < 2 && !has_timers; i++) {
        if (fm__timer_make(CLOCK_PROCESS_CPUTIME_ID, signals[i],
                           &cpu_timers[i]) < 0)
            return;
    }
    has_timers = true;
    (void)fm__timer_set(cpu_timers[0], first, 0);
    (void)fm__timer_set(cpu_timers[1], fm__clock_after(first, KILL_EXTRA_NS),
                        0);
}

/* May calls begin? */
static bool must_leave(const struct fm__serving *serving,
                       const struct fmL_job *job)
{
    return fm__serving_must_leave(serving) ||
           fm__child_was_cancelled(job->child);
}

/* serve_take() -> number, tag, arguments… | false: none now | nil: leave.  A
 * call whose arguments cannot be had fails here. */
static int l_serve_take(lua_State *L)
{
    struct fm__serving *serving = check_serving(L);
    const struct fmL_job *job = fmL_get_job(L);
    const struct fmL_options *options = get_options(L);
    int rc;

    lua_settop(L, 0);
    while (!must_leave(serving, job) && (rc = fm__serving_take(serving)) != 0) {
        int status = LUA_ERRMEM;

        if (rc < 0 && rc != -ENOMEM)
            return 0;
        if (options->job.limits.cpu_ns > 0)
            limit_cpu(options->job.limits.cpu_ns);
        lua_pushinteger(L, (lua_Integer)serving->call);
        lua_pushinteger(L, (lua_Integer)serving->tag);
        if (rc == -ENOMEM) {
            lua_pushliteral(L, "not enough memory");
        } else {
            lua_pushcfunction(L, decode_call);
            lua_pushlightuserdata(L, (void *)options);
            lua_pushlightuserdata(L, serving);
            status = lua_pcall(L, 2, LUA_MULTRET, 0);
            if (status == LUA_OK)
                return lua_gettop(L);
        }
        (void)fail_call(L, serving->call, status, 0);
        lua_settop(L, 0);
    }
    if (must_leave(serving, job))
        return 0;
    lua_pushboolean(L, 0);
    return 1;
}

/* serve_sleep() -> boolean: the parent lives
 * serve_sleep(engines, seconds): the same, until one of them has work too */
static int l_serve_sleep(lua_State *L)
{
    struct fm__serving *serving = check_serving(L);
    int fds[ENGINES_MOST];
    size_t n = 0;
    lua_Integer i;
    double seconds;

    if (lua_isnoneornil(L, 1)) {
        lua_pushboolean(L, fm__serving_sleep(serving, FM__NS_PER_S) == 0);
        return 1;
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    seconds = luaL_checknumber(L, 2);
    for (i = 1; n < ENGINES_MOST && lua_rawgeti(L, 1, i) != LUA_TNIL; i++) {
        fm_engine *engine = fmL_check_engine(L, -1)->engine;
        int fd = engine != NULL ? fm_engine_fd(engine) : -1;

        if (fd >= 0)
            fds[n++] = fd;
        else
            seconds = seconds < 0.01 ? seconds : 0.01;
        lua_pop(L, 1);
    }
    seconds = seconds < 1 ? seconds : 1;
    lua_pushboolean(L, fm__serving_sleep_with(serving, fds, n,
                                              (int64_t)(seconds * 1e9)) == 0);
    return 1;
}

/* serve_answer(number, values…) -> boolean: the parent lives */
static int l_serve_answer(lua_State *L)
{
    uint64_t call = (uint64_t)luaL_checkinteger(L, 1);
    int n = lua_gettop(L);
    int status;

    luaL_checkstack(L, LUA_MINSTACK, NULL);
    lua_pushcfunction(L, put_values);
    lua_insert(L, 1);
    is_telling = true;
    status = lua_pcall(L, n, 1, 0);
    if (status == LUA_OK)
        return end_telling(L, (int)lua_tointeger(L, -1));
    return end_telling(L, fail_call(L, call, status, 0));
}

/* serve_fail(number, traceback, value) -> boolean */
static int l_serve_fail(lua_State *L)
{
    uint64_t call = (uint64_t)luaL_checkinteger(L, 1);

    lua_settop(L, 3);
    is_telling = true;
    return end_telling(L, fail_call(L, call, LUA_ERRRUN, 2));
}

/* serve_emit(number, value): an event of that call, 0: of none */
static int l_serve_emit(lua_State *L)
{
    static const char *const none[2] = {NULL, NULL};
    struct fm__serving *serving = check_serving(L);
    uint64_t call = (uint64_t)luaL_checkinteger(L, 1);
    int format;
    int rc;

    luaL_checkany(L, 2);
    lua_settop(L, 2);
    if (is_telling)
        return luaL_error(L, "fork_map: not from within a codec");
    rc = encode(L, serving, 2, 1, "value", &format);
    if (rc == 0)
        rc = tell(serving, call, FM__TELL_EVENT, format, none);
    if (rc == 0)
        return 0;
    drop_written(serving);
    if (rc == FM_EENCODE)
        return luaL_error(L, "fork_map: %s: %s", lua_tostring(L, -2),
                          lua_tostring(L, -1));
    return luaL_error(L, "fork_map: %s", fm_strerror(rc));
}

/* rss() -> bytes that this process has in memory */
static int l_rss(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)fm__proc_rss());
    return 1;
}

void fmL_open_serve(lua_State *L)
{
    static const luaL_Reg functions[] = {{"serve_begin", l_serve_begin},
                                         {"serve_retire", l_serve_retire},
                                         {"serve_take", l_serve_take},
                                         {"serve_sleep", l_serve_sleep},
                                         {"serve_answer", l_serve_answer},
                                         {"serve_fail", l_serve_fail},
                                         {"serve_emit", l_serve_emit},
                                         {"rss", l_rss},
                                         {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
