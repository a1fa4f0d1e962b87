/* SPDX-License-Identifier: MIT */
/*
 * What a host says to a template, and what that answers: one message of a
 * SOCK_SEQPACKET pair each, with its own descriptors.  Commands are carried out
 * in order, and each is answered, in the same order.
 *
 * Both sides are of the same build, which the first command makes sure of, so
 * structs go as they are.
 */
#ifndef FM_ENGINE_COMMAND_H
#define FM_ENGINE_COMMAND_H

#include <stdint.h>

#include "fork_map.h"

#define FM__COMMAND_MAGIC UINT32_C(0x464d5431) /* "FMT1" */
#define FM__REPLY_MAGIC UINT32_C(0x464d5232)

/* Payloads above this size go in a file. */
#define FM__COMMAND_INLINE ((size_t)4096)
#define FM__COMMAND_NAME ((size_t)256)
#define FM__COMMAND_FDS 16
#define FM__REPLY_TEXT ((size_t)8192)

enum fm__command_type {
    FM__COMMAND_HELLO, /* struct fm__hello; the bell */
    FM__COMMAND_CALL,  /* for the binding: kind, payload, its descriptors */
    FM__COMMAND_FORK,  /* struct fm__fork_order, name, payload */
    FM__COMMAND_FORGET /* `kind` is the id of a channel that is gone */
};

/* Which descriptors come with it, in this order; those of a call follow. */
enum fm__command_flag {
    FM__WITH_FILE = 1,     /* the payload */
    FM__WITH_CHANNEL = 2,  /* that of a channel that is new here */
    FM__WITH_LIFELINE = 4, /* its read end */
    FM__WITH_OUTPUT = 8,   /* where standard output goes, */
    FM__WITH_ERRORS = 16,  /* and standard error */
    FM__WITH_DESK = 64,    /* of a worker of a pool, and its bell */
    FM__WITH_SOCKET = 32   /* by which the child is a template itself */
};

struct fm__command {
    uint32_t magic;
    uint16_t type, flags;
    uint64_t seq;
    uint32_t kind;
    uint32_t n_fds; /* with those of the flags */
    uint64_t len;   /* of the payload */
};

struct fm__hello {
    uint32_t size;    /* of struct fm__fork_order */
    uint32_t depth;   /* of the host: children of children */
    uint64_t channel; /* bytes that a channel maps */
    char version[16];
    int32_t host, host_group;
};

struct fm__fork_order {
    uint64_t job;
    uint64_t seed[2];
    uint32_t channel; /* by its id */
    uint32_t attempt;
    uint32_t name_len; /* of opts.name, which follows, without its end */
    uint32_t is_worker;
    struct fm_job_opts opts; /* its pointers mean nothing */
};

struct fm__reply {
    uint32_t magic;
    int32_t rc; /* 0 or a negative code */
    uint64_t seq;
    int32_t pid;
    uint32_t message_len, traceback_len; /* follow */
};

#endif
