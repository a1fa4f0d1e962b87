# SPDX-License-Identifier: MIT
"""Microseconds that so many calls take in a warm multiprocessing.Pool of two:
"trip", one after the other by apply(); "many", all by apply_async() and then their
results; "bytes", apply() of a megabyte there and back."""
import multiprocessing
import sys
import time


def echo(value):
    return value


def run(kind, pool, n):
    if kind == "many":
        for result in [pool.apply_async(echo, (i,)) for i in range(n)]:
            result.get()
        return
    value = b"x" * (1 << 20) if kind == "bytes" else 1
    for _ in range(n):
        pool.apply(echo, (value,))


if __name__ == "__main__":
    with multiprocessing.Pool(2) as warm:
        run(sys.argv[1], warm, 50)
        began = time.perf_counter()
        run(sys.argv[1], warm, int(sys.argv[2]))
        print((time.perf_counter() - began) * 1e6)
