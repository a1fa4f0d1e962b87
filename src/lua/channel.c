/* SPDX-License-Identifier: MIT */
/*
 * What channels need of the layers below: links as userdata, and descriptors as
 * Lua has them.  Waiting is the Lua half's.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/binding.h"
#include "os/fds.h"
#include "os/sys.h"
#include "process/link.h"

#define LINK_MT "fork_map.core.link"
#define HELD_MT "fork_map.core.held"

/* The string whose bytes are on their way. */
enum { LINK_OUT = 1 };

/* ------------------------------------------------------------------- links */

static struct fm__link *new_link(lua_State *L)
{
    struct fm__link *link = lua_newuserdatauv(L, sizeof *link, 1);

    memset(link, 0, sizeof *link);
    link->read_fd = -1;
    link->write_fd = -1;
    link->got_fd = -1;
    luaL_setmetatable(L, LINK_MT);
    return link;
}

/* The link at 1; raises in a process that did not make it. */
static struct fm__link *check_link(lua_State *L)
{
    struct fm__link *link = luaL_checkudata(L, 1, LINK_MT);

    if (link->read_fd >= 0 && link->generation != fm__fds_generation()) {
        fmL_push_failure(L, FM_CLOSED, "it belongs to the parent process");
        (void)lua_error(L);
    }
    return link;
}

/* nil, message, NAME of a link that was closed. */
static int push_closed(lua_State *L)
{
    lua_pushnil(L);
    lua_pushliteral(L, "the channel is closed");
    lua_pushliteral(L, "ECLOSED");
    return 3;
}

/* The same of one whose other end has gone. */
static int push_end(lua_State *L)
{
    lua_pushnil(L);
    lua_pushliteral(L, "end of file");
    lua_pushliteral(L, "EOF");
    return 3;
}

static int push_code(lua_State *L, int rc)
{
    lua_pushnil(L);
    switch (rc) {
    case FM_EPROTOCOL:
        lua_pushliteral(L, "what came is not of a channel, or was cut short");
        lua_pushliteral(L, "EPROTOCOL");
        return 3;
    case FM_ELIMIT:
        lua_pushliteral(L, "a value of more than 256M");
        lua_pushliteral(L, "ELIMIT");
        return 3;
    default:
        return fmL_push_code(L, rc);
    }
}

static int check_fd(lua_State *L, int idx)
{
    lua_Integer fd = luaL_checkinteger(L, idx);

    luaL_argcheck(L, fd >= 0 && fd <= INT_MAX, idx, "not a descriptor");
    return (int)fd;
}

/* link(read_fd, write_fd) -> link, which takes them over | nil, message, NAME
 */
static int l_link(lua_State *L)
{
    int read_fd = check_fd(L, 1), write_fd = check_fd(L, 2);
    int rc = fm__link_open(new_link(L), read_fd, write_fd);

    return rc < 0 ? push_code(L, rc) : 1;
}

/* link_pair() -> link, fd: the other end, an ordinary descriptor of the
 * caller's | nil, message, NAME */
static int l_link_pair(lua_State *L)
{
    struct fm__link *link = new_link(L);
    int fd, rc = fm__link_pair(link, &fd);

    if (rc < 0)
        return push_code(L, rc);
    lua_pushinteger(L, fd);
    return 2;
}

/* link_fds(link) -> read_fd, write_fd; nothing when it is closed */
static int l_link_fds(lua_State *L)
{
    const struct fm__link *link = check_link(L);

    if (link->read_fd < 0)
        return 0;
    lua_pushinteger(L, link->read_fd);
    lua_pushinteger(L, link->write_fd);
    return 2;
}

/* "sent", "begun" when some of it went, "again" when nothing did; or nil,
 * message, NAME.  The string on its way is kept only for "begun". */
static int push_sent(lua_State *L, int rc)
{
    if (rc != 0) {
        lua_pushnil(L);
        lua_setiuservalue(L, 1, LINK_OUT);
    }
    if (rc < 0 && rc != -EAGAIN)
        return push_code(L, rc);
    lua_pushstring(L, rc == 1 ? "sent" : rc == 0 ? "begun" : "again");
    return 1;
}

/* Is the way free for another frame?  1, -EAGAIN or another code. */
static int make_way(lua_State *L, struct fm__link *link)
{
    int rc = fm__link_flush(link);

    if (rc == 1) {
        lua_pushnil(L);
        lua_setiuservalue(L, 1, LINK_OUT);
    }
    return rc;
}

/* What there is to say of a flush that did not make way. */
static int push_no_way(lua_State *L, int rc)
{
    if (rc != -EAGAIN)
        return push_code(L, rc);
    lua_pushliteral(L, "again");
    return 1;
}

/* link_send(link, data, format) -> "sent" | "begun" | "again" | nil, message,
 * NAME */
static int l_link_send(lua_State *L)
{
    struct fm__link *link = check_link(L);
    lua_Integer format = luaL_checkinteger(L, 3);
    const char *data;
    size_t len;
    int rc;

    luaL_checktype(L, 2, LUA_TSTRING);
    data = lua_tolstring(L, 2, &len);
    if (link->read_fd < 0)
        return push_closed(L);
    rc = make_way(L, link);
    if (rc != 1)
        return push_no_way(L, rc);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, 1, LINK_OUT);
    return push_sent(L,
                     fm__link_send(link, (unsigned)format & 0xff, data, len));
}

/* link_flush(link) -> true when nothing is on its way any more, else false |
 * nil, message, NAME */
static int l_link_flush(lua_State *L)
{
    struct fm__link *link = check_link(L);
    int rc;

    if (link->read_fd < 0)
        return push_closed(L);
    rc = make_way(L, link);
    if (rc < 0 && rc != -EAGAIN)
        return push_code(L, rc);
    lua_pushboolean(L, rc == 1);
    return 1;
}

/* nil, message, NAME of a reading that gave nothing; false for later. */
static int push_unread(lua_State *L, int rc)
{
    if (rc == 0)
        return push_end(L);
    if (rc != -EAGAIN)
        return push_code(L, rc);
    lua_pushboolean(L, 0);
    return 1;
}

/* link_recv(link) -> data, format | false | nil, message, NAME */
static int l_link_recv(lua_State *L)
{
    struct fm__link *link = check_link(L);
    int rc;

    if (link->read_fd < 0)
        return push_closed(L);
    rc = fm__link_recv(link);
    if (rc != 1)
        return push_unread(L, rc);
    lua_pushlstring(L, (const char *)link->in.body.data, link->in.body.len);
    lua_pushinteger(L, link->in.head.format);
    fm__stream_next(&link->in);
    return 2;
}

/* link_recv_fd(link) -> fd | false | nil, message, NAME */
static int l_link_recv_fd(lua_State *L)
{
    struct fm__link *link = check_link(L);
    int rc, fd;

    if (link->read_fd < 0)
        return push_closed(L);
    rc = fm__link_recv_fd(link, &fd);
    if (rc != 1)
        return push_unread(L, rc);
    lua_pushinteger(L, fd);
    return 1;
}

/* link_heard(link) -> text: what came that is no frame, or is not yet one, and
 * some of what comes after it; of one that is of no more use */
static int l_link_heard(lua_State *L)
{
    const struct fm__link *link = check_link(L);
    char more[256];
    ssize_t n = -1;

    if (link->read_fd >= 0)
        n = fm__sys.read(link->read_fd, more, sizeof more);
    lua_pushlstring(L, (const char *)link->in.raw, link->in.n_raw);
    lua_pushlstring(L, more, n > 0 ? (size_t)n : 0);
    lua_concat(L, 2);
    return 1;
}

/* link_close(link): also __gc */
static int l_link_close(lua_State *L)
{
    struct fm__link *link = luaL_checkudata(L, 1, LINK_MT);

    fm__link_close(link);
    lua_pushnil(L);
    lua_setiuservalue(L, 1, LINK_OUT);
    return 0;
}

/* -------------------------------------------------------------- descriptors */

/* A copy of a descriptor until it has been sent. */
struct held {
    int fd;
    unsigned generation;
};

/* hold_fd(fd) -> held | nil, message, NAME */
static int l_hold_fd(lua_State *L)
{
    int fd = check_fd(L, 1);
    struct held *held = lua_newuserdatauv(L, sizeof *held, 0);

    held->fd = -1;
    held->generation = fm__fds_generation();
    luaL_setmetatable(L, HELD_MT);
    fd = fm__fd_copy(fd, FM__FD_LOWEST);
    if (fd >= 0)
        fd = fm__fd_adopt(fd);
    if (fd < 0)
        return push_code(L, fd);
    held->fd = fd;
    return 1;
}

static int held_close(lua_State *L)
{
    struct held *held = luaL_checkudata(L, 1, HELD_MT);

    if (held->generation == fm__fds_generation())
        fm__fd_close(&held->fd);
    held->fd = -1;
    return 0;
}

/* link_send_fd(link, held) -> as link_send() */
static int l_link_send_fd(lua_State *L)
{
    struct fm__link *link = check_link(L);
    const struct held *held = luaL_checkudata(L, 2, HELD_MT);
    int rc;

    if (link->read_fd < 0)
        return push_closed(L);
    rc = make_way(L, link);
    if (rc != 1)
        return push_no_way(L, rc);
    return push_sent(L, fm__link_send_fd(link, held->fd));
}

/* copy_fd(fd) -> fd: an ordinary, close-on-exec one | nil, message, NAME */
static int l_copy_fd(lua_State *L)
{
    int fd = fm__fd_copy(check_fd(L, 1), 3);

    if (fd < 0)
        return push_code(L, fd);
    lua_pushinteger(L, fd);
    return 1;
}

/* close_fd(fd): one that is the caller's */
static int l_close_fd(lua_State *L)
{
    (void)fm__sys.close(check_fd(L, 1));
    return 0;
}

/* fileno(file) -> fd */
static int l_fileno(lua_State *L)
{
    const luaL_Stream *stream = luaL_checkudata(L, 1, LUA_FILEHANDLE);

    luaL_argcheck(L, stream->closef != NULL, 1, "attempt to use a closed file");
    lua_pushinteger(L, fileno(stream->f));
    return 1;
}

static int close_file(lua_State *L)
{
    const luaL_Stream *stream = luaL_checkudata(L, 1, LUA_FILEHANDLE);

    return luaL_fileresult(L, fclose(stream->f) == 0, NULL);
}

/* file(fd, mode) -> Lua file, which closes it | nil, message, NAME */
static int l_file(lua_State *L)
{
    int fd = check_fd(L, 1);
    const char *mode = luaL_checkstring(L, 2);
    luaL_Stream *stream;

    luaL_argcheck(L, luaL_getmetatable(L, LUA_FILEHANDLE) == LUA_TTABLE, 1,
                  "the library io is not loaded");
    stream = lua_newuserdatauv(L, sizeof *stream, 0);
    stream->closef = NULL; /* a closed file, until it is open */
    luaL_setmetatable(L, LUA_FILEHANDLE);
    stream->f = fdopen(fd, mode);
    if (stream->f == NULL)
        return push_code(L, -errno);
    stream->closef = close_file;
    return 1;
}

void fmL_open_channel(lua_State *L)
{
    static const luaL_Reg functions[] = {{"link", l_link},
                                         {"link_pair", l_link_pair},
                                         {"link_fds", l_link_fds},
                                         {"link_send", l_link_send},
                                         {"link_send_fd", l_link_send_fd},
                                         {"link_flush", l_link_flush},
                                         {"link_recv", l_link_recv},
                                         {"link_recv_fd", l_link_recv_fd},
                                         {"link_heard", l_link_heard},
                                         {"link_close", l_link_close},
                                         {"hold_fd", l_hold_fd},
                                         {"copy_fd", l_copy_fd},
                                         {"close_fd", l_close_fd},
                                         {"fileno", l_fileno},
                                         {"file", l_file},
                                         {NULL, NULL}};

    luaL_newmetatable(L, LINK_MT);
    lua_pushcfunction(L, l_link_close);
    lua_setfield(L, -2, "__gc");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    luaL_newmetatable(L, HELD_MT);
    lua_pushcfunction(L, held_close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, held_close);
    lua_setfield(L, -2, "__close");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
