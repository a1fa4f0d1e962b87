/* SPDX-License-Identifier: MIT */
/* Names and texts of codes, those that nobody should send included. */
#include "test.h"

#include <limits.h>

#include "fork_map.h"

TEST(every_code_has_a_name_and_a_text)
{
    static const int codes[] = {INT_MIN, INT_MIN + 1, -4096,    -4095,
                                -ENOENT, 0,           FM_EBUSY, FM_ECLOSED,
                                ENOENT,  INT_MAX - 1, INT_MAX};

    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        CHECK(fm_strerror(codes[i])[0] != '\0');
        CHECK(fm_err_name(codes[i])[0] != '\0');
    }
    CHECK_STR(fm_err_name(-EMFILE), "EMFILE");
    CHECK_STR(fm_err_name(FM_EBUSY), "FM_EBUSY");
    CHECK_STR(fm_err_name(INT_MIN), "EUNKNOWN");
}
