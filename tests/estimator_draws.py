"""Draws: random estimators and the problems they are fitted to, and how far two fits of one draw lie apart.

A draw is the same wherever it is made. Its problem is small, so that rounding has little time to grow: what two right
implementations make of it differs by the order in which they add.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import _multilayer_perceptron as mlp

# The bounds of the issue: of the layer's largest weight, after ten epochs and after ten iterations of L-BFGS.
BOUNDS = {"float64": 1e-9, "float32": 1e-5}
LBFGS_BOUND = 1e-6

KINDS = ["binary", "multiclass", "multilabel", "squared_error", "squared_error, several", "poisson", "poisson, several"]
LAYOUTS = ["C", "F", "strided", "csr", "csc"]
HIDDEN: list[Any] = [(), 9, (16,), (33,), (12, 7), (20, 1, 6), [5, 5]]


@dataclass(frozen=True)
class Draw:
    """An estimator's parameters and the problem it is fitted to."""

    number: int
    kind: str
    dtype: str
    layout: str
    weighted: str
    y_dtype: str
    n: int
    n_in: int
    parameters: dict[str, Any]
    seed_is_a_generator: bool

    @property
    def class_name(self) -> str:
        """The estimator that fits this kind."""
        return "MLPClassifier" if self.kind in ("binary", "multiclass", "multilabel") else "MLPRegressor"

    @property
    def bound(self) -> float:
        """How far weights may lie apart, in units of their layer's largest."""
        return LBFGS_BOUND if self.parameters["solver"] == "lbfgs" else BOUNDS[self.dtype]

    @property
    def sums_outputs(self) -> bool:
        """Whether scikit-learn's loss is the sum over outputs divided by their number, and fastbp's the sum."""
        return self.kind == "squared_error, several"

    def problem(self) -> tuple[Any, Any, Any]:
        """Return X, y and the samples' weights; the same at each call."""
        rng = np.random.default_rng([20260, self.number])
        X = rng.standard_normal((self.n, self.n_in))
        X[rng.random(X.shape) < (0.6 if self.layout in ("csr", "csc") else 0.05)] = 0
        n_out = {"binary": 1, "multiclass": 4, "multilabel": 3}.get(self.kind, 3 if "several" in self.kind else 1)
        z = np.tanh(X @ rng.standard_normal((self.n_in, n_out))) + 0.3 * rng.standard_normal((self.n, n_out))
        y: Any
        if self.kind == "binary":
            y = np.array(["no", "yes"], object)[(z[:, 0] > 0).astype(int)]
        elif self.kind == "multiclass":
            y = np.array([3, 5, 8, 13])[z.argmax(axis=1)]
        elif self.kind == "multilabel":
            y = (z > 0).astype(int)
        elif self.kind.startswith("poisson"):
            y = rng.poisson(np.exp(z)).astype(self.y_dtype)
        else:
            y = (8 * z if self.y_dtype == "int64" else z).astype(self.y_dtype)
        if self.class_name == "MLPRegressor" and n_out == 1:
            y = y[:, 0]
        weights: Any = {
            "none": lambda: None,
            "real": lambda: rng.uniform(0.2, 3.0, self.n),
            "whole": lambda: rng.integers(1, 4, self.n),
            "some zero": lambda: rng.integers(0, 3, self.n),
        }[self.weighted]()
        return lay_out(X.astype(self.dtype), self.layout), y, weights

    def estimator(self, module: Any) -> Any:
        """Return the unfitted estimator of that module."""
        parameters = dict(self.parameters)
        if self.seed_is_a_generator:
            parameters["random_state"] = np.random.RandomState(parameters["random_state"])
        return getattr(module, self.class_name)(**parameters)

    def __str__(self) -> str:
        shown = {
            **self.parameters,
            "dtype": self.dtype,
            "layout": self.layout,
            "sample_weight": self.weighted,
            "y": self.y_dtype,
        }
        return f"{self.number}: {self.kind}, {self.n} x {self.n_in}, {shown}"


def lay_out(X: Any, layout: str) -> Any:
    """Return the same numbers in another layout."""
    if layout in ("csr", "csc"):
        return sparse.csr_array(X) if layout == "csr" else sparse.csc_array(X)
    if layout == "strided":
        wide = np.full((len(X), 2 * X.shape[1]), np.nan, X.dtype)
        wide[:, ::2] = X
        return wide[:, ::2]
    return np.asarray(X, order="C" if layout == "C" else "F")


def make_draw(number: int, solver: str) -> Draw:
    """Return the draw of that number."""
    rng = np.random.default_rng([number, len(solver)])

    def one_of(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    kind = KINDS[number % len(KINDS)]
    dtype = one_of("float32", "float64")
    early = bool(solver != "lbfgs" and rng.random() < 0.35)
    n = int(rng.integers(50, 110))
    regression = kind not in ("binary", "multiclass", "multilabel")
    parameters: dict[str, Any] = {
        "hidden_layer_sizes": HIDDEN[rng.integers(len(HIDDEN))],
        "activation": one_of("identity", "logistic", "tanh", "relu"),
        "solver": solver,
        "alpha": one_of(0, 1e-4, 0.01, 1.0),
        "max_iter": 10,
        "random_state": int(rng.integers(1000)),
    }
    if regression:
        parameters["loss"] = kind.split(",")[0]
    if solver == "lbfgs":
        parameters["tol"] = one_of(1e-4, 0)
        parameters["max_fun"] = one_of(15000, 15000, 8)
    else:
        parameters |= {
            "batch_size": one_of("auto", 7, 16, 32, n // 2, 10 * n),
            "shuffle": bool(rng.random() < 0.8),
            "early_stopping": early,
            "tol": one_of(1e-4, 0, 0.02),
            "n_iter_no_change": one_of(10, 1, 2, np.inf),
        }
        if early:
            parameters["validation_fraction"] = one_of(0.1, 0.3)
    if solver == "sgd":
        parameters |= {
            "learning_rate": one_of("constant", "invscaling", "adaptive"),
            "learning_rate_init": one_of(1e-3, 0.01, 0.02 if regression else 0.1),
            "power_t": one_of(0.5, 0.2, 0),
            "momentum": one_of(0.9, 0.5, 0),
            "nesterovs_momentum": bool(rng.random() < 0.5),
        }
        if parameters["learning_rate"] == "adaptive":  # so that it stalls within ten epochs, and twice
            parameters |= {"n_iter_no_change": 1, "tol": one_of(0.02, 0.2)}
    elif solver == "adam":
        parameters |= {
            "learning_rate_init": one_of(1e-3, 3e-3, 0.02),
            "beta_1": one_of(0.9, 0.5, 0),
            "beta_2": one_of(0.999, 0.9),
            "epsilon": one_of(1e-8, 1e-8, 1e-4),
        }
    full_batch = solver == "lbfgs" or parameters["batch_size"] in ("auto", 10 * n)  # else a batch may weigh nothing
    weighted = one_of("none", "none", "real", "some zero" if full_batch else "whole")
    y_dtype = one_of(dtype, "float64", "int64") if regression else "labels"
    return Draw(
        number, kind, dtype, LAYOUTS[rng.integers(len(LAYOUTS))], weighted, y_dtype, n, int(rng.integers(2, 24)),
        parameters, bool(rng.random() < 0.25),
    )  # fmt: skip


@contextmanager
def other_losses(**losses: Callable[..., Any]) -> Iterator[None]:
    """Put functions in the place of scikit-learn's losses."""
    kept = dict(mlp.LOSS_FUNCTIONS)
    mlp.LOSS_FUNCTIONS.update(losses)
    try:
        yield
    finally:
        mlp.LOSS_FUNCTIONS.update(kept)


def summed_over_outputs(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
    """Return the loss whose gradient scikit-learn computes: the sum over outputs, where its own is their mean."""
    return 0.5 * np.average((y_true - y_pred) ** 2, weights=sample_weight, axis=0).sum()


def fit(draw: Draw, module: Any, change: Callable[[Any], Any] | None = None) -> Any:
    """Return the fitted estimator of that module; `change` is applied to X first."""
    X, y, weights = draw.problem()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Got `batch_size` less than 1 or larger than sample size")
        return draw.estimator(module).fit(X if change is None else change(X), y, sample_weight=weights)


class InFloat64:
    """scikit-learn's estimators as they would compute in float64 with a float32 X, from the weights drawn for it.

    Its L-BFGS evaluates loss and gradient in the dtype of X, at parameters that it rounds to it, and keeps in float64
    what comes out. That is float32's rounding, amplified; fastbp's L-BFGS computes in float64 throughout.
    """

    class MLPClassifier(neural_network.MLPClassifier):
        """Starts from rounded weights."""

        def _init_coef(self, fan_in: int, fan_out: int, dtype: Any) -> Any:
            return [part.astype(dtype) for part in super()._init_coef(fan_in, fan_out, np.float32)]

    class MLPRegressor(neural_network.MLPRegressor):
        """Starts from rounded weights."""

        def _init_coef(self, fan_in: int, fan_out: int, dtype: Any) -> Any:
            return [part.astype(dtype) for part in super()._init_coef(fan_in, fan_out, np.float32)]


def fit_of_scikit_learn(draw: Draw, change: Callable[[Any], Any] | None = None) -> tuple[Any, bool]:
    """Return scikit-learn's fit, mended where fastbp is documented to differ, and whether it clipped a probability."""
    change = change or (lambda X: X)
    clipped = []

    def watched(loss: Callable[..., Any]) -> Callable[..., Any]:
        def watching(y_true: Any, y_prob: Any, sample_weight: Any = None) -> Any:
            right = np.where(y_true, y_prob, 1 - y_prob if loss is binary else 1)
            clipped.append(bool((right < np.finfo(y_prob.dtype).eps).any()))
            return loss(y_true, y_prob, sample_weight)

        return watching

    binary = mlp.LOSS_FUNCTIONS["binary_log_loss"]
    losses = {name: watched(mlp.LOSS_FUNCTIONS[name]) for name in ("log_loss", "binary_log_loss")}
    if draw.sums_outputs:
        losses["squared_error"] = summed_over_outputs
    with other_losses(**losses):
        if draw.parameters["solver"] == "lbfgs" and draw.dtype == "float32":
            fitted = fit(draw, InFloat64, lambda X: change(X.astype(np.float64)))
        else:
            fitted = fit(draw, neural_network, change)
    return fitted, any(clipped)


def one_ulp_away(X: Any) -> Any:
    """Return X with each of its numbers moved to one of its two neighbours; zeros stay, as sparse input keeps them."""
    rng = np.random.default_rng(7)
    moved = X.copy()  # a strided X becomes a contiguous one, which changes nothing but the order of additions
    values = moved.data if sparse.issparse(moved) else moved
    towards = np.where(rng.random(values.shape) < 0.5, -np.inf, np.inf).astype(values.dtype)
    values[...] = np.where(values == 0, values, np.nextafter(values, towards))
    return moved


def figures(estimator: Any) -> dict[str, Any]:
    """Return the numbers of a fit: what is counted must be equal, what is measured must be near."""
    names = ["loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_"]
    return {name: getattr(estimator, name) for name in names if getattr(estimator, name, None) is not None}


def distance(ours: Any, theirs: Any) -> float:
    """Return the largest difference of two fits' weights and biases, each in units of its layer's largest weight."""
    largest = 0.0
    for l, w in enumerate(theirs.coefs_):
        scale = np.abs(w).max()
        for mine, other in (ours.coefs_[l], w), (ours.intercepts_[l], theirs.intercepts_[l]):
            difference = np.abs(mine.astype(np.float64) - other).max()
            if difference:
                largest = max(largest, float(difference / scale))
    return largest


def distance_of_figures(ours: Any, theirs: Any) -> float:
    """Return the largest difference of two fits' losses and scores, in units of themselves, or of 1 if that is more."""
    mine, other = figures(ours), figures(theirs)
    assert mine.keys() == other.keys()
    largest = 0.0
    for name, values in other.items():
        a, b = np.asarray(mine[name], np.float64), np.asarray(values, np.float64)
        if a.shape != b.shape:
            return np.inf
        difference = np.abs(a - b) / np.maximum(1, np.abs(b))
        largest = max(largest, float(np.max(np.where(a == b, 0, difference))))
    return largest
