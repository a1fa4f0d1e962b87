/* SPDX-License-Identifier: MIT */
/* Waiting for engines from outside: for several of them, and for one thing
 * among many in a loop of the host. */
#include <errno.h>
#include <poll.h>

#include "engine/bind.h"
#include "engine/engine.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/sys.h"

#define ENGINES_MOST 16

/* Those that have no descriptor, or are too many, are looked at so often. */
#define BLIND_WAIT_NS (5 * FM__NS_PER_MS)

struct fm__beacon {
    struct fm__poller poller; /* the engine's and that of the bell */
    int engine_fd;            /* in it, while the beacon is dark */
    struct fm__bell bell;     /* rung when it is lit */
    unsigned generation;      /* of the process whose descriptors they are */
};

int fm__beacon_new(fm_engine *engine, struct fm__beacon **ret_beacon)
{
    int fd = fm_engine_fd(engine);
    struct fm__beacon *beacon;
    int rc;

    if (fd < 0)
        return fd;
    beacon = fm__sys.malloc(sizeof *beacon);
    if (!beacon)
        return -ENOMEM;
    beacon->poller = (struct fm__poller)FM__POLLER_INIT;
    beacon->bell = (struct fm__bell)FM__BELL_INIT;
    beacon->generation = fm__fds_generation();
    beacon->engine_fd = fd;
    rc = fm__fds_open();
    if (rc < 0) {
        fm__sys.free(beacon);
        return rc;
    }
    rc = fm__poller_open(&beacon->poller);
    if (rc == 0)
        rc = fm__bell_open(&beacon->bell);
    if (rc == 0)
        rc = fm__poller_add(&beacon->poller, fd, FM__POLL_IN, 0);
    if (rc == 0)
        rc = fm__poller_add(&beacon->poller, beacon->bell.hear_fd, FM__POLL_IN,
                            1);
    if (rc < 0) {
        fm__beacon_free(beacon);
        return rc;
    }
    *ret_beacon = beacon;
    return 0;
}

int fm__beacon_fd(const struct fm__beacon *beacon)
{
    return beacon->poller.fd;
}

void fm__beacon_light(struct fm__beacon *beacon)
{
    if (beacon->generation != fm__fds_generation())
        return;
    (void)fm__bell_ring(&beacon->bell);
    /* The kernel takes only so many that watch one engine. */
    fm__poller_remove(&beacon->poller, beacon->engine_fd);
}

int fm__beacon_dim(struct fm__beacon *beacon)
{
    if (beacon->generation != fm__fds_generation())
        return FM_ECLOSED;
    fm__bell_silence(&beacon->bell);
    fm__poller_remove(&beacon->poller, beacon->engine_fd);
    return fm__poller_add(&beacon->poller, beacon->engine_fd, FM__POLL_IN, 0);
}

void fm__beacon_free(struct fm__beacon *beacon)
{
    if (!beacon)
        return;
    /* In a child they were buried. */
    if (beacon->generation == fm__fds_generation()) {
        fm__poller_close(&beacon->poller);
        fm__bell_close(&beacon->bell);
        fm__fds_close();
    }
    fm__sys.free(beacon);
}

int fm__engines_wait(fm_engine *const *engines, size_t n, int64_t timeout_ns)
{
    struct pollfd fds[ENGINES_MOST];
    unsigned long n_fds = 0;

    for (size_t i = 0; i < n; i++) {
        int fd = n_fds < ENGINES_MOST ? fm_engine_fd(engines[i]) : -ENOSYS;

        if (fd >= 0)
            fds[n_fds++] = (struct pollfd){.fd = fd, .events = POLLIN};
        else if (timeout_ns > BLIND_WAIT_NS)
            timeout_ns = BLIND_WAIT_NS;
    }
    if (fm__sys.poll(fds, n_fds, fm__clock_poll_ms(timeout_ns)) < 0)
        return -errno;
    return 0;
}
