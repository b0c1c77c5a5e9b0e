"""Rivals: the same training by fastbp, NumPy and scikit-learn, and what every rival is.

All start from the same weights; `epoch` trains in an order that is given, `run` in orders of its own, as its users do.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from statistics import mode
from typing import Any, ClassVar

import numpy as np
from benchmarks.common import Array, Work, noting_threads

from fastbp import reference

Parameters = tuple[list[Array], list[Array]]

LONG = 1e8  # flops of a mini-batch from which a second core is always worth its barriers


class Rival(ABC):
    """One implementation at work."""

    needs: ClassVar[tuple[str, ...]] = ()
    pinned: ClassVar[bool] = False  # to one core: where threads would only wait for each other
    adam_of_the_paper: ClassVar[bool] = True  # epsilon is added after the bias correction, as in the paper
    threads = 0  # that computed in the last run; 0 where only the library knows

    def __init__(self, work: Work, dtype: str) -> None:
        self.work, self.dtype = work, dtype
        self.X, self.y = work.samples(dtype=dtype)
        self.Y = work.targets(self.y, dtype)
        self.rng = np.random.default_rng(1)
        self.whole = work.batch_size >= work.n  # one mini-batch an epoch, which nobody need shuffle
        start = work.network(dtype)
        self.weights, self.biases = [w.copy() for w in start.weights], [b.copy() for b in start.biases]

    @classmethod
    def suits(cls, work: Work) -> bool:
        """Whether this form can be the best one of its library in that work."""
        return not cls.pinned or work.flops / work.n * work.batch_size < LONG

    @abstractmethod
    def epoch(self, order: Array) -> Any:
        """Train one epoch in that order."""

    @abstractmethod
    def parameters(self) -> Parameters:
        """Return weights (n_out, n_in) and biases."""

    def run(self, epochs: int) -> None:
        """Train epochs, each in a new order."""
        for _ in range(epochs):
            self.epoch(self.order())

    def order(self) -> Array:
        """Return a new order of the samples, where there is one."""
        return np.arange(self.work.n) if self.whole else self.rng.permutation(self.work.n)

    def activations(self) -> tuple[str, ...]:
        """Return those of the layers."""
        return self.work.activations

    def quality(self) -> float:
        """Return the loss over (at most) the first 10 000 samples."""
        rows = slice(10_000)
        loss, activations = self.work.loss, self.activations()
        return reference.matrix.loss(*self.parameters(), activations, loss, self.X[rows], self.Y[rows])


class Fastbp(Rival):
    """fastbp: one call of `fit`."""

    def __init__(self, work: Work, dtype: str) -> None:
        super().__init__(work, dtype)
        self.network = work.network(dtype)
        self.arguments: dict[str, Any] = {"batch_size": work.batch_size, "optimizer": work.optimizer()}

    def epoch(self, order: Array) -> Any:
        """Train in that order by laying the samples out in it."""
        self.network.partial_fit(self.X[order], self.y[order], shuffle=False, **self.arguments)

    def run(self, epochs: int) -> None:
        """Train in orders of its own, and note the threads that it takes most of the time."""
        with noting_threads() as noted:
            self.network.fit(self.X, self.y, epochs=epochs, verbose=False, **self.arguments)
        self.threads = mode(noted) if noted else 1

    def parameters(self) -> Parameters:
        """Return the network's."""
        return list(self.network.weights), list(self.network.biases)


class Numpy(Rival):
    """The reference in matrix form."""

    def __init__(self, work: Work, dtype: str) -> None:
        super().__init__(work, dtype)
        self.optimizer = reference.Optimizer([*self.weights, *self.biases], work.update, work.hyper)

    def epoch(self, order: Array) -> Any:
        """Train on rows gathered for each mini-batch."""
        work = self.work
        for batch in reference.minibatches(work.n, work.batch_size, order):
            X, Y = (self.X, self.Y) if self.whole else (self.X[batch], self.Y[batch])
            _, dw, db = reference.matrix.loss_and_gradients(
                self.weights, self.biases, work.activations, work.loss, X, Y
            )
            self.optimizer.step([*dw, *db])

    def parameters(self) -> Parameters:
        """Return those that the optimizer changes in place."""
        return self.weights, self.biases


class NumpyPinned(Numpy):
    """NumPy on one core."""

    pinned = True


class Sklearn(Rival):
    """scikit-learn's MLP: `max_iter` epochs of one `fit`, without stopping early."""

    needs = ("sklearn",)
    adam_of_the_paper = False

    def __init__(self, work: Work, dtype: str) -> None:
        super().__init__(work, dtype)
        if not self.work.classifies and self.y.shape[1] == 1:
            self.y = self.y[:, 0]
        self.estimator = self.unfitted(batch_size=10)
        classes = {"classes": np.unique(self.y)} if work.classifies else {}
        self.estimator.partial_fit(self.X[:10], self.y[:10], **classes)  # makes the arrays
        for mine, start in zip(self.estimator.coefs_, self.weights, strict=True):
            mine[:] = start.T
        for mine, start in zip(self.estimator.intercepts_, self.biases, strict=True):
            mine[:] = start
        vars(self.estimator).pop("_optimizer", None)  # that of the step before

    def unfitted(self, **parameters: Any) -> Any:
        """Return a new estimator."""
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        work, names = self.work, {"sigmoid": "logistic"}
        return (MLPClassifier if work.classifies else MLPRegressor)(
            hidden_layer_sizes=work.sizes[1:-1], activation=names.get(work.hidden, work.hidden), solver=work.update,
            learning_rate_init=work.hyper["learning_rate"], alpha=0.0, momentum=0.0, nesterovs_momentum=False,
            **parameters,
        )  # fmt: skip

    def epoch(self, order: Array) -> Any:
        """Train in that order by laying the samples out in it."""
        self.estimator.set_params(batch_size=self.work.batch_size, shuffle=False)
        self.estimator.partial_fit(self.X[order], self.y[order])

    def run(self, epochs: int) -> None:
        """Fit a new estimator, as its users do."""
        endless = {"max_iter": epochs, "n_iter_no_change": epochs + 1, "shuffle": not self.whole}
        estimator = self.unfitted(batch_size=self.work.batch_size, **endless)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            estimator.fit(self.X, self.y)

    def parameters(self) -> Parameters:
        """Return those of the estimator that goes on from epoch to epoch."""
        return [w.T for w in self.estimator.coefs_], self.estimator.intercepts_

    def activations(self) -> tuple[str, ...]:
        """Return those of the layers: it has softmax where the work has ten sigmoids."""
        names = {"logistic": "sigmoid"}
        output = self.estimator.out_activation_
        return (*self.work.activations[:-1], names.get(output, output))
