"""Optimizers: immutable hyper-parameters of an update rule. Their state belongs to the network that they train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.arguments import number, one_of, truth
from fastbp.kernels.layers import BETA_1, BETA_2, EPSILON, ETA, MU, STEP_COLUMNS

__all__ = ["SGD", "Adam", "Optimizer", "optimizer_of"]


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent: v = momentum v - eta g, w = w + v.

    With Nesterov's momentum w = w + momentum v - eta g. g is the gradient of the mean cost of a mini-batch.

    Parameters
    ----------
    learning_rate : float, default 0.01
        eta > 0.
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

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        number(self.learning_rate, "learning_rate", 0, float("inf"), low_allowed=False)
        number(self.momentum, "momentum", 0, 1, low_allowed=True)
        if truth(self.nesterov, "nesterov") and self.momentum == 0:
            raise ValueError("nesterov is True, but momentum is 0: give a momentum such as 0.9, or leave nesterov out")

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
    learning_rate : float, default 1e-3
        eta > 0.
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

    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        number(self.learning_rate, "learning_rate", 0, float("inf"), low_allowed=False)
        number(self.beta_1, "beta_1", 0, 1, low_allowed=True)
        number(self.beta_2, "beta_2", 0, 1, low_allowed=True)
        number(self.epsilon, "epsilon", 0, float("inf"), low_allowed=False)

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
        correction = np.sqrt(1 - self.beta_2**t)
        steps = np.zeros((len(rates), STEP_COLUMNS))
        steps[:, ETA] = rates * correction / (1 - self.beta_1**t)
        steps[:, BETA_1], steps[:, BETA_2] = self.beta_1, self.beta_2
        steps[:, EPSILON] = self.epsilon * correction
        return steps


Optimizer = SGD | Adam
BY_NAME: dict[str, Optimizer] = {"sgd": SGD(), "adam": Adam()}


def optimizer_of(optimizer: Any) -> Optimizer:
    """Return the optimizer that a user names or gives.

    Raises
    ------
    ValueError
        An unknown name.
    TypeError
        Neither a name nor an optimizer.
    """
    if isinstance(optimizer, SGD | Adam):
        return optimizer
    if not isinstance(optimizer, str):
        hint = "; write SGD() rather than SGD" if isinstance(optimizer, type) else ""
        raise TypeError(f"optimizer is {optimizer!r}, but must be 'sgd', 'adam', an SGD(...) or an Adam(...){hint}")
    return BY_NAME[one_of(optimizer, "optimizer", BY_NAME)]
