/* SPDX-License-Identifier: MIT */
/* How a closure leaves its child. */
#include "lua/leave.h"

#include <stdlib.h>
#include <lauxlib.h>
#include "lua/job.h"

/* The exit code that os.exit's first argument, at `idx`, stands for. */
static int exit_code(lua_State *L, int idx)
{
    if (lua_isboolean(L, idx))
        return lua_toboolean(L, idx) ? EXIT_SUCCESS : EXIT_FAILURE;
    return (int)luaL_optinteger(L, idx, EXIT_SUCCESS);
}

/* os.exit([code [, close]]).  A process that the closure forked by other means
 * is no child of ours: it gets the original. */
static int l_exit(lua_State *L)
{
    fm_child *child = fm_child_current();
    int n = lua_gettop(L);

    if (child != NULL)
        fm_child_exit(child, exit_code(L, 1));
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, n, LUA_MULTRET);
    return lua_gettop(L);
}

/* ------------------------------------------------- copies of the original exit
 */

/* Push the thread that the C function at level 0 of `L` resumes: its first
 * argument (coroutine.resume) or upvalue (coroutine.wrap).  NULL when `L` is
 * not inside a resume. */
static lua_State *resumed_by(lua_State *L, lua_Debug *ar)
{
    lua_State *co = NULL;

    if (lua_getlocal(L, ar, 1) != NULL) {
        co = lua_tothread(L, -1);
        lua_pop(L, 1);
    }
    if (co != NULL)
        return co;
    lua_getinfo(L, "f", ar);
    if (lua_getupvalue(L, -1, 1) != NULL) {
        co = lua_tothread(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return co;
}

/* The code that the running os.exit was given.  It is the C function at the
 * top of the thread that runs, which is found by following the resumes from
 * the job's thread.  EXIT_SUCCESS when it cannot be told. */
static int running_exit_code(lua_State *L)
{
    lua_Debug ar;
    int code;

    while (lua_getstack(L, 0, &ar) && lua_checkstack(L, LUA_MINSTACK)) {
        lua_State *co = resumed_by(L, &ar);

        if (co != NULL && co != L) {
            L = co;
            continue;
        }
        if (lua_getlocal(L, &ar, 1) == NULL)
            return EXIT_SUCCESS;
        if (lua_isboolean(L, -1))
            code = lua_toboolean(L, -1) ? EXIT_SUCCESS : EXIT_FAILURE;
        else
            code = (int)lua_tointeger(L, -1);
        lua_pop(L, 1);
        return code;
    }
    return EXIT_SUCCESS;
}

/* lua_close() has begun in this process, by os.exit(code, true). */
void fmL_leave_closing(lua_State *L)
{
    fm_child *child = fm_child_current();
    const struct fmL_job *job = fmL_get_job(L);

    if (child != NULL && job != NULL)
        fm_child_exit(child, running_exit_code(job->thread));
}

/* The __close of the guard. */
static int l_guard_close(lua_State *L)
{
    fmL_leave_closing(L);
    return 0;
}

void fmL_open_leave(lua_State *L)
{
    (void)fmL_push_kept(L, FML_KEPT_OS);
    if (lua_istable(L, -1))
        lua_getfield(L, -1, "exit");
    else
        lua_pushnil(L);
    lua_pushcclosure(L, l_exit, 1);
    fmL_keep(L, FML_KEPT_EXIT);
    lua_pop(L, 1);
    lua_pushliteral(L, "exit");
    fmL_keep(L, FML_KEPT_NAME_EXIT);

    lua_createtable(L, 0, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, l_guard_close);
    lua_setfield(L, -2, "__close");
    lua_setmetatable(L, -2);
    fmL_keep(L, FML_KEPT_GUARD);
}

lua_State *fmL_main_thread(lua_State *L)
{
    lua_State *main_thread;

    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    main_thread = lua_tothread(L, -1);
    lua_pop(L, 1);
    return main_thread;
}

/* What is to be closed belongs to a stack, and lua_close() closes the main
 * thread's, from its top.  That thread is waiting in this very call or below a
 * coroutine; nothing of it will ever run again in this process. */
void fmL_leave_guard(lua_State *L, const lua_State *closing)
{
    lua_State *main_thread = fmL_main_thread(L);

    fmL_replace(L, FML_KEPT_OS, FML_KEPT_NAME_EXIT, FML_KEPT_EXIT);
    if (closing == main_thread || !lua_checkstack(main_thread, LUA_MINSTACK))
        return;
    (void)fmL_push_kept(L, FML_KEPT_GUARD);
    lua_xmove(L, main_thread, 1);
    lua_toclose(main_thread, -1);
}
