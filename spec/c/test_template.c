/* SPDX-License-Identifier: MIT */
/* Templates: processes that fork for their host. */
#include "template_jobs.h"

#ifdef FM_TEMPLATES

TEST(a_job_of_a_template_is_the_hosts_own_child)
{
    fm_template *template = begin();

    check_pids(template);
    check_pids(template);
    CHECK_INT(fm__template_get_state(template), FM__TEMPLATE_READY);
    end(template);
}

TEST(an_executed_program_serves_as_a_template)
{
    fm_template *template = exec_template(new_engine());

    check_pids(template);
    check_echo(template, 100);
    end(template);
}

TEST(a_program_that_does_not_exist_fails_the_template)
{
    static char path[] = "/nonexistent/program";
    char *argv[] = {path, NULL};
    struct fm__template_opts opts = {.argv = argv};
    const struct fm__template_failure *failure;
    fm_template *template;

    CHECK_INT(fm__template_new(new_engine(), &opts, &template), 0);
    CHECK_INT(fm__template_get_state(template), FM__TEMPLATE_FAILED);
    failure = fm__template_get_failure(template);
    CHECK_INT(failure->kind, FM_SPAWN);
    CHECK(strstr(failure->message, "/nonexistent/program") != NULL);
    check_kind(template, ask(template, ECHO, "x", 1), FM_SPAWN);
    drop(template);
}

/* What a job of it writes. */
static int64_t ask_number(fm_template *template, uint32_t kind)
{
    fm_future *future = ask(template, kind, NULL, 0);
    int64_t said = -1;

    CHECK_INT(wait_for(template->engine, future)->kind, FM_VALUE);
    memcpy(&said, fm_future_get_outcome(future)->data, sizeof said);
    fm_future_unref(future);
    return said;
}

TEST(an_executed_program_has_all_standard_streams_though_the_host_has_not)
{
    int out = fcntl(1, F_DUPFD_CLOEXEC, 10);
    fm_engine *engine = new_engine();
    fm_template *template;

    (void)close(1);
    CHECK_INT(fcntl(2, F_SETFD, FD_CLOEXEC), 0);
    template = exec_template(engine);
    CHECK_INT(ask_number(template, COUNT_NULLS), 3);
    let_go(template);
    CHECK(out < 0 || dup2(out, 1) == 1);
    CHECK_INT(fcntl(2, F_SETFD, 0), 0);
    (void)close(out);
    fm_engine_free(engine);
}

TEST(an_executed_program_gets_no_descriptor_of_the_host)
{
    fm_engine *engine = new_engine();
    int64_t said = 0, with_none = 0;
    fm_template *template;
    int fds[100];

    for (int round = 0; round < 2; round++) {
        for (int i = 0; round == 1 && i < 100; i++)
            fds[i] = open("/dev/null", O_RDONLY); /* not close-on-exec */
        template = exec_template(engine);
        said = ask_number(template, COUNT_FDS);
        if (round == 0)
            with_none = said;
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
    fm_template *template = begin();

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        check_echo(template, sizes[i]);
    end(template);
}

TEST(many_jobs_are_forked_in_turn_and_side_by_side)
{
    enum { N = 300 };
    fm_template *template = begin();
    fm_future *futures[N];

    for (int i = 0; i < N; i++)
        futures[i] = ask(template, i % 10 == 9 ? EXIT_3 : ECHO, &i, sizeof i);
    for (int i = 0; i < N; i++) {
        const struct fm_outcome *outcome =
            wait_for(template->engine, futures[i]);

        CHECK_INT(outcome->kind, i % 10 == 9 ? FM_EXIT : FM_VALUE);
        if (outcome->kind == FM_VALUE)
            CHECK(memcmp(outcome->data, &i, sizeof i) == 0);
        else
            CHECK_INT(outcome->exit_code, 3);
        fm_future_unref(futures[i]);
    }
    end(template);
}

TEST(commands_are_carried_out_before_what_is_forked_after_them)
{
    fm_template *template = begin();
    fm_future *future;
    int64_t says[2];

    for (int i = 0; i < 100; i++)
        call(template, ECHO);
    future = ask(template, SAY_PIDS, NULL, 0);
    CHECK_INT(wait_for(template->engine, future)->kind, FM_VALUE);
    memcpy(says, fm_future_get_outcome(future)->data, sizeof says);
    CHECK_INT(says[1], 100);
    fm_future_unref(future);
    end(template);
}

TEST(the_first_command_that_fails_settles_the_template)
{
    fm_template *template = begin();
    const struct fm__template_failure *failure;
    struct fm__errand errand = {.kind = ECHO};
    fm_future *future;

    call(template, ECHO);
    call(template, FAIL);
    future = ask(template, ECHO, "x", 1);
    settle(template);
    CHECK_INT(fm__template_get_state(template), FM__TEMPLATE_FAILED);
    failure = fm__template_get_failure(template);
    CHECK_INT(failure->kind, FM_ERROR);
    CHECK(strcmp(failure->message, "it went wrong") == 0);
    CHECK(strcmp(failure->traceback, "at some line") == 0);
    CHECK_INT(fm__template_call(template, &errand, NULL, 0), FM_ECLOSED);
    CHECK_INT(wait_for(template->engine, future)->kind, FM_ERROR);
    CHECK(strcmp(fm_future_get_outcome(future)->message, "it went wrong") == 0);
    fm_future_unref(future);
    drop(template);
}

TEST(a_template_that_dies_leaves_its_children_running)
{
    fm_template *template = begin();
    fm_future *lasting = ask(template, SLEEP, NULL, 0);

    wait_running(template->engine, lasting);
    CHECK_INT(kill(fm__template_get_pid(template), SIGKILL), 0);
    while (fm__template_get_state(template) != FM__TEMPLATE_FAILED)
        (void)fm__engine_rest(template->engine, FM__NS_PER_S);
    CHECK_INT(fm__template_get_failure(template)->signal, SIGKILL);
    check_is_told_of_the_kill(template, ask(template, ECHO, "x", 1));
    CHECK_INT(fm_future_get_state(lasting), FM_RUNNING);
    CHECK_INT(kill(fm_future_get_pid(lasting), 0), 0);
    CHECK_INT(fm_future_cancel(lasting, 0), 1);
    check_kind(template, lasting, FM_CANCELLED);
    drop(template);
}

TEST(what_is_asked_of_a_template_that_dies_fails_and_nothing_stays)
{
    fm_engine *engine = new_engine();

    for (int round = 0; round < 20; round++) {
        fm_template *template = new_template(engine);
        fm_future *futures[40];

        settle(template);
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
    fm_template *template = begin();
    fm_future *future;

    settle(template);
    CHECK_INT(kill(fm__template_get_pid(template), SIGSTOP), 0);
    future = ask(template, SLEEP, NULL, 0);
    (void)fm_engine_step(template->engine, 0);
    CHECK_INT(fm_future_get_state(future), FM_STARTING);
    CHECK_INT(fm_future_get_pid(future), 0);
    CHECK_INT(fm_future_cancel(future, -1), 1);
    check_kind(template, future, FM_CANCELLED);
    CHECK_INT(kill(fm__template_get_pid(template), SIGCONT), 0);
    check_echo(template, 10); /* its child was refused meanwhile */
    reap_parked(template->engine);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), 0);
    end(template);
}

TEST(an_engine_that_closes_takes_its_templates_along)
{
    fm_template *template = begin();
    fm_future *running = ask(template, SLEEP, NULL, 0);
    fm_future *asked;

    wait_running(template->engine, running);
    CHECK_INT(kill(fm__template_get_pid(template), SIGSTOP), 0);
    asked = ask(template, SLEEP, NULL, 0);
    (void)fm_engine_step(template->engine, 0);
    CHECK_INT(fm_engine_close(template->engine, 0), 0);
    CHECK_INT(fm_future_get_outcome(running)->kind, FM_CLOSED);
    CHECK_INT(fm_future_get_outcome(asked)->kind, FM_CLOSED);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), -1);
    fm_future_unref(running);
    fm_future_unref(asked);
    drop(template);
}

TEST(time_limits_and_exits_of_its_jobs_are_as_of_any_other)
{
    const struct fm_job_opts opts = {.timeout_ns = 30 * FM__NS_PER_MS,
                                     .grace_ns = -1};
    struct fm__errand errand = {.kind = SLEEP};
    fm_template *template = begin();
    fm_future *future;

    CHECK_INT(fm__template_spawn(template, &opts, &errand, &future), 0);
    check_kind(template, future, FM_TIMEOUT);
    future = ask(template, EXIT_3, NULL, 0);
    CHECK_INT(wait_for(template->engine, future)->exit_code, 3);
    fm_future_unref(future);
    end(template);
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
