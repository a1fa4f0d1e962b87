/* SPDX-License-Identifier: MIT */
/* Watchers: who is called from a step, and for how long a step waits. */
#include "jobs.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "engine/engine.h"
#include "os/clock.h"
#include "os/sys.h"

/* A watcher, its descriptors, and what it was told. */
struct seen {
    struct fm__watcher watcher;
    int fds[2];
    int calls;
    unsigned events;
    bool reads; /* takes one byte when it is called */
    struct fm__watcher *removes;
};

static void see(struct fm__watcher *watcher, unsigned events)
{
    struct seen *seen = watcher->ud;
    char byte;

    seen->calls++;
    seen->events = events;
    if (seen->reads)
        CHECK_INT(read(seen->fds[0], &byte, 1), 1);
    if (seen->removes)
        fm__watcher_remove(seen->removes);
    fm__watcher_end_step(watcher);
}

static void open_pair(struct seen *seen)
{
    memset(seen, 0, sizeof *seen);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, seen->fds), 0);
    seen->watcher.fn = see;
    seen->watcher.ud = seen;
}

static void close_pair(struct seen *seen)
{
    (void)close(seen->fds[0]);
    (void)close(seen->fds[1]);
}

static void poke(const struct seen *seen)
{
    CHECK_INT(write(seen->fds[1], "x", 1), 1);
}

static void watch(fm_engine *engine, struct seen *seen, unsigned events)
{
    CHECK_INT(fm__watcher_add(engine, &seen->watcher, seen->fds[0], events), 0);
}

/* An engine, and one that watches. */
static fm_engine *begin(struct seen *seen, unsigned events)
{
    fm_engine *engine = new_engine();

    open_pair(seen);
    watch(engine, seen, events);
    return engine;
}

static void end(fm_engine *engine, struct seen *seen)
{
    fm__watcher_remove(&seen->watcher);
    close_pair(seen);
    fm_engine_free(engine);
}

/* Another one of the same descriptor. */
static void open_second(struct seen *second, const struct seen *first)
{
    *second = *first;
    second->watcher.ud = second;
}

/* How often it has been called, once there was another step. */
static int calls_after_step(fm_engine *engine, const struct seen *seen)
{
    CHECK_INT(fm_engine_step(engine, 0), 0);
    return seen->calls;
}

/* What a step tells it of when it watches for `events`. */
static unsigned told_of(struct seen *seen, unsigned events)
{
    CHECK_INT(fm__watcher_set(&seen->watcher, events), 0);
    CHECK_INT(fm_engine_step(seen->watcher.engine, 0), 0);
    return seen->events;
}

TEST(a_step_calls_the_watcher_of_a_ready_descriptor)
{
    struct seen seen;
    fm_engine *engine = begin(&seen, FM__POLL_IN);

    CHECK_INT(calls_after_step(engine, &seen), 0);
    poke(&seen);
    CHECK_INT(calls_after_step(engine, &seen), 1);
    CHECK_INT(seen.events, FM__POLL_IN);
    /* As long as it is ready. */
    CHECK_INT(calls_after_step(engine, &seen), 2);
    fm__watcher_remove(&seen.watcher);
    CHECK_INT(calls_after_step(engine, &seen), 2);
    end(engine, &seen);
}

TEST(a_step_waits_only_for_a_watcher_that_holds)
{
    struct seen seen;
    fm_engine *engine = begin(&seen, FM__POLL_IN);
    int64_t before;

    /* For ever, if it waited: the runner would end it. */
    CHECK_INT(fm_engine_step(engine, -1), 0);
    fm__watcher_remove(&seen.watcher);
    seen.watcher.holds = true;
    watch(engine, &seen, FM__POLL_IN);
    before = fm__clock_now();
    CHECK_INT(fm_engine_step(engine, 30 * MS), 0);
    CHECK(fm__clock_now() - before >= 30 * MS);
    CHECK_INT(seen.calls, 0);
    poke(&seen);
    CHECK_INT(fm_engine_step(engine, -1), 0);
    CHECK_INT(seen.calls, 1);
    CHECK_INT(fm__watcher_set(&seen.watcher, 0), 0);
    CHECK_INT(fm_engine_step(engine, -1), 0);
    CHECK_INT(seen.calls, 1);
    end(engine, &seen);
}

TEST(a_watcher_is_called_while_jobs_run)
{
    fm_engine *engine = new_engine();
    fm_future *future = spawn(engine, NULL, hang, NULL);
    struct seen seen;

    open_pair(&seen);
    watch(engine, &seen, FM__POLL_IN);
    poke(&seen);
    while (seen.calls == 0)
        CHECK(fm_engine_step(engine, -1) >= 0);
    fm__watcher_remove(&seen.watcher);
    CHECK_INT(fm_future_cancel(future, 0), 1);
    CHECK_INT(wait_for(engine, future)->kind, FM_CANCELLED);
    fm_future_unref(future);
    close_pair(&seen);
    fm_engine_free(engine);
}

TEST(a_watcher_is_told_of_what_it_watches_for_alone)
{
    fm_engine *engine = new_engine();
    struct seen seen;

    open_pair(&seen);
    poke(&seen);
    watch(engine, &seen, FM__POLL_OUT);
    CHECK_INT(fm_engine_step(engine, 0), 0);
    CHECK_INT(seen.events, FM__POLL_OUT);
    CHECK_INT(told_of(&seen, FM__POLL_IN | FM__POLL_OUT),
              FM__POLL_IN | FM__POLL_OUT);
    CHECK_INT(told_of(&seen, FM__POLL_IN), FM__POLL_IN);
    end(engine, &seen);
}

TEST(a_hang_up_is_told_to_readers_and_writers_and_not_to_who_pauses)
{
    fm_engine *engine = new_engine();
    struct seen seen;

    open_pair(&seen);
    CHECK_INT(shutdown(seen.fds[1], SHUT_RDWR), 0);
    watch(engine, &seen, 0);
    CHECK_INT(calls_after_step(engine, &seen), 0);
    CHECK_INT(told_of(&seen, FM__POLL_OUT), FM__POLL_OUT);
    CHECK_INT(told_of(&seen, FM__POLL_IN), FM__POLL_IN);
    CHECK_INT(fm__watcher_set(&seen.watcher, 0), 0);
    CHECK_INT(calls_after_step(engine, &seen), 2);
    end(engine, &seen);
}

TEST(several_watch_one_descriptor)
{
    fm_engine *engine = new_engine();
    struct seen a, b;

    open_pair(&a);
    open_second(&b, &a);
    watch(engine, &a, FM__POLL_IN);
    watch(engine, &b, FM__POLL_OUT);
    CHECK_INT(calls_after_step(engine, &a), 0);
    CHECK_INT(b.events, FM__POLL_OUT);
    poke(&a);
    CHECK_INT(fm_engine_step(engine, 0), 0);
    CHECK_INT(a.events, FM__POLL_IN);
    fm__watcher_remove(&b.watcher);
    CHECK_INT(calls_after_step(engine, &a), 2);
    CHECK_INT(b.calls, 2);
    end(engine, &a);
}

TEST(one_that_was_removed_in_the_same_batch_is_not_called)
{
    fm_engine *engine = new_engine();
    struct seen a, b, c;

    /* b and c of different descriptors, a and b of the same one. */
    open_pair(&a);
    open_pair(&c);
    open_second(&b, &a);
    watch(engine, &a, FM__POLL_IN);
    watch(engine, &b, FM__POLL_IN);
    watch(engine, &c, FM__POLL_IN);
    poke(&a);
    poke(&c);
    a.removes = &b.watcher;
    b.removes = &a.watcher;
    c.removes = &c.watcher; /* itself */
    CHECK_INT(fm_engine_step(engine, 0), 0);
    CHECK_INT(a.calls + b.calls, 1);
    CHECK_INT(c.calls, 1);
    CHECK_INT(fm_engine_step(engine, 0), 0);
    CHECK_INT(a.calls + b.calls, 2);
    CHECK_INT(c.calls, 1);
    fm__watcher_remove(&a.watcher);
    fm__watcher_remove(&b.watcher);
    close_pair(&a);
    close_pair(&c);
    fm_engine_free(engine);
}

/* Removes both, and has other descriptors take their slots. */
struct swap {
    struct seen *victim;
    struct seen *fresh; /* two */
};

static void swap_slots(struct fm__watcher *watcher, unsigned events)
{
    struct swap *swap = watcher->ud;
    fm_engine *engine = watcher->engine;

    (void)events;
    fm__watcher_remove(&swap->victim->watcher);
    fm__watcher_remove(watcher);
    for (int i = 0; i < 2; i++)
        watch(engine, &swap->fresh[i], FM__POLL_IN);
}

TEST(an_event_of_a_slot_that_another_has_taken_is_not_heard)
{
    fm_engine *engine = new_engine();
    struct seen pairs[2], fresh[2];
    struct swap swaps[2];

    for (int i = 0; i < 2; i++) {
        open_pair(&fresh[i]);
        open_pair(&pairs[i]);
        poke(&pairs[i]);
        pairs[i].watcher.fn = swap_slots;
        pairs[i].watcher.ud = &swaps[i];
        swaps[i].victim = &pairs[1 - i];
        swaps[i].fresh = fresh;
        watch(engine, &pairs[i], FM__POLL_IN);
    }
    CHECK_INT(fm_engine_step(engine, 0), 0);
    for (int i = 0; i < 2; i++) {
        CHECK(fresh[i].watcher.engine == engine);
        CHECK_INT(fresh[i].calls, 0);
        fm__watcher_remove(&fresh[i].watcher);
        close_pair(&pairs[i]);
        close_pair(&fresh[i]);
    }
    fm_engine_free(engine);
}

/* Adds another one of the same descriptor. */
static void add_next(struct fm__watcher *watcher, unsigned events)
{
    struct seen *seen = watcher->ud;

    seen->calls++;
    seen->events = events;
    if (seen->calls == 1)
        CHECK_INT(fm__watcher_add(watcher->engine, seen->removes, watcher->fd,
                                  FM__POLL_IN),
                  0);
}

TEST(one_that_is_added_in_a_batch_hears_of_the_next)
{
    fm_engine *engine = new_engine();
    struct seen a, b;

    open_pair(&a);
    open_second(&b, &a);
    a.watcher.fn = add_next;
    a.removes = &b.watcher;
    watch(engine, &a, FM__POLL_IN);
    poke(&a);
    CHECK_INT(calls_after_step(engine, &a), 1);
    CHECK_INT(b.calls, 0);
    CHECK_INT(calls_after_step(engine, &a), 2);
    CHECK_INT(b.calls, 1);
    fm__watcher_remove(&a.watcher);
    fm__watcher_remove(&b.watcher);
    close_pair(&a);
    fm_engine_free(engine);
}

TEST(hundreds_of_watchers_are_each_told_of_their_own)
{
    static struct seen all[300];
    fm_engine *engine = new_engine();

    for (int i = 0; i < 300; i++) {
        open_pair(&all[i]);
        all[i].reads = true;
        all[i].watcher.holds = true;
        watch(engine, &all[i], FM__POLL_IN);
    }
    for (int i = 0; i < 300; i += 7) {
        poke(&all[i]);
        CHECK_INT(fm_engine_step(engine, -1), 0);
        CHECK_INT(all[i].calls, 1);
    }
    for (int i = 0; i < 300; i++) {
        CHECK_INT(all[i].calls, i % 7 == 0);
        fm__watcher_remove(&all[i].watcher);
        close_pair(&all[i]);
    }
    CHECK_INT(fm_engine_step(engine, -1), 0);
    fm_engine_free(engine);
}

TEST(what_cannot_be_watched_is_refused_and_leaves_nothing)
{
    fm_engine *engine = new_engine();
    struct seen seen;
    int rc;

    open_pair(&seen);
    CHECK_INT(fm__watcher_add(engine, &seen.watcher, -1, FM__POLL_IN), -EBADF);
    rc = fm__watcher_add(engine, &seen.watcher, 999, FM__POLL_IN);
    if (engine->poller.fd >= 0) { /* poll() takes it, and tells of it */
        CHECK_INT(rc, -EBADF);
        CHECK_INT(fm__watcher_add(engine, &seen.watcher, engine->bell.hear_fd,
                                  FM__POLL_IN),
                  -EEXIST);
    }
    fm__watcher_remove(&seen.watcher);
    watch(engine, &seen, FM__POLL_IN);
    CHECK_INT(fm__watcher_add(engine, &seen.watcher, seen.fds[0], FM__POLL_IN),
              -EINVAL);
    end(engine, &seen);
}

static void *no_memory(void *p, size_t size)
{
    (void)p;
    (void)size;
    return NULL;
}

TEST(a_lack_of_memory_refuses_a_watcher_and_leaves_the_others)
{
    static struct seen all[9];
    fm_engine *engine = new_engine();

    /* The table has room for eight at first. */
    for (int i = 0; i < 9; i++)
        open_pair(&all[i]);
    for (int i = 0; i < 8; i++)
        watch(engine, &all[i], FM__POLL_IN);
    fm__sys.realloc = no_memory;
    CHECK_INT(
        fm__watcher_add(engine, &all[8].watcher, all[8].fds[0], FM__POLL_IN),
        -ENOMEM);
    fm__sys.realloc = fm__sys_real.realloc;
    for (int i = 0; i < 8; i++) {
        poke(&all[i]);
        CHECK_INT(calls_after_step(engine, &all[i]), 1);
        fm__watcher_remove(&all[i].watcher);
    }
    watch(engine, &all[8], FM__POLL_IN);
    poke(&all[8]);
    CHECK_INT(calls_after_step(engine, &all[8]), 1);
    fm__watcher_remove(&all[8].watcher);
    for (int i = 0; i < 9; i++)
        close_pair(&all[i]);
    fm_engine_free(engine);
}

TEST(closing_the_engine_removes_what_is_left)
{
    fm_engine *engine = new_engine();
    struct seen seen;

    open_pair(&seen);
    seen.watcher.holds = true;
    watch(engine, &seen, FM__POLL_IN);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    CHECK(!seen.watcher.engine);
    fm__watcher_remove(&seen.watcher);
    CHECK_INT(fm__watcher_set(&seen.watcher, FM__POLL_OUT), FM_ECLOSED);
    CHECK_INT(fm__watcher_add(engine, &seen.watcher, seen.fds[0], FM__POLL_IN),
              FM_ECLOSED);
    close_pair(&seen);
    fm_engine_free(engine);
}

TEST(a_forked_process_neither_watches_nor_disturbs_its_parent)
{
    struct seen seen;
    fm_engine *engine = begin(&seen, FM__POLL_IN);
    int status;
    pid_t pid;

    pid = fork();
    if (pid == 0) {
        struct seen own;

        open_pair(&own);
        CHECK_INT(
            fm__watcher_add(engine, &own.watcher, own.fds[0], FM__POLL_IN),
            FM_ECLOSED);
        CHECK_INT(fm__watcher_set(&seen.watcher, FM__POLL_OUT), FM_ECLOSED);
        fm__watcher_remove(&seen.watcher);
        fm_engine_free(engine);
        _exit(0);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    poke(&seen);
    CHECK_INT(calls_after_step(engine, &seen), 1);
    end(engine, &seen);
}

TEST(the_engines_descriptor_or_timeout_tells_of_a_watched_one)
{
    fm_engine *engine = new_engine();
    int fd = fm_engine_fd(engine);
    struct seen seen;

    open_pair(&seen);
    watch(engine, &seen, FM__POLL_IN);
    if (fd >= 0)
        CHECK_INT(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0), 0);
    poke(&seen);
    if (fd >= 0)
        CHECK_INT(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0), 1);
    else
        CHECK(fm_engine_timeout(engine) >= 0);
    CHECK_INT(calls_after_step(engine, &seen), 1);
    end(engine, &seen);
}
