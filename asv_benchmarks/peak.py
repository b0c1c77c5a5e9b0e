"""Peak: what the machine can do at most, measured: multiply-adds in registers, activations, bytes copied in memory.

Usage: python asv_benchmarks/peak.py

The multiply-adds are twelve independent chains on vectors of hardware lanes, which neither load nor store: as many as
hide the latency of a fused multiply-add on every CPU, few enough to stay in 16 registers. Other measurements are given
as shares of what the same number of threads reached here in the same run. Activations are fastbp's own functions on
numbers in the nearest cache.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numba
import numpy as np

from fastbp.engine.cores import available_cores
from fastbp.kernels._jit import OPTIONS
from fastbp.kernels.activations import ACTIVATIONS, activate
from fastbp.kernels.pointers import pointer
from fastbp.kernels.simd import fma, lanes, load, load16, store

CHAINS = 12
LEAST_SECONDS = 0.03


@numba.njit(**OPTIONS)
def spin(start, out, n):
    """Take n steps a = a x + y in 12 chains; return the lanes of a vector. `start` holds x, y and the 12 a."""
    p, q = pointer(start), pointer(out)
    v = lanes(p)
    x, y = load(p), load(p + v)
    a, b, c, d = load(p + 2 * v), load(p + 3 * v), load(p + 4 * v), load(p + 5 * v)
    e, f, g, h = load(p + 6 * v), load(p + 7 * v), load(p + 8 * v), load(p + 9 * v)
    i, j, k, l = load(p + 10 * v), load(p + 11 * v), load(p + 12 * v), load(p + 13 * v)
    for _ in range(n):
        a, b, c, d = fma(a, x, y), fma(b, x, y), fma(c, x, y), fma(d, x, y)
        e, f, g, h = fma(e, x, y), fma(f, x, y), fma(g, x, y), fma(h, x, y)
        i, j, k, l = fma(i, x, y), fma(j, x, y), fma(k, x, y), fma(l, x, y)
    # what is not stored would not be computed
    store(q, a), store(q + v, b), store(q + 2 * v, c), store(q + 3 * v, d)
    store(q + 4 * v, e), store(q + 5 * v, f), store(q + 6 * v, g), store(q + 7 * v, h)
    store(q + 8 * v, i), store(q + 9 * v, j), store(q + 10 * v, k), store(q + 11 * v, l)
    return v


@numba.njit(**OPTIONS)
def activations(code, z, a, times):
    """a_j = sigma(z_j) of all elements, a multiple of 16 of them, so many times."""
    for _ in range(times):
        for j in range(0, len(z), 16):
            store(pointer(a) + j, activate(code, load16(pointer(z) + j))[0])


def seconds_together(functions: Sequence[Callable[[], Any]]) -> float:
    """Return the time in which as many threads each run one of the functions."""
    threads = [threading.Thread(target=function) for function in functions]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


class Peak:
    """The most multiply-adds and activations a second; each further measurement can only raise them."""

    def __init__(self) -> None:
        self._best: dict[tuple[str, str, int], float] = {}

    def activations(self, name: str, dtype: str, n_threads: int, rounds: int = 3) -> float:
        """Return the most values of a hidden activation a second, of this and all earlier measurements."""
        z = np.linspace(-3, 3, 1024, dtype=dtype)

        def apply(times: int) -> None:
            activations(ACTIVATIONS[name].code, z, np.empty_like(z), times)

        apply(1)
        return self._raised((name, dtype, n_threads), apply, len(z), rounds)

    def measure(self, dtype: str, n_threads: int, rounds: int = 3) -> float:
        """Return the best flops (2 a multiply-add) of this and all earlier measurements."""
        start = np.linspace(0.1, 0.9, 14 * 64, dtype=dtype)  # more than enough for the widest vectors

        def chains(n: int) -> int:
            return int(spin(start, np.empty_like(start), n))

        return self._raised(("fma", dtype, n_threads), chains, 2 * CHAINS * chains(1), rounds)

    def _raised(self, key: tuple[str, str, int], function: Callable[[int], Any], of_each: int, rounds: int) -> float:
        """Return the best rate of all measurements under this key, after one more of function(steps)."""
        steps, n_threads = 1000, key[-1]
        while seconds_together([partial(function, steps)]) < LEAST_SECONDS:
            steps *= 2
        seconds = min(seconds_together([partial(function, steps)] * n_threads) for _ in range(rounds))
        self._best[key] = max(of_each * steps * n_threads / seconds, self._best.get(key, 0.0))
        return self._best[key]


@cache
def bandwidth(n_threads: int) -> float:
    """Return the bytes a second that n threads read and write at best, each copying an array of 64 MB."""
    copies = [partial(np.copyto, np.ones(1 << 23), np.ones(1 << 23)) for _ in range(n_threads)]
    best = min(seconds_together(copies) for _ in range(5))
    return 2 * 8 * (1 << 23) * n_threads / best


def main() -> None:
    """Print all, for one thread and for all cores."""
    peak = Peak()
    for n_threads in sorted({1, available_cores()}):
        figures = [
            f"{dtype} {peak.measure(dtype, n_threads) / 1e9:.0f} GF/s, "
            f"{peak.activations('tanh', dtype, n_threads) / 1e9:.2f} G tanh/s"
            for dtype in ("float32", "float64")
        ]
        print(f"{n_threads} threads: {', '.join(figures)}, copying {bandwidth(n_threads) / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
