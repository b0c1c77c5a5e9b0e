"""Dependable: what the promises cost in time, each measured beside its goal.

Usage: python asv_benchmarks/dependable.py [--only WORD ...] [--json FILE]

For a quiet machine: a share of a busy one is not fair. Exits with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


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
