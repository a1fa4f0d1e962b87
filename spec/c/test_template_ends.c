/* SPDX-License-Identifier: MIT */
/* Templates that fail, lie, die or are closed, and hosts that do. */
#include "template_jobs.h"

#include "os/socket.h"
#include "process/channel.h"

TEST(letting_go_of_no_template_is_a_no_op)
{
    fm__template_unref(NULL);
}

#ifdef FM_TEMPLATES

TEST(a_template_is_forked_off_a_template)
{
    struct fm__errand errand = {.kind = SERVE};
    fm_template *first = begin();
    struct fm__template_opts opts = {.from = first, .errand = &errand};
    fm_template *second = NULL;

    call(first, ECHO);
    CHECK_INT(fm__template_new(first->engine, &opts, &second), 0);
    check_pids(second);
    let_go(first);
    check_pids(second);
    end(second);
}

TEST(a_template_with_a_second_thread_does_not_fork)
{
    fm_template *template = begin();

    call(template, SLEEP);
    check_does_not_fork(template, FM_ETHREADS);
    end(template);
}

TEST(descriptors_are_passed_and_none_is_left)
{
    struct fm__errand errand = {.kind = SUM_FDS};
    fm_template *template = begin();
    char bytes[16];
    int fds[2], many[20];

    CHECK_INT(pipe(fds), 0);
    for (int i = 0; i < 20; i++)
        many[i] = fds[1];
    CHECK_INT(fm__template_call(template, &errand, many, 15), 0);
    CHECK_INT(fm__template_call(template, &errand, many, 16), -EINVAL);
    settle(template);
    CHECK_INT(read(fds[0], bytes, sizeof bytes), 15);
    close(fds[0]);
    close(fds[1]);
    end(template);
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
        check_pids(templates[i]);
    for (int i = 0; i < 4; i++)
        let_go(templates[i]);
    fm_engine_free(engine);
}

TEST(a_job_that_could_not_be_forked_costs_none_of_the_next_ones)
{
    fm_template *template = begin();
    const struct fm_outcome *outcome;
    char data[5000] = "", expected[128];
    fm_future *future;

    check_echo(template, sizeof data);
    call(template, BREAK_MMAP);
    future = ask(template, ECHO, data, sizeof data);
    outcome = wait_for(template->engine, future);
    CHECK_INT(outcome->kind, FM_SPAWN);
    CHECK_INT(outcome->error_code, -ENOMEM);
    (void)snprintf(expected, sizeof expected,
                   "the child could not be started: template: %s (ENOMEM)",
                   fm_strerror(-ENOMEM));
    CHECK(strcmp(outcome->message, expected) == 0);
    fm_future_unref(future);
    for (int i = 0; i < 20; i++)
        check_echo(template, sizeof data);
    CHECK_INT(fm__template_get_state(template), FM__TEMPLATE_READY);
    end(template);
}

TEST(a_template_without_room_for_descriptors_says_so_and_goes_on)
{
    fm_template *template = begin();

    call(template, LIMIT_FDS);
    check_does_not_fork(template, -EMFILE);
    call(template, UNLIMIT_FDS);
    check_echo(template, 5000);
    end(template);
}

TEST(what_is_told_to_a_dead_template_counts_as_not_carried_out)
{
    struct fm__errand errand = {.kind = ECHO};
    fm_template *template = begin();
    fm_future *future;

    settle(template);
    kill_unheard(fm__template_get_pid(template));
    CHECK_INT(fm__template_call(template, &errand, NULL, 0), 0);
    CHECK(!fm__template_is_settled(template));
    future = ask(template, ECHO, "x", 1);
    settle(template);
    CHECK_INT(fm__template_get_state(template), FM__TEMPLATE_FAILED);
    CHECK_INT(fm__template_get_failure(template)->signal, SIGKILL);
    check_is_told_of_the_kill(template, future);
    drop(template);
}

TEST(a_job_that_is_asked_of_a_dead_template_is_told_of_its_death)
{
    fm_template *template = begin();

    settle(template);
    kill_unheard(fm__template_get_pid(template));
    check_is_told_of_the_kill(template, ask(template, ECHO, "x", 1));
    drop(template);
}

TEST(a_job_that_is_asked_for_and_times_out_settles_without_a_signal)
{
    struct fm__errand errand = {.kind = SLEEP};
    fm_template *template = begin();
    fm_future *future;

    settle(template);
    CHECK_INT(kill(fm__template_get_pid(template), SIGSTOP), 0);
    CHECK_INT(fm__template_spawn_duplex(template, NULL, &errand, &future), 0);
    (void)fm_engine_step(template->engine, 0);
    CHECK_INT(fm_future_get_state(future), FM_STARTING);
    CHECK_INT(fm__duplex_stop(future, FM_TIMEOUT, 0), 1);
    check_kind(template, future, FM_CANCELLED);
    CHECK_INT(kill(fm__template_get_pid(template), SIGCONT), 0);
    end(template);
}

TEST(what_a_template_has_answered_counts_though_it_has_not_read_all)
{
    struct fm__errand errand = {.kind = SERVE, .is_last = true};
    fm_template *template = begin();

    settle(template);
    CHECK_INT(kill(fm__template_get_pid(template), SIGSTOP), 0);
    CHECK_INT(fm__template_call(template, &errand, NULL, 0), 0);
    CHECK_INT(send(template->fd, "?", 1, 0), 1);
    CHECK_INT(kill(fm__template_get_pid(template), SIGCONT), 0);
    settle(template);
    CHECK_INT(fm__template_get_state(template), FM__TEMPLATE_AWAY);
    end(template);
}

TEST(a_job_whose_child_dies_with_its_template_at_the_gate_is_closed)
{
    fm_template *template = begin();
    struct pollfd reply = {.events = POLLIN};
    fm_future *future;

    settle(template);
    future = ask(template, ECHO, "x", 1);
    reply.fd = template->fd;
    CHECK_INT(poll(&reply, 1, -1), 1);
    fm__template_close(template, 0);
    check_kind(template, future, FM_CLOSED);
    drop(template);
}

TEST(a_job_that_was_forked_outlives_a_template_that_is_closed_unheard)
{
    fm_template *template = begin();
    fm_future *future;
    siginfo_t info;

    settle(template);
    future = ask(template, ECHO, "x", 1);
    fm__template_close(template, FM__NS_PER_S);
    CHECK_INT(waitid(P_PID, (id_t)fm__template_get_pid(template), &info,
                     WEXITED | WNOWAIT),
              0);
    check_kind(template, future, FM_VALUE);
    drop(template);
}

TEST(a_child_that_nobody_wants_is_reaped_though_its_template_is_gone)
{
    fm_template *template = begin();
    fm_engine *engine = template->engine;
    struct fm_engine_stats stats;
    fm_future *future;

    settle(template);
    CHECK_INT(kill(fm__template_get_pid(template), SIGSTOP), 0);
    future = ask(template, SLEEP, NULL, 0);
    (void)fm_engine_step(engine, 0);
    CHECK_INT(fm_future_cancel(future, -1), 1);
    check_kind(template, future, FM_CANCELLED);
    CHECK_INT(kill(fm__template_get_pid(template), SIGCONT), 0);
    do {
        (void)fm_engine_step(engine, FM__NS_PER_MS);
        fm_engine_get_stats(engine, &stats);
    } while (stats.parked == 0 && !fm__template_is_settled(template));
    fm__template_close(template, 0);
    fm__template_unref(template);
    reap_parked(engine);
    CHECK_INT(fm_engine_close(engine, 0), 0);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), -1);
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
        for (int i = 0; i < N; i++)
            wait_running(engine, futures[i]);
        for (int i = 0; i < N; i++) {
            (void)fm_future_cancel(futures[i], 0);
            (void)wait_for(engine, futures[i]);
            fm_future_unref(futures[i]);
        }
    }
    CHECK_INT(template->n_channels, N);
    check_echo(template, 10);
    end(template);
}

/* ----------------------------------------------------------- one that is other
 */

/* What a server says to this greeting; `text` has room for all that it may. */
static struct fm__reply greet(const struct fm__hello *hello, char *text)
{
    const struct fm__command command = {.magic = FM__COMMAND_MAGIC,
                                        .type = FM__COMMAND_HELLO,
                                        .n_fds = 1,
                                        .len = sizeof *hello};
    const struct iovec parts[2] = {
        {(void *)(uintptr_t)&command, sizeof command},
        {(void *)(uintptr_t)hello, sizeof *hello}};
    char said[sizeof(struct fm__reply) + 2 * FM__REPLY_TEXT] = "";
    int fds[2] = {-1, -1}, bell = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct fm__reply reply;

    CHECK_INT(fm__socket_pair(fds, SOCK_SEQPACKET), 0);
    CHECK(fm__socket_send(fds[0], parts, 2, &bell, 1) > 0);
    (void)shutdown(fds[0], SHUT_WR);
    CHECK_INT(fm__serve(fds[1], &server_calls), 0);
    CHECK(recv(fds[0], said, sizeof said - 1, 0) >= (ssize_t)sizeof reply);
    memcpy(&reply, said, sizeof reply);
    memcpy(text, said + sizeof reply, FM__REPLY_TEXT);
    fm__fd_close(&fds[0]);
    (void)close(bell);
    return reply;
}

TEST(a_template_of_another_version_says_so)
{
    const struct fm__hello ours = {.size = sizeof(struct fm__fork_order),
                                   .channel = fm__channel_get_size(),
                                   .version = FM_VERSION};
    struct fm__hello hello = ours;
    char text[FM__REPLY_TEXT];

    CHECK_INT(greet(&ours, text).rc, 0);
    hello.version[0]++;
    CHECK_INT(greet(&hello, text).rc, FM_EPROTOCOL);
    CHECK(strstr(text, "of another version than its host") != NULL);
    hello = ours;
    hello.size++;
    CHECK_INT(greet(&hello, text).rc, FM_EPROTOCOL);
    hello = ours;
    hello.channel++;
    CHECK_INT(greet(&hello, text).rc, FM_EPROTOCOL);
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

    CHECK_INT(fm__template_new(engine, &opts, &template), 0);
    check_does_not_fork(template, FM_EPROTOCOL);
    let_go(template);
}

TEST(a_process_that_a_template_has_not_forked_is_not_taken_for_a_child)
{
    fm_engine *engine = new_engine();
    fm_future *other = NULL;

    CHECK_INT(fm_spawn(engine, NULL, hang, NULL, &other), 0);
    wait_running(engine, other);
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

#endif
