/* SPDX-License-Identifier: MIT */
/* Signal masks around a fork and the child's clean start. */
#include "os/signals.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "os/sys.h"

#ifndef NSIG
#define NSIG 65
#endif

/* SIGRTMIN, which is a call; asked for in the parent. */
static int realtime_min;

int fm__signals_block(sigset_t *ret_old)
{
    sigset_t all;

    if (realtime_min == 0)
        realtime_min = SIGRTMIN;
    (void)sigfillset(&all);
    return fm__sys.pthread_sigmask(SIG_SETMASK, &all, ret_old) < 0 ? -errno : 0;
}

void fm__signals_restore(const sigset_t *old)
{
    (void)fm__sys.pthread_sigmask(SIG_SETMASK, old, NULL);
}

/* A mask that cannot be set is no reason to go without the lock. */
void fm__signals_lock(pthread_mutex_t *lock, sigset_t *ret_old)
{
    (void)sigemptyset(ret_old);
    if (fm__signals_block(ret_old) < 0)
        (void)fm__sys.pthread_sigmask(SIG_SETMASK, NULL, ret_old);
    (void)pthread_mutex_lock(lock);
}

void fm__signals_unlock(pthread_mutex_t *lock, const sigset_t *old)
{
    (void)pthread_mutex_unlock(lock);
    fm__signals_restore(old);
}

int fm__signals_open(void)
{
    sigset_t none;

    memset(&none, 0, sizeof none); /* sigemptyset(), but inline */
    return fm__sys.pthread_sigmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

/* Those between the standard ones and SIGRTMIN belong to the C library. */
static bool is_library_signal(int sig)
{
    return sig > SIGSYS && sig < realtime_min;
}

int fm__signals_reset(void)
{
    struct sigaction fresh;
    stack_t stack;

    memset(&fresh, 0, sizeof fresh);
    for (int sig = 1; sig < NSIG; sig++) {
        if (sig == SIGKILL || sig == SIGSTOP || is_library_signal(sig))
            continue;
        fresh.sa_handler = sig == SIGTTIN || sig == SIGTTOU ? SIG_IGN : SIG_DFL;
        if (fm__sys.sigaction(sig, &fresh, NULL) < 0)
            return -errno;
    }
    memset(&stack, 0, sizeof stack);
    stack.ss_flags = SS_DISABLE;
    return fm__sys.sigaltstack(&stack, NULL) < 0 ? -errno : 0;
}

/* A SIGPIPE of ours is taken back, one that was pending before is not. */
long fm__signals_write(int fd, const void *data, size_t len)
{
    sigset_t pipe, old, pending;
    bool was_pending;
    long rc;
    int sig;

    (void)sigemptyset(&pipe);
    (void)sigaddset(&pipe, SIGPIPE);
    (void)sigemptyset(&pending);
    (void)fm__sys.sigpending(&pending);
    was_pending = sigismember(&pending, SIGPIPE) == 1;
    if (fm__sys.pthread_sigmask(SIG_BLOCK, &pipe, &old) < 0)
        return -errno;
    do
        rc = fm__sys.write(fd, data, len);
    while (rc < 0 && errno == EINTR);
    rc = rc < 0 ? -errno : rc;
    if (rc == -EPIPE && !was_pending && fm__sys.sigpending(&pending) == 0 &&
        sigismember(&pending, SIGPIPE) == 1)
        (void)fm__sys.sigwait(&pipe, &sig);
    (void)fm__sys.pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

const char *fm__signal_name(int sig)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {
        {SIGHUP, "SIGHUP"},       {SIGINT, "SIGINT"},   {SIGQUIT, "SIGQUIT"},
        {SIGILL, "SIGILL"},       {SIGTRAP, "SIGTRAP"}, {SIGABRT, "SIGABRT"},
        {SIGBUS, "SIGBUS"},       {SIGFPE, "SIGFPE"},   {SIGKILL, "SIGKILL"},
        {SIGUSR1, "SIGUSR1"},     {SIGSEGV, "SIGSEGV"}, {SIGUSR2, "SIGUSR2"},
        {SIGPIPE, "SIGPIPE"},     {SIGALRM, "SIGALRM"}, {SIGTERM, "SIGTERM"},
        {SIGCHLD, "SIGCHLD"},     {SIGCONT, "SIGCONT"}, {SIGSTOP, "SIGSTOP"},
        {SIGTSTP, "SIGTSTP"},     {SIGTTIN, "SIGTTIN"}, {SIGTTOU, "SIGTTOU"},
        {SIGURG, "SIGURG"},       {SIGXCPU, "SIGXCPU"}, {SIGXFSZ, "SIGXFSZ"},
        {SIGVTALRM, "SIGVTALRM"}, {SIGPROF, "SIGPROF"}, {SIGSYS, "SIGSYS"},
#ifdef SIGSTKFLT
        {SIGSTKFLT, "SIGSTKFLT"},
#endif
#ifdef SIGIO
        {SIGIO, "SIGIO"},
#endif
#ifdef SIGPWR
        {SIGPWR, "SIGPWR"},
#endif
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].number == sig)
            return names[i].name;
    }
    return NULL;
}
