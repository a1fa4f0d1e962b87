/* SPDX-License-Identifier: MIT */
/* A host with an io_uring: its queues lie in memory that the kernel shares, so
 * the descriptor is what keeps a child from using it. */
#include "jobs.h"

#if defined(__linux__) && defined(__has_include)
#if __has_include(<linux/io_uring.h>)
#define HAS_URING
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#endif
#endif

#ifdef HAS_URING
#define ENTRIES 8

struct uring {
    int fd;
    unsigned char *queues; /* both, in one mapping */
    size_t queues_len;
    struct io_uring_sqe *sqes;
    struct io_uring_params params;
};

static const struct fm_job_opts bare = {.has_keep_fds = true};

static _Atomic unsigned *word(const struct uring *uring, unsigned offset)
{
    return (_Atomic unsigned *)(void *)(uring->queues + offset);
}

/* False where the kernel has none, or not for us. */
static bool open_uring(struct uring *uring)
{
    const struct io_uring_params *params = &uring->params;

    memset(uring, 0, sizeof *uring);
    uring->fd = (int)syscall(__NR_io_uring_setup, ENTRIES, &uring->params);
    if (uring->fd < 0 || !(params->features & IORING_FEAT_SINGLE_MMAP)) {
        (void)printf("skipped: the kernel gives no io_uring\n");
        if (uring->fd >= 0)
            (void)close(uring->fd);
        return false;
    }
    uring->queues_len =
        params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
    if (params->sq_off.array + params->sq_entries * sizeof(unsigned) >
        uring->queues_len)
        uring->queues_len =
            params->sq_off.array + params->sq_entries * sizeof(unsigned);
    uring->queues = mmap(NULL, uring->queues_len, PROT_READ | PROT_WRITE,
                         MAP_SHARED, uring->fd, IORING_OFF_SQ_RING);
    uring->sqes =
        mmap(NULL, params->sq_entries * sizeof *uring->sqes,
             PROT_READ | PROT_WRITE, MAP_SHARED, uring->fd, IORING_OFF_SQES);
    CHECK(uring->queues != MAP_FAILED && (void *)uring->sqes != MAP_FAILED);
    return true;
}

static void close_uring(struct uring *uring)
{
    (void)munmap(uring->sqes, uring->params.sq_entries * sizeof *uring->sqes);
    (void)munmap(uring->queues, uring->queues_len);
    (void)close(uring->fd);
}

/* Submit one entry that does nothing.  What the kernel says. */
static long enter(const struct uring *uring, uint64_t name)
{
    _Atomic unsigned *tail = word(uring, uring->params.sq_off.tail);
    unsigned i = atomic_load(tail) & (uring->params.sq_entries - 1);

    memset(&uring->sqes[i], 0, sizeof uring->sqes[i]);
    uring->sqes[i].opcode = IORING_OP_NOP;
    uring->sqes[i].user_data = name;
    atomic_store(word(uring, uring->params.sq_off.array) + i, i);
    atomic_fetch_add(tail, 1);
    return syscall(__NR_io_uring_enter, uring->fd, 1, 1, IORING_ENTER_GETEVENTS,
                   NULL, 0);
}

static void check_done(const struct uring *uring, uint64_t name)
{
    _Atomic unsigned *head = word(uring, uring->params.cq_off.head);
    const struct io_uring_cqe *cqes =
        (const void *)(uring->queues + uring->params.cq_off.cqes);

    CHECK_INT(atomic_load(word(uring, uring->params.cq_off.tail)),
              atomic_load(head) + 1);
    CHECK_INT(
        cqes[atomic_load(head) & (uring->params.cq_entries - 1)].user_data,
        name);
    atomic_fetch_add(head, 1);
}

static int try_to_enter(fm_child *child, void *ud)
{
    const struct uring *uring = ud;

    /* Nothing is put into the queue, which the host shares. */
    if (syscall(__NR_io_uring_enter, uring->fd, 0, 0, 0, NULL, 0) >= 0 ||
        (errno != EBADF && errno != EOPNOTSUPP))
        return -EEXIST;
    return say_hello(child, NULL);
}

TEST(a_ring_of_the_host_is_dead_in_a_child_without_it_and_goes_on_in_the_host)
{
    fm_engine *engine = new_engine();
    struct uring uring;

    if (!open_uring(&uring)) {
        fm_engine_free(engine);
        return;
    }
    for (uint64_t i = 1; i <= 20; i++) {
        fm_future *future = spawn(engine, &bare, try_to_enter, &uring);

        CHECK_INT(enter(&uring, i), 1);
        is_hello(wait_for(engine, future));
        fm_future_unref(future);
        check_done(&uring, i);
    }
    close_uring(&uring);
    fm_engine_free(engine);
}
#else
TEST(a_ring_of_the_host_is_dead_in_a_child_without_it_and_goes_on_in_the_host)
{
    (void)printf("skipped: built without io_uring\n");
}
#endif
