"""Parity: with the same `random_state`, fastbp's estimators arrive at scikit-learn's weights, losses and scores.

Draws are compared with the installed scikit-learn. Where a change of X by one ULP moves scikit-learn's own result by
more than a tenth of the bound, or where it clips a probability in its loss, which fastbp does not, the draw says
nothing about fastbp: it is skipped, and counted.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sklearn
from estimator_draws import (
    BOUNDS,
    Draw,
    distance,
    distance_of_figures,
    fit,
    fit_of_scikit_learn,
    make_draw,
    one_ulp_away,
)
from sklearn import neural_network
from threadpoolctl import threadpool_limits

import fastbp.sklearn

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
pytestmark = pytest.mark.skipif(VERSION < (1, 9), reason="the numbers are those of scikit-learn 1.9 and later")


@pytest.fixture(autouse=True)
def one_thread_for_products() -> Iterator[None]:
    """scikit-learn's products are so small that threads only get into each other's way."""
    with threadpool_limits(1, "blas"):
        yield


NUMBERS = {"sgd": range(170), "adam": range(170), "lbfgs": range(80)}
DRAWS = [make_draw(number, solver) for solver, numbers in NUMBERS.items() for number in numbers]
LEFT_OUT = 0.02


@functools.cache
def scikit_learns(number: int, solver: str) -> tuple[Any, str]:
    """Return scikit-learn's fit of a draw, and why it says nothing about fastbp, or an empty string."""
    draw = make_draw(number, solver)
    (theirs, clipped), (neighbour, _) = fit_of_scikit_learn(draw), fit_of_scikit_learn(draw, one_ulp_away)
    if neighbour.n_iter_ == theirs.n_iter_:
        moved = max(distance(neighbour, theirs), distance_of_figures(neighbour, theirs)) / draw.bound
    else:
        moved = np.inf
    if moved > 0.1:
        return theirs, f"one ULP of X moves scikit-learn's result by {moved:.2g} of the bound"
    if clipped:
        return theirs, "scikit-learn clips a probability in its loss"
    return theirs, ""


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: f"{draw.parameters['solver']}-{draw.number}")
def test_same_numbers(draw: Draw) -> None:
    theirs, says_nothing = scikit_learns(draw.number, draw.parameters["solver"])
    if says_nothing:
        pytest.skip(says_nothing)
    ours = fit(draw, fastbp.sklearn)
    assert distance(ours, theirs) <= draw.bound, str(draw)
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        assert (mine.shape, mine.dtype) == (other.shape, other.dtype)
    assert_same_record(ours, theirs, draw)
    assert_same_predictions(ours, theirs, draw)


def assert_same_record(ours: Any, theirs: Any, draw: Draw) -> None:
    """What is counted is equal; losses and scores lie within the bound."""
    for name in "n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_", "loss":
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_":
        assert hasattr(ours, name) == hasattr(theirs, name), name
        assert type(getattr(ours, name, None)) is type(getattr(theirs, name, None)) or name.startswith("best_"), name
    assert distance_of_figures(ours, theirs) <= draw.bound, str(draw)
    if draw.class_name == "MLPClassifier":
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)


def assert_same_predictions(ours: Any, theirs: Any, draw: Draw) -> None:
    """From weights within the bound: outputs of the same shape and dtype, within what the bound makes of them."""
    X, _, _ = draw.problem()
    name = "predict_proba" if draw.class_name == "MLPClassifier" else "predict"
    mine, other = getattr(ours, name)(X), getattr(theirs, name)(X)
    assert (mine.shape, mine.dtype) == (other.shape, other.dtype)
    # An output moves by no more than the sum of what each weight's error does, of which 1000 bounds are a generous
    # account: at most 60 neurons an input, twice in a row.
    np.testing.assert_allclose(mine, other, rtol=1e3 * draw.bound, atol=1e3 * draw.bound)


def test_few_draws_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = Counter(scikit_learns(draw.number, draw.parameters["solver"])[1] for draw in DRAWS)
    left_out = len(DRAWS) - reasons.pop("")
    with capsys.disabled():
        print(f"\n{len(DRAWS)} draws beside scikit-learn {sklearn.__version__}, {left_out} left out: {dict(reasons)}")
    assert left_out <= LEFT_OUT * len(DRAWS)


def test_the_draws_cover_what_they_should() -> None:
    """Every value of every choice, and epochs that end a training, divide a learning rate and restore weights."""
    kinds = {(draw.kind, draw.parameters["solver"], draw.dtype) for draw in DRAWS}
    assert len(kinds) == 7 * 3 * 2
    assert {(draw.kind, draw.parameters["activation"]) for draw in DRAWS} >= {
        (kind, activation) for kind, _, _ in kinds for activation in ("identity", "logistic", "tanh", "relu")
    }
    assert {(draw.layout, draw.dtype, draw.parameters["solver"]) for draw in DRAWS} >= {
        (layout, dtype, solver)
        for layout in ("C", "F", "strided", "csr", "csc")
        for dtype in BOUNDS
        for solver in NUMBERS
    }
    sgd = [draw for draw in DRAWS if draw.parameters["solver"] == "sgd"]
    assert {(d.parameters["learning_rate"], d.parameters["early_stopping"]) for d in sgd} == {
        (mode, early) for mode in ("constant", "invscaling", "adaptive") for early in (False, True)
    }
    fits = [(draw, scikit_learns(draw.number, draw.parameters["solver"])[0]) for draw in DRAWS]
    assert sum(f.n_iter_ < 10 for d, f in fits if d.parameters["solver"] != "lbfgs") >= 30
    assert sum(f._optimizer.learning_rate < f.learning_rate_init for d, f in fits if d in sgd and is_adaptive(d)) >= 10
    assert (
        sum(np.argmax(f.validation_scores_) < f.n_iter_ - 1 for _, f in fits if getattr(f, "validation_scores_", None))
        >= 20
    )


def is_adaptive(draw: Draw) -> bool:
    return draw.parameters.get("learning_rate") == "adaptive"


SPOILT = {
    "alpha": lambda p: {"alpha": p["alpha"] * 1.01 + 1e-3},
    "momentum": lambda p: {"momentum": p["momentum"] * 0.999 + 5e-4},
    "epsilon": lambda p: {"epsilon": 2 * p["epsilon"]},
    "beta_2": lambda p: {"beta_2": p["beta_2"] - 1e-4},
    "seed": lambda p: {"random_state": p["random_state"] + 1},
    "shuffle": lambda p: {"shuffle": not p["shuffle"]},
    "nesterovs_momentum": lambda p: {"nesterovs_momentum": not p["nesterovs_momentum"]},
}


@pytest.mark.parametrize(("solver", "spoilt"), [
    *(("sgd", name) for name in ("alpha", "momentum", "seed", "shuffle", "nesterovs_momentum")),
    *(("adam", name) for name in ("alpha", "epsilon", "beta_2", "seed")),
])  # fmt: skip
def test_the_comparison_sees_small_changes(solver: str, spoilt: str) -> None:
    """scikit-learn beside itself with one parameter a little off: most draws of both dtypes must tell them apart."""
    told = []
    for draw in [draw for draw in DRAWS if draw.parameters["solver"] == solver][:24]:
        other = Draw(**{**vars(draw), "parameters": {**draw.parameters, **SPOILT[spoilt](draw.parameters)}})
        told.append(distance(fit_of_scikit_learn(other)[0], scikit_learns(draw.number, solver)[0]) > draw.bound)
    assert np.mean(told) > 0.5


# Several fits of one estimator


def both(name: str, **parameters: Any) -> tuple[Any, Any]:
    return getattr(fastbp.sklearn, name)(**parameters), getattr(neural_network, name)(**parameters)


RNG = np.random.default_rng(3)
X = RNG.standard_normal((90, 8))
CLASSES = np.array(["a", "b", "c"])
LABELS = CLASSES[(X @ RNG.standard_normal((8, 3))).argmax(axis=1)]
TARGETS = np.sin(X[:, :2]).sum(axis=1)
SEVERAL = np.stack([TARGETS, X[:, 3] ** 2, -TARGETS], axis=1)


def assert_same_state(ours: Any, theirs: Any, dtype: str) -> None:
    assert distance(ours, theirs) <= BOUNDS[dtype]
    assert distance_of_figures(ours, theirs) <= BOUNDS[dtype]
    for name in "n_iter_", "t_":
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("seed", [3, "generator"])
@pytest.mark.parametrize("solver", ["sgd, constant", "sgd, invscaling", "adam"])
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_partial_fit_goes_on_alike(name: str, solver: str, seed: Any, dtype: str) -> None:
    """Six calls on blocks of two lengths; with an int as seed each draws the same order, as in scikit-learn."""
    solver, _, mode = solver.partition(", ")
    parameters: dict[str, Any] = {"hidden_layer_sizes": (7,), "solver": solver, "batch_size": 13, "alpha": 0.01}
    if mode:
        parameters |= {"learning_rate": mode, "learning_rate_init": 0.01}
    estimators = []
    for module in fastbp.sklearn, neural_network:
        state = np.random.RandomState(5) if seed == "generator" else seed
        estimators.append(getattr(module, name)(random_state=state, **parameters))
    for call in range(6):
        block = slice(0, 30) if call % 2 else slice(30, 90)
        for estimator in estimators:
            if name == "MLPClassifier":
                estimator.partial_fit(X[block].astype(dtype), LABELS[block], classes=CLASSES)
            else:
                estimator.partial_fit(X[block].astype(dtype), TARGETS[block].astype(dtype))
        assert_same_state(*estimators, dtype)
        assert estimators[0].n_iter_ == 1


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_warm_start_goes_on_alike(name: str, solver: str, dtype: str) -> None:
    """Before convergence: the weights go on, Adam's moments and the learning rate start anew, losses are appended."""
    ours, theirs = both(
        name, hidden_layer_sizes=(7,), solver=solver, batch_size=20, max_iter=4, warm_start=True, random_state=1,
        activation="tanh",
    )  # fmt: skip
    y = LABELS if name == "MLPClassifier" else TARGETS.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        for call in range(3):
            for estimator in ours, theirs:
                estimator.set_params(max_iter=4 + call).fit(X.astype(dtype), y)
            assert_same_state(ours, theirs, dtype)
    if solver != "lbfgs":
        assert len(ours.loss_curve_) == 4 + 5 + 6


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_after_fit_goes_on_alike(solver: str) -> None:
    ours, theirs = both("MLPClassifier", hidden_layer_sizes=(7, 3), solver=solver, max_iter=5, random_state=1)
    for estimator in ours, theirs:
        with pytest.warns(sklearn.exceptions.ConvergenceWarning):
            estimator.fit(X, LABELS)
        estimator.partial_fit(X[:40], LABELS[:40]).partial_fit(X[40:], LABELS[40:])
    assert_same_state(ours, theirs, "float64")


def test_weights_written_by_hand_are_the_start() -> None:
    """As in scikit-learn's own test: `coefs_` is the user's to write into, in place or anew."""
    ours, theirs = both("MLPRegressor", hidden_layer_sizes=(4,), solver="sgd", momentum=0, random_state=0)
    for estimator in ours, theirs:
        estimator.partial_fit(X, TARGETS)
        estimator.coefs_[0][2:] *= -0.5
        estimator.coefs_[1] = np.full((4, 1), 0.3)
        estimator.intercepts_[0][:] = 0.125
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-12)
    for estimator in ours, theirs:
        estimator.partial_fit(X, TARGETS)
    assert distance(ours, theirs) <= BOUNDS["float64"]


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_several_outputs_against_scikit_learn_as_it_is(solver: str) -> None:
    """Its gradient is that of the sum over outputs: with tol=0 both take the same way, with another loss."""
    ours, theirs = both(
        "MLPRegressor", hidden_layer_sizes=(9,), solver=solver, tol=0, max_iter=10, alpha=0, random_state=4,
        activation="tanh", n_iter_no_change=11,
    )  # fmt: skip
    for estimator in ours, theirs:
        with pytest.warns(sklearn.exceptions.ConvergenceWarning):
            estimator.fit(X, SEVERAL)
    assert distance(ours, theirs) <= BOUNDS["float64"]
    np.testing.assert_allclose(ours.loss_curve_, 3 * np.array(theirs.loss_curve_), rtol=1e-9)


def test_lbfgs_of_several_outputs_ends_in_as_good_an_optimum() -> None:
    """Measured by the sum over outputs with its penalty, for a few starts.

    scikit-learn's line search finds no descent where loss and gradient contradict each other: it gives up and warns.
    """
    totals, warned = np.zeros(2), np.zeros(2)
    for seed in range(4):
        fits = both(
            "MLPRegressor", hidden_layer_sizes=(6,), solver="lbfgs", max_iter=3000, max_fun=9000, alpha=1.0, tol=1e-6,
            random_state=seed, activation="tanh",
        )  # fmt: skip
        for i, estimator in enumerate(fits):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                estimator.fit(X, SEVERAL)
            warned[i] += any("ABNORMAL" in str(warning.message) for warning in caught)
            penalty = sum((w**2).sum() for w in estimator.coefs_) / len(X)
            totals[i] += 0.5 * ((estimator.predict(X) - SEVERAL) ** 2).sum(axis=1).mean() + 0.5 * penalty
    assert warned[0] == 0 < warned[1]
    assert totals[0] <= 1.01 * totals[1]
