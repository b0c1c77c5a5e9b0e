"""Estimators: the times and the memory of fastbp.sklearn beside scikit-learn's, in one run on the same work.

Usage: python asv_benchmarks/estimators.py [--only 10-16-1 ...] [--dtype float32 float64] [--rounds 5] [--json FILE]

Settings and the check that both do the same are those of the asv benchmarks. Rounds are interleaved, at least so many
as asked for and for some seconds; the best counts.
The floor is how many times as fast fastbp shall be at the least; of memory, that it shall take no more. Each figure of
memory is of a process of its own, which has fitted once before. Exits with 1 when a floor is not kept. BLAS may use all
cores; between two turns is a pause, as its threads spin a while after a product, in the way of whoever is next.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.estimators import (
    DTYPES,
    FITS,
    IMPLEMENTATIONS,
    PREDICT_FLOOR,
    PREDICTIONS,
    REMEMBERED,
    ROWS,
    assert_equal_fits,
    assert_equal_predictions,
    fitting,
    predicting,
    rise_of_memory,
)
from threadpoolctl import threadpool_info

import fastbp

LEAST_SECONDS = 0.05  # a measurement takes at least so long
PAUSE = 0.1  # seconds before each
# Turns go on for the fewest seconds, and end after the most, unless there were so few of them
FEWEST_SECONDS, MOST_SECONDS, FEWEST_TURNS = 3, 10, 3
# glibc keeps what is freed, so that a second fit would seem to take nothing: with these it gives blocks back
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
UNSEEN = 1.0  # megabytes that say nothing: the stacks of threads, pages that the allocator happened to give back


def best_times(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the best seconds of each call; they take turns."""
    repeats, best = {}, dict.fromkeys(calls, float("inf"))
    for name, call in calls.items():
        repeats[name] = max(1, round(LEAST_SECONDS / min(seconds_of(call, 1) for _ in range(2))))
    begun, turns = time.perf_counter(), 0
    while turns < rounds or time.perf_counter() - begun < FEWEST_SECONDS:
        if turns >= FEWEST_TURNS and time.perf_counter() - begun > MOST_SECONDS:
            break
        for name, call in calls.items():
            pause()
            seconds_of(call, repeats[name])  # a core that has slept is slow for some milliseconds
            best[name] = min(best[name], seconds_of(call, repeats[name]))
        turns += 1
    return best


def seconds_of(call: Callable[[], Any], n: int) -> float:
    """Return the mean seconds of n calls."""
    start = time.perf_counter()
    for _ in range(n):
        call()
    return (time.perf_counter() - start) / n


def pause() -> None:
    """Let the threads of BLAS fall asleep, but not the core that waits for it."""
    end = time.perf_counter() + PAUSE
    while time.perf_counter() < end:
        pass


def timed(only: list[str], dtypes: list[str], rounds: int) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Yield what is timed, its floor, and the seconds of both."""
    for name, setting in FITS.items():
        for dtype in dtypes if chosen(name, only) else []:
            assert_equal_fits(setting, dtype)
            calls = {each: fitting(setting, each, dtype) for each in IMPLEMENTATIONS}
            yield f"fit, {name}, {dtype}", setting.floor, best_times(calls, rounds)
            for method in PREDICTIONS.get(name, ()):
                for rows, floor in [*((rows, PREDICT_FLOOR) for rows in ROWS), (1, 0)]:
                    asked = {each: predicting(setting, each, dtype, method, rows) for each in IMPLEMENTATIONS}
                    assert_equal_predictions(asked["fastbp"](), asked["sklearn"]())
                    yield f"{method} of {rows}, {name}, {dtype}", floor, best_times(asked, rounds)


def memory(name: str, dtype: str) -> dict[str, float]:
    """Return the megabytes by which a second fit lets a process grow."""
    rises = {}
    for implementation in IMPLEMENTATIONS:
        command = [sys.executable, __file__, "--rise", implementation, name, dtype]
        environment = os.environ | GIVING_BACK
        output = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=900, env=environment
        ).stdout
        rises[implementation] = int(output) / 1e6
    return rises


def chosen(name: str, only: list[str]) -> bool:
    """Whether a setting is asked for."""
    return not only or any(part in name for part in only)


def verdict_of(wanted: float, kept: bool) -> str:
    """Return the last column of a line."""
    return "" if not wanted else "  OK" if kept else "  MISSED"


def main() -> int:
    """Measure and print a table; return how many floors were not kept, as an exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", default=[], help="settings whose names contain one of these")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--rise", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rise:
        implementation, name, dtype = options.rise
        fit = fitting(REMEMBERED[name], implementation, dtype)
        fit()
        print(rise_of_memory(fit))
        return 0
    blas = max((each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"), default=1)
    print(
        f"{platform.machine()}; threads: fastbp {fastbp.get_num_threads()}, BLAS {blas}; "
        f"seconds, the best of {options.rounds} turns or more"
    )
    print(f"{'':62} {'fastbp':>10} {'sklearn':>10} {'times':>6} {'floor':>6}")
    results: dict[str, dict[str, float]] = {}
    missed = 0
    for name, floor, best in timed(options.only, options.dtype, options.rounds):
        ratio = best["sklearn"] / best["fastbp"]
        missed += ratio < floor
        results[name] = {**best, "ratio": ratio, "floor": floor}
        verdict = verdict_of(floor, ratio >= floor)
        shown = floor or ""
        print(f"{name:62} {best['fastbp']:10.5f} {best['sklearn']:10.5f} {ratio:6.1f} {shown:>6}{verdict}", flush=True)
    print("\nMB by which a second fit lets the process grow")
    for name in REMEMBERED:
        for dtype in options.dtype if chosen(name, options.only) else []:
            rises = memory(name, dtype)
            kept = rises["fastbp"] <= rises["sklearn"] + UNSEEN
            missed += not kept
            results[f"memory, {name}, {dtype}"] = rises
            verdict = verdict_of(True, kept)
            print(f"{name + ', ' + dtype:62} {rises['fastbp']:10.2f} {rises['sklearn']:10.2f}{verdict}", flush=True)
    print(f"\n{missed} of the floors missed")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
