/* SPDX-License-Identifier: MIT */
/*
 * System calls without the C library, where the processor's convention is
 * known.
 *
 * A fresh child has no page of a library's code mapped: each part of the C
 * library that it goes through costs a fault, which is more than most of these
 * calls.  They also are no cancellation points.
 */
#ifndef FM_OS_SYS_DIRECT_H
#define FM_OS_SYS_DIRECT_H

#if defined(__linux__) && defined(__GNUC__) && defined(__LP64__) &&            \
    (defined(__x86_64__) || defined(__aarch64__))
#define FM__SYS_DIRECT 1

#include <errno.h>

/* The kernel's answer: a value, or a negated error number. */
static inline long fm__sys_ask(long number, long a, long b, long c, long d)
{
#ifdef __x86_64__
    register long r10 __asm__("r10") = d;
    long answer;

    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return answer;
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;

    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3)
                     : "memory", "cc");
    return x0;
#endif
}

/* As libc has it: -1 and errno. */
static inline long fm__sys_call(long number, long a, long b, long c, long d)
{
    long answer = fm__sys_ask(number, a, b, c, d);

    if (answer < 0 && answer >= -4095) {
        errno = (int)-answer;
        return -1;
    }
    return answer;
}
#endif

#endif
