"""Works: the networks, their samples and their two implementations, `fastbp` and `numpy`, that all benchmarks share.

FASTBP_BENCHMARKS=full in the environment runs every benchmark over all its parameters and until its time is sure; the
default, `fast`, runs over few of them, once.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp.engine.run
from fastbp import SGD, Adam, Network
from fastbp.engine.team import Task
from fastbp.reference import matrix, minibatches, one_hot, train

Array = NDArray[Any]
FULL = os.environ.get("FASTBP_BENCHMARKS", "fast") == "full"
IMPLEMENTATIONS = ("fastbp", "numpy")


def fast_or_full(fast: Sequence[Any], full: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values of a parameter in this profile."""
    return tuple(full if FULL else fast)


@dataclass(frozen=True)
class Work:
    """A network, the shape of its samples and how it is trained.

    `floor` is how many times as fast as the best other library fastbp shall be in float32; 0 where nothing is promised.
    `zeros` is whether most inputs are zero where there are labels, as in images (70 %; MNIST 81 %), or 0.001 instead.
    """

    sizes: tuple[int, ...]
    hidden: str
    output: str
    loss: str
    update: str
    hyper: Mapping[str, float]
    batch_size: int
    n: int
    floor: float = 0.0
    zeros: bool = True

    def network(self, dtype: str = "float32") -> Network:
        """Return the network as it starts; the same weights at each call."""
        return Network(
            list(self.sizes), hidden=self.hidden, output=self.output, loss=self.loss, init="glorot_uniform",
            dtype=dtype, seed=0,
        )  # fmt: skip

    def optimizer(self) -> SGD | Adam:
        """Return what fastbp takes for `update` and `hyper`."""
        if self.update == "adam":
            return Adam(**self.hyper)
        return SGD(**self.hyper, nesterov=self.update == "nesterov")

    @property
    def activations(self) -> tuple[str, ...]:
        """One activation a weight layer."""
        return (self.hidden,) * (len(self.sizes) - 2) + (self.output,)

    @property
    def classifies(self) -> bool:
        """Whether the targets are labels."""
        return self.sizes[-1] > 1 and self.output in ("sigmoid", "softmax")

    @property
    def flops(self) -> int:
        """2 x multiply-adds of the three products of an epoch: z, delta (not of the inputs) and gradient."""
        products = [n_in * n_out for n_in, n_out in pairwise(self.sizes)]
        return 2 * self.n * (3 * sum(products) - products[0])

    @property
    def hidden_values(self) -> int:
        """Values of hidden activations that an epoch computes."""
        return self.n * sum(self.sizes[1:-1])

    def samples(self, n: int | None = None, dtype: str = "float32") -> tuple[Array, Array]:
        """Return n inputs, and labels or targets, that can be learned; the same at each call."""
        n = self.n if n is None else n
        return _samples(self.sizes[0], self.sizes[-1], self.classifies, self.zeros, n, dtype)

    def targets(self, y: Array, dtype: str = "float32") -> Array:
        """Return labels or targets as a matrix."""
        return one_hot(y, self.sizes[-1], dtype) if y.ndim == 1 else y


@functools.lru_cache(maxsize=4)
def _samples(n_in: int, n_out: int, labels: bool, zeros: bool, n: int, dtype: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    if labels:  # noisy copies of one pattern a class
        patterns = rng.random((n_out, n_in), dtype=np.float32) * (rng.random((n_out, n_in)) < 0.3)
        y = rng.integers(n_out, size=n)
        X = patterns[y] * rng.random((n, n_in), dtype=np.float32)
        if not zeros:
            np.maximum(X, np.float32(1e-3), out=X)
        return X.astype(dtype, copy=False), y
    X = rng.standard_normal((n, n_in), dtype=np.float32)
    y = np.tanh(X @ rng.standard_normal((n_in, n_out), dtype=np.float32) / np.float32(np.sqrt(n_in)))
    return X.astype(dtype, copy=False), (0.9 * (y + 1) / 2).astype(dtype, copy=False)  # 0 to 1: for every output


ADAM = {"learning_rate": 1e-4}
WORKS = {
    "784-30-10": Work(
        (784, 30, 10), "sigmoid", "sigmoid", "quadratic", "sgd", {"learning_rate": 0.5}, 10, 50_000, floor=3
    ),
    "784-128-10": Work((784, 128, 10), "relu", "softmax", "cross_entropy", "adam", ADAM, 128, 49_920, floor=1.7),
    "784-512-512-10": Work(
        (784, 512, 512, 10), "relu", "softmax", "cross_entropy", "adam", ADAM, 128, 49_920, floor=1.3
    ),
    "100-64-64-1": Work((100, 64, 64, 1), "tanh", "identity", "mse", "adam", ADAM, 200, 20_000, floor=2),
    "10-16-1": Work((10, 16, 1), "tanh", "identity", "mse", "adam", ADAM, 32, 20_000, floor=3),
    "4-32-16-4": Work((4, 32, 16, 4), "tanh", "identity", "mse", "adam", ADAM, 10_000, 10_000, floor=4),
}
# nothing can be left out
WORKS |= {f"{name}-dense": replace(WORKS[name], zeros=False, floor=0) for name in ("784-128-10", "784-512-512-10")}
# what one number at a time is varied of
BASE = Work((256, 128, 10), "relu", "softmax", "cross_entropy", "adam", ADAM, 128, 12_800)


def varied(**changes: Any) -> Work:
    """Return the base work with other numbers."""
    return replace(BASE, **changes)


@contextmanager
def noting_threads() -> Iterator[list[int]]:
    """Note the threads of each team that fastbp starts; where it starts none, the caller has computed alone."""
    noted: list[int] = []
    run_team = fastbp.engine.run.run_team

    def noting(task: Task, n_workers: int, **options: Any) -> Any:
        noted.append(n_workers)
        return run_team(task, n_workers, **options)

    fastbp.engine.run.run_team = noting
    try:
        yield noted
    finally:
        fastbp.engine.run.run_team = run_team


def fit_fastbp(work: Work, X: Array, y: Array, n_threads: int | None = None) -> Callable[[], list[Array]]:
    """Return what trains one epoch and returns the weights."""
    network, optimizer = work.network(X.dtype.name), work.optimizer()

    def epoch() -> list[Array]:
        network.fit(
            X, y, batch_size=work.batch_size, optimizer=optimizer, shuffle=False, verbose=False, n_threads=n_threads
        )
        return list(network.weights)

    return epoch


def fit_numpy(work: Work, X: Array, y: Array, n_threads: int | None = None) -> Callable[[], list[Array]]:
    """Return what trains the same epoch in matrix form; NumPy takes the threads that it wants."""
    network = work.network(X.dtype.name)
    batches = [slice(batch[0], batch[-1] + 1) for batch in minibatches(len(X), work.batch_size)]
    Y = work.targets(y, X.dtype.name)

    def epoch() -> list[Array]:
        weights, _, _ = train(
            network.weights, network.biases, work.activations, work.loss, X, Y, update=work.update, hyper=work.hyper,
            batches=batches,
        )  # fmt: skip
        return weights

    return epoch


def predict_fastbp(work: Work, X: Array) -> Callable[[], Array]:
    """Return what computes the activations of the output layer."""
    network = work.network(X.dtype.name)
    return lambda: network.predict(X)


def predict_numpy(work: Work, X: Array) -> Callable[[], Array]:
    """Return what computes the same in matrix form."""
    network = work.network(X.dtype.name)
    return lambda: matrix.predict(network.weights, network.biases, work.activations, X)


def gradients_fastbp(work: Work, X: Array, y: Array) -> Callable[[], list[Array]]:
    """Return what computes dC/dw of all samples together."""
    network = work.network(X.dtype.name)
    return lambda: network.gradients(X, y)[0]


def gradients_numpy(work: Work, X: Array, y: Array) -> Callable[[], list[Array]]:
    """Return what computes the same in matrix form."""
    network, Y = work.network(X.dtype.name), work.targets(y, X.dtype.name)
    return lambda: matrix.gradients(network.weights, network.biases, work.activations, work.loss, X, Y)[0]


def loss_fastbp(work: Work, X: Array, y: Array) -> Callable[[], float]:
    """Return what computes the loss."""
    network = work.network(X.dtype.name)
    return lambda: network.loss(X, y)


def loss_numpy(work: Work, X: Array, y: Array) -> Callable[[], float]:
    """Return what computes the same in matrix form."""
    network, Y = work.network(X.dtype.name), work.targets(y, X.dtype.name)
    return lambda: matrix.loss(network.weights, network.biases, work.activations, work.loss, X, Y)


FIT = {"fastbp": fit_fastbp, "numpy": fit_numpy}
PREDICT = {"fastbp": predict_fastbp, "numpy": predict_numpy}
GRADIENTS = {"fastbp": gradients_fastbp, "numpy": gradients_numpy}
LOSS = {"fastbp": loss_fastbp, "numpy": loss_numpy}


def assert_ten_steps_equal(work: Work, dtype: str = "float32") -> None:
    """Check that both implementations make the same weights of the same ten mini-batches; it also compiles fastbp.

    They add in different orders. Adam magnifies that rounding where a gradient all but vanishes, so what is compared is
    the way that all weights of a layer went: two float32 runs differ by some 1e-5 of its length, a wrong equation by
    far more than 1e-3. The learning rates are small enough for relu's kinks not to tear two equal runs apart.
    """
    X, y = work.samples(10 * work.batch_size, dtype)
    start = work.network(dtype).weights
    for w, fast, plain in zip(start, fit_fastbp(work, X, y)(), fit_numpy(work, X, y)(), strict=True):
        assert np.linalg.norm(fast - plain) <= 1e-3 * np.linalg.norm(plain - w)


class Timed:
    """What all timings have in common: in the fast profile one sample, in the full one as asv thinks best."""

    timeout = 600
    if not FULL:
        warmup_time = 0.0
        rounds, repeat, number = 1, 3, 1
