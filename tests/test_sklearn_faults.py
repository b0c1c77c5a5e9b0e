"""Known faults of scikit-learn's MLP that fastbp's estimators do not share: each shown beside what fastbp does.

The halves about scikit-learn are of version 1.9; a later one may have mended them.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import fastbp.sklearn

HAS_THE_FAULT = tuple(int(part) for part in sklearn.__version__.split(".")[:2]) == (1, 9)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 6))
Y = np.sin(X[:, 0]) + 0.5 * X[:, 1]
SEVERAL = np.stack([Y, X[:, 2] ** 2, -Y], axis=1)


@pytest.fixture(autouse=True)
def unconverged_is_meant() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def both(name: str, **parameters: Any) -> tuple[Any, Any]:
    return getattr(fastbp.sklearn, name)(**parameters), getattr(neural_network, name)(**parameters)


def compared(ours: Any, theirs: Any) -> list[Any]:
    """Return both where the installed scikit-learn is one that is spoken of, else fastbp's alone."""
    return [ours, theirs] if HAS_THE_FAULT else [ours]


def weights(estimator: Any) -> list[np.ndarray]:
    return copy.deepcopy([*estimator.coefs_, *estimator.intercepts_])


def are_equal(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_warm_fit_that_only_gets_worse_keeps_the_best_weights(solver: str) -> None:
    ours, theirs = both(
        "MLPRegressor", hidden_layer_sizes=(8,), activation="tanh", solver=solver, early_stopping=True, warm_start=True,
        max_iter=100, learning_rate_init=0.02, n_iter_no_change=100, random_state=0,
    )  # fmt: skip
    best, scores = {}, {}
    for estimator in compared(ours, theirs):
        estimator.fit(X, Y)
        best[estimator], scores[estimator] = weights(estimator), estimator.best_validation_score_
        assert scores[estimator] > 0.8
        estimator.set_params(max_iter=3, alpha=200.0).fit(X, Y)  # towards weights of zero
        assert max(estimator.validation_scores_[-3:]) < scores[estimator]
        assert estimator.best_validation_score_ == scores[estimator]
    assert are_equal(weights(ours), best[ours])
    if HAS_THE_FAULT:
        assert theirs.coefs_ is theirs._best_coefs
        assert not are_equal(weights(theirs), best[theirs])


def test_weights_written_after_an_early_stop_leave_the_best_alone() -> None:
    ours, theirs = both("MLPRegressor", early_stopping=True, max_iter=3, random_state=0)
    for estimator in compared(ours, theirs):
        estimator.fit(X, Y)
        estimator.coefs_[0][:] = 7
    assert not (ours._best_coefs[0] == 7).any()
    if HAS_THE_FAULT:
        assert (theirs._best_coefs[0] == 7).all()


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_warm_fit_validates_on_the_same_samples(name: str, weighted: bool) -> None:
    """With a learning rate that moves nothing the score tells which samples it is of."""
    y = Y if name == "MLPRegressor" else np.array(["low", "high"])[(Y > 0).astype(int)]
    ours, theirs = both(
        name, solver="sgd", early_stopping=True, validation_fraction=0.25, warm_start=True, max_iter=1,
        learning_rate_init=1e-12, random_state=5,
    )  # fmt: skip
    sample_weight = RNG.uniform(0.5, 2, len(X)) if weighted else None
    for estimator in compared(ours, theirs):
        for _ in range(3):
            estimator.fit(X, y, sample_weight=sample_weight)
    np.testing.assert_allclose(ours.validation_scores_, ours.validation_scores_[0], rtol=1e-6)
    if HAS_THE_FAULT:
        assert np.ptp(theirs.validation_scores_) > 1e-3


def test_a_cold_fit_and_a_warm_one_with_other_data_split_anew() -> None:
    ours = fastbp.sklearn.MLPRegressor(
        solver="sgd", early_stopping=True, warm_start=True, max_iter=1, learning_rate_init=1e-12, random_state=11
    )
    ours.fit(X, Y).fit(X[:77], Y[:77])
    assert ours.t_ == 108 + 69
    theirs = clone(ours).fit(X[:77], Y[:77])
    again = ours.set_params(warm_start=False).fit(X[:77], Y[:77])
    assert again.validation_scores_ == theirs.validation_scores_


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_warm_fit_after_convergence_has_its_patience_again(solver: str, early_stopping: bool) -> None:
    ours, theirs = both(
        "MLPRegressor", hidden_layer_sizes=(5,), solver=solver, tol=10.0, n_iter_no_change=4, warm_start=True,
        early_stopping=early_stopping, random_state=0,
    )  # fmt: skip
    for estimator in compared(ours, theirs):
        estimator.fit(X, Y)
        assert estimator.n_iter_ in (5, 6)  # the first epoch may be an improvement; then five without one
        estimator.fit(X, Y)
    assert ours.n_iter_ == 5
    if HAS_THE_FAULT:
        assert theirs.n_iter_ == 1


def test_partial_fit_of_lbfgs_is_absent() -> None:
    ours, theirs = both("MLPRegressor", solver="lbfgs")
    assert not hasattr(ours, "partial_fit")
    with pytest.raises(AttributeError) as caught:
        ours.partial_fit(X, Y)
    assert "partial_fit is only available for stochastic optimizers. lbfgs is not stochastic." in (
        str(caught.value) + str(caught.value.__cause__)
    )
    assert not hasattr(fastbp.sklearn.MLPClassifier(solver="lbfgs"), "partial_fit")
    assert hasattr(ours.set_params(solver="sgd"), "partial_fit")
    if HAS_THE_FAULT:
        assert hasattr(theirs, "partial_fit")
        theirs.partial_fit(X, Y)
        assert theirs.n_iter_ > 1  # a whole fit


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_squared_error_of_several_outputs_is_summed_over_them(solver: str, weighted: bool) -> None:
    """The loss is the one whose gradient is followed: 1/2 sum_j (a_j - y_j)^2, its mean over samples."""
    sample_weight = RNG.uniform(0.5, 2, len(X)) if weighted else None
    ours, theirs = both(
        "MLPRegressor", hidden_layer_sizes=(8,), activation="tanh", solver=solver, alpha=0, max_iter=1, random_state=0,
        learning_rate_init=1e-13,
    )  # fmt: skip
    for estimator in compared(ours, theirs):
        estimator.fit(X, SEVERAL, sample_weight=sample_weight)
        error = np.average((estimator.predict(X) - SEVERAL) ** 2, weights=sample_weight, axis=0)
        summed, divided = 0.5 * error.sum(), 0.5 * error.mean()
        if estimator is ours:
            np.testing.assert_allclose(estimator.loss_, summed, rtol=1e-9)
        elif HAS_THE_FAULT:
            np.testing.assert_allclose(estimator.loss_, divided, rtol=1e-9)


def test_the_gradient_of_several_outputs_is_that_of_the_loss() -> None:
    """By finite differences through `_loss_grad_lbfgs`; scikit-learn's gradient is that of three times its loss."""
    ours, theirs = both(
        "MLPRegressor", hidden_layer_sizes=(4,), activation="tanh", solver="lbfgs", alpha=0, max_iter=1, random_state=0
    )
    factors = []
    for estimator in compared(ours, theirs):
        estimator.fit(X, SEVERAL)
        theta = np.hstack([w.ravel() for w in [*estimator.coefs_, *estimator.intercepts_]]).astype(np.float64)

        def loss_and_gradient(theta: np.ndarray, estimator: Any = estimator) -> Any:
            lists: list[Any] = [[X, None, None], [None] * 2, [None] * 2, [None] * 2]
            loss, gradient = estimator._loss_grad_lbfgs(theta.copy(), X, SEVERAL, None, *lists)
            return loss, gradient.copy()

        gradient = loss_and_gradient(theta)[1]
        direction = gradient / np.linalg.norm(gradient)
        slope = (loss_and_gradient(theta + 1e-5 * direction)[0] - loss_and_gradient(theta - 1e-5 * direction)[0]) / 2e-5
        factors.append(np.linalg.norm(gradient) / slope)
    assert factors[0] == pytest.approx(1, rel=1e-6)
    if HAS_THE_FAULT:
        assert factors[1] == pytest.approx(3, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_of_a_sure_error_is_not_clipped(dtype: Any) -> None:
    """What is wrong by a logit of 50 costs 50, as its gradient says; scikit-learn's cost ends at -log(eps)."""
    inputs = np.tile(np.array([[1.0], [-1.0]], dtype), (20, 1))
    losses = {}
    for module in compared(fastbp.sklearn, neural_network):
        estimator = module.MLPClassifier(
            (), alpha=0, solver="sgd", learning_rate_init=1e-12, max_iter=1, warm_start=True
        )
        estimator.fit(inputs, [0, 1] * 20)
        estimator.coefs_[0][:], estimator.intercepts_[0][:] = 50, 0  # surely wrong: 1 belongs to the first class
        losses[module] = estimator.fit(inputs, [0, 1] * 20).loss_
    assert losses[fastbp.sklearn] == pytest.approx(50)
    if HAS_THE_FAULT:
        assert losses[neural_network] == pytest.approx(-np.log(np.finfo(dtype).eps), rel=1e-2)


def test_float64_targets_of_float32_inputs_are_cast() -> None:
    """Training is float32 throughout: to the bit the same as with targets of float32."""
    fits = {}
    for module in compared(fastbp.sklearn, neural_network):
        for dtype in np.float32, np.float64:
            estimator = module.MLPRegressor(hidden_layer_sizes=(9,), max_iter=5, random_state=0)
            fits[module, dtype] = weights(estimator.fit(X.astype(np.float32), Y.astype(np.float32).astype(dtype)))
    assert are_equal(fits[fastbp.sklearn, np.float32], fits[fastbp.sklearn, np.float64])
    if HAS_THE_FAULT:
        assert not are_equal(fits[neural_network, np.float32], fits[neural_network, np.float64])
        for mine, other in zip(fits[fastbp.sklearn, np.float64], fits[neural_network, np.float64], strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-5 * np.abs(other).max())


def test_each_fix_is_documented_in_the_docstring() -> None:
    for kind in fastbp.sklearn.MLPClassifier, fastbp.sklearn.MLPRegressor:
        text = " ".join((kind.__doc__ or "").split())
        for word in "warm_start", "split", "best", "partial_fit", "permutation", "batch_size":
            assert word in text, f"{kind.__name__}'s docstring does not speak of {word}"
    text = " ".join((fastbp.sklearn.MLPRegressor.__doc__ or "").split())
    for word in "lbfgs", "sum", "float32":
        assert word in text
