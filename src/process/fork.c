/* SPDX-License-Identifier: MIT */
/* The two ways to fork a child: off this process, and for the host of this
 * template; see child.h. */
#include <errno.h>

#include "os/fds.h"
#include "os/forking.h"
#include "os/memory.h"
#include "os/sibling.h"
#include "os/signals.h"
#include "os/sys.h"
#include "process/child.h"

/* Fork, and return 0 in the child. */
typedef pid_t fork_fn(void);

static pid_t fork_child(void)
{
    pid_t pid = fm__sys.fork();

    return pid < 0 ? -errno : pid;
}

/* No handler of the host may run in the child, nor between the fork and the
 * moment when the child is known; nor while a child is offered something, which
 * the handler's own fork would take.  The child comes back with all signals
 * blocked. */
static pid_t fork_offering(fork_fn *fork, const struct fm__offer *offer)
{
    sigset_t mask;
    pid_t pid;
    int rc = fm__signals_block(&mask);

    if (rc < 0)
        return rc;
    pid = fm__forking_begin(offer);
    if (pid == 0) {
        pid = fork();
        if (pid == 0) {
            if (!fm__forking_took())
                fm__exit_now(ENOMEM); /* it has no channel to tell it by */
            return 0;
        }
        fm__forking_end();
    }
    fm__signals_restore(&mask);
    return pid;
}

int fm__child_fork(const struct fm__launch *launch, pid_t *ret_pid)
{
    struct fm__offer offer = fm__channel_get_offer(launch->channel);
    pid_t parent = fm__sys.getpid();
    pid_t pid = fork_offering(fork_child, &offer);

    if (pid == 0)
        fm__child_main(launch, parent);
    *ret_pid = pid;
    return pid < 0 ? pid : 0;
}

/* Until it has its memory it can tell what is wrong by its exit code alone. */
static _Noreturn void sibling_main(const struct fm__launch *launch,
                                   int channel_fd, pid_t host)
{
    struct fm__lifeline lifeline = launch->channel->lifeline;
    struct fm__launch own = *launch;
    struct fm__channel channel;

    if (fm__channel_map(&channel, channel_fd) < 0)
        fm__exit_now(errno);
    fm__fd_close(&channel_fd);
    if (own.desk_fd >= 0) {
        own.desk = fm__memory_map_file(own.desk_fd, FM__DESK_SIZE);
        if (!own.desk)
            fm__exit_now(errno);
        fm__fd_close(&own.desk_fd);
    }
    channel.lifeline = lifeline;
    own.channel = &channel;
    own.is_sibling = true;
    fm__child_main(&own, host);
}

int fm__child_fork_sibling(const struct fm__launch *launch, int channel_fd,
                           pid_t *ret_pid)
{
    struct fm__offer offer = {.fd = launch->channel->lifeline.read_fd};
    pid_t host = fm__sys.getppid();
    pid_t pid;

    fm__fd_keep(channel_fd, true);
    pid = fork_offering(fm__sibling_fork, &offer);
    if (pid == 0)
        sibling_main(launch, channel_fd, host);
    fm__fd_keep(channel_fd, false);
    if (pid < 0)
        return pid;
    *ret_pid = pid;
    return 0;
}
