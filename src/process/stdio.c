/* SPDX-License-Identifier: MIT */
/* Buffered streams in a child; see stdio.h. */
#include "process/stdio.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdio_ext.h>

#include "os/proc.h"

#ifdef __GLIBC__
/* glibc links its streams through _chain from _IO_list_all.  The symbol must
 * be looked up: linked directly into a program, it is a copy that was made at
 * start and never changes. */
static FILE **all_streams;

void fm__stdio_find(void)
{
    void *symbol = all_streams ? NULL : dlsym(RTLD_DEFAULT, "_IO_list_all");

    if (symbol)
        all_streams = symbol;
}

/* Streams nest no deeper than a process has memory for; this bound only stops
 * at a list that is broken. */
#define STREAMS_MAX 1000000

/* As __fpending(), but for wide streams without a call: a fresh child pays for
 * each part of the C library that it goes through. */
static bool has_pending(FILE *f)
{
    return f->_mode > 0 ? __fpending(f) > 0
                        : f->_IO_write_ptr > f->_IO_write_base;
}

static bool purges_all(void)
{
    return all_streams != NULL;
}

static bool purge_all(void)
{
    long left = STREAMS_MAX;

    if (!all_streams)
        return false;
    for (FILE *f = *all_streams; f && left > 0; f = f->_chain, left--) {
        if (has_pending(f))
            __fpurge(f);
    }
    return true;
}

/* Not by fflush(NULL), which since glibc 2.41 also moves the offset of input
 * files back to what was read of them: the host shares that offset.  False
 * when it cannot be done so: other threads may use the list. */
static bool write_all(void)
{
    long left = STREAMS_MAX;

    if (!all_streams || !fm__proc_is_single_threaded())
        return false;
    for (FILE *f = *all_streams; f && left > 0; f = f->_chain, left--) {
        if (has_pending(f))
            (void)fflush(f);
    }
    return left > 0;
}
#else
void fm__stdio_find(void)
{
}

static bool purges_all(void)
{
    return false;
}

static bool purge_all(void)
{
    return false;
}

static bool write_all(void)
{
    return false;
}
#endif

void fm__stdio_purge(void)
{
    if (purge_all())
        return;
    __fpurge(stdout);
    __fpurge(stderr);
}

/* A lock that another thread of the host held at the fork is never given back
 * here; then this child has written nothing to that stream either. */
static void flush_unless_locked(FILE *f)
{
    if (ftrylockfile(f) != 0)
        return;
    (void)fflush(f);
    funlockfile(f);
}

void fm__stdio_flush(void)
{
    if (write_all())
        return;
    if (purges_all()) {
        (void)fflush(NULL);
        return;
    }
    flush_unless_locked(stdout);
    flush_unless_locked(stderr);
}
