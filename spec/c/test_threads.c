/* SPDX-License-Identifier: MIT */
/* Hosts with threads that hold locks while a child is forked. */
#include "jobs.h"
#include "told_clock.h"

#include <dlfcn.h>
#include <link.h>
#include <locale.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

#include "engine/engine.h"
#include "os/sys.h"

static fm_engine *new_silent_engine(void)
{
    struct fm_engine_opts opts = {.on_threads = FM_THREADS_IGNORE};
    fm_engine *engine;

    CHECK_INT(fm_engine_new(&opts, &engine), 0);
    return engine;
}

static atomic_bool is_over, is_there;

static pthread_t start(void *(*run)(void *ud))
{
    pthread_t thread;

    CHECK_INT(pthread_create(&thread, NULL, run, NULL), 0);
    return thread;
}

/* --------------------------------------- locks that are held now and then */

static void use_time(void)
{
    time_t now = time(NULL);
    struct tm tm;

    (void)localtime_r(&now, &tm);
    (void)mktime(&tm);
}

static void use_environment(void)
{
    (void)setenv("FORK_MAP_SPEC", "x", 1);
}

static void use_locale(void)
{
    locale_t locale = duplocale(LC_GLOBAL_LOCALE);

    if (locale)
        freelocale(locale);
    (void)setlocale(LC_ALL, "C");
}

static void use_loader(void)
{
    void *self = dlopen(NULL, RTLD_LAZY);

    if (self)
        (void)dlclose(self);
}

static void use_random(void)
{
    (void)random();
}

static void (*const uses[])(void) = {use_time, use_random, use_environment,
                                     use_locale, use_loader};

/* The sanitizer's allocator does not stand a fork while other threads use it:
 * those that need no memory. */
#ifdef __SANITIZE_ADDRESS__
#define N_USES ((size_t)2)
#else
#define N_USES (sizeof uses / sizeof *uses)
#endif

/* Half of the time, more or less. */
static void *use_often(void *ud)
{
    struct timespec pause_time = {0, 20000};

    while (!atomic_load(&is_over)) {
        for (size_t i = 0; i < N_USES; i++) {
            uses[i]();
            uses[i]();
        }
        (void)nanosleep(&pause_time, NULL);
    }
    return ud;
}

static int use_all(fm_child *child, void *ud)
{
    for (size_t i = 0; i < N_USES; i++)
        uses[i]();
    return say_hello(child, ud);
}

TEST(jobs_need_locks_that_other_threads_use)
{
    struct fm_job_opts opts = {.timeout_ns = 20000 * MS};
    fm_engine *engine = new_silent_engine();
    pthread_t thread = start(use_often);

    for (int i = 0; i < 40; i++) {
        fm_future *future = spawn(engine, &opts, use_all, NULL);

        is_hello(wait_for(engine, future));
        fm_future_unref(future);
    }
    atomic_store(&is_over, true);
    CHECK_INT(pthread_join(thread, NULL), 0);
    fm_engine_free(engine);
}

static int sit_on_it(struct dl_phdr_info *info, size_t size, void *ud)
{
    (void)info;
    (void)size;
    (void)ud;
    atomic_store(&is_there, true);
    while (!atomic_load(&is_over))
        (void)usleep(100);
    return 1;
}

static void *hold_the_loader(void *ud)
{
    (void)dl_iterate_phdr(sit_on_it, NULL);
    return ud;
}

TEST(a_lock_that_is_never_free_keeps_no_job_that_does_not_need_it)
{
    struct fm_job_opts opts = {.timeout_ns = 20000 * MS};
    fm_engine *engine = new_silent_engine();
    pthread_t thread = start(hold_the_loader);
    fm_future *future;

    while (!atomic_load(&is_there))
        (void)usleep(100);
    future = spawn(engine, &opts, say_hello, NULL);
    is_hello(wait_for(engine, future));
    fm_future_unref(future);
    atomic_store(&is_over, true);
    CHECK_INT(pthread_join(thread, NULL), 0);
    fm_engine_free(engine);
}

#ifdef __GLIBC__
static uint64_t count_spawned(fm_engine *engine)
{
    struct fm_engine_stats stats;

    fm_engine_get_stats(engine, &stats);
    return stats.spawned;
}

/* A job whose first children, so many at least, hang on a lock. */
static fm_future *spawn_hanging(fm_engine *engine, pthread_t *thread)
{
    fm_future *future;

    *thread = start(hold_the_loader);
    while (!atomic_load(&is_there))
        (void)usleep(100);
    future = spawn(engine, NULL, say_hello, NULL);
    while (count_spawned(engine) < 3)
        CHECK(fm_engine_step(engine, MS) >= 0);
    return future;
}

static void let_go(fm_engine *engine, fm_future *future, pthread_t thread)
{
    atomic_store(&is_over, true);
    CHECK_INT(pthread_join(thread, NULL), 0);
    if (future) {
        is_hello(wait_for(engine, future)); /* its first attempt */
        fm_future_unref(future);
    }
    fm_engine_free(engine);
}

TEST(a_child_that_hangs_on_a_lock_is_replaced_by_another)
{
    fm_engine *engine = new_silent_engine();
    pthread_t thread;
    fm_future *future = spawn_hanging(engine, &thread);

    let_go(engine, future, thread);
}

static void end_while_it_hangs(bool by_close)
{
    fm_engine *engine = new_silent_engine();
    pthread_t thread;
    fm_future *future = spawn_hanging(engine, &thread);

    if (by_close)
        CHECK_INT(fm_engine_close(engine, 0), 0);
    else
        CHECK_INT(fm_future_cancel(future, 0), 1);
    CHECK_INT(wait_for(engine, future)->kind,
              by_close ? FM_CLOSED : FM_CANCELLED);
    fm_future_unref(future);
    let_go(engine, NULL, thread);
}

TEST(a_job_whose_children_hang_can_be_cancelled)
{
    end_while_it_hangs(false);
}

TEST(an_engine_whose_children_hang_can_be_closed)
{
    end_while_it_hangs(true);
}

static int kill_in_vain(pid_t pid, int sig)
{
    return sig == SIGKILL ? 0 : fm__sys_real.kill(pid, sig);
}

#ifdef __linux__
static int signal_in_vain(int pidfd, int sig, siginfo_t *info, unsigned flags)
{
    return sig == SIGKILL
               ? 0
               : fm__sys_real.pidfd_send_signal(pidfd, sig, info, flags);
}
#endif

TEST(a_job_is_cancelled_between_the_end_of_one_child_and_another)
{
    fm_engine *engine = new_silent_engine();
    pthread_t thread = start(hold_the_loader);
    fm_future *future;

    while (!atomic_load(&is_there))
        (void)usleep(100);
    fm__sys.kill = kill_in_vain;
#ifdef __linux__
    fm__sys.pidfd_send_signal = signal_in_vain;
#endif
    future = spawn(engine, NULL, say_hello, NULL);
    /* Its time is over soon, and killing it takes a while. */
    while (!future->starts_over)
        CHECK(fm_engine_step(engine, MS) >= 0);
    CHECK_INT(fm_future_cancel(future, 0), 1);
    CHECK_INT(kill(fm_future_get_pid(future), SIGKILL), 0);
    CHECK_INT(wait_for(engine, future)->kind, FM_CANCELLED);
    CHECK_INT(count_spawned(engine), 1);
    fm__sys = fm__sys_real;
    fm_future_unref(future);
    let_go(engine, NULL, thread);
}
#endif

/* ------------------------------------------------------ children that hang */

static atomic_int *n_hung; /* shared with the children */

/* Child hook. */
static int hang_for_good(void *ud)
{
    (void)ud;
    atomic_fetch_add(n_hung, 1);
    for (;;)
        (void)pause();
    return 0;
}

TEST(a_start_that_never_ends_is_told_as_such)
{
    fm_engine *engine = new_silent_engine();
    const struct fm_outcome *outcome;
    fm_future *future;

    n_hung = mmap(NULL, sizeof *n_hung, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(n_hung != MAP_FAILED);
    CHECK(fm_at_fork(engine, NULL, NULL, hang_for_good, NULL) > 0);
    fm__sys.clock_gettime = told_clock;
    future = spawn(engine, NULL, say_hello, NULL);
    while (atomic_load(n_hung) < 1)
        CHECK(fm_engine_step(engine, MS) >= 0);
    *ahead_ns = 6 * FM__NS_PER_S;
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_SPAWN);
    CHECK_INT(outcome->error_code, -ETIMEDOUT);
    CHECK(strstr(outcome->message, "deadlocked") != NULL);
    CHECK_INT(atomic_load(n_hung), 1);
    fm_future_unref(future);
    fm_engine_free(engine);
}
