/* SPDX-License-Identifier: MIT */
/*
 * The C test runner: one header, one executable per test file.
 *
 *   TEST(a_sentence_about_behaviour) { CHECK(1 + 1 == 2); }
 *
 * Each test runs in a process of its own, which must end with the descriptors
 * and the children that it began with, within TEST_SECONDS.  A failed CHECK
 * ends the test.  `program NAME` runs one test.  The last line printed is
 * "N passed, N failed".
 *
 * With TEST_CHECKS_ONLY it gives the checks alone, to a program of another
 * kind.
 */
#ifndef SPEC_C_TEST_H
#define SPEC_C_TEST_H

#ifdef NDEBUG
#error "tests are built without NDEBUG"
#endif

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef TEST_CHECKS_ONLY
#ifndef TEST_SECONDS
#define TEST_SECONDS 60
#endif

#define TEST_MAX 256

struct test {
    const char *name;
    void (*run)(void);
};

static struct test tests[TEST_MAX];
static int n_tests;

static void __attribute__((unused))
test_add(const char *name, void (*run)(void))
{
    if (n_tests == TEST_MAX)
        abort();
    tests[n_tests].name = name;
    tests[n_tests++].run = run;
}

#define TEST(id)                                                               \
    static void test_##id(void);                                               \
    static void __attribute__((constructor)) add_##id(void)                    \
    {                                                                          \
        test_add(#id, test_##id);                                              \
    }                                                                          \
    static void test_##id(void)

#endif

/* For programs whose standard error is somewhere else. */
static int __attribute__((unused)) test_report_fd = 2;

static _Noreturn void __attribute__((unused))
test_fail(const char *file, int line, const char *what)
{
    (void)fflush(NULL);
    (void)dprintf(test_report_fd, "%s:%d: %s\n", file, line, what);
    _exit(1);
}

static void __attribute__((unused))
test_check_int(const char *file, int line, const char *what, long long a,
               long long b)
{
    char text[256];

    if (a == b)
        return;
    (void)snprintf(text, sizeof text, "%s is %lld, not %lld", what, a, b);
    test_fail(file, line, text);
}

static void __attribute__((unused))
test_check_str(const char *file, int line, const char *what, const char *a,
               const char *b)
{
    char text[512];

    if (a && b && strcmp(a, b) == 0)
        return;
    (void)snprintf(text, sizeof text, "%s is \"%.200s\", not \"%.200s\"", what,
                   a ? a : "(null)", b ? b : "(null)");
    test_fail(file, line, text);
}

/* Expressions, so that a test is as long and as nested as it looks. */
#define CHECK(condition)                                                       \
    ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, #condition))

#define CHECK_INT(a, b)                                                        \
    test_check_int(__FILE__, __LINE__, #a, (long long)(a), (long long)(b))

#define CHECK_STR(a, b) test_check_str(__FILE__, __LINE__, #a, (a), (b))

#ifndef TEST_CHECKS_ONLY
static int __attribute__((unused)) test_count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    if (!dir)
        return -1;
    while (readdir(dir))
        n++;
    (void)closedir(dir);
    return n;
}

/* The body of one test's process. */
static _Noreturn void test_run(const struct test *test)
{
    int fds = test_count_fds();

    (void)alarm(TEST_SECONDS);
    test->run();
    if (test_count_fds() != fds)
        test_fail(test->name, 0, "it left descriptors open");
    if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)
        test_fail(test->name, 0, "it left a child");
    (void)fflush(NULL);
    /* exit(), not _exit(): leak checkers report there. */
    exit(0);
}

static bool test_passes(const struct test *test)
{
    int status;
    pid_t pid;

    (void)fflush(NULL);
    pid = fork();
    if (pid == 0)
        test_run(test);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return false;
    if (status == 0) {
        (void)printf("ok   %s\n", test->name);
        return true;
    }
    (void)printf("FAIL %s (status %d)\n", test->name, status);
    return false;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;

    for (int i = 0; i < n_tests; i++) {
        if (argc > 1 && strcmp(argv[1], tests[i].name) != 0)
            continue;
        if (test_passes(&tests[i]))
            passed++;
        else
            failed++;
    }
    (void)printf("%d passed, %d failed\n", passed, failed);
    return failed > 0 || passed == 0;
}
#endif

#endif
