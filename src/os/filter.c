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

/* The threads of one user's processes. */
struct census {
    uid_t user;
    long tasks;
};

/* The owner of a process's files in /proc would not tell whose it is: those of
 * one that has changed its user belong to root. */
static void count_threads(int pid, void *ud)
{
    struct census *census = ud;
    char path[64], data[4096];
    const char *line;

    (void)snprintf(path, sizeof path, "/proc/%d/status", pid);
    if (fm__proc_read(path, data, sizeof data) <= 0)
        return;
    line = strstr(data, "\nUid:");
    if (!line || (uid_t)strtoul(line + 5, NULL, 10) != census->user)
        return;
    line = strstr(line, "\nThreads:");
    census->tasks += line ? strtol(line + 9, NULL, 10) : 1;
}

long fm__filter_count_tasks(void)
{
    struct census census = {.user = getuid(), .tasks = 0};
    int rc = fm__proc_each_number("/proc", false, count_threads, &census);

    return rc < 0 ? rc : census.tasks;
}
