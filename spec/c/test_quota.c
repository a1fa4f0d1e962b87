/* SPDX-License-Identifier: MIT */
/* CPU quotas, read from files that a test makes up. */
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <sys/mman.h>

#include "test.h"

#include "os/proc.h"
#include "os/quota.h"
#include "os/sys.h"

#define FILES_MAX 8

static struct file {
    const char *path, *text;
    size_t len; /* 0: that of the text */
} files[FILES_MAX];

/* Nothing is there but what was made up. */
static int open_fake(const char *path, int flags, mode_t mode)
{
    (void)flags;
    (void)mode;
    for (int i = 0; i < FILES_MAX; i++) {
        size_t len = files[i].len;
        int fd;

        if (!files[i].path || strcmp(files[i].path, path) != 0)
            continue;
        len = len ? len : strlen(files[i].text);
        fd = memfd_create("fake", MFD_CLOEXEC);
        CHECK(write(fd, files[i].text, len) == (ssize_t)len);
        CHECK(lseek(fd, 0, SEEK_SET) == 0);
        return fd;
    }
    errno = ENOENT;
    return -1;
}

static unsigned quota_of(const struct file *made_up, size_t n)
{
    unsigned quota;

    memset(files, 0, sizeof files);
    memcpy(files, made_up, n * sizeof *made_up);
    fm__sys.open = open_fake;
    quota = fm__quota_count_cpus();
    fm__sys = fm__sys_real;
    return quota;
}

#define QUOTA_OF(files) quota_of(files, sizeof(files) / sizeof(files)[0])

TEST(the_least_quota_of_all_groups_up_to_the_root_counts)
{
    static const struct file nested[] = {
        {"/proc/self/cgroup", "0::/a/b/c\n", 0},
        {"/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n", 0},
        {"/sys/fs/cgroup/a/b/cpu.max", "250000 100000\n", 0},
        {"/sys/fs/cgroup/a/cpu.max", "700000 100000\n", 0},
    };
    static const struct file root_only[] = {
        {"/proc/self/cgroup", "0::/docker/1234\n", 0},
        {"/sys/fs/cgroup/cpu.max", "50000 100000\n", 0},
    };
    static const struct file at_root[] = {
        {"/proc/self/cgroup", "0::/\n", 0},
        {"/sys/fs/cgroup/cpu.max", "400000 100000\n", 0},
    };
    static const struct file none[] = {
        {"/proc/self/cgroup", "0::/a\n", 0},
        {"/sys/fs/cgroup/a/cpu.max", "max 100000\n", 0},
    };

    CHECK_INT(QUOTA_OF(nested), 3);
    CHECK_INT(QUOTA_OF(root_only), 1);
    CHECK_INT(QUOTA_OF(at_root), 4);
    CHECK_INT(QUOTA_OF(none), 0);
}

TEST(quotas_of_the_first_version_count_too)
{
    static const struct file own[] = {
        {"/proc/self/cgroup", "11:memory:/x\n4:cpu,cpuacct:/x/y\n0::/z\n", 0},
        {"/sys/fs/cgroup/cpu,cpuacct/x/y/cpu.cfs_quota_us", "-1\n", 0},
        {"/sys/fs/cgroup/cpu,cpuacct/x/y/cpu.cfs_period_us", "100000\n", 0},
        {"/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "150000\n", 0},
        {"/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "50000\n", 0},
        {"/sys/fs/cgroup/unified/z/cpu.max", "900000 100000\n", 0},
    };
    static const struct file others[] = {
        {"/proc/self/cgroup", "4:cpuset:/x\n5:cpuacct:/x\n", 0},
        {"/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "100000\n", 0},
        {"/sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n", 0},
    };

    CHECK_INT(QUOTA_OF(own), 3);
    CHECK_INT(QUOTA_OF(others), 0);
}

/* Whatever there is, it is a number of processors or nothing. */
TEST(other_bytes_say_nothing)
{
    static const char *const texts[] = {
        "",         "\n",
        "max",      "max max",
        "0 100000", "-5 100000",
        "100000 0", "100000",
        "x 100000", "100000 -1",
        "1 x",      "\xff\xfe ",
        "0x10 10",  "99999999999999999999 1",
    };
    char path[8000];

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct file made_up[] = {
            {"/proc/self/cgroup", "0::/a\n", 0},
            {"/sys/fs/cgroup/a/cpu.max", texts[i], texts[i][0] ? 0 : 1},
        };
        struct file groups[] = {
            {"/proc/self/cgroup", texts[i], texts[i][0] ? 0 : 1},
        };

        CHECK_INT(QUOTA_OF(made_up), 0);
        CHECK_INT(QUOTA_OF(groups), 0);
    }
    memset(path, 'a', sizeof path - 1);
    memcpy(path, "0::/", 4);
    path[sizeof path - 1] = '\0';
    for (size_t len = 1; len < sizeof path; len += 97) {
        struct file made_up[] = {
            {"/proc/self/cgroup", path, len},
            {"/sys/fs/cgroup/cpu.max", "100000 100000", 0},
        };

        CHECK(QUOTA_OF(made_up) <= 1);
    }
}

TEST(a_huge_quota_is_a_number)
{
    static const struct file made_up[] = {
        {"/proc/self/cgroup", "0::/a\n", 0},
        {"/sys/fs/cgroup/a/cpu.max", "9223372036854775806 1", 0},
    };

    CHECK_INT(QUOTA_OF(made_up), UINT_MAX);
}

TEST(no_more_processors_are_counted_than_affinity_and_quota_allow)
{
    static const struct file made_up[] = {
        {"/proc/self/cgroup", "0::/\n", 0},
        {"/sys/fs/cgroup/cpu.max", "100000 100000\n", 0},
    };
    unsigned n = fm__proc_count_cpus();
    cpu_set_t one;

    memcpy(files, made_up, sizeof made_up);
    fm__sys.open = open_fake;
    CHECK_INT(fm__proc_count_cpus(), 1);
    fm__sys = fm__sys_real;
    CHECK(n >= 1);
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
    CHECK_INT(fm__proc_count_cpus(), 1);
}
