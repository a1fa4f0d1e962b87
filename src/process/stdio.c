/* SPDX-License-Identifier: MIT */
/* Buffered streams in a child; see stdio.h. */
#include "process/stdio.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdio_ext.h>

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

static int purge_all(void)
{
    long left = STREAMS_MAX;

    if (!all_streams)
        return 0;
    for (FILE *f = *all_streams; f && left > 0; f = f->_chain, left--) {
        if (__fpending(f) > 0)
            __fpurge(f);
    }
    return 1;
}
#else
void fm__stdio_find(void)
{
}

static int purge_all(void)
{
    return 0;
}
#endif

void fm__stdio_purge(void)
{
    if (purge_all())
        return;
    __fpurge(stdout);
    __fpurge(stderr);
}

void fm__stdio_flush(void)
{
    (void)fflush(NULL);
}
