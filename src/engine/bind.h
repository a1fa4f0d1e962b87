/* SPDX-License-Identifier: MIT */
/*
 * What a language binding needs of the engine beyond fork_map.h.  Internal:
 * shared with src/lua only, no promise to hosts.
 */
#ifndef FM_ENGINE_BIND_H
#define FM_ENGINE_BIND_H

#include "fork_map.h"
#include "wire/sink.h"

/* Tags of result formats (fm_child_set_format, fm_outcome.format). */
enum fm__format {
    FM__FORMAT_BYTES = 0, /* C hosts: opaque */
    FM__FORMAT_JSON = 1,  /* one JSON text and '\n' per value, nil is "" */
    FM__FORMAT_LUA = 2,   /* binary codec */
    FM__FORMAT_CJSON = 3, /* as JSON, written by lua-cjson */
    FM__FORMAT_CUSTOM = 4 /* the string that a pair's encode returned */
};

/* The sink that writes straight into the child's ring.  Its `restart` is
 * fm_child_set_format().  Valid for the life of the child. */
struct fm__sink *fm__child_sink(fm_child *child);

/* What the child's sink holds is no part of the result: an event or the end of
 * the whole map, for the worker whose item this child is.  0 or a negative
 * code. */
int fm__child_put_aside(fm_child *child, bool is_stop);

/* The engine of the processes that items of this worker have of their own.
 * Returns 0 or a negative code. */
int fm__worker_get_engine(fm_worker *worker, fm_engine **ret_engine);

/* Stop the job's clock-driven samples, and start them: a signal on the
 * child's own CPU time, first after 10 ms, calls `sample(ud)` in signal
 * context; so does the parent's request before it kills. */
void fm__child_sample(fm_child *child, void (*sample)(void *ud), void *ud);

/* As fm_engine_step(), but waits also when nothing is alive: for a binding that
 * has timers of its own. */
int fm__engine_rest(fm_engine *engine, int64_t timeout_ns);

/* How many children it may have at once. */
unsigned fm__engine_max_children(const fm_engine *engine);

/* From this monotonic time on (1: now; 0: never) the binding has work of its
 * own: fm_engine_fd() and fm_engine_timeout() tell the host so.  Steps do not
 * heed it. */
void fm__engine_set_alarm(fm_engine *engine, int64_t at_ns);

/* Wait at most so long for any of these engines to have work.  0 or -errno. */
int fm__engines_wait(fm_engine *const *engines, size_t n, int64_t timeout_ns);

/* A descriptor that is readable when its engine has work, and for ever once it
 * is lit: for who waits for one thing among many in a loop of the host. */
struct fm__beacon;

/* Returns 0, or a negative code: -ENOSYS where engines have no descriptor. */
int fm__beacon_new(fm_engine *engine, struct fm__beacon **ret_beacon);
int fm__beacon_fd(const struct fm__beacon *beacon);
void fm__beacon_light(struct fm__beacon *beacon);
int fm__beacon_dim(struct fm__beacon *beacon);
/* NULL is a no-op. */
void fm__beacon_free(struct fm__beacon *beacon);

/* From the first call on, being asked to stop calls `notice(ud)` in signal
 * context, as fm_child_is_cancelled() has it not end the child any more. */
void fm__child_hear_cancel(fm_child *child, void (*notice)(void *ud), void *ud);

/* Flush the child's streams and leave with the code of SIGTERM, without a word:
 * the parent knows why. */
void fm__child_end_cancelled(void) __attribute__((noreturn));

/* -------------------------------------------------------------- templates */

/*
 * A template is a process that forks for its host: small and with one thread,
 * whatever the host has become.  template.h has its states.
 */
typedef struct fm_template fm_template;

enum fm__template_state {
    FM__TEMPLATE_STARTING,
    FM__TEMPLATE_READY,
    FM__TEMPLATE_FAILED,
    FM__TEMPLATE_CLOSED,
    FM__TEMPLATE_AWAY /* it serves nobody, and does something else */
};

/* Why it has failed; `message` is NULL before.  Its texts live as long as the
 * template. */
struct fm__template_failure {
    enum fm_kind kind;
    int error_code, signal, exit_code;
    pid_t pid;
    char *message, *traceback;
};

/* Called from the loop when its state has changed, or everything that was sent
 * has been answered. */
typedef void (*fm__template_cb)(fm_template *template, void *ud);

/* What a job that is forked by a template is made of, and what a call of the
 * binding is: bytes, and a number that tells what they are. */
struct fm__errand {
    uint32_t kind;
    const void *data;
    size_t len;
    int socket;   /* by which the child is a template itself; -1 */
    bool is_last; /* a call that has it leave its loop: nothing is sent after
                     that, and when it is answered the template is AWAY */
    void *ud;     /* in the template: that of struct fm__server_calls */
};

struct fm__template_opts {
    const struct fm_job_opts *job; /* of its process */
    /* Three ways, the first that is given counts: a program, whose last
     * argument will be the number of the socket; a template to fork it off,
     * where `errand` is run; a copy of the host that runs fn(child, ud), and
     * has the socket by fm__child_get_socket(). */
    char *const *argv;
    fm_template *from;
    const struct fm__errand *errand;
    fm_job_fn fn;
    void *ud;
    fm__template_cb on_change;
    void *cb_ud;
};

/* False in builds without them. */
bool fm__has_templates(void);

/* On success `*ret_template` holds one reference.  Returns 0, FM_ECLOSED,
 * -ENOSYS in builds without templates, or another negative code. */
int fm__template_new(fm_engine *engine, const struct fm__template_opts *opts,
                     fm_template **ret_template);

/* The last reference closes it.  NULL is a no-op. */
void fm__template_unref(fm_template *template);

enum fm__template_state fm__template_get_state(const fm_template *template);
const struct fm__template_failure *
fm__template_get_failure(const fm_template *template);
/* 0 when it has none, or none any more. */
pid_t fm__template_get_pid(const fm_template *template);

/* Everything that was sent is answered; or nothing will be any more. */
bool fm__template_is_settled(const fm_template *template);
/* Commands that were given and are not answered. */
size_t fm__template_count_open(const fm_template *template);

/* on_change is called no more. */
void fm__template_forget_change(fm_template *template);

/* Have its binding carry this out, after what was sent before; `fds` are
 * copied.  0, FM_ECLOSED when it takes no more, -EINVAL for too many
 * descriptors, -ENOMEM, -EBADF, -EMFILE. */
int fm__template_call(fm_template *template, const struct fm__errand *errand,
                      const int *fds, size_t n_fds);

/* As fm_spawn(), in a process forked off the template.  What is given is
 * copied. */
int fm__template_spawn(fm_template *template, const struct fm_job_opts *opts,
                       const struct fm__errand *errand, fm_future **ret_future);

/* No more commands: its process ends when it has carried out what was sent, and
 * is ended after `grace_ns`; one that is AWAY has so long, too.  Its children
 * go on.  Idempotent. */
void fm__template_close(fm_template *template, int64_t grace_ns);

/* ------------------------------------------------ inside of a template */

struct fm__server;

struct fm__server_calls {
    /* The job of every child; its `ud` is a struct fm__errand. */
    fm_job_fn job;
    /* A call.  The descriptors are its own from then on.  0; 1: it is answered,
     * and the server leaves its loop; a negative code: it has failed, with the
     * texts that fm__server_fail() was given. */
    int (*call)(struct fm__server *server, const struct fm__errand *errand,
                const int *fds, size_t n_fds, void *ud);
    void *ud;
};

/* Serve the host at the other end of this socket, which becomes ours, until it
 * is closed (0) or a call says to leave (1).  Or a negative code: of a socket
 * that is none, or a host that is not of this version. */
int fm__serve(int fd, const struct fm__server_calls *calls);

/* Both are copied, and cut; NULL: none. */
void fm__server_fail(struct fm__server *server, const char *message,
                     const char *traceback);

/* In a child: the socket by which it is a template; -1 when it is none. */
int fm__child_get_socket(const fm_child *child);

/* True while a callback of this engine's loop runs (waiting is refused). */
bool fm__engine_in_callback(const fm_engine *engine);

/* True in the process that made the engine. */
bool fm__engine_is_ours(const fm_engine *engine);

/* The two words that fm_worker_get_seed() gives for an item, from 0. */
void fm__seed_words(uint64_t seed, uint64_t index, uint64_t ret_seed[2]);

/* Children of children: 0 in a process that no engine made. */
unsigned fm__process_depth(void);

/* 0, or FM_ESHARED when the memory at `p`, of the binding's own allocator, is
 * shared with children: calls would change the host. */
int fm__engine_check_memory(const void *p);

/* A pointer of the binding's, kept where a child writes anyway.  Inherited by
 * forked processes; NULL at first. */
void *fm__process_get_job(void);
void fm__process_set_job(void *job);

#endif
