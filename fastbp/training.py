"""Training: the one loop, driven by a `Plan`.

Mini-batches run in chunks of about 50 ms, cut where the work says (never by the clock, so that what is kept after an
error does not depend on it). Between chunks Python has its turn: progress, interrupts; at the end of an epoch
validation, callbacks, history. A tiny training set runs many epochs in one chunk when nobody wants to look in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbp.callbacks import Callback
from fastbp.engine.run import Run, divisors, scales
from fastbp.history import History, TrainingState
from fastbp.kernels.layers import COST, HITS, NORM, PENALTY, SCALE

__all__ = ["Plan", "train"]

# Multiply-adds between two looks of Python: about 50 ms on one core
CHUNK_WORK = 2_000_000_000
# Mini-batches and samples in a chunk at most: their tables stay small
CHUNK_MINIBATCHES = 20_000
CHUNK_SAMPLES = 1 << 18


@dataclass(frozen=True)
class Plan:
    """What a training does; each front end makes its own.

    Attributes
    ----------
    epochs : int
    n_samples : int
    batch_size : int
        At most n_samples; the last mini-batch of an epoch may be shorter.
    order : callable
        Called once an epoch, in order; returns the order of its samples, int64 (n_samples,).
    steps : callable
        (first, count) -> the numbers for the steps first + 1, ..., first + count, one row each; all but SCALE.
    classify : bool
        Whether accuracy means anything.
    validate : callable or None
        Called at the end of each epoch; returns loss and accuracy (or None) of the validation data.
    sample_weight : float64 array (n_samples,) or None
        As how many samples each counts in the mean of its mini-batch, the same as the run's; a mini-batch without
        weight changes nothing. In the mean over an epoch a mini-batch counts by its samples, as in scikit-learn.
    penalty_of_sum : float
        L2 penalty of the sum of costs rather than of their mean: PENALTY is that much times SCALE more (scikit-learn's
        alpha).
    """

    epochs: int
    n_samples: int
    batch_size: int
    order: Callable[[], NDArray[np.int64]]
    steps: Callable[[int, int], NDArray[np.float64]]
    classify: bool
    validate: Callable[[], tuple[float, float | None]] | None = None
    sample_weight: NDArray[np.float64] | None = None
    penalty_of_sum: float = 0.0


@dataclass
class _Epoch:
    """One epoch in the making: its mini-batches, and how far it has come."""

    order: NDArray[np.int64]
    samples: int = 0
    cost: float = 0.0
    hits: float = 0.0
    seconds: float = 0.0


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
        Called at the end of each epoch before callbacks, so that they see its weights; None where nobody looks.

    Raises
    ------
    FloatingPointError
        The loss or a parameter became infinite or NaN; parameters and optimizer's state are those of the chunk's start.
    """
    looked_at = bool(callbacks) or plan.validate is not None
    begun: list[Callback] = []
    try:
        for callback in callbacks:
            callback.on_train_begin(state)
            begun.append(callback)
        for chunk in _chunks(plan, run.work, looked_at, state):
            order, starts = _lay_out(chunk, plan.batch_size)
            n_minibatches = len(starts) - 1
            steps = plan.steps(run.steps, n_minibatches)
            steps[:, SCALE] = scales(divisors(order, starts, plan.sample_weight))
            if plan.penalty_of_sum:
                steps[:, PENALTY] += plan.penalty_of_sum * steps[:, SCALE]
            kept = run.snapshot()
            started = time.perf_counter()
            try:
                report = run.minibatches(order, starts, steps)
            except BaseException:  # an interrupt, too, may come after the loss was lost and before anybody has looked
                if not run.is_finite():
                    run.restore(kept)
                raise
            seconds = time.perf_counter() - started
            n_of_each = np.diff(starts)
            if plan.sample_weight is not None:  # means, times the number of samples
                report[:, [COST, HITS]] *= (n_of_each * steps[:, SCALE])[:, np.newaxis]
            if steps[:, PENALTY].any():
                report[:, COST] += n_of_each * (steps[:, PENALTY] / 2 * report[:, NORM])
            if not (np.isfinite(report[:, COST]).all() and run.is_finite()):
                run.restore(kept)
                raise FloatingPointError(_explain(report, chunk, state.history))
            begin = 0
            for epoch, first, last in chunk:
                count = last - first
                _record(epoch, report[begin : begin + count], last, plan, seconds * count / n_minibatches)
                begin += count
                finished = epoch.samples == plan.n_samples
                if finished:
                    _close(epoch, plan, state.history)
                _show(epoch, state, plan, finished)
                for callback in callbacks:
                    callback.on_progress(state)
                if finished and looked_at:
                    if plan.validate is not None:
                        loss, accuracy = plan.validate()
                        state.history.validation_loss.append(loss)
                        if accuracy is not None:
                            state.history.validation_accuracy.append(accuracy)
                    if publish is not None:
                        publish()
                    for callback in callbacks:
                        callback.on_epoch_end(state)
    finally:
        with ExitStack() as ends:  # whatever one of them raises, the others are called
            for callback in reversed(begun):
                ends.callback(callback.on_train_end, state)


Chunk = list[tuple[_Epoch, int, int]]  # (epoch, first mini-batch, last mini-batch + 1)


def _chunks(plan: Plan, work: int, looked_at: bool, state: TrainingState) -> Iterator[Chunk]:
    """Cut the epochs into chunks; each ends with its epoch where somebody looks at that."""
    n_minibatches = -(-plan.n_samples // plan.batch_size)
    limit = max(1, min(CHUNK_MINIBATCHES, CHUNK_SAMPLES // plan.batch_size, CHUNK_WORK // work))
    chunk: Chunk = []
    room = limit
    for _ in range(plan.epochs):
        if state.stop:
            break
        epoch = _Epoch(plan.order())
        first = 0
        while first < n_minibatches:
            last = min(n_minibatches, first + room)
            chunk.append((epoch, first, last))
            room -= last - first
            if room == 0 or (looked_at and last == n_minibatches):
                yield chunk
                chunk, room = [], limit
            first = last
    if chunk:
        yield chunk


def _lay_out(chunk: Chunk, batch_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the samples of a chunk's mini-batches one after the other, and where each mini-batch begins."""
    orders, starts, at = [], [np.zeros(1, np.int64)], 0
    for epoch, first, last in chunk:
        order = epoch.order[first * batch_size : last * batch_size]
        ends = np.minimum(np.arange(1, last - first + 1, dtype=np.int64) * batch_size, len(order))
        orders.append(order)
        starts.append(at + ends)
        at += len(order)
    return np.ascontiguousarray(np.concatenate(orders)), np.concatenate(starts)


def _record(epoch: _Epoch, report: NDArray[np.float64], last: int, plan: Plan, seconds: float) -> None:
    for cost, hits in report[:, [COST, HITS]].tolist():  # one after the other: the sum is the same for any chunks
        epoch.cost += cost
        epoch.hits += hits
    epoch.samples = min(last * plan.batch_size, plan.n_samples)
    epoch.seconds += seconds


def _close(epoch: _Epoch, plan: Plan, history: History) -> None:
    history.loss.append(epoch.cost / plan.n_samples)
    if plan.classify:
        history.accuracy.append(epoch.hits / plan.n_samples)
    history.seconds.append(epoch.seconds)


def _show(epoch: _Epoch, state: TrainingState, plan: Plan, finished: bool) -> None:
    state.samples = 0 if finished else epoch.samples
    state.loss = epoch.cost / epoch.samples
    state.accuracy = epoch.hits / epoch.samples if plan.classify else None


def _explain(report: NDArray[np.float64], chunk: Chunk, history: History) -> str:
    """Say where the loss was lost, and what usually helps."""
    bad = ~np.isfinite(report[:, COST])
    place = int(np.argmax(bad)) if bad.any() else len(report) - 1
    what = f"the loss became {report[place, COST]}" if bad.any() else "a weight overflowed"
    epochs: list[int] = []
    number = history.epochs
    for _, first, last in chunk:
        epochs += [number] * (last - first)
        number += 1
    minibatch = place
    for _, first, last in chunk:
        if minibatch < last - first:
            minibatch += first
            break
        minibatch -= last - first
    return (
        f"{what} in epoch {epochs[place]}, mini-batch {minibatch} (both counted from 0). Usual "
        "causes: a learning rate that is too large, inputs or targets that are not scaled to about 1, an unbounded "
        "output with a steep loss. The network has the weights from shortly before; lower the learning rate or scale "
        "X, and fit again"
    )
