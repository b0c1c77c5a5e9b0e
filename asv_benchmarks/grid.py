"""Grid: fastbp over batches and widths, and what a trained network is asked; cliffs, and threads that cost.

Usage: python asv_benchmarks/grid.py rates|threads|asked [--quick] [--dtype float64] [--folder FOLDER]

- rates: GF/s of an epoch, of many in a fit, on 2 x multiply-adds of the three products, over batches and widths, in
  both dtypes. A cliff is a wider network, or a larger mini-batch, at less than 0.6 of the rate of the one before,
  unless it is as fast as parameters and moments come from memory.
- threads: n_threads=None beside one thread, in pairs of turns: the median of their ratios and its upper confidence
  limit (95 %, by order statistics), which shall be at most 1.05; the threads chosen, and what they gain. Cells with a
  median that meets the goal, and a limit that does not, are measured afresh, with three times as many pairs.
- asked: predict beside training's forward pass, loss and gradients beside training, on the same rows and in turns, and
  one sample beside NumPy.

For a quiet machine: rates takes some 25 minutes, threads 10, asked 2; `--quick` less than one, to see that it works.
The figures are written to asv_benchmarks/figures, the picture as SVG (needs matplotlib) and the numbers as JSON; those
of `--quick` to no file unless a folder is named. Exits with 3 where a goal is missed.
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
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from anatomy import LEAST_SECONDS as PART_SECONDS
from anatomy import Anatomy
from benchmarks.common import WORKS, Array, Work, noting_threads
from dependable import Claim
from peak import Peak, bandwidth

import fastbp

Grid = dict[tuple[int, int], dict[str, float]]  # (batch, width) -> figures

GOAL = 1.05  # of the time of one thread
CONFIDENCE = 0.95
CLIFF = 0.6  # of the rate of the narrower network, or of the smaller mini-batch
FIGURES = Path(__file__).parent / "figures"
WORK_PER_CELL = 2e9  # flops of an epoch where so few samples do not make it longer
# And for each parameter: 16 mini-batches of 10, as all are read and copied where an epoch ends
WORK_PER_PARAMETER = 800
TIMES_AFRESH = 3  # as many pairs, of cells that are in doubt
MOST_ROWS = 100_000
LEAST_SECONDS = 0.06
RATES_SECONDS, TIMES_FIRST = 0.4, 5  # what a fit does once, up to 0.5 s with the widest layers, is no epoch's
ROWS_ASKED, EPOCHS_BESIDE = 10_000, 20


def work_of(width: int, batch_size: int) -> Work:
    """Return a network of three layers of neurons, all as wide, with an epoch of a fraction of a second."""
    work = replace(WORKS["100-64-64-1"], sizes=(width,) * 3, hidden="relu", batch_size=batch_size, n=1)
    n = min(MOST_ROWS, int(max(WORK_PER_CELL, WORK_PER_PARAMETER * n_parameters(work)) / work.flops))
    return replace(work, n=max(1, n // batch_size) * batch_size)


def n_parameters(work: Work) -> int:
    """Return the weights and biases of a work's network."""
    return sum((n_in + 1) * n_out for n_in, n_out in pairwise(work.sizes))


def fit_of(work: Work, dtype: str) -> Callable[..., Any]:
    """Return the `fit` of a network in this work."""
    X, y = work.samples(dtype=dtype)
    return partial(work.network(dtype).fit, X, y, batch_size=work.batch_size, optimizer=work.optimizer(), verbose=False)


def timed(function: Callable[..., Any], **arguments: Any) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    function(**arguments)
    return time.perf_counter() - start


def epochs_for(fit: Callable[..., Any], least: float, times_first: float = 0) -> int:
    """Return how many epochs of one fit take so many seconds more than one, and so many times as long, on one thread.

    With that one go what a fit does once, and the fit before it: no cache holds X yet.
    """
    fit(n_threads=1)
    first = timed(fit, epochs=1, n_threads=1)
    epochs, least = 2, max(least, times_first * first)
    while (seconds := timed(fit, epochs=epochs, n_threads=1) - first) < least:
        epochs = max(epochs + 1, min(8 * epochs, math.ceil(1.1 * epochs * least / max(seconds, 1e-9))))
    return epochs


def best_seconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the best seconds of each; they take turns, each as long as the parts of a mini-batch are timed."""
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = 1 + int(PART_SECONDS / timed(call))
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
    """Return GF/s over both, the best of some fits, the peak of all cores in the same turns, and what memory allows.

    All cells take turns, so that a slow minute of the machine is one turn of each.
    """
    works = {cell: work_of(cell[1], cell[0]) for cell in product(batches, widths)}
    fits = {cell: fit_of(work, dtype) for cell, work in works.items()}
    epochs = {cell: epochs_for(fit, RATES_SECONDS, TIMES_FIRST) for cell, fit in fits.items()}
    seconds, peaks = dict.fromkeys(works, math.inf), dict.fromkeys(works, 0.0)
    peak, cores = Peak(), fastbp.get_num_threads()
    for _ in range(rounds):
        for cell, fit in fits.items():
            seconds[cell] = min(seconds[cell], timed(fit, epochs=epochs[cell]) / epochs[cell])
            peaks[cell] = max(peaks[cell], peak.measure(dtype, cores, rounds=1))
    return {
        cell: {
            "GF/s": work.flops / seconds[cell] / 1e9,
            "peak": peaks[cell] / 1e9,
            "memory": work.flops / memory_seconds(work, dtype, cores) / 1e9,
        }
        for cell, work in works.items()
    }


def memory_seconds(work: Work, dtype: str, cores: int) -> float:
    """Return the time of an epoch if each mini-batch read and wrote all parameters and their two moments in memory."""
    return work.n / work.batch_size * 6 * n_parameters(work) * np.dtype(dtype).itemsize / bandwidth(cores)


def print_rates(grid: Grid) -> bool:
    """Print GF/s and the cliffs; return whether there is none."""
    print(table(grid, "GF/s", "{:.1f}"))
    print(f"peak of {fastbp.get_num_threads()} threads: {max(cell['peak'] for cell in grid.values()):.0f} GF/s")
    batches, widths = axes_of(grid)
    neighbours = [((batch, a), (batch, b)) for batch in batches for a, b in pairwise(widths)]
    neighbours += [((a, width), (b, width)) for width in widths for a, b in pairwise(batches)]
    cliffs = 0
    for before, after in neighbours:
        was, now = grid[before]["GF/s"], grid[after]["GF/s"]
        if now < CLIFF * min(was, grid[after]["memory"]):
            cliffs += 1
            print(f"MISSED a cliff from {was:.1f} GF/s at (batch, width) {before} to {now:.1f} at {after}")
    print(f"{cliffs} cliffs between {len(neighbours)} pairs of neighbours")
    return not cliffs


def plot_rates(grids: dict[str, Grid], figure: Any) -> None:
    """Draw a curve for each batch size, and a panel for each dtype."""
    for axes, (dtype, grid) in zip(np.ravel(figure.subplots(1, len(grids), sharey=True)), grids.items(), strict=False):
        batches, widths = axes_of(grid)
        for batch, marker, at in zip(batches, "osD^v", np.linspace(0, 0.85, len(batches)), strict=False):
            values = [grid[batch, width]["GF/s"] for width in widths]
            axes.plot(values, marker=marker, ms=4, color=colour(at), label=f"batch {batch}")
        axes.axhline(max(cell["peak"] for cell in grid.values()), color="0.4", ls="--", lw=1, label="measured peak")
        axes.set(yscale="log", xlabel="width w of w-w-w", title=dtype)
        axes.set_xticks(range(len(widths)), widths, rotation=90, fontsize=8)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("GF/s")
    figure.axes[0].legend(frameon=False, fontsize=8)


def colour(at: float) -> Any:
    """Return a colour of viridis, which keeps its order without hues: 0 is dark, 1 is light."""
    from matplotlib import colormaps

    return colormaps["viridis"](at)


# Threads


def threads(batches: list[int], widths: list[int], dtype: str, rounds: int) -> Grid:
    """Return what n_threads=None costs and gains over both, by pairs of fits whose order alternates.

    Of so many cells some have a wide interval, on a noisy machine: where the median meets the goal and the limit does
    not, the cell is measured afresh with more pairs, and those alone count.
    """
    fits = {}
    for batch, width in product(batches, widths):
        fit = fit_of(work_of(width, batch), dtype)
        fits[batch, width] = partial(fit, epochs=epochs_for(fit, LEAST_SECONDS))
    grid = pairs(fits, rounds)
    doubtful = [cell for cell, figures in grid.items() if figures["ratio"] <= GOAL < figures["limit"]]
    for cell in doubtful:
        print("batch {}, width {}: {ratio:.3f}, limit {limit:.3f}; measured afresh".format(*cell, **grid[cell]))
    return grid | pairs({cell: fits[cell] for cell in doubtful}, TIMES_AFRESH * rounds)


def pairs(fits: dict[tuple[int, int], Callable[..., Any]], rounds: int) -> Grid:
    """Return the figures of so many pairs of each cell.

    All cells take turns, so that a slow minute of the machine is one turn of each, and no median depends on it.
    """
    ratios: dict[tuple[int, int], list[float]] = {cell: [] for cell in fits}
    chosen = dict.fromkeys(fits, 1)
    for turn in range(rounds):
        for cell, fit in fits.items():
            fit(epochs=1, n_threads=1)  # the caches held other cells
            seconds = {}
            for n_threads in (None, 1) if turn % 2 else (1, None):
                with noting_threads() as noted:
                    seconds[n_threads] = timed(fit, n_threads=n_threads)
                if n_threads is None and noted:
                    chosen[cell] = noted[-1]
            ratios[cell].append(seconds[None] / seconds[1])
    grid: Grid = {}
    for cell, of_cell in ratios.items():
        median = float(np.median(of_cell))
        grid[cell] = {"ratio": median, "limit": upper_limit(of_cell), "threads": chosen[cell], "speed-up": 1 / median}
    return grid


def print_threads(grid: Grid) -> bool:
    """Print the maps and where the goal is missed; return whether it is met everywhere."""
    for what, form in ("threads", "{:.0f}"), ("speed-up", "{:.2f}"), ("limit", "{:.2f}"):
        print(table(grid, what, form))
    missed = {cell: figures for cell, figures in grid.items() if figures["limit"] > GOAL}
    for (batch, width), figures in missed.items():
        print(f"MISSED batch {batch}, width {width}: {figures['ratio']:.3f}, limit {figures['limit']:.3f} > {GOAL}")
    return not missed


def plot_threads(grids: dict[str, Grid], figure: Any) -> None:
    """Draw the threads chosen, the speed-up and the upper limit as maps, a row for each dtype."""
    panels = figure.subplots(len(grids), 3, squeeze=False)
    for row, (dtype, grid) in zip(panels, grids.items(), strict=True):
        batches, widths = axes_of(grid)
        for axes, (what, form, title) in zip(
            row,
            [
                ("threads", "{:.0f}", f"threads chosen, {dtype}"),
                ("speed-up", "{:.2f}", "speed-up over one thread"),
                ("limit", "{:.2f}", f"time beside one thread, upper limit (goal {GOAL})"),
            ],
            strict=True,
        ):
            values = np.array([[grid[batch, width][what] for width in widths] for batch in batches])
            least, most = (0.5, 1.1) if what == "limit" else (0.8, max(2.0, values.max()))
            axes.imshow(values, cmap="viridis", origin="lower", aspect="auto", vmin=least, vmax=most)
            for y, x in np.ndindex(values.shape):
                bright = values[y, x] > least + 0.6 * (most - least)
                missed = what == "limit" and values[y, x] > GOAL
                axes.text(
                    x, y, form.format(values[y, x]), ha="center", va="center", fontsize=7,
                    color="black" if bright else "white", weight="bold" if missed else "normal",
                    bbox={"edgecolor": "red", "facecolor": "none", "pad": 1} if missed else None,
                )  # fmt: skip
            axes.set_xticks(range(len(widths)), widths, rotation=90, fontsize=8)
            axes.set_yticks(range(len(batches)), batches, fontsize=8)
            axes.set_xlabel("width")
            axes.set_title(title, fontsize=9)
        row[0].set_ylabel("batch")


# Asked


def asked(works: list[str], dtype: str, rounds: int) -> list[Claim]:
    """Return the claims about predict, loss and gradients beside training on the same rows, and about one sample."""
    claims = []
    for name in works:
        work = replace(WORKS[name], n=ROWS_ASKED)
        X, y = work.samples(dtype=dtype)
        network, anatomy = work.network(dtype), Anatomy(work, dtype)
        anatomy.measure()
        calls = {
            "training": partial(anatomy.fit.run, EPOCHS_BESIDE),
            "forward": anatomy.time_forward,
            "predict": partial(network.predict, X),
            "loss": partial(network.loss, X, y),
            "gradients": partial(network.gradients, X, y),
        }
        best = best_seconds(calls, rounds)
        training = best["training"] / EPOCHS_BESIDE
        forward = anatomy.forward_seconds() / anatomy.work.batch_size * work.n
        for what in "predict", "loss", "gradients":
            beside, of_training = ("its forward pass", forward) if what == "predict" else ("training", training)
            claim = f"{name}: {what} of {work.n} rows beside {beside} ({anatomy.n_threads} threads)"
            remark = f"{1e3 * best[what]:.2f} ms"
            if what == "loss":
                remark += f", {best[what] / forward:.2f} of the forward pass"
            claims.append(Claim(claim, best[what] / of_training, GOAL, "x", remark))
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
ROUNDS = {"rates": 5, "threads": 21, "asked": 7}
QUICK_ROUNDS = {"rates": 1, "threads": 7, "asked": 1}
QUICK = [1, 128], [8, 64, 256]
DTYPES = {"rates": ["float32", "float64"], "threads": ["float32"], "asked": ["float32"]}
GRIDS = {"rates": (rates, print_rates, RATES), "threads": (threads, print_threads, THREADS)}
PLOTS = {"rates": plot_rates, "threads": plot_threads}


def show_asked(dtype: str, rounds: int, quick: bool) -> tuple[bool, dict[str, float]]:
    """Measure and print the claims; return whether all are kept, and the figures."""
    names = ["784-30-10"] if quick else [name for name in WORKS if name.startswith("784")]
    claims = asked(names, dtype, rounds)
    for claim in claims:
        verdict = "" if claim.kept else "  MISSED"
        print(f"{claim.claim:70} {claim.measured:7.2f} {claim.goal:5.2f} {claim.remark}{verdict}")
    return all(claim.kept for claim in claims), {claim.claim: claim.measured for claim in claims}


def plot(what: str, grids: dict[str, Grid], path: Path) -> None:
    """Draw rates or threads to a file."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": what}):
        figure = Figure(figsize=(11, 4.5 * (len(grids) if what == "threads" else 1)), layout="constrained")
        PLOTS[what](grids, figure)
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> int:
    """Measure one of the three, print and draw it; return 3 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rates", "threads", "asked"])
    parser.add_argument("--quick", action="store_true", help="few cells and rounds: only to see that it works")
    parser.add_argument("--rounds", type=int, help="turns of each cell (rates 5, threads 21, asked 7)")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "float64"], help="(rates both, else float32)")
    parser.add_argument("--folder", type=Path, help="write picture and JSON there (asv_benchmarks/figures)")
    options = parser.parse_args()
    what = options.what
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)[what]
    folder = options.folder or (None if options.quick else FIGURES)
    if folder and what in PLOTS and find_spec("matplotlib") is None:
        parser.error("the picture needs matplotlib: pip install '.[plot]'")
    grids: dict[str, Grid] = {}
    figures: dict[str, Any] = {}
    met = True
    for dtype in options.dtype or DTYPES[what]:
        print(f"{what}, {dtype}", flush=True)
        if what == "asked":
            kept, figures[dtype] = show_asked(dtype, rounds, options.quick)
        else:
            measure, show, cells = GRIDS[what]
            grids[dtype] = measure(*(QUICK if options.quick else cells), dtype, rounds)
            kept = show(grids[dtype])
            figures[dtype] = [{"batch": batch, "width": width, **cell} for (batch, width), cell in grids[dtype].items()]
        met &= kept
    print("all goals are met" if met else "MISSED: see above")
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{what}.json").write_text(json.dumps(figures, indent=1))
        if grids:
            plot(what, grids, folder / f"{what}.svg")
        print(f"written to {folder}")
    return 0 if met else 3


if __name__ == "__main__":
    sys.exit(main())
