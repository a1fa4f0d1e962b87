/* SPDX-License-Identifier: MIT */
/* What is offered to one child reaches no other process. */
#include "test.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "os/fds.h"
#include "os/forking.h"
#include "os/memory.h"

#define LEN ((size_t)8192)

static struct fm__offer offer;
static int pipe_fds[2];

/* What this process has: 1 the mapping, 2 the descriptor. */
static int holdings(void)
{
    struct stat st;
    int has = 0;

    if (msync(offer.map, LEN, MS_ASYNC) == 0)
        has |= 1;
    if (fstat(offer.fd, &st) == 0 && S_ISFIFO(st.st_mode))
        has |= 2;
    return has;
}

/* Fork; what the last of so many generations has, and 4 if it took the offer.
 */
static int holdings_of_child(int generations)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        if (generations > 1)
            _exit(holdings_of_child(generations - 1));
        _exit(holdings() | (fm__forking_took() ? 4 : 0));
    }
    CHECK(pid > 0);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void begin(void)
{
    CHECK_INT(fm__fds_open(), 0);
    CHECK_INT(fm__fd_pipe(pipe_fds, 0), 0);
    offer.fd = pipe_fds[0];
    offer.map = fm__memory_share(LEN);
    offer.map_len = LEN;
    CHECK(offer.map);
}

static void end(void)
{
    fm__forking_forget(offer.map);
    fm__memory_unshare(offer.map, LEN);
    fm__fd_close(&pipe_fds[0]);
    fm__fd_close(&pipe_fds[1]);
    fm__fds_close();
}

TEST(an_offer_reaches_the_child_and_no_later_one)
{
    begin();
    CHECK_INT(holdings_of_child(1), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(fm__forking_begin(&offer), 0);
        CHECK_INT(holdings_of_child(1), 1 | 2 | 4);
        fm__forking_end();
        CHECK_INT(i < 2 ? 0 : holdings_of_child(1), 0);
    }
    CHECK_INT(holdings(), 1 | 2);
    end();
}

TEST(an_offer_does_not_reach_a_child_of_the_child)
{
    begin();
    CHECK_INT(fm__forking_begin(&offer), 0);
    CHECK_INT(holdings_of_child(2), 0);
    fm__forking_end();
    end();
}

static void *fork_elsewhere(void *ud)
{
    *(int *)ud = holdings_of_child(1);
    return NULL;
}

TEST(an_offer_does_not_reach_a_child_of_another_thread)
{
    pthread_t thread;
    int has = -1;

    begin();
    CHECK_INT(fm__forking_begin(&offer), 0);
    CHECK_INT(pthread_create(&thread, NULL, fork_elsewhere, &has), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(has, 0);
    /* That fork closed the mapping; ours opens it again. */
    CHECK_INT(holdings_of_child(1), 1 | 2 | 4);
    fm__forking_end();
    end();
}

TEST(a_mapping_that_was_offered_can_go_and_another_be_offered)
{
    struct fm__offer first;

    begin();
    CHECK_INT(fm__forking_begin(&offer), 0);
    fm__forking_end();
    first = offer;
    offer.map = fm__memory_share(LEN);
    CHECK(offer.map);
    CHECK_INT(fm__forking_begin(&offer), 0);
    fm__forking_forget(first.map);
    fm__memory_unshare(first.map, LEN);
    CHECK_INT(holdings_of_child(1), 1 | 2 | 4);
    fm__forking_end();
    end();
}
