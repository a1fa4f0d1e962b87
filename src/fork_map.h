/* SPDX-License-Identifier: MIT */
/*
 * fork_map: run a function in a forked child and get back exactly what it
 * returned, or a typed reason why not.
 *
 * This header is the manual of the C engine.  It needs no Lua: a job is a C
 * function, its result is bytes.  The Lua module is a client of this header.
 *
 * The nouns
 *   engine   owns children, their descriptors, timers and memory; one per
 *            thread, never shared between threads
 *   job      one C function to run in one child (with retries: in several
 *            children, one after the other)
 *   future   the handle of a job in the parent; reference counted
 *   child    the handle of the job inside the child
 *   outcome  what a settled future holds; exactly one per job
 *   map      many items, worked on by a few children; each item has exactly
 *            one outcome
 *   item     one of them, known by its number
 *   worker   the handle of a map inside one of its children
 *
 * What always holds, after any single fault
 *   1. A job has exactly one outcome: its whole value, or a typed failure.
 *      A result counts when its END frame is whole, never before; what the
 *      process does afterwards does not take it back.
 *   2. The engine installs no signal handler, waits for no process that
 *      neither it nor a child of it started, never prints (but through
 *      on_warning), never exits and never aborts in the host.
 *   3. When a future has settled, its child was reaped, the child's process
 *      group has been killed and its descriptors are closed or kept for the
 *      next job.
 *   4. When the host dies, by any death, the kernel kills every child and its
 *      process group.
 *
 * Ownership
 *   - What a function returns through `ret_x` belongs to the caller, and is
 *     given back with the function of that noun (`_unref`, `_free`).
 *   - Pointers inside a `const struct fm_outcome` live as long as its future.
 *   - Options and strings passed in are copied before the function returns.
 *
 * Errors
 *   Functions that can fail return 0 (or a count) on success and a negative
 *   code on failure: -errno, or one of FM_E… below.  On failure nothing was
 *   changed and no output parameter was written.
 *
 * Calling context
 *   Every function is for the thread that uses the engine, and never for a
 *   signal handler, except those that say otherwise; a handler that has
 *   interrupted an engine at work gets FM_EBUSY from its verbs.  In a process
 *   other than the one an engine was made in, its functions return FM_ECLOSED
 *   (and fm_engine_free() lets go of memory only).
 */
#ifndef FORK_MAP_H
#define FORK_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FM_API __attribute__((visibility("default")))
#else
#define FM_API
#endif

/** Version of this header, "major.minor.patch" in fm_version(). */
#define FM_VERSION_MAJOR 0
#define FM_VERSION_MINOR 1
#define FM_VERSION_PATCH 0
#define FM_VERSION "0.1.0"

typedef struct fm_engine fm_engine;
typedef struct fm_future fm_future;
typedef struct fm_child fm_child;
typedef struct fm_map fm_map;
typedef struct fm_worker fm_worker;

/* Error codes of our own, below every -errno. */
enum {
    FM_ECLOSED = -10001,    /* engine closed, or used in another process */
    FM_EPROTOCOL = -10002,  /* bytes that are not ours */
    FM_EENCODE = -10003,    /* a value that cannot cross */
    FM_ELIMIT = -10004,     /* a limit of the job was exceeded */
    FM_EDEPTH = -10005,     /* children of children, deeper than max_depth */
    FM_ETHREADS = -10006,   /* the host has threads and the policy refuses */
    FM_EFORBIDDEN = -10007, /* fm_engine_forbid_direct() was called */
    FM_ESHARED = -10008,    /* the host's memory is shared with its children */
    FM_EBUSY = -10009       /* called from a callback of the loop, or from a
                               signal handler that has interrupted it */
};

/** A short English text for a negative return code; never NULL. */
FM_API const char *fm_strerror(int rc);

/** The symbolic name of a negative return code ("EAGAIN", "FM_ECLOSED"). */
FM_API const char *fm_err_name(int rc);

/** The version of the library, such as "0.1.0". */
FM_API const char *fm_version(void);

/* --------------------------------------------------------------- engine */

/** What to do when the host has more than one thread at a fork. */
enum fm_on_threads {
    FM_THREADS_WARN,   /* one warning per engine, then go on (default) */
    FM_THREADS_REFUSE, /* the job fails with kind FM_SPAWN */
    FM_THREADS_IGNORE
};

/** Called with a text that the user should see.  May be NULL. */
typedef void (*fm_warning_cb)(const char *message, void *ud);

/** Options of an engine; all zero means the defaults in brackets. */
struct fm_engine_opts {
    unsigned max_children; /* living children at once [8 per usable CPU,
                              at least 16]; further jobs queue */
    unsigned max_depth;    /* children of children of … [16] */
    enum fm_on_threads on_threads;
    fm_warning_cb on_warning; /* [writes one line to stderr] */
    void *ud;                 /* passed to on_warning */
};

#define FM_ENGINE_OPTS_INIT                                                    \
    {                                                                          \
        0, 0, FM_THREADS_WARN, NULL, NULL                                      \
    }

/**
 * Make an engine.
 *
 * `opts` may be NULL.  On success `*ret_engine` is the caller's, to be given
 * to fm_engine_free().
 *
 * Returns 0, or -ENOMEM, -EMFILE, -ENFILE, or another -errno of the
 * descriptors that an engine needs.
 */
FM_API int fm_engine_new(const struct fm_engine_opts *opts,
                         fm_engine **ret_engine);

/**
 * Cancel and reap every job, settle every future (kind FM_CLOSED), run their
 * callbacks, and free the engine.  NULL is a no-op.
 *
 * Blocks for the longest `grace` among the running jobs plus 0.5 s at most; a
 * child that the kernel cannot kill is reported through on_warning and left.
 * Futures that the caller still references stay readable.  Inside a callback
 * it takes effect when the call that runs the callback ends.
 */
FM_API void fm_engine_free(fm_engine *engine);

/**
 * As fm_engine_free(), but the struct stays valid and every further call says
 * FM_ECLOSED.  `grace_ns` replaces the jobs' own; 0 kills at once; negative
 * keeps theirs.  Idempotent.  Returns 0, or FM_EBUSY inside a callback.
 */
FM_API int fm_engine_close(fm_engine *engine, int64_t grace_ns);

/** Change options of a living engine; fields of zero or NULL stay as they
 * are (on_threads is always taken).  Returns 0 or FM_ECLOSED. */
FM_API int fm_engine_configure(fm_engine *engine,
                               const struct fm_engine_opts *opts);

/**
 * One descriptor that is readable exactly when fm_engine_step(engine, 0) has
 * work, deadlines included, for a host's own poll loop.  Owned by the engine.
 *
 * Returns the descriptor, or -ENOSYS in builds whose poller has none (hosts
 * then use fm_engine_timeout()), or another negative code.
 */
FM_API int fm_engine_fd(fm_engine *engine);

/** Nanoseconds until fm_engine_step() must be called for a deadline; 0 when
 * there is work now, -1 when only descriptors matter. */
FM_API int64_t fm_engine_timeout(fm_engine *engine);

/**
 * Do what there is to do: hear children, read results, enforce deadlines,
 * reap, settle, start queued jobs, run callbacks.
 *
 * Waits at most `timeout_ns` for something to do (0: not at all, negative:
 * as long as it takes); returns at once when nothing is alive or queued.
 * Does a bounded amount of work: with `timeout_ns` 0 it goes on starting jobs
 * for a millisecond at most.  A signal ends the wait early.
 *
 * Returns how many futures settled, or -EINTR when a signal ended the wait
 * before anything happened, FM_ECLOSED, FM_EBUSY inside a callback, or
 * another -errno of the poller.
 */
FM_API int fm_engine_step(fm_engine *engine, int64_t timeout_ns);

/** From now on the engine refuses to fork the host directly: jobs fail with
 * kind FM_SPAWN.  For threaded hosts that use templates only. */
FM_API void fm_engine_forbid_direct(fm_engine *engine);

/** Counters of an engine, for tests and monitors. */
struct fm_engine_stats {
    uint64_t spawned; /* children forked so far */
    uint64_t settled; /* futures settled so far */
    unsigned queued;  /* jobs waiting for a slot or for their back-off */
    unsigned running; /* children that are not reaped yet */
    unsigned parked;  /* children that SIGKILL did not end */
};

FM_API void fm_engine_get_stats(const fm_engine *engine,
                                struct fm_engine_stats *ret_stats);

/** Called with each change of a future's state or stop request: names such as
 * "queued" -> "starting", "stop none" -> "stop asked". */
typedef void (*fm_trace_cb)(const fm_future *future, const char *from,
                            const char *to, void *ud);

/** Trace every engine of this process; NULL switches it off.  Call it while
 * no other thread uses an engine. */
FM_API void fm_set_trace(fm_trace_cb cb, void *ud);

/* ----------------------------------------------------------------- hooks */

/** A hook around fork.  Returns 0, or a negative code: the fork is then given
 * up and the job fails with kind FM_SPAWN.  When a `before` hook gives it up,
 * or the fork itself fails, the `parent` hooks of those whose `before` has run
 * are run. */
typedef int (*fm_fork_cb)(void *ud);

/**
 * Register hooks around every fork of `engine` (NULL: of every engine of this
 * process), in the manner of pthread_atfork(): `before` hooks run in the
 * parent in reverse order of registration, `parent` hooks in the parent and
 * `child` hooks in the child in the order of registration.  Each may be NULL.
 * The `child` hooks run after the child has put itself in order and before
 * the job.  Those of an engine go with it.
 *
 * Returns an id for fm_at_fork_remove(), or -ENOMEM.
 */
FM_API int fm_at_fork(fm_engine *engine, fm_fork_cb before, fm_fork_cb parent,
                      fm_fork_cb child, void *ud);

/** Unregister; an unknown id is a no-op. */
FM_API void fm_at_fork_remove(int id);

/* ------------------------------------------------------------------ jobs */

/**
 * A job.  Runs in the child, with the whole memory of the parent as it was at
 * the fork.  Writes its result with fm_child_write().  Returning 0 makes what
 * was written the value; returning a negative code makes the outcome FM_ERROR
 * with fm_strerror(rc) as message, unless fm_child_fail(), fm_child_refuse()
 * or fm_child_exceed() was called, which then decides.
 *
 * Whatever it does, it never comes back into the host's code: the child
 * leaves by _exit() when it returns.
 */
typedef int (*fm_job_fn)(fm_child *child, void *ud);

/** One line that a child printed, without its newline.  `stream` is 1 or 2.
 * Called from fm_engine_step(). */
typedef void (*fm_line_cb)(int stream, const char *line, size_t len, void *ud);

enum fm_output {
    FM_OUTPUT_INHERIT, /* the child writes where the host writes (default) */
    FM_OUTPUT_CAPTURE, /* kept in the outcome, the last 16 MiB per stream */
    FM_OUTPUT_DISCARD, /* to /dev/null */
    FM_OUTPUT_LINES    /* on_line for each line */
};

/** Limits of one job.  0 means none, but where a default is named. */
struct fm_limits {
    uint64_t memory;    /* bytes of growth over the fork */
    uint64_t cpu_ns;    /* CPU time of the child */
    uint64_t file_size; /* bytes of any file it writes; see has_file_size */
    uint64_t result;    /* bytes of the result [256 MiB] */
    unsigned files;     /* descriptors it may open beyond those it has */
    unsigned processes; /* processes it may start */
    bool has_files, has_processes, has_file_size; /* so that 0 can be said */
};

/** Options of a job; all zero means the defaults in brackets. */
struct fm_job_opts {
    const char *name;   /* label in errors, traces and the process title */
    int64_t timeout_ns; /* of one attempt, from the start of its run [none] */
    int64_t grace_ns;   /* between SIGTERM and SIGKILL; negative means 0
                           [1 s] */
    unsigned retries;   /* further attempts [0] */
    unsigned retry_on;  /* bits FM_KIND_BIT(kind) [signal exit no_result] */
    int64_t backoff_ns; /* pause before an attempt, doubled each time [0] */
    struct fm_limits limits;
    bool has_seed;       /* else every child gets a fresh stream */
    uint64_t seed;       /* base of fm_child_get_seed() */
    uint64_t seed_index; /* second word of the seed (item number) */
    enum fm_output output;
    fm_line_cb on_line; /* for FM_OUTPUT_LINES */
    void *on_line_ud;
    const int *keep_fds; /* descriptors above 2 (and 0) that the child keeps;
                            used when has_keep_fds */
    size_t n_keep_fds;
    bool has_keep_fds;         /* false: all are inherited, as fork does */
    bool keep_stdin;           /* without keep_fds: leave descriptor 0 alone */
    int nice;                  /* added to the scheduling priority [0] */
    void (*ud_free)(void *ud); /* called once in the parent when no further
                                  attempt can need `ud` */
};

/**
 * Run `fn(child, ud)` in a child of `engine` as soon as a slot is free.
 *
 * On success `*ret_future` holds one reference for the caller and the engine
 * keeps its own until the future has settled.  Dropping the caller's does not
 * cancel the job: use fm_future_cancel().
 *
 * A fork that fails settles the future with kind FM_SPAWN; it is not an error
 * of this call.  Returns 0, or
 *   -EINVAL     opts out of range, named by fm_job_opts_error();
 *   -ENOMEM     no memory for the future;
 *   FM_ECLOSED  the engine is closed or belongs to another process.
 * On failure `ud_free` is not called.  May be called from callbacks.
 */
FM_API int fm_spawn(fm_engine *engine, const struct fm_job_opts *opts,
                    fm_job_fn fn, void *ud, fm_future **ret_future);

/** The name of the first option that is out of range, or NULL. */
FM_API const char *fm_job_opts_error(const struct fm_job_opts *opts);

/* --------------------------------------------------------------- futures */

enum fm_state {
    FM_QUEUED,   /* waits for a slot */
    FM_STARTING, /* forked, has not passed its start-up order yet */
    FM_RUNNING,  /* the job function runs */
    FM_DRAINING, /* END seen or process gone, waiting for the other */
    FM_BACKOFF,  /* failed, will be tried again */
    FM_SETTLED   /* has its outcome, for ever */
};

/** The kind of an outcome. */
enum fm_kind {
    FM_VALUE,     /* data, len, format hold what the job wrote */
    FM_ERROR,     /* the job said so: message, traceback, data (the value) */
    FM_EXIT,      /* ended with exit_code != 0 before its result was whole */
    FM_SIGNAL,    /* ended by `signal` before its result was whole */
    FM_NO_RESULT, /* ended with code 0, or an unknown status, and no result */
    FM_TIMEOUT,   /* we ended it: timeout */
    FM_CANCELLED, /* we ended it: fm_future_cancel() */
    FM_LIMIT,     /* `limit` names the limit that it exceeded */
    FM_ENCODE,    /* a result that cannot cross; `path` names it */
    FM_PROTOCOL,  /* bytes that are not ours */
    FM_SPAWN,     /* no process could be made; error_code says why */
    FM_CLOSED,    /* the engine was closed */
    FM_KIND_COUNT
};

#define FM_KIND_BIT(kind) (1u << (kind))

/** The name of a kind as users see it: "value", "error", "no_result", … */
FM_API const char *fm_kind_name(enum fm_kind kind);

/** What a child used.  Times in nanoseconds, sizes in bytes. */
struct fm_usage {
    int64_t wall_ns, user_ns, sys_ns;
    uint64_t max_rss;
};

/** Where a child was last seen. */
struct fm_last {
    bool known;
    char where[120];    /* "foo.lua:120", from fm_child_note(); "" if none */
    int64_t elapsed_ns; /* from the start of the run to its end */
    uint64_t max_rss;
};

/** What a child printed to one stream, with FM_OUTPUT_CAPTURE. */
struct fm_captured {
    const char *data; /* NULL when output was not captured */
    size_t len;
    uint64_t dropped; /* bytes that came before `data` and were let go */
};

/** The one outcome of a job.  Strings are NULL where nothing is known. */
struct fm_outcome {
    enum fm_kind kind;
    const char *message;   /* one sentence; NULL for FM_VALUE */
    const char *traceback; /* of the child, for FM_ERROR */
    const char *path;      /* for FM_ENCODE: "result.a.b[3]" */
    const char *limit;     /* for FM_LIMIT: "memory", "cpu", … */
    const char *name;      /* of the job */
    int error_code;        /* negative code, for FM_SPAWN and FM_ERROR of C */
    int signal;            /* 0 when none */
    int exit_code;         /* -1 when none or unknown */
    unsigned attempt;      /* 1, 2, … */
    pid_t pid;             /* 0 when none was made */
    const void *data;      /* result, or raised value; may be NULL if len 0 */
    size_t len;
    int format; /* as the child said with fm_child_set_format() */
    struct fm_usage usage;
    struct fm_last last;
    struct fm_captured output[2]; /* stdout, stderr */
};

/** Called once when the future settles, from fm_engine_step(), or, if it had
 * settled before, from the next step.  May spawn, cancel and unref. */
typedef void (*fm_settle_cb)(fm_future *future, void *ud);

/** One more reference; returns `future`. */
FM_API fm_future *fm_future_ref(fm_future *future);

/** Drop a reference; the last one frees a settled future.  NULL is a no-op. */
FM_API void fm_future_unref(fm_future *future);

/** Its state.  FM_SETTLED is for ever. */
FM_API enum fm_state fm_future_get_state(const fm_future *future);

/** The outcome of a settled future, NULL before.  Lives as long as it. */
FM_API const struct fm_outcome *fm_future_get_outcome(const fm_future *future);

/** The process id of its living child, 0 when there is none. */
FM_API pid_t fm_future_get_pid(const fm_future *future);

/**
 * Register the one settle callback.  Returns 0, -EEXIST when there is one,
 * FM_ECLOSED.  If it fails, `cb` is never called; else exactly once.
 */
FM_API int fm_future_on_settle(fm_future *future, fm_settle_cb cb, void *ud);

/**
 * Ask the job to stop: SIGTERM and SIGCONT to the child's process group, and
 * SIGKILL after `grace_ns` (0: at once; negative: the job's own grace).  A
 * job that has not started settles without starting.  A result that was whole
 * before wins; however it ends, it is not tried again.  Asking again can only
 * shorten the grace.
 *
 * Returns 1 when it had an effect, 0 when it had none (settled, or asked
 * already), or FM_ECLOSED.
 */
FM_API int fm_future_cancel(fm_future *future, int64_t grace_ns);

/* ------------------------------------------------------------- the child */

/* The functions of this section are for the job function, in the child. */

/** Append bytes to the result.  Streams through shared memory: no limit but
 * limits.result.  Returns 0, FM_ELIMIT, or FM_ECLOSED when the parent is
 * gone. */
FM_API int fm_child_write(fm_child *child, const void *data, size_t len);

/** Forget what was written so far and tag what follows with `format`, a
 * number from 0 to 255 that the outcome carries. */
FM_API int fm_child_set_format(fm_child *child, int format);

/** Make the outcome FM_ERROR with these texts (each may be NULL; capped at
 * 64 KiB).  Bytes written before are forgotten; bytes written after are the
 * raised value. */
FM_API int fm_child_fail(fm_child *child, const char *message,
                         const char *traceback);

/** Make the outcome FM_ENCODE: the value at `path` cannot cross, because of
 * `message`.  Bytes written are forgotten. */
FM_API int fm_child_refuse(fm_child *child, const char *path,
                           const char *message);

/** Make the outcome FM_LIMIT with this limit's name ("memory"). */
FM_API int fm_child_exceed(fm_child *child, const char *limit,
                           const char *message);

/** Leave now with this exit code: flushes the child's stdio, tells the
 * parent, and _exit()s.  Does not return. */
FM_API void fm_child_exit(fm_child *child, int code) __attribute__((noreturn));

/** Publish where the job is, for `last` of the outcome.  Truncated to 119
 * bytes.  Async-signal-safe. */
FM_API void fm_child_note(fm_child *child, const char *where);

/** The options that the job was spawned with. */
FM_API const struct fm_job_opts *fm_child_get_opts(const fm_child *child);

/** Two words for a random generator: the same for the same `seed` and
 * `seed_index`, else fresh for every child. */
FM_API void fm_child_get_seed(const fm_child *child, uint64_t ret_seed[2]);

/** 1 for the first attempt. */
FM_API unsigned fm_child_get_attempt(const fm_child *child);

/** Whether it was asked to stop (SIGTERM).  Until the first call being asked
 * ends the child; from then on it sets this, interrupts system calls, and the
 * child has the job's grace to come to its end. */
FM_API bool fm_child_is_cancelled(fm_child *child);

/** The job's child handle in a process that is one, else NULL. */
FM_API fm_child *fm_child_current(void);

/* ------------------------------------------------------------ many items */

/** What gets a fresh process. */
enum fm_isolate {
    FM_ISOLATE_WORKER, /* a worker, which works on many items (default) */
    FM_ISOLATE_CHUNK,  /* each claim of items */
    FM_ISOLATE_ITEM    /* each item: the body calls fm_worker_run_item() */
};

/** What an item's outcome is. */
enum fm_item_type {
    FM_ITEM_FAILED, /* `outcome` says how */
    FM_ITEM_NIL,
    FM_ITEM_FALSE,
    FM_ITEM_TRUE,
    FM_ITEM_INTEGER, /* u.integer */
    FM_ITEM_NUMBER,  /* u.number */
    FM_ITEM_BYTES,   /* data, len, format */
    FM_ITEM_STOP     /* the same, of fm_worker_stop(); given to on_event */
};

/** The outcome of one item, or an event; lives while the callback runs. */
struct fm_item {
    uint64_t index;   /* from 0 */
    unsigned attempt; /* 1, 2, … */
    enum fm_item_type type;
    int format;
    union {
        int64_t integer;
        double number;
    } u;
    const void *data;
    size_t len;
    const struct fm_outcome *outcome; /* of FM_ITEM_FAILED, else NULL */
    uint64_t detail; /* of FM_ITEM_FAILED: as fm_worker_set_detail() said */
};

/**
 * The body of a worker: prepares, goes through its items, cleans up.
 *
 *     while ((rc = fm_worker_next(worker, &index)) > 0)
 *         …work, and fm_worker_write() or another of the fm_worker_… verbs
 *
 * Returning a negative code other than that of fm_worker_next(), or failing by
 * fm_child_fail(), fails the whole map.
 */
typedef int (*fm_worker_fn)(fm_worker *worker, void *ud);

/** Called for an item, once, or for an event; from fm_engine_step(). */
typedef void (*fm_item_cb)(fm_map *map, const struct fm_item *item, void *ud);

/** Options of a map; all zero means the defaults in brackets. */
struct fm_map_opts {
    uint64_t n_items;   /* at most 2^40; 0 with is_source */
    bool is_source;     /* items come later, by fm_map_feed() */
    unsigned workers;   /* children at once [usable processors]; fewer when
                           the engine's max_children says so, at least one */
    uint64_t chunk_min; /* items that a worker takes at once [1] */
    uint64_t chunk_max; /* [as many as take about a millisecond] */
    enum fm_isolate isolate;
    uint64_t max_tasks;  /* a worker is replaced after so many items [never] */
    uint64_t max_rss;    /* … or above so many bytes of memory [never] */
    uint64_t max_active; /* items begun, or fed, and not consumed [no bound] */
    int64_t deadline_ns; /* of the whole map [none] */
    bool eager;          /* on_item is called within milliseconds; else the
                            host is not woken for each */
    /* Of the workers.  timeout_ns, retries, retry_on, backoff_ns, limits.cpu_ns
     * and limits.result are meant for each item; ud_free is not used. */
    struct fm_job_opts job;
    fm_worker_fn fn;
    void *ud; /* for fn, in the workers */
    fm_item_cb on_item;
    fm_item_cb on_event; /* [events are dropped] */
    /* Wraps the callbacks: has to call run(arg) once, which may never return
     * when a callback leaves by longjmp() to the guard.  [run(arg)] */
    void (*guard)(void (*run)(void *arg), void *arg, void *ud);
    void *cb_ud;
};

/**
 * Work on items 0 to n_items - 1 in children that are forked now: they have
 * the whole memory of the host as it is at the call.
 *
 * on_item is called once for each item, in the order in which they end.  A
 * worker that dies costs exactly the item that it was in, which fails or is
 * tried again; what it had finished is kept, the others of its claim go to
 * other workers.  A worker that replaces one that has ended is forked from the
 * host as it is then.
 *
 * On success `*ret_map` is the caller's, to be given to fm_map_free().
 * Returns 0, or -EINVAL for options (named by fm_map_opts_error()), -ENOMEM,
 * FM_ECLOSED.
 */
FM_API int fm_map_start(fm_engine *engine, const struct fm_map_opts *opts,
                        fm_map **ret_map);

/** The name of the first option that is out of range, or NULL. */
FM_API const char *fm_map_opts_error(const struct fm_map_opts *opts);

/** True when on_item is not called any more and all its children are gone. */
FM_API bool fm_map_is_over(const fm_map *map);

/** In job.on_line: the item that printed the line, UINT64_MAX for one that was
 * printed in no item. */
FM_API uint64_t fm_map_get_line_index(const fm_map *map);

/** Items that have their outcome. */
FM_API uint64_t fm_map_count_settled(const fm_map *map);

/**
 * One more item of a map with is_source: these bytes, which are copied.  Its
 * number is the count of those before.  `format`, from 0 to 255, is for who
 * reads them.  Workers are forked at fm_map_start(), and get it from the next
 * fm_engine_step() on.  It is kept until it has its outcome, as its worker may
 * die.
 *
 * Returns 0, -EAGAIN when max_active items are fed and not consumed, FM_ECLOSED
 * when the map takes no more, FM_ELIMIT above 2^40 items, -ENOMEM, -EINVAL.
 */
FM_API int fm_map_feed(fm_map *map, const void *data, size_t len, int format);

/** The next number belongs to an item that the host settles by itself: it
 * counts as fed and settled, and on_item is not called.  Returns as
 * fm_map_feed(). */
FM_API int fm_map_feed_none(fm_map *map);

/** No more items come: the map is over when those that were fed are settled. */
FM_API void fm_map_feed_end(fm_map *map);

/** Items that were fed and have no outcome yet. */
FM_API uint64_t fm_map_count_open(const fm_map *map);

/** Bytes of items that were fed and have no outcome yet. */
FM_API uint64_t fm_map_count_bytes(const fm_map *map);

/** So many more items were consumed (see max_active). */
FM_API void fm_map_consume(fm_map *map, uint64_t n);

/** No more items: the workers are asked to end, and forced after `grace_ns`
 * (0: at once; negative: the job options' grace).  on_item is not called any
 * more.  The map is over some steps later. */
FM_API void fm_map_stop(fm_map *map, int64_t grace_ns);

/** Why the map ended before all items had an outcome, or NULL when it did not
 * or was stopped: its deadline, workers that cannot be started or die before
 * they do anything, the end of the engine.  Lives as long as the map. */
FM_API const struct fm_outcome *fm_map_get_failure(const fm_map *map);

/** Stop it with grace 0 if it is not over, and let go of it.  NULL is a
 * no-op. */
FM_API void fm_map_free(fm_map *map);

/* The functions of a worker, in its process. */

/**
 * End the item before, if there was one, and go to the next.
 *
 * Returns 1 with the item's number in `*ret_index`, 0 when there are no more
 * for this worker, FM_ECLOSED when the parent is gone.
 */
FM_API int fm_worker_next(fm_worker *worker, uint64_t *ret_index);

/**
 * The bytes of the item, of a map with is_source: they live until the next
 * fm_worker_next(), and are never NULL.  Waits until all of them are there,
 * which is not the item's time.
 *
 * Returns their format, FM_ECLOSED when the parent is gone, -ENOMEM, or -EINVAL
 * when the map has no source or the worker is in no item.
 */
FM_API int fm_worker_get_item(fm_worker *worker, const void **ret_data,
                              size_t *ret_len);

/** Append bytes to the item's value; as fm_child_write().  FM_ELIMIT: the item
 * has failed with kind FM_LIMIT.  FM_EBUSY, here and in the next ones: outside
 * of an item, or after its failure. */
FM_API int fm_worker_write(fm_worker *worker, const void *data, size_t len);

/** Forget the bytes of the item's value; what follows has this format. */
FM_API int fm_worker_set_format(fm_worker *worker, int format);

/** The item fails with kind FM_ERROR and these texts.  No more is said about
 * it. */
FM_API int fm_worker_fail(fm_worker *worker, const char *message,
                          const char *traceback);

/** Send an event with these bytes to on_event, before anything of the item's
 * value was written. */
FM_API int fm_worker_emit(fm_worker *worker, const void *data, size_t len,
                          int format);

/** End the whole map, with these bytes for on_event: no other worker begins an
 * item, no more outcomes come.  The worker should leave then. */
FM_API int fm_worker_stop(fm_worker *worker, const void *data, size_t len,
                          int format);

/** Publish where in its item the worker is, for `detail` of a failure: a number
 * of the body's own. */
FM_API void fm_worker_set_detail(fm_worker *worker, uint64_t detail);

/**
 * Run `fn(child, ud)` in a child of the worker's own; what becomes of it is the
 * outcome of the item that the worker is in.  The time limit, the limits and
 * the seed of the map's job options are those of this child when the map has
 * FM_ISOLATE_ITEM.
 *
 * Returns 0, also when the child failed, or FM_ECLOSED, or the negative code
 * of an engine that cannot be made.
 */
FM_API int fm_worker_run_item(fm_worker *worker, fm_job_fn fn, void *ud);

/** The number of the worker: 1, 2, … */
FM_API unsigned fm_worker_get_id(const fm_worker *worker);

/** The attempt of the item that it is in: 1, 2, … */
FM_API unsigned fm_worker_get_attempt(const fm_worker *worker);

/** Two words for a random generator: with a seed in the options the same for
 * every run of the same item, else those of the process. */
FM_API void fm_worker_get_seed(const fm_worker *worker, uint64_t ret_seed[2]);

/** The process that the worker runs in. */
FM_API fm_child *fm_worker_get_child(const fm_worker *worker);

/* --------------------------------------------------------------- prepare */

/** What fm_prepare() found and did. */
struct fm_prepare_report {
    int64_t fork_before_ns, fork_after_ns; /* one fork, exit and wait */
    uint64_t bytes;                        /* now in huge pages by our call */
};

/**
 * Make forks of a big host cheap: ask the kernel to collapse its private
 * anonymous memory into huge pages, and measure a fork before and after.
 * Takes time in proportion to the host's memory.  Where the kernel cannot
 * collapse (before Linux 6.1) nothing changes and `bytes` is 0.
 *
 * Returns 0, or the -errno of a fork that failed.
 */
FM_API int fm_prepare(struct fm_prepare_report *ret_report);

#ifdef __cplusplus
}
#endif

#endif
