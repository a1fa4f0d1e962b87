/* SPDX-License-Identifier: MIT */
/* What a frame header may say; see frame.h. */
#include "wire/frame.h"

#include "fork_map.h"

/* Bounds of each type's payload. */
static const struct {
    uint32_t min, max;
} lengths[] = {
    [FM__FRAME_START_FAILED] = {4, 4 + 256},
    [FM__FRAME_FORMAT] = {1, 1},
    [FM__FRAME_DATA] = {1, FM__FRAME_DATA_MAX},
    [FM__FRAME_FAIL] = {4, FM__FRAME_CONTROL_MAX},
    [FM__FRAME_REFUSE] = {4, FM__FRAME_CONTROL_MAX},
    [FM__FRAME_EXCEED] = {4, FM__FRAME_CONTROL_MAX},
    [FM__FRAME_EXITED] = {4, 4},
    [FM__FRAME_END] = {8, 8},
    [FM__FRAME_ASIDE] = {1, 1},
    [FM__FRAME_TELL] = {16, FM__FRAME_TELL_MAX},
};

int fm__frame_check(const struct fm__frame_head *head, uint64_t job)
{
    if (head->magic != FM__FRAME_MAGIC || head->reserved != 0 ||
        head->job != job || head->type == 0 ||
        head->type >= sizeof lengths / sizeof lengths[0])
        return FM_EPROTOCOL;
    if (head->len < lengths[head->type].min ||
        head->len > lengths[head->type].max)
        return FM_EPROTOCOL;
    return 0;
}
