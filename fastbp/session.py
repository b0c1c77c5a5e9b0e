"""Session: who is told of a training while it runs, and with which weights it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from fastbp.callbacks import Callback
from fastbp.engine.run import Run
from fastbp.history import TrainingState

__all__ = ["Judge", "Session", "Validate"]

Judge = Callable[[TrainingState], object]
Validate = Callable[[], tuple[float, float | None]]


class Session:
    """What a training does beside computing; a context that lasts as long as the training.

    Parameters
    ----------
    run : Run
    state : TrainingState
        `stop` and `keep` work while the session lasts. When it ends, however, what was kept is restored.
    callbacks : sequence of Callback
    publish : callable or None
        Called where the run's weights are to be seen, at the end of each epoch; None where nobody looks.
    validate : callable or None
        Called at the end of each epoch; returns loss and accuracy (or None) of the validation data.
    judge : callable or None
        Called with the state after that.
    ahead : callable or None
        Returns how many epochs may be computed before `judge` sees the first of them; None means 1.
    """

    def __init__(
        self,
        run: Run,
        state: TrainingState,
        callbacks: Sequence[Callback] = (),
        publish: Callable[[], None] | None = None,
        validate: Validate | None = None,
        judge: Judge | None = None,
        ahead: Callable[[], float] | None = None,
    ) -> None:
        self._run, self.state, self._callbacks, self._publish = run, state, callbacks, publish
        self._validate, self._judge, self._ahead = validate, judge, ahead
        self._is_behind = False
        self._kept: Any = None
        self._end = ExitStack()

    def __enter__(self) -> Session:
        with ExitStack() as end:  # whatever one of them raises, the others are called
            begun: list[Callback] = []
            end.callback(self._tell_the_end, begun)
            end.callback(self._leave)
            self.state._keep = self._keep
            for callback in self._callbacks:
                callback.on_train_begin(self.state)
                begun.append(callback)
            self._end = end.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.__exit__(kind, error, traceback)

    def ahead(self) -> float:
        """Return how many epochs may be computed before somebody must look at the first of them."""
        judge = math.inf if self._judge is None else self._ahead() if self._ahead is not None else 1
        return min([1 if self._validate else math.inf, judge, *(callback.ahead() for callback in self._callbacks)])

    @property
    def is_watched(self) -> bool:
        """Whether anybody is told of single epochs."""
        return bool(self._callbacks) or self._judge is not None or self._validate is not None

    def progress(self, *, is_behind: bool = False) -> None:
        """Tell that some mini-batches are done; whether those of later epochs are computed already."""
        self._is_behind = is_behind
        for callback in self._callbacks:
            callback.on_progress(self.state)

    def end_epoch(self, *, is_behind: bool = False) -> None:
        """Tell that an epoch has ended, which the history knows; whether later epochs are computed already."""
        self._is_behind = is_behind
        history = self.state.history
        if self._validate is not None:
            loss, accuracy = self._validate()
            history.validation_loss.append(loss)
            if accuracy is not None:
                history.validation_accuracy.append(accuracy)
        if self._judge is not None:
            self._judge(self.state)
        if self._publish is not None and not is_behind:
            self._publish()
        for callback in self._callbacks:
            callback.on_epoch_end(self.state)

    def _keep(self) -> None:
        if self._is_behind:
            raise RuntimeError(
                "keep was called for an epoch, but epochs after it are computed already: ahead() must return 1 where "
                "the weights of each epoch may be wanted"
            )
        self._kept = self._run.snapshot()

    def _leave(self) -> None:
        self.state._keep = None
        if self._kept is not None:
            self._run.restore(self._kept)
            if self._publish is not None:
                self._publish()

    def _tell_the_end(self, begun: Sequence[Callback]) -> None:
        with ExitStack() as ends:
            for callback in reversed(begun):
                ends.callback(callback.on_train_end, self.state)
