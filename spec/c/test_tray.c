/* SPDX-License-Identifier: MIT */
/* Items through a tray: whole, in order, those that are not wanted left out. */
#include "test.h"

#include <errno.h>
#include <stdlib.h>

#include "fork_map.h"
#include "os/sys.h"
#include "wire/record.h"
#include "wire/tray.h"

#define SIZE ((size_t)4096)
#define LONGEST (5 * SIZE)

static struct fm__ring_shared shared;
static _Alignas(16) unsigned char bytes[SIZE];
static unsigned char content[LONGEST + 256];

static void bind(struct fm__tray *tray, struct fm__tray_reader *reader)
{
    memset(tray, 0, sizeof *tray);
    fm__ring_init(&tray->ring, &shared, bytes, SIZE);
    fm__ring_clear(&tray->ring);
    fm__tray_reader_init(reader, &tray->ring);
    for (size_t i = 0; i < sizeof content; i++)
        content[i] = (unsigned char)(i * 7 + i / 251);
}

/* An item's bytes follow from its number. */
static struct fm__parcel parcel_of(uint64_t index, size_t len)
{
    return (struct fm__parcel){.index = index,
                               .format = (int)(index % 256),
                               .data = content + index % 256,
                               .len = len};
}

static bool is_right(const struct fm__tray_reader *reader, uint64_t index,
                     size_t len, int format)
{
    return reader->pieces.len == len && format == (int)(index % 256) &&
           (len == 0 ||
            memcmp(reader->pieces.data, content + index % 256, len) == 0);
}

TEST(items_of_every_length_go_through)
{
    struct fm__tray tray;
    struct fm__tray_reader reader;
    int format = -1;

    bind(&tray, &reader);
    for (size_t len = 0; len < 300; len++) {
        struct fm__parcel parcel = parcel_of(len, len);
        size_t done = 0;

        CHECK_INT(fm__tray_put(&tray, &parcel, &done), 1);
        fm__tray_reader_clear(&reader);
        CHECK_INT(fm__tray_read(&reader, len, &format), FM__TRAY_HAVE);
        CHECK(is_right(&reader, len, len, format));
        CHECK_INT(fm__tray_read(&reader, len + 1, &format), FM__TRAY_WAIT);
    }
    fm__buffer_done(&reader.pieces);
}

/* A writer that goes on when it is told, and may give up items half-way. */
struct script {
    uint64_t n;
    size_t lens[4096];
    bool wanted[4096];
    bool cut[4096]; /* not wanted, and given up in the middle */
    uint64_t next;
    size_t done;
};

static void write_some(struct fm__tray *tray, struct script *script)
{
    while (script->next < script->n) {
        struct fm__parcel parcel =
            parcel_of(script->next, script->lens[script->next]);
        int rc = fm__tray_put(tray, &parcel, &script->done);

        CHECK(rc >= 0);
        if (rc == 0 && !(script->cut[script->next] && script->done > 0))
            return;
        if (rc == 0)
            tray->is_cut = true;
        script->next++;
        script->done = 0;
    }
}

static void run_script(struct script *script)
{
    struct fm__tray tray;
    struct fm__tray_reader reader;
    int format = -1;

    bind(&tray, &reader);
    write_some(&tray, script);
    for (uint64_t i = 0; i < script->n; i++) {
        int rc = FM__TRAY_WAIT;

        if (!script->wanted[i])
            continue;
        fm__tray_reader_clear(&reader);
        while ((rc = fm__tray_read(&reader, i, &format)) != FM__TRAY_HAVE) {
            /* Who waits for bytes has told of the room, if there is more. */
            CHECK(rc == FM__TRAY_TELL || script->next == script->n ||
                  reader.tells || script->done > 0);
            CHECK(reader.tells);
            reader.tells = false;
            write_some(&tray, script);
        }
        CHECK(is_right(&reader, i, script->lens[i], format));
        if (reader.tells) {
            reader.tells = false;
            write_some(&tray, script);
        }
    }
    fm__buffer_done(&reader.pieces);
}

TEST(what_is_wanted_comes_whole_whatever_is_passed_over)
{
    static struct script script;

    srand(20);
    for (int round = 0; round < 100; round++) {
        memset(&script, 0, sizeof script);
        script.n = 1000;
        for (uint64_t i = 0; i < script.n; i++) {
            int dice = rand() % 100;

            script.lens[i] = (size_t)rand() % (dice < 80   ? 40
                                               : dice < 95 ? 2000
                                                           : LONGEST);
            script.wanted[i] = rand() % 4 > 0;
            script.cut[i] = !script.wanted[i] && rand() % 2 == 0;
        }
        run_script(&script);
    }
}

TEST(an_item_that_was_cut_comes_whole_the_next_time)
{
    struct fm__tray tray;
    struct fm__tray_reader reader;
    struct fm__parcel parcel = parcel_of(6, LONGEST);
    size_t done = 0;
    int rc, format = -1;

    bind(&tray, &reader);
    CHECK_INT(fm__tray_put(&tray, &parcel, &done), 0);
    CHECK(done > 0);
    tray.is_cut = true;
    done = 0;
    while ((rc = fm__tray_read(&reader, 6, &format)) != FM__TRAY_HAVE) {
        CHECK(rc == FM__TRAY_WAIT || rc == FM__TRAY_TELL);
        reader.tells = false;
        CHECK(fm__tray_put(&tray, &parcel, &done) >= 0);
    }
    CHECK(is_right(&reader, 6, LONGEST, format));
    fm__buffer_done(&reader.pieces);
}

static bool starves;

static void *starve(void *p, size_t len)
{
    if (!starves && len > 0)
        return realloc(p, len);
    errno = ENOMEM;
    return NULL;
}

TEST(an_item_there_is_no_memory_for_can_be_asked_for_again)
{
    struct fm__tray tray;
    struct fm__tray_reader reader;
    struct fm__parcel parcel = parcel_of(6, 2000);
    size_t done = 0;
    int format = -1;

    bind(&tray, &reader);
    fm__sys.realloc = starve;
    starves = true;
    for (int i = 0; i < 2; i++) {
        CHECK_INT(fm__tray_put(&tray, &parcel, &done), 1);
        done = 0;
    }
    CHECK_INT(fm__tray_read(&reader, 6, &format), -ENOMEM);
    starves = false;
    fm__tray_reader_clear(&reader);
    CHECK_INT(fm__tray_read(&reader, 6, &format), FM__TRAY_HAVE);
    CHECK(is_right(&reader, 6, 2000, format));
    CHECK_INT(fm__tray_read(&reader, 7, &format), FM__TRAY_WAIT);
    fm__buffer_done(&reader.pieces);
}

TEST(the_rest_of_a_lost_item_is_not_taken_for_a_whole_one)
{
    struct fm__tray tray;
    struct fm__tray_reader reader;
    struct fm__parcel parcel = parcel_of(6, LONGEST);
    size_t done = 0;
    int format = -1;

    bind(&tray, &reader);
    fm__sys.realloc = starve;
    CHECK_INT(fm__tray_put(&tray, &parcel, &done), 0);
    starves = true;
    CHECK_INT(fm__tray_read(&reader, 6, &format), -ENOMEM);
    starves = false;
    fm__tray_reader_clear(&reader);
    while (fm__tray_put(&tray, &parcel, &done) == 0)
        CHECK(fm__tray_read(&reader, 6, &format) != FM__TRAY_HAVE);
    CHECK(fm__tray_read(&reader, 6, &format) != FM__TRAY_HAVE);
    done = 0;
    parcel.len = 100;
    CHECK_INT(fm__tray_put(&tray, &parcel, &done), 1);
    do
        reader.tells = false;
    while (fm__tray_read(&reader, 6, &format) == FM__TRAY_TELL);
    CHECK(is_right(&reader, 6, 100, format));
    fm__buffer_done(&reader.pieces);
}

TEST(a_reader_that_lies_about_what_it_read_is_found_out)
{
    static const uint64_t lies[] = {SIZE + 1, 1 << 20, UINT64_C(1) << 63};
    struct fm__tray tray;
    struct fm__tray_reader reader;
    struct fm__parcel parcel = parcel_of(1, 10);

    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        size_t done = 0;

        bind(&tray, &reader);
        atomic_store(&shared.head, lies[i]);
        CHECK_INT(fm__tray_put(&tray, &parcel, &done), FM_EPROTOCOL);
    }
}

TEST(bytes_that_are_no_records_are_refused)
{
    struct fm__tray tray;
    struct fm__tray_reader reader;
    int format = -1;

    bind(&tray, &reader);
    memset(bytes, 0x5a, sizeof bytes);
    fm__ring_commit(&tray.ring, 64);
    CHECK_INT(fm__tray_read(&reader, 0, &format), FM_EPROTOCOL);
    bind(&tray, &reader);
    fm__record_put(bytes, FM__RECORD_ITEM, 0, UINT32_MAX, 0);
    fm__ring_commit(&tray.ring, 64);
    CHECK_INT(fm__tray_read(&reader, 0, &format), FM_EPROTOCOL);
}
