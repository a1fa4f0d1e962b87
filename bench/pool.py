# SPDX-License-Identifier: MIT
"""Microseconds that so many calls that do nothing take in a warm pool of two
processes, which serve one call after the other and so isolate none."""
import sys
import time
from concurrent.futures import ProcessPoolExecutor


def nothing():
    return None


if __name__ == "__main__":
    n = int(sys.argv[1])
    with ProcessPoolExecutor(max_workers=2) as pool:
        for future in [pool.submit(nothing) for _ in range(100)]:
            future.result()
        began = time.perf_counter()
        for future in [pool.submit(nothing) for _ in range(n)]:
            future.result()
        print((time.perf_counter() - began) * 1e6)
