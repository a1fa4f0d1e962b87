/* SPDX-License-Identifier: MIT */
/*
 * The inside of engine and future, shared by the files of this folder.
 *
 * Who owns what
 *   engine   the poller, the bell, /dev/null, idle channels, and one reference
 *            on every future that is not settled or whose callback is due
 *   future   its options (copied), its inbox, and, from STARTING to the end of
 *            DRAINING, one slot of the engine with channel, pid and output
 *
 * Where a future is listed
 *   QUEUED             engine->queue, in order
 *   BACKOFF            engine->waiting
 *   STARTING…DRAINING  engine->slots[future->slot]
 *   SETTLED            engine->due while its callback has not run, else nowhere
 *
 * States change in fm__future_enter() alone, stop requests in
 * fm__future_stop().
 */
#ifndef FM_ENGINE_ENGINE_H
#define FM_ENGINE_ENGINE_H

#include "engine/watcher.h"
#include "fork_map.h"
#include "os/bell.h"
#include "os/pid.h"
#include "os/poller.h"
#include "process/channel.h"
#include "process/output.h"
#include "wire/inbox.h"

struct fm__duplex;
struct fm__member;
struct fm_template;
struct fm__errand;
struct fm__watched;

/* limits.result, when nobody says anything. */
#define FM__RESULT_DEFAULT ((uint64_t)256 << 20)

/* How far the wish to end a child has come; never back. */
enum fm__stop {
    FM__STOP_NONE,
    FM__STOP_SAMPLING, /* asked where it is; SIGTERM follows */
    FM__STOP_ASKED,    /* SIGTERM sent; SIGKILL follows */
    FM__STOP_FORCED    /* SIGKILL sent */
};

struct fm__list {
    fm_future *first, *last;
};

struct fm_future {
    fm_engine *engine; /* holds one reference; closed when it is gone */
    fm_future *prev, *next;
    struct fm__list *list; /* where prev and next belong to */
    unsigned refs;
    enum fm_state state;
    enum fm__stop stop;
    enum fm_kind stop_kind;  /* why, when stop is not NONE */
    struct fm_job_opts opts; /* strings and lists are ours */
    fm_job_fn fn;
    void *ud;
    /* How its process is made, if not by a fork of the host: struct fm__work.
     */
    struct fm_template *origin; /* referenced */
    struct fm__errand *errand;  /* ours, with its bytes */
    char **argv;                /* ours, in one block */
    struct fm_template *serves; /* whose process it is, or NULL */
    int socket;                 /* the process's end of that; ours, or -1 */
    bool is_asked;              /* the origin has yet to fork the child */
    uint64_t job;
    uint64_t seed[2];
    unsigned attempt;
    bool is_cancelled; /* this attempt is the last, however it ends */
    fm_settle_cb on_settle;
    void *on_settle_ud;
    /* One attempt. */
    unsigned slot;
    struct fm__pid pid;
    struct fm__channel *channel;
    struct fm__output outputs[2];
    struct fm__inbox inbox;
    fm__aside_fn on_aside; /* for the inbox of every attempt */
    void *aside_ud;
    struct fm__member *member; /* of a map, whose worker this is; or NULL */
    struct fm__duplex *duplex; /* of a job that is given calls; or NULL */
    bool is_gone;              /* the process has ended */
    bool is_withheld;          /* it has ended, but who traces it must reap it
                                  first: its pidfd is not listened to, as that
                                  would never be silent */
    int64_t ask_ns;           /* then: the pause before it is asked for again */
    bool starts_over;         /* this child is killed for another one, since it
                                 has hung before its job began */
    unsigned char lost_locks; /* children in a row of which this is true */
    int spawn_rc;             /* negative: the attempt could not be started */
    const char *spawn_step;
    int64_t started_at, next_at; /* next_at: start, stop or back-off time */
    int64_t timeout_at;
    struct fm_outcome outcome;
    char message[192];
};

#define FM__HOME_SIZE 4096
#define FM__HOME_SLOTS 16

struct fm__parked {
    struct fm__parked *next;
    struct fm__pid pid;
    struct fm__channel *channel;
};

struct fm_engine {
    void *block;         /* the memory that it lies in */
    unsigned refs;       /* the host's, and one of every future */
    pid_t pid;           /* of the process that made it */
    unsigned generation; /* fm__fds_generation() then */
    struct fm_engine_opts opts;
    struct fm__poller poller;
    struct fm__bell bell;
    int null_fd;
    bool closed, in_callback, forbids_direct, warned_threads;
    volatile bool is_at_work; /* its own code, not a callback; see entry.c */
    bool free_after_callback; /* fm_engine_free() was called in one */
    bool blind; /* pidfds cannot be had: children ring at their end */
    struct fm__list queue, waiting, due;
    fm_future **slots; /* n_slots long, NULL where free */
    unsigned n_slots, n_running;
    struct fm__channel *idle;
    unsigned n_idle;
    struct fm__parked *parked;
    struct fm__watched *watched; /* n_watched long; see watcher.c */
    unsigned n_watched, n_watchers;
    unsigned n_holding;               /* watchers for which steps wait */
    unsigned n_batches;               /* of events, so far */
    struct fm__watcher *next_watcher; /* in the batch that is heard */
    struct fm_template *templates;
    unsigned n_templates; /* of n_running */
    fm_map *maps;         /* that are not over */
    bool has_news;        /* for who waits for a map, or messages */
    bool rests;           /* a step waits though nothing is alive */
    int64_t start_until;  /* when this step starts no more jobs; 0: never */
    int64_t alarm_at;     /* when the binding has work of its own; 0: never */
    uint64_t next_job;
    uint64_t random[2];
    struct fm_engine_stats stats;
    /* What one job at a time needs lies here, in the same page: a page that is
     * written between two forks is copied at each. */
    bool has_home_future, has_home_channel; /* in use */
    fm_future *home_slots[FM__HOME_SLOTS];
    struct fm__channel home_channel;
    struct fm_future home_future;
};

_Static_assert(sizeof(struct fm_engine) <= FM__HOME_SIZE, "one page");

/* Pollers tell a slot and what of it: tag = slot * 4 + kind; or a descriptor
 * of watchers. */
enum fm__tag { FM__TAG_PID, FM__TAG_STDOUT, FM__TAG_STDERR, FM__TAG_BELL };

#define FM__BELL_TAG ((uint64_t)FM__TAG_BELL)
#define FM__WATCHED_TAG ((uint64_t)1 << 63)

/* list.c */
void fm__list_append(struct fm__list *list, fm_future *future);
void fm__list_remove(fm_future *future);

/* home.c: memory of futures and channels */
fm_engine *fm__engine_alloc(void);
void fm__engine_release(fm_engine *engine);
fm_future *fm__future_alloc(fm_engine *engine);
/* Does not look at its reference to the engine. */
void fm__future_free(fm_engine *engine, fm_future *future);
int fm__channel_take(fm_engine *engine, struct fm__channel **ret_channel);
/* NULL is a no-op.  Only a channel into which no process can write any more
 * may serve again. */
void fm__channel_give(fm_engine *engine, struct fm__channel *channel,
                      bool reusable);
void fm__channel_drop_idle(fm_engine *engine);
/* A free slot, or a negative code. */
int fm__slot_take(fm_engine *engine, fm_future *future);
void fm__slot_give(fm_future *future);
void fm__slots_free(fm_engine *engine);

/* future.c: the state machine */
bool fm__future_enter(fm_future *future, enum fm_state to);
void fm__future_settle(fm_future *future);
void fm__future_stop(fm_future *future, enum fm__stop to, enum fm_kind kind,
                     int64_t now);
int64_t fm__future_grace(const fm_future *future);
/* As fm_future_cancel(), for one that has not settled, by who is inside. */
int fm__future_cancel(fm_future *future, int64_t grace_ns);
/* Let go of the job's `ud`, once. */
void fm__future_drop_ud(fm_future *future);

/* start.c: an attempt until its job begins */
int fm__attempt_start(fm_future *future);
/* The job should have begun by now: end its child, or wait a little more. */
void fm__attempt_end_start(fm_future *future, int64_t now);

/* Its origin has forked this child for it. */
void fm__attempt_launched(fm_future *future, pid_t pid);
/* Its origin could not. */
void fm__attempt_unmade(fm_future *future, enum fm_kind kind, int rc,
                        const char *message);
/* Slot, channel and outputs of one that has no process.  A channel that its
 * origin may not have got is not to be used again. */
void fm__attempt_give_back(fm_future *future, bool reusable);
/* One that has nothing of those: this is its outcome. */
void fm__attempt_refused(fm_future *future, const struct fm_outcome *outcome);
/* It is asked for, and settles without a process. */
void fm__attempt_withdraw(fm_future *future, enum fm_kind kind,
                          const char *message);

/* attempt.c: from there to its outcome */
/* The process is to end by itself; it is ended after `ns`. */
void fm__attempt_expect_end(fm_future *future, int64_t now, int64_t ns);
/* Read what there is. */
void fm__attempt_pump(fm_future *future, int64_t now);
/* The pipe of its standard output (0) or error (1) can be read. */
void fm__attempt_hear(fm_future *future, int i, int64_t now);
/* The process is gone: reap, decide, free the slot; then SETTLED or BACKOFF. */
void fm__attempt_finish(fm_future *future, int64_t now);
/* The outcome is decided: SETTLED, or another attempt. */
void fm__attempt_conclude(fm_future *future, int64_t now);
/* Act on deadlines that have come. */
void fm__attempt_check_time(fm_future *future, int64_t now);
/* The earliest time at which check_time must be called. */
int64_t fm__attempt_next_time(const fm_future *future);
/* Standard output (0) or error (1) is read no more. */
void fm__attempt_close_output(fm_future *future, int i);
/* Killed, and reaped when it has ended.  Takes it over. */
void fm__attempt_park(fm_engine *engine, struct fm__parked *parked);
/* Look after children that SIGKILL did not end; reaps those that did. */
void fm__attempt_reap_parked(fm_engine *engine, bool give_up);

/* outcome.c: what an ended attempt amounts to */
void fm__outcome_decide(fm_future *future,
                        const struct fm__exit_status *status);
/* An attempt that had no process. */
void fm__outcome_set_plain(fm_future *future, enum fm_kind kind, int rc,
                           const char *message);

/* job.c */
/* Put the defaults in for what the host left out, as every attempt needs. */
void fm__job_fill_opts(struct fm_job_opts *opts);
/* How long to wait after this attempt: doubled with each. */
int64_t fm__job_get_pause(const struct fm_job_opts *opts, unsigned attempt);
/* What is to be done, and how its process is made: by `origin`, with `errand`;
 * as the program `argv`; else by a fork that runs fn(child, ud). */
struct fm__work {
    fm_job_fn fn;
    void *ud;
    struct fm__member *member; /* or NULL, as the next */
    struct fm__duplex *duplex; /* the future's, when it has been made */
    struct fm_template *origin;
    const struct fm__errand *errand; /* copied */
    char *const *argv;               /* copied */
    struct fm_template *serves;      /* the template that it will be */
    int socket;                      /* of that; taken over */
};
/* On failure `work->socket` is still the caller's. */
int fm__spawn(fm_engine *engine, const struct fm_job_opts *opts,
              const struct fm__work *work, fm_future **ret_future);
/* The same for a host that calls: it is checked, and the engine entered. */
int fm__host_spawn(fm_engine *engine, const struct fm_job_opts *opts,
                   const struct fm__work *work, fm_future **ret_future);
/* Let go of what of it is the future's. */
void fm__work_done(fm_future *future);

/* map.c: maps in the loop */
/* Before rings are read, and after. */
void fm__maps_look(fm_engine *engine);
void fm__maps_tend(fm_engine *engine, int64_t now);
int64_t fm__maps_next_time(const fm_engine *engine);

/* hooks.c */
int fm__hooks_before(fm_engine *engine);
int fm__hooks_parent(fm_engine *engine);
int fm__hooks_child(void *engine);
void fm__hooks_forget(fm_engine *engine);

/* entry.c: who is inside */
bool fm__engine_is_ours(const fm_engine *engine);
/* Every verb of the host begins with _enter, which is false for a signal
 * handler that has interrupted another one, and ends with fm__engine_leave(),
 * or with _exit when it has changed nothing. */
bool fm__engine_enter(fm_engine *engine);
void fm__engine_exit(fm_engine *engine);
/* Around every call of a function of the host. */
struct fm__entry {
    bool in_callback, is_at_work;
};
struct fm__entry fm__callback_begin(fm_engine *engine);
void fm__callback_end(fm_engine *engine, struct fm__entry before);

/* engine.c */
void fm__engine_warn(fm_engine *engine, const char *message);
/* At the end of what may have changed something or run callbacks: free the
 * engine if one of them asked for it, else have its descriptor tell what is to
 * be done.  Inside a callback that is left to who runs it. */
void fm__engine_leave(fm_engine *engine);
/* Processes that count: all but templates. */
static inline unsigned fm__engine_count_jobs(const fm_engine *engine)
{
    return engine->n_running - engine->n_templates;
}
/* One that is listed in the queue. */
void fm__engine_start_one(fm_future *future);
/* Start jobs while there are slots for them. */
void fm__engine_start_queued(fm_engine *engine);
/* Those whose back-off is over wait for their turn again. */
void fm__engine_requeue(fm_engine *engine, int64_t now);
/* One step, whoever asks for it; as fm_engine_step(). */
int fm__engine_step(fm_engine *engine, int64_t timeout_ns);
/* Run the callbacks of what has settled; returns how many. */
int fm__engine_run_due(fm_engine *engine);
/* Give back everything but the memory; accepts a half-built engine. */
void fm__engine_close_parts(fm_engine *engine);
/* Drop a reference to the memory; the last one frees it. */
void fm__engine_unref(fm_engine *engine);

/* watcher.c */
void fm__watchers_hear(fm_engine *engine, uint64_t tag, unsigned events);
/* None is left afterwards. */
void fm__watchers_drop(fm_engine *engine);

/* trace.c */
void fm__trace(const fm_future *future, const char *from, const char *to);
const char *fm__state_name(enum fm_state state);

#endif
