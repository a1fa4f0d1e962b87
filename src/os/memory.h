/* SPDX-License-Identifier: MIT */
/* Shared memory for one child, and the host's own memory at a fork. */
#ifndef FM_OS_MEMORY_H
#define FM_OS_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Anonymous shared memory, zeroed, `len` a multiple of the page size.
 * Inherited by no child until fm__memory_inherit().  NULL when there is none,
 * with errno set. */
void *fm__memory_share(size_t len);

/* Whether children forked from now on get the mapping. */
int fm__memory_inherit(void *p, size_t len, bool inherit);

/* NULL is a no-op. */
void fm__memory_unshare(void *p, size_t len);

/* The same in a file without a name, which other processes map too.  Its length
 * is sealed: nobody can take pages from under who maps it.  Returns a
 * close-on-exec descriptor, or -errno. */
int fm__memory_open_file(size_t len);

/* Map such a file, of that very length and so sealed.  Inherited by no child.
 * NULL when it is none or there is no memory, with errno set. */
void *fm__memory_map_file(int fd, size_t len);

/* The same, to be read.  What others write later may show, or may not. */
void *fm__memory_read_file(int fd, size_t len);

/* Have the pages of this memory, which is about to be written, made now: all at
 * once costs half of what a fault for each does.  A hint. */
void fm__memory_populate(void *p, size_t len);

/* A private block for bulk data that grows without copying.  As realloc():
 * fm__bulk_resize(NULL, n) allocates, (p, 0) frees.  NULL when there is
 * no memory, the old block is then untouched. */
void *fm__bulk_resize(void *p, size_t len);

/* Memory that a fork does not copy: what a child writes there, its parent and
 * its siblings see.  False where the kernel does not tell. */
bool fm__memory_is_shared(const void *p);

/* Ask the kernel to collapse private anonymous memory into huge pages.
 * Returns the bytes that it did. */
uint64_t fm__memory_collapse(void);

/* Bytes of private writable data of this process (what RLIMIT_DATA counts),
 * 0 when unknown.  Async-signal-safe. */
uint64_t fm__memory_data_size(void);

/* Have the allocator do what it has put off: glibc joins small freed blocks at
 * the next larger request, which writes to the pages of all of them.  A process
 * that is about to fork does it once; each child would do it again. */
void fm__memory_settle(void);

#endif
