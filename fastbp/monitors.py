"""Monitors: the figure of each epoch that somebody watches, and whether it still improves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fastbp.arguments import one_of
from fastbp.history import History

__all__ = ["MONITORS", "Stall", "figure", "monitor_of"]

MONITORS = ("loss", "accuracy", "validation_loss", "validation_accuracy")


def monitor_of(monitor: Any) -> str:
    """Return the name of a figure that a user gave. Raises ValueError, TypeError."""
    return one_of(monitor, "monitor", MONITORS)


def figure(history: History, monitor: str, epoch: int) -> float:
    """Return a figure of an epoch, such that less is better: accuracies are negated.

    Examples
    --------
    >>> figure(History(loss=[2.0, 1.0], accuracy=[0.5, 0.75]), "accuracy", 1)
    -0.75
    """
    value: float = getattr(history, monitor)[epoch]
    return -value if monitor.endswith("accuracy") else value


@dataclass(frozen=True)
class Stall:
    """Whether a figure, of which less is better, still improves.

    Attributes
    ----------
    best : float
        What it was when it last improved; infinite before.
    epochs : int
        How many epochs ago that was.

    Examples
    --------
    >>> stall = Stall()
    >>> for loss in [1.0, 0.75, 0.74, 0.73]:
    ...     stall = stall.after(loss, min_delta=0.1)
    >>> stall
    Stall(best=0.75, epochs=2)
    """

    best: float = math.inf
    epochs: int = 0

    def after(self, value: float, min_delta: float) -> Stall:
        """Return what holds after one epoch more; NaN is no improvement, nor is less than by `min_delta`."""
        if value < self.best - min_delta:
            return Stall(value, 0)
        return Stall(self.best, self.epochs + 1)
