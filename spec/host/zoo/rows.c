/* SPDX-License-Identifier: MIT */
/*
 * Hosts of the zoo one after the other, and the program's arguments:
 *
 *   (none)              rows that together have every pair of values
 *   FACTOR=VALUE ...    one host
 *   random SECONDS      hosts of any values, for so long
 *
 * The last line is "N passed, N failed".
 */
#include "zoo.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FACTORS_MAX 16
#define ROW_SECONDS 60

/* The value of each factor; -1: not chosen yet. */
typedef int row[FACTORS_MAX];

static bool seen[FACTORS_MAX][ZOO_VALUES][FACTORS_MAX][ZOO_VALUES];

static int count_values(size_t factor)
{
    int n = 1;

    while (n < ZOO_VALUES && zoo_factors[factor].values[n].name)
        n++;
    return n;
}

/* ------------------------------------------------------------------ cover */

static void mark_seen(const row chosen)
{
    for (size_t i = 0; i < zoo_n_factors; i++) {
        for (size_t j = 0; j < zoo_n_factors; j++)
            seen[i][chosen[i]][j][chosen[j]] = true;
    }
}

/* New pairs that `value` of factor i makes with what is chosen. */
static int count_new(const row chosen, size_t i, int value)
{
    int n = 0;

    for (size_t j = 0; j < zoo_n_factors; j++) {
        if (j != i && chosen[j] >= 0 && !seen[i][value][j][chosen[j]])
            n++;
    }
    return n;
}

/* The values of factors i and j that were not together. */
static bool find_values(size_t i, size_t j, row chosen)
{
    for (int a = 0; a < count_values(i); a++) {
        for (int b = 0; b < count_values(j); b++) {
            if (!seen[i][a][j][b]) {
                chosen[i] = a;
                chosen[j] = b;
                return true;
            }
        }
    }
    return false;
}

static bool begin_row(row chosen)
{
    for (size_t i = 0; i < zoo_n_factors; i++)
        chosen[i] = -1;
    for (size_t i = 0; i < zoo_n_factors; i++) {
        for (size_t j = i + 1; j < zoo_n_factors; j++) {
            if (find_values(i, j, chosen))
                return true;
        }
    }
    return false;
}

/* Greedy, and the same every time: a pair that is missing, and around it what
 * brings most others. */
static bool next_row(row chosen)
{
    if (!begin_row(chosen))
        return false;
    for (size_t i = 0; i < zoo_n_factors; i++) {
        int best = -1;

        if (chosen[i] >= 0)
            continue;
        for (int value = 0; value < count_values(i); value++) {
            int n = count_new(chosen, i, value);

            if (n > best) {
                best = n;
                chosen[i] = value;
            }
        }
    }
    mark_seen(chosen);
    return true;
}

/* -------------------------------------------------------------- one host */

static void write_name(const row chosen, char *name, size_t size)
{
    size_t len = 0;

    name[0] = '\0';
    for (size_t i = 0; i < zoo_n_factors && len < size; i++) {
        if (chosen[i] > 0)
            len += (size_t)snprintf(name + len, size - len, "%s\"%s=%s\"",
                                    len > 0 ? " " : "", zoo_factors[i].name,
                                    zoo_factors[i].values[chosen[i]].name);
    }
    if (len == 0)
        (void)snprintf(name, size, "plain");
}

static _Noreturn void be_host(const row chosen, void (*suite)(void))
{
    for (size_t i = 0; i < zoo_n_factors; i++) {
        void (*set_up)(void) = zoo_factors[i].values[chosen[i]].set_up;

        if (set_up)
            set_up();
    }
    zoo_ask_kernel();
    zoo_take_stock();
    suite();
    zoo_check_stock();
    zoo_end_threads();
    _exit(0);
}

static void nap(void)
{
    struct timespec pause_time = {0, 2000000};

    (void)nanosleep(&pause_time, NULL);
}

/* Its status; a host that hangs is killed. */
static int watch(pid_t pid)
{
    time_t deadline = time(NULL) + ROW_SECONDS;
    int status;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (time(NULL) > deadline) {
            (void)kill(pid, SIGKILL);
            deadline += ROW_SECONDS;
        }
        nap();
    }
    return status;
}

static bool passes(const row chosen, void (*suite)(void))
{
    char name[512];
    int status;
    pid_t pid;

    write_name(chosen, name, sizeof name);
    (void)fflush(NULL);
    pid = fork();
    if (pid == 0)
        be_host(chosen, suite);
    zoo_must(pid > 0, "fork");
    status = watch(pid);
    (void)printf("%s %s", status == 0 ? "ok  " : "FAIL", name);
    if (status != 0)
        (void)printf(" (status %d)", status);
    (void)printf("\n");
    (void)fflush(stdout);
    return status == 0;
}

/* ------------------------------------------------------------ the program */

static int n_passed, n_failed;

static void run_row(const row chosen, void (*suite)(void))
{
    if (passes(chosen, suite))
        n_passed++;
    else
        n_failed++;
}

static void choose(row chosen, const char *argument)
{
    const char *value = strchr(argument, '=');

    for (size_t i = 0; value && i < zoo_n_factors; i++) {
        const char *name = zoo_factors[i].name;

        if (strlen(name) != (size_t)(value - argument) ||
            strncmp(name, argument, strlen(name)) != 0)
            continue;
        for (int n = 0; n < count_values(i); n++) {
            if (strcmp(zoo_factors[i].values[n].name, value + 1) == 0) {
                chosen[i] = n;
                return;
            }
        }
    }
    (void)fprintf(stderr, "no such condition: %s\n", argument);
    exit(2);
}

static void run_random(long seconds, void (*suite)(void))
{
    time_t end = time(NULL) + seconds;
    uint64_t state = (uint64_t)time(NULL);

    while (time(NULL) < end) {
        row chosen = {0};

        for (size_t i = 0; i < zoo_n_factors; i++) {
            state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
            chosen[i] = (int)((state >> 33) % (unsigned)count_values(i));
        }
        run_row(chosen, suite);
    }
}

int zoo_main(int argc, char **argv, void (*suite)(void))
{
    row chosen = {0};

    if (argc == 1) {
        while (next_row(chosen))
            run_row(chosen, suite);
    } else if (argc == 3 && strcmp(argv[1], "random") == 0) {
        run_random(strtol(argv[2], NULL, 10), suite);
    } else {
        for (int i = 1; i < argc; i++)
            choose(chosen, argv[i]);
        run_row(chosen, suite);
    }
    (void)printf("%d passed, %d failed\n", n_passed, n_failed);
    return n_failed > 0 || n_passed == 0;
}
