/* SPDX-License-Identifier: MIT */
/*
 * What a child prints, when the host wants to have it: one pipe per stream,
 * read by the parent, never blocking it.
 *
 * Capturing keeps the last FM__OUTPUT_KEEP bytes and counts the rest.  Lines
 * longer than FM__OUTPUT_LINE are handed over in pieces.
 */
#ifndef FM_PROCESS_OUTPUT_H
#define FM_PROCESS_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fork_map.h"

#define FM__OUTPUT_KEEP ((size_t)16 << 20)
#define FM__OUTPUT_LINE ((size_t)64 << 10)

struct fm__output {
    int read_fd, write_fd; /* parent's and child's end, -1 when none */
    enum fm_output mode;
    int stream; /* 1 or 2 */
    char *data; /* capture: a ring once it is full; lines: the open line */
    size_t len, size, start;
    uint64_t dropped;
};

#define FM__OUTPUT_INIT                                                        \
    {                                                                          \
        -1, -1, FM_OUTPUT_INHERIT, 0, NULL, 0, 0, 0, 0                         \
    }

/* Parent, before the fork.  0 or -errno. */
int fm__output_open(struct fm__output *output, enum fm_output mode, int stream);

/* Parent, after the fork. */
void fm__output_forget_child_end(struct fm__output *output);

/* Parent: read what there is, a bounded amount and at most `most` bytes; calls
 * `on_line`.  Returns
 * true while the stream is open and has been read empty, false at its end. */
bool fm__output_pump(struct fm__output *output, size_t most, fm_line_cb on_line,
                     void *ud);

/* Parent: nothing more comes; the last line may lack its newline. */
void fm__output_finish(struct fm__output *output, fm_line_cb on_line, void *ud);

/* Parent: what was captured, in one piece, valid until _done. */
void fm__output_get(struct fm__output *output, struct fm_captured *ret);

/* Parent: forget what was captured, keep the memory. */
void fm__output_clear(struct fm__output *output);

/* Idempotent, accepts FM__OUTPUT_INIT. */
void fm__output_done(struct fm__output *output);

/* Child: make descriptor `stream` the write end, or /dev/null (`null_fd`).
 * 0 or -errno. */
int fm__output_redirect(const struct fm__output *output, int stream,
                        enum fm_output mode, int null_fd);

#endif
