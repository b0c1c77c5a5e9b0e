"""Descent: the epochs of one call of SGD, each by the engine where that computes what the book's code would.

Every epoch starts from the network's lists as they are and leaves new arrays in them, so that whatever users change
between epochs counts. Where users' code may have run in between, the pairs are read anew too.

It is a loop of its own beside `fastbp.training.train`, as it goes on where that one stops: the book has no notion of a
loss that is not finite. An interrupt raises KeyboardInterrupt with the weights of the last complete mini-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.architecture import Architecture
from fastbp.engine.evaluation import evaluator_of
from fastbp.engine.run import Run, divisors, scales
from fastbp.kernels.layers import ETA, PENALTY, SCALE, STEP_COLUMNS
from fastbp.nielsen.perceptron import Perceptron
from fastbp.nielsen.samples import SHUFFLES, Samples, Shuffle
from fastbp.training import CHUNK_MINIBATCHES, CHUNK_WORK

__all__ = ["Rule", "checked_shuffle", "descend", "outputs"]

Floats = NDArray[Any]

# Samples that NumPy sends through a network one by one in less time than the engine takes to start
FEW = 16


@dataclass(frozen=True)
class Rule:
    """What a mini-batch does to the parameters: w -= eta (mean gradient of the loss + penalty w), b likewise without.

    Attributes
    ----------
    loss : str
    eta, penalty : float
    """

    loss: str
    eta: float
    penalty: float = 0.0


def checked_shuffle(shuffle: Shuffle) -> Shuffle:
    """Return the name of a shuffle that a user gave. Raises ValueError."""
    if shuffle not in SHUFFLES:
        raise ValueError(f"shuffle is {shuffle!r}, but must be one of {', '.join(map(repr, SHUFFLES))}")
    return shuffle


def descend(
    network: Perceptron,
    training: Samples,
    epochs: int,
    mini_batch_size: int,
    *,
    random: Any,
    shuffle: Shuffle,
    rule: Callable[[], Rule | None],
    step: Callable[[list[Any]], None],
    look: Callable[[int], bool],
    measures: Sequence[Samples],
    is_own: Callable[[], bool],
) -> None:
    """Carry out the epochs of SGD.

    Parameters
    ----------
    network : Perceptron
        Its `weights` and `biases` are bound to new arrays at each epoch.
    training : Samples
    epochs, mini_batch_size : int
    random : module or random.Random
        Shuffles the training samples.
    shuffle : "python3" or "python2"
    rule : callable
        Returns what the engine shall do in this epoch; None where only the network's own methods can.
    step : callable
        Takes a mini-batch, a list of (x, y), and updates the network by its own methods.
    look : callable
        Takes the number of an epoch that has ended, prints, measures; returns True to stop.
    measures : sequence of Samples
        What `look` measures. Without any, epochs that take no time are computed several at a time.
    is_own : callable
        Whether nothing is overridden, so that no code of the user's runs and changes samples.
    """
    n = len(training)
    begins = range(0, n, mini_batch_size)
    epochs = len(range(epochs))
    done = 0
    while done < epochs:
        ordinary = training.shuffle(random, shuffle)
        wanted = rule() if begins and (not measures or n > FEW) else None
        run = _run(network, training, begins, wanted)
        count = 1
        if run is None or wanted is None:
            for begin in begins:
                step(training.pairs[begin : begin + mini_batch_size])
        else:
            orders = [training.order]
            if ordinary and not measures:
                work = max(1, run.work) * len(begins)
                count = min(epochs - done, max(1, min(CHUNK_WORK // work, CHUNK_MINIBATCHES // len(begins))))
                for _ in range(count - 1):
                    training.shuffle(random, shuffle)
                    orders.append(training.order)
            try:
                run.minibatches(*_tables(orders, begins, wanted))
            finally:
                network.weights, biases = run.canonical()
                network.biases = [b.reshape(-1, 1) for b in biases]
        for epoch in range(done, done + count):
            for samples in measures:
                samples.outputs = None
            if look(epoch):
                return
        done += count
        if not is_own():
            for samples in (training, *measures):
                samples.forget()


def outputs(network: Perceptron, samples: Samples) -> Floats | None:
    """Return a network's outputs for all samples, in the order of their matrices; None where the engine cannot."""
    if len(samples) <= FEW:
        return None
    if samples.outputs is None:
        architecture = _architecture(network, "quadratic")
        X = None if architecture is None else samples.inputs(architecture.n_in)
        if architecture is None or X is None:
            return None
        a = np.empty((len(X), architecture.n_out))
        evaluator = evaluator_of(architecture)
        packed = evaluator.layout.pack(network.weights, [b[:, 0] for b in network.biases])
        evaluator.evaluate(packed, X, wanted={len(network.weights) - 1: a})
        samples.outputs = a
    return samples.outputs


def _run(network: Perceptron, training: Samples, begins: range, rule: Rule | None) -> Run | None:
    """Return what trains the network as it is now; None where the engine cannot take it, or samples, or numbers."""
    if rule is None or not _is_real(rule.eta) or not _is_real(rule.penalty):
        return None
    architecture = _architecture(network, rule.loss)
    if architecture is None:
        return None
    X, y = training.inputs(architecture.n_in), training.targets(architecture.n_out)
    if X is None or y is None or {len(X), len(training.order)} != {begins.stop}:  # the list was made shorter or longer
        return None
    biases = [b[:, 0] for b in network.biases]
    return Run(architecture, network.weights, biases, X, y, batch_size=begins.step, update="sgd")


def _architecture(network: Perceptron, loss: str) -> Architecture | None:
    """Return the architecture that the network's arrays make; None if they are not a chain of float64 matrices."""
    weights, biases = list(network.weights), list(network.biases)
    if not weights or len(weights) != len(biases) or network.num_layers != len(weights) + 1:
        return None
    if any(type(array) is not np.ndarray or array.ndim != 2 or array.dtype != np.float64 for array in weights + biases):
        return None
    sizes = [weights[0].shape[1], *(len(w) for w in weights)]
    shapes = list(zip(sizes[1:], sizes, strict=False))
    if (
        min(sizes) < 1
        or [w.shape for w in weights] != shapes
        or [b.shape for b in biases] != [(n, 1) for n in sizes[1:]]
    ):
        return None
    return Architecture.of(sizes, hidden="sigmoid", output="sigmoid", loss=loss, dtype="float64")


def _is_real(number: object) -> bool:
    """Whether arithmetic with it is that of float64."""
    return isinstance(number, int | float | np.integer)


def _tables(orders: list[NDArray[np.int64]], begins: range, rule: Rule) -> tuple[Any, Any, Any]:
    """Return the samples of these epochs' mini-batches, where each begins, and the numbers of each step."""
    n = len(orders[0])
    of_each = np.array(begins) + n * np.arange(len(orders))[:, np.newaxis]
    steps = np.zeros((of_each.size, STEP_COLUMNS))
    order, starts = np.concatenate(orders), np.append(of_each, n * len(orders))
    steps[:, ETA], steps[:, PENALTY], steps[:, SCALE] = rule.eta, rule.penalty, scales(divisors(order, starts))
    return order, starts, steps
