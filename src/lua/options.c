/* SPDX-License-Identifier: MIT */
/*
 * The options of a job, converted once from the table that lua/fork_map/
 * options.lua has checked, so that a call has nothing left to look at.
 */
#include <limits.h>
#include <math.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/binding.h"

/* More seconds than this are as good as for ever. */
#define SECONDS_MAX 4e9

/* Bytes of a result when the host does not say. */
#define RESULT_DEFAULT ((uint64_t)256 << 20)

/* How much more memory than its bytes a decoded result may take. */
#define RESULT_FACTOR 8

struct fmL_options *fmL_check_options(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, FML_OPTIONS_MT);
}

size_t fmL_options_get_budget(const struct fmL_options *options)
{
    uint64_t limit = options->job.limits.result;

    if (limit == 0)
        limit = RESULT_DEFAULT;
    if (limit > SIZE_MAX / RESULT_FACTOR)
        limit = SIZE_MAX / RESULT_FACTOR;
    return (size_t)limit * RESULT_FACTOR;
}

/* ------------------------------------------------------- fields of the table
 */

/* Seconds in a field, as nanoseconds; at least 1 when it is above 0.  `absent`
 * when the field is nil. */
static int64_t get_seconds(lua_State *L, const char *field, int64_t absent)
{
    int64_t ns = absent;

    if (lua_getfield(L, 1, field) != LUA_TNIL) {
        double seconds = luaL_checknumber(L, -1);

        luaL_argcheck(L, seconds >= 0, 1, field);
        ns = seconds >= SECONDS_MAX ? (int64_t)(SECONDS_MAX * 1e9)
                                    : (int64_t)ceil(seconds * 1e9);
    }
    lua_pop(L, 1);
    return ns;
}

/* A whole number not below 0; sets `*ret_has`, if there is one, when the field
 * is not nil. */
static uint64_t get_count(lua_State *L, const char *field, bool *ret_has)
{
    bool has = lua_getfield(L, 1, field) != LUA_TNIL;
    lua_Integer n = has ? luaL_checkinteger(L, -1) : 0;

    luaL_argcheck(L, n >= 0, 1, field);
    lua_pop(L, 1);
    if (ret_has != NULL)
        *ret_has = has;
    return (uint64_t)n;
}

static unsigned get_unsigned(lua_State *L, const char *field, bool *ret_has)
{
    uint64_t n = get_count(L, field, ret_has);

    return n > UINT_MAX ? UINT_MAX : (unsigned)n;
}

static void get_limits(lua_State *L, struct fm_limits *limits)
{
    limits->memory = get_count(L, "memory", NULL);
    limits->cpu_ns = (uint64_t)get_seconds(L, "cpu", 0);
    limits->file_size = get_count(L, "file_size", &limits->has_file_size);
    limits->result = get_count(L, "result", NULL);
    limits->files = get_unsigned(L, "files", &limits->has_files);
    limits->processes = get_unsigned(L, "processes", &limits->has_processes);
}

/* The bit of the kind that is called `name`. */
static unsigned kind_bit(lua_State *L, const char *name)
{
    int kind;

    for (kind = FM_ERROR; kind < FM_KIND_COUNT; kind++) {
        if (strcmp(name, fm_kind_name((enum fm_kind)kind)) == 0)
            return FM_KIND_BIT(kind);
    }
    return (unsigned)luaL_argerror(L, 1, "retry_on");
}

static unsigned get_kinds(lua_State *L)
{
    unsigned kinds = 0;

    if (lua_getfield(L, 1, "retry_on") != LUA_TNIL) {
        lua_Unsigned n = lua_rawlen(L, -1);
        lua_Unsigned i;

        for (i = 1; i <= n; i++) {
            lua_rawgeti(L, -1, (lua_Integer)i);
            kinds |= kind_bit(L, luaL_checkstring(L, -1));
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    return kinds;
}

/* ----------------------------------------------- fields that have to be kept
 */

/* The options userdata is on the top of the stack in what follows. */

static void keep_name(lua_State *L, struct fm_job_opts *job)
{
    if (lua_getfield(L, 1, "name") != LUA_TNIL)
        job->name = luaL_checkstring(L, -1);
    lua_setiuservalue(L, -2, FML_OPTIONS_NAME);
}

/* Stands for the one that a call brings along; see call.c. */
static void no_line(int stream, const char *line, size_t len, void *ud)
{
    (void)stream;
    (void)line;
    (void)len;
    (void)ud;
}

static void keep_output(lua_State *L, struct fm_job_opts *job)
{
    static const char *const names[] = {"inherit", "capture", "discard", NULL};
    static const enum fm_output outputs[] = {
        FM_OUTPUT_INHERIT, FM_OUTPUT_CAPTURE, FM_OUTPUT_DISCARD};

    if (lua_getfield(L, 1, "output") == LUA_TFUNCTION)
        job->output = FM_OUTPUT_LINES;
    else
        job->output = outputs[luaL_checkoption(L, -1, "inherit", names)];
    job->on_line = no_line;
    lua_setiuservalue(L, -2, FML_OPTIONS_HANDLER);
}

static void keep_fds(lua_State *L, struct fm_job_opts *job)
{
    size_t n;
    size_t i;
    int *fds;

    if (lua_getfield(L, 1, "keep_fds") == LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    luaL_checktype(L, -1, LUA_TTABLE);
    n = (size_t)lua_rawlen(L, -1);
    fds = lua_newuserdatauv(L, n * sizeof *fds + 1, 0);
    for (i = 0; i < n; i++) {
        lua_rawgeti(L, -2, (lua_Integer)i + 1);
        fds[i] = (int)luaL_checkinteger(L, -1);
        lua_pop(L, 1);
    }
    lua_setiuservalue(L, -3, FML_OPTIONS_FDS);
    lua_pop(L, 1);
    job->keep_fds = fds;
    job->n_keep_fds = n;
    job->has_keep_fds = true;
}

static void get_seed(lua_State *L, struct fm_job_opts *job)
{
    job->has_seed = lua_getfield(L, 1, "seed") != LUA_TNIL;
    if (job->has_seed)
        job->seed = (uint64_t)luaL_checkinteger(L, -1);
    lua_pop(L, 1);
}

static int get_nice(lua_State *L)
{
    int nice;

    lua_getfield(L, 1, "nice");
    nice = (int)luaL_optinteger(L, -1, 0);
    lua_pop(L, 1);
    return nice;
}

/* options(table) -> options */
static int l_options(lua_State *L)
{
    struct fmL_options *options;
    struct fm_job_opts *job;
    int64_t grace;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    options = lua_newuserdatauv(L, sizeof *options, 3);
    memset(&options->job, 0, sizeof options->job);
    options->codec = (struct fmL_codec)FML_CODEC_INIT;
    luaL_setmetatable(L, FML_OPTIONS_MT);
    job = &options->job;

    job->timeout_ns = get_seconds(L, "timeout", 0);
    grace = get_seconds(L, "grace", 0);
    /* Zero stands for the default in the C options, negative for none. */
    lua_getfield(L, 1, "grace");
    job->grace_ns = grace == 0 && !lua_isnil(L, -1) ? -1 : grace;
    lua_pop(L, 1);
    job->retries = get_unsigned(L, "retries", NULL);
    job->retry_on = get_kinds(L);
    job->backoff_ns = get_seconds(L, "backoff", 0);
    get_limits(L, &job->limits);
    get_seed(L, job);
    job->nice = get_nice(L);
    keep_name(L, job);
    keep_output(L, job);
    keep_fds(L, job);
    lua_getfield(L, 1, "codec");
    fmL_check_codec(L, 3, &options->codec);
    lua_settop(L, 2);
    if (fm_job_opts_error(job) != NULL)
        return luaL_error(L, "option \"%s\" is out of range",
                          fm_job_opts_error(job));
    return 1;
}

static int options_gc(lua_State *L)
{
    struct fmL_options *options = fmL_check_options(L, 1);

    fmL_release_codec(L, &options->codec);
    return 0;
}

void fmL_open_options(lua_State *L)
{
    luaL_newmetatable(L, FML_OPTIONS_MT);
    lua_pushcfunction(L, options_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    lua_pushcfunction(L, l_options);
    lua_setfield(L, -2, "options");
}
