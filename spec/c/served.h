/* SPDX-License-Identifier: MIT */
/* Test programs that serve as templates, forked, or executed as such.  What
 * they serve is their own: they define `server_calls`. */
#ifndef SPEC_C_SERVED_H
#define SPEC_C_SERVED_H

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/bind.h"
#include "os/fds.h"

static const struct fm__server_calls server_calls;

static char self_path[] = "/proc/self/exe", serve_option[] = "--serve";

/* This program, as a template. */
static char *const served_argv[] = {self_path, serve_option, NULL};

/* The number behind that option, the first argument; -1: this is a test.  Only
 * some C libraries give constructors the arguments of the program. */
static int find_served_fd(void)
{
    char line[4096] = "";
    const char *word = line;
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);

    if (fd < 0 || read(fd, line, sizeof line - 2) <= 0)
        return -1;
    (void)close(fd);
    word += strlen(word) + 1;
    if (strcmp(word, serve_option) != 0)
        return -1;
    return (int)strtol(word + strlen(word) + 1, NULL, 10);
}

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

#endif
