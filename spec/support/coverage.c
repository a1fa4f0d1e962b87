/* SPDX-License-Identifier: MIT */
/*
 * Linked into every program that spec/coverage.sh builds, with --wrap=_exit:
 * children leave by _exit(), and what they went through counts too.
 *
 * Tests put processes under limits that do not mean the instruments.  A process
 * that leaves lifts those that it may, and one that still can open no file
 * leaves without a record, and without a complaint among its output.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <unistd.h>

/* These names are given: NOLINTBEGIN(bugprone-reserved-identifier) */
void __gcov_dump(void);
_Noreturn void __real__exit(int code);
_Noreturn void __wrap__exit(int code);

static void lift(unsigned resource)
{
    const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    struct rlimit most;

    if (setrlimit(resource, &none) == 0 || getrlimit(resource, &most) < 0)
        return;
    most.rlim_cur = most.rlim_max;
    (void)setrlimit(resource, &most);
}

/* Of descriptors there is no unlimited number. */
static void lift_files(void)
{
    struct rlimit few;

    if (getrlimit(RLIMIT_NOFILE, &few) < 0 || few.rlim_cur >= 64)
        return;
    few.rlim_cur = 64;
    if (few.rlim_max < few.rlim_cur)
        few.rlim_max = few.rlim_cur;
    (void)setrlimit(RLIMIT_NOFILE, &few);
}

/* For exit(), before the instruments write what they have counted. */
static bool __attribute__((noinline)) make_room(void)
{
    int fd;

    (void)signal(SIGXFSZ, SIG_IGN);
    lift(RLIMIT_FSIZE);
    lift_files();
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return fd >= 0 && close(fd) == 0;
}

static void __attribute__((destructor)) before_the_end(void)
{
    (void)make_room();
}

_Noreturn void __wrap__exit(int code)
{
    if (make_room())
        __gcov_dump();
    __real__exit(code);
}
/* NOLINTEND(bugprone-reserved-identifier) */
