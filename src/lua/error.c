/* SPDX-License-Identifier: MIT */
/* fork_map.Error: what users see of an outcome that is no value. */
#include <string.h>
#include <lauxlib.h>
#include "lua/binding.h"
#include "lua/values.h"
#include "os/signals.h"

void fmL_push_text(lua_State *L, const char *text, size_t len)
{
    static const char gap[] = "\n...\n";
    size_t head = FML_TEXT_MAX / 2;
    size_t tail = FML_TEXT_MAX - head - (sizeof gap - 1);
    luaL_Buffer buffer;

    if (len <= FML_TEXT_MAX) {
        lua_pushlstring(L, text, len);
        return;
    }
    luaL_buffinit(L, &buffer);
    luaL_addlstring(&buffer, text, head);
    luaL_addlstring(&buffer, gap, sizeof gap - 1);
    luaL_addlstring(&buffer, text + len - tail, tail);
    luaL_pushresult(&buffer);
}

/* ---------------------------------------------------- fields of the table on
 * top */

static void set_string(lua_State *L, const char *field, const char *text)
{
    if (text == NULL)
        return;
    lua_pushstring(L, text);
    lua_setfield(L, -2, field);
}

static void set_integer(lua_State *L, const char *field, lua_Integer n)
{
    lua_pushinteger(L, n);
    lua_setfield(L, -2, field);
}

static void set_seconds(lua_State *L, const char *field, int64_t ns)
{
    lua_pushnumber(L, (lua_Number)ns * 1e-9);
    lua_setfield(L, -2, field);
}

void fmL_push_usage(lua_State *L, const struct fm_usage *usage)
{
    lua_createtable(L, 0, 4);
    set_seconds(L, "wall", usage->wall_ns);
    set_seconds(L, "user", usage->user_ns);
    set_seconds(L, "sys", usage->sys_ns);
    set_integer(L, "max_rss", (lua_Integer)usage->max_rss);
}

static void set_last(lua_State *L, const struct fm_last *last)
{
    if (!last->known)
        return;
    lua_createtable(L, 0, 3);
    if (last->where[0] != '\0')
        set_string(L, "line", last->where);
    set_seconds(L, "elapsed", last->elapsed_ns);
    set_integer(L, "max_rss", (lua_Integer)last->max_rss);
    lua_setfield(L, -2, "last");
}

void fmL_set_output(lua_State *L, const struct fm_captured output[2])
{
    static const char *const names[2] = {"stdout", "stderr"};
    uint64_t dropped;
    int i;

    if (output[0].data == NULL && output[1].data == NULL)
        return;
    for (i = 0; i < 2; i++) {
        const char *data = output[i].data != NULL ? output[i].data : "";

        lua_pushlstring(L, data, output[i].len);
        lua_setfield(L, -2, names[i]);
    }
    dropped = output[0].dropped + output[1].dropped;
    set_integer(L, "dropped", (lua_Integer)dropped);
}

/* The raised value, when it came whole.  A text is the message too, with all
 * its bytes: a C string ends at a zero. */
static void set_value(lua_State *L, const struct fm_outcome *outcome,
                      size_t budget)
{
    int top = lua_gettop(L);
    size_t len;
    const char *text;

    if (outcome->kind != FM_ERROR || outcome->len == 0)
        return;
    if (fmL_decode(L, outcome->format, NULL, outcome->data, outcome->len,
                   budget) != 1) {
        /* The error itself is beyond doubt; its value is not to be had. */
        lua_settop(L, top);
        return;
    }
    if (lua_type(L, -1) == LUA_TSTRING) {
        text = lua_tolstring(L, -1, &len);
        fmL_push_text(L, text, len);
        lua_setfield(L, -3, "message");
    }
    lua_setfield(L, -2, "value");
}

/* ------------------------------------------------------------------------------
 */

static void push_error(lua_State *L, enum fm_kind kind, const char *message)
{
    lua_createtable(L, 0, 12);
    set_string(L, "kind", fm_kind_name(kind));
    set_string(L, "message", message != NULL ? message : fm_kind_name(kind));
    luaL_setmetatable(L, FML_ERROR_MT);
}

void fmL_push_failure(lua_State *L, enum fm_kind kind, const char *message)
{
    push_error(L, kind, message);
}

int fmL_raise_code(lua_State *L, int rc)
{
    fmL_push_failure(L, rc == FM_ECLOSED ? FM_CLOSED : FM_SPAWN,
                     fm_strerror(rc));
    return lua_error(L);
}

int fmL_push_code(lua_State *L, int rc)
{
    lua_pushnil(L);
    lua_pushstring(L, fm_strerror(rc));
    lua_pushstring(L, fm_err_name(rc));
    return 3;
}

void fmL_push_outcome_error(lua_State *L, const struct fmL_engine *box,
                            const struct fm_outcome *outcome, size_t budget)
{
    const char *message = outcome->message;

    luaL_checkstack(L, LUA_MINSTACK, NULL);
    if (outcome->kind == FM_SPAWN && outcome->error_code == FML_EHOOK &&
        box->hook_error[0] != '\0')
        message = box->hook_error;
    push_error(L, outcome->kind, message);
    set_string(L, "traceback", outcome->traceback);
    set_string(L, "path", outcome->path);
    set_string(L, "limit", outcome->limit);
    set_string(L, "name", outcome->name);
    set_value(L, outcome, budget);
    if (outcome->signal != 0) {
        set_integer(L, "signal", outcome->signal);
        set_string(L, "signame", fm__signal_name(outcome->signal));
    }
    /* A child that told what happened leaves with 0, which says nothing. */
    if (outcome->exit_code > 0 ||
        (outcome->exit_code == 0 && outcome->kind == FM_NO_RESULT))
        set_integer(L, "exit_code", outcome->exit_code);
    if (outcome->attempt > 0)
        set_integer(L, "attempt", outcome->attempt);
    if (outcome->pid != 0) {
        set_integer(L, "pid", outcome->pid);
        fmL_push_usage(L, &outcome->usage);
        lua_setfield(L, -2, "usage");
    }
    set_last(L, &outcome->last);
    fmL_set_output(L, outcome->output);
}

void fmL_open_error(lua_State *L)
{
    (void)luaL_newmetatable(L, FML_ERROR_MT);
    lua_setfield(L, -2, "Error");
}
