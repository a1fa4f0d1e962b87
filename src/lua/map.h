/* SPDX-License-Identifier: MIT */
/*
 * A map of Lua items: the userdata around an fm_map in the parent, and what its
 * workers need of it.
 *
 * The parent's side stores what comes into tables that are user values of the
 * userdata; blocking verbs loop in Lua around core.map_step() and look there.
 */
#ifndef FM_LUA_MAP_H
#define FM_LUA_MAP_H

#include <stdbool.h>
#include <lua.h>
#include "lua/binding.h"
#include "process/worker.h"
#include "wire/buffer.h"

#define FML_MAP_MT "fork_map.core.map"

/* Format of a record that is the bytes of one string; see engine/bind.h. */
#define FML_FORMAT_STRING 5

/* What of an item's result crosses. */
enum fmL_want { FML_WANT_VALUE, FML_WANT_TRUTH, FML_WANT_NOTHING };

/* user values */
enum {
    FML_MAP_ENGINE = 1,
    FML_MAP_OPTIONS,
    FML_MAP_THREAD,
    FML_MAP_RESULTS, /* index -> value */
    FML_MAP_ERRORS,  /* index -> fork_map.Error */
    FML_MAP_LOG,     /* indices as they settle; nil: nobody asks */
    FML_MAP_EVENTS,  /* index, value, index, value, … */
    FML_MAP_STOPPED, /* the value of stop(), in a table; or nil */
    FML_MAP_LOST,    /* what a callback has raised */
    FML_MAP_VALUES = FML_MAP_LOST
};

/* Places on the thread that a worker runs on. */
enum {
    FML_WORK_FN = 1,
    FML_WORK_LIST, /* nil: the item is its number, or of a source */
    FML_WORK_INIT, /* or nil */
    FML_WORK_EXIT, /* or nil */
    FML_WORK_SLOTS = FML_WORK_EXIT
};

struct fmL_map {
    fm_map *map; /* NULL before the start and when closed */
    struct fm_map_opts opts;
    struct fmL_call call; /* engine, options, thread and home: for the job */
    lua_State *L;         /* while its callbacks run */
    enum fmL_want want;
    bool is_raw;    /* the list has no metatable */
    bool is_seeded; /* each item has its own random numbers */
    bool has_log;
    bool stops_at_failure;
    bool is_lost; /* there was no memory for what came */
    bool by_item; /* each item in a process of its own */
    lua_Integer n_log, n_events, n_failed;
    struct fm__buffer item; /* of a source, on its way */
};

/* The body of a worker; `ud` is a struct fmL_map. */
int fmL_run_worker(fm_worker *worker, void *ud);

struct fmL_map *fmL_check_map(lua_State *L, int idx);

/* map_callbacks.c */

/* Have what comes stored in the map's tables. */
void fmL_map_set_callbacks(struct fmL_map *map);

/* Callbacks find the userdata on top of the stack as that of `map`, until it is
 * collected.  [-0, +0, m] */
void fmL_map_register(lua_State *L, struct fmL_map *map);

void fmL_open_map_callbacks(lua_State *L);

/* Push the item of a source that the worker is in; may wait for it.
 * [-0, +1, e] */
void fmL_push_source_item(lua_State *L, const struct fmL_map *map,
                          fm_worker *worker);

void fmL_open_map(lua_State *L);
void fmL_open_source(lua_State *L);
void fmL_open_item(lua_State *L);

#endif
