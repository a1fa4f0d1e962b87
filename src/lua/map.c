/* SPDX-License-Identifier: MIT */
/* A map of Lua items, in the parent; see map.h. */
#include "lua/map.h"

#include <errno.h>
#include <string.h>
#include <lauxlib.h>
#include "lua/heap.h"

/* Results for which room is made beforehand. */
#define ITEMS_MAX ((uint64_t)1 << 26)

struct fmL_map *fmL_check_map(lua_State *L, int idx)
{
    struct fmL_map *map = luaL_checkudata(L, idx, FML_MAP_MT);

    luaL_argcheck(L, map->map != NULL, idx, "closed map");
    return map;
}

/* ------------------------------------------------------------------- start */

static uint64_t get_count(lua_State *L, const char *field)
{
    lua_Integer n;

    lua_getfield(L, 3, field);
    n = luaL_optinteger(L, -1, 0);
    lua_pop(L, 1);
    luaL_argcheck(L, n >= 0, 3, field);
    return (uint64_t)n;
}

static bool get_flag(lua_State *L, const char *field)
{
    bool flag;

    lua_getfield(L, 3, field);
    flag = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return flag;
}

static int64_t get_ns(lua_State *L, const char *field)
{
    double seconds;

    lua_getfield(L, 3, field);
    seconds = luaL_optnumber(L, -1, 0);
    lua_pop(L, 1);
    luaL_argcheck(L, seconds >= 0, 3, field);
    return seconds > 4e9 ? 0 : (int64_t)(seconds * 1e9);
}

static int get_choice(lua_State *L, const char *field,
                      const char *const names[])
{
    int choice;

    lua_getfield(L, 3, field);
    choice = luaL_checkoption(L, -1, names[0], names);
    lua_pop(L, 1);
    return choice;
}

/* The options of the table at 3. */
static void get_opts(lua_State *L, struct fmL_map *map)
{
    struct fm_map_opts *opts = &map->opts;
    static const char *const isolations[] = {"worker", "chunk", "item", NULL};
    static const char *const wants[] = {"value", "truth", "nothing", NULL};

    opts->n_items = get_count(L, "n");
    opts->is_source = get_flag(L, "source");
    opts->workers = (unsigned)get_count(L, "workers");
    opts->chunk_min = get_count(L, "chunk_min");
    opts->chunk_max = get_count(L, "chunk_max");
    opts->isolate = (enum fm_isolate)get_choice(L, "isolate", isolations);
    opts->max_tasks = get_count(L, "max_tasks");
    opts->max_rss = get_count(L, "max_rss");
    opts->max_active = get_count(L, "max_active");
    opts->deadline_ns = get_ns(L, "deadline");
    opts->eager = get_flag(L, "eager");
    map->want = (enum fmL_want)get_choice(L, "want", wants);
    map->stops_at_failure = get_flag(L, "stops_at_failure");
    map->has_log = get_flag(L, "log");
    map->by_item = opts->isolate == FM_ISOLATE_ITEM;
}

static void set_job(struct fmL_map *map)
{
    struct fm_map_opts *opts = &map->opts;

    opts->job = map->call.options->job;
    opts->job.ud_free = NULL;
    opts->fn = fmL_run_worker;
    opts->ud = map;
    fmL_map_set_callbacks(map);
}

/* Make the tables that results come to.  Behind the fork: workers have no use
 * for them. */
static void make_tables(lua_State *L, const struct fmL_map *map)
{
    uint64_t n = map->opts.n_items;

    /* All at once: growing would take half as much again on the way. */
    if (map->want != FML_WANT_VALUE || map->has_log || n > ITEMS_MAX)
        n = 0;
    fmL_heap_push_list(L, (int)n, 1); /* and the field n */
    lua_setiuservalue(L, 1, FML_MAP_RESULTS);
    lua_newtable(L);
    lua_setiuservalue(L, 1, FML_MAP_ERRORS);
    if (map->has_log) {
        lua_newtable(L);
        lua_setiuservalue(L, 1, FML_MAP_LOG);
    }
    lua_newtable(L);
    lua_setiuservalue(L, 1, FML_MAP_EVENTS);
}

/* The thread of the workers: function and list at 4 and 5, init and exit in
 * the options. */
static void make_thread(lua_State *L, struct fmL_map *map)
{
    lua_State *thread = lua_newthread(L);
    lua_Debug ar;

    lua_sethook(thread, NULL, 0, 0);
    lua_setiuservalue(L, -2, FML_MAP_THREAD);
    luaL_checkstack(thread, 2 * LUA_MINSTACK, NULL);
    map->call.thread = thread;
    lua_pushvalue(L, 4);
    lua_pushvalue(L, 5);
    lua_getfield(L, 3, "init");
    lua_getfield(L, 3, "exit");
    lua_xmove(L, thread, FML_WORK_SLOTS);
    lua_pushvalue(L, 4);
    lua_getinfo(L, ">S", &ar);
    memcpy(map->call.home, ar.short_src, sizeof map->call.home);
    map->call.home_line = ar.linedefined;
}

static void make_userdata(lua_State *L, struct fmL_engine *box)
{
    struct fmL_map *map = lua_newuserdatauv(L, sizeof *map, FML_MAP_VALUES);

    memset(map, 0, sizeof *map);
    map->call.engine = box;
    fm__buffer_init(&map->item, SIZE_MAX / 2);
    luaL_setmetatable(L, FML_MAP_MT);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, FML_MAP_ENGINE);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, FML_MAP_OPTIONS);
    /* For the callbacks. */
    fmL_map_register(L, map);
}

/* map_new(engine, options, opts, fn [, list]) -> map, not started */
static int l_map_new(lua_State *L)
{
    struct fmL_engine *box = fmL_check_engine(L, 1);
    struct fmL_map *map;

    (void)fmL_check_options(L, 2);
    luaL_checktype(L, 3, LUA_TTABLE);
    luaL_checktype(L, 4, LUA_TFUNCTION);
    lua_settop(L, 5);
    make_userdata(L, box);
    map = lua_touserdata(L, 6);
    map->call.options = lua_touserdata(L, 2);
    get_opts(L, map);
    map->is_raw = luaL_getmetafield(L, 5, "__index") == LUA_TNIL;
    lua_settop(L, 6);
    map->is_seeded = map->call.options->job.has_seed;
    make_thread(L, map);
    set_job(map);
    return 1;
}

/* map_start(map): fork the workers */
static int l_map_start(lua_State *L)
{
    struct fmL_map *map = luaL_checkudata(L, 1, FML_MAP_MT);
    struct fmL_engine *box = map->call.engine;
    lua_State *previous;
    int rc;

    luaL_argcheck(L, map->map == NULL, 1, "started before");
    luaL_argcheck(L, box->engine != NULL, 1, "collected");
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    previous = fmL_enter(L, box);
    rc = fm_map_start(box->engine, &map->opts, &map->map);
    fmL_leave(box, previous);
    if (rc < 0)
        return fmL_raise_code(L, rc);
    make_tables(L, map);
    return 0;
}

/* -------------------------------------------------------------------- steps */

/* map_step(map, seconds) -> over, settled, failed, logged, n of events */
static int l_map_step(lua_State *L)
{
    struct fmL_map *map = fmL_check_map(L, 1);
    struct fmL_engine *box = map->call.engine;
    double seconds = luaL_checknumber(L, 2);
    int rc = 0;

    luaL_checkstack(L, LUA_MINSTACK, NULL);
    luaL_argcheck(L, box->engine != NULL, 1, "collected");
    if (!fm__engine_is_ours(box->engine))
        return fmL_raise_code(L, FM_ECLOSED);
    if (!fm_map_is_over(map->map)) {
        lua_State *previous = fmL_enter(L, box);

        rc = fm_engine_step(box->engine, (int64_t)(seconds * 1e9));
        fmL_leave(box, previous);
    }
    if (map->is_lost) {
        if (lua_getiuservalue(L, 1, FML_MAP_LOST) == LUA_TNIL)
            lua_pushliteral(L, "not enough memory");
        return lua_error(L);
    }
    if (rc < 0 && rc != -EINTR && !fm_map_is_over(map->map))
        return luaL_error(L, "fork_map cannot wait: %s", fm_strerror(rc));
    lua_pushboolean(L, fm_map_is_over(map->map));
    lua_pushinteger(L, (lua_Integer)fm_map_count_settled(map->map));
    lua_pushinteger(L, map->n_failed);
    lua_pushinteger(L, map->n_log);
    lua_pushinteger(L, map->n_events);
    return 5;
}

/* map_tables(map) -> results, errors, log, events */
static int l_map_tables(lua_State *L)
{
    (void)luaL_checkudata(L, 1, FML_MAP_MT);
    (void)lua_getiuservalue(L, 1, FML_MAP_RESULTS);
    (void)lua_getiuservalue(L, 1, FML_MAP_ERRORS);
    (void)lua_getiuservalue(L, 1, FML_MAP_LOG);
    (void)lua_getiuservalue(L, 1, FML_MAP_EVENTS);
    return 4;
}

/* map_rewind(map, log, events): the tables' items were taken; they are filled
 * from 1 again */
static int l_map_rewind(lua_State *L)
{
    struct fmL_map *map = fmL_check_map(L, 1);

    if (lua_toboolean(L, 2))
        map->n_log = 0;
    if (lua_toboolean(L, 3))
        map->n_events = 0;
    return 0;
}

/* map_consume(map, n) */
static int l_map_consume(lua_State *L)
{
    const struct fmL_map *map = fmL_check_map(L, 1);
    lua_Integer n = luaL_checkinteger(L, 2);

    luaL_argcheck(L, n >= 0, 2, "negative");
    fm_map_consume(map->map, (uint64_t)n);
    return 0;
}

/* map_stop(map [, seconds]) */
static int l_map_stop(lua_State *L)
{
    struct fmL_map *map = fmL_check_map(L, 1);
    double grace = luaL_optnumber(L, 2, -1);
    lua_State *previous = fmL_enter(L, map->call.engine);

    fm_map_stop(map->map, grace < 0 ? -1 : (int64_t)(grace * 1e9));
    fmL_leave(map->call.engine, previous);
    return 0;
}

/* map_failure(map) -> error | nil: why it is over before its time */
static int l_map_failure(lua_State *L)
{
    const struct fmL_map *map = fmL_check_map(L, 1);
    const struct fm_outcome *outcome = fm_map_get_failure(map->map);

    if (outcome == NULL)
        return 0;
    fmL_push_outcome_error(L, map->call.engine, outcome,
                           fmL_options_get_budget(map->call.options));
    return 1;
}

/* map_stopped(map) -> {value} | nil */
static int l_map_stopped(lua_State *L)
{
    (void)fmL_check_map(L, 1);
    (void)lua_getiuservalue(L, 1, FML_MAP_STOPPED);
    return 1;
}

/* -------------------------------------------------------------------- the end
 */

/* Kill what runs, and wait for its end, which the engine promises. */
static void end_map(lua_State *L, struct fmL_map *map)
{
    struct fmL_engine *box = map->call.engine;
    lua_State *previous = fmL_enter(L, box);
    int rc = 0;

    fm_map_stop(map->map, 0);
    while (rc >= 0 && !fm_map_is_over(map->map)) {
        rc = fm_engine_step(box->engine, 1000000000);
        if (rc == -EINTR)
            rc = 0;
    }
    fmL_leave(box, previous);
}

static void release(struct fmL_map *map)
{
    fm_map *fm = map->map;

    map->map = NULL;
    fm__buffer_done(&map->item);
    fm_map_free(fm);
}

/* Nobody can ask for its results: its workers are killed, the next step sees
 * to their end. */
static int map_gc(lua_State *L)
{
    release(luaL_checkudata(L, 1, FML_MAP_MT));
    return 0;
}

/* __close, and map_close(map) */
static int map_close(lua_State *L)
{
    struct fmL_map *map = luaL_checkudata(L, 1, FML_MAP_MT);
    struct fmL_engine *box = map->call.engine;

    if (map->map != NULL && box->engine != NULL &&
        fm__engine_is_ours(box->engine) && !fm_map_is_over(map->map)) {
        luaL_checkstack(L, LUA_MINSTACK, NULL);
        end_map(L, map);
    }
    release(map);
    return 0;
}

void fmL_open_map(lua_State *L)
{
    static const luaL_Reg functions[] = {{"map_new", l_map_new},
                                         {"map_start", l_map_start},
                                         {"map_step", l_map_step},
                                         {"map_tables", l_map_tables},
                                         {"map_rewind", l_map_rewind},
                                         {"map_consume", l_map_consume},
                                         {"map_stop", l_map_stop},
                                         {"map_failure", l_map_failure},
                                         {"map_stopped", l_map_stopped},
                                         {"map_close", map_close},
                                         {NULL, NULL}};

    luaL_newmetatable(L, FML_MAP_MT);
    lua_pushcfunction(L, map_close);
    lua_setfield(L, -2, "__close");
    lua_pushcfunction(L, map_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
    fmL_open_map_callbacks(L);
}
