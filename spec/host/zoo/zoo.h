/* SPDX-License-Identifier: MIT */
/*
 * The host zoo: programs that are strange hosts of an engine.
 *
 * A factor is one side of a host (what it does with SIGCHLD, which threads it
 * has); its first value is the plain one.  A host has one value of each.
 *   conditions.c, threads.c   the factors
 *   state.c                   what a host must find as it was
 *   status.c                  what the kernel can tell there
 *   rows.c                    hosts that cover every pair of values, one after
 *                             the other, each in a process of its own
 * A program of the zoo gives the suite that runs in each host.
 */
#ifndef SPEC_HOST_ZOO_H
#define SPEC_HOST_ZOO_H

#include <stdbool.h>
#include <stddef.h>

#define ZOO_VALUES 6

struct zoo_factor {
    const char *name;
    struct {
        const char *name;
        void (*set_up)(void); /* NULL: nothing to do */
    } values[ZOO_VALUES];     /* up to the first without a name */
};

/* In the order in which they are set up. */
extern const struct zoo_factor zoo_factors[];
extern const size_t zoo_n_factors;

/* What the conditions amount to, for the suites. */
extern struct zoo_host {
    bool loses_status;  /* someone else may take the status of a child */
    bool can_ask;       /* and the kernel tells it all the same */
    bool waits_for_own; /* nobody else takes it, not even that of the host's
                           own children */
    int report_fd;      /* standard error, wherever it is now */
} zoo_host;

/* Find out can_ask, with all conditions made. */
void zoo_ask_kernel(void);

/* The process ends when the condition cannot be made. */
void zoo_must(bool is_done, const char *what);

void zoo_hammer(void);
void zoo_make_threads(void);
void zoo_fork_strangers(void);
void zoo_reap_in_a_thread(void);

/* End the threads of the three above. */
void zoo_end_threads(void);

/* Threads that take and leave the locks of the C library's time zones,
 * environment and locale, for suites whose jobs need them. */
extern bool zoo_hammers_locks;

/* Whether a thread may allocate while another one forks. */
extern const bool zoo_may_allocate;

/* Something of the host ran where it must not: a handler in a child. */
void zoo_count_stray(void);
int zoo_n_strays(void);

/* What the host had buffered is written, and no child has written it too. */
bool zoo_has_written_once(void);

/* Remember the state of the host; end the process unless it is the same. */
void zoo_take_stock(void);
void zoo_check_stock(void);

/* The program: `suite` runs in each host and ends the process if it fails. */
int zoo_main(int argc, char **argv, void (*suite)(void));

#endif
