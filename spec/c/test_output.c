/* SPDX-License-Identifier: MIT */
/* Captured output when memory runs short. */
#include "test.h"

#include "os/sys.h"
#include "process/output.h"

static bool is_short;

static void *short_realloc(void *p, size_t size)
{
    return is_short ? NULL : fm__sys_real.realloc(p, size);
}

#define PIECE 4000
#define PIECES 6

TEST(captured_output_stays_whole_when_memory_was_short_for_a_while)
{
    struct fm__output output;
    struct fm_captured got = {NULL, 0, 0};
    char piece[PIECE];

    CHECK_INT(fm__output_open(&output, FM_OUTPUT_CAPTURE, 1), 0);
    fm__sys.realloc = short_realloc;
    for (int i = 0; i < PIECES; i++) {
        is_short = i == 2 || i == 3;
        memset(piece, 'a' + i, sizeof piece);
        CHECK_INT(write(output.write_fd, piece, sizeof piece), PIECE);
        CHECK(fm__output_pump(&output, NULL, NULL));
    }
    fm__output_get(&output, &got);
    CHECK(got.len >= PIECE);
    CHECK_INT(got.len + got.dropped, PIECE * PIECES);
    for (size_t i = 0; i < got.len; i++)
        CHECK_INT(got.data[i], 'a' + (int)((got.dropped + i) / PIECE));
    fm__output_done(&output);
}
