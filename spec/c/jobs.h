/* SPDX-License-Identifier: MIT */
/* Jobs that more than one of the C specs runs, and what comes of them. */
#ifndef SPEC_C_JOBS_H
#define SPEC_C_JOBS_H

#include <fcntl.h>

#include "run_job.h"

static int __attribute__((unused)) say_hello(fm_child *child, void *ud)
{
    (void)ud;
    return fm_child_write(child, "hello", 5);
}

static void __attribute__((unused)) is_hello(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, 5);
    CHECK(memcmp(outcome->data, "hello", 5) == 0);
    CHECK_INT(outcome->attempt, 1);
    CHECK(outcome->pid > 0);
}

static int __attribute__((unused)) say_much(fm_child *child, void *ud)
{
    static unsigned char piece[100001];
    int rc = 0;

    for (size_t i = 0; i < sizeof piece; i++)
        piece[i] = (unsigned char)(i * 7);
    for (int i = 0; rc == 0 && i < *(int *)ud; i++)
        rc = fm_child_write(child, piece, sizeof piece);
    return rc;
}

static void __attribute__((unused)) is_empty(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, 0);
}

static int __attribute__((unused)) raise_signal(fm_child *child, void *ud)
{
    (void)fm_child_write(child, "part", 4);
    (void)raise(*(int *)ud);
    return 0;
}

/* Only on_exit() knows the code that exit() was called with. */
#ifdef __GLIBC__
#define EXIT_TELLS_CODE true
#else
#define EXIT_TELLS_CODE false
#endif

static void __attribute__((unused))
is_exit(const struct fm_outcome *outcome, int code, bool by_exit)
{
    bool is_known = EXIT_TELLS_CODE || !by_exit;

    CHECK_INT(outcome->kind, is_known && code != 0 ? FM_EXIT : FM_NO_RESULT);
    CHECK_INT(outcome->exit_code, is_known ? code : -1);
}

/* A file for what is written where nobody looks: make_mark() names it. */
static char __attribute__((unused)) mark[] = "/tmp/fork_map_spec_XXXXXX";

static void __attribute__((unused)) write_mark(void)
{
    int fd = open(mark, O_WRONLY | O_APPEND);

    (void)!write(fd, "x", 1);
    (void)close(fd);
}

static long __attribute__((unused)) mark_size(void)
{
    int fd = open(mark, O_RDONLY);
    long size = lseek(fd, 0, SEEK_END);

    (void)close(fd);
    return size;
}

static void __attribute__((unused)) make_mark(void)
{
    int fd = mkstemp(mark);

    CHECK(fd >= 0);
    (void)close(fd);
}

static int __attribute__((unused)) hang(fm_child *child, void *ud)
{
    (void)ud;
    fm_child_note(child, "here.c:1");
    for (;;)
        (void)pause();
    return 0;
}

static int __attribute__((unused)) leave_a_grandchild(fm_child *child, void *ud)
{
    if (fork() == 0) {
        for (;;)
            (void)pause();
    }
    return say_hello(child, ud);
}

static int __attribute__((unused)) spin(fm_child *child, void *ud)
{
    (void)child;
    (void)ud;
    for (volatile unsigned long i = 0;; i++)
        ;
    return 0;
}

#endif
