"""Demo: networks that learn handwritten digits, beside the NumPy reference on the same work.

Every figure it prints is measured in that run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import __version__, plotting, reference
from fastbp.datasets import load_digits, load_mnist, train_test_split
from fastbp.engine.cores import get_num_threads
from fastbp.history import History
from fastbp.network import Network
from fastbp.optimizers import SGD, Adam, Optimizer

__all__ = ["CASES", "Case", "Samples", "load", "run"]

COMPARED = 10  # mini-batches
ROUNDS = 5
TIMED = 200  # mini-batches of the slow form, at most
FORMS = {"NumPy, matrix form": "matrix", "NumPy, sample by sample": "component"}
LABEL, CELL = 24, 12  # columns of the tables

Arrays = list[NDArray[Any]]

say = partial(print, flush=True)


@dataclass(frozen=True, eq=False)
class Samples:
    """Images and labels to learn from, and others to be tested on."""

    name: str
    X_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """A network and how it is trained."""

    sizes: tuple[int, ...]
    hidden: str
    output: str
    loss: str
    init: str
    optimizer: Optimizer
    batch_size: int

    def __str__(self) -> str:
        return str(list(self.sizes))

    def describe(self) -> str:
        """Return the training in a few words."""
        functions = self.hidden if self.hidden == self.output else f"{self.hidden} and {self.output}"
        rule = f"{type(self.optimizer).__name__} with eta {self.optimizer.learning_rate:g}"
        return f"{functions}, {self.loss} cost, {rule}, mini-batches of {self.batch_size}"

    def network(self, seed: int, dtype: str = "float32") -> Network:
        """Return the network as it starts, the same at each call; in float64 it starts with the same weights."""
        functions: dict[str, Any] = {"hidden": self.hidden, "output": self.output, "loss": self.loss}
        network = Network(self.sizes, **functions, init=self.init, seed=seed)
        if network.dtype == dtype:
            return network
        start = list(zip(network.weights, network.biases, strict=True))
        return Network(self.sizes, **functions, init=start, dtype=dtype)

    def epoch(self, network: Network, X: NDArray[Any], y: NDArray[np.int64], n_threads: int | None) -> Arrays:
        """Train a network on all mini-batches in order; return its weights and biases."""
        network.fit(
            X, y, batch_size=self.batch_size, optimizer=self.optimizer, shuffle=False, verbose=False,
            n_threads=n_threads,
        )  # fmt: skip
        return [*network.weights, *network.biases]

    def reference_epoch(self, form: str, start: Network, X: NDArray[Any], Y: NDArray[Any]) -> Arrays:
        """Do the same with a form of the reference, from where a network stands and in its dtype; Y is one-hot."""
        update = self.optimizer.update
        weights, biases, _ = reference.train(
            start.weights, start.biases, start.architecture.activations, self.loss, X, Y,
            update=update, hyper={name: getattr(self.optimizer, name) for name in reference.UPDATES[update].hyper},
            batches=[slice(i, i + self.batch_size) for i in range(0, len(X), self.batch_size)], form=form,
        )  # fmt: skip
        return [*weights, *(b for b in biases if b is not None)]


def _book(n_in: int) -> Case:
    """Return the network of Nielsen's first chapter."""
    return Case((n_in, 30, 10), "sigmoid", "sigmoid", "quadratic", "scaled_gaussian", SGD(learning_rate=3.0), 10)


CASES: dict[str, tuple[Case, ...]] = {
    "digits": (
        _book(64),
        Case((64, 64, 32, 10), "relu", "softmax", "cross_entropy", "he_normal", Adam(learning_rate=1e-3), 32),
    ),
    "mnist": (_book(784),),
}


def load(name: str, seed: int = 0) -> Samples:
    """Load the samples of a demo.

    Parameters
    ----------
    name : "digits" or "mnist"
        The shipped digits, a fifth of them held out, or MNIST with its own test set.
    seed : int, default 0
        Which digits are held out.

    Returns
    -------
    Samples

    Raises
    ------
    FileNotFoundError, ValueError
        MNIST's files are not there, or are damaged.

    Examples
    --------
    >>> from fastbp.demo import load
    >>> len(load("digits").X_test)
    359
    """
    if name == "mnist":
        X_train, y_train, X_test, y_test = load_mnist()
    else:
        X_train, X_test, y_train, y_test = train_test_split(*load_digits(), seed=seed)
    return Samples(name, X_train, y_train, X_test, y_test)


def run(
    samples: Samples, *, epochs: int = 30, seed: int = 0, output: Path | None = None, n_threads: int | None = None
) -> None:
    """Print how exactly, how well and how fast the demo's networks learn.

    Parameters
    ----------
    samples : Samples
        What `load` returned.
    epochs : int, default 30
        Passes over the training set.
    seed : int, default 0
        For the start and the order of samples.
    output : Path, optional
        Folder for the pictures, made if need be; without it there are none.
    n_threads : int, optional
        Threads that compute; None takes as many as the work repays.

    Raises
    ------
    OSError
        The folder or a picture cannot be written.
    """
    cases = CASES[samples.name]
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)  # before the work: it may fail
    say(f"fastbp {__version__}, threads: {n_threads or f'up to {get_num_threads()}'}")
    say(f"{samples.name}: {len(samples.X_train)} images to learn from, {len(samples.X_test)} held out to test with")
    _compare(cases, samples, seed, n_threads)
    trained = {case: _learn(case, samples, epochs, seed, n_threads) for case in cases}
    _race(cases, samples, seed, n_threads)
    if output is not None:
        _draw(trained, samples, output)


def _compare(cases: tuple[Case, ...], samples: Samples, seed: int, n_threads: int | None) -> None:
    """Print how far fastbp is from the reference after the same mini-batches."""
    say(f"\nLargest difference of any weight or bias from the NumPy reference in float64 after the same {COMPARED}")
    say("mini-batches from the same start")
    say(f"{'':{LABEL}}{'float64':>{CELL}}{'float32':>{CELL}}")
    for case in cases:
        n = COMPARED * case.batch_size
        X, y = samples.X_train[:n], samples.y_train[:n]
        start, Y = case.network(seed, "float64"), reference.one_hot(y, case.sizes[-1])
        expected = [case.reference_epoch(form, start, X, Y) for form in FORMS.values()]
        line = f"{case!s:{LABEL}}"
        for dtype in "float64", "float32":
            reached = case.epoch(case.network(seed, dtype), X, y, n_threads)
            pairs = [pair for arrays in expected for pair in zip(reached, arrays, strict=True)]
            line += f"{max(abs(ours - theirs).max() for ours, theirs in pairs):{CELL}.1e}"
        say(line)


def _learn(case: Case, samples: Samples, epochs: int, seed: int, n_threads: int | None) -> tuple[Network, History]:
    """Train a network; print how well it does on the test set."""
    say(f"\n{case}: {case.describe()}")
    network = case.network(seed)
    history = network.fit(
        samples.X_train, samples.y_train, epochs=epochs, batch_size=case.batch_size, optimizer=case.optimizer,
        validation_data=(samples.X_test, samples.y_test), n_threads=n_threads,
    )  # fmt: skip
    predicted = network.predict_classes(samples.X_test, n_threads=n_threads)
    right, n = int((predicted == samples.y_test).sum()), len(predicted)
    count = f"{epochs} epoch{'' if epochs == 1 else 's'}"
    say(f"test accuracy {right / n:.1%} ({right} of {n}) after {count}, trained in {sum(history.seconds):.2f} s")
    say(_confusion(samples.y_test, predicted, case.sizes[-1]))
    return network, history


def _confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], n: int) -> str:
    """Return a table of the samples of each class by what they were taken for."""
    counts = np.zeros((n, n), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    width = len(str(counts.max())) + 2
    lines = [f"{'taken for':10}" + "".join(f"{j:{width}}" for j in range(n))]
    lines += [f"digit {i}".ljust(10) + "".join(f"{count or '.':>{width}}" for count in counts[i]) for i in range(n)]
    return "\n".join(lines)


def _race(cases: tuple[Case, ...], samples: Samples, seed: int, n_threads: int | None) -> None:
    """Print how long fastbp and the reference take for an epoch."""
    say(f"\nTime of an epoch in float32: the same mini-batches from the same start, the best of {ROUNDS} rounds")
    say(f"{'':{LABEL}}" + "".join(f"{case!s:>{2 * CELL}}" for case in cases))
    times = [_times(case, samples, seed, n_threads) for case in cases]
    for name in times[0]:
        line = f"{name:{LABEL}}"
        for seconds in times:
            ratio = "" if name == "fastbp" else f"{seconds[name] / seconds['fastbp']:.1f} x"
            line += f"{1e3 * seconds[name]:{CELL}.2f} ms{ratio:>{CELL - 3}}"
        say(line.rstrip())
    say("(fastbp: one call of fit, with all its checks; NumPy: fastbp.reference; the book works sample by sample)")
    for case in cases:
        n_minibatches = -(-len(samples.X_train) // case.batch_size)
        if n_minibatches > TIMED:
            say(f"({case} sample by sample was timed on {TIMED} of {n_minibatches} mini-batches, and scaled)")


def _times(case: Case, samples: Samples, seed: int, n_threads: int | None) -> dict[str, float]:
    """Return the seconds that an epoch takes, the best of some rounds in which all have their turn."""
    X, y, start = samples.X_train, samples.y_train, case.network(seed)
    Y = reference.one_hot(y, case.sizes[-1], X.dtype)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        network = case.network(seed)
        for name in "fastbp", *FORMS:
            form = FORMS.get(name)
            n = min(len(X), TIMED * case.batch_size) if form == "component" else len(X)
            began = time.perf_counter()
            if form is None:
                case.epoch(network, X, y, n_threads)
            else:
                case.reference_epoch(form, start, X[:n], Y[:n])
            seconds = (time.perf_counter() - began) * len(X) / n
            best[name] = min(best.get(name, seconds), seconds)
    return best


def _draw(trained: dict[Case, tuple[Network, History]], samples: Samples, output: Path) -> None:
    """Write the pictures of each network, or say what is missing."""
    say()
    for case, (network, history) in trained.items():
        try:
            figures = {
                "learning-curve": plotting.learning_curve(history),
                "first-layer-weights": plotting.first_layer_weights(network),
            }
        except ImportError as error:
            say(f"No pictures: {error}")
            return
        for what, figure in figures.items():
            path = output / f"{samples.name}-{'-'.join(map(str, case.sizes))}-{what}.png"
            figure.savefig(path, dpi=150)
            say(f"wrote {path}")
