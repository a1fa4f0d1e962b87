/* SPDX-License-Identifier: MIT */
/* What one child and its parent share; see channel.h. */
#include "process/channel.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "os/fds.h"
#include "os/memory.h"
#include "os/sys.h"

/* All records; the ring's bytes follow in the same page, so that a small
 * result touches no other. */
struct front {
    struct fm__ring_shared ring;
    _Alignas(64) struct fm__flight flight;
    struct fm__post post;
    _Alignas(64) unsigned char bytes[];
};

#define PAGE_SIZE 4096

_Static_assert(offsetof(struct front, bytes) < PAGE_SIZE / 2,
               "a small result fits the first page");

size_t fm__channel_get_size(void)
{
    return PAGE_SIZE + FM__RING_SIZE;
}

static void begin(struct fm__channel *channel)
{
    memset(channel, 0, sizeof *channel);
    channel->fd = -1;
    channel->lifeline = (struct fm__lifeline)FM__LIFELINE_INIT;
    channel->anchor = (struct fm__lifeline)FM__LIFELINE_INIT;
    channel->map_len = fm__channel_get_size();
}

static void lay_out(struct fm__channel *channel)
{
    struct front *front = channel->map;

    channel->flight = &front->flight;
    channel->post = &front->post;
    fm__ring_init(&channel->ring, &front->ring, front->bytes, FM__RING_SIZE);
}

/* With the mapping, or errno. */
static int open_rest(struct fm__channel *channel)
{
    int rc = channel->map ? 0 : -errno;

    if (rc == 0)
        rc = fm__lifeline_open(&channel->lifeline);
    if (rc < 0) {
        fm__channel_close(channel);
        return rc;
    }
    fm__lifeline_try(&channel->anchor);
    lay_out(channel);
    return 0;
}

int fm__channel_open(struct fm__channel *channel)
{
    begin(channel);
    channel->map = fm__memory_share(channel->map_len);
    return open_rest(channel);
}

int fm__channel_open_file(struct fm__channel *channel)
{
    int fd;

    begin(channel);
    fd = fm__memory_open_file(channel->map_len);
    if (fd < 0)
        return fd;
    channel->fd = fm__fd_take(fd);
    if (channel->fd < 0)
        return channel->fd;
    channel->map = fm__memory_map_file(channel->fd, channel->map_len);
    return open_rest(channel);
}

int fm__channel_map(struct fm__channel *channel, int fd)
{
    begin(channel);
    channel->map = fm__memory_map_file(fd, channel->map_len);
    if (!channel->map)
        return -errno;
    lay_out(channel);
    return 0;
}

void fm__channel_clear(struct fm__channel *channel)
{
    struct fm__flight *flight = channel->flight;

    fm__ring_clear(&channel->ring);
    atomic_store(&flight->gate, FM__GATE_SHUT);
    atomic_store(&flight->stage, FM__STAGE_START);
    atomic_store(&flight->sampler, 0);
    atomic_store(&flight->notes, 0);
    flight->where[0] = '\0';
}

void fm__channel_clear_post(struct fm__channel *channel)
{
    struct fm__post *post = channel->post;

    atomic_store(&post->word, 0);
    atomic_store(&post->at, 0);
    atomic_store(&post->started_at, 0);
    atomic_store(&post->detail, 0);
    atomic_store(&post->claiming, 0);
    atomic_store(&post->quiet, 0);
    atomic_store(&post->pace, 0);
    atomic_store(&post->leaves, 0);
    atomic_store(&post->gift, 0);
    atomic_store(&post->limit, 0);
    atomic_store(&post->gift_attempt, 0);
    atomic_store(&post->order, FM__ORDER_WORK);
    atomic_store(&post->spoke, 0);
    atomic_store(&post->recall, 0);
    atomic_store(&post->ask, 0);
    atomic_store(&post->asleep, 0);
}

struct fm__offer fm__channel_get_offer(const struct fm__channel *channel)
{
    return (struct fm__offer){.fd = channel->lifeline.read_fd,
                              .map = channel->map,
                              .map_len = channel->map_len};
}

void fm__channel_close(struct fm__channel *channel)
{
    fm__lifeline_close(&channel->lifeline);
    fm__lifeline_close(&channel->anchor);
    fm__fd_close(&channel->fd);
    fm__forking_forget(channel->map);
    fm__memory_unshare(channel->map, channel->map_len);
    channel->map = NULL;
}
