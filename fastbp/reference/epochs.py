"""Epochs: training pass by pass, with schedules of the learning rate, validation and early stopping; and L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fastbp.reference import matrix
from fastbp.reference.functions import Array
from fastbp.reference.training import Optimizer, minibatches

Rate: TypeAlias = Callable[[int, int, int, Sequence[float]], float]


def inverse_scaling(rate: float, power: float, per: str) -> Rate:
    """Return eta = rate / (1 + t)^power, t counting the steps, epochs or samples before.

    Examples
    --------
    >>> inverse_scaling(0.5, 1.0, "epoch")(7, 3, 30, [])
    0.125
    """
    return lambda steps, epochs, samples, losses: (
        rate / (1 + {"step": steps, "epoch": epochs, "sample": samples}[per]) ** power
    )


def exponential(rate: float, decay: float) -> Rate:
    """Return eta = rate decay^epochs.

    Examples
    --------
    >>> exponential(0.5, 0.5)(7, 3, 30, [])
    0.0625
    """
    return lambda steps, epochs, samples, losses: rate * decay**epochs


def divide_on_plateau(rate: float, divisor: float, patience: int, min_delta: float, least: float) -> Rate:
    """Return eta = rate / divisor^d, d plateaus of `patience` epochs having gone by, but not less than `least`.

    Examples
    --------
    >>> divide_on_plateau(0.5, 5.0, 2, 0.0, 0.0)(0, 0, 0, [1.0, 1.0, 1.0])
    0.1
    """

    def eta(steps: int, epochs: int, samples: int, losses: Sequence[float]) -> float:
        best, stalled, divisions = math.inf, 0, 0
        for loss in losses:
            stalled = 0 if loss < best - min_delta else stalled + 1
            best = loss if stalled == 0 else best
            if stalled == patience:
                stalled, divisions = 0, divisions + 1
        return max(rate / divisor**divisions, min(least, rate))

    return eta


def stops(losses: Sequence[float], patience: int, min_delta: float) -> bool:
    """Whether none of the last `patience` losses was less than the best before it by more than min_delta.

    That best is the last one that was an improvement itself.

    Examples
    --------
    >>> stops([3.0, 2.0, 2.5, 2.25], 2, 0.0), stops([3.0, 2.0, 2.5, 1.75], 2, 0.0)
    (True, False)
    """
    best, improved = math.inf, -1
    for epoch, loss in enumerate(losses):
        if loss < best - min_delta:
            best, improved = loss, epoch
    return len(losses) - 1 - improved >= patience


class Fitted(NamedTuple):
    """What `fit` returns: the parameters, and of each epoch the mean cost, the validation's and the first rate."""

    weights: list[Array]
    biases: list[Array | None]
    losses: list[float]
    validation_losses: list[float]
    rates: list[float]
    best_epoch: int


def fit(
    weights: Sequence[Array],
    biases: Sequence[Array | None],
    activations: Sequence[str],
    loss: str,
    X: Array,
    Y: Array,
    *,
    orders: Iterable[ArrayLike],
    batch_size: int,
    rate: Rate,
    update: str = "sgd",
    hyper: Mapping[str, float] | None = None,
    validation: tuple[Array, Array] | None = None,
    patience: int | None = None,
    min_delta: float = 0.0,
    restore_best: bool = False,
) -> Fitted:
    """Train epoch by epoch; the arrays given stay as they are.

    Parameters
    ----------
    weights, biases, activations, loss, X, Y
        As in `train`.
    orders : iterable of array-like of int, shape (n,)
        The order of the samples in each epoch.
    batch_size : int
    rate : callable
        (steps, epochs, samples, losses) -> learning rate of the mini-batch that comes after so many steps, complete
        epochs, and samples in these, which had these losses (those of the validation, where there is one).
    update, hyper
        As in `Optimizer`.
    validation : (X, Y), optional
        Measured after each epoch.
    patience, min_delta
        As in `stops`, for the losses (of the validation, where there is one); None never stops.
    restore_best : bool
        Return the parameters after the epoch with the least of these losses.

    Returns
    -------
    Fitted

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> fitted = fit([np.zeros((1, 1))], [np.zeros(1)], ("identity",), "quadratic", X, 3 * X + 1,
    ...              orders=500 * [[2, 0, 1]], batch_size=2, rate=lambda *_: 0.25, patience=5, min_delta=1e-9)
    >>> print(np.round(fitted.weights[0], 3), np.round(fitted.biases[0], 3), len(fitted.losses) < 500)
    [[3.]] [1.] True
    """
    weights = [w.copy() for w in weights]
    biases = [None if b is None else b.copy() for b in biases]
    optimizer = Optimizer([*weights, *(b for b in biases if b is not None)], update, hyper)
    losses: list[float] = []
    validation_losses: list[float] = []
    rates: list[float] = []
    watched = losses if validation is None else validation_losses
    best, best_epoch = (weights, biases), -1
    for epoch, order in enumerate(orders):
        total = 0.0
        for i, batch in enumerate(minibatches(len(X), batch_size, order)):
            eta = rate(optimizer.t, epoch, epoch * len(X), watched)
            if i == 0:
                rates.append(eta)
            optimizer.hyper["learning_rate"] = eta
            cost, dw, db = matrix.loss_and_gradients(weights, biases, activations, loss, X[batch], Y[batch])
            optimizer.step([*dw, *(g for g in db if g is not None)])
            total += cost * len(batch)
        losses.append(total / len(X))
        if validation is not None:
            validation_losses.append(matrix.loss(weights, biases, activations, loss, *validation))
        if min(watched) < min(watched[:-1], default=math.inf):
            best = [w.copy() for w in weights], [None if b is None else b.copy() for b in biases]
            best_epoch = epoch
        if patience is not None and stops(watched, patience, min_delta):
            break
    if restore_best:
        weights, biases = best
    return Fitted(weights, biases, losses, validation_losses, rates, best_epoch)


def lbfgs(
    weights: Sequence[Array],
    biases: Sequence[Array | None],
    activations: Sequence[str],
    loss: str,
    X: Array,
    Y: Array,
    *,
    iterations: int,
    penalty: float = 0.0,
) -> tuple[list[Array], list[Array | None], list[float]]:
    """Train by iterations of SciPy's L-BFGS-B on C + penalty/2 sum w^2; return the parameters and the loss after each.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> w, b, losses = lbfgs([np.zeros((1, 1))], [np.zeros(1)], ("identity",), "quadratic", X, 3 * X + 1, iterations=20)
    >>> print(np.round(w[0], 3), np.round(b[0], 3))
    [[3.]] [1.]
    """
    from scipy.optimize import minimize

    shapes = [array.shape for array in (*weights, *(b for b in biases if b is not None))]
    n_weights = sum(w.size for w in weights)
    losses: list[float] = []

    def unpack(x: Array) -> tuple[list[Array], list[Array | None]]:
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        arrays = [part.reshape(shape) for part, shape in zip(np.split(x, ends[:-1]), shapes, strict=True)]
        rest = iter(arrays[len(weights) :])
        return arrays[: len(weights)], [None if b is None else next(rest) for b in biases]

    def objective(x: Array) -> tuple[float, Array]:
        w = x[:n_weights]
        cost, dw, db = matrix.loss_and_gradients(*unpack(x), activations, loss, X, Y)
        gradient = np.concatenate([g.ravel() for g in (*dw, *db) if g is not None])
        gradient[:n_weights] += penalty * w
        return cost + penalty / 2 * float(w @ w), gradient

    start = np.concatenate([array.ravel() for array in (*weights, *biases) if array is not None])
    options = {"maxiter": iterations, "gtol": 0.0, "ftol": 0.0}
    result = minimize(
        objective, start, method="L-BFGS-B", jac=True, options=options,
        callback=lambda x: losses.append(objective(x)[0]),
    )  # fmt: skip
    return *unpack(result.x), losses
