"""Descent: the epochs of one fit by sgd or adam, as scikit-learn draws, measures and ends them.

It is what `fastbp.training.train` asks for the order of samples and the numbers of the steps, and tells each epoch's
loss. Nothing of the estimator is changed meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.run import Run
from fastbp.history import TrainingState
from fastbp.sklearn.solvers import AdamOptimizer, SGDOptimizer

__all__ = ["Descent", "Holdout", "Improvement"]

Floats = NDArray[Any]


@dataclass
class Improvement:
    """What training has reached, by its own loss or by the score of samples held out.

    Attributes
    ----------
    tol : float
    patience : float
        Epochs without improvement that are borne; inf bears any number.
    count : int
        Epochs since the last improvement by more than tol.
    best_loss, best_score : float
    """

    tol: float
    patience: float
    count: int = 0
    best_loss: float = math.inf
    best_score: float = -math.inf

    def see_loss(self, loss: float) -> None:
        """Compare the loss of an epoch with the best."""
        self.count = self.count + 1 if loss > self.best_loss - self.tol else 0
        if loss < self.best_loss:
            self.best_loss = loss

    def see_score(self, score: float) -> bool:
        """Compare the score of an epoch with the best; return whether it is better."""
        self.count = self.count + 1 if score < self.best_score + self.tol else 0
        better = score > self.best_score
        if better:
            self.best_score = score
        return better


@dataclass
class Holdout:
    """The samples held out for early stopping.

    Attributes
    ----------
    score : callable
        Run -> score of the samples held out, with the run's present parameters.
    best : flat array or None
        The parameters of the best score in this fit, in the run's layout.
    """

    score: Callable[[Run], float]
    scores: list[float] = field(default_factory=list)
    best: Floats | None = None


class Descent:
    """The epochs of one fit.

    Parameters
    ----------
    run : Run
    optimizer : SGDOptimizer or AdamOptimizer
        Its learning rate is changed while the epochs go by.
    rng : numpy.random.RandomState
        Shuffles the samples before each epoch.
    samples : int64 array
        The rows of X that are trained on.
    improvement : Improvement
        Changed likewise.
    holdout : Holdout or None
        Likewise.
    t : int
        Samples seen before.
    verbose : bool

    Attributes
    ----------
    epochs : int
        Epochs judged.
    t : int
        Samples seen by their ends.
    """

    def __init__(
        self,
        run: Run,
        optimizer: SGDOptimizer | AdamOptimizer,
        *,
        rng: np.random.RandomState,
        samples: NDArray[np.int64],
        improvement: Improvement,
        holdout: Holdout | None,
        t: int,
        verbose: bool,
    ) -> None:
        self.run = run
        self.optimizer = optimizer
        self.rng = rng
        self.samples = samples
        self.improvement = improvement
        self.holdout = holdout
        self.t = t
        self.verbose = verbose
        self.epochs = 0

    def ahead(self) -> float:
        """Return how many epochs may pass before one can be the last, or change the learning rate."""
        if self.verbose or self.holdout is not None:
            return 1
        return max(1, self.improvement.patience + 1 - self.improvement.count)

    def order(self, samples: NDArray[np.int64]) -> None:
        """Plan one epoch more: put the order of its samples there."""
        self.rng.shuffle(self.samples)
        samples[:] = self.samples

    def rates(self, first: int, epochs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the learning rate of each mini-batch, which belongs to the epoch with that number."""
        begin, end = int(epochs[0]), int(epochs[-1]) + 1
        of_epochs = [
            self.optimizer.rate_after(self.t + (epoch - self.epochs) * len(self.samples)) for epoch in range(begin, end)
        ]
        if begin == self.epochs:
            of_epochs[0] = self.optimizer.learning_rate
        return np.array(of_epochs)[epochs - begin]

    def judge(self, state: TrainingState) -> None:
        """Take note of an epoch's end; training may stop with it."""
        loss = state.history.loss[-1]
        self.epochs += 1
        self.t += len(self.samples)
        self._say(f"Iteration {self.epochs}, loss = {loss:.8f}")
        improvement = self.improvement
        if self.holdout is None:
            improvement.see_loss(loss)
        else:
            score = self.holdout.score(self.run)
            self.holdout.scores.append(score)
            self._say(f"Validation score: {score:f}")
            if improvement.see_score(score):
                self.holdout.best = self.run.parameters.weights.copy()
        self.optimizer.learning_rate = self.optimizer.rate_after(self.t)
        if improvement.count <= improvement.patience:
            return
        outcome = self.optimizer.stalled()
        what = "Training loss" if self.holdout is None else "Validation score"
        self._say(
            f"{what} did not improve more than tol={improvement.tol:f} for {improvement.patience} consecutive epochs. "
            + (outcome or f"Setting learning rate to {self.optimizer.learning_rate:f}")
        )
        if outcome is None:
            improvement.count = 0
        else:
            state.stop = True

    def _say(self, line: str) -> None:
        if self.verbose:
            print(line)
