"""History: what a training recorded. TrainingState: where it stands, as callbacks see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["History", "TrainingState"]


@dataclass
class History:
    """What a training recorded, one value an epoch.

    Attributes
    ----------
    loss : list of float
        Mean cost over the epoch's samples, each at the moment when it was used (as in Keras).
    accuracy : list of float
        Share of the samples classified rightly, likewise; empty where the targets are no classes.
    validation_loss, validation_accuracy : list of float
        The same of the validation data at the end of each epoch; empty without.
    seconds : list of float
        Time of each epoch's mini-batches.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """Number of epochs completed."""
        return len(self.loss)


@dataclass
class TrainingState:
    """Where a training stands.

    Attributes
    ----------
    network : Network
        At the end of an epoch its weights are those that the epoch reached.
    history : History
        The epochs completed.
    epochs : int
        How many are asked for.
    n_samples : int
        Samples in an epoch.
    samples : int
        Samples done in the current epoch.
    loss : float
        Mean cost over those.
    accuracy : float or None
        Share of those classified rightly; None where the targets are no classes.
    stop : bool
        A callback sets it to end the training after this epoch.
    """

    network: Any
    history: History
    epochs: int
    n_samples: int
    samples: int = 0
    loss: float = float("nan")
    accuracy: float | None = None
    stop: bool = False
