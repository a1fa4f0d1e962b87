/* SPDX-License-Identifier: MIT */
/* Names and texts of return codes and kinds. */
#include <errno.h>
#include <string.h>

#include "fork_map.h"

static const struct {
    int code;
    const char *name, *text;
} own_codes[] = {
    {FM_ECLOSED, "FM_ECLOSED",
     "the engine is closed or belongs to another process"},
    {FM_EPROTOCOL, "FM_EPROTOCOL", "these bytes are not ours"},
    {FM_EENCODE, "FM_EENCODE", "a value that cannot cross"},
    {FM_ELIMIT, "FM_ELIMIT", "a limit of the job was exceeded"},
    {FM_EDEPTH, "FM_EDEPTH", "children of children, deeper than max_depth"},
    {FM_ETHREADS, "FM_ETHREADS",
     "the host has other threads and on_threads refuses to fork"},
    {FM_EFORBIDDEN, "FM_EFORBIDDEN",
     "this engine was told not to fork the host directly"},
    {FM_ESHARED, "FM_ESHARED", "the host's memory is shared with its children"},
    {FM_EBUSY, "FM_EBUSY", "called from inside the loop"},
};

/* The errors that fork, memory and descriptors give; strerrorname_np() is not
 * everywhere. */
static const struct {
    int code;
    const char *name;
} errnos[] = {
    {EAGAIN, "EAGAIN"},
    {EBADF, "EBADF"},
    {EBUSY, "EBUSY"},
    {ECHILD, "ECHILD"},
    {EEXIST, "EEXIST"},
    {EFAULT, "EFAULT"},
    {EINTR, "EINTR"},
    {EINVAL, "EINVAL"},
    {EIO, "EIO"},
    {EMFILE, "EMFILE"},
    {ENFILE, "ENFILE"},
    {ENOENT, "ENOENT"},
    {ENOMEM, "ENOMEM"},
    {ENOSPC, "ENOSPC"},
    {ENOSYS, "ENOSYS"},
    {EPERM, "EPERM"},
    {EPIPE, "EPIPE"},
    {ESRCH, "ESRCH"},
    {EACCES, "EACCES"},
    {ENODEV, "ENODEV"},
    {ECANCELED, "ECANCELED"},
    {ETIMEDOUT, "ETIMEDOUT"},
    {ECONNRESET, "ECONNRESET"},
    {ENOTSOCK, "ENOTSOCK"},
    {EBADMSG, "EBADMSG"},
    {EMSGSIZE, "EMSGSIZE"},
    {ETOOMANYREFS, "ETOOMANYREFS"},
};

/* Of -1 to -4095 and its positive twin, as the kernel has them; a child may
 * send any number. */
static int errno_of(int rc)
{
    if (rc < -4095 || rc > 4095)
        return 0;
    return rc < 0 ? -rc : rc;
}

const char *fm_strerror(int rc)
{
    for (size_t i = 0; i < sizeof own_codes / sizeof own_codes[0]; i++) {
        if (own_codes[i].code == rc)
            return own_codes[i].text;
    }
    return errno_of(rc) != 0 ? strerror(errno_of(rc)) : "unknown error";
}

const char *fm_err_name(int rc)
{
    for (size_t i = 0; i < sizeof own_codes / sizeof own_codes[0]; i++) {
        if (own_codes[i].code == rc)
            return own_codes[i].name;
    }
    for (size_t i = 0; i < sizeof errnos / sizeof errnos[0]; i++) {
        if (errnos[i].code == errno_of(rc))
            return errnos[i].name;
    }
    return "EUNKNOWN";
}

const char *fm_kind_name(enum fm_kind kind)
{
    static const char *const names[] = {
        [FM_VALUE] = "value",         [FM_ERROR] = "error",
        [FM_EXIT] = "exit",           [FM_SIGNAL] = "signal",
        [FM_NO_RESULT] = "no_result", [FM_TIMEOUT] = "timeout",
        [FM_CANCELLED] = "cancelled", [FM_LIMIT] = "limit",
        [FM_ENCODE] = "encode",       [FM_PROTOCOL] = "protocol",
        [FM_SPAWN] = "spawn",         [FM_CLOSED] = "closed",
    };

    return (unsigned)kind < FM_KIND_COUNT ? names[kind] : "unknown";
}

const char *fm_version(void)
{
    return FM_VERSION;
}
