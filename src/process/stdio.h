/* SPDX-License-Identifier: MIT */
/*
 * The C library's buffered streams in a child.  What the host had written and
 * not flushed stays the host's: the child drops its copy at the start.  What
 * the child writes is flushed before it leaves.
 */
#ifndef FM_PROCESS_STDIO_H
#define FM_PROCESS_STDIO_H

/* Parent, once: find the list of streams where the C library has one. */
void fm__stdio_find(void);

/* Child: drop pending output of every inherited stream that can be found (all
 * of them on glibc; stdout and stderr elsewhere).  Input is left alone. */
void fm__stdio_purge(void);

/* Child: write what it has pending, in the streams that were purged: in others
 * the host's text would be written twice. */
void fm__stdio_flush(void);

#endif
