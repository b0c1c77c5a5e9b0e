"""Cases: the networks, their data and their two implementations, `fastbp` and `numpy`, that all benchmarks share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbp import SGD, Adam, Network
from fastbp.reference import matrix, minibatches, one_hot, train

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]

OPTIMIZERS = {"sgd": SGD, "adam": Adam}


@dataclass(frozen=True)
class Case:
    """A network and how it is trained."""

    sizes: tuple[int, ...]
    hidden: str
    output: str
    loss: str
    update: str
    hyper: Mapping[str, float]
    batch_size: int

    def network(self) -> Network:
        """Return the network as it starts; the same weights at each call."""
        return Network(list(self.sizes), hidden=self.hidden, output=self.output, loss=self.loss, seed=0)

    @property
    def activations(self) -> tuple[str, ...]:
        """One activation a weight layer."""
        return (self.hidden,) * (len(self.sizes) - 2) + (self.output,)


CASES = {
    "784-30-10 sgd batch 10": Case(
        (784, 30, 10), "sigmoid", "sigmoid", "quadratic", "sgd", {"learning_rate": 0.5}, batch_size=10
    ),
    "784-128-10 adam batch 128": Case(
        (784, 128, 10), "relu", "softmax", "cross_entropy", "adam", {"learning_rate": 1e-4}, batch_size=128
    ),
    "784-512-512-10 adam batch 128": Case(
        (784, 512, 512, 10), "relu", "softmax", "cross_entropy", "adam", {"learning_rate": 1e-4}, batch_size=128
    ),
}


@functools.cache
def samples(n: int) -> Samples:
    """Return n images of the shape of MNIST, noisy copies of ten patterns, and their labels; the same at each call."""
    rng = np.random.default_rng(0)
    patterns = rng.random((10, 784), dtype=np.float32) * (rng.random((10, 784)) < 0.3)
    labels = rng.integers(10, size=n)
    return patterns[labels] * rng.random((n, 784), dtype=np.float32), labels


def fit_fastbp(
    case: Case, X: NDArray[np.float32], labels: NDArray[np.int64]
) -> Callable[[], list[NDArray[np.float32]]]:
    """Return what trains one epoch and returns the weights."""
    network = case.network()
    optimizer = OPTIMIZERS[case.update](**case.hyper)

    def epoch() -> list[NDArray[np.float32]]:
        network.fit(X, labels, epochs=1, batch_size=case.batch_size, optimizer=optimizer, shuffle=False, verbose=False)
        return list(network.weights)

    return epoch


def fit_numpy(case: Case, X: NDArray[np.float32], labels: NDArray[np.int64]) -> Callable[[], list[NDArray[np.float32]]]:
    """Return what trains the same epoch in matrix form, in float32 too."""
    network = case.network()
    batches = [slice(batch[0], batch[-1] + 1) for batch in minibatches(len(X), case.batch_size)]
    Y = one_hot(labels, case.sizes[-1], np.float32)

    def epoch() -> list[NDArray[np.float32]]:
        weights, _, _ = train(
            network.weights,
            network.biases,
            case.activations,
            case.loss,
            X,
            Y,
            update=case.update,
            hyper=case.hyper,
            batches=batches,
        )
        return weights

    return epoch


def predict_fastbp(case: Case, X: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    """Return what computes the activations of the output layer."""
    network = case.network()
    return lambda: network.predict(X)


def predict_numpy(case: Case, X: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    """Return what computes the same in matrix form, in float32 too."""
    network = case.network()
    return lambda: matrix.predict(network.weights, network.biases, case.activations, X)


FIT = {"fastbp": fit_fastbp, "numpy": fit_numpy}
PREDICT = {"fastbp": predict_fastbp, "numpy": predict_numpy}


def assert_ten_steps_equal(case: Case) -> None:
    """Check that both implementations make the same weights of the same ten mini-batches; it also compiles fastbp.

    They add in different orders. Adam magnifies that rounding where a gradient all but vanishes, so what is compared is
    the way that all weights of a layer went: two float32 runs differ by some 1e-5 of its length, a wrong equation by
    far more than 1e-3. The learning rates are small enough for relu's kinks not to tear two equal runs apart.
    """
    X, labels = samples(10 * case.batch_size)
    start = case.network().weights
    for w, fast, plain in zip(start, fit_fastbp(case, X, labels)(), fit_numpy(case, X, labels)(), strict=True):
        assert np.linalg.norm(fast - plain) <= 1e-3 * np.linalg.norm(plain - w)
