/* SPDX-License-Identifier: MIT */
/* A worker of a pool, inside its process; see serving.h. */
#include "process/serving.h"

#include <errno.h>
#include <poll.h>

#include "fork_map.h"
#include "os/clock.h"
#include "os/sys.h"
#include "os/word.h"

/* How long it sleeps before it looks for its parent. */
#define NAP_NS FM__NS_PER_S

/* Descriptors that it waits for beside its bell. */
#define FDS_MOST 64

/* For how long it looks around, and how lucky that can be. */
#define LOOK_NS (20 * FM__NS_PER_MS / 1000)
#define LOOKS 32
#define LUCK_MOST 16u
#define LUCK_EVERY 32u

void fm__serving_init(struct fm__serving *serving, struct fm__outbox *outbox,
                      struct fm__desk *desk, const struct fm__bell *bell)
{
    struct fm__ring ring;

    fm__ring_init(&ring, &desk->ring, fm__desk_bytes(desk), FM__DESK_RING);
    fm__tray_reader_init(&serving->tray, &ring);
    serving->outbox = outbox;
    serving->desk = desk;
    serving->bell = *bell;
    serving->call = 0;
    serving->tag = 0;
    serving->format = 0;
    serving->is_taken = false;
    serving->luck = 0;
    serving->n_sleeps = 0;
}

bool fm__serving_must_leave(const struct fm__serving *serving)
{
    return atomic_load(&serving->desk->order) != FM__DESK_WORK;
}

/* False when the parent has taken it back. */
static bool begin(struct fm__serving *serving, uint64_t call)
{
    size_t slot = (size_t)(call & FM__DESK_SLOT_MASK);
    uint64_t word = fm__desk_word(call, FM__DESK_GIVEN);

    atomic_store_explicit(&serving->desk->begun_at[slot], fm__clock_now(),
                          memory_order_relaxed);
    serving->tag =
        atomic_load_explicit(&serving->desk->tags[slot], memory_order_relaxed);
    return atomic_compare_exchange_strong(&serving->desk->words[slot], &word,
                                          fm__desk_word(call, FM__DESK_BEGUN));
}

/* The next one that is whole.  As fm__tray_next(), but never FM__TRAY_TELL. */
static int read_next(struct fm__serving *serving)
{
    struct fm__tray_reader *tray = &serving->tray;
    int rc;

    do {
        rc = fm__tray_next(tray, &serving->call, &serving->format);
        if (!tray->tells)
            continue;
        tray->tells = false;
        if (fm__bell_ring(&serving->outbox->bell) < 0)
            return FM_ECLOSED; /* the function has closed it: no more will come
                                */
    } while (rc == FM__TRAY_TELL);
    return rc;
}

int fm__serving_take(struct fm__serving *serving)
{
    for (;;) {
        int rc;

        if (serving->is_taken)
            fm__tray_reader_clear(&serving->tray);
        serving->is_taken = false;
        rc = read_next(serving);
        if (rc == FM__TRAY_WAIT)
            return 0; /* what there is of the next one stays */
        if (rc == FM_ELIMIT)
            rc = -ENOMEM;
        if (rc < 0 && rc != -ENOMEM)
            return rc;
        serving->is_taken = true;
        if (begin(serving, serving->call))
            return rc < 0 ? rc : 1;
    }
}

/* Bytes have come, or the order to leave. */
static bool has_news(const struct fm__serving *serving)
{
    return atomic_load(&serving->desk->ring.tail) != serving->tray.ring.at ||
           fm__serving_must_leave(serving);
}

/* In a hurry the parent gives the next call before this process could be
 * asleep: it saves both of them a system call and a switch to look around for
 * as long as those take.  Where that has often been in vain, it is tried now
 * and then. */
static bool look_around(struct fm__serving *serving)
{
    bool is_due = serving->n_sleeps++ % LUCK_EVERY == 0;
    bool found = false;
    int64_t end;

    if (serving->luck == 0 && !is_due)
        return false;
    end = fm__clock_after(fm__clock_now(), LOOK_NS);
    do {
        for (int i = 0; i < LOOKS && !found; i++)
            found = has_news(serving);
    } while (!found && fm__clock_now() < end);
    if (found)
        serving->luck += serving->luck < LUCK_MOST;
    else
        serving->luck -= serving->luck > 0;
    return found;
}

static int check_parent(const struct fm__serving *serving)
{
    return fm__sys.getppid() == serving->outbox->parent ? 0 : FM_ECLOSED;
}

int fm__serving_sleep(struct fm__serving *serving, int64_t timeout_ns)
{
    struct fm__desk *desk = serving->desk;
    uint32_t call;

    if (look_around(serving))
        return 0;
    call = atomic_load(&desk->call);
    atomic_store(&desk->asleep, FM__DESK_BY_WORD);
    if (!has_news(serving))
        fm__word_wait(&desk->call, call,
                      timeout_ns < NAP_NS ? timeout_ns : NAP_NS);
    atomic_store(&desk->asleep, FM__DESK_AWAKE);
    return check_parent(serving);
}

int fm__serving_sleep_with(struct fm__serving *serving, const int *fds,
                           size_t n_fds, int64_t timeout_ns)
{
    struct fm__desk *desk = serving->desk;
    struct pollfd polls[FDS_MOST + 1];
    size_t n = n_fds < FDS_MOST ? n_fds : FDS_MOST;

    for (size_t i = 0; i < n; i++)
        polls[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    polls[n] = (struct pollfd){.fd = serving->bell.hear_fd, .events = POLLIN};
    atomic_store(&desk->asleep, FM__DESK_BY_BELL);
    if (!has_news(serving))
        (void)fm__sys.poll(
            polls, n + 1,
            fm__clock_poll_ms(timeout_ns < NAP_NS ? timeout_ns : NAP_NS));
    atomic_store(&desk->asleep, FM__DESK_AWAKE);
    if (polls[n].revents & POLLIN)
        fm__bell_silence(&serving->bell);
    return check_parent(serving);
}

int fm__serving_tell(struct fm__serving *serving, struct fm__tell *tell,
                     const char *first, const char *second)
{
    int rc = fm__outbox_put_tell(serving->outbox, tell, first, second);

    return rc < 0 ? rc : fm__outbox_wake_parent(serving->outbox);
}
