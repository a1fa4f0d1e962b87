/* SPDX-License-Identifier: MIT */
/* Templates: processes that fork for their host. */
#include "jobs.h"
#include "served.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "engine/duplex.h"
#include "engine/template.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/sys.h"

#ifdef FM_TEMPLATES

enum {
    SAY_PIDS = 1,
    ECHO,
    SLEEP,
    EXIT_3,
    SERVE,
    FAIL,
    COUNT_FDS,
    SUM_FDS,
    BREAK_MMAP,
    LIMIT_FDS,
    UNLIMIT_FDS
};

/* ---------------------------------------------------------- in the template */

static const struct fm__server_calls server_calls;

static int n_called;

static int write_int(fm_child *child, int64_t n)
{
    return fm_child_write(child, &n, sizeof n);
}

static int count_fds(void)
{
    int n = 0;

    for (int fd = 3; fd < 1024; fd++)
        n += fcntl(fd, F_GETFL) >= 0 && !(fcntl(fd, F_GETFL) & O_PATH);
    return n;
}

static int do_job(fm_child *child, void *ud)
{
    const struct fm__errand *errand = ud;
    int rc;

    switch (errand->kind) {
    case SAY_PIDS:
        rc = write_int(child, getppid());
        return rc < 0 ? rc : write_int(child, n_called);
    case ECHO:
        return fm_child_write(child, errand->data, errand->len);
    case SLEEP:
        for (;;)
            pause();
    case EXIT_3:
        _exit(3);
    case SERVE:
        return fm__serve(fm__child_get_socket(child), &server_calls);
    case COUNT_FDS:
        return write_int(child, count_fds());
    default:
        return fm_child_fail(child, "no such job", NULL);
    }
}

static void *rest(void *ud)
{
    pause();
    return ud;
}

static void *failing_mmap(void *p, size_t len, int prot, int flags, int fd,
                          off_t offset)
{
    (void)p;
    (void)len;
    (void)prot;
    (void)flags;
    (void)fd;
    (void)offset;
    fm__sys.mmap = fm__sys_real.mmap;
    errno = ENOMEM;
    return MAP_FAILED;
}

static int limit_fds(bool is_limited)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    limit.rlim_cur = is_limited ? 3 : limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

static int do_call(struct fm__server *server, const struct fm__errand *errand,
                   const int *fds, size_t n_fds, void *ud)
{
    pthread_t thread;

    (void)ud;
    switch (errand->kind) {
    case FAIL:
        fm__server_fail(server, "it went wrong", "at some line");
        return FM_EPROTOCOL - 100;
    case SLEEP:
        return -pthread_create(&thread, NULL, rest, NULL);
    case SUM_FDS:
        for (size_t i = 0; i < n_fds; i++) {
            char byte = 'x';

            if (write(fds[i], &byte, 1) != 1)
                return -errno;
            (void)close(fds[i]);
        }
        return 0;
    case SERVE:
        return 1;
    case BREAK_MMAP:
        fm__sys.mmap = failing_mmap;
        return 0;
    case LIMIT_FDS:
    case UNLIMIT_FDS:
        return limit_fds(errand->kind == LIMIT_FDS);
    default:
        n_called++;
        return 0;
    }
}

static const struct fm__server_calls server_calls = {.job = do_job,
                                                     .call = do_call};

static int serve(fm_child *child, void *ud)
{
    (void)ud;
    return fm__serve(fm__child_get_socket(child), &server_calls);
}

/* As an executed program: begins before main. */
static void __attribute__((constructor)) serve_if_asked(void)
{
    int fd = find_served_fd();

    if (fd >= 0)
        _exit(fm__serve(fm__fd_adopt(fd), &server_calls) < 0);
}

/* --------------------------------------------------------------- in the host
 */

static fm_template *new_template(fm_engine *engine)
{
    struct fm__template_opts opts = {.fn = serve};
    fm_template *template = NULL;

    CHECK_INT(fm__template_new(engine, &opts, &template), 0);
    return template;
}

static fm_template *exec_template(fm_engine *engine)
{
    static char path[] = "/proc/self/exe", option[] = "--serve";
    char *argv[] = {path, option, NULL};
    struct fm__template_opts opts = {.argv = argv};
    fm_template *template = NULL;

    CHECK_INT(fm__template_new(engine, &opts, &template), 0);
    return template;
}

static void let_go(fm_template *template)
{
    fm__template_close(template, FM__NS_PER_S);
    fm__template_unref(template);
}

static fm_future *ask(fm_template *template, uint32_t kind, const void *data,
                      size_t len)
{
    struct fm__errand errand = {.kind = kind, .data = data, .len = len};
    fm_future *future = NULL;

    CHECK_INT(fm__template_spawn(template, NULL, &errand, &future), 0);
    return future;
}

static void settle(fm_engine *engine, fm_template *template)
{
    while (!fm__template_is_settled(template))
        (void)fm__engine_rest(engine, FM__NS_PER_S);
}

static void call(fm_template *template, uint32_t kind)
{
    struct fm__errand errand = {.kind = kind};

    CHECK_INT(fm__template_call(template, &errand, NULL, 0), 0);
}

/* Children that were refused at their gates. */
static void reap_parked(fm_engine *engine)
{
    struct fm_engine_stats stats;

    do {
        (void)fm__engine_rest(engine, FM__NS_PER_MS);
        fm_engine_get_stats(engine, &stats);
    } while (stats.parked > 0);
}

/* It is a zombie, of which nobody has heard. */
static void kill_unheard(pid_t pid)
{
    siginfo_t info;

    CHECK_INT(kill(pid, SIGKILL), 0);
    CHECK_INT(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

static void check_echo(fm_engine *engine, fm_template *template, size_t len)
{
    char *data = malloc(len + 1);
    const struct fm_outcome *outcome;
    fm_future *future;

    memset(data, 'e', len + 1);
    future = ask(template, ECHO, data, len);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, len);
    CHECK(len == 0 || memcmp(outcome->data, data, len) == 0);
    fm_future_unref(future);
    free(data);
}

static void check_pids(fm_engine *engine, fm_template *template)
{
    const struct fm_outcome *outcome;
    fm_future *future = ask(template, SAY_PIDS, NULL, 0);
    int64_t says[2];

    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_VALUE);
    CHECK_INT(outcome->len, sizeof says);
    memcpy(says, outcome->data, sizeof says);
    CHECK_INT(says[0], getpid());
    CHECK(outcome->pid > 0 && outcome->pid != fm__template_get_pid(template));
    fm_future_unref(future);
}

TEST(a_job_of_a_template_is_the_hosts_own_child)
{
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);

    check_pids(engine, template);
    check_pids(engine, template);
    CHECK_INT(fm__template_get_state(template), FM__TEMPLATE_READY);
    let_go(template);
    fm_engine_free(engine);
}

TEST(an_executed_program_serves_as_a_template)
{
    fm_engine *engine = new_engine();
    fm_template *template = exec_template(engine);

    check_pids(engine, template);
    check_echo(engine, template, 100);
    let_go(template);
    fm_engine_free(engine);
}

TEST(a_program_that_does_not_exist_fails_the_template)
{
    static char path[] = "/nonexistent/program";
    char *argv[] = {path, NULL};
    struct fm__template_opts opts = {.argv = argv};
    fm_engine *engine = new_engine();
    const struct fm__template_failure *failure;
    fm_template *template;
    fm_future *future;

    CHECK_INT(fm__template_new(engine, &opts, &template), 0);
    CHECK_INT(fm__template_get_state(template), FM__TEMPLATE_FAILED);
    failure = fm__template_get_failure(template);
    CHECK_INT(failure->kind, FM_SPAWN);
    CHECK(strstr(failure->message, "/nonexistent/program") != NULL);
    future = ask(template, ECHO, "x", 1);
    CHECK_INT(wait_for(engine, future)->kind, FM_SPAWN);
    fm_future_unref(future);
    fm__template_unref(template);
    fm_engine_free(engine);
}

TEST(an_executed_program_gets_no_descriptor_of_the_host)
{
    fm_engine *engine = new_engine();
    int64_t said = 0, with_none = 0;
    fm_template *template;
    fm_future *future;
    int fds[100];

    for (int round = 0; round < 2; round++) {
        for (int i = 0; round == 1 && i < 100; i++)
            fds[i] = open("/dev/null", O_RDONLY); /* not close-on-exec */
        template = exec_template(engine);
        future = ask(template, COUNT_FDS, NULL, 0);
        CHECK_INT(wait_for(engine, future)->kind, FM_VALUE);
        memcpy(&said, fm_future_get_outcome(future)->data, sizeof said);
        if (round == 0)
            with_none = said;
        fm_future_unref(future);
        let_go(template);
    }
    CHECK_INT(said, with_none);
    for (int i = 0; i < 100; i++)
        close(fds[i]);
    fm_engine_free(engine);
}

TEST(payloads_of_any_size_arrive)
{
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 1 << 20, 5 << 20};
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        check_echo(engine, template, sizes[i]);
    let_go(template);
    fm_engine_free(engine);
}

TEST(many_jobs_are_forked_in_turn_and_side_by_side)
{
    enum { N = 300 };
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    fm_future *futures[N];

    for (int i = 0; i < N; i++)
        futures[i] = ask(template, i % 10 == 9 ? EXIT_3 : ECHO, &i, sizeof i);
    for (int i = 0; i < N; i++) {
        const struct fm_outcome *outcome = wait_for(engine, futures[i]);

        CHECK_INT(outcome->kind, i % 10 == 9 ? FM_EXIT : FM_VALUE);
        if (outcome->kind == FM_VALUE)
            CHECK(memcmp(outcome->data, &i, sizeof i) == 0);
        else
            CHECK_INT(outcome->exit_code, 3);
        fm_future_unref(futures[i]);
    }
    let_go(template);
    fm_engine_free(engine);
}

TEST(commands_are_carried_out_before_what_is_forked_after_them)
{
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    fm_future *future;
    int64_t says[2];

    for (int i = 0; i < 100; i++)
        call(template, ECHO);
    future = ask(template, SAY_PIDS, NULL, 0);
    CHECK_INT(wait_for(engine, future)->kind, FM_VALUE);
    memcpy(says, fm_future_get_outcome(future)->data, sizeof says);
    CHECK_INT(says[1], 100);
    fm_future_unref(future);
    let_go(template);
    fm_engine_free(engine);
}

TEST(the_first_command_that_fails_settles_the_template)
{
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    const struct fm__template_failure *failure;
    struct fm__errand errand = {.kind = ECHO};
    fm_future *future;

    call(template, ECHO);
    call(template, FAIL);
    future = ask(template, ECHO, "x", 1);
    settle(engine, template);
    CHECK_INT(fm__template_get_state(template), FM__TEMPLATE_FAILED);
    failure = fm__template_get_failure(template);
    CHECK_INT(failure->kind, FM_ERROR);
    CHECK(strcmp(failure->message, "it went wrong") == 0);
    CHECK(strcmp(failure->traceback, "at some line") == 0);
    CHECK_INT(fm__template_call(template, &errand, NULL, 0), FM_ECLOSED);
    CHECK_INT(wait_for(engine, future)->kind, FM_ERROR);
    CHECK(strcmp(fm_future_get_outcome(future)->message, "it went wrong") == 0);
    fm_future_unref(future);
    fm__template_unref(template);
    fm_engine_free(engine);
}

TEST(a_template_that_dies_leaves_its_children_running)
{
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    fm_future *lasting = ask(template, SLEEP, NULL, 0);
    fm_future *late;

    while (fm_future_get_state(lasting) != FM_RUNNING)
        (void)fm_engine_step(engine, FM__NS_PER_MS);
    CHECK_INT(kill(fm__template_get_pid(template), SIGKILL), 0);
    while (fm__template_get_state(template) != FM__TEMPLATE_FAILED)
        (void)fm__engine_rest(engine, FM__NS_PER_S);
    CHECK_INT(fm__template_get_failure(template)->signal, SIGKILL);
    late = ask(template, ECHO, "x", 1);
    CHECK_INT(wait_for(engine, late)->kind, FM_SPAWN);
    CHECK(strstr(fm_future_get_outcome(late)->message, "SIGKILL") != NULL);
    CHECK_INT(fm_future_get_state(lasting), FM_RUNNING);
    CHECK_INT(kill(fm_future_get_pid(lasting), 0), 0);
    CHECK_INT(fm_future_cancel(lasting, 0), 1);
    CHECK_INT(wait_for(engine, lasting)->kind, FM_CANCELLED);
    fm_future_unref(lasting);
    fm_future_unref(late);
    fm__template_unref(template);
    fm_engine_free(engine);
}

TEST(what_is_asked_of_a_template_that_dies_fails_and_nothing_stays)
{
    fm_engine *engine = new_engine();

    for (int round = 0; round < 20; round++) {
        fm_template *template = new_template(engine);
        fm_future *futures[40];

        settle(engine, template);
        for (int i = 0; i < 40; i++)
            futures[i] = ask(template, ECHO, &i, sizeof i);
        for (int i = 0; i < round; i++)
            (void)fm_engine_step(engine, 0);
        CHECK_INT(kill(fm__template_get_pid(template), SIGKILL), 0);
        for (int i = 0; i < 40; i++) {
            enum fm_kind kind = wait_for(engine, futures[i])->kind;

            CHECK(kind == FM_VALUE || kind == FM_SPAWN);
            fm_future_unref(futures[i]);
        }
        fm__template_unref(template);
    }
    fm_engine_free(engine);
}

TEST(a_job_that_is_cancelled_before_it_is_forked_settles_at_once)
{
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    fm_future *future;

    settle(engine, template);
    CHECK_INT(kill(fm__template_get_pid(template), SIGSTOP), 0);
    future = ask(template, SLEEP, NULL, 0);
    (void)fm_engine_step(engine, 0);
    CHECK_INT(fm_future_get_state(future), FM_STARTING);
    CHECK_INT(fm_future_get_pid(future), 0);
    CHECK_INT(fm_future_cancel(future, -1), 1);
    CHECK_INT(wait_for(engine, future)->kind, FM_CANCELLED);
    CHECK_INT(kill(fm__template_get_pid(template), SIGCONT), 0);
    fm_future_unref(future);
    check_echo(engine, template, 10); /* its child was refused meanwhile */
    reap_parked(engine);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), 0);
    let_go(template);
    fm_engine_free(engine);
}

TEST(an_engine_that_closes_takes_its_templates_along)
{
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    fm_future *running = ask(template, SLEEP, NULL, 0);
    fm_future *asked;

    while (fm_future_get_state(running) != FM_RUNNING)
        (void)fm_engine_step(engine, FM__NS_PER_MS);
    CHECK_INT(kill(fm__template_get_pid(template), SIGSTOP), 0);
    asked = ask(template, SLEEP, NULL, 0);
    (void)fm_engine_step(engine, 0);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    CHECK_INT(fm_future_get_outcome(running)->kind, FM_CLOSED);
    CHECK_INT(fm_future_get_outcome(asked)->kind, FM_CLOSED);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), -1);
    fm_future_unref(running);
    fm_future_unref(asked);
    fm__template_unref(template);
    fm_engine_free(engine);
}

TEST(time_limits_and_exits_of_its_jobs_are_as_of_any_other)
{
    const struct fm_job_opts opts = {.timeout_ns = 30 * FM__NS_PER_MS,
                                     .grace_ns = -1};
    struct fm__errand errand = {.kind = SLEEP};
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    fm_future *future;

    CHECK_INT(fm__template_spawn(template, &opts, &errand, &future), 0);
    CHECK_INT(wait_for(engine, future)->kind, FM_TIMEOUT);
    fm_future_unref(future);
    future = ask(template, EXIT_3, NULL, 0);
    CHECK_INT(wait_for(engine, future)->exit_code, 3);
    fm_future_unref(future);
    let_go(template);
    fm_engine_free(engine);
}

TEST(a_template_is_forked_off_a_template)
{
    struct fm__errand errand = {.kind = SERVE};
    fm_engine *engine = new_engine();
    fm_template *first = new_template(engine);
    struct fm__template_opts opts = {.from = first, .errand = &errand};
    fm_template *second = NULL;

    call(first, ECHO);
    CHECK_INT(fm__template_new(engine, &opts, &second), 0);
    check_pids(engine, second);
    let_go(first);
    check_pids(engine, second);
    let_go(second);
    fm_engine_free(engine);
}

TEST(a_template_with_a_second_thread_does_not_fork)
{
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    fm_future *future;

    call(template, SLEEP);
    future = ask(template, ECHO, "x", 1);
    CHECK_INT(wait_for(engine, future)->kind, FM_SPAWN);
    CHECK_INT(fm_future_get_outcome(future)->error_code, FM_ETHREADS);
    fm_future_unref(future);
    let_go(template);
    fm_engine_free(engine);
}

TEST(descriptors_are_passed_and_none_is_left)
{
    struct fm__errand errand = {.kind = SUM_FDS};
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    char bytes[16];
    int fds[2], many[20];

    CHECK_INT(pipe(fds), 0);
    for (int i = 0; i < 20; i++)
        many[i] = fds[1];
    CHECK_INT(fm__template_call(template, &errand, many, 15), 0);
    CHECK_INT(fm__template_call(template, &errand, many, 16), -EINVAL);
    settle(engine, template);
    CHECK_INT(read(fds[0], bytes, sizeof bytes), 15);
    close(fds[0]);
    close(fds[1]);
    let_go(template);
    fm_engine_free(engine);
}

TEST(templates_do_not_count_among_the_children)
{
    const struct fm_engine_opts few = {.max_children = 1};
    fm_template *templates[4];
    fm_engine *engine;

    CHECK_INT(fm_engine_new(&few, &engine), 0);
    for (int i = 0; i < 4; i++)
        templates[i] = new_template(engine);
    for (int i = 0; i < 4; i++)
        check_pids(engine, templates[i]);
    for (int i = 0; i < 4; i++)
        let_go(templates[i]);
    fm_engine_free(engine);
}

TEST(a_job_that_could_not_be_forked_costs_none_of_the_next_ones)
{
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    const struct fm_outcome *outcome;
    char data[5000] = "", expected[128];
    fm_future *future;

    check_echo(engine, template, sizeof data);
    call(template, BREAK_MMAP);
    future = ask(template, ECHO, data, sizeof data);
    outcome = wait_for(engine, future);
    CHECK_INT(outcome->kind, FM_SPAWN);
    CHECK_INT(outcome->error_code, -ENOMEM);
    (void)snprintf(expected, sizeof expected,
                   "the child could not be started: template: %s (ENOMEM)",
                   fm_strerror(-ENOMEM));
    CHECK(strcmp(outcome->message, expected) == 0);
    fm_future_unref(future);
    for (int i = 0; i < 20; i++)
        check_echo(engine, template, sizeof data);
    CHECK_INT(fm__template_get_state(template), FM__TEMPLATE_READY);
    let_go(template);
    fm_engine_free(engine);
}

TEST(a_template_without_room_for_descriptors_says_so_and_goes_on)
{
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    fm_future *future;

    call(template, LIMIT_FDS);
    future = ask(template, ECHO, "x", 1);
    CHECK_INT(wait_for(engine, future)->kind, FM_SPAWN);
    CHECK_INT(fm_future_get_outcome(future)->error_code, -EMFILE);
    fm_future_unref(future);
    call(template, UNLIMIT_FDS);
    check_echo(engine, template, 5000);
    let_go(template);
    fm_engine_free(engine);
}

TEST(what_is_told_to_a_dead_template_counts_as_not_carried_out)
{
    struct fm__errand errand = {.kind = ECHO};
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    fm_future *future;

    settle(engine, template);
    kill_unheard(fm__template_get_pid(template));
    CHECK_INT(fm__template_call(template, &errand, NULL, 0), 0);
    CHECK(!fm__template_is_settled(template));
    future = ask(template, ECHO, "x", 1);
    settle(engine, template);
    CHECK_INT(fm__template_get_state(template), FM__TEMPLATE_FAILED);
    CHECK_INT(fm__template_get_failure(template)->signal, SIGKILL);
    CHECK_INT(wait_for(engine, future)->kind, FM_SPAWN);
    CHECK(strstr(fm_future_get_outcome(future)->message, "SIGKILL") != NULL);
    fm_future_unref(future);
    fm__template_unref(template);
    fm_engine_free(engine);
}

TEST(a_job_that_is_asked_of_a_dead_template_is_told_of_its_death)
{
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    fm_future *future;

    settle(engine, template);
    kill_unheard(fm__template_get_pid(template));
    future = ask(template, ECHO, "x", 1);
    CHECK_INT(wait_for(engine, future)->kind, FM_SPAWN);
    CHECK(strstr(fm_future_get_outcome(future)->message, "SIGKILL") != NULL);
    fm_future_unref(future);
    fm__template_unref(template);
    fm_engine_free(engine);
}

TEST(a_job_that_is_asked_for_and_times_out_settles_without_a_signal)
{
    struct fm__errand errand = {.kind = SLEEP};
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    fm_future *future;

    settle(engine, template);
    CHECK_INT(kill(fm__template_get_pid(template), SIGSTOP), 0);
    CHECK_INT(fm__template_spawn_duplex(template, NULL, &errand, &future), 0);
    (void)fm_engine_step(engine, 0);
    CHECK_INT(fm_future_get_state(future), FM_STARTING);
    CHECK_INT(fm__duplex_stop(future, FM_TIMEOUT, 0), 1);
    CHECK_INT(wait_for(engine, future)->kind, FM_CANCELLED);
    CHECK_INT(kill(fm__template_get_pid(template), SIGCONT), 0);
    fm_future_unref(future);
    let_go(template);
    fm_engine_free(engine);
}

TEST(what_a_template_has_answered_counts_though_it_has_not_read_all)
{
    struct fm__errand errand = {.kind = SERVE, .is_last = true};
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);

    settle(engine, template);
    CHECK_INT(kill(fm__template_get_pid(template), SIGSTOP), 0);
    CHECK_INT(fm__template_call(template, &errand, NULL, 0), 0);
    CHECK_INT(send(template->fd, "?", 1, 0), 1);
    CHECK_INT(kill(fm__template_get_pid(template), SIGCONT), 0);
    settle(engine, template);
    CHECK_INT(fm__template_get_state(template), FM__TEMPLATE_AWAY);
    let_go(template);
    fm_engine_free(engine);
}

TEST(a_job_whose_child_dies_with_its_template_at_the_gate_is_closed)
{
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    struct pollfd reply = {.events = POLLIN};
    fm_future *future;

    settle(engine, template);
    future = ask(template, ECHO, "x", 1);
    reply.fd = template->fd;
    CHECK_INT(poll(&reply, 1, -1), 1);
    fm__template_close(template, 0);
    CHECK_INT(wait_for(engine, future)->kind, FM_CLOSED);
    fm_future_unref(future);
    fm__template_unref(template);
    fm_engine_free(engine);
}

TEST(a_job_that_was_forked_outlives_a_template_that_is_closed_unheard)
{
    fm_engine *engine = new_engine();
    fm_template *template = new_template(engine);
    fm_future *future;
    siginfo_t info;

    settle(engine, template);
    future = ask(template, ECHO, "x", 1);
    fm__template_close(template, FM__NS_PER_S);
    CHECK_INT(waitid(P_PID, (id_t)fm__template_get_pid(template), &info,
                     WEXITED | WNOWAIT),
              0);
    CHECK_INT(wait_for(engine, future)->kind, FM_VALUE);
    fm_future_unref(future);
    fm__template_unref(template);
    fm_engine_free(engine);
}

TEST(channels_of_a_template_have_as_many_ids_as_there_are_at_once)
{
    enum { N = 40, ROUNDS = 5 };
    const struct fm_engine_opts many = {.max_children = N};
    fm_template *template;
    fm_future *futures[N];
    fm_engine *engine;

    CHECK_INT(fm_engine_new(&many, &engine), 0);
    template = new_template(engine);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < N; i++)
            futures[i] = ask(template, SLEEP, NULL, 0);
        for (int i = 0; i < N; i++) {
            while (fm_future_get_state(futures[i]) != FM_RUNNING)
                (void)fm_engine_step(engine, FM__NS_PER_MS);
        }
        for (int i = 0; i < N; i++) {
            (void)fm_future_cancel(futures[i], 0);
            (void)wait_for(engine, futures[i]);
            fm_future_unref(futures[i]);
        }
    }
    CHECK_INT(template->n_channels, N);
    check_echo(engine, template, 10);
    let_go(template);
    fm_engine_free(engine);
}

/* ---------------------------------------------------- one that is not honest
 */

/* Answers each command with the number of the host, or of a child of it. */
static int lie(fm_child *child, void *ud)
{
    struct fm__reply reply = {.magic = FM__REPLY_MAGIC, .pid = *(pid_t *)ud};
    int fd = fm__child_get_socket(child);
    struct fm__command command;

    (void)fcntl(fd, F_SETFL, 0);
    if (reply.pid == 0)
        reply.pid = getpid();
    while (recv(fd, &command, sizeof command, 0) > 0) {
        reply.seq = command.seq;
        if (send(fd, &reply, sizeof reply, MSG_NOSIGNAL) < 0)
            break;
    }
    return 0;
}

static void check_liar(fm_engine *engine, pid_t named)
{
    struct fm__template_opts opts = {.fn = lie, .ud = &named};
    fm_template *template = NULL;
    fm_future *future;

    CHECK_INT(fm__template_new(engine, &opts, &template), 0);
    future = ask(template, ECHO, "x", 1);
    CHECK_INT(wait_for(engine, future)->kind, FM_SPAWN);
    CHECK_INT(fm_future_get_outcome(future)->error_code, FM_EPROTOCOL);
    fm_future_unref(future);
    let_go(template);
}

TEST(a_process_that_a_template_has_not_forked_is_not_taken_for_a_child)
{
    fm_engine *engine = new_engine();
    fm_future *other = NULL;

    CHECK_INT(fm_spawn(engine, NULL, hang, NULL, &other), 0);
    while (fm_future_get_state(other) != FM_RUNNING)
        (void)fm_engine_step(engine, FM__NS_PER_MS);
    check_liar(engine, getpid());
    check_liar(engine, 1);
    check_liar(engine, 0); /* its own */
    check_liar(engine, -1);
    check_liar(engine, fm_future_get_pid(other));
    CHECK_INT(fm_future_get_state(other), FM_RUNNING);
    (void)fm_future_cancel(other, 0);
    CHECK_INT(wait_for(engine, other)->kind, FM_CANCELLED);
    fm_future_unref(other);
    fm_engine_free(engine);
}

#else

TEST(a_build_without_templates_says_so)
{
    struct fm__template_opts opts = {.fn = say_hello};
    fm_engine *engine = new_engine();
    fm_template *template = NULL;

    CHECK_INT(fm__template_new(engine, &opts, &template), -ENOSYS);
    CHECK(template == NULL);
    fm_engine_free(engine);
}

#endif
