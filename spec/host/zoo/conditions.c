/* SPDX-License-Identifier: MIT */
/* What makes a host strange; see zoo.h. */
#include "zoo.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <locale.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

struct zoo_host zoo_host = {.waits_for_own = true, .report_fd = 2};

void zoo_must(bool is_done, const char *what)
{
    if (is_done)
        return;
    (void)dprintf(zoo_host.report_fd, "the host cannot be made: %s: %s\n", what,
                  strerror(errno));
    _exit(2);
}

/* ------------------------------------------------------------- SIGCHLD */

static void handle(int sig, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};

    zoo_must(sigaction(sig, &action, NULL) == 0, "sigaction");
}

static void lose_status(void)
{
    zoo_host.loses_status = true;
    zoo_host.waits_for_own = false;
}

static void ignore_sigchld(void)
{
    lose_status();
    handle(SIGCHLD, SIG_IGN, 0);
}

static void wait_for_no_child(void)
{
    lose_status();
    handle(SIGCHLD, SIG_DFL, SA_NOCLDWAIT);
}

static void reap_all(int sig)
{
    int saved = errno;

    (void)sig;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    errno = saved;
}

static void reap_in_a_handler(void)
{
    lose_status();
    handle(SIGCHLD, reap_all, 0);
}

static void reap_in_a_thread(void)
{
    lose_status();
    zoo_reap_in_a_thread();
}

/* --------------------------------------------------------------- kernel */

#ifdef __linux__
/* Calls that older kernels do not have. */
static const int newer_calls[] = {
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
#ifdef SYS_pidfd_getfd
    SYS_pidfd_getfd,
#endif
#ifdef SYS_close_range
    SYS_close_range,
#endif
};

#define N_NEWER (sizeof newer_calls / sizeof *newer_calls)

static void refuse_newer(uint32_t how)
{
    struct sock_filter code[2 * N_NEWER + 4];
    struct sock_fprog program = {.filter = code};
    size_t n = 0;

    code[n++] = (struct sock_filter)BPF_STMT(
        BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < N_NEWER; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(
            BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)newer_calls[i], 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
                                                 SECCOMP_RET_ERRNO | how);
    }
#ifdef SYS_clone3
    /* The C library takes no other answer for this one. */
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                             (uint32_t)SYS_clone3, 0, 1);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
                                             SECCOMP_RET_ERRNO | ENOSYS);
#endif
    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program.len = (unsigned short)n;
    zoo_must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
    zoo_must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0,
             "seccomp");
}

static void have_an_old_kernel(void)
{
    refuse_newer(ENOSYS);
}

/* As container runtimes answer what they do not know. */
static void have_a_guarded_kernel(void)
{
    refuse_newer(EPERM);
}
#else
#define have_an_old_kernel NULL
#define have_a_guarded_kernel NULL
#endif

/* ---------------------------------------------- user, locale, descriptors */

static void become_nobody(void)
{
    if (geteuid() != 0)
        return; /* it is an ordinary user already */
    zoo_must(setgroups(0, NULL) == 0, "setgroups");
    zoo_must(setgid(65534) == 0, "setgid");
    zoo_must(setuid(65534) == 0, "setuid");
}

/* Where there is no such locale (LOCPATH may name one), it stays. */
static void speak_german(void)
{
    (void)setlocale(LC_ALL, "de_DE.UTF-8");
}

static void close_streams(void)
{
    zoo_host.report_fd = fcntl(2, F_DUPFD_CLOEXEC, 5);
    zoo_must(zoo_host.report_fd >= 0, "dup");
    for (int fd = 0; fd < 3; fd++)
        (void)close(fd);
}

static void close_input(void)
{
    (void)close(0);
}

static void have_few_files(void)
{
    struct rlimit limit = {32, 32};

    zoo_must(setrlimit(RLIMIT_NOFILE, &limit) == 0, "RLIMIT_NOFILE");
}

/* -------------------------------------------------------- exits, crashes */

static atomic_int *n_strays;

void zoo_count_stray(void)
{
    atomic_fetch_add(n_strays, 1);
}

int zoo_n_strays(void)
{
    return n_strays ? atomic_load(n_strays) : 0;
}

static void __attribute__((destructor)) end_of_program(void)
{
    if (n_strays)
        zoo_count_stray();
}

static void on_crash(int sig)
{
    zoo_count_stray();
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

static void on_polite_signal(int sig)
{
    (void)sig;
    zoo_count_stray();
}

static FILE *unflushed;

bool zoo_has_written_once(void)
{
    if (!unflushed)
        return true;
    return fflush(unflushed) == 0 &&
           lseek(fileno(unflushed), 0, SEEK_END) == sizeof "once" - 1;
}

/* It reports crashes, has its own ideas about the end of the process, and text
 * in buffers that is to be written once. */
static void be_crowded(void)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    static char stack_memory[65536];
    stack_t stack = {.ss_sp = stack_memory, .ss_size = sizeof stack_memory};

    n_strays = mmap(NULL, sizeof *n_strays, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    zoo_must(n_strays != MAP_FAILED, "mmap");
    zoo_must(atexit(zoo_count_stray) == 0, "atexit");
    zoo_must(sigaltstack(&stack, NULL) == 0, "sigaltstack");
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
        handle(crashes[i], on_crash, SA_ONSTACK);
    handle(SIGTERM, on_polite_signal, SA_RESTART);
    handle(SIGHUP, on_polite_signal, SA_RESTART);
    handle(SIGPIPE, SIG_IGN, 0);
    unflushed = tmpfile();
    zoo_must(unflushed && fputs("once", unflushed) >= 0, "tmpfile");
    (void)fputs(" ", stdout);
}

/* --------------------------------------------------------------- signals */

static void block_all(void)
{
    sigset_t all;

    (void)sigfillset(&all);
    zoo_must(sigprocmask(SIG_SETMASK, &all, NULL) == 0, "sigprocmask");
}

static void on_alarm(int sig)
{
    (void)sig;
}

static void be_interrupted(void)
{
    struct itimerval often = {{0, 1000}, {0, 1000}};

    handle(SIGALRM, on_alarm, 0);
    zoo_must(setitimer(ITIMER_REAL, &often, NULL) == 0, "setitimer");
}

/* The filter before the threads, which inherit it; the user before all that
 * needs no rights; threads before the mask, which is the main thread's. */
const struct zoo_factor zoo_factors[] = {
    {"kernel",
     {{"new", NULL},
      {"old", have_an_old_kernel},
      {"guarded", have_a_guarded_kernel}}},
    {"end", {{"plain", NULL}, {"crowded", be_crowded}}},
    {"user", {{"same", NULL}, {"nobody", become_nobody}}},
    {"locale", {{"C", NULL}, {"German", speak_german}}},
    {"sigchld",
     {{"default", NULL},
      {"ignored", ignore_sigchld},
      {"nocldwait", wait_for_no_child},
      {"handler", reap_in_a_handler},
      {"thread", reap_in_a_thread}}},
    {"streams",
     {{"open", NULL}, {"no input", close_input}, {"closed", close_streams}}},
    {"files", {{"many", NULL}, {"few", have_few_files}}},
    {"threads",
     {{"none", NULL},
      {"eight", zoo_hammer},
      {"dying", zoo_make_threads},
      {"forking", zoo_fork_strangers}}},
    {"mask", {{"empty", NULL}, {"full", block_all}}},
    {"alarm", {{"quiet", NULL}, {"often", be_interrupted}}},
};

const size_t zoo_n_factors = sizeof zoo_factors / sizeof *zoo_factors;
