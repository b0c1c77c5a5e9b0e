"""Perceptron: what the classifier and the regressor have in common - fitting and the forward pass.

Each fit makes an `Architecture`, a `Run` and a `Plan` of its own from the arrays that the estimator has at that moment,
since its users write into them. An estimator holds nothing but parameters, plain arrays and numbers.
"""

from __future__ import annotations

import copy
import math
import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import _check_sample_weight, assert_all_finite, check_is_fitted, validate_data

from fastbp.architecture import Architecture
from fastbp.engine.evaluation import evaluator_of
from fastbp.engine.run import Run
from fastbp.history import History, TrainingState
from fastbp.inputs import read_only, readable, source
from fastbp.lbfgs import minimize
from fastbp.sklearn.chain import chain, packed
from fastbp.sklearn.descent import Descent, Holdout, Improvement
from fastbp.sklearn.objective import Objective, pack, places, unpack
from fastbp.sklearn.parameters import MLPParameters
from fastbp.sklearn.solvers import AdamOptimizer, SGDOptimizer
from fastbp.training import Plan, train

__all__ = ["Perceptron", "Problem", "is_stochastic"]

Floats = NDArray[Any]
STOCHASTIC = ("sgd", "adam")
TOGETHER = 1 << 15  # samples whose orders are kept: no more memory than scikit-learn takes


@dataclass
class Problem:
    """What a fit is given, validated and laid out for the engine.

    Attributes
    ----------
    X : array (n, n_in), float32 or float64
    y : array (n, n_outputs) or (n,)
        Targets, or the numbers of the classes as int64.
    n_outputs : int
    sample_weight : float64 array (n,) or None
    """

    X: Any
    y: NDArray[Any]
    n_outputs: int
    sample_weight: NDArray[np.float64] | None = None

    def targets(self, dtype: Any) -> NDArray[Any]:
        """Return y as the engine reads it: labels, or C-contiguous targets of the network's dtype."""
        return self.y if self.y.ndim == 1 else np.ascontiguousarray(self.y, dtype)


class Perceptron(MLPParameters, ABC):
    """Base of the estimators."""

    # What a subclass says

    @abstractmethod
    def _validated(self, X: Any, y: Any, *, incremental: bool, reset: bool) -> Problem:
        """Return X and y as they are to be learned, or raise what scikit-learn raises."""

    @abstractmethod
    def _natural_output(self) -> str:
        """Return the name of the output activation."""

    @abstractmethod
    def _strata(self, y: NDArray[Any]) -> NDArray[Any] | None:
        """Return what each sample's stratum is when some are held out, None where it does not matter."""

    @abstractmethod
    def _score_outputs(self, outputs: Floats, y: NDArray[Any], sample_weight: Any) -> float:
        """Return the score of a network with these outputs for the targets y."""

    # Fitting

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Fit the network to samples X and targets y.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels or real numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            As how many samples each counts.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            Bad input or parameters, or weights that did not stay finite; an earlier fit is then as it was.
        """
        with self._as_before_on_error():
            self._fit(X, y, sample_weight, incremental=False)
        return self

    @contextmanager
    def _as_before_on_error(self) -> Iterator[None]:
        before = self.__dict__.copy()
        try:
            yield
        except BaseException:  # an interrupt, too, must not leave a part of a fit
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, incremental: bool) -> None:
        hidden = self._hidden_sizes()
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        problem = self._validated(X, y, incremental=incremental, reset=first)
        if sample_weight is not None:
            problem.sample_weight = _checked_weights(sample_weight, problem.X)
        self.n_outputs_ = problem.n_outputs
        self._random_state = check_random_state(self.random_state)
        if first:
            self._initialize([problem.X.shape[1], *hidden, problem.n_outputs], problem.X.dtype)
        if self.solver in STOCHASTIC:
            self._descend(problem, incremental)
        else:
            self._minimize(problem)
        if not all(np.isfinite(array).all() for array in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                "preprocessed."
            )

    def _hidden_sizes(self) -> list[int]:
        given = self.hidden_layer_sizes
        sizes = list(given) if hasattr(given, "__iter__") else [given]
        if np.any(np.array(sizes) <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return [operator.index(size) for size in sizes]

    def _initialize(self, sizes: list[int], dtype: Any) -> None:
        """Draw the weights, and forget what earlier fits have reached."""
        self.n_iter_ = 0
        self.t_ = 0
        self.n_layers_ = len(sizes)
        self.out_activation_ = self._natural_output()
        self.coefs_, self.intercepts_ = [], []
        for n_in, n_out in pairwise(sizes):
            bound = np.sqrt((2.0 if self.activation == "logistic" else 6.0) / (n_in + n_out))
            self.coefs_.append(self._random_state.uniform(-bound, bound, (n_in, n_out)).astype(dtype, copy=False))
            self.intercepts_.append(self._random_state.uniform(-bound, bound, n_out).astype(dtype, copy=False))
        self._best_coefs = [w.copy() for w in self.coefs_]
        self._best_intercepts = [b.copy() for b in self.intercepts_]
        if self.solver in STOCHASTIC:
            self.loss_curve_: list[float] = []
            self._no_improvement_count = 0
            self.validation_scores_: list[float] | None = None
            self.best_loss_: float | None = None
            self.best_validation_score_: float | None = None
            self._held_out: tuple[int, float, NDArray[np.int64]] | None = None

    def _descend(self, problem: Problem, incremental: bool) -> None:
        """Train by sgd or adam."""
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        continues = incremental and hasattr(self, "_optimizer")
        optimizer = copy.copy(self._optimizer) if continues else self._new_optimizer()
        architecture, weights, biases = self._network()
        _check_chain(architecture, problem)
        X, y = _samples(problem.X, architecture.dtype, in_order=not self.shuffle), problem.targets(architecture.dtype)
        samples, holdout = np.arange(problem.X.shape[0]), None
        if self.early_stopping:
            samples, held_out = self._split(problem)
            holdout = self._holdout(problem, y, architecture.dtype, held_out)
        n = len(samples)
        batch_size = self._batch_size(n)
        run = Run(
            architecture, weights, biases, X, y,
            batch_size=batch_size, update=optimizer.update, state=optimizer.slots, steps=optimizer.steps,
            sample_weight=problem.sample_weight,
        )  # fmt: skip
        del weights, biases  # lest the run's end be unpacked beside them
        improvement = Improvement(
            self.tol,
            self.n_iter_no_change,
            count=getattr(self, "_no_improvement_count", 0) if incremental else 0,
            best_loss=_or_else(getattr(self, "best_loss_", None), math.inf),
            best_score=_or_else(getattr(self, "best_validation_score_", None), -math.inf),
        )
        descent = Descent(
            run, optimizer,
            rng=self._random_state, samples=samples, improvement=improvement, holdout=holdout, t=self.t_,
            verbose=bool(self.verbose),
        )  # fmt: skip
        epochs = 1 if incremental else int(self.max_iter)
        plan = Plan(
            epochs, samples, batch_size, descent.order if self.shuffle else None, descent.rates, optimizer.rows, False,
            judge=descent.judge, ahead=descent.ahead, finite=False,
            sample_weight=problem.sample_weight, penalty_of_sum=self.alpha, together=TOGETHER,
        )  # fmt: skip
        state = TrainingState(self, History(), epochs, n)
        try:
            train(run, plan, state)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=5)
        else:
            if not incremental and not state.stop:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                    "converged yet.",
                    ConvergenceWarning,
                    stacklevel=5,
                )
        self._take_over(run, descent, state.history)

    def _new_optimizer(self) -> SGDOptimizer | AdamOptimizer:
        if self.solver == "sgd":
            return SGDOptimizer(
                self.learning_rate_init, self.learning_rate, self.momentum, self.nesterovs_momentum, self.power_t
            )
        return AdamOptimizer(self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon)

    def _batch_size(self, n: int) -> int:
        if isinstance(self.batch_size, str):
            return min(200, n)
        if self.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=6
            )
        return min(int(self.batch_size), n)

    def _split(self, problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows to train on and those held out; a warm start keeps those of the fit that it goes on from."""
        n = problem.X.shape[0]
        rows = np.arange(n)
        kept = getattr(self, "_held_out", None)
        if kept is not None and kept[:2] == (n, self.validation_fraction):
            return np.setdiff1d(rows, kept[2], assume_unique=True), kept[2]
        training, held_out = train_test_split(
            rows, random_state=self._random_state, test_size=self.validation_fraction, stratify=self._strata(problem.y)
        )
        if len(held_out) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        self._held_out = n, self.validation_fraction, held_out
        return training, held_out

    def _holdout(self, problem: Problem, y: NDArray[Any], dtype: Any, rows: NDArray[np.int64]) -> Holdout:
        X_held, y_held = _laid_out(problem.X[rows], dtype), y[rows]
        weights = None if problem.sample_weight is None else problem.sample_weight[rows]
        outputs = np.empty((len(rows), self.n_outputs_), dtype)

        def score(run: Run) -> float:
            wanted = {len(run.architecture.sizes) - 2: outputs}
            evaluator_of(run.architecture).evaluate(run.packed(), X_held, wanted=wanted)
            return self._score_outputs(outputs, y_held, weights)

        return Holdout(score)

    def _take_over(self, run: Run, descent: Descent, history: History) -> None:
        """Make a training's end the estimator's own."""
        holdout, improvement = descent.holdout, descent.improvement
        if holdout is None:
            self.coefs_, self.intercepts_ = _canonical(run, run.parameters.weights)
        else:
            if holdout.best is not None:
                self._best_coefs, self._best_intercepts = _canonical(run, holdout.best)
            # copies: a later fit or its user must not change what is best
            self.coefs_ = [w.copy() for w in self._best_coefs]
            self.intercepts_ = [b.copy() for b in self._best_intercepts]
        self._optimizer = descent.optimizer
        slots = (run.parameters.slot_1, run.parameters.slot_2)[: run.n_slots]
        unpacked = (_canonical(run, slot) for slot in slots)
        self._optimizer.remember(([*coefs, *intercepts] for coefs, intercepts in unpacked), run.steps)
        self._no_improvement_count = improvement.count
        self.n_iter_ = history.epochs
        self.t_ = descent.t + (history.epochs - descent.epochs) * len(descent.samples)
        if history.loss:
            self.loss_ = history.loss[-1]
        self.loss_curve_ = getattr(self, "loss_curve_", [])
        self.loss_curve_ += history.loss
        if holdout is None:
            self.best_loss_, self.validation_scores_, self.best_validation_score_ = improvement.best_loss, None, None
        else:
            scores = getattr(self, "validation_scores_", None) or []
            self.best_loss_, self.best_validation_score_ = None, improvement.best_score
            self.validation_scores_ = scores + holdout.scores

    def _minimize(self, problem: Problem) -> None:
        """Train by L-BFGS, in float64 whatever X is."""
        architecture, weights, biases = self._network(np.float64)
        _check_chain(architecture, problem)
        X, y = _samples(problem.X, architecture.dtype, in_order=True), problem.targets(architecture.dtype)
        self._coef_indptr, self._intercept_indptr = places(architecture.sizes)
        options: dict[str, Any] = {"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol}
        if self.verbose and [int(part) for part in scipy.__version__.split(".")[:2]] < [1, 15]:
            options["iprint"] = 1  # later ones print nothing
        start = pack([w.T for w in weights], biases)
        del weights, biases
        self._unpack(start)  # which is kept in any case: the arrays that it was made of need not be
        result = minimize(Objective(architecture, X, y, problem.sample_weight, self.alpha), start, **options)
        self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)
        self.loss_ = result.fun
        self._unpack(result.x)

    def _unpack(self, packed_parameters: Floats) -> None:
        """Take coefs_ and intercepts_ from one vector."""
        where = self._coef_indptr, self._intercept_indptr
        self.coefs_, self.intercepts_ = unpack(packed_parameters, where)

    def _loss_grad_lbfgs(
        self, packed_coef_inter: Floats, X: Any, y: ArrayLike, sample_weight: Any = None, *_: object
    ) -> tuple[float, NDArray[np.float64]]:
        """Return loss and gradient for a vector of parameters, which become the estimator's; y as a matrix.

        scikit-learn has further arguments, for buffers.
        """
        self._unpack(packed_coef_inter)
        architecture = self._network(np.float64)[0]
        weights = None if sample_weight is None else np.ascontiguousarray(sample_weight, np.float64)
        targets = np.ascontiguousarray(y, architecture.dtype)
        samples = _samples(X, architecture.dtype, in_order=True)
        return Objective(architecture, samples, targets, weights, self.alpha)(packed_coef_inter)

    # The network as it is

    def _network(self, X_dtype: Any = None) -> tuple[Architecture, list[Floats], list[Floats]]:
        """Return what coefs_ and intercepts_ make, for samples of this dtype."""
        return chain(self.coefs_, self.intercepts_, self.activation, self.out_activation_, X_dtype)

    def _outputs(self, X: Any) -> Floats:
        """Return the outputs of the network for samples, an array (n, n_outputs)."""
        given, sparse, in_place = X, scipy.sparse.issparse(X), self._has_nothing_to_validate(X)
        if not in_place:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False, ensure_all_finite=sparse)
        architecture, weights = packed(self, X.dtype)
        if X.shape[1] != architecture.n_in:
            raise ValueError(f"X has {X.shape[1]} features, but coefs_[0] has {architecture.n_in} rows")
        rows = X if in_place and X.dtype == architecture.dtype else _laid_out(X, architecture.dtype)
        outputs = np.empty((X.shape[0], architecture.n_out), architecture.dtype)

        def doubt() -> None:
            """Refuse X as scikit-learn does, if it was not the weights that are not finite."""
            validate_data(self, given, accept_sparse=["csr", "csc"], reset=False)
            # scikit-learn 1.6 overlooks a NaN in swapped bytes; what float64 cannot hold is infinite only now
            assert_all_finite(rows, estimator_name=type(self).__name__, input_name="X")

        wanted = {len(architecture.sizes) - 2: outputs}
        evaluator_of(architecture).evaluate(weights, rows, wanted=wanted, doubt=None if sparse else doubt)
        return outputs

    def _has_nothing_to_validate(self, X: Any) -> bool:
        """Whether X lies as the engine reads it and fits to the fit, so that only its numbers may be wrong."""
        return (
            type(X) is np.ndarray
            and X.dtype in (np.float32, np.float64)
            and X.dtype.isnative
            and X.ndim == 2
            and len(X) > 0
            and X.flags.c_contiguous
            and X.flags.aligned
            and "feature_names_in_" not in self.__dict__
            and X.shape[1] == self.__dict__.get("n_features_in_")
        )

    def _check_is_fitted(self) -> None:
        """Raise NotFittedError before the first fit."""
        if "coefs_" not in self.__dict__:
            check_is_fitted(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def is_stochastic(estimator: Perceptron) -> bool:
    """Return True; raise AttributeError where the solver has no partial_fit."""
    if estimator.solver not in STOCHASTIC:
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


def _check_chain(architecture: Architecture, problem: Problem) -> None:
    """Check that arrays of an earlier fit, or of the user, go with the samples."""
    n_in, n_out = architecture.n_in, architecture.n_out
    if (n_in, n_out) != (problem.X.shape[1], problem.n_outputs):
        raise ValueError(
            f"X has {problem.X.shape[1]} features and y {problem.n_outputs} outputs, but coefs_ leads from {n_in} to "
            f"{n_out}: fit without warm_start, or a new estimator"
        )


def _checked_weights(sample_weight: Any, X: Any) -> NDArray[np.float64]:
    """Return the weights of samples, one each."""
    weights: NDArray[np.float64] = np.ascontiguousarray(_check_sample_weight(sample_weight, X), np.float64)
    total = weights.sum()
    if total == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    if total < 0:
        raise ValueError(f"sample_weight sums to {total}, but its sum must be positive")
    return weights


def _or_else(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _samples(X: Any, dtype: Any, *, in_order: bool) -> Any:
    """Return X, validated, as a training reads it: in place where that is no slower, and sparse as compressed rows."""
    if scipy.sparse.issparse(X):
        return source(X, X.shape[1], dtype)
    # shuffled samples would take another line of the cache for each number, in each epoch
    if not in_order and abs(X.strides[0]) < abs(X.strides[1]):
        X = np.ascontiguousarray(X)
    return readable(X, dtype)


def _laid_out(X: Any, dtype: Any) -> Any:
    """Return X, validated, as an evaluation reads it: in place where it lies so, and sparse as compressed rows."""
    if scipy.sparse.issparse(X):
        return source(X, X.shape[1], dtype)
    return read_only(np.require(X, dtype, ["C", "A"]), dtype)


def _canonical(run: Run, flat: Floats) -> tuple[list[Floats], list[Floats]]:
    """Return coefs and intercepts from one of a run's flat arrays."""
    weights, biases = run.layout.unpack(flat, order="F")
    return [w.T for w in weights], biases
