/* SPDX-License-Identifier: MIT */
/*
 * A child's life, from fork to _exit; see child.h.
 *
 * Until the job runs, the child calls only what is safe after a fork in a
 * process with threads: system calls, and glibc's purge of streams.
 */
#include "process/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "os/clock.h"
#include "os/fds.h"
#include "os/memory.h"
#include "os/signals.h"
#include "os/sys.h"
#include "process/lifeline.h"
#include "process/limits.h"
#include "process/locks.h"
#include "process/outbox.h"
#include "process/serving.h"
#include "process/stdio.h"

#define SAMPLE_SIGNAL SIGPROF
#define SAMPLE_FIRST_NS (10 * FM__NS_PER_MS)
#define SAMPLE_EVERY_NS (20 * FM__NS_PER_MS)
#define OOM_SCORE "500"

/* The default of fm_job_opts.grace_ns and what the kernel's backstop adds. */
#define GRACE_DEFAULT_NS FM__NS_PER_S
#define BACKSTOP_EXTRA_NS FM__NS_PER_S

struct fm_child {
    struct fm__outbox outbox;
    const struct fm__launch *launch;
    struct fm__channel *channel;
    pid_t pid, parent;
    bool has_verdict;  /* FAIL, REFUSE or EXCEED was said */
    bool hears_cancel; /* SIGTERM does not end it */
    void (*volatile sample)(void *ud);
    void *volatile sample_ud;
    volatile sig_atomic_t ticks;
    bool is_serving;
    struct fm__serving serving; /* made when it is asked for */
};

/* The job of this process, if it is a child; inherited, stale, by children of
 * the child, which the process id tells. */
static struct fm_child *current;
static unsigned depth;
static void *job_of_binding;

void *fm__child_get_job(void)
{
    return job_of_binding;
}

void fm__child_set_job(void *job)
{
    job_of_binding = job;
}

fm_child *fm_child_current(void)
{
    if (!current || current->pid != fm__sys.getpid())
        return NULL;
    return current;
}

unsigned fm__child_depth(void)
{
    return depth;
}

void fm__child_set_depth(unsigned n)
{
    depth = n;
}

/* ------------------------------------------------------------ leaving */

/*
 * What the job leaves running ends with it.  The parent sees to that when it
 * reaps us, and the kernel when the parent dies; but a parent that dies while
 * we end by ourselves may drop the lifeline a moment after we did, when the
 * kernel knows nobody to kill any more.  So step out of our own group, back
 * into the parent's, and kill who is left in it.
 */
static void end_group(const struct fm_child *child)
{
    if (fm__sys.setpgid(0, child->launch->parent_group) == 0)
        fm__sys.kill_if_any(-child->pid, SIGKILL);
}

static _Noreturn void leave(struct fm_child *child, int code)
{
    /* In the group of a template wait children of which the parent has yet to
     * hear: it takes them out, and sees to the rest. */
    if (child->launch->socket < 0)
        end_group(child);
    atomic_store(&child->channel->flight->stage, FM__STAGE_LEAVING);
    fm__exit_now(code);
}

static volatile sig_atomic_t is_cancelled;

/* Also called in the handler, by who has asked for that. */
static void (*volatile hear_cancel)(void *ud);
static void *hear_cancel_ud;

static _Noreturn void tell_exit(struct fm_child *child, int32_t code)
{
    fm__stdio_flush();
    (void)fm__outbox_put(&child->outbox, FM__FRAME_EXITED, &code, sizeof code);
    leave(child, code >= 0 ? code : 0);
}

_Noreturn void fm_child_exit(fm_child *child, int code)
{
    tell_exit(child, code & 0xff);
}

/* C exit() in the child, or in a process that it forked: none of the host's
 * handlers run, they were registered before and would run after this. */
static _Noreturn void leave_instead(struct fm_child *child, int code)
{
    if (child->pid == fm__sys.getpid())
        tell_exit(child, code);
    fm__stdio_flush();
    fm__exit_now(code >= 0 ? code : 0);
}

#ifdef __GLIBC__
static void on_exit_called(int code, void *ud)
{
    leave_instead(ud, code & 0xff);
}

static int catch_exit(struct fm_child *child)
{
    return on_exit(on_exit_called, child) == 0 ? 0 : -ENOMEM;
}
#else
/* atexit() does not tell the code. */
static void on_atexit_called(void)
{
    leave_instead(current, FM__CODE_UNKNOWN);
}

static int catch_exit(struct fm_child *child)
{
    (void)child;
    return atexit(on_atexit_called) == 0 ? 0 : -ENOMEM;
}
#endif

static _Noreturn void not_started(struct fm_child *child, const char *step,
                                  int rc)
{
    char payload[4 + 256];
    int32_t code = rc;
    size_t len = strnlen(step, sizeof payload - sizeof code);

    memcpy(payload, &code, sizeof code);
    memcpy(payload + sizeof code, step, len);
    (void)fm__outbox_put(&child->outbox, FM__FRAME_START_FAILED, payload,
                         sizeof code + len);
    leave(child, 1);
}

/* ----------------------------------------------------------- sampling */

/* The first tick is also the first sign that this child uses real time: make
 * the kernel prefer it to the host when memory runs out.  Short calls save
 * the three system calls. */
static void raise_oom_score(void)
{
    int fd = fm__sys.open("/proc/self/oom_score_adj", O_WRONLY, 0);

    if (fd < 0)
        return;
    (void)!fm__sys.write(fd, OOM_SCORE, sizeof OOM_SCORE - 1);
    (void)fm__sys.close(fd);
}

static void on_sample_signal(int sig)
{
    struct fm_child *child = fm_child_current();
    int saved = errno;

    (void)sig;
    if (child) {
        if (child->ticks++ == 0)
            raise_oom_score();
        if (child->sample)
            child->sample(child->sample_ud);
    }
    errno = saved;
}

/* A job runs without its recorder, if need be: the kernel gives a user only so
 * many timers (RLIMIT_SIGPENDING). */
static int start_ticks(struct fm_child *child)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_sample_signal;
    action.sa_flags = SA_RESTART;
    if (fm__sys.sigaction(SAMPLE_SIGNAL, &action, NULL) < 0)
        return -errno;
    atomic_store(&child->channel->flight->sampler, SAMPLE_SIGNAL);
    if (fm__clock_arm(CLOCK_PROCESS_CPUTIME_ID, SAMPLE_SIGNAL, SAMPLE_FIRST_NS,
                      SAMPLE_EVERY_NS) < 0)
        raise_oom_score(); /* no tick will */
    return 0;
}

void fm__child_set_sampler(fm_child *child, void (*sample)(void *ud), void *ud)
{
    child->sample_ud = ud;
    child->sample = sample;
}

/* ------------------------------------------------------ start-up order */

/* Its own process group, so that one signal reaches all it starts; then the
 * host's signal handlers are gone before any signal can be delivered; then
 * the kernel knows whom to kill when the host dies. */
static int come_alive(struct fm_child *child, const char **ret_step)
{
    const struct fm__launch *launch = child->launch;
    int rc = 0;

    /* Until the host knows it, one that a template has forked stays in the
     * template's group, with which it ends. */
    *ret_step = "gate";
    if (launch->is_sibling)
        rc = fm__flight_pass_gate(child->channel->flight, child->parent);
    if (rc < 0)
        return rc;
    *ret_step = "setpgid";
    if (fm__sys.setpgid(0, 0) < 0)
        return -errno;
    *ret_step = "signals";
    rc = fm__signals_reset();
    if (rc == 0)
        rc = fm__signals_open();
    if (rc == 0) {
        *ret_step = "lifeline";
        rc = fm__lifeline_arm(&child->channel->lifeline, child->pid);
    }
    if (rc == 0 && !launch->is_sibling) {
        *ret_step = "gate";
        rc = fm__flight_pass_gate(child->channel->flight, child->parent);
    }
    return rc;
}

static bool keeps_stdin(const struct fm_job_opts *opts)
{
    for (size_t i = 0; i < opts->n_keep_fds; i++) {
        if (opts->keep_fds[i] == 0)
            return true;
    }
    return opts->keep_stdin;
}

/* Descriptors first, so that nothing opened later is taken for the host's;
 * then the standard streams. */
static int settle_files(struct fm_child *child, const char **ret_step)
{
    const struct fm__launch *launch = child->launch;
    const struct fm_job_opts *opts = launch->opts;
    int rc = 0;

    *ret_step = "keep_fds";
    if (opts->has_keep_fds)
        rc = fm__fds_bury_others(opts->keep_fds, opts->n_keep_fds);
    if (rc == 0 && !keeps_stdin(opts)) {
        *ret_step = "stdin";
        rc = fm__sys.dup2(launch->null_fd, 0) < 0 ? -errno : 0;
    }
    fm__stdio_purge();
    for (int i = 0; rc == 0 && i < 2; i++) {
        *ret_step = "output";
        rc = fm__output_redirect(&launch->outputs[i], i + 1, opts->output,
                                 launch->null_fd);
    }
    return rc;
}

static int64_t grace_of(const struct fm_job_opts *opts)
{
    if (opts->grace_ns == 0)
        return GRACE_DEFAULT_NS;
    return opts->grace_ns > 0 ? opts->grace_ns : 0;
}

static int settle_limits(struct fm_child *child, const char **ret_step)
{
    const struct fm_job_opts *opts = child->launch->opts;
    int64_t backstop = fm__clock_after(grace_of(opts), BACKSTOP_EXTRA_NS);
    struct fm_limits limits = opts->limits;
    int rc = 0;

    if (opts->name)
        (void)fm__sys.prctl(PR_SET_NAME, (unsigned long)opts->name);
    *ret_step = "nice";
    if (opts->nice != 0) {
        errno = 0;
        rc = fm__sys.getpriority(PRIO_PROCESS, 0);
        if (rc != -1 || errno == 0)
            rc = fm__sys.setpriority(PRIO_PROCESS, 0, rc + opts->nice);
        rc = rc < 0 ? -errno : 0;
    }
    if (rc == 0 && opts->timeout_ns > 0) {
        *ret_step = "timer";
        rc = fm__limits_backstop(fm__clock_after(backstop, opts->timeout_ns));
    }
    if (rc == 0) {
        *ret_step = "sampler";
        rc = start_ticks(child);
    }
    if (child->launch->is_worker)
        limits.cpu_ns = 0;
    return rc < 0 ? rc : fm__limits_apply(&limits, ret_step);
}

static void next_stage(struct fm__flight *flight, enum fm__stage from,
                       enum fm__stage to)
{
    if (!fm__flight_enter(flight, from, to))
        fm__exit_now(1); /* the parent has given up */
}

static void try_locks(struct fm__flight *flight)
{
    next_stage(flight, FM__STAGE_START, FM__STAGE_TRYING);
    fm__locks_try();
    next_stage(flight, FM__STAGE_TRYING, FM__STAGE_START);
}

static void put_in_order(struct fm_child *child)
{
    const struct fm__launch *launch = child->launch;
    const char *step;
    int rc = come_alive(child, &step);

    if (rc == -ECANCELED)
        fm__exit_now(1); /* nobody listens any more */
    if (rc == 0)
        rc = settle_files(child, &step);
    if (rc == 0) {
        step = "exit handler";
        rc = catch_exit(child);
    }
    if (rc == 0)
        rc = settle_limits(child, &step);
    if (rc == 0 && launch->tries_locks)
        try_locks(child->channel->flight);
    if (rc == 0) {
        step = "at_fork hook";
        rc = launch->child_hooks(launch->hooks_ud);
    }
    if (rc < 0)
        not_started(child, step, rc);
}

_Noreturn void fm__child_main(const struct fm__launch *launch, pid_t parent)
{
    struct fm_child child;
    int rc;

    memset(&child, 0, offsetof(struct fm_child, outbox.bounce));
    child.has_verdict = false;
    child.hears_cancel = false;
    hear_cancel = NULL; /* of a child that forks children of its own */
    child.sample = NULL;
    child.sample_ud = NULL;
    child.ticks = 0;
    child.is_serving = false;
    child.launch = launch;
    child.channel = launch->channel;
    child.pid = fm__sys.getpid();
    child.parent = parent;
    fm__outbox_init(&child.outbox, &launch->channel->ring, launch->bell, parent,
                    launch->job);
    child.outbox.limit = launch->opts->limits.result;
    current = &child;
    depth = launch->depth + 1;
    put_in_order(&child);
    next_stage(child.channel->flight, FM__STAGE_START, FM__STAGE_RUN);
    rc = launch->fn(&child, launch->ud);
    if (rc < 0 && !child.has_verdict)
        (void)fm_child_fail(&child, fm_strerror(rc), NULL);
    /* What it printed is written before its result counts. */
    fm__stdio_flush();
    rc = fm__outbox_end(&child.outbox);
    if (launch->ring_at_end && fm__ring_must_ring(&child.outbox.ring))
        (void)fm__bell_ring(launch->bell);
    leave(&child, rc < 0);
}

struct fm__serving *fm__child_get_serving(fm_child *child)
{
    const struct fm__launch *launch = child->launch;

    if (!launch->desk)
        return NULL;
    if (!child->is_serving) {
        child->is_serving = true;
        /* What this process forks has nothing to do with it. */
        (void)fm__memory_inherit(launch->desk, FM__DESK_SIZE, false);
        fm__fd_keep(launch->desk_bell.hear_fd, false);
        fm__serving_init(&child->serving, &child->outbox, launch->desk,
                         &launch->desk_bell);
    }
    return &child->serving;
}

/* -------------------------------------------------- for the job function */

struct fm__sink *fm__child_get_sink(fm_child *child)
{
    return &child->outbox.sink;
}

static void on_cancel_signal(int sig)
{
    void (*hear)(void *ud) = hear_cancel;

    (void)sig;
    is_cancelled = 1;
    if (hear)
        hear(hear_cancel_ud);
}

void fm__child_set_hear_cancel(void (*hear)(void *ud), void *ud)
{
    hear_cancel_ud = ud;
    atomic_signal_fence(memory_order_seq_cst);
    hear_cancel = hear;
}

_Noreturn void fm__child_leave_cancelled(void)
{
    fm__stdio_flush();
    fm__exit_now(128 + SIGTERM);
}

bool fm_child_is_cancelled(fm_child *child)
{
    struct sigaction action;

    if (!child->hears_cancel) {
        memset(&action, 0, sizeof action);
        action.sa_handler = on_cancel_signal;
        is_cancelled = 0;
        child->hears_cancel = fm__sys.sigaction(SIGTERM, &action, NULL) == 0;
    }
    return is_cancelled != 0;
}

bool fm__child_was_cancelled(const fm_child *child)
{
    return child->hears_cancel && is_cancelled != 0;
}

struct fm__outbox *fm__child_get_outbox(fm_child *child)
{
    return &child->outbox;
}

struct fm__channel *fm__child_get_channel(fm_child *child)
{
    return child->channel;
}

int fm_child_write(fm_child *child, const void *data, size_t len)
{
    return fm__sink_write(&child->outbox.sink, data, len);
}

int fm_child_set_format(fm_child *child, int format)
{
    return child->outbox.sink.restart(&child->outbox.sink, format);
}

static int say(fm_child *child, enum fm__frame_type type, const char *first,
               const char *second)
{
    int rc = fm__outbox_put_pair(&child->outbox, type, first, second);

    if (rc == 0)
        child->has_verdict = true;
    return rc;
}

int fm_child_fail(fm_child *child, const char *message, const char *traceback)
{
    return say(child, FM__FRAME_FAIL, message, traceback);
}

int fm_child_refuse(fm_child *child, const char *path, const char *message)
{
    return say(child, FM__FRAME_REFUSE, path, message);
}

int fm_child_exceed(fm_child *child, const char *limit, const char *message)
{
    return say(child, FM__FRAME_EXCEED, limit, message);
}

int fm__child_get_socket(const fm_child *child)
{
    return child->launch->socket;
}

void fm_child_note(fm_child *child, const char *where)
{
    fm__flight_note(child->channel->flight, where);
}

const struct fm_job_opts *fm_child_get_opts(const fm_child *child)
{
    return child->launch->opts;
}

void fm_child_get_seed(const fm_child *child, uint64_t ret_seed[2])
{
    ret_seed[0] = child->launch->seed[0];
    ret_seed[1] = child->launch->seed[1];
}

unsigned fm_child_get_attempt(const fm_child *child)
{
    return child->launch->attempt;
}
