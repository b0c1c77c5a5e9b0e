"""Callbacks: what happens between mini-batches, while no thread computes."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm

from fastbp.history import TrainingState

__all__ = ["Callback", "ProgressBar", "is_watched"]


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

    def on_train_begin(self, state: TrainingState) -> None:
        """Be called before the first mini-batch."""

    def on_progress(self, state: TrainingState) -> None:
        """Be called about every 50 ms, after some mini-batches."""

    def on_epoch_end(self, state: TrainingState) -> None:
        """Be called at the end of each epoch, after the validation."""

    def on_train_end(self, state: TrainingState) -> None:
        """Be called at the end, also after an error or an interrupt."""


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
