"""Fitting: the trainings that a network's user asks for, from what the user wrote to the weights they leave behind.

A network is trained by one thread at a time, which holds its claim meanwhile.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import lbfgs
from fastbp.architecture import Architecture
from fastbp.arguments import number, pair, threads, truth, whole
from fastbp.callbacks import Callback, ProgressBar, is_watched
from fastbp.engine.evaluation import Evaluator
from fastbp.engine.run import Run
from fastbp.engine.sparse import SparseRows
from fastbp.history import History, TrainingState
from fastbp.inputs import check_trusted, source
from fastbp.kernels.layers import PENALTY
from fastbp.kernels.shuffling import shuffle as shuffle_samples
from fastbp.measures import classifies, measure
from fastbp.optimizers import LBFGS, Optimizer, OptimizerState, optimizer_of
from fastbp.schedules import Pace, Schedule
from fastbp.targets import Targets, sample_weights, targets
from fastbp.training import Plan, train

__all__ = ["Learner", "exclusively", "fit"]

Floats = NDArray[Any]
T = TypeVar("T")


class Learner(Protocol):
    """What a training reads and changes of a network."""

    _rng: np.random.Generator
    _optimizer: OptimizerState | None

    @property
    def architecture(self) -> Architecture:
        """Sizes, activations, loss, bias and dtype."""

    @property
    def weights(self) -> tuple[Floats, ...]:
        """Weights of each layer."""

    @property
    def biases(self) -> tuple[Floats, ...]:
        """Biases of each layer."""

    def _publish(self, weights: Sequence[Floats], biases: Sequence[Floats]) -> None:
        """Let others see these weights and biases; forget the optimizer."""


@dataclass(frozen=True)
class _Data:
    """What a training is to learn: the samples chosen, and those for validation."""

    samples: Floats | SparseRows
    wanted: Targets
    classify: bool
    chosen: NDArray[np.int64]
    validation: tuple[Floats | SparseRows, Targets] | None
    n_threads: int | None
    weight: NDArray[np.float64] | None
    penalty: float


@dataclass(frozen=True)
class _Claim:
    """The right of one thread to train a network."""

    network: Learner
    thread: int


_claims: dict[int, _Claim] = {}  # by the id of the network; one operation on it is atomic


def _release_after_fork() -> None:
    """Free, in a forked child, the networks that threads train which it does not have."""
    for key, claim in list(_claims.items()):
        if claim.thread != threading.get_ident():
            lock: Any = claim.network._rng.bit_generator.lock  # a thread that drew left it locked
            lock._at_fork_reinit()  # as the standard library's own locks; to copy what is locked may wait for ever
            del _claims[key]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_after_fork)


def exclusively(network: Learner, work: Callable[[], T]) -> T:
    """Do work while this thread holds the claim on a network, and return what it returns.

    Raises RuntimeError where another thread holds it, or this one already.
    """
    claim = _Claim(network, threading.get_ident())
    try:  # an interrupt may come between any two steps
        try:
            if _claims.setdefault(id(network), claim) is not claim:
                raise RuntimeError(
                    "this network is in training already: wait for that fit to end, or train a copy made by "
                    "copy.deepcopy"
                )
            return work()
        finally:
            _release(claim)
    except BaseException:  # a second signal may have come where the claim was about to be given back
        _release(claim)
        raise


def _release(claim: _Claim) -> None:
    """Give a claim back, if it was got."""
    if _claims.get(id(claim.network)) is claim:
        del _claims[id(claim.network)]


def fit(
    network: Learner,
    X: ArrayLike,
    y: ArrayLike,
    epochs: int,
    batch_size: int,
    optimizer: str | Optimizer | LBFGS,
    validation_data: tuple[ArrayLike, ArrayLike] | None,
    shuffle: bool,
    callbacks: Sequence[Callback],
    verbose: bool | None,
    n_threads: int | None,
    validation_fraction: float | None,
    *,
    resume: bool,
    sample_weight: ArrayLike | None,
    l2: float,
) -> History:
    """Train a network: `Network.fit`, or with `resume` its `partial_fit`."""
    a = network.architecture
    epochs = whole(epochs, "epochs", 0)
    batch_size = whole(batch_size, "batch_size", 1)
    rule = optimizer_of(optimizer)
    penalty = number(l2, "l2", 0, float("inf"), low_allowed=True)
    if isinstance(rule, LBFGS):
        if resume:
            raise ValueError("optimizer is L-BFGS, which takes all samples at once and does not continue: use fit")
        if epochs != 1:
            raise ValueError(
                f"epochs is {epochs}, but L-BFGS counts its own iterations: leave epochs out and write "
                f"optimizer=LBFGS(max_iterations={max(1, epochs)})"
            )
        lbfgs.scipy_optimize()  # an error before anything is done, where there is none
    shuffle = truth(shuffle, "shuffle")
    watchers = _callbacks(callbacks)
    if is_watched() if verbose is None else truth(verbose, "verbose"):
        watchers.append(ProgressBar())
    n_threads = threads(n_threads)
    samples = source(X, a.n_in, a.dtype, trusted=True)
    wanted = targets(y, len(samples), a.n_out, a.dtype, a.loss, a.output)
    weight = sample_weights(sample_weight, len(samples))
    classify = classifies(a, wanted)
    n_held_out = _held_out(validation_fraction, len(samples), validation_data)
    if n_held_out or epochs == 0 or isinstance(rule, LBFGS):
        # otherwise all of them are met in the first epoch, where a number that is lost shows them
        check_trusted(samples)
    validation = None
    if validation_data is not None:
        X_validation, y_validation = pair(validation_data, "validation_data", "(X, y)")
        samples_v = source(X_validation, a.n_in, a.dtype, name="validation_data[0]")
        wanted_v = targets(y_validation, len(samples_v), a.n_out, a.dtype, a.loss, a.output, name="validation_data[1]")
        validation = samples_v, wanted_v
    schedules = [] if isinstance(rule, LBFGS) else [rule.schedule]
    _check_needs([*watchers, *schedules], classify, validation is not None or n_held_out > 0)

    def work() -> History:
        chosen, validated = np.arange(len(samples) - n_held_out), validation
        if n_held_out:
            drawn = network._rng.permutation(len(samples))
            chosen, held_out = np.sort(drawn[n_held_out:]), np.sort(drawn[:n_held_out])
            measured = samples.take(held_out) if isinstance(samples, SparseRows) else samples[held_out]
            validated = measured, wanted.take(held_out)
        data = _Data(samples, wanted, classify, chosen, validated, n_threads, weight, penalty)
        if isinstance(rule, LBFGS):
            return _minimize(network, data, rule, watchers, publishes=bool(callbacks))
        remembered = OptimizerState.fresh(rule)
        if resume and network._optimizer is not None:
            remembered = network._optimizer.handed_to(rule)
        return _descend(
            network, data, rule, remembered, epochs, batch_size, shuffle, watchers,
            publishes=bool(callbacks),
        )  # fmt: skip

    return exclusively(network, work)


def _descend(
    network: Learner,
    data: _Data,
    rule: Optimizer,
    remembered: OptimizerState,
    epochs: int,
    batch_size: int,
    shuffle: bool,
    watchers: Sequence[Callback],
    *,
    publishes: bool,
) -> History:
    """Train mini-batch by mini-batch."""
    n = len(data.chosen)
    size = min(batch_size, n)
    shuffled = shuffle and size < n  # one mini-batch has no order
    run = Run(
        network.architecture, network.weights, network.biases, data.samples, data.wanted.array, batch_size=batch_size,
        update=rule.update, state=remembered.slots, steps=remembered.step, classify=data.classify,
        n_threads=data.n_threads, sample_weight=data.weight,
    )  # fmt: skip
    state = TrainingState(network, History(), epochs, n)
    pace = Pace(remembered.schedule, remembered.progress, n, state.history)

    def order(samples: NDArray[np.int64]) -> None:
        samples[:] = data.chosen
        shuffle_samples(samples, network._rng.random(n))

    def publish() -> None:
        network._publish(*run.canonical())

    def steps(first: int, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        table = rule.steps(first, rates)
        table[:, PENALTY] = data.penalty
        return table

    def judge(state: TrainingState) -> None:
        pace.after(state.history.epochs)

    def leave() -> None:
        reached = state.history.epochs if state.kept_epoch is None else state.kept_epoch
        optimizer = replace(remembered, step=run.steps, slots=tuple(run.state()), progress=pace.after(reached))
        publish()  # all or, without memory, nothing
        network._optimizer = before if refused else optimizer

    plan = Plan(
        epochs, data.chosen, size, order if shuffled else None, pace.rates, steps, data.classify,
        _validation(data, run), judge if pace.watches else None, pace.ahead, sample_weight=data.weight,
    )  # fmt: skip
    drawn_before, before, refused = network._rng.bit_generator.state, network._optimizer, False
    try:
        train(run, plan, state, callbacks=watchers, publish=publish if publishes else None)
    except FloatingPointError:
        # as if the orders of epochs that do not count had not been drawn
        network._rng.bit_generator.state = drawn_before
        for _ in range(state.history.epochs if shuffled else 0):
            order(np.empty_like(data.chosen))
        refused = True
        check_trusted(data.samples)
        refused = False
        raise
    finally:
        try:
            leave()
        except KeyboardInterrupt:  # a second Ctrl-C: what was learned is worth a millisecond more
            leave()
            raise
    return state.history


def _minimize(network: Learner, data: _Data, rule: LBFGS, watchers: Sequence[Callback], *, publishes: bool) -> History:
    """Train on all samples at once."""
    n = len(data.chosen)
    run = Run(
        network.architecture, network.weights, network.biases, data.samples, data.wanted.array, batch_size=n,
        update=None, classify=data.classify, n_threads=data.n_threads, sample_weight=data.weight,
    )  # fmt: skip
    state = TrainingState(network, History(), rule.max_iterations, n)

    def publish() -> None:
        network._publish(*run.canonical())

    try:
        lbfgs.train(
            lbfgs.Objective(run, data.chosen, data.weight, penalty=data.penalty), rule, state,
            classify=data.classify, callbacks=watchers, publish=publish if publishes else None,
            validate=_validation(data, run),
        )  # fmt: skip
    finally:
        try:
            publish()
        except KeyboardInterrupt:
            publish()
            raise
    return state.history


def _validation(data: _Data, run: Run) -> Callable[[], tuple[float, float | None]] | None:
    """Return what measures the validation data with a run's present weights."""
    if data.validation is None:
        return None
    samples, wanted = data.validation
    evaluator = Evaluator(run.architecture)
    return lambda: measure(evaluator, run.packed(), samples, wanted, data.n_threads)


def _held_out(validation_fraction: Any, n: int, validation_data: Any) -> int:
    """Return how many samples a user wants held out."""
    if validation_fraction is None:
        return 0
    if validation_data is not None:
        raise ValueError("validation_data and validation_fraction are both given, but only one can be: leave one out")
    fraction = number(validation_fraction, "validation_fraction", 0, 1, low_allowed=False)
    count = math.ceil(fraction * n)
    if count >= n:
        raise ValueError(
            f"validation_fraction is {validation_fraction!r}, which holds all of {n} samples out: give less, or more "
            "samples"
        )
    return count


def _check_needs(watchers: Sequence[Callback | Schedule], classify: bool, validated: bool) -> None:
    """Refuse whoever watches a figure that this training does not record."""
    recorded = ["loss", "accuracy"] if classify else ["loss"]
    recorded += [f"validation_{name}" for name in recorded] if validated else []
    for watcher in watchers:
        if watcher.needs is not None and watcher.needs not in recorded:
            raise ValueError(
                f"{type(watcher).__name__} watches {watcher.needs!r}, but this training records only "
                f"{', '.join(recorded)}: give validation_data or validation_fraction for the validation's figures; "
                "accuracy needs classes as targets"
            )


def _callbacks(callbacks: Any) -> list[Callback]:
    if isinstance(callbacks, Callback):
        raise TypeError("callbacks is one Callback, but must be a sequence of them: write callbacks=[callback]")
    try:
        checked = list(callbacks)
    except TypeError:
        raise TypeError(
            f"callbacks is {callbacks!r}, but must be a sequence of instances of fastbp.Callback: write [instance]"
        ) from None
    for callback in checked:
        if not isinstance(callback, Callback):
            hint = "; write an instance rather than the class" if isinstance(callback, type) else ""
            raise TypeError(f"callbacks holds {callback!r}, but must hold instances of fastbp.Callback{hint}")
    return checked
