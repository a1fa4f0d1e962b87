/* SPDX-License-Identifier: MIT */
/* Memory that is not like other memory: huge pages of a pool, and a group of
 * processes that may have only so much. */
#include "jobs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/memory.h"

#ifdef __linux__
#define HUGE ((size_t)2 << 20)

/* What a template maps, and its children: a page that somebody takes away is a
 * SIGBUS for all others. */
TEST(memory_that_has_a_descriptor_cannot_be_cut_off)
{
    long page = sysconf(_SC_PAGESIZE);
    size_t len = (size_t)page;
    int fd = fm__memory_open_file(len);
    int open_to_all = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    char *p = fm__memory_map_file(fd, len);

    CHECK(p != NULL);
    CHECK(ftruncate(fd, 0) < 0 && errno == EPERM);
    CHECK(ftruncate(fd, 2 * page) < 0 && errno == EPERM);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0 && errno == EPERM);
    p[len - 1] = 1;
    CHECK(fm__memory_map_file(fd, 2 * len) == NULL);
    /* As long, but not sealed. */
    CHECK_INT(ftruncate(open_to_all, page), 0);
    CHECK(fm__memory_map_file(open_to_all, len) == NULL);
    CHECK(fm__memory_read_file(open_to_all, len) == NULL);
    fm__memory_unshare(p, len);
    close(open_to_all);
    close(fd);
}

static int write_there(fm_child *child, void *ud)
{
    unsigned char *page = ud;

    page[0] = 9; /* a copy, for which the pool may have no page */
    page[HUGE - 1] = 9;
    return say_hello(child, NULL);
}

static void is_hello_or_sigbus(const struct fm_outcome *outcome)
{
    if (outcome->kind != FM_SIGNAL)
        is_hello(outcome);
    else
        CHECK_INT(outcome->signal, SIGBUS);
}

TEST(huge_pages_of_a_pool_stay_the_hosts_whatever_children_do)
{
    struct fm_prepare_report report;
    unsigned char *page =
        mmap(NULL, HUGE, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

    if (page == MAP_FAILED) {
        (void)printf("skipped: the pool of huge pages is empty\n");
        return;
    }
    memset(page, 7, HUGE);
    run_job(NULL, say_hello, NULL, is_hello);
    run_job(NULL, write_there, page, is_hello_or_sigbus);
    CHECK_INT(fm_prepare(&report), 0);
    run_job(NULL, write_there, page, is_hello_or_sigbus);
    for (size_t i = 0; i < HUGE; i++)
        CHECK(page[i] == 7);
    page[1] = 8; /* and may still be written */
    CHECK_INT(munmap(page, HUGE), 0);
}

/* ----------------------------------------- a group with little memory */

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[512];
    int fd;

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return; /* the other version of groups has it */
    CHECK_INT(write(fd, text, strlen(text)), strlen(text));
    (void)close(fd);
}

/* In less than the 10 ms after which a child says by itself that it is to be
 * taken first, or in more. */
static int take_memory(fm_child *child, void *ud)
{
    size_t piece = (size_t)1 << 20;

    for (int i = 0; i < 256; i++) {
        unsigned char *p = malloc(piece);

        if (!p)
            return -ENOMEM;
        for (size_t at = 0; at < piece; at += 512)
            p[at] = (unsigned char)at;
        if (*(int *)ud > 0)
            (void)usleep(1000);
    }
    return say_hello(child, NULL);
}

static void is_killed(const struct fm_outcome *outcome)
{
    CHECK_INT(outcome->kind, FM_SIGNAL);
    CHECK_INT(outcome->signal, SIGKILL);
}

/* A process of the group: the kernel is to take the job, not this one. */
static _Noreturn void be_host_in(const char *dir)
{
    int slowly = 1;

    write_text(dir, "cgroup.procs", "0");
    for (int i = 0; i < 3; i++) {
        run_job(NULL, take_memory, &slowly, is_killed);
        run_job(NULL, say_hello, NULL, is_hello);
    }
    _exit(0);
}

/* Making groups changes the machine, so it must be asked for: FORK_MAP_CGROUP
 * is the directory of one, of either version, in which others may be made and
 * that has the controller of memory. */
TEST(a_job_that_the_kernel_kills_for_its_memory_is_ended_by_a_signal)
{
    const char *parent = getenv("FORK_MAP_CGROUP");
    char dir[256];
    int status;
    pid_t host;

    if (!parent) {
        (void)printf("skipped: FORK_MAP_CGROUP is not set\n");
        return;
    }
    (void)snprintf(dir, sizeof dir, "%s/fork_map_spec_%d", parent,
                   (int)getpid());
    CHECK_INT(mkdir(dir, 0755), 0);
    write_text(dir, "memory.limit_in_bytes", "67108864");
    write_text(dir, "memory.max", "67108864");
    write_text(dir, "memory.swap.max", "0");
    host = fork();
    if (host == 0)
        be_host_in(dir);
    CHECK_INT(waitpid(host, &status, 0), host);
    /* Those that have ended leave the group a moment later. */
    for (int i = 0; i < 1000 && rmdir(dir) < 0; i++)
        (void)usleep(1000);
    CHECK_INT(access(dir, F_OK), -1);
    CHECK_INT(status, 0);
}
#endif
