"""Callbacks: what happens between mini-batches, while no thread computes."""

from __future__ import annotations

import math
import sys
from typing import Any

from tqdm.auto import tqdm

from fastbp.arguments import number, truth, whole
from fastbp.history import TrainingState
from fastbp.monitors import Stall, figure, monitor_of

__all__ = ["Callback", "EarlyStopping", "ProgressBar", "is_watched"]


class Callback:
    """What a training calls; derive from it and override what is needed.

    An exception ends the training with the weights reached, and is raised to the caller of `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> class StopWhenGood(fastbp.Callback):
    ...     def on_epoch_end(self, state):
    ...         state.stop = state.loss < 0.1
    >>> X = np.array([[0.0], [1.0]])
    >>> network = fastbp.Network([1, 4, 1], seed=0)
    >>> optimizer = fastbp.Adam(learning_rate=0.1)
    >>> history = network.fit(X, [0, 1], epochs=1000, optimizer=optimizer, callbacks=[StopWhenGood()], verbose=False)
    >>> history.epochs < 1000
    True
    """

    @property
    def needs(self) -> str | None:
        """Name of a figure that the history must have, such as "validation_loss"; `fit` checks it at the door."""
        return None

    def ahead(self) -> float:
        """Return how many epochs may be computed before `on_epoch_end` is called for the first of them.

        By default 1, so that the network's weights are those of the epoch. A callback that looks at figures only may
        say more, up to infinity: then several epochs of a tiny training set are computed at once, which is faster, and
        the calls come one after the other afterwards.
        """
        return 1

    def on_train_begin(self, state: TrainingState) -> None:
        """Be called before the first mini-batch."""

    def on_progress(self, state: TrainingState) -> None:
        """Be called about every 50 ms, after some mini-batches."""

    def on_epoch_end(self, state: TrainingState) -> None:
        """Be called at the end of each epoch, after the validation."""

    def on_train_end(self, state: TrainingState) -> None:
        """Be called at the end, also after an error or an interrupt."""


class EarlyStopping(Callback):
    """End the training when a figure no longer improves; by default with the weights of the best epoch.

    With `monitor="loss"` it is the stopping by tolerance of scikit-learn's MLP without early stopping, with
    "validation_accuracy" that with.

    Parameters
    ----------
    monitor : {"validation_loss", "validation_accuracy", "loss", "accuracy"}, default "validation_loss"
        The figure; those of the validation need `validation_data` or `validation_fraction`.
    patience : int, default 10
        So many epochs in succession without improvement end the training; at least 1.
    min_delta : float, default 0
        An epoch improves the figure if it makes it better than the best so far by more than that; at least 0.
    restore_best : bool, default True
        However the training ends, also by an error or an interrupt, it leaves the weights (and the state of the
        optimizer) of the epoch in which the figure was best, even by less than `min_delta`.

    Attributes
    ----------
    best : float
        The best figure of the last training; NaN before the first.
    best_epoch : int or None
        Its epoch, counted from 0.
    stopped : bool
        Whether it ended that training.

    Raises
    ------
    ValueError, TypeError
        A value outside its domain, or of the wrong type.

    Examples
    --------
    >>> import fastbp
    >>> X, y = fastbp.datasets.load_digits()
    >>> network = fastbp.Network([64, 30, 10], hidden="relu", output="softmax", seed=0)
    >>> stopping = fastbp.EarlyStopping(patience=3)
    >>> history = network.fit(X, y, epochs=500, validation_fraction=0.2, callbacks=[stopping], verbose=False)
    >>> stopping.stopped, history.epochs - stopping.best_epoch
    (True, 4)
    >>> stopping.best == min(history.validation_loss)
    True
    """

    def __init__(
        self,
        monitor: str = "validation_loss",
        *,
        patience: int = 10,
        min_delta: float = 0.0,
        restore_best: bool = True,
    ) -> None:
        self.monitor = monitor_of(monitor)
        self.patience = whole(patience, "patience", 1)
        self.min_delta = number(min_delta, "min_delta", 0, math.inf, low_allowed=True)
        self.restore_best = truth(restore_best, "restore_best")
        self._begin()

    def _begin(self) -> None:
        self.best, self.best_epoch, self.stopped = math.nan, None, False
        self._least = math.inf
        self._stall = Stall()

    best_epoch: int | None

    @property
    def needs(self) -> str:
        """Name of the figure."""
        return self.monitor

    def ahead(self) -> float:
        """Return how many epochs must pass before this can end the training; 1 where it keeps the best weights."""
        return 1 if self.restore_best else max(1, self.patience - self._stall.epochs)

    def on_train_begin(self, state: TrainingState) -> None:
        """Forget the last training."""
        self._begin()

    def on_epoch_end(self, state: TrainingState) -> None:
        """Look at the figure."""
        epoch = state.history.epochs - 1
        value = figure(state.history, self.monitor, epoch)
        if value < self._least:
            self._least = value
            self.best, self.best_epoch = getattr(state.history, self.monitor)[epoch], epoch
            if self.restore_best:
                state.keep()
        self._stall = self._stall.after(value, self.min_delta)
        if self._stall.epochs >= self.patience:
            state.stop = self.stopped = True


class ProgressBar(Callback):
    """A bar that shows epochs, loss, accuracy and samples a second (tqdm, on a terminal or in a notebook).

    `fit` adds one where `verbose` says so.

    Examples
    --------
    >>> import fastbp
    >>> network = fastbp.Network([1, 2], output="softmax", seed=0)
    >>> history = network.fit([[0.0], [1.0]], [0, 1], epochs=3, callbacks=[fastbp.ProgressBar()], verbose=False)
    >>> history.epochs
    3
    """

    _FORMAT = "{desc} |{bar}| {rate_noinv_fmt}{postfix} [{elapsed}<{remaining}]"

    def __init__(self) -> None:
        self._bar: Any = None

    def ahead(self) -> float:
        """Return infinity: the bar shows figures only."""
        return math.inf

    def on_train_begin(self, state: TrainingState) -> None:
        """Open the bar."""
        total = state.epochs * state.n_samples
        disable = sys.stderr is None or getattr(sys.stderr, "closed", False)
        self._bar = tqdm(
            disable=disable,
            total=total,
            unit=" samples",
            unit_scale=True,
            dynamic_ncols=True,
            file=sys.stderr,
            bar_format=self._FORMAT,
        )

    def on_progress(self, state: TrainingState) -> None:
        """Move it."""
        self._bar.set_description(f"epoch {min(state.history.epochs + 1, state.epochs)}/{state.epochs}", refresh=False)
        shown = {"loss": f"{state.loss:.4f}"}
        if state.accuracy is not None:
            shown["accuracy"] = f"{state.accuracy:.4f}"
        if state.history.validation_loss:
            shown["val_loss"] = f"{state.history.validation_loss[-1]:.4f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(state.history.epochs * state.n_samples + state.samples - self._bar.n)

    def on_epoch_end(self, state: TrainingState) -> None:
        """Show the epoch's figures."""
        self.on_progress(state)

    def on_train_end(self, state: TrainingState) -> None:
        """Close it."""
        self._bar.close()


def is_watched() -> bool:
    """Whether somebody looks on: stderr is a terminal, or this is a notebook."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    if type(get_ipython()).__name__ == "ZMQInteractiveShell":
        return True
    if getattr(sys.stderr, "closed", False):
        return False
    return bool(getattr(sys.stderr, "isatty", lambda: False)())
