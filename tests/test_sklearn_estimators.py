"""What fastbp's estimators decide themselves: looking ahead, arrays written by users, dtypes, memory of the solvers."""

from __future__ import annotations

import copy
import gc
import importlib
import math
import sys
import threading
import tracemalloc
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import fastbp.sklearn
from fastbp.engine.evaluation import layout_of
from fastbp.engine.run import Run
from fastbp.history import History, TrainingState
from fastbp.sklearn import MLPClassifier, MLPRegressor, perceptron
from fastbp.sklearn.chain import KEPT, architecture_of, packed
from fastbp.sklearn.descent import Descent, Improvement
from fastbp.sklearn.objective import Objective, pack, places, unpack
from fastbp.sklearn.perceptron import _samples
from fastbp.sklearn.solvers import AdamOptimizer, SGDOptimizer
from fastbp.training import Plan, train

RNG = np.random.default_rng(5)
X = RNG.standard_normal((60, 4))
Y = np.stack([X[:, 0] ** 2, X[:, 1] - X[:, 2]], axis=1)
LABELS = np.array(["a", "b", "c"])[np.digitize(X[:, 0], [-0.4, 0.4])]


@pytest.fixture(autouse=True)
def not_converged() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def same_bits(one: Any, other: Any) -> bool:
    return all(
        np.array_equal(a, b)
        for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True)
    )


# Epochs ahead of their judge


@pytest.mark.parametrize("parameters", [
    {"tol": 0.05, "n_iter_no_change": 3},
    {"tol": 0.05, "n_iter_no_change": 1, "learning_rate": "adaptive", "learning_rate_init": 0.1},
    {"tol": 0, "learning_rate": "invscaling", "power_t": 0.3},
    {"n_iter_no_change": np.inf},
], ids=str)  # fmt: skip
def test_epochs_ahead_change_nothing(parameters: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """A verbose fit looks at each epoch, a silent one at as few as it must; with RandomState as it is left behind."""
    fits = []
    for verbose in False, True:
        rng = np.random.RandomState(3)
        estimator = MLPRegressor(
            hidden_layer_sizes=(5,), solver="sgd", batch_size=16, max_iter=60, random_state=rng, verbose=verbose,
            **parameters,
        ).fit(X, Y)  # fmt: skip
        fits.append((estimator, rng.random_sample()))
    (silent, drawn), (verbose_one, drawn_too) = fits
    assert same_bits(silent, verbose_one)
    assert silent.loss_curve_ == verbose_one.loss_curve_
    assert silent.n_iter_ == verbose_one.n_iter_ == capsys.readouterr().out.count("Iteration")
    assert silent._optimizer.learning_rate == verbose_one._optimizer.learning_rate
    assert drawn == drawn_too


def test_a_silent_fit_looks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = []
    minibatches = Run.minibatches

    def counted(self: Run, *args: Any, **options: Any) -> Any:
        chunks.append(len(args[2]))
        return minibatches(self, *args)

    monkeypatch.setattr(Run, "minibatches", counted)
    MLPRegressor(hidden_layer_sizes=(5,), batch_size=30, max_iter=100, n_iter_no_change=100, tol=0).fit(X, Y)
    assert chunks == [200]
    chunks.clear()
    estimator = MLPRegressor(hidden_layer_sizes=(5,), batch_size=30, n_iter_no_change=4, tol=1e6).fit(X, Y)
    assert chunks == [10, 2]  # the first epoch always improves on nothing, the next five do not
    assert estimator.n_iter_ == 6


def test_a_tiny_fit_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    MLPClassifier(hidden_layer_sizes=(5,), max_iter=5).fit(X, LABELS).predict(X)


def test_improvement_counts_as_scikit_learn_does() -> None:
    seen = Improvement(tol=0.1, patience=2)
    counts = []
    for loss in 1.0, 0.95, 0.85, 0.85, math.nan, 0.5:
        seen.see_loss(loss)
        counts.append((seen.count, seen.best_loss))
    assert counts == [(0, 1.0), (1, 0.95), (0, 0.85), (1, 0.85), (0, 0.85), (0, 0.5)]
    scored = Improvement(tol=0.1, patience=2)
    assert [scored.see_score(score) for score in (0.5, 0.55, math.nan, 0.4, 0.7)] == [True, True, False, False, True]
    assert (scored.count, scored.best_score) == (0, 0.7)


def test_the_rates_of_epochs_ahead() -> None:
    optimizer = SGDOptimizer(0.5, "invscaling", 0.9, True, 0.5)
    descent = Descent(
        None, optimizer, rng=None, samples=np.arange(3), improvement=Improvement(0, 10), holdout=None, t=5,
        verbose=False,
    )  # fmt: skip
    expected = [0.5, 0.5, 0.5 / 9**0.5, 0.5 / 9**0.5, 0.5 / 12**0.5]  # the first epoch of a fit has the first rate
    np.testing.assert_allclose(descent.rates(0, np.array([0, 0, 1, 1, 2])), expected, rtol=1e-15)
    descent.judge(TrainingState(None, History(loss=[1.0]), 9, 3))
    np.testing.assert_allclose(descent.rates(2, np.array([1, 2])), [0.5 / 9**0.5, 0.5 / 12**0.5], rtol=1e-15)
    assert descent.ahead() == 11


# What a solver remembers


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_the_optimizer_holds_what_scikit_learn_s_holds(solver: str) -> None:
    ours, theirs = (
        module.MLPRegressor(hidden_layer_sizes=(5,), solver=solver, batch_size=16, max_iter=3, random_state=1)
        .fit(X, Y)
        ._optimizer
        for module in (fastbp.sklearn, neural_network)
    )
    assert vars(ours).keys() == vars(theirs).keys()
    for name, expected in vars(theirs).items():
        if isinstance(expected, list):
            for a, b in zip(getattr(ours, name), expected, strict=True):
                assert a.shape == b.shape
                np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)
        elif isinstance(expected, str):
            assert getattr(ours, name) == expected
        else:
            assert getattr(ours, name) == pytest.approx(expected, rel=1e-14), name


def test_partial_fit_leaves_the_optimizer_of_a_copy_alone() -> None:
    estimator = MLPRegressor(hidden_layer_sizes=(5,), random_state=1).partial_fit(X, Y)
    before = estimator._optimizer
    t, first = before.t, before.ms[0].copy()
    estimator.partial_fit(X, Y)
    assert (before.t, estimator._optimizer.t) == (t, 2 * t)
    assert np.array_equal(before.ms[0], first)


def test_without_momentum_nothing_is_remembered() -> None:
    estimator = MLPRegressor(hidden_layer_sizes=(5,), solver="sgd", momentum=0, random_state=1).partial_fit(X, Y)
    assert estimator._optimizer.velocities == []
    assert AdamOptimizer(0.1, 0.9, 0.999, 1e-8).slots == []


# Arrays that users write


@pytest.mark.parametrize("change", [
    lambda e: e.coefs_.__setitem__(0, e.coefs_[0][:, :-1]),
    lambda e: e.intercepts_.__setitem__(0, e.intercepts_[0][:-1]),
    lambda e: e.intercepts_.pop(),
    lambda e: e.coefs_.clear(),
    lambda e: e.coefs_.__setitem__(1, e.coefs_[1].ravel()),
], ids=["columns", "bias", "biases", "none", "dimensions"])  # fmt: skip
def test_arrays_that_make_no_network(change: Any) -> None:
    estimator = MLPRegressor(hidden_layer_sizes=(5,), max_iter=1).fit(X, Y)
    change(estimator)
    for call in lambda: estimator.predict(X), lambda: estimator.partial_fit(X, Y):
        with pytest.raises(ValueError, match="do not make a network: each coefs_"):
            call()


def test_weights_for_other_columns() -> None:
    estimator = MLPRegressor(hidden_layer_sizes=(5,), max_iter=1).fit(X, Y)
    estimator.coefs_[0] = estimator.coefs_[0][:3]
    with pytest.raises(ValueError, match=r"X has 4 features, but coefs_\[0\] has 3 rows"):
        estimator.predict(X)
    with pytest.raises(ValueError, match="X has 4 features and y 2 outputs, but coefs_ leads from 3 to 2"):
        estimator.partial_fit(X, Y)


def test_another_output_activation_counts() -> None:
    """A known way to the logits of a classifier."""
    estimator = MLPClassifier(hidden_layer_sizes=(5,), max_iter=3, random_state=0).fit(X, LABELS)
    probabilities = estimator.predict_proba(X)
    estimator.out_activation_ = "identity"
    logits = np.exp(estimator.predict_proba(X))
    np.testing.assert_allclose(logits / logits.sum(axis=1, keepdims=True), probabilities, rtol=1e-12)


def test_fitted_arrays_are_the_user_s() -> None:
    for parameters in {}, {"early_stopping": True}, {"solver": "lbfgs"}:
        estimator = MLPRegressor(hidden_layer_sizes=(5,), max_iter=3, **parameters).fit(X, Y)
        for array in estimator.coefs_ + estimator.intercepts_:
            assert array.flags.writeable
            assert array.flags.c_contiguous
        for array in estimator.coefs_ + estimator.intercepts_:
            array[...] = 0
        assert not estimator.predict(X).any()


@pytest.mark.parametrize("trained", [np.float32, np.float64])
@pytest.mark.parametrize("asked", [np.float16, np.float32, np.float64, np.int8, np.int64, np.longdouble])
def test_dtype_of_predictions(trained: Any, asked: Any) -> None:
    """What NumPy makes of X @ coefs_, in the two dtypes that there are."""
    ours, theirs = (
        module.MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, random_state=0).fit(X.astype(trained), Y)
        for module in (fastbp.sklearn, neural_network)
    )
    samples = (3 * X).astype(asked)
    expected = theirs.predict(samples)
    found = ours.predict(samples)
    assert found.dtype == (np.float32 if expected.dtype == np.float32 else np.float64)
    np.testing.assert_allclose(found, expected.astype(found.dtype), rtol=1e-4, atol=1e-5)


# Weights of samples


@pytest.mark.parametrize(("total", "error"), [(0.0, ZeroDivisionError), (-6.0, ValueError)])
def test_weights_without_a_positive_sum(total: float, error: type[Exception]) -> None:
    weights = np.ones(60)
    weights[:30] = (total - 30) / 30
    with pytest.raises(error, match=r"sum"):
        MLPRegressor().fit(X, Y, sample_weight=weights)


def test_a_mini_batch_without_weight_changes_nothing() -> None:
    weights = np.where(np.arange(60) < 20, 0.0, 1.0)
    parameters: dict[str, Any] = {
        "hidden_layer_sizes": (5,), "shuffle": False, "batch_size": 20, "max_iter": 1, "random_state": 2,
        "solver": "sgd", "momentum": 0,
    }  # fmt: skip
    weighted = MLPRegressor(**parameters).fit(X, Y, sample_weight=weights)
    assert same_bits(weighted, MLPRegressor(**parameters).fit(X[20:], Y[20:]))


# L-BFGS


def test_vectors_of_parameters() -> None:
    where = places((4, 3, 2))
    vector = np.arange(23.0)
    coefs, intercepts = unpack(vector, where)
    assert [array.shape for array in coefs + intercepts] == [(4, 3), (3, 2), (3,), (2,)]
    assert np.array_equal(pack(coefs, intercepts), vector)
    coefs[1][0, 0] = -1
    assert vector[12] == -1


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_that_of_the_loss(weighted: bool) -> None:
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.1, 2, 60) if weighted else None
    objective = Objective(architecture_of((4, 3, 2), "tanh", "identity", "float64"), X, Y, weights, 0.7)
    vector = rng.standard_normal(23)
    loss, gradient = objective(vector)
    gradient = gradient.copy()
    for j in range(23):
        step = np.zeros(23)
        step[j] = 1e-5
        difference = (objective(vector + step)[0] - objective(vector - step)[0]) / 2e-5
        assert difference == pytest.approx(gradient[j], rel=1e-6, abs=1e-8)
    outputs = np.tanh(X @ vector[:12].reshape(4, 3) + vector[18:21]) @ vector[12:18].reshape(3, 2) + vector[21:]
    expected = 0.5 * np.average(((outputs - Y) ** 2).sum(axis=1), weights=weights)
    total = 60 if weights is None else weights.sum()
    assert loss == pytest.approx(expected + 0.35 * (vector[:18] ** 2).sum() / total, rel=1e-13)


# Errors


def test_numbers_that_are_not_finite_go_on_where_the_plan_bears_them() -> None:
    a = architecture_of((4, 3, 2), "identity", "identity", "float64")
    run = Run(a, [np.ones((3, 4)), np.ones((2, 3))], [np.zeros(3), np.zeros(2)], X, Y, batch_size=60, update="sgd")
    optimizer = SGDOptimizer(1e200, "constant", 0.0, False, 0.5)
    state = TrainingState(None, History(), 4, 60)
    plan = Plan(
        4, np.arange(60), 60, None, lambda first, epochs: np.full(len(epochs), 1e200), optimizer.rows, False,
        finite=False,
    )  # fmt: skip
    train(run, plan, state)
    assert run.steps == len(state.history.loss) == 4
    assert not run.is_finite()


def test_without_scikit_learn_the_import_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn" or name.startswith("fastbp.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        ImportError, match=r"scikit-learn 1\.6 or later: install it by  pip install 'fastbp\[sklearn\]'"
    ):
        importlib.import_module("fastbp.sklearn")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_unpacked_are_the_rows(dtype: str) -> None:
    layout = layout_of(architecture_of((5, 37, 3), "relu", "identity", dtype))
    rng = np.random.default_rng(0)
    weights, biases = [rng.random((37, 5)), rng.random((3, 37))], [rng.random(37), rng.random(3)]
    rows, columns = (layout.unpack(layout.pack(weights, biases), order) for order in ("C", "F"))
    for w, by_rows, by_columns in zip(weights, rows[0], columns[0], strict=True):
        assert by_columns.flags.f_contiguous
        assert np.array_equal(by_rows, w.astype(dtype))
        assert np.array_equal(by_columns, by_rows)


LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "as the engine reads it": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "lists": np.ndarray.tolist,
    "every other row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "swapped bytes": lambda X: X.astype(X.dtype.newbyteorder()),
    "sparse": scipy.sparse.csr_array,
}


IN_MEMORY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "columns": np.asfortranarray,
    "rows of columns": lambda X: np.repeat(np.asfortranarray(X), 2, axis=0).copy(order="F")[::2],
    "every other column": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "backwards": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "off its alignment": lambda X: np.frombuffer(b"." + X.tobytes(), np.uint8)[1:].view(X.dtype).reshape(X.shape),
}


@pytest.mark.parametrize("n", [60, 1100], ids=["one slab", "two slabs"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", [{"solver": "lbfgs"}, {"shuffle": False}, {}], ids=str)
def test_fits_depend_on_no_layout(solver: dict[str, Any], dtype: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if X had been converted to rows of the network's dtype, which with L-BFGS is float64 whatever X is."""
    rng = np.random.default_rng(0)
    rows, weights = rng.standard_normal((n, 5)).astype(dtype), rng.random(n)
    y = rows[:, 0] * rows[:, 1]
    regressor = MLPRegressor(hidden_layer_sizes=(17,), max_iter=3, random_state=0, batch_size=min(n, 1050), **solver)
    with monkeypatch.context() as patch:
        patch.setattr(perceptron, "_samples", lambda X, dtype, in_order: np.require(X, dtype, ["C", "A"]))
        expected = regressor.fit(rows, y, weights)
    for name, laid_out in IN_MEMORY.items():
        X = laid_out(rows)
        assert np.array_equal(X, rows)
        assert not (X.flags.c_contiguous and X.flags.aligned), name
        assert same_bits(clone(regressor).fit(X, y, weights), expected), name
    assert same_bits(clone(regressor).fit(rows, y, weights), expected)


def test_what_is_read_in_place() -> None:
    """L-BFGS and trainings without shuffling copy nothing but the rows of a mini-batch; a shuffled X of columns is."""
    X_32 = np.zeros((6, 4), np.float32)
    for X, dtype, in_order, shared in [
        (X_32, "float32", False, True),
        (X_32, "float64", False, True),
        (np.asfortranarray(X_32), "float64", True, True),
        (np.asfortranarray(X_32), "float64", False, False),
        (X_32[:, ::-2], "float32", False, True),
    ]:
        samples = _samples(X, np.dtype(dtype), in_order=in_order)
        assert np.shares_memory(samples, X) == shared
        assert not samples.flags.writeable
        assert X.flags.writeable


@pytest.mark.parametrize("n", [20_000, 1000])
def test_the_orders_of_epochs_take_little(n: int) -> None:
    """Narrow inputs show them: two of the samples, and some more of the epochs of a tiny set, of 8 bytes each."""
    X = np.random.default_rng(0).standard_normal((n, 2))
    regressor = MLPRegressor(hidden_layer_sizes=(5,), max_iter=200_000 // n, random_state=0, n_iter_no_change=1000)
    regressor.fit(X, X[:, 0])
    tracemalloc.start()
    try:
        regressor.fit(X, X[:, 0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 1_000_000, f"{peak} bytes"


@pytest.mark.parametrize("classes", [["no", "yes"], ["a", "b", "c"], [7], "labels"])
def test_labels_are_those_of_the_outputs(classes: Any) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    y = rng.integers(2, size=(60, 3)) if classes == "labels" else np.array(classes)[np.arange(60) % len(classes)]
    estimator = MLPClassifier((5,), max_iter=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(X, y)
    outputs = estimator._outputs(X)
    plain = estimator._label_binarizer.inverse_transform(outputs[:, 0] if outputs.shape[1] == 1 else outputs)
    assert estimator.predict(X).dtype == plain.dtype
    np.testing.assert_array_equal(estimator.predict(X), plain)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "one weight": lambda e: e.coefs_[0].__setitem__((2, 1), 0.5),
    "one bias": lambda e: e.intercepts_[1].__setitem__(0, -0.25),
    "a NaN": lambda e: e.coefs_[1].__setitem__((3, 0), np.nan),
    "an array": lambda e: e.coefs_.__setitem__(1, e.coefs_[1] * 2),
    "all arrays": lambda e: setattr(e, "coefs_", [w[::-1, ::-1].copy()[::-1, ::-1] + 1 for w in e.coefs_]),
    "the order": lambda e: setattr(e, "coefs_", [np.asfortranarray(w) for w in e.coefs_]),
    "the dtype": lambda e: setattr(e, "coefs_", [w.astype(np.float32) for w in e.coefs_]),
    "lists": lambda e: setattr(e, "intercepts_", [b.tolist() for b in e.intercepts_]),
    "the activation": lambda e: e.set_params(activation="tanh"),
    "the output": lambda e: setattr(e, "out_activation_", "exp"),
    "the network": lambda e: (
        setattr(e, "coefs_", [np.ones((4, 2)), *[np.ones((2, 2))] * 2]), setattr(e, "intercepts_", [np.ones(2)] * 3)
    ),
    "nothing": lambda e: None,
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_predictions_follow_what_users_write(change: str) -> None:
    """Whatever is kept from the prediction before; a deep copy has nothing kept."""
    estimator = MLPRegressor(hidden_layer_sizes=(5,), max_iter=1, random_state=0).fit(X, Y)
    estimator.predict(X)
    before = set(vars(estimator))
    CHANGES[change](estimator)
    for _ in range(2):
        for samples in X, X.astype(np.float32), X:
            got, expected = estimator.predict(samples), copy.deepcopy(estimator).predict(samples)
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)
    assert set(vars(estimator)) == before


def test_what_is_kept_goes_with_its_estimator() -> None:
    estimator = MLPRegressor(hidden_layer_sizes=(5,), max_iter=1, random_state=0).fit(X, Y)
    estimator.predict(X)
    weights = packed(estimator, X.dtype)[1]
    assert packed(estimator, X.dtype)[1] is weights
    kept = weakref.ref(weights)
    del estimator, weights
    gc.collect()
    assert kept() is None
    large = MLPRegressor(hidden_layer_sizes=(KEPT // 4,), max_iter=1, random_state=0).fit(X, Y)
    assert packed(large, X.dtype)[1] is not packed(large, X.dtype)[1]
    np.testing.assert_array_equal(large.predict(X), large.predict(X))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_predictions_and_their_errors_depend_on_no_layout(layout: str) -> None:
    X = np.random.default_rng(0).standard_normal((20, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator = MLPRegressor(hidden_layer_sizes=(5,), max_iter=1, random_state=0).fit(X, X[:, 0])
    expected = estimator.predict(X)
    np.testing.assert_array_equal(estimator.predict(LAYOUTS[layout](X)), expected)
    for value, message in (np.nan, "Input X contains NaN"), (np.inf, "Input X contains infinity"):
        spoilt = X.copy()
        spoilt[17, 2] = value
        with pytest.raises(ValueError, match=message):
            estimator.predict(LAYOUTS[layout](spoilt))


def test_a_sample_that_float64_cannot_hold() -> None:
    X = np.random.default_rng(0).standard_normal((20, 4)).astype(np.longdouble)
    estimator = MLPRegressor(hidden_layer_sizes=(5,), random_state=0, tol=10).fit(X, X[:, 0])
    X[17, 2] = np.finfo(np.longdouble).max
    if X.dtype != np.float64:
        message = r"Input X contains infinity or a value too large for dtype\('float64'\)"
        with np.errstate(over="ignore"), pytest.raises(ValueError, match=message):
            estimator.predict(X)


def test_weights_that_are_not_finite_are_no_fault_of_the_samples() -> None:
    X = np.random.default_rng(0).standard_normal((20, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator = MLPRegressor(hidden_layer_sizes=(5,), max_iter=1, random_state=0).fit(X, X[:, 0])
    estimator.coefs_[0][0, 0] = np.nan
    assert np.isnan(estimator.predict(X)).all()
