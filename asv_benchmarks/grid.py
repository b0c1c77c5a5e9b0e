"""Grid: fastbp over batches and widths, and what a trained network is asked; cliffs, and threads that cost.

Usage: python asv_benchmarks/grid.py rates|threads|asked [--quick] [--dtype float64] [--json FILE] [--plot FILE.png]

- rates: GF/s of an epoch, on 2 x multiply-adds of the three products, over batches and widths.
- threads: n_threads=None beside one thread, in pairs of turns: the median of their ratios and its upper confidence
  limit (95 %, by order statistics), which shall be at most 1.05; the threads chosen, and what they gain.
- asked: predict, loss and gradients beside training on the same work, and one sample beside NumPy.

For a quiet machine: rates takes some 3 minutes, threads 5, asked 1; `--quick` a few seconds, to see that it works.
Exits with 3 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from anatomy import Anatomy
from benchmarks.common import WORKS, Array, Work, noting_threads
from dependable import Claim
from peak import Peak

import fastbp

Grid = dict[tuple[int, int], dict[str, float]]  # (batch, width) -> figures

GOAL = 1.05  # of the time of one thread
CONFIDENCE = 0.95
CLIFF = 0.6  # a wider network below this part of the narrower one's rate is pointed out
WORK_PER_CELL = 2e9  # flops of an epoch where so few samples do not make it longer
MOST_ROWS = 100_000
LEAST_SECONDS = 0.06


def work_of(width: int, batch_size: int) -> Work:
    """Return a network of three layers of neurons, all as wide, with an epoch of a fraction of a second."""
    work = replace(WORKS["100-64-64-1"], sizes=(width,) * 3, hidden="relu", batch_size=batch_size, n=1)
    n = min(MOST_ROWS, int(WORK_PER_CELL / work.flops))
    return replace(work, n=max(1, n // batch_size) * batch_size)


def fit_of(work: Work, dtype: str) -> Callable[..., Any]:
    """Return the `fit` of a network in this work."""
    X, y = work.samples(dtype=dtype)
    return partial(work.network(dtype).fit, X, y, batch_size=work.batch_size, optimizer=work.optimizer(), verbose=False)


def timed(function: Callable[..., Any], **arguments: Any) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    function(**arguments)
    return time.perf_counter() - start


def epochs_for(fit: Callable[..., Any], least: float) -> int:
    """Return how many epochs take that long, on one thread."""
    fit(n_threads=1)
    return 1 + int(least / timed(fit, n_threads=1))


def best_seconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the best seconds of each; they take turns, each long enough to be timed."""
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = 1 + int(LEAST_SECONDS / timed(call))
    best = dict.fromkeys(calls, math.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            best[name] = min(best[name], (time.perf_counter() - start) / repeats[name])
    return best


def upper_limit(values: list[float], confidence: float = CONFIDENCE) -> float:
    """Return the value that the true median exceeds with a probability of at most 1 - confidence.

    It is the k-th smallest of n: the median lies above it only where k or more values lie below the median, as often
    as k or more of n fair coins show heads. With less than five values there is none at 95 %: infinity.
    """
    n, below = len(values), 0.0
    for k, value in enumerate(sorted(values), start=1):
        below += math.comb(n, k - 1) / 2**n  # at most k - 1 values lie below the median
        if below >= confidence:
            return value
    return math.inf


# Rates


def rates(batches: list[int], widths: list[int], dtype: str, rounds: int) -> Grid:
    """Return GF/s over both, the best of some fits; the peak of all cores is measured beside them."""
    grid: Grid = {}
    peak, cores = Peak(), fastbp.get_num_threads()
    for batch in batches:
        for width in widths:
            work = work_of(width, batch)
            fit = fit_of(work, dtype)
            epochs = epochs_for(fit, LEAST_SECONDS)
            seconds = min(timed(fit, epochs=epochs) for _ in range(rounds)) / epochs
            most = peak.measure(dtype, cores, rounds=1)
            grid[batch, width] = {"GF/s": work.flops / seconds / 1e9, "peak": most / 1e9}
    return grid


def print_rates(grid: Grid) -> bool:
    """Print GF/s, and where a wider network is far slower; whether the goal is met is for the eye."""
    print(table(grid, "GF/s", "{:.1f}"))
    print(f"peak of {fastbp.get_num_threads()} threads: {max(cell['peak'] for cell in grid.values()):.0f} GF/s")
    batches, widths = axes_of(grid)
    for batch in batches:
        for narrow, wide in pairwise(widths):
            before, after = grid[batch, narrow]["GF/s"], grid[batch, wide]["GF/s"]
            if after < CLIFF * before:
                print(f"batch {batch}: from {before:.1f} GF/s at width {narrow} to {after:.1f} at {wide}")
    return True


def plot_rates(grid: Grid, figure: Any) -> None:
    """Draw a curve for each batch size."""
    axes = figure.subplots()
    batches, widths = axes_of(grid)
    for batch in batches:
        axes.plot(widths, [grid[batch, width]["GF/s"] for width in widths], marker="o", ms=3, label=f"batch {batch}")
    axes.axhline(max(cell["peak"] for cell in grid.values()), color="0.5", ls="--", lw=1, label="peak")
    axes.set(xscale="log", yscale="log", xlabel="width w of w-w-w", ylabel="GF/s")
    axes.set_xticks(widths, [str(width) for width in widths], rotation=90, fontsize=7)
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


# Threads


def threads(batches: list[int], widths: list[int], dtype: str, rounds: int) -> Grid:
    """Return what n_threads=None costs and gains over both, by pairs of fits whose order alternates."""
    grid: Grid = {}
    for batch in batches:
        for width in widths:
            fit = fit_of(work_of(width, batch), dtype)
            epochs = epochs_for(fit, LEAST_SECONDS)
            ratios, chosen = [], 1
            for turn in range(rounds):
                seconds = {}
                for n_threads in (None, 1) if turn % 2 else (1, None):
                    with noting_threads() as noted:
                        seconds[n_threads] = timed(fit, epochs=epochs, n_threads=n_threads)
                    if n_threads is None:
                        chosen = noted[-1] if noted else 1
                ratios.append(seconds[None] / seconds[1])
            median = float(np.median(ratios))
            grid[batch, width] = {
                "ratio": median, "limit": upper_limit(ratios), "threads": chosen, "speed-up": 1 / median,
            }  # fmt: skip
    return grid


def print_threads(grid: Grid) -> bool:
    """Print the maps and where the goal is missed; return whether it is met everywhere."""
    for what, form in ("threads", "{:.0f}"), ("speed-up", "{:.2f}"), ("limit", "{:.2f}"):
        print(table(grid, what, form))
    missed = {cell: figures for cell, figures in grid.items() if figures["limit"] > GOAL}
    for (batch, width), figures in missed.items():
        print(f"MISSED batch {batch}, width {width}: {figures['ratio']:.3f}, limit {figures['limit']:.3f} > {GOAL}")
    return not missed


def plot_threads(grid: Grid, figure: Any) -> None:
    """Draw the threads chosen and the speed-up as maps."""
    batches, widths = axes_of(grid)
    for axes, what, form in zip(figure.subplots(1, 2), ("threads", "speed-up"), ("{:.0f}", "{:.2f}"), strict=True):
        values = np.array([[grid[batch, width][what] for width in widths] for batch in batches])
        axes.imshow(values, cmap="viridis", origin="lower", aspect="auto", vmin=1, vmax=max(2, values.max()))
        for row, column in np.ndindex(values.shape):
            axes.text(column, row, form.format(values[row, column]), ha="center", va="center", color="w", fontsize=7)
        axes.set_xticks(range(len(widths)), widths, rotation=90)
        axes.set_yticks(range(len(batches)), batches)
        axes.set(xlabel="width", ylabel="batch", title=what)


# Asked


def asked(works: list[str], dtype: str, rounds: int) -> list[Claim]:
    """Return the claims about predict, loss and gradients, and about one sample."""
    claims = []
    for name in works:
        work, rows = WORKS[name], 10_000
        X, y = work.samples(rows, dtype)
        network, anatomy = work.network(dtype), Anatomy(work, dtype)
        training = anatomy.measure() / anatomy.work.batch_size
        forward = anatomy.forward_seconds() / anatomy.work.batch_size
        calls = {
            "predict": partial(network.predict, X),
            "loss": partial(network.loss, X, y),
            "gradients": partial(network.gradients, X, y),
        }
        for what, seconds in best_seconds(calls, rounds).items():
            beside, a_sample = ("training", training) if what == "gradients" else ("its forward pass", forward)
            claim = f"{name}: {what} of {rows} rows beside {beside} ({anatomy.n_threads} threads)"
            claims.append(Claim(claim, seconds / rows / a_sample, GOAL, "x", f"{1e3 * seconds:.2f} ms"))
    return [*claims, one_sample(dtype, rounds)]


def one_sample(dtype: str, rounds: int) -> Claim:
    """Return the time of one sample through 4-24-24-2, beside that of four lines of NumPy."""
    work = replace(WORKS["4-32-16-4"], sizes=(4, 24, 24, 2))
    network, X = work.network(dtype), work.samples(1, dtype)[0]
    (w0, w1, w2), (b0, b1, b2) = network.weights, network.biases

    def four_lines(a: Array) -> Array:
        a = np.tanh(a @ w0.T + b0)
        a = np.tanh(a @ w1.T + b1)
        a = a @ w2.T + b2
        return a

    np.testing.assert_allclose(network.predict(X), four_lines(X), rtol=1e-4, atol=1e-5)
    best = best_seconds({"fastbp": partial(network.predict, X), "numpy": partial(four_lines, X)}, 3 * rounds)
    remark = f"{1e6 * best['fastbp']:.2f} us and {1e6 * best['numpy']:.2f} us"
    return Claim("one sample through 4-24-24-2 beside NumPy", best["fastbp"] / best["numpy"], 0.5, "x", remark)


def axes_of(grid: Grid) -> tuple[list[int], list[int]]:
    """Return the batches and the widths of a grid."""
    return sorted({batch for batch, _ in grid}), sorted({width for _, width in grid})


def table(grid: Grid, what: str, form: str) -> str:
    """Return one of the figures as text: a line a width, a column a batch size."""
    batches, widths = axes_of(grid)
    lines = [f"{what + ', width':>16}" + "".join(f"{f'batch {batch}':>12}" for batch in batches)]
    for width in widths:
        lines.append(f"{width:16}" + "".join(f"{form.format(grid[batch, width][what]):>12}" for batch in batches))
    return "\n".join(lines)


RATES = [1, 10, 32, 128, 1000], [8, 10, 16, 24, 30, 32, 48, 64, 100, 128, 200, 256, 400, 512, 784, 1000, 1024, 2048]
THREADS = [1, 4, 10, 32, 128, 512, 1024], [4, 8, 16, 30, 64, 100, 128, 256, 512, 784, 1024]
ROUNDS = {"rates": 3, "threads": 21, "asked": 7}
QUICK = [1, 128], [8, 64, 256]


def main() -> int:
    """Measure one of the three, print and draw it; return 3 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rates", "threads", "asked"])
    parser.add_argument("--quick", action="store_true", help="few cells and rounds: only to see that it works")
    parser.add_argument("--rounds", type=int, help="turns of each cell (rates 3, threads 21, asked 7)")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw rates or threads, to this file; needs matplotlib")
    options = parser.parse_args()
    rounds = options.rounds or ({"rates": 1, "threads": 7, "asked": 1} if options.quick else ROUNDS)[options.what]
    grid: Grid = {}
    if options.what == "asked":
        names = ["784-30-10"] if options.quick else [name for name in WORKS if name.startswith("784")]
        claims = asked(names, options.dtype, rounds)
        for claim in claims:
            verdict = "" if claim.kept else "  MISSED"
            print(f"{claim.claim:70} {claim.measured:7.2f} {claim.goal:5.2f} {claim.remark}{verdict}")
        met = all(claim.kept for claim in claims)
        figures: Any = {claim.claim: claim.measured for claim in claims}
    else:
        measure, show, cells = {"rates": (rates, print_rates, RATES), "threads": (threads, print_threads, THREADS)}[
            options.what
        ]
        grid = measure(*(QUICK if options.quick else cells), options.dtype, rounds)
        met = show(grid)
        figures = [{"batch": batch, "width": width, **cell} for (batch, width), cell in grid.items()]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    if options.plot and grid:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4.5), layout="constrained")
        {"rates": plot_rates, "threads": plot_threads}[options.what](grid, figure)
        figure.savefig(options.plot, dpi=150)
    return 0 if met else 3


if __name__ == "__main__":
    sys.exit(main())
