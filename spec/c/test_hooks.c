/* SPDX-License-Identifier: MIT */
/* Hooks around forks: pairs that must not be torn, hosts with threads. */
#include "jobs.h"

#include <pthread.h>
#include <stdatomic.h>

static int take(void *ud)
{
    ++*(int *)ud;
    return 0;
}

static int give_back(void *ud)
{
    --*(int *)ud;
    return 0;
}

static int refuse(void *ud)
{
    (void)ud;
    return -EPERM;
}

TEST(a_hook_that_refuses_undoes_what_ran_before_it_and_nothing_else)
{
    fm_engine *engine = new_engine();
    int never = 0, taken = 0, undone = 0;
    const struct fm_outcome *outcome;
    fm_future *future;

    /* before hooks run backwards */
    CHECK(fm_at_fork(engine, take, give_back, NULL, &never) > 0);
    CHECK(fm_at_fork(engine, refuse, take, NULL, &never) > 0);
    CHECK(fm_at_fork(engine, take, give_back, NULL, &taken) > 0);
    CHECK(fm_at_fork(engine, NULL, take, NULL, &undone) > 0);
    future = spawn(engine, NULL, say_hello, NULL);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_SPAWN);
    CHECK_INT(outcome->error_code, -EPERM);
    CHECK_INT(never, 0);
    CHECK_INT(taken, 0);
    CHECK_INT(undone, 1);
    fm_future_unref(future);
    fm_engine_free(engine);
}

TEST(a_parent_hook_that_fails_does_not_keep_others_from_running)
{
    fm_engine *engine = new_engine();
    fm_future *future;
    int taken = 0;

    CHECK(fm_at_fork(engine, NULL, refuse, NULL, NULL) > 0);
    CHECK(fm_at_fork(engine, take, give_back, NULL, &taken) > 0);
    future = spawn(engine, NULL, say_hello, NULL);
    CHECK_INT(wait_for(engine, future)->kind, FM_SPAWN);
    CHECK_INT(taken, 0);
    fm_future_unref(future);
    fm_engine_free(engine);
}

static atomic_bool is_over;

static void *register_and_remove(void *ud)
{
    int ids[20];

    (void)ud;
    while (!atomic_load(&is_over)) {
        for (int i = 0; i < 20; i++)
            ids[i] = fm_at_fork(NULL, NULL, NULL, NULL, NULL);
        for (int i = 0; i < 20; i++)
            fm_at_fork_remove(ids[i]);
    }
    return NULL;
}

TEST(children_do_not_wait_for_a_thread_that_was_registering_hooks)
{
    struct fm_engine_opts opts = {.on_threads = FM_THREADS_IGNORE};
    fm_engine *engine;
    pthread_t thread;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    CHECK_INT(pthread_create(&thread, NULL, register_and_remove, NULL), 0);
    for (int i = 0; i < 400; i++) {
        fm_future *future = spawn(engine, NULL, say_hello, NULL);

        is_hello(wait_for(engine, future));
        fm_future_unref(future);
    }
    atomic_store(&is_over, true);
    CHECK_INT(pthread_join(thread, NULL), 0);
    fm_engine_free(engine);
}
