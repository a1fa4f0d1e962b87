/* SPDX-License-Identifier: MIT */
/* The table of UTF-8, see text.h. */
#include "wire/text.h"

/* How many bytes have to follow, and which ones: some first bytes narrow what
 * may be the second, so that a form is the shortest, no surrogate and not above
 * U+10FFFF. */
enum {
    ONE = 12,
    TWO = 18,
    THREE = 24,
    SECOND_A0 = 30, /* after e0: a0 to bf */
    SECOND_9F = 36, /* after ed: 80 to 9f */
    SECOND_90 = 42, /* after f0: 90 to bf */
    SECOND_8F = 48  /* after f4: 80 to 8f */
};

#define TO(from, to) ((uint64_t)(to) << (from))
#define REST TO(ONE, FM__UTF8_WHOLE) | TO(TWO, ONE) | TO(THREE, TWO)

#define AS TO(FM__UTF8_WHOLE, FM__UTF8_WHOLE)
#define R8 (REST | TO(SECOND_9F, ONE) | TO(SECOND_8F, TWO))
#define R9 (REST | TO(SECOND_9F, ONE) | TO(SECOND_90, TWO))
#define RA (REST | TO(SECOND_A0, ONE) | TO(SECOND_90, TWO))
#define C2 TO(FM__UTF8_WHOLE, ONE)
#define E0 TO(FM__UTF8_WHOLE, SECOND_A0)
#define E1 TO(FM__UTF8_WHOLE, TWO)
#define ED TO(FM__UTF8_WHOLE, SECOND_9F)
#define F0 TO(FM__UTF8_WHOLE, SECOND_90)
#define F1 TO(FM__UTF8_WHOLE, THREE)
#define F4 TO(FM__UTF8_WHOLE, SECOND_8F)

#define SIXTEEN(row)                                                           \
    row, row, row, row, row, row, row, row, row, row, row, row, row, row, row, \
        row

const uint64_t fm__utf8_rows[256] = {
    SIXTEEN(AS), SIXTEEN(AS), SIXTEEN(AS), SIXTEEN(AS), SIXTEEN(AS),
    SIXTEEN(AS), SIXTEEN(AS), SIXTEEN(AS), SIXTEEN(R8), SIXTEEN(R9),
    SIXTEEN(RA), SIXTEEN(RA),
    /* c0, c1 and f5 to ff are in no UTF-8 */
    0, 0, C2, C2, C2, C2, C2, C2, C2, C2, C2, C2, C2, C2, C2, C2, SIXTEEN(C2),
    /* e0 */
    E0, E1, E1, E1, E1, E1, E1, E1, E1, E1, E1, E1, E1, ED, E1, E1,
    /* f0 */
    F0, F1, F1, F1, F4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
