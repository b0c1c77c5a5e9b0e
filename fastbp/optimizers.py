"""Optimizers: immutable hyper-parameters of an update rule. Their state belongs to the network that they train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.arguments import number, one_of, truth, whole
from fastbp.kernels.layers import BETA_1, BETA_2, EPSILON, ETA, MU, STEP_COLUMNS
from fastbp.schedules import Constant, Progress, Schedule, rate_of

__all__ = ["LBFGS", "SGD", "Adam", "Optimizer", "OptimizerState", "bias_correction", "optimizer_of"]


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent: v = momentum v - eta g, w = w + v.

    With Nesterov's momentum w = w + momentum v - eta g. g is the gradient of the mean cost of a mini-batch.

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.01
        eta > 0, or one of `fastbp.schedules`.
    momentum : float, default 0
        0 <= momentum < 1.
    nesterov : bool, default False
        Look ahead (needs a momentum above 0).

    Raises
    ------
    ValueError, TypeError
        A value outside its domain, or of the wrong type.

    References
    ----------
    M. Nielsen, *Neural Networks and Deep Learning*, chapters 1 and 3. I. Sutskever et al., "On the importance of
    initialization and momentum in deep learning", ICML 2013.

    Examples
    --------
    >>> SGD(learning_rate=3.0)
    SGD(learning_rate=3.0, momentum=0.0, nesterov=False)
    """

    learning_rate: float | Schedule = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _schedule(self.learning_rate)
        number(self.momentum, "momentum", 0, 1, low_allowed=True)
        if truth(self.nesterov, "nesterov") and self.momentum == 0:
            raise ValueError("nesterov is True, but momentum is 0: give a momentum such as 0.9, or leave nesterov out")

    @property
    def schedule(self) -> Schedule:
        """The learning rate of each mini-batch."""
        return _schedule(self.learning_rate)

    @property
    def update(self) -> str:
        """Name of the update rule in the kernels' table."""
        return "sgd" if self.momentum == 0 else "nesterov" if self.nesterov else "momentum"

    def steps(self, first: int, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the numbers that the kernels take for the steps first + 1, first + 2, ... at these learning rates.

        One row each.
        """
        steps = np.zeros((len(rates), STEP_COLUMNS))
        steps[:, ETA], steps[:, MU] = rates, self.momentum
        return steps


@dataclass(frozen=True)
class Adam:
    """Adam: steps of the mean gradient over the root of the mean squared gradient, both decaying averages.

    m = beta_1 m + (1 - beta_1) g, v = beta_2 v + (1 - beta_2) g^2 and
    w = w - eta (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon) at step t = 1, 2, ...

    Parameters
    ----------
    learning_rate : float or Schedule, default 1e-3
        eta > 0, or one of `fastbp.schedules`.
    beta_1, beta_2 : float, default 0.9 and 0.999
        0 <= beta < 1.
    epsilon : float, default 1e-8
        epsilon > 0, added after the bias correction as in the paper and in PyTorch.

    Raises
    ------
    ValueError, TypeError
        A value outside its domain, or of the wrong type.

    References
    ----------
    D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.

    Examples
    --------
    >>> Adam().learning_rate
    0.001
    """

    learning_rate: float | Schedule = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _schedule(self.learning_rate)
        number(self.beta_1, "beta_1", 0, 1, low_allowed=True)
        number(self.beta_2, "beta_2", 0, 1, low_allowed=True)
        number(self.epsilon, "epsilon", 0, float("inf"), low_allowed=False)

    @property
    def schedule(self) -> Schedule:
        """The learning rate of each mini-batch."""
        return _schedule(self.learning_rate)

    @property
    def update(self) -> str:
        """Name of the update rule in the kernels' table."""
        return "adam"

    def steps(self, first: int, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the numbers that the kernels take for the steps first + 1, first + 2, ... at these learning rates.

        One row each. The kernel computes w - eta_t m / (sqrt(v) + epsilon_t); with eta_t = eta sqrt(1 - beta_2^t) /
        (1 - beta_1^t) and epsilon_t = epsilon sqrt(1 - beta_2^t) that is algorithm 1.
        """
        t = np.arange(first + 1, first + len(rates) + 1, dtype=np.float64)
        correction = np.sqrt(bias_correction(self.beta_2, t))
        steps = np.zeros((len(rates), STEP_COLUMNS))
        steps[:, ETA] = rates * correction / bias_correction(self.beta_1, t)
        steps[:, BETA_1], steps[:, BETA_2] = self.beta_1, self.beta_2
        steps[:, EPSILON] = self.epsilon * correction
        return steps


def bias_correction(beta: float, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 - beta^t for ascending t >= 1: 1 where beta^t < 2^-60."""
    if beta == 0:
        return np.ones_like(t)
    last = np.searchsorted(t, max(1.0, -60 * math.log(2) / math.log(beta)))
    correction = np.ones_like(t)
    correction[:last] = -np.expm1(t[:last] * math.log(beta))
    return correction


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS by SciPy: a quasi-Newton method on all samples at once, for small sets of data and smooth losses.

    Loss and gradient come from the engine, in the network's dtype and by all threads; SciPy adds them up to steps in
    float64. float64 networks reach a minimum more closely. It needs SciPy, which the extra `fastbp[sklearn]` brings.

    Parameters
    ----------
    max_iterations : int, default 200
        At least 1. An iteration is an epoch of the history.
    max_evaluations : int, default 15000
        Of loss and gradient, at least 1; an iteration takes one or a few.
    tolerance : float, default 1e-5
        The training ends where no partial derivative is larger; at least 0.
    memory : int, default 10
        Steps from which curvature is estimated; at least 1.

    Raises
    ------
    ValueError, TypeError
        A value outside its domain, or of the wrong type.

    References
    ----------
    R. Byrd, P. Lu, J. Nocedal, C. Zhu, "A Limited Memory Algorithm for Bound Constrained Optimization", SIAM J. Sci.
    Comput. 16 (1995).

    Examples
    --------
    >>> LBFGS(max_iterations=50)
    LBFGS(max_iterations=50, max_evaluations=15000, tolerance=1e-05, memory=10)
    """

    max_iterations: int = 200
    max_evaluations: int = 15_000
    tolerance: float = 1e-5
    memory: int = 10

    def __post_init__(self) -> None:
        whole(self.max_iterations, "max_iterations", 1)
        whole(self.max_evaluations, "max_evaluations", 1)
        number(self.tolerance, "tolerance", 0, float("inf"), low_allowed=True)
        whole(self.memory, "memory", 1)


def _schedule(learning_rate: Any) -> Schedule:
    """Return the schedule that a user gave or meant. Raises ValueError, TypeError."""
    if isinstance(learning_rate, Schedule):
        return learning_rate
    if isinstance(learning_rate, type) and issubclass(learning_rate, Schedule):
        raise TypeError(f"learning_rate is {learning_rate!r}, but must be a number or an instance of a schedule")
    return Constant(rate_of(learning_rate, "learning_rate"))


Optimizer = SGD | Adam


@dataclass(frozen=True)
class OptimizerState:
    """What an optimizer remembers, in canonical layout: it belongs to the network that it trains.

    Attributes
    ----------
    update : str
        Name of the update rule.
    schedule : Schedule
    progress : Progress
        How far the schedule has come.
    step : int
        Mini-batches seen.
    slots : tuple of (weights, biases)
        As many as the update rule keeps; none before the first mini-batch.
    """

    update: str
    schedule: Schedule
    progress: Progress
    step: int
    slots: tuple[tuple[Sequence[NDArray[Any]], Sequence[NDArray[Any]]], ...]

    @classmethod
    def fresh(cls, optimizer: Optimizer) -> OptimizerState:
        """Return that of an optimizer that has seen nothing."""
        return cls(optimizer.update, optimizer.schedule, Progress(), 0, ())

    def handed_to(self, optimizer: Optimizer) -> OptimizerState:
        """Return with what an optimizer goes on after this one: with nothing, where its update rule differs.

        Another schedule is told the epochs and samples seen, but not what the one before thought of them.
        """
        if self.update != optimizer.update:
            return OptimizerState.fresh(optimizer)
        if self.schedule == optimizer.schedule:
            return self
        progress = Progress(self.progress.epochs, self.progress.samples)
        return replace(self, schedule=optimizer.schedule, progress=progress)


BY_NAME: dict[str, Optimizer | LBFGS] = {"sgd": SGD(), "adam": Adam(), "lbfgs": LBFGS()}


def optimizer_of(optimizer: Any) -> Optimizer | LBFGS:
    """Return the optimizer that a user names or gives.

    Raises
    ------
    ValueError
        An unknown name.
    TypeError
        Neither a name nor an optimizer.
    """
    if isinstance(optimizer, SGD | Adam | LBFGS):
        return optimizer
    if not isinstance(optimizer, str):
        hint = "; write SGD() rather than SGD" if isinstance(optimizer, type) else ""
        raise TypeError(
            f"optimizer is {optimizer!r}, but must be 'sgd', 'adam', 'lbfgs', an SGD(...), an Adam(...) or an "
            f"LBFGS(...){hint}"
        )
    return BY_NAME[one_of(optimizer, "optimizer", BY_NAME)]
