"""Peers: the time of an epoch beside NumPy, scikit-learn, PyTorch, JAX and Keras, in one run on the same work.

Usage: python asv_benchmarks/peers.py [--only 784-128-10 ...] [--dtype float64] [--profile] [--json FILE]
       python asv_benchmarks/peers.py --from FILE [--markdown] [--chart FILE.svg]

All begin with the same weights, and train the same epochs first: the loss that they reach must be the same
(scikit-learn has no sigmoid outputs with a quadratic loss: there it trains its softmax). Then they take turns; each
counts with its best turn, and a library with the best of its forms: eager or compiled, on all cores or on one, the
parameters in one vector or not. A peer that is not installed is left out: `pip install '.[bench]'` brings all but
PyTorch. For a quiet machine; some 20 minutes. Exits with 3 where a floor is missed.

The share is that of the peak which as many threads as fastbp chose reach in the same run, on 2 x multiply-adds of the
three products. The bound is the ratio that fastbp would have if these, at the peak of all cores, and the hidden
activations, at the rate of its own functions in the nearest cache, took the only time: no implementation that
multiplies matrices gets beyond, unless its activations are faster. Images are mostly zero, and so are the inputs of
the works of 784 inputs: there fastbp leaves multiply-adds out, which both figures count. Those called dense have no
zeros. --markdown and --chart are what stands in the README.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import platform
import sys
import time
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
from anatomy import print_anatomy
from arena import RIVALS, Arena, installed, library_of
from benchmarks.common import WORKS, Work
from peak import Peak, bandwidth
from report import HEADS, Document, draw, lines, markdown

import fastbp

LEAST_SECONDS = 0.25  # a measurement takes at least so long: what a call costs once must not count
EPOCHS = 2  # until the losses are compared
CLOSE = {"float32": 2e-3, "float64": 1e-6}  # relative difference of two losses that are the same
CLOSE_EPSILON = 2e-3  # where one adds epsilon before the bias correction
FLOAT64_FLOOR = 0.75  # of the floors in float32
BEHIND = 2  # times the best form of its library after the first epochs: a form that takes no turns
BEATEN = 1.2  # times the same after two turns: it need not be timed again
HOPELESS = 2  # times the best peer after two turns: likewise
REST = 0.05  # seconds until the threads of the one before have gone to sleep


def measure(arenas: dict[str, Arena], name: str, dtype: str, rounds: int, peak: Peak) -> dict[str, Any]:
    """Return the figures of one work; raises SystemExit where a peer does other work than fastbp."""
    work = WORKS[name]
    qualities: dict[str, float] = {}
    first: dict[str, float] = {}
    for peer, arena in arenas.items():
        if RIVALS[peer].suits(work):
            try:
                qualities[peer], first[peer] = arena.ask("learn", (name, EPOCHS))
            except RuntimeError as error:
                print(f"  left out: {error}", flush=True)
    check(qualities, work, dtype)
    repeats = {peer: lasting(arenas[peer], int(LEAST_SECONDS / first[peer]) + 1) for peer in within(first, BEHIND)}
    best = dict.fromkeys(repeats, float("inf"))
    cores = sorted({1, fastbp.get_num_threads()})
    for turn in range(rounds):
        for peer in list(best) if turn < 2 else contenders(best):
            time.sleep(REST)
            best[peer] = min(best[peer], arenas[peer].ask("seconds", repeats[peer]) / repeats[peer])
        peaks = {n: peak.measure(dtype, n) for n in cores}
        rate = peak.activations(work.hidden, dtype, cores[-1])
    threads = arenas["fastbp"].ask("threads", None)
    others = {peer: seconds for peer, seconds in best.items() if peer != "fastbp"}
    rival = min(others, key=others.__getitem__) if others else ""
    theirs = others[rival] if others else float("nan")
    return {
        "seconds": best,
        "quality": qualities,
        "best peer": rival,
        "ratio": theirs / best["fastbp"],
        "floor": work.floor * (1 if dtype == "float32" else FLOAT64_FLOOR),
        "bound": theirs / (work.flops / peaks[cores[-1]] + work.hidden_values / rate),
        "threads": threads,
        "flops": work.flops / best["fastbp"],
        "peak": peaks[threads],
        "share": work.flops / best["fastbp"] / peaks[threads],
    }


def lasting(arena: Arena, epochs: int) -> int:
    """Return how many epochs of one call take LEAST_SECONDS, beginning with a guess."""
    while epochs > 1:
        arena.ask("seconds", epochs)  # what is compiled for so many
        seconds = arena.ask("seconds", epochs)
        if seconds >= LEAST_SECONDS:
            break
        epochs = math.ceil(1.1 * epochs * LEAST_SECONDS / seconds)
    return epochs


def within(seconds: dict[str, float], times: float) -> list[str]:
    """Return the forms that take at most so many times what the best of their library takes."""
    return [
        form
        for form, own in seconds.items()
        if own <= times * min(other for name, other in seconds.items() if library_of(name) == library_of(form))
    ]


def contenders(best: dict[str, float]) -> list[str]:
    """Return fastbp, and the forms that may still turn out to be the best peer."""
    leader = min((seconds for peer, seconds in best.items() if peer != "fastbp"), default=0.0)
    return [peer for peer in within(best, BEATEN) if peer == "fastbp" or best[peer] <= HOPELESS * leader]


def check(qualities: dict[str, float], work: Work, dtype: str) -> None:
    """Raise SystemExit where the losses are not the same."""
    for peer, quality in qualities.items():
        comparable = peer != "sklearn" or work.loss != "quadratic"
        differs = work.update == "adam" and not RIVALS[peer].adam_of_the_paper
        close = max(CLOSE[dtype], CLOSE_EPSILON if differs else 0)
        if comparable and not np.isclose(quality, qualities["fastbp"], rtol=close):
            raise SystemExit(f"{peer} does other work than fastbp: loss {quality} instead of {qualities['fastbp']}")


def versions() -> str:
    """Return those of what is compared."""
    names = ["numba", "numpy", "scikit-learn", "torch", "jax", "optax", "keras"]
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([f"Python {platform.python_version()}", f"fastbp {fastbp.__version__}", *found])


def machine() -> str:
    """Return the name of the processor, as far as it is known, and LLVM's name of its kind."""
    cpuinfo, name = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name} ({llvmlite.binding.get_host_cpu_name()})"


def measured(options: argparse.Namespace) -> Document:
    """Measure, print and return the figures of all works that are asked for."""
    cores = fastbp.get_num_threads()
    document: Document = {
        "machine": machine(), "cores": cores, "dtype": options.dtype, "rounds": options.rounds, "versions": versions(),
        "copying": bandwidth(cores), "works": {},
    }  # fmt: skip
    print(f"{document['machine']}, {cores} cores, {options.dtype}, the best of {options.rounds} turns; {versions()}")
    print(f"copying in memory: {document['copying'] / 1e9:.1f} GB/s")
    with ExitStack() as stack:
        names = [name for name in installed() if library_of(name) in ("fastbp", *options.peers)]
        arenas = {name: stack.enter_context(closing(Arena(name, options.dtype))) for name in names}
        peak = Peak()
        for name in options.only:
            print(f"{name:29} {HEADS}", flush=True)
            document["works"][name] = measure(arenas, name, options.dtype, options.rounds, peak)
            print("\n".join(lines(document["works"][name])), flush=True)
    return document


def main() -> int:
    """Measure and print a table; return 3 where a floor was missed."""
    libraries = list(dict.fromkeys(library_of(name) for name in RIVALS if name != "fastbp"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK", help=", ".join(WORKS))
    parser.add_argument("--peers", nargs="+", choices=libraries, default=libraries, metavar="PEER", help="those named")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--dtype", choices=CLOSE, default="float32")
    parser.add_argument("--profile", action="store_true", help="print where a mini-batch's time goes, and no table")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--from", type=Path, dest="source", help="measure nothing: take the figures from this file")
    parser.add_argument("--markdown", action="store_true", help="print the README's table")
    parser.add_argument("--chart", type=Path, help="draw the README's chart to this file; needs matplotlib")
    options = parser.parse_args()
    if options.chart and find_spec("matplotlib") is None:
        parser.error("the chart needs matplotlib: pip install '.[plot]'")
    if options.profile:
        for name in options.only:
            print_anatomy(name, options.dtype)
        return 0
    document = json.loads(options.source.read_text()) if options.source else measured(options)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1))
    if options.markdown:
        print(markdown(document))
    if options.chart:
        draw(document, options.chart)
    return 3 if any(row["ratio"] < row["floor"] for row in document["works"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
