"""Peers: the time of an epoch beside NumPy, scikit-learn, PyTorch, JAX and Keras, in one run on the same work.

Usage: python asv_benchmarks/peers.py [--only 784-128-10 ...] [--dtype float64] [--profile] [--json FILE]

All begin with the same weights, and train the same epochs first: the loss that they reach must be the same
(scikit-learn has no sigmoid outputs with a quadratic loss: there it trains its softmax). Then they take turns; each
counts with its best turn, PyTorch and JAX with the best of their forms. A peer that is not installed is left out:
`pip install '.[bench]'` brings all but PyTorch. For a quiet machine. Exits with 3 where a floor is missed.

The share is that of the peak which as many threads as fastbp chose reach in the same run, on 2 x multiply-adds of the
three products.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from anatomy import print_anatomy
from benchmarks.common import WORKS, Work
from peak import Peak, bandwidth
from rivals import RIVALS, Arena, installed

import fastbp

LEAST_SECONDS = 0.25  # a measurement takes at least so long: what a call costs once must not count
EPOCHS = 3  # until the losses are compared
CLOSE = {"float32": 2e-3, "float64": 1e-6}  # relative difference of two losses that are the same
FLOAT64_FLOOR = 0.75  # of the floors in float32
HOPELESS = 10  # times the best after two turns: it need not be timed again
REST = 0.05  # seconds until the threads of the one before have gone to sleep


def measure(arenas: dict[str, Arena], name: str, dtype: str, rounds: int, peak: Peak) -> dict[str, Any]:
    """Return the figures of one work; raises SystemExit where a peer does other work than fastbp."""
    work = WORKS[name]
    qualities: dict[str, float] = {}
    for peer, arena in arenas.items():
        try:
            qualities[peer] = arena.ask("learn", (name, EPOCHS))
        except RuntimeError as error:
            print(f"  left out: {error}", flush=True)
    check(qualities, work, dtype)
    repeats = {peer: int(LEAST_SECONDS / arenas[peer].ask("seconds", 1)) + 1 for peer in qualities}
    best = dict.fromkeys(qualities, float("inf"))
    cores = sorted({1, fastbp.get_num_threads()})
    for turn in range(rounds):
        for peer in qualities:
            if turn >= 2 and best[peer] > HOPELESS * min(best.values()):
                continue
            time.sleep(REST)
            best[peer] = min(best[peer], arenas[peer].ask("seconds", repeats[peer]) / repeats[peer])
        peaks = {n: peak.measure(dtype, n) for n in cores}
    threads = arenas["fastbp"].ask("threads", None)
    others = {peer: seconds for peer, seconds in best.items() if peer != "fastbp"}
    rival = min(others, key=others.__getitem__) if others else ""
    floor = work.floor * (1 if dtype == "float32" else FLOAT64_FLOOR)
    return {
        "seconds": best,
        "quality": qualities,
        "best peer": rival,
        "ratio": others[rival] / best["fastbp"] if others else float("nan"),
        "floor": floor,
        "threads": threads,
        "flops": work.flops / best["fastbp"],
        "peak": peaks[threads],
        "share": work.flops / best["fastbp"] / peaks[threads],
    }


def check(qualities: dict[str, float], work: Work, dtype: str) -> None:
    """Raise SystemExit where the losses are not the same."""
    for peer, quality in qualities.items():
        comparable = peer != "sklearn" or work.loss != "quadratic"
        if comparable and not np.isclose(quality, qualities["fastbp"], rtol=CLOSE[dtype]):
            raise SystemExit(f"{peer} does other work than fastbp: loss {quality} instead of {qualities['fastbp']}")


def rows(figures: dict[str, Any]) -> Iterator[str]:
    """Yield a line for fastbp, and one for each peer."""
    ours = figures["seconds"]["fastbp"]
    verdict = "" if figures["ratio"] >= figures["floor"] else "  MISSED"
    yield (
        f"  {'fastbp':16} {1e3 * ours:10.2f} {figures['ratio']:7.2f} {figures['floor']:6.2f} "
        f"{100 * figures['share']:5.0f} % {figures['threads']:7} {figures['quality']['fastbp']:12.6g}{verdict}"
    )
    for peer, seconds in sorted(figures["seconds"].items(), key=lambda item: item[1]):
        if peer != "fastbp":
            blank = f"{'':6} {'':7} {'':7}"
            yield f"  {peer:16} {1e3 * seconds:10.2f} {seconds / ours:7.2f} {blank} {figures['quality'][peer]:12.6g}"


def versions() -> str:
    """Return those of what is compared."""
    names = ["numpy", "numba", *sorted({need for kind in RIVALS.values() for need in kind.needs} | {"scikit-learn"})]
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([f"Python {platform.python_version()}", f"fastbp {fastbp.__version__}", *found])


def main() -> int:
    """Measure and print a table; return 3 where a floor was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK", help=", ".join(WORKS))
    parser.add_argument("--peers", nargs="+", choices=RIVALS, default=list(RIVALS), metavar="PEER", help="those named")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=CLOSE, default="float32")
    parser.add_argument("--profile", action="store_true", help="print where a mini-batch's time goes, and no table")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if options.profile:
        for name in options.only:
            print_anatomy(name, options.dtype)
        return 0
    cores = fastbp.get_num_threads()
    print(f"{platform.machine()}, {cores} cores, {options.dtype}, the best of {options.rounds} turns; {versions()}")
    print(f"copying in memory: {bandwidth(cores) / 1e9:.1f} GB/s")
    heads = f"{'ms/epoch':>10} {'ratio':>7} {'floor':>6} {'of peak':>7} {'threads':>7} {'loss':>12}"
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        names = [name for name in installed() if name == "fastbp" or name in options.peers]
        arenas = {name: stack.enter_context(closing(Arena(name, options.dtype))) for name in names}
        peak = Peak()
        for name in options.only:
            print(f"{name:18} {heads}", flush=True)
            results[name] = measure(arenas, name, options.dtype, options.rounds, peak)
            print("\n".join(rows(results[name])), flush=True)
    if options.json:
        about = {"machine": platform.machine(), "cores": cores, "dtype": options.dtype, "versions": versions()}
        options.json.write_text(json.dumps({**about, "works": results}, indent=2))
    return 3 if any(row["ratio"] < row["floor"] for row in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
