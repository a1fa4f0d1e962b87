/* SPDX-License-Identifier: MIT */
/* What one child gets and no other process; see forking.h. */
#include "os/forking.h"

#include <errno.h>
#include <pthread.h>

#include "os/memory.h"

/* `turn` is held from _begin to _end, `lock` to look at the rest, and by every
 * fork from its beginning to its end.  Who holds both this and the registry's
 * lock took that one first, as every fork does: handlers that run before a fork
 * do so in the reverse order of their registration. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool hooked;
static struct fm__offer offer;
static bool is_offered;
static pthread_t owner; /* of the offer */
static bool is_taken;   /* by the fork that is under way, or made us */

/* The mapping that a fork would hand on now; there is one at most. */
static void *open_map;
static size_t open_len;

static int set_open(void *map, size_t len)
{
    int rc;

    if (open_map == map)
        return 0;
    if (open_map)
        (void)fm__memory_inherit(open_map, open_len, false);
    open_map = NULL;
    rc = map ? fm__memory_inherit(map, len, true) : 0;
    if (rc == 0) {
        open_map = map;
        open_len = len;
    }
    return rc;
}

void fm__forking_before(void)
{
    (void)pthread_mutex_lock(&lock);
    is_taken = is_offered && pthread_equal(owner, pthread_self());
    /* Another fork may have come in between and closed it. */
    if (is_taken)
        is_taken = set_open(offer.map, offer.map_len) == 0;
    if (!is_taken)
        (void)set_open(NULL, 0);
}

void fm__forking_in_parent(void)
{
    is_taken = false;
    (void)pthread_mutex_unlock(&lock);
}

/* No other thread is here.  The mapping stays open until this process forks:
 * fm__forking_before() closes it, as it is not offered here. */
void fm__forking_in_child(void)
{
    is_offered = false;
    turn = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

int fm__forking_open(void)
{
    int rc = 0;

    if (!hooked)
        rc = -pthread_atfork(fm__forking_before, fm__forking_in_parent,
                             fm__forking_in_child);
    if (rc == 0)
        hooked = true;
    return rc;
}

int fm__forking_begin(const struct fm__offer *what)
{
    int rc;

    (void)pthread_mutex_lock(&turn);
    (void)pthread_mutex_lock(&lock);
    rc = set_open(what->map, what->map_len);
    if (rc == 0) {
        offer = *what;
        owner = pthread_self();
        is_offered = true;
    }
    (void)pthread_mutex_unlock(&lock);
    if (rc < 0)
        (void)pthread_mutex_unlock(&turn);
    return rc;
}

void fm__forking_end(void)
{
    (void)pthread_mutex_lock(&lock);
    is_offered = false;
    (void)pthread_mutex_unlock(&lock);
    (void)pthread_mutex_unlock(&turn);
}

bool fm__forking_took(void)
{
    return is_taken;
}

int fm__forking_fd(void)
{
    return is_taken ? offer.fd : -1;
}

void fm__forking_forget(const void *map)
{
    (void)pthread_mutex_lock(&lock);
    if (open_map == map)
        open_map = NULL;
    (void)pthread_mutex_unlock(&lock);
}
