/* SPDX-License-Identifier: MIT */
/* A job with an option of every kind that a child acts on: for who looks at
 * all that its start can do. */
#ifndef SPEC_C_LIMITED_H
#define SPEC_C_LIMITED_H

#include "fork_map.h"

static const int limited_kept[] = {1, 2};

#define LIMITED_OPTS                                                           \
    {                                                                          \
        .name = "limited", .timeout_ns = INT64_C(10000000000),                 \
        .limits = {.memory = 64 << 20,                                         \
                   .cpu_ns = INT64_C(5000000000),                              \
                   .file_size = 1 << 20,                                       \
                   .files = 8,                                                 \
                   .has_processes = true},                                     \
        .keep_fds = limited_kept, .n_keep_fds = 2, .has_keep_fds = true,       \
        .nice = 1                                                              \
    }

#endif
