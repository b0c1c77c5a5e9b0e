"""History: what a training recorded. TrainingState: where it stands, as callbacks see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["History", "TrainingState"]


@dataclass
class History:
    """What a training recorded, one value an epoch; an iteration of L-BFGS is one.

    Attributes
    ----------
    loss : list of float
        Mean cost over the epoch's samples, each at the moment when it was used (as in Keras); with the L2 term.
    accuracy : list of float
        Share of the samples classified rightly, likewise; empty where the targets are neither labels nor one-hot rows
        nor, with one output, probabilities.
    validation_loss, validation_accuracy : list of float
        The same of the validation data at the end of each epoch; empty without.
    seconds : list of float
        Time of each epoch's mini-batches.
    learning_rate : list of float
        That of each epoch's first mini-batch; empty with L-BFGS, which has none.
    message : str
        Why L-BFGS ended, in SciPy's words; empty with other optimizers.

    Examples
    --------
    >>> import fastbp
    >>> network = fastbp.Network([1, 2], output="softmax", seed=0)
    >>> history = network.fit([[0.0], [1.0]], [0, 1], epochs=2, verbose=False)
    >>> len(history.loss), history.accuracy, history.validation_loss
    (2, [0.5, 0.5], [])
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    message: str = ""

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
    kept_epoch : int or None
        How many epochs were completed when the training was last told to `keep` what it had; None if it was not.

    Examples
    --------
    >>> import fastbp
    >>> class Teller(fastbp.Callback):
    ...     def on_epoch_end(self, state):
    ...         print(f"epoch {state.history.epochs} of {state.epochs}, {state.n_samples} samples")
    >>> network = fastbp.Network([1, 2], output="softmax", seed=0)
    >>> history = network.fit([[0.0], [1.0]], [0, 1], epochs=2, callbacks=[Teller()], verbose=False)
    epoch 1 of 2, 2 samples
    epoch 2 of 2, 2 samples
    """

    network: Any
    history: History
    epochs: int
    n_samples: int
    samples: int = 0
    loss: float = float("nan")
    accuracy: float | None = None
    stop: bool = False
    kept_epoch: int | None = None
    _keep: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    def keep(self) -> None:
        """Remember the present weights and the optimizer's state: the training will end with them.

        However it ends, also by an error or an interrupt. A later call takes the place of an earlier one. To be called
        by a callback, not after the training's end.

        Raises
        ------
        RuntimeError
            No training is under way.

        Examples
        --------
        >>> import fastbp
        >>> class KeepFirst(fastbp.Callback):
        ...     def on_epoch_end(self, state):
        ...         if state.history.epochs == 1:
        ...             state.keep()
        >>> one, other = (fastbp.Network([1, 2], output="softmax", seed=0) for _ in range(2))
        >>> history = one.fit([[0.0], [1.0]], [0, 1], epochs=5, callbacks=[KeepFirst()], verbose=False)
        >>> history = other.fit([[0.0], [1.0]], [0, 1], epochs=1, verbose=False)
        >>> bool((one.weights[0] == other.weights[0]).all())
        True
        """
        if self._keep is None:
            raise RuntimeError("keep was called while no training was under way, but there is nothing to keep then")
        self._keep()
        self.kept_epoch = self.history.epochs
