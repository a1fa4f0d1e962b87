/* SPDX-License-Identifier: MIT */
/* How many processes a child may make: a seccomp filter for none (root is
 * above RLIMIT_NPROC), a count for some. */
#include "os/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/proc.h"
#include "os/sys.h"

#ifdef __linux__
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define THIS_ARCH AUDIT_ARCH_RISCV64
#endif
#endif

#ifdef THIS_ARCH

#define FIELD(name) ((unsigned)offsetof(struct seccomp_data, name))
#define LOAD(name) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(name))
#define REFUSE BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN)
#define REFUSE_IF(number)                                                      \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), REFUSE

int fm__filter_deny_fork(void)
{
    struct sock_filter code[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0),
        REFUSE, /* calls of another architecture: none is needed */
        LOAD(nr),
#ifdef __x86_64__
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, 0, 1),
        REFUSE, /* the x32 numbers of the same calls */
        REFUSE_IF(SYS_fork),
        REFUSE_IF(SYS_vfork),
#endif
        REFUSE_IF(SYS_clone),
        REFUSE_IF(435u), /* clone3 */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof code[0], code};

    if (fm__sys.prctl(PR_SET_NO_NEW_PRIVS, 1) < 0 ||
        fm__sys.seccomp(SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
        return -errno;
    return 0;
}
#else
int fm__filter_deny_fork(void)
{
    return -ENOSYS;
}
#endif

#ifdef __linux__

/* The kernel's directory entry; see fds.c. */
struct linux_dirent {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

/* How many threads of process `pid` count as `user`'s.  The owner of its files
 * in /proc would not tell: those of a process that has changed its user belong
 * to root. */
static long threads_of(const char *pid, uid_t user)
{
    char path[64], data[4096];
    const char *line;

    (void)snprintf(path, sizeof path, "/proc/%.20s/status", pid);
    if (fm__proc_read(path, data, sizeof data) <= 0)
        return 0;
    line = strstr(data, "\nUid:");
    if (!line || (uid_t)strtoul(line + 5, NULL, 10) != user)
        return 0;
    line = strstr(line, "\nThreads:");
    return line ? strtol(line + 9, NULL, 10) : 1;
}

long fm__filter_count_tasks(void)
{
    _Alignas(8) char data[8192];
    int dir = fm__sys.open("/proc", O_RDONLY | O_DIRECTORY, 0);
    uid_t user = getuid();
    long tasks = 0, len;

    if (dir < 0)
        return -errno;
    while ((len = fm__sys.getdents64(dir, data, sizeof data)) > 0) {
        for (long at = 0; at < len;) {
            const struct linux_dirent *entry = (const void *)(data + at);

            if (entry->length == 0)
                break;
            at += entry->length;
            if (entry->name[0] >= '1' && entry->name[0] <= '9')
                tasks += threads_of(entry->name, user);
        }
    }
    (void)fm__sys.close(dir);
    return tasks;
}
#else
long fm__filter_count_tasks(void)
{
    return -ENOSYS;
}
#endif
