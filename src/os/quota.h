/* SPDX-License-Identifier: MIT */
/*
 * What the control groups of this process leave it of the processors.
 */
#ifndef FM_OS_QUOTA_H
#define FM_OS_QUOTA_H

/* Processors' worth of time, rounded up; 0 when nothing limits it, or nothing
 * is known. */
unsigned fm__quota_count_cpus(void);

#endif
