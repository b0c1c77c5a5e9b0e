"""Schedules: the learning rate of each mini-batch, as immutable data.

`SGD` and `Adam` take one in the place of a number. What a schedule remembers belongs to the network, with the state of
its optimizer: `fit` starts it anew, `partial_fit` continues it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastbp.arguments import number, one_of, whole
from fastbp.history import History
from fastbp.monitors import Stall, figure, monitor_of

__all__ = ["Constant", "DivideOnPlateau", "Exponential", "InverseScaling", "Moments", "Progress", "Schedule"]


class Moments(NamedTuple):
    """When mini-batches come: what the optimizer has seen before each of them; int64 arrays.

    Attributes
    ----------
    steps : mini-batches
    epochs : complete passes
    samples : samples of complete passes
    """

    steps: NDArray[np.int64]
    epochs: NDArray[np.int64]
    samples: NDArray[np.int64]


@dataclass(frozen=True)
class Progress:
    """What a schedule remembers of the epochs completed.

    Attributes
    ----------
    epochs, samples : int
        How many the optimizer has seen.
    stall : Stall
        Of the figure that the schedule watches, since the last division.
    divisions : int
        How often the learning rate was divided.
    """

    epochs: int = 0
    samples: int = 0
    stall: Stall = field(default_factory=Stall)
    divisions: int = 0


class Schedule(ABC):
    """A learning rate that changes; derive from it and override `rates` for one of your own.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class WarmUp(fastbp.schedules.Schedule):
    ...     rate: float
    ...     steps: int
    ...     def rates(self, moments, progress):
    ...         return self.rate * np.minimum((moments.steps + 1) / self.steps, 1)
    >>> network = fastbp.Network([1, 2], output="softmax", seed=0)
    >>> optimizer = fastbp.SGD(WarmUp(0.5, steps=4))
    >>> network.fit([[0.0], [1.0]], [0, 1], epochs=6, optimizer=optimizer, verbose=False).learning_rate
    [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    """

    @property
    def needs(self) -> str | None:
        """Name of the figure of the history that it watches, if any."""
        return None

    @abstractmethod
    def rates(self, moments: Moments, progress: Progress) -> NDArray[np.float64]:
        """Return the learning rate of each of these mini-batches, positive and finite float64.

        Called before they are computed, sometimes by another thread while those before them are.

        Parameters
        ----------
        moments : Moments
            The value for a mini-batch must not depend on those beside it.
        progress : Progress
            After the last epoch that was completed.
        """

    def after(self, progress: Progress, history: History, epoch: int, n_samples: int) -> Progress:
        """Return the progress after one epoch more, of which the history tells."""
        return Progress(progress.epochs + 1, progress.samples + n_samples, progress.stall, progress.divisions)

    def ahead(self, progress: Progress) -> float:
        """Return how many epochs from here on surely have the rates that `rates` tells already, at least 1."""
        return math.inf


@dataclass(frozen=True)
class Constant(Schedule):
    """The same learning rate for all mini-batches; a plain number means this.

    Parameters
    ----------
    rate : float
        rate > 0.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.SGD(fastbp.schedules.Constant(0.5)).schedule == fastbp.SGD(0.5).schedule
    True
    """

    rate: float

    def __post_init__(self) -> None:
        rate_of(self.rate, "rate")

    def rates(self, moments: Moments, progress: Progress) -> NDArray[np.float64]:
        """Return that rate."""
        return np.full(len(moments.steps), self.rate, np.float64)


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """eta = rate / (1 + t)^power.

    Parameters
    ----------
    rate : float
        rate > 0, the first.
    power : float, default 0.5
        power >= 0.
    per : {"epoch", "step", "sample"}, default "epoch"
        What t counts: complete epochs, mini-batches, or the samples of complete epochs (scikit-learn's "invscaling").

    Raises
    ------
    ValueError, TypeError
        A value outside its domain, or of the wrong type.

    Examples
    --------
    >>> import fastbp
    >>> network = fastbp.Network([1, 2], output="softmax", seed=0)
    >>> optimizer = fastbp.SGD(fastbp.schedules.InverseScaling(0.5, power=1))
    >>> network.fit([[0.0], [1.0]], [0, 1], epochs=4, optimizer=optimizer, verbose=False).learning_rate
    [0.5, 0.25, 0.16666666666666666, 0.125]
    """

    rate: float
    power: float = 0.5
    per: str = "epoch"

    def __post_init__(self) -> None:
        rate_of(self.rate, "rate")
        number(self.power, "power", 0, math.inf, low_allowed=True)
        one_of(self.per, "per", ("epoch", "step", "sample"))

    def rates(self, moments: Moments, progress: Progress) -> NDArray[np.float64]:
        """Return the learning rates."""
        t = {"epoch": moments.epochs, "step": moments.steps, "sample": moments.samples}[self.per]
        with np.errstate(over="ignore"):  # it is then 0
            eta: NDArray[np.float64] = np.divide(self.rate, (1.0 + t) ** self.power)
        return eta


@dataclass(frozen=True)
class Exponential(Schedule):
    """eta = rate decay^t after t complete epochs.

    Parameters
    ----------
    rate : float
        rate > 0, the first.
    decay : float
        0 < decay < 1.

    Raises
    ------
    ValueError, TypeError
        A value outside its domain, or of the wrong type.

    Examples
    --------
    >>> import fastbp
    >>> network = fastbp.Network([1, 2], output="softmax", seed=0)
    >>> optimizer = fastbp.Adam(fastbp.schedules.Exponential(0.5, decay=0.5))
    >>> network.fit([[0.0], [1.0]], [0, 1], epochs=4, optimizer=optimizer, verbose=False).learning_rate
    [0.5, 0.25, 0.125, 0.0625]
    """

    rate: float
    decay: float

    def __post_init__(self) -> None:
        rate_of(self.rate, "rate")
        number(self.decay, "decay", 0, 1, low_allowed=False)

    def rates(self, moments: Moments, progress: Progress) -> NDArray[np.float64]:
        """Return the learning rates."""
        eta: NDArray[np.float64] = self.rate * self.decay ** moments.epochs.astype(np.float64)
        return eta


@dataclass(frozen=True)
class DivideOnPlateau(Schedule):
    """Divide the learning rate where a figure no longer improves.

    Parameters
    ----------
    rate : float
        rate > 0, the first.
    divisor : float, default 5
        divisor > 1.
    patience : int, default 10
        After so many epochs without improvement the rate is divided, and they are counted anew; at least 1.
    min_delta : float, default 1e-4
        An epoch improves the figure if it makes it better than the best by more than that; at least 0.
    least : float, default 1e-6
        The rate does not go below this (nor below itself, where it starts below).
    monitor : {"loss", "accuracy", "validation_loss", "validation_accuracy"}, default "loss"
        The figure.

    Raises
    ------
    ValueError, TypeError
        A value outside its domain, or of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> network = fastbp.Network([1, 1], output="identity", init=[([[1.0]], [0.0])])
    >>> schedule = fastbp.schedules.DivideOnPlateau(0.5, patience=2)
    >>> network.fit([[1.0]], [1.0], epochs=6, optimizer=fastbp.SGD(schedule), verbose=False).learning_rate
    [0.5, 0.5, 0.5, 0.1, 0.1, 0.02]
    """

    rate: float
    divisor: float = 5.0
    patience: int = 10
    min_delta: float = 1e-4
    least: float = 1e-6
    monitor: str = "loss"

    def __post_init__(self) -> None:
        rate_of(self.rate, "rate")
        number(self.divisor, "divisor", 1, math.inf, low_allowed=False)
        whole(self.patience, "patience", 1)
        number(self.min_delta, "min_delta", 0, math.inf, low_allowed=True)
        number(self.least, "least", 0, math.inf, low_allowed=True)
        monitor_of(self.monitor)

    @property
    def needs(self) -> str:
        """Name of the figure of the history that it watches."""
        return self.monitor

    def rates(self, moments: Moments, progress: Progress) -> NDArray[np.float64]:
        """Return the learning rate after the divisions that there were."""
        eta = max(self.rate * self.divisor ** -float(progress.divisions), min(self.least, self.rate))
        return np.full(len(moments.steps), eta, np.float64)

    def after(self, progress: Progress, history: History, epoch: int, n_samples: int) -> Progress:
        """Return the progress after one epoch more, of which the history tells."""
        progress = super().after(progress, history, epoch, n_samples)
        if epoch >= len(getattr(history, self.monitor)):  # an interrupt came before it was measured
            return progress
        stall = progress.stall.after(figure(history, self.monitor, epoch), self.min_delta)
        if stall.epochs < self.patience:
            return replace(progress, stall=stall)
        return replace(progress, stall=Stall(stall.best), divisions=progress.divisions + 1)

    def ahead(self, progress: Progress) -> float:
        """Return how many epochs must pass before the rate can change."""
        return self.patience - progress.stall.epochs


class Pace:
    """The learning rates of one training: its schedule, and how far that had come after each epoch.

    Parameters
    ----------
    schedule : Schedule
    progress : Progress
        Before the training.
    n_samples : int
        Samples in an epoch.
    history : History
        Of the training.
    """

    def __init__(self, schedule: Schedule, progress: Progress, n_samples: int, history: History) -> None:
        self._schedule, self._n_samples, self._history = schedule, n_samples, history
        self._after = [progress]
        kind = type(schedule)
        self._counts = kind.after is Schedule.after and kind.ahead is Schedule.ahead

    @property
    def watches(self) -> bool:
        """Whether the schedule looks at each epoch; otherwise it only counts them."""
        return not self._counts

    def after(self, epochs: int) -> Progress:
        """Return the progress after so many epochs, of which the history tells."""
        if self._counts:
            before = self._after[0]
            return replace(before, epochs=before.epochs + epochs, samples=before.samples + self._n_samples * epochs)
        while len(self._after) <= epochs:
            epoch = len(self._after) - 1
            self._after.append(self._schedule.after(self._after[-1], self._history, epoch, self._n_samples))
        return self._after[epochs]

    def rates(self, first: int, epochs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the learning rates of the steps first + 1, ..., which belong to these epochs. Raises ValueError."""
        begin = self._after[0]
        steps = np.arange(first, first + len(epochs), dtype=np.int64)
        moments = Moments(steps, begin.epochs + epochs, begin.samples + self._n_samples * epochs)
        rates = np.asarray(self._schedule.rates(moments, self._latest()), np.float64)
        valid = (rates >= 0) & (rates < np.inf)
        if rates.shape != epochs.shape or not valid.all():
            what = f"shape {rates.shape}" if rates.shape != epochs.shape else f"{rates[~valid][0]} among them"
            raise ValueError(
                f"{self._schedule!r} gave learning rates with {what}, but must give one for each of {len(epochs)} "
                "mini-batches, finite and at least 0"
            )
        return rates

    def ahead(self) -> float:
        """Return how many epochs may pass before the schedule must look at the first of them."""
        return self._schedule.ahead(self._latest())

    def _latest(self) -> Progress:
        return self.after(self._history.epochs) if self._counts else self._after[-1]


def rate_of(value: Any, name: str) -> float:
    """Return a learning rate that a user gave as a number. Raises ValueError, TypeError."""
    return number(value, name, 0, math.inf, low_allowed=False)
