/* SPDX-License-Identifier: MIT */
/* Faults in templates, their hosts and their children: see sweep.h. */
#include "served.h"
#include "sweep.h"

#include <stdlib.h>

#include "engine/duplex.h"
#include "engine/template.h"
#include "os/clock.h"

enum { ECHO = 1, SERVE };

/* More than goes in a message. */
#define LARGE (FM__COMMAND_INLINE + 1000)

/* ---------------------------------------------------------- in the template */

static int do_job(fm_child *child, void *ud)
{
    const struct fm__errand *errand = ud;

    if (errand->kind == SERVE)
        return serve(child, NULL);
    return fm_child_write(child, errand->data, errand->len);
}

static int do_call(struct fm__server *server, const struct fm__errand *errand,
                   const int *fds, size_t n_fds, void *ud)
{
    (void)server;
    (void)errand;
    (void)ud;
    for (size_t i = 0; i < n_fds; i++)
        (void)close(fds[i]);
    return 0;
}

static const struct fm__server_calls server_calls = {.job = do_job,
                                                     .call = do_call};

/* ------------------------------------------------------------- in the host */

static char bytes[LARGE];

/* Where the ring is smaller than a result, a child needs the bell, and a fault
 * may leave it nothing but its code. */
#ifdef FM_TINY
#define KINDS_TOLD (KINDS | FM_KIND_BIT(FM_EXIT))
#else
#define KINDS_TOLD KINDS
#endif

static bool is_echo(const struct fm_outcome *outcome)
{
    return outcome->kind == FM_VALUE && outcome->len > 0 &&
           outcome->len <= sizeof bytes &&
           memcmp(outcome->data, bytes, outcome->len) == 0;
}

static bool is_echo_or_cancelled(const struct fm_outcome *outcome)
{
    return is_echo(outcome) || outcome->kind == FM_CANCELLED;
}

enum { SMALL, LARGER, CAPTURED, DUPLEX, CANCELLED, OF_SECOND, N_JOBS };

struct things {
    fm_engine *engine;
    fm_template *first, *second;
    fm_future *jobs[N_JOBS];
};

static int ask(const struct things *things, int which, fm_future **ret_future)
{
    struct fm__errand errand = {
        .kind = ECHO, .data = bytes, .len = which == LARGER ? LARGE : 10};
    struct fm_job_opts opts = {.name = "job of a template"};

    if (which == CAPTURED)
        opts.output = FM_OUTPUT_CAPTURE;
    if (which == DUPLEX)
        return fm__template_spawn_duplex(things->first, &opts, &errand,
                                         ret_future);
    return fm__template_spawn(which == OF_SECOND ? things->second
                                                 : things->first,
                              &opts, &errand, ret_future);
}

static void expect_rc(int rc, bool is_faultless, const char *text)
{
    expect(rc <= 0 && (rc == 0 || !is_faultless), text, rc);
    n_refused += rc < 0;
}

static void make_things(struct things *things,
                        const struct fm__template_opts *opts, bool is_faultless)
{
    struct fm__errand errand = {.kind = SERVE, .data = bytes, .len = 1};
    struct fm__template_opts forked = {.errand = &errand};
    int null_fd = 0;

    expect_rc(fm__template_new(things->engine, opts, &things->first),
              is_faultless, "first template");
    if (!things->first)
        return;
    forked.from = things->first;
    if (fm__template_get_state(things->first) != FM__TEMPLATE_FAILED)
        expect_rc(fm__template_call(things->first, &errand, &null_fd, 1),
                  is_faultless, "call");
    expect_rc(fm__template_new(things->engine, &forked, &things->second),
              is_faultless, "second template");
    for (int i = 0; i < N_JOBS; i++) {
        if (i != OF_SECOND || things->second)
            expect_rc(ask(things, i, &things->jobs[i]), is_faultless, "spawn");
    }
}

static void judge_job(fm_future *future, const struct scenario *scenario,
                      int which, bool is_faultless)
{
    struct scenario own = *scenario;

    if (which == CANCELLED)
        own.is_own = is_echo_or_cancelled;
    expect(fm_future_get_state(future) == FM_SETTLED, "a job hangs", which);
    judge(&own, fm_future_get_outcome(future), is_faultless);
    fm_future_unref(future);
}

/* A fault that is past leaves a template that works, or has failed. */
static void ask_again(struct things *things, const struct scenario *scenario)
{
    if (!calls_again || !fault_page->reached || !things->first ||
        fm__template_get_state(things->first) != FM__TEMPLATE_READY)
        return;
    fault_disarm();
    for (int i = 0; i < 4; i++) {
        fm_future *future = NULL;

        expect(ask(things, LARGER, &future) == 0, "again", i);
        step_until_settled(things->engine, future, now_ns() + RUN_NS);
        judge_job(future, scenario, LARGER,
                  fm__template_get_state(things->first) == FM__TEMPLATE_READY);
    }
}

static void let_go(fm_template *template)
{
    if (template)
        fm__template_close(template, 100 * FM__NS_PER_MS);
    fm__template_unref(template);
}

static void run_template(const struct scenario *scenario,
                         const struct fm__template_opts *opts,
                         bool is_faultless)
{
    int64_t until = now_ns() + RUN_NS;
    struct things things;
    int rc;

    memset(&things, 0, sizeof things);
    memset(bytes, 'b', sizeof bytes);
    rc = fm_engine_new(NULL, &things.engine);
    expect_rc(rc, is_faultless, "engine");
    if (rc < 0)
        return;
    make_things(&things, opts, is_faultless);
    (void)fm_engine_step(things.engine, 0);
    if (things.jobs[CANCELLED])
        (void)fm_future_cancel(things.jobs[CANCELLED], 0);
    for (int i = 0; i < N_JOBS; i++) {
        if (things.jobs[i])
            step_until_settled(things.engine, things.jobs[i], until);
    }
    ask_again(&things, scenario);
    let_go(things.second);
    let_go(things.first);
    fm_engine_free(things.engine);
    for (int i = 0; i < N_JOBS; i++) {
        if (things.jobs[i])
            judge_job(things.jobs[i], scenario, i, is_faultless);
    }
    expect(now_ns() < until, "took too long", (now_ns() - until) / MS);
}

static void run_forked(const struct scenario *scenario, bool is_faultless)
{
    const struct fm__template_opts opts = {.fn = serve};

    run_template(scenario, &opts, is_faultless);
}

static void run_executed(const struct scenario *scenario, bool is_faultless)
{
    const struct fm__template_opts opts = {.argv = served_argv};

    run_template(scenario, &opts, is_faultless);
}

TEST(a_fault_around_a_forked_template_costs_at_most_outcomes)
{
    static const struct scenario scenario = {
        .run = run_forked, .is_own = is_echo, .kinds = KINDS_TOLD};

    sweep(&scenario);
}

TEST(a_fault_around_an_executed_template_costs_at_most_outcomes)
{
    static const struct scenario scenario = {
        .run = run_executed, .is_own = is_echo, .kinds = KINDS_TOLD};

    sweep(&scenario);
}
