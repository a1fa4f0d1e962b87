/* SPDX-License-Identifier: MIT */
/*
 * What the files of the binding share.  Three nouns:
 *
 *   fmL_engine   userdata around an fm_engine
 *   fmL_options  userdata around the options of a job, checked and converted
 *                once, used by any number of calls
 *   fmL_future   userdata around an fm_future: the handle of one call
 *
 * and one that users never see:
 *
 *   fmL_call     what a job needs to run: a thread with the function and its
 *                arguments on its stack.  Kept by its engine and used again.
 *
 * Every function here runs with a lua_State of the engine's own Lua state.
 * Callbacks of the engine have none of their own: they use the state that
 * entered the engine (fmL_engine.L), and protect themselves.
 */
#ifndef FM_LUA_BINDING_H
#define FM_LUA_BINDING_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <lua.h>
#include <lauxlib.h>
#include "engine/bind.h"
#include "lua/codec.h"

#define FML_ENGINE_MT "fork_map.core.engine"
#define FML_OPTIONS_MT "fork_map.core.options"
#define FML_FUTURE_MT "fork_map.core.future"
#define FML_ERROR_MT "fork_map.Error"

/* Texts of errors longer than this are cut in the middle. */
#define FML_TEXT_MAX ((size_t)64 << 10)

struct fmL_job;
struct fmL_options;
struct fmL_engine;

/*
 * One call in the parent: what holds its function and its arguments.
 *
 * A record is idle, or belongs to one job from fmL_call_start() until the
 * job's future has settled.  Nothing ever runs on its thread here: it only
 * keeps the values, so that every attempt finds them there.  The child runs
 * the job on its copy of that thread.
 */
struct fmL_call {
    struct fmL_engine *engine;
    struct fmL_call *prev, *next; /* in fmL_engine.calls */
    struct fmL_call *next_idle;   /* in fmL_engine.idle */
    struct fmL_future *listener;  /* which the loop settles, or NULL */
    bool is_duplex;               /* it is given calls while it runs */
    lua_State *thread;            /* holds the function and its arguments */
    const struct fmL_options *options;
    const struct fmL_map *map; /* whose item it is, or NULL, */
    const fm_worker *place;    /* and in which worker */
    char home[LUA_IDSIZE];     /* where the function is defined: source, */
    int home_line;             /* line */
};

/* What the loop is told of: a place in a list of its engine, which keeps a
 * table of the Lua half, its cell, under the address of this. */
struct fmL_told {
    struct fmL_told *next;
    bool is_listed;
    bool stays; /* it may be told of again: its cell is kept */
};

struct fmL_engine {
    fm_engine *engine;      /* NULL before it was made and after __gc */
    lua_State *L;           /* who entered the engine; NULL outside */
    lua_State *closing;     /* whose newest to-be-closed variable is a future of
                               this engine, while it is in the engine */
    struct fmL_call *calls; /* all that were ever made */
    struct fmL_call *idle;  /* those in no use, linked by next_idle */
    unsigned n_idle;
    struct fmL_told *told, *last_told; /* for the loop to take */
    struct fmL_call first; /* beside what every call writes anyway */
    enum fm_on_threads threads;
    char hook_error[256]; /* why the last at_fork hook gave up a fork */
};

struct fmL_options {
    struct fm_job_opts job; /* points into this userdata's own values */
    struct fmL_codec codec;
};

struct fmL_future {
    fm_future *future; /* NULL before the start and when closed */
    struct fmL_engine *engine;
    bool is_local;        /* held in a to-be-closed variable of who waits */
    bool is_heard;        /* a message of it is being decoded */
    struct fmL_told told; /* when it has settled, or something to hear */
};

/* user values */
enum { FML_OPTIONS_NAME = 1, FML_OPTIONS_FDS, FML_OPTIONS_HANDLER };
enum {
    FML_ENGINE_SPARE = 1, /* a local future in no use */
    FML_ENGINE_LIVE,      /* address of a struct fmL_told -> its cell */
    FML_ENGINE_VALUES = FML_ENGINE_LIVE
};
enum { FML_FUTURE_ENGINE = 1, FML_FUTURE_OPTIONS, FML_FUTURE_BYTES };
enum { FML_CALL_THREAD = 1, FML_CALL_OPTIONS };

/* What the module keeps of the Lua state it was loaded into, and what it needs
 * in a child: slots of one table in the registry that never grows, so that a
 * child writes to few pages. */
enum fmL_kept {
    FML_KEPT_OS = 1,     /* the table that `os` was when it was loaded */
    FML_KEPT_COROUTINE,  /* the table `coroutine` */
    FML_KEPT_RANDOMSEED, /* math.randomseed */
    FML_KEPT_EXIT,       /* what these functions are in a child, */
    FML_KEPT_RESUME,
    FML_KEPT_WRAP,
    FML_KEPT_NAME_EXIT, /* and their names */
    FML_KEPT_NAME_RESUME,
    FML_KEPT_NAME_WRAP,
    FML_KEPT_GUARD,  /* see leave.c */
    FML_KEPT_BEFORE, /* lists of functions: at_fork hooks */
    FML_KEPT_PARENT,
    FML_KEPT_CHILD,
    FML_KEPT_TRACEBACK, /* of the error that ended the job */
    FML_KEPT_BELOW_MAP, /* true in a worker of a map and below it */
    FML_KEPT_CANCEL,    /* list of functions: what on_cancel() was given */
    FML_KEPT_COUNT = FML_KEPT_CANCEL
};

/* module.c */

/* Push what is kept under `key`; returns its type.  [-0, +1, -] */
int fmL_push_kept(lua_State *L, enum fmL_kept key);

/* Keep the value on the top of the stack.  [-1, +0, -] */
void fmL_keep(lua_State *L, enum fmL_kept key);

/* In the table `library` put `fn` at `name`; all three are kept.  Writes one
 * slot of that table and makes no object.  [-0, +0, m] */
void fmL_replace(lua_State *L, enum fmL_kept library, enum fmL_kept name,
                 enum fmL_kept fn);

/* True inside a __gc metamethod, where nothing must be started: the child
 * would have no collector.  [-0, +0, -] */
bool fmL_in_finalizer(lua_State *L);

/* Each fmL_open_… adds its functions to the table on top of the stack and
 * makes its metatables.  [-0, +0, m] */

/* engine.c */

struct fmL_engine *fmL_check_engine(lua_State *L, int idx);

/* Enter and leave the engine: between them its callbacks use `L`.  Returns
 * what has to be given to fmL_leave().  [-0, +0, m] */
lua_State *fmL_enter(lua_State *L, struct fmL_engine *box);
void fmL_leave(struct fmL_engine *box, lua_State *previous);

/* Push the table {on_warning =, on_unhandled =} of an engine.  [-0, +1, -] */
void fmL_push_callbacks(lua_State *L, struct fmL_engine *box);

/* Give the error on top of the stack to on_unhandled, or warn.  Never raises.
 * [-1, +0, -] */
void fmL_unhandled(lua_State *L, struct fmL_engine *box, const char *why);

/* Call the function on the stack below its `nargs` arguments; what it raises
 * is given to on_unhandled.  [-(nargs + 1), +0, -] */
void fmL_callback(lua_State *L, struct fmL_engine *box, int nargs);

void fmL_open_engine(lua_State *L);

/* options.c */

struct fmL_options *fmL_check_options(lua_State *L, int idx);
/* How much memory the values of a call or of an item, returned or raised, may
 * take. */
size_t fmL_options_get_budget(const struct fmL_options *options);
void fmL_open_options(lua_State *L);

/* call.c */

/* An idle call record of `box`, made if there is none, anchored in the
 * registry for the life of the engine.  [-0, +0, m] */
struct fmL_call *fmL_call_take(lua_State *L, struct fmL_engine *box);

/* Let go of all of them; for the end of an engine.  [-0, +0, -] */
void fmL_call_free_all(lua_State *L, struct fmL_engine *box);

/* Start the call that is on the stack: options at `options`, the function at
 * `first`, its arguments above up to the top, which all are taken.  The
 * engine has been entered.  `listener`, when it is not NULL, goes to the list
 * of those that have settled.  Returns as fm_spawn().  [-n, +0, m] */
int fmL_call_start(lua_State *L, struct fmL_call *call, int options, int first,
                   struct fmL_future *listener, fm_future **ret_future);

/* The same for a process forked off a template, where the errand is run; the
 * future is `listener`'s.  [-0, +0, m] */
int fmL_call_send(lua_State *L, struct fmL_call *call, int options,
                  fm_template *template, const struct fm__errand *errand,
                  struct fmL_future *listener);

/* Make the record that of a snapshot, which runs the function on the top of the
 * stack, without arguments, by fmL_run_job(): its options are in `*ret_job`,
 * whose ud_free lets go of the record.  0 or -ENOMEM.  [-1, +0, m] */
int fmL_call_snapshot(lua_State *L, struct fmL_call *call, int options,
                      struct fm_job_opts *ret_job);
void fmL_call_retire(struct fmL_call *call);

/* job.c: the job function; `ud` is a struct fmL_call */
int fmL_run_job(fm_child *child, void *ud);

/* future.c */

/* One that was started and not closed; raises for all else. */
struct fmL_future *fmL_check_future(lua_State *L, int idx);

/* The outcome of one that has settled too. */
const struct fm_outcome *fmL_check_outcome(lua_State *L, int idx);

/* Push a future of the engine at `engine` with the options at `options`, not
 * started.  [-0, +1, m] */
struct fmL_future *fmL_future_push(lua_State *L, int engine, int options);

/* Push the values of an outcome, or its fork_map.Error; returns how many
 * values, or -1.  [-0, +n, m] */
int fmL_push_outcome(lua_State *L, const struct fmL_engine *box,
                     const struct fmL_options *options,
                     const struct fm_outcome *outcome);

void fmL_open_future(lua_State *L);

/* spawn.c: futures that a loop settles */

/* Push the table of cells of the engine at `engine`.  [-0, +1, m] */
void fmL_push_live(lua_State *L, int engine);

/* The loop takes the cell of this in its next turn. */
void fmL_tell(struct fmL_engine *box, struct fmL_told *told);

void fmL_open_spawn(lua_State *L);

/* channel.c: links, and descriptors as Lua has them */

void fmL_open_channel(lua_State *L);

/* pool.c: workers of pools, in the host */

void fmL_open_pool(lua_State *L);

/* serve.c: the same in their processes */

void fmL_open_serve(lua_State *L);

/* wait_fd.c: waiting for one descriptor */

void fmL_open_wait_fd(lua_State *L);

/* error.c */

/* Push a fork_map.Error of this kind and text.  [-0, +1, m] */
void fmL_push_failure(lua_State *L, enum fm_kind kind, const char *message);

/* Raise the fork_map.Error of a negative code of the engine.  [-0, +0, v] */
int fmL_raise_code(lua_State *L, int rc);

/* Push nil, the text and the name of a negative code; returns 3.
 * [-0, +3, m] */
int fmL_push_code(lua_State *L, int rc);

/* Push the fork_map.Error of a failed outcome, with a raised value of at most
 * `budget` bytes of memory.  [-0, +1, m] */
void fmL_push_outcome_error(lua_State *L, const struct fmL_engine *box,
                            const struct fm_outcome *outcome, size_t budget);

/* Push the table of what a child used.  [-0, +1, m] */
void fmL_push_usage(lua_State *L, const struct fm_usage *usage);

/* Set what a child printed, if that was captured, as fields of the table on top
 * of the stack.  [-0, +0, m] */
void fmL_set_output(lua_State *L, const struct fm_captured output[2]);

/* Push the text at most FML_TEXT_MAX bytes long: the beginning and the end of
 * a longer one.  [-0, +1, m] */
void fmL_push_text(lua_State *L, const char *text, size_t len);

void fmL_open_error(lua_State *L);

/* host.c */

void fmL_open_host(lua_State *L);

/* cancel.c */

/* Set in signal context when the child was asked to stop and has something to
 * do then: who changes hooks or the running coroutine calls fmL_cancel_look()
 * afterwards, as the signal's own hook may have been lost. */
void fmL_cancel_look(lua_State *L);

void fmL_open_cancel(lua_State *L);

/* inline.c */

void fmL_open_inline(lua_State *L);

/* template.c: templates of this host */

void fmL_open_template(lua_State *L);

/* server.c: the inside of a template */

void fmL_open_server(lua_State *L);

/* hooks.c */

/* The code by which a `before` hook gives up a fork. */
#define FML_EHOOK (-ECANCELED)

/* Make `engine`, that of `box` or one of a worker, run the at_fork hooks of
 * this Lua state.  Returns 0 or a negative code. */
int fmL_hooks_attach(struct fmL_engine *box, fm_engine *engine);

/* In a child: run the `child` hooks.  [-0, +0, e] */
void fmL_hooks_run_child(lua_State *L);

void fmL_open_hooks(lua_State *L);

#endif
