"""Training: the one loop, driven by a `Plan`.

Mini-batches run in chunks of about 50 ms, cut where the work says, never by the clock. A chunk is a part of one epoch,
or several whole epochs of a tiny training set, as many as may pass before somebody wants to look. Between chunks Python
has its turn: progress, interrupts; at the end of an epoch history, validation, the plan's judge, callbacks.

After an error everything is as the last complete epoch before it left it, whoever looked on: what training changes is
copied where a chunk begins an epoch, and epochs of a chunk that came before the one at fault are computed again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.callbacks import Callback
from fastbp.engine.run import Run, divisors, scales
from fastbp.history import TrainingState
from fastbp.kernels.layers import COST, HITS, NORM, PENALTY, SCALE
from fastbp.session import Judge, Session, Validate

__all__ = ["Plan", "train"]

# Multiply-adds between two looks of Python: about 50 ms on two cores
CHUNK_WORK = 6_000_000_000
# Mini-batches in a chunk at most: their tables stay small
CHUNK_MINIBATCHES = 20_000
# Samples in a chunk at most: in the smallest networks they take longer than their multiply-adds
CHUNK_SAMPLES = 3 << 20
# The first chunk has fewer epochs: nobody has drawn their orders meanwhile
SHORTER_AT_FIRST = 3


@dataclass(frozen=True)
class Plan:
    """What a training does; each front end makes its own.

    Attributes
    ----------
    epochs : int
    samples : int64 array (n_samples,)
        Those of an epoch, in the order that they have where they are not shuffled.
    batch_size : int
        At most n_samples; the last mini-batch of an epoch may be shorter.
    order : callable or None
        Called once an epoch, in order, for some while those before are computed; puts the epoch's samples in their
        order into an int64 array (n_samples,). None where they are not shuffled.
    rates : callable
        (first, epochs) -> the learning rates, float64, of the optimizer's steps first + 1, first + 2, ..., which belong
        to those epochs of this training (int64, from 0). Asked before a chunk begins, for some while the one before is
        computed, and again for the same steps after an error.
    steps : callable
        (first, rates) -> the numbers for the steps first + 1, first + 2, ... at these learning rates, one row each; all
        but SCALE.
    classify : bool
        Whether accuracy means anything.
    validate : callable or None
        Called at the end of each epoch; returns loss and accuracy (or None) of the validation data.
    judge : callable or None
        Called with the `TrainingState` at the end of each epoch, after the validation and before the callbacks. It may
        set `stop`, change what `rates` and `steps` return from now on, and `keep` the weights. What it raises ends the
        training like an error of a callback.
    ahead : callable or None
        Returns how many epochs may be computed before `judge` sees the first of them, at least 1, also infinity: before
        the last of them it neither stops, nor changes a step, nor looks at weights. None means 1.
    finite : bool
        Whether numbers must stay finite; False goes on with infinities and NaN, and makes no copies to go back to.
    sample_weight : float64 array (n_samples,) or None
        As how many samples each counts in the mean of its mini-batch, the same as the run's; a mini-batch without
        weight changes nothing. In the mean over an epoch a mini-batch counts by its samples, as in scikit-learn.
    penalty_of_sum : float
        L2 penalty of the sum of costs rather than of their mean: PENALTY is that much times SCALE more (scikit-learn's
        alpha).
    together : int
        Samples in the orders of a chunk of several epochs at most, and in those that are drawn while it is computed.
    """

    epochs: int
    samples: NDArray[np.int64]
    batch_size: int
    order: Callable[[NDArray[np.int64]], None] | None
    rates: Callable[[int, NDArray[np.int64]], NDArray[np.float64]]
    steps: Callable[[int, NDArray[np.float64]], NDArray[np.float64]]
    classify: bool
    validate: Validate | None = None
    judge: Judge | None = None
    ahead: Callable[[], float] | None = None
    finite: bool = True
    sample_weight: NDArray[np.float64] | None = None
    penalty_of_sum: float = 0.0
    together: int = 1 << 17

    @property
    def n_samples(self) -> int:
        """Samples in an epoch."""
        return len(self.samples)

    @property
    def n_minibatches(self) -> int:
        """Mini-batches in an epoch."""
        return -(-self.n_samples // self.batch_size)


class _Epochs:
    """Epochs in the making, from the one with number `first` on, and how far each has come."""

    def __init__(self, first: int, n: int) -> None:
        self.first, self.n = first, n
        self.samples = np.zeros(n, np.int64)
        self.cost, self.hits, self.seconds = np.zeros((3, n))
        self.learning_rate = np.full(n, math.nan)


def train(
    run: Run,
    plan: Plan,
    state: TrainingState,
    *,
    callbacks: Sequence[Callback] = (),
    publish: Callable[[], None] | None = None,
) -> None:
    """Carry out a plan.

    Parameters
    ----------
    run : Run
    plan : Plan
    state : TrainingState
        Its history is filled.
    callbacks : sequence of Callback
    publish : callable or None
        Called where the run's weights are to be seen, at the end of each epoch; None where nobody looks.

    Raises
    ------
    FloatingPointError
        The loss or a parameter became infinite or NaN, and the plan does not allow it. Parameters, optimizer's state
        and history are those of the last complete epoch before. (Unless the judge or a callback told the state to keep
        others, as after any end.)
    """
    with Session(run, state, callbacks, publish, plan.validate, plan.judge, plan.ahead) as session:
        loop = _Loop(run, plan, session)
        try:
            for chunk in loop.chunks():
                loop.carry_out(chunk)
        except BaseException:  # an interrupt, too, may come after a number was lost and before anybody has looked
            try:
                loop.go_back_if_lost()
            except KeyboardInterrupt:
                loop.go_back_if_lost()
                raise
            raise


Tables = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]  # order, starts and steps of mini-batches


@dataclass
class _Chunk:
    """Mini-batches that are computed without Python: first <= s < last of each of these epochs.

    Those of several epochs are all of them. Their order is that of all samples of each epoch, once where all have the
    same.
    """

    epochs: _Epochs
    first: int
    last: int
    tables: Tables
    rates: NDArray[np.float64]


class _Loop:
    """The mini-batches of a training, chunk by chunk."""

    def __init__(self, run: Run, plan: Plan, session: Session) -> None:
        self.run, self.plan, self.session, self.state = run, plan, session, session.state
        self.steps = run.steps  # of the optimizer before the first epoch
        # mini-batches in a chunk; epochs whose orders may be kept; epochs in a chunk
        self.limit = max(1, min(CHUNK_MINIBATCHES, CHUNK_SAMPLES // plan.batch_size, CHUNK_WORK // run.work))
        self.kept = plan.together // plan.n_samples if plan.order else plan.epochs
        self.together = min(self.limit // plan.n_minibatches, self.kept)
        self.snapshot: Any = None  # from where the first epoch of the present chunk begins
        self.number = 0  # of the next epoch
        self.unseen = 0  # epochs from there on in which nobody can have a say any more
        self.following: _Chunk | None = None  # their first chunk, if it is ready
        self.spare = np.empty(0, np.int64)  # where their orders may lie

    def chunks(self) -> Iterator[_Chunk]:
        """Cut the epochs into chunks: parts of an epoch, or whole epochs as long as nobody looks in between."""
        plan, order = self.plan, np.empty(0, np.int64)
        while self.number < plan.epochs and not self.state.stop:
            self.unseen = int(min(plan.epochs - self.number, self.session.ahead()))
            if self.following is not None:
                chunk, self.spare = self.following, order
            else:
                shorter = SHORTER_AT_FIRST if self.number == 0 and plan.order else 1
                chunk = self.begin(self.together // shorter, order)
            self.following, order = None, chunk.tables[0]
            self.number += chunk.epochs.n
            self.unseen -= chunk.epochs.n
            yield chunk
            while chunk.last < plan.n_minibatches:
                chunk = self.cut(chunk.epochs, chunk.last, chunk.last + self.limit, order)
                yield chunk

    def prepare(self) -> None:
        """Make the next epochs' first chunk ready: their orders are drawn, and their numbers told."""
        self.following = self.begin(self.together, self.spare)

    def begin(self, most: int, order: NDArray[np.int64]) -> _Chunk:
        """Return the first chunk of the next epochs, at most so many; `order` may be used for their samples."""
        n, count = self.plan.n_samples, max(1, min(most, self.unseen))
        if self.plan.order is None:
            order = self.plan.samples
        else:
            order = order if len(order) == count * n else np.empty(count * n, np.int64)
            for begin in range(0, count * n, n):
                self.plan.order(order[begin : begin + n])
        return self.cut(_Epochs(self.number, count), 0, self.limit, order)

    def cut(self, epochs: _Epochs, first: int, last: int, order: NDArray[np.int64]) -> _Chunk:
        """Return the mini-batches first <= s < last of these epochs, as far as there are so many."""
        plan, last = self.plan, min(last, self.plan.n_minibatches)
        places, minibatches = np.arange(epochs.n, dtype=np.int64), np.arange(first, last, dtype=np.int64)
        begins = plan.n_samples * places[:, np.newaxis] + plan.batch_size * minibatches
        end = plan.n_samples * (epochs.n - 1) + min(plan.batch_size * last, plan.n_samples)
        starts = np.append(begins, np.int64(end))
        before = self.steps + plan.n_minibatches * epochs.first + first
        rates = plan.rates(before, epochs.first + np.repeat(places, last - first))
        rows = plan.steps(before, rates)
        rows[:, SCALE] = scales(divisors(order, starts, plan.sample_weight))
        rows[:, PENALTY] += plan.penalty_of_sum * rows[:, SCALE]
        return _Chunk(epochs, first, last, (order, starts, rows), rates)

    def carry_out(self, chunk: _Chunk) -> None:
        """Compute a chunk, and give everybody their turn after each of its epochs."""
        plan, state = self.plan, self.state
        if plan.finite and chunk.first == 0:
            self.snapshot = self.run.snapshot(self.snapshot)
        trouble = self.compute(chunk)
        epochs, finished = chunk.epochs, chunk.last == plan.n_minibatches
        n = self.completed(epochs) if trouble else epochs.n
        each = 1 if self.session.is_watched else max(n, 1)  # how many at a time: all, where nobody is told of any
        for i in range(each - 1, n, each):
            if finished:
                self.close(epochs, i + 1 - each, i + 1)
            is_behind = not trouble and i + 1 < n
            self.show(epochs, i, finished)
            self.session.progress(is_behind=is_behind)
            if finished:
                self.session.end_epoch(is_behind=is_behind)
        if trouble:
            done = state.history.epochs if state.kept_epoch is None else state.kept_epoch
            raise FloatingPointError(trouble.format(done=done))

    def compute(self, chunk: _Chunk) -> str:
        """Compute a chunk and count it; where that fails, go back to the last good epoch and say what happened."""
        run = self.run
        before = run.steps
        started = time.perf_counter()
        try:
            ready = self.following is not None or not self.kept or self.unseen < 1
            meanwhile = None if ready else self.prepare
            report = run.minibatches(*chunk.tables, meanwhile=meanwhile)
            seconds = time.perf_counter() - started
            finite = not self.plan.finite or (bool(np.isfinite(report[:, COST]).all()) and not self.is_lost(chunk))
        except BaseException:  # an interrupt, too: what is complete counts, and `train` goes back from what is lost
            if not self.plan.finite or run.is_finite():
                report = run.report[: run.steps - before]
                self.count(chunk, report, time.perf_counter() - started)
                self.close(chunk.epochs, 0, self.completed(chunk.epochs))
            raise
        trouble = ""
        if not finite:
            trouble, good = self.go_back(chunk, report[:, COST])
            report, seconds = report[:good], seconds * good / len(report)
        self.count(chunk, report, seconds)
        return trouble

    def is_lost(self, chunk: _Chunk) -> bool:
        """Whether a parameter is not finite where a chunk ends epochs; until then the loss tells, or nobody looks."""
        return chunk.last == self.plan.n_minibatches and not self.run.is_finite()

    def go_back_if_lost(self) -> None:
        """Go back to the last complete epoch if a parameter is not finite and should be."""
        if self.plan.finite and self.snapshot is not None and not self.run.is_finite():
            self.run.restore(self.snapshot)

    def count(self, chunk: _Chunk, report: NDArray[np.float64], seconds: float) -> None:
        """Add the mini-batches that a report tells of, the first ones of a chunk, to their epochs."""
        (_, starts, steps), epochs = chunk.tables, chunk.epochs
        n, of_epoch = len(report), chunk.last - chunk.first
        n_of_each, steps = starts[1 : n + 1] - starts[:n], steps[:n]
        sums = np.zeros((2, epochs.n, of_epoch))
        terms = sums.reshape(2, -1)[:, :n]
        terms[COST], terms[HITS] = report[:, COST], report[:, HITS]
        if self.plan.sample_weight is not None:  # means, times the number of samples
            terms *= n_of_each * steps[:, SCALE]
        if steps[:, PENALTY].any():
            terms[COST] += n_of_each * (steps[:, PENALTY] / 2 * report[:, NORM])
        sums[:, 0, 0] += epochs.cost[0], epochs.hits[0]
        begun = np.s_[: -(-n // of_epoch)]
        minibatches = np.clip(n - of_epoch * np.arange(epochs.n), 0, of_epoch)[begun]
        if chunk.first == 0:
            epochs.learning_rate[begun] = chunk.rates[::of_epoch][begun]
        # one after the other: the same for any chunks
        epochs.cost[begun], epochs.hits[begun] = np.add.accumulate(sums, axis=2)[:, begun, -1]
        epochs.samples[begun] = np.minimum((chunk.first + minibatches) * self.plan.batch_size, self.plan.n_samples)
        epochs.seconds[begun] += seconds * minibatches / n

    def completed(self, epochs: _Epochs) -> int:
        """Return how many of these epochs are complete."""
        return int(np.count_nonzero(epochs.samples == self.plan.n_samples))

    def close(self, epochs: _Epochs, begin: int, end: int) -> None:
        """Write begin <= i < end of these epochs down."""
        history, n = self.state.history, self.plan.n_samples
        history.loss += (epochs.cost[begin:end] / n).tolist()
        if self.plan.classify:
            history.accuracy += (epochs.hits[begin:end] / n).tolist()
        history.seconds += epochs.seconds[begin:end].tolist()
        history.learning_rate += epochs.learning_rate[begin:end].tolist()

    def show(self, epochs: _Epochs, i: int, finished: bool) -> None:
        """Tell the state how far epoch i of these has come."""
        n = int(epochs.samples[i])
        self.state.samples = 0 if finished else n
        self.state.loss = float(epochs.cost[i]) / n
        self.state.accuracy = float(epochs.hits[i]) / n if self.plan.classify else None

    def go_back(self, chunk: _Chunk, costs: NDArray[np.float64]) -> tuple[str, int]:
        """Find the mini-batch where a number was lost, and go back to the last complete epoch before it.

        Returns what to say, and how many mini-batches of the chunk still count.
        """
        run, n_minibatches = self.run, self.plan.n_minibatches
        skipped = chunk.first
        bad = np.append(~np.isfinite(costs), True)
        lost = skipped + int(np.argmax(bad))  # the first mini-batch whose loss is lost, counted from the snapshot
        try:
            run.restore(self.snapshot)
            since = chunk if skipped == 0 else self.cut(_Epochs(chunk.epochs.first, 1), 0, chunk.last, chunk.tables[0])
            tables = since.tables
            place = _first_overflow(run, tables, 0, lost)
            seen = place == lost and lost - skipped < len(costs)  # X that was changed meanwhile shows it nowhere again
            what = f"the loss became {costs[lost - skipped]}" if seen else "a weight overflowed"
            good = place // n_minibatches
            run.restore(self.snapshot)
            _advance(run, tables, 0, good * n_minibatches)
            if not run.is_finite():  # X was changed meanwhile
                good = 0
                run.restore(self.snapshot)
        except BaseException:  # interrupted half-way: the snapshot is the last state that is known to be finite
            try:
                run.restore(self.snapshot)
            except KeyboardInterrupt:
                run.restore(self.snapshot)
                raise
            raise
        message = (
            f"{what} in epoch {chunk.epochs.first + good}, mini-batch {place % n_minibatches} (both counted from 0). "
            "Usual causes: a learning rate that is too large, inputs or targets that are not scaled to about 1, an "
            "unbounded output with a steep loss. The network has the weights and the optimizer the state that they had "
            "after {done} epochs of this training; lower the learning rate or scale X, and fit again"
        )
        return message, good * n_minibatches


def _advance(run: Run, tables: Tables, begin: int, end: int) -> None:
    """Train on the mini-batches begin <= s < end of these tables."""
    order, starts, steps = tables
    if begin < end:
        run.minibatches(order, starts[begin : end + 1], steps[begin:end])


def _first_overflow(run: Run, tables: Tables, begin: int, end: int) -> int:
    """Return the first mini-batch begin <= s < end after which a number of the run is not finite, or end.

    The run, finite, stands before `begin`. Numbers that are lost stay lost, so that halves can be left out.
    """
    while begin < end:
        before = run.snapshot()
        middle = (begin + end + 1) // 2
        _advance(run, tables, begin, middle)
        if run.is_finite():
            begin = middle
            continue
        run.restore(before)
        if middle == begin + 1:
            break
        end = middle
    return begin
