"""Dependable: what the promises cost in time, each measured beside its goal.

Usage: python asv_benchmarks/dependable.py [--only WORD ...] [--json FILE]

For a quiet machine: a share of a busy one is not fair. Exits with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np

from fastbp import Network
from fastbp.engine.cores import available_cores

CORES = available_cores()
PATIENCE = 5.0  # seconds until a Ctrl-C counts as lost


@dataclass(frozen=True)
class Claim:
    """One promise, as measured; `goal` is the largest value that keeps it."""

    claim: str
    measured: float
    goal: float
    unit: str
    remark: str = ""

    @property
    def kept(self) -> bool:
        """Whether the goal is reached."""
        return self.measured <= self.goal


Measurement = Callable[[], Iterator[Claim]]
MEASUREMENTS: dict[str, Measurement] = {}


def measurement(function: Measurement) -> Measurement:
    """Put a function that yields claims into the table, under its name."""
    MEASUREMENTS[function.__name__] = function
    return function


@measurement
def interrupts() -> Iterator[Claim]:
    """Latency from SIGINT to the KeyboardInterrupt that leaves `fit`, at random moments, once the kernels are there."""
    rng, X, y = np.random.default_rng(0), *mnist_like(20_000)
    for sizes, batch_size in [([784, 30, 10], 10), ([784, 512, 512, 10], 128)]:
        Network(sizes, output="softmax", seed=0).fit(X[:500], y[:500], batch_size=batch_size, verbose=False)
        seconds = [latency(sizes, batch_size, X, y, rng.uniform(0, 0.15)) for _ in range(200)]
        worst = f"the longest of {len(seconds)}: {1e3 * max(seconds):.1f} ms"
        what = f"Ctrl-C in a fit of {'-'.join(map(str, sizes))}, 99 of 100 within"
        yield Claim(what, 1e3 * float(np.quantile(seconds, 0.99, method="higher")), 100, "ms", worst)


def latency(sizes: list[int], batch_size: int, X: np.ndarray, y: np.ndarray, delay: float) -> float:
    """Return the seconds from a SIGINT, sent `delay` after the start, to the end of an endless fit.

    A signal that is lost (Python prints and forgets what is raised in a `__del__`) counts, and is sent again.
    """
    network, sent, ended = Network(sizes, output="softmax", seed=0), [], threading.Event()

    def send() -> None:
        time.sleep(delay)
        while not ended.is_set():
            sent.append(time.perf_counter())
            signal.raise_signal(signal.SIGINT)
            ended.wait(PATIENCE)

    sender = threading.Thread(target=send)
    try:
        sender.start()
        network.fit(X, y, epochs=10**6, batch_size=batch_size, verbose=False)
    except KeyboardInterrupt:
        taken = time.perf_counter() - sent[0]
    ended.set()
    sender.join()
    return taken


@measurement
def first_fits() -> Iterator[Claim]:
    """Time of a process that imports fastbp and fits for the first time: without a cache, and with one."""
    program = """
        import sys, time
        begin = time.perf_counter()
        import numpy as np, fastbp
        imported = time.perf_counter()
        X, y = np.zeros((100, 20), sys.argv[1]), np.arange(100) % 3
        fastbp.Network([20, 10, 3], output="softmax", dtype=sys.argv[1], seed=0).fit(X, y, verbose=False)
        print(imported - begin, time.perf_counter() - begin)
        """
    for dtype in "float32", "float64":
        with tempfile.TemporaryDirectory() as folder:
            env = os.environ | {"FASTBP_CACHE_DIR": folder}
            command = [sys.executable, "-c", dedent(program), dtype]

            def run(env: dict[str, str] = env, command: list[str] = command) -> tuple[float, float]:
                done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
                imported, total = map(float, done.stdout.split())
                return imported, total

            imported, total = run()
            yield Claim(f"first fit on this machine, {dtype}, cold", total - imported, 15, "s")
            totals = sorted(run()[1] for _ in range(7))
            yield Claim(f"import and first fit from the cache, {dtype}", totals[3], 1.5, "s", "the median of 7")


@measurement
def denormals() -> Iterator[Claim]:
    """Ratio of the time of an epoch on subnormal numbers to that on ordinary ones."""
    for dtype, factor in ("float32", 1e-41), ("float64", 1e-311):
        X, y = mnist_like(5000, dtype)
        start = Network([784, 100, 10], hidden="relu", output="softmax", dtype=dtype, seed=0)
        small = [(w * factor, b) for w, b in zip(start.weights, start.biases, strict=True)]
        usual = list(zip(start.weights, start.biases, strict=True))
        works = {"ordinary": (X, usual), "data": (X * X.dtype.type(factor), usual), "weights": (X, small)}
        best = dict.fromkeys(works, float("inf"))
        for _ in range(9):
            for name, (rows, init) in works.items():
                network = Network([784, 100, 10], hidden="relu", output="softmax", dtype=dtype, init=init)
                begin = time.perf_counter()
                network.fit(rows, y, batch_size=100, verbose=False)
                best[name] = min(best[name], time.perf_counter() - begin)
        for name in "data", "weights":
            yield Claim(
                f"training with subnormal {name}, {dtype}: times slower", best[name] / best["ordinary"], 1.5, ""
            )


def mnist_like(n: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Return n rows of 784 numbers, a fifth of them other than 0, and their labels."""
    rng = np.random.default_rng(0)
    return (rng.random((n, 784)) * (rng.random((n, 784)) < 0.2)).astype(dtype), rng.integers(10, size=n)


# A share of the cores

ROUNDS = 7
SIZES = {"784-30-10, mini-batches of 10": ([784, 30, 10], 10), "784-256-10, mini-batches of 128": ([784, 256, 10], 128)}


def fit_of(sizes: list[int], batch_size: int, n_threads: int | None) -> Callable[[], Any]:
    """Return a training of some 0.1 s."""
    n = 8_000
    X = np.random.default_rng(0).random((n, sizes[0]), np.float32)
    y = np.arange(n) % sizes[-1]
    network = Network(sizes, hidden="relu", output="softmax", seed=0)
    return lambda: network.fit(X, y, batch_size=batch_size, n_threads=n_threads, verbose=False)


def seconds(*functions: Callable[[], Any], rounds: int = ROUNDS) -> list[float]:
    """Return the median time of each, measured in turns."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, kept in zip(functions, times, strict=True):
            begin = time.perf_counter()
            function()
            kept.append(time.perf_counter() - begin)
    return [float(np.median(kept)) for kept in times]


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Let n other processes compute without a pause."""
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def fair_share(alone: dict[int, float], n_busy: int) -> float:
    """Return the least time that the cores leave to a training beside n busy processes, whatever its threads.

    `alone` has its time by number of threads, without neighbours. Where threads and neighbours are more than the cores,
    each of them has the same share of all cores.
    """
    return min(time * max(1, (threads + n_busy) / CORES) for threads, time in alone.items())


@measurement
def too_many_threads() -> Iterator[Claim]:
    """More threads than cores: the fair share is all of them."""
    for name, (sizes, batch_size) in SIZES.items():
        factors = 2, 4, 16
        asked = [*sorted({1, CORES}), *(factor * CORES for factor in factors)]
        times = dict(zip(asked, seconds(*(fit_of(sizes, batch_size, n) for n in asked)), strict=True))
        fair = fair_share({n: times[n] for n in (1, CORES)}, 0)
        for factor in factors:
            claim = f"{name}: {factor} threads a core, beside the best of 1 and {CORES}"
            yield Claim(claim, times[factor * CORES] / fair, 1.5, "x", f"{fair * 1e3:.0f} ms")


@measurement
def one_core() -> Iterator[Claim]:
    """Keep to one core by an affinity, of which the n_threads asked for know nothing."""
    if not hasattr(os, "sched_setaffinity"):
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, [min(before)])
        for name, (sizes, batch_size) in SIZES.items():
            fair, default, many = seconds(*(fit_of(sizes, batch_size, n) for n in (1, None, max(2, len(before)))))
            yield Claim(f"{name}: on one core, n_threads=None beside 1", default / fair, 1.05, "x")
            yield Claim(f"{name}: on one core, n_threads={max(2, len(before))} beside 1", many / fair, 1.5, "x")
    finally:
        os.sched_setaffinity(0, before)


@measurement
def busy_neighbours() -> Iterator[Claim]:
    """Beside processes that never pause: the share that the cores' scheduler owes to the best number of threads."""
    for name, (sizes, batch_size) in SIZES.items():
        asked = sorted({1, CORES})
        *forced, fit = (fit_of(sizes, batch_size, n) for n in (*asked, None))
        before = seconds(*forced)
        for n in sorted({1, CORES, 2 * CORES}):
            with busy(n):
                measured = seconds(fit)[0]
            after = seconds(*forced)  # a shared machine is not as fast as it was a moment ago
            alone = {k: (b + a) / 2 for k, b, a in zip(asked, before, after, strict=True)}
            fair, before = fair_share(alone, n), after
            claim = f"{name}: beside {n} busy process{'es' if n > 1 else ''}, to the fair share"
            yield Claim(claim, measured / fair, 1.5, "x", f"{fair * 1e3:.0f} ms")


@measurement
def candidates_in_threads() -> Iterator[Claim]:
    """Trainings side by side in a pool of threads take no longer than one after the other."""
    for name, (sizes, batch_size) in SIZES.items():
        fits = [fit_of(sizes, batch_size, None) for _ in range(2 * CORES)]

        def in_turn(fits: list[Callable[[], Any]] = fits) -> None:
            for fit in fits:
                fit()

        def together(fits: list[Callable[[], Any]] = fits) -> None:
            with ThreadPoolExecutor(len(fits)) as pool:
                for done in [pool.submit(fit) for fit in fits]:
                    done.result()

        one_by_one, side_by_side = seconds(in_turn, together, rounds=5)
        claim = f"{name}: {len(fits)} trainings in threads, beside one by one"
        yield Claim(claim, side_by_side / one_by_one, 1.1, "x", f"{one_by_one * 1e3:.0f} ms")


@measurement
def neighbouring_products() -> Iterator[Claim]:
    """NumPy's products after a fit beside those before: no thread of ours is left to take their cores."""
    for n in 200, 1000:
        a = np.random.default_rng(1).random((n, n), np.float32)
        fit = fit_of([784, 256, 10], 128, CORES)
        products = max(1, int(2e9 / n**3 / 10))

        def multiply(a: Any = a, products: int = products) -> None:
            for _ in range(products):
                a @ a

        fit()
        before, after = [], []
        for _ in range(15):
            time.sleep(0.05)  # the state that a process is in which has not computed just now
            before.append(seconds(multiply, rounds=3)[0])
            fit()
            after.append(seconds(multiply, rounds=3)[0])
        ratio = float(np.median(after) / np.median(before))
        yield Claim(f"NumPy's product of {n} x {n} after a fit, beside before", ratio, 1.05, "x")


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORD", default=[""], help="those whose name holds a word")
    parser.add_argument("--json", type=Path, help="where to write the figures, too")
    options = parser.parse_args()
    chosen = [name for name in MEASUREMENTS if any(word in name for word in options.only)]
    print(f"{'claim':72}  {'measured':>9}  {'goal':>7}")
    claims = []
    for name in chosen:
        for claim in MEASUREMENTS[name]():
            figures = f"{claim.measured:9.3g}  {claim.goal:7.3g} {claim.unit:3}"
            print(f"{claim.claim:72}  {figures}  {'' if claim.kept else 'MISSED'}  {claim.remark}".rstrip(), flush=True)
            claims.append(claim)
    if options.json:
        options.json.write_text(json.dumps([asdict(claim) | {"kept": claim.kept} for claim in claims], indent=1))
    return 0 if all(claim.kept for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
