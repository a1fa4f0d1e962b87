/* SPDX-License-Identifier: MIT */
/* Threads of strange hosts; see zoo.h. */
#include "zoo.h"

#include <errno.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 16

static pthread_t threads[THREADS_MAX];
static size_t n_threads;
static atomic_bool is_over;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static FILE *sink;

bool zoo_hammers_locks;

/* The sanitizer's allocator does not stand a fork while other threads use it:
 * its own locks stay held in the child. */
#ifdef __SANITIZE_ADDRESS__
const bool zoo_may_allocate = false;
#else
const bool zoo_may_allocate = true;
#endif

/* Signals are for the main thread: it is the one to be interrupted. */
static pthread_t start(void *(*run)(void *ud))
{
    sigset_t all, old;
    pthread_t thread;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    errno = pthread_create(&thread, NULL, run, NULL);
    zoo_must(errno == 0, "pthread_create");
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return thread;
}

static void start_kept(void *(*run)(void *ud))
{
    threads[n_threads++] = start(run);
}

void zoo_end_threads(void)
{
    atomic_store(&is_over, true);
    while (n_threads > 0)
        (void)pthread_join(threads[--n_threads], NULL);
}

static void nap(long microseconds)
{
    struct timespec pause_time = {0, microseconds * 1000};

    (void)nanosleep(&pause_time, NULL);
}

static void use_memory(void)
{
    void *memory[8];

    for (size_t i = 0; i < 8; i++)
        memory[i] = malloc((i + 1) * 700);
    for (size_t i = 0; i < 8; i++)
        free(memory[i]);
}

/* A little of all that has a lock. */
static void use_locks(void)
{
    if (zoo_may_allocate)
        use_memory();
    (void)fprintf(sink, "%d %s\n", 42, "of a thread");
    (void)pthread_mutex_lock(&mutex);
    (void)pthread_mutex_unlock(&mutex);
}

static void use_unrepaired_locks(void)
{
    time_t now = time(NULL);
    struct tm tm;
    locale_t locale;

    (void)localtime_r(&now, &tm);
    (void)mktime(&tm);
    (void)setenv("ZOO", "thread", 1);
    locale = duplocale(LC_GLOBAL_LOCALE);
    if (locale)
        freelocale(locale);
}

static void use_once(void)
{
    use_locks();
    if (zoo_hammers_locks && zoo_may_allocate)
        use_unrepaired_locks();
}

/* In bursts: the machine has other things to do. */
static void *hammer(void *ud)
{
    while (!atomic_load(&is_over)) {
        for (int i = 0; i < 50; i++)
            use_once();
        nap(200);
    }
    return ud;
}

#define BIG_BLOCKS 8

/* Enough for the C library to give memory of a thread back to the kernel,
 * about which it asks a file the first time. */
static void *give_memory_back(void *ud)
{
    void *memory[BIG_BLOCKS];

    for (size_t i = 0; i < BIG_BLOCKS; i++)
        memory[i] = malloc((size_t)64 << 10);
    for (size_t i = 0; i < BIG_BLOCKS; i++)
        free(memory[i]);
    return ud;
}

/* What the C library opens at the first use of a thing, the local time, is
 * closed again before the host takes stock of its files. */
static void open_sink(void)
{
    sink = fopen("/dev/null", "we");
    zoo_must(sink != NULL, "/dev/null");
    use_once();
    if (zoo_may_allocate)
        (void)pthread_join(start(give_memory_back), NULL);
}

void zoo_hammer(void)
{
    open_sink();
    for (int i = 0; i < 8; i++)
        start_kept(hammer);
}

static void *live_briefly(void *ud)
{
    use_locks();
    return ud;
}

static void *make_threads(void *ud)
{
    while (!atomic_load(&is_over)) {
        (void)pthread_join(start(live_briefly), NULL);
        nap(100);
    }
    return ud;
}

void zoo_make_threads(void)
{
    open_sink();
    start_kept(make_threads);
}

/* Processes that the engine knows nothing of, and that hold all it has open. */
static void *fork_strangers(void *ud)
{
    while (!atomic_load(&is_over)) {
        pid_t pid = fork();

        if (pid == 0) {
            nap(3000);
            _exit(0);
        }
        nap(1000);
        while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    return ud;
}

void zoo_fork_strangers(void)
{
    start_kept(fork_strangers);
}

static void *reap(void *ud)
{
    while (!atomic_load(&is_over)) {
        if (waitpid(-1, NULL, WNOHANG) <= 0)
            nap(50);
    }
    return ud;
}

void zoo_reap_in_a_thread(void)
{
    start_kept(reap);
}
