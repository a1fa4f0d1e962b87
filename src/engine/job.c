/* SPDX-License-Identifier: MIT */
/*
 * How a job begins: its options, checked and copied, its seed, and its place in
 * the queue.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/bind.h"
#include "engine/engine.h"
#include "engine/template.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/sys.h"

const char *fm_job_opts_error(const struct fm_job_opts *opts)
{
    if (opts->timeout_ns < 0)
        return "timeout_ns";
    if (opts->backoff_ns < 0)
        return "backoff_ns";
    if (opts->output > FM_OUTPUT_LINES)
        return "output";
    if (opts->output == FM_OUTPUT_LINES && !opts->on_line)
        return "on_line";
    if (opts->retry_on & ~(FM_KIND_BIT(FM_KIND_COUNT) - 1))
        return "retry_on";
    if (opts->n_keep_fds > 0 && !opts->keep_fds)
        return "keep_fds";
    if (opts->nice < -40 || opts->nice > 40)
        return "nice";
    return NULL;
}

void fm__job_fill_opts(struct fm_job_opts *opts)
{
    if (opts->retry_on == 0)
        opts->retry_on = FM_KIND_BIT(FM_SIGNAL) | FM_KIND_BIT(FM_EXIT) |
                         FM_KIND_BIT(FM_NO_RESULT);
    if (opts->limits.result == 0)
        opts->limits.result = FM__RESULT_DEFAULT;
}

int64_t fm__job_get_pause(const struct fm_job_opts *opts, unsigned attempt)
{
    int64_t pause = opts->backoff_ns;

    for (unsigned i = 1; i < attempt && pause < FM__NEVER / 2; i++)
        pause *= 2;
    return pause;
}

static int copy_opts(fm_future *future, const struct fm_job_opts *opts)
{
    struct fm_job_opts *own = &future->opts;

    if (!opts)
        opts = own; /* zeroed: the defaults */
    *own = *opts;
    own->name = NULL;
    own->keep_fds = NULL;
    fm__job_fill_opts(own);
    if (own->limits.files > 0)
        own->limits.has_files = true;
    if (own->limits.processes > 0)
        own->limits.has_processes = true;
    if (own->limits.file_size > 0)
        own->limits.has_file_size = true;
    if (opts->name) {
        size_t size = strlen(opts->name) + 1;
        char *name = fm__sys.malloc(size);

        if (!name)
            return -ENOMEM;
        memcpy(name, opts->name, size);
        own->name = name;
    }
    if (opts->keep_fds && opts->n_keep_fds > 0) {
        size_t size = opts->n_keep_fds * sizeof *opts->keep_fds;
        int *fds = fm__sys.malloc(size);

        if (!fds)
            return -ENOMEM;
        memcpy(fds, opts->keep_fds, size);
        own->keep_fds = fds;
    }
    return 0;
}

/* Steele, Lea and Flood, "Fast splittable pseudorandom number generators"
 * (2014): the finaliser of SplitMix. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void fm__seed_words(uint64_t seed, uint64_t index, uint64_t ret_seed[2])
{
    ret_seed[0] = mix(seed);
    ret_seed[1] = mix(index ^ ret_seed[0]);
}

static void draw_seed(fm_future *future)
{
    fm_engine *engine = future->engine;

    if (future->opts.has_seed) {
        fm__seed_words(future->opts.seed, future->opts.seed_index,
                       future->seed);
        return;
    }
    engine->random[0] += UINT64_C(0x9e3779b97f4a7c15);
    future->seed[0] = mix(engine->random[0]);
    future->seed[1] = mix(engine->random[1] ^ engine->random[0]);
}

/* The errand and its bytes, in one block. */
static int copy_errand(fm_future *future, const struct fm__errand *errand)
{
    struct fm__errand *own = fm__sys.malloc(sizeof *own + errand->len);

    if (!own)
        return -ENOMEM;
    *own = *errand;
    own->data = own + 1;
    if (errand->len > 0)
        memcpy(own + 1, errand->data, errand->len);
    future->errand = own;
    return 0;
}

#define NUMBER_LEN 12

/* The vector, the texts and room for the socket's number, in one block. */
static int copy_argv(fm_future *future, char *const *argv, int socket)
{
    size_t n = 0, size = NUMBER_LEN;
    char **own;
    char *text;

    for (; argv[n]; n++)
        size += strlen(argv[n]) + 1;
    own = fm__sys.malloc((n + 2) * sizeof *own + size);
    if (!own)
        return -ENOMEM;
    text = (char *)(own + n + 2);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(argv[i]) + 1;

        memcpy(text, argv[i], len);
        own[i] = text;
        text += len;
    }
    (void)snprintf(text, NUMBER_LEN, "%d", socket);
    own[n] = text;
    own[n + 1] = NULL;
    future->argv = own;
    return 0;
}

static int copy_work(fm_future *future, const struct fm__work *work)
{
    int rc = 0;

    if (work->errand && work->origin)
        rc = copy_errand(future, work->errand);
    if (rc == 0 && work->argv)
        rc = copy_argv(future, work->argv, work->socket);
    if (rc < 0)
        return rc;
    future->fn = work->fn;
    future->ud = work->ud;
    future->member = work->member;
    future->duplex = work->duplex;
    if (work->origin) {
        future->origin = work->origin;
        work->origin->refs++;
    }
    future->serves = work->serves;
    if (work->serves)
        future->socket = work->socket;
    return 0;
}

void fm__work_done(fm_future *future)
{
    fm__sys.free(future->errand);
    fm__sys.free(future->argv);
    fm__fd_close(&future->socket);
    fm__template_unref(future->origin);
}

int fm__spawn(fm_engine *engine, const struct fm_job_opts *opts,
              const struct fm__work *work, fm_future **ret_future)
{
    fm_future *future;
    int rc;

    future = fm__future_alloc(engine);
    if (!future)
        return -ENOMEM;
    future->refs = 1;
    future->engine = engine;
    engine->refs++;
    future->pid = (struct fm__pid)FM__PID_INIT;
    future->outputs[0] = (struct fm__output)FM__OUTPUT_INIT;
    future->outputs[1] = (struct fm__output)FM__OUTPUT_INIT;
    future->socket = -1;
    rc = copy_opts(future, opts);
    if (rc == 0)
        rc = copy_work(future, work);
    if (rc < 0) {
        fm_future_unref(future);
        return rc;
    }
    future->job = engine->next_job++;
    draw_seed(future);
    *ret_future = fm_future_ref(future); /* the engine keeps the first */
    fm__list_append(&engine->queue, future);
    if (future->serves && !future->origin)
        fm__engine_start_one(future); /* a copy of us as we are now */
    else if (!engine->in_callback && engine->queue.first == future)
        fm__engine_start_queued(engine);
    return 0;
}

int fm__host_spawn(fm_engine *engine, const struct fm_job_opts *opts,
                   const struct fm__work *work, fm_future **ret_future)
{
    int rc;

    if (!fm__engine_is_ours(engine) || engine->closed)
        return FM_ECLOSED;
    if ((!work->fn && !work->errand) || (opts && fm_job_opts_error(opts)))
        return -EINVAL;
    if (!fm__engine_enter(engine))
        return FM_EBUSY;
    rc = fm__spawn(engine, opts, work, ret_future);
    if (rc < 0)
        fm__engine_exit(engine);
    else
        fm__engine_leave(engine);
    return rc;
}

int fm_spawn(fm_engine *engine, const struct fm_job_opts *opts, fm_job_fn fn,
             void *ud, fm_future **ret_future)
{
    const struct fm__work work = {.fn = fn, .ud = ud};

    return fm__host_spawn(engine, opts, &work, ret_future);
}
