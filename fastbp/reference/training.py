"""Training: mini-batches, the rules that update a parameter from its gradient, and the loop that joins them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fastbp.reference import component, matrix
from fastbp.reference.functions import Array

LossAndGradients: TypeAlias = Callable[..., tuple[float, list[Array], list[Array | None]]]

FORMS: dict[str, LossAndGradients] = {
    "component": component.loss_and_gradients,
    "matrix": matrix.loss_and_gradients,
}


@dataclass(frozen=True)
class Update:
    """How a parameter w follows its gradient g.

    Attributes
    ----------
    step : callable
        ``step(w, g, t, *state, *hyper)`` changes w and its state in place; t = 1, 2, ... counts the steps.
    n_states : int
        How many arrays of the shape of w, zeros at first, are kept from step to step.
    hyper : mapping of str to float
        The names of the hyper-parameters, in the order of `step`, with their defaults.

    Examples
    --------
    >>> w = np.array([1.0])
    >>> UPDATES["sgd"].step(w, np.array([4.0]), 1, 0.125)
    >>> w
    array([0.5])
    """

    step: Callable[..., None]
    n_states: int
    hyper: Mapping[str, float]


def _sgd(w: Array, g: Array, t: int, eta: float) -> None:
    """w = w - eta g."""
    w -= eta * g


def _momentum(w: Array, g: Array, t: int, v: Array, eta: float, mu: float) -> None:
    """v = mu v - eta g, w = w + v."""
    v *= mu
    v -= eta * g
    w += v


def _nesterov(w: Array, g: Array, t: int, v: Array, eta: float, mu: float) -> None:
    """v = mu v - eta g, w = w + mu v - eta g."""
    step = eta * g
    v *= mu
    v -= step
    w -= step
    w += np.multiply(mu, v, out=step)


def _adam(
    w: Array, g: Array, t: int, m: Array, v: Array, eta: float, beta_1: float, beta_2: float, epsilon: float
) -> None:
    """w = w - eta m_hat / (sqrt(v_hat) + epsilon): Kingma & Ba, *Adam*, 2015, algorithm 1."""
    step = (1 - beta_1) * g
    m *= beta_1
    m += step  # m = beta_1 m + (1 - beta_1) g
    np.multiply(g, g, out=step)
    step *= 1 - beta_2
    v *= beta_2
    v += step  # v = beta_2 v + (1 - beta_2) g^2
    np.divide(v, 1 - beta_2**t, out=step)  # v_hat = v / (1 - beta_2^t)
    np.sqrt(step, out=step)
    step += epsilon
    np.divide(m, step, out=step)
    step *= eta / (1 - beta_1**t)  # m_hat = m / (1 - beta_1^t), its divisor taken together with eta
    w -= step


UPDATES: dict[str, Update] = {
    "sgd": Update(_sgd, 0, {"learning_rate": 0.01}),
    "momentum": Update(_momentum, 1, {"learning_rate": 0.01, "momentum": 0.9}),
    "nesterov": Update(_nesterov, 1, {"learning_rate": 0.01, "momentum": 0.9}),
    "adam": Update(_adam, 2, {"learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}),
}


class Optimizer:
    """An update rule with what it remembers of a list of parameters.

    Parameters
    ----------
    parameters : iterable of ndarray
        The arrays that `step` changes in place.
    update : str
        A name in `UPDATES`.
    hyper : mapping of str to float, optional
        Hyper-parameters that differ from the rule's defaults.

    Attributes
    ----------
    t : int
        Steps taken.
    state : list of list of ndarray
        One list a parameter: v, or m and v, or nothing.

    Raises
    ------
    ValueError
        If the rule or a hyper-parameter has an unknown name.

    Examples
    --------
    >>> w = np.array([1.0, 2.0])
    >>> optimizer = Optimizer([w], "momentum", {"learning_rate": 0.25})
    >>> optimizer.step([np.array([1.0, -1.0])])
    >>> w, optimizer.t, optimizer.state
    (array([0.75, 2.25]), 1, [[array([-0.25,  0.25])]])
    """

    def __init__(self, parameters: Iterable[Array], update: str, hyper: Mapping[str, float] | None = None) -> None:
        if update not in UPDATES:
            raise ValueError(f"update {update!r} is not one of {', '.join(UPDATES)}: choose one of these")
        self.rule = UPDATES[update]
        self.hyper = {**self.rule.hyper, **(hyper or {})}
        if unknown := [name for name in self.hyper if name not in self.rule.hyper]:
            raise ValueError(f"{update!r} has no hyper-parameter {unknown[0]!r}: it has {', '.join(self.rule.hyper)}")
        self.parameters = list(parameters)
        self.state = [[np.zeros_like(w) for _ in range(self.rule.n_states)] for w in self.parameters]
        self.t = 0

    def step(self, gradients: Iterable[Array]) -> None:
        """Update every parameter from its gradient."""
        self.t += 1
        for w, g, state in zip(self.parameters, gradients, self.state, strict=True):
            self.rule.step(w, g, self.t, *state, *self.hyper.values())


def minibatches(n: int, batch_size: int, order: ArrayLike | None = None) -> list[Array]:
    """Cut one epoch into mini-batches.

    Parameters
    ----------
    n : int
        The number of samples.
    batch_size : int
        Samples in a mini-batch; the last one has what is left.
    order : array-like of int, shape (n,), optional
        The samples in the order of their use; by default 0, 1, ..., n - 1.

    Returns
    -------
    list of ndarray of int
        The indices of the samples of each mini-batch.

    Raises
    ------
    ValueError
        If batch_size is below 1, or order has not n entries.

    Examples
    --------
    >>> minibatches(5, 2, [4, 3, 2, 1, 0])
    [array([4, 3]), array([2, 1]), array([0])]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: give 1 or more")
    order = np.arange(n) if order is None else np.asarray(order)
    if order.shape != (n,):
        raise ValueError(f"order has shape {order.shape}: give the {n} samples in one dimension, shape ({n},)")
    return [order[start : start + batch_size] for start in range(0, n, batch_size)]


def train(
    weights: Sequence[Array],
    biases: Sequence[Array | None],
    activations: Sequence[str],
    loss: str,
    X: Array,
    Y: Array,
    *,
    update: str = "sgd",
    hyper: Mapping[str, float] | None = None,
    batches: Iterable[Array | slice],
    form: str = "matrix",
    train_bias: bool = True,
    sample_weight: Array | None = None,
    l2: float = 0.0,
) -> tuple[list[Array], list[Array | None], Array]:
    """Train a network on one mini-batch after another, from a fresh optimizer; the arrays given stay as they are.

    Parameters
    ----------
    weights, biases, activations, loss, X, Y
        As in `matrix.loss_and_gradients`, for all samples; Y is dense, shape (n, n_out).
    update, hyper
        As in `Optimizer`.
    batches : iterable of ndarray of int, or of slice
        The samples of each mini-batch, as from `minibatches`; chain those of several epochs.
    form : {"matrix", "component"}
        Which of the two forms of the equations computes the gradients.
    train_bias : bool, default True
        False keeps the biases as they are.
    sample_weight : ndarray, shape (n,), optional
        As how many samples each counts in the mean of its mini-batch. A mini-batch whose weights are all 0 is counted
        as a step, has a loss of 0 and changes nothing.
    l2 : float, default 0
        The cost of a mini-batch is the mean of C_x + l2/2 sum_jk w_jk^2, over the weights of all layers.

    Returns
    -------
    weights, biases : list of ndarray
        The parameters after the last mini-batch; a bias that is None stays None.
    losses : ndarray of float64, shape (number of mini-batches,)
        The cost of each mini-batch, before its update.

    Raises
    ------
    ValueError
        If form, update or a hyper-parameter has an unknown name.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> hyper = {"learning_rate": 0.25}
    >>> w, b, losses = train([np.zeros((1, 1))], [np.zeros(1)], ("identity",), "quadratic", X, 3 * X + 1,
    ...                      hyper=hyper, batches=100 * minibatches(3, 2))
    >>> print(np.round(w[0], 3), np.round(b[0], 3), losses[0])
    [[3.]] [1.] 4.25
    """
    if form not in FORMS:
        raise ValueError(f"form {form!r} is not one of {', '.join(FORMS)}: choose one of these")
    weights = [w.copy() for w in weights]
    biases = [None if b is None else b.copy() for b in biases]

    def trained(w: Sequence[Array], b: Sequence[Array | None]) -> list[Array]:
        return [*w, *(array for array in b if array is not None and train_bias)]

    optimizer = Optimizer(trained(weights, biases), update, hyper)
    losses: list[float] = []
    for batch in batches:
        weight = None if sample_weight is None else sample_weight[batch]
        if weight is not None and not weight.any():
            optimizer.t += 1
            losses.append(0.0)
            continue
        cost, dw, db = FORMS[form](weights, biases, activations, loss, X[batch], Y[batch], weight)
        if l2:
            cost += l2 / 2 * sum(float(np.vdot(w, w)) for w in weights)  # + l2/2 sum_jk w_jk^2
            dw = [g + l2 * w for g, w in zip(dw, weights, strict=True)]  # its gradient, l2 w_jk
        optimizer.step(trained(dw, db))
        losses.append(cost)
    return weights, biases, np.array(losses, dtype=np.float64)
