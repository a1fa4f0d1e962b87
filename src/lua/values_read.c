/* SPDX-License-Identifier: MIT */
/* What the readers of values share; see values_read.h. */
#include "lua/values_read.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <lauxlib.h>
#include "fork_map.h"
#include "os/clock.h"
#include "os/sys.h"

/* Events between two looks at the clock. */
#define LOOK_EVERY 4096

/* CPU time that a text may take: some, and so much for each byte.  Honest ones
 * take a tenth of it. */
#define CLOCK_FREE_NS (2 * FM__NS_PER_S)
#define CLOCK_BYTE_NS 200

void fmL_reader_init(struct fmL_reader *r, const void *data, size_t len,
                     size_t budget)
{
    r->L = NULL;
    r->data = data;
    r->len = len;
    r->budget = budget > 0 ? budget : SIZE_MAX;
    r->rc = 0;
    r->why = NULL;
    r->offset = 0;
    r->countdown = LOOK_EVERY;
    r->clock_start = 0;
    r->clock_offset = 0;
}

int fmL_read_fail(struct fmL_reader *r, int rc, const char *why)
{
    r->rc = rc;
    r->why = why;
    return rc;
}

int fmL_read_charge(struct fmL_reader *r, size_t bytes)
{
    if (bytes > r->budget)
        return fmL_read_fail(r, FM_ELIMIT, "the values take too much memory");
    r->budget -= bytes;
    return 0;
}

int fmL_read_charge_table(struct fmL_reader *r, size_t n_list, size_t n_keys)
{
    size_t room = n_keys > 0, bytes = FML_TABLE_BYTES;

    if (n_list > SIZE_MAX / 8 / FML_ITEM_BYTES ||
        n_keys > SIZE_MAX / 8 / FML_PAIR_BYTES)
        return fmL_read_fail(r, FM_ELIMIT, "a table too big for this machine");
    while (room < n_keys) /* Lua makes powers of 2 */
        room *= 2;
    bytes += n_list * FML_ITEM_BYTES + room * FML_PAIR_BYTES;
    return fmL_read_charge(r, bytes);
}

int fmL_read_room(struct fmL_reader *r, int n)
{
    if (lua_checkstack(r->L, n))
        return 0;
    if (lua_gettop(r->L) < LUAI_MAXSTACK / 2)
        return fmL_read_fail(r, -ENOMEM, "not enough memory");
    return fmL_read_fail(r, FM_ELIMIT, "more values than Lua's stack holds");
}

int fmL_read_top(struct fmL_reader *r)
{
    int rc = fmL_read_charge(r, FML_ITEM_BYTES);

    return rc < 0 ? rc : fmL_read_room(r, LUA_MINSTACK);
}

static int64_t cpu_time(void)
{
    struct timespec ts;

    if (fm__sys.clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts) < 0)
        return 0;
    return ts.tv_sec * FM__NS_PER_S + ts.tv_nsec;
}

int fmL_read_look(struct fmL_reader *r, size_t offset)
{
    int64_t now = cpu_time(), allowed;

    r->countdown = LOOK_EVERY;
    if (r->clock_start == 0) {
        r->clock_start = now;
        r->clock_offset = offset;
        return 0;
    }
    /* A text is at most half the address space, 2^63 / 200 is 2^55. */
    allowed = CLOCK_FREE_NS;
    if (offset - r->clock_offset < SIZE_MAX >> 9)
        allowed += (int64_t)(offset - r->clock_offset) * CLOCK_BYTE_NS;
    if (now - r->clock_start > allowed)
        return fmL_read_fail(r, FM_ELIMIT, "the text takes absurdly long");
    return 0;
}

int fmL_read_string(struct fmL_reader *r, const char *data, size_t len)
{
    if (len >= FML_STRING_CHARGED &&
        fmL_read_charge(r, len + FML_STRING_BYTES) < 0)
        return FM_ELIMIT;
    lua_pushlstring(r->L, data, len);
    return 0;
}

uint64_t fmL_key_hash(const char *data, size_t len)
{
    uint64_t a = 0, b = 0;

    if (len >= 8) {
        memcpy(&a, data, 8);
        memcpy(&b, data + len - 8, 8);
    } else if (len >= 4) {
        memcpy(&a, data, 4);
        memcpy(&b, data + len - 4, 4);
    } else if (len > 0) {
        a = (unsigned char)data[0];
        b = (uint64_t)(unsigned char)data[len / 2] << 8 |
            (unsigned char)data[len - 1];
    }
    a = (a ^ len) * UINT64_C(0x9e3779b97f4a7c15);
    b = (b ^ a >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    return a ^ b;
}

void fmL_read_begin(struct fmL_reader *r, lua_State *L, bool keeps_keys)
{
    r->L = L;
    r->base = keeps_keys ? FML_SLOTS + FM__BINARY_SLOTS - 1 : FML_REFERENCES;
    if (keeps_keys) /* else what a C function may count on is enough */
        luaL_checkstack(L, r->base + LUA_MINSTACK, NULL);
    lua_settop(L, r->base);
}
