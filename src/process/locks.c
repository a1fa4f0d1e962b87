/* SPDX-License-Identifier: MIT */
/* The locks of glibc, taken once; see locks.h. */
#include "process/locks.h"

#include <dlfcn.h>
#include <link.h>
#include <locale.h>
#include <stdlib.h>
#include <time.h>

#include "os/proc.h"

#ifdef __GLIBC__
static int stop_at_first(struct dl_phdr_info *info, size_t size, void *ud)
{
    (void)info;
    (void)size;
    (void)ud;
    return 1;
}

/* The loader's own two: that of dlopen(), and that of unwinding. */
static void try_loader(void)
{
    Dl_info info;

    (void)dladdr((void *)&stop_at_first, &info);
    (void)dl_iterate_phdr(stop_at_first, NULL);
}

static void try_locale(void)
{
    locale_t copy = duplocale(LC_GLOBAL_LOCALE);

    if (copy)
        freelocale(copy);
}

/* Another state and back, so that the sequence goes on where it was. */
static void try_random(void)
{
    char state[8];
    char *old = initstate(1, state, sizeof state);

    if (old)
        (void)setstate(old);
}

bool fm__locks_are_suspect(void)
{
    return !fm__proc_is_single_threaded();
}

void fm__locks_try(void)
{
    tzset();
    try_loader();
    try_locale();
    try_random();
    (void)unsetenv("FORK_MAP_NO_SUCH_VARIABLE");
}
#else
/* musl takes its locks around fork(). */
bool fm__locks_are_suspect(void)
{
    return false;
}

void fm__locks_try(void)
{
}
#endif
