"""Solvers: what an estimator remembers of its stochastic optimizer between calls, as plain numbers and arrays.

They are named, and hold what they hold, as in scikit-learn: users read `estimator._optimizer.learning_rate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.kernels.layers import BETA_1, BETA_2, EPSILON, ETA, MU, STEP_COLUMNS
from fastbp.optimizers import bias_correction

__all__ = ["AdamOptimizer", "SGDOptimizer"]

Floats = NDArray[Any]
Slot = tuple[list[Floats], list[Floats]]  # weights (n_out, n_in) and biases of each layer, as the engine has them
SLOWEST = 1e-6  # learning rate at which the adaptive schedule gives up


class SGDOptimizer:
    """Stochastic gradient descent with momentum, and its schedules of the learning rate.

    Attributes
    ----------
    learning_rate : float
        That of the next mini-batch.
    velocities : list of arrays
        Of coefs_, then of intercepts_; empty before the first mini-batch, and with a momentum of 0.
    """

    def __init__(
        self, learning_rate_init: float, lr_schedule: str, momentum: float, nesterov: bool, power_t: float
    ) -> None:
        self.learning_rate_init = learning_rate_init
        self.learning_rate = float(learning_rate_init)
        self.lr_schedule = lr_schedule
        self.momentum = momentum
        self.nesterov = nesterov
        self.power_t = power_t
        self.velocities: list[Floats] = []

    @property
    def update(self) -> str:
        """Name of the update rule in the kernels' table."""
        return "sgd" if self.momentum == 0 else "nesterov" if self.nesterov else "momentum"

    @property
    def slots(self) -> list[Slot]:
        """What it remembers, as the engine takes it."""
        return [_slot(self.velocities)] if self.velocities else []

    def remember(self, slots: Iterator[list[Floats]], steps: int) -> None:
        """Take over what the engine hands back after `steps` mini-batches."""
        self.velocities = next(slots, [])

    @property
    def steps(self) -> int:
        """How many mini-batches its numbers depend on: none."""
        return 0

    def rate_after(self, samples: int) -> float:
        """Return the learning rate after so many samples, where nothing stalls before."""
        if self.lr_schedule == "invscaling":
            return float(self.learning_rate_init / (samples + 1.0) ** self.power_t)
        return self.learning_rate

    def rows(self, first: int, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the kernels' numbers for as many steps as there are learning rates, after `first` others."""
        rows = np.zeros((len(rates), STEP_COLUMNS))
        rows[:, ETA], rows[:, MU] = rates, self.momentum
        return rows

    def stalled(self) -> str | None:
        """Return how training ends that does not improve any more; None if it goes on with a lower learning rate."""
        if self.lr_schedule != "adaptive":
            return "Stopping."
        if self.learning_rate <= SLOWEST:
            return "Learning rate too small. Stopping."
        self.learning_rate /= 5.0
        return None


class AdamOptimizer:
    """Adam, with epsilon added to the root of the second moment before its bias is corrected ("epsilon hat").

    Attributes
    ----------
    learning_rate : float
        That of the last mini-batch, both bias corrections in it.
    t : int
        Mini-batches seen.
    ms, vs : lists of arrays
        First and second moments of the gradients of coefs_, then of intercepts_; empty before the first mini-batch.
    """

    def __init__(self, learning_rate_init: float, beta_1: float, beta_2: float, epsilon: float) -> None:
        self.learning_rate_init = learning_rate_init
        self.learning_rate = float(learning_rate_init)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.t = 0
        self.ms: list[Floats] = []
        self.vs: list[Floats] = []

    update = "adam"

    @property
    def slots(self) -> list[Slot]:
        """What it remembers, as the engine takes it."""
        return [_slot(self.ms), _slot(self.vs)] if self.ms else []

    def remember(self, slots: Iterator[list[Floats]], steps: int) -> None:
        """Take over what the engine hands back after `steps` mini-batches."""
        self.t = steps
        self.ms, self.vs = next(slots), next(slots)
        if steps:
            self.learning_rate = float(self._rates(np.array([float(steps)]))[0])

    @property
    def steps(self) -> int:
        """How many mini-batches its numbers depend on."""
        return self.t

    def rate_after(self, samples: int) -> float:
        """Return the learning rate, which no number of samples changes."""
        return self.learning_rate

    def rows(self, first: int, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the kernels' numbers for as many steps as there are learning rates, after `first` others."""
        rows = np.zeros((len(rates), STEP_COLUMNS))
        rows[:, ETA] = self._rates(np.arange(first + 1, first + len(rates) + 1, dtype=np.float64))
        rows[:, BETA_1], rows[:, BETA_2], rows[:, EPSILON] = self.beta_1, self.beta_2, self.epsilon
        return rows

    def _rates(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        correction = np.sqrt(bias_correction(self.beta_2, t))
        rates: NDArray[np.float64] = self.learning_rate_init * correction / bias_correction(self.beta_1, t)
        return rates

    def stalled(self) -> str:
        """Return how training ends that does not improve any more."""
        return "Stopping."


def _slot(arrays: Sequence[Floats]) -> Slot:
    half = len(arrays) // 2
    return [array.T for array in arrays[:half]], list(arrays[half:])
