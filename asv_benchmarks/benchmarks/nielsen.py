"""Nielsen: `SGD` of fastbp.nielsen.network, and the same call of the book's own code.

Beside asv: `python asv_benchmarks/benchmarks/nielsen.py` prints how many times as fast it is, in one run. The two take
turns, so that whatever else the machine does slows both; each counts with its best turn.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastbp.nielsen import mnist_loader, network

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
from book import network as book

Pairs = list[tuple[Any, Any]]

SIZES, MINI_BATCH_SIZE, ETA = [784, 30, 10], 10, 3.0
MODULES = {"fastbp": network, "book": book}


def training_pairs(n: int) -> Pairs:
    """Return images as mnist_loader gives them: MNIST where FASTBP_DATA is set, otherwise noisy copies of patterns."""
    if "FASTBP_DATA" in os.environ:
        return mnist_loader.load_data_wrapper()[0][:n]
    rng = np.random.default_rng(0)
    patterns = rng.random((10, 784), dtype=np.float32) * (rng.random((10, 784)) < 0.3)
    labels = rng.integers(10, size=n)
    X = patterns[labels] * rng.random((n, 784), dtype=np.float32)
    return [(x.reshape(784, 1), mnist_loader.vectorized_result(label)) for x, label in zip(X, labels, strict=True)]


def start(implementation: str) -> Any:
    """Return a network; the same at each call."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    return MODULES[implementation].Network(SIZES)


def descend(net: Any, training_data: Pairs, epochs: int) -> None:
    """Train as a reader of the book does, without the prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        net.SGD(training_data, epochs, MINI_BATCH_SIZE, ETA)


def assert_equal_epochs(training_data: Pairs) -> None:
    """Check that both learn the same in an epoch; it also compiles fastbp. They add in different orders."""
    nets = [start(implementation) for implementation in MODULES]
    for net in nets:
        random.seed(1)
        descend(net, list(training_data), 1)
    for fast, plain in zip(nets[0].weights, nets[1].weights, strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-8, atol=1e-10)


class Nielsen:
    """Time of `SGD` with one epoch and with five, on lists of 10 000 pairs."""

    params = (tuple(MODULES), (1, 5))
    param_names = ("implementation", "epochs")
    timeout = 600

    def setup(self, implementation: str, epochs: int) -> None:
        self.training_data = training_pairs(10_000)
        assert_equal_epochs(self.training_data[:500])
        self.net = start(implementation)

    def time_sgd(self, implementation: str, epochs: int) -> None:
        descend(self.net, self.training_data, epochs)


def seconds(implementation: str, training_data: Pairs, epochs: int) -> float:
    """Return the time of one call of SGD on a list of its own."""
    net, own = start(implementation), list(training_data)
    before = time.perf_counter()
    descend(net, own, epochs)
    return time.perf_counter() - before


def main() -> None:
    """Print the times of both, and their ratio."""
    parser = argparse.ArgumentParser(description="How many times as fast as the book's code fastbp.nielsen is.")
    parser.add_argument("--rounds", type=int, default=3, help="turns of both; the best counts (default: 3)")
    parser.add_argument("--whole", action="store_true", help="let the book's code run all 30 epochs, too: some minutes")
    arguments = parser.parse_args()
    training_data = training_pairs(50_000)
    assert_equal_epochs(training_data[:500])
    data = "MNIST" if "FASTBP_DATA" in os.environ else "made-up images"
    print(f"SGD on {len(training_data)} pairs ({data}), {SIZES}, mini-batches of {MINI_BATCH_SIZE}, float64")
    book_epochs = 30 if arguments.whole else 1
    best = {("fastbp", 1): np.inf, ("book", book_epochs): np.inf, ("fastbp", 30): np.inf}
    for _ in range(arguments.rounds):
        for implementation, epochs in best:
            taken = seconds(implementation, training_data, epochs)
            best[implementation, epochs] = min(best[implementation, epochs], taken)
    for epochs in 1, 30:
        fast, plain = best["fastbp", epochs], best["book", book_epochs] / book_epochs * epochs
        how = "" if epochs == book_epochs else f" ({epochs} times its epoch)"
        print(f"epochs={epochs}: fastbp {fast:.2f} s, the book's code {plain:.1f} s{how}: {plain / fast:.1f} times")


if __name__ == "__main__":
    main()
