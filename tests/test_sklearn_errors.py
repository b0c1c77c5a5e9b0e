"""Errors, warnings and printed lines: word for word those of scikit-learn; after an error an earlier fit stands."""

from __future__ import annotations

import _thread
import copy
import inspect
import io
import pickle
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning

import fastbp.sklearn

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
of_1_9 = pytest.mark.skipif(VERSION < (1, 9), reason="the wording is that of scikit-learn 1.9 and later")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 4))
LABELS = np.array(["a", "b", "c", "d"])[np.arange(40) % 4]
TARGETS = X[:, 0] * X[:, 1]
Y = {"MLPClassifier": LABELS, "MLPRegressor": TARGETS}


def with_nan(array: np.ndarray) -> np.ndarray:
    spoilt = array.astype(float)
    spoilt[3] = np.nan
    return spoilt


# Parameters out of their domain, for both classes

PARAMETERS: list[dict[str, Any]] = [
    {"hidden_layer_sizes": -1}, {"hidden_layer_sizes": 0}, {"hidden_layer_sizes": (-1,)},
    {"hidden_layer_sizes": (4, 0)}, {"hidden_layer_sizes": [3, -2]}, {"hidden_layer_sizes": "many"},
    {"hidden_layer_sizes": None}, {"hidden_layer_sizes": 2.5},
    {"activation": "sigmoid"}, {"activation": None}, {"solver": "hadoken"}, {"solver": "SGD"},
    {"alpha": -1}, {"alpha": "l2"}, {"batch_size": 0}, {"batch_size": -1}, {"batch_size": 2.5}, {"batch_size": "all"},
    {"learning_rate": "converge"}, {"learning_rate_init": 0}, {"learning_rate_init": -1}, {"power_t": -0.5},
    {"max_iter": 0}, {"max_iter": 1.5}, {"shuffle": "true"}, {"shuffle": 1}, {"random_state": "seed"},
    {"random_state": -1}, {"random_state": np.random.default_rng(0)}, {"tol": -1e-3}, {"verbose": -1}, {"verbose": "x"},
    {"warm_start": "yes"}, {"momentum": 2}, {"momentum": -0.5}, {"nesterovs_momentum": 0}, {"early_stopping": 3},
    {"validation_fraction": 1}, {"validation_fraction": -0.1}, {"beta_1": 1}, {"beta_1": -0.5}, {"beta_2": 1},
    {"beta_2": -0.5}, {"epsilon": 0}, {"epsilon": -0.5}, {"n_iter_no_change": 0}, {"n_iter_no_change": 2.5},
    {"n_iter_no_change": -np.inf}, {"max_fun": 0}, {"max_fun": 2.5},
]  # fmt: skip

# What is done with a fresh estimator, or one that was fitted to X and y

Action = Callable[[Any, Any], Any]
FIT_DATA: dict[str, Action] = {
    "X in one dimension": lambda e, y: e.fit(X[:, 0], y),
    "X in three dimensions": lambda e, y: e.fit(X[None], y),
    "X with NaN": lambda e, y: e.fit(with_nan(X), y),
    "X infinite": lambda e, y: e.fit(np.where(X > 1.5, np.inf, X), y),
    "X of objects": lambda e, y: e.fit(X.astype(object), y),
    "X of strings": lambda e, y: e.fit(np.array([["a", "b"]] * 40), y),
    "X complex": lambda e, y: e.fit(X + 1j, y),
    "X None": lambda e, y: e.fit(None, y),
    "X a scalar": lambda e, y: e.fit(3.0, y),
    "no rows": lambda e, y: e.fit(X[:0], y[:0]),
    "no columns": lambda e, y: e.fit(X[:, :0], y),
    "ragged": lambda e, y: e.fit([[1, 2], [3]], y[:2]),
    "rows of X and y differ": lambda e, y: e.fit(X, y[:-1]),
    "y None": lambda e, y: e.fit(X, None),
    "y with NaN": lambda e, y: e.fit(X, with_nan(TARGETS)),
    "y infinite": lambda e, y: e.fit(X, np.full(40, np.inf)),
    "y in three dimensions": lambda e, y: e.fit(X, np.zeros((40, 2, 2))),
    "y of objects": lambda e, y: e.fit(X, [object()] * 40),
    "sparse X with NaN": lambda e, y: e.fit(sparse.csr_array(with_nan(X)), y),
    "sparse y": lambda e, y: e.fit(X, sparse.csr_array(np.eye(40)[:, :3].astype(int))),
    "lil": lambda e, y: e.fit(sparse.lil_array(X), y),
    "coo": lambda e, y: e.fit(sparse.coo_array(X), y),
    "weights too few": lambda e, y: e.fit(X, y, sample_weight=np.ones(39)),
    "weights in two dimensions": lambda e, y: e.fit(X, y, sample_weight=np.ones((40, 1))),
    "weights with NaN": lambda e, y: e.fit(X, y, sample_weight=with_nan(np.ones(40))),
    "weights of strings": lambda e, y: e.fit(X, y, sample_weight=["a"] * 40),
    "weights all zero": lambda e, y: e.fit(X, y, sample_weight=np.zeros(40)),
    "weights that cancel": lambda e, y: e.fit(X, y, sample_weight=np.tile([1.0, -1.0], 20)),
    "a weight for all": lambda e, y: e.fit(X, y, sample_weight=2.0),
    "too few to validate": lambda e, y: e.set_params(early_stopping=True).fit(X[:8], y[:8]),
    "no sample to validate": lambda e, y: e.set_params(early_stopping=True, validation_fraction=0.0).fit(X, y),
    "nothing left to train": lambda e, y: e.set_params(early_stopping=True, validation_fraction=0.999).fit(X, y),
    "partial_fit with early stopping": lambda e, y: first_partial_fit(e.set_params(early_stopping=True), X, y),
    "partial_fit of lbfgs": lambda e, y: getattr(e.set_params(solver="lbfgs"), "partial_fit", None) and None,
    "one row": lambda e, y: e.fit(X[:1], y[:1]),
    "the weights explode": lambda e, y: e.set_params(
        solver="sgd", learning_rate_init=1e30, activation="identity", max_iter=20
    ).fit(1e10 * X, y if y.dtype.kind == "U" else 1e10 * y),
}
FITTED: dict[str, Action] = {
    "columns missing": lambda e, y: e.predict(X[:, :3]),
    "predict one dimension": lambda e, y: e.predict(X[0]),
    "predict NaN": lambda e, y: e.predict(with_nan(X)),
    "predict no rows": lambda e, y: e.predict(X[:0]),
    "predict strings": lambda e, y: e.predict(np.array([["a"] * 4])),
    "score too few": lambda e, y: e.score(X, y[:-1]),
    "partial_fit with other columns": lambda e, y: e.partial_fit(X[:, :3], y),
    "partial_fit with NaN": lambda e, y: e.partial_fit(with_nan(X), y),
    "warm start with other columns": lambda e, y: e.set_params(warm_start=True).fit(X[:, :3], y),
    "unknown parameter": lambda e, y: e.set_params(dropout=0.5),
}
ONLY: dict[str, dict[str, Action]] = {
    "MLPClassifier": {
        "continuous y": lambda e, y: e.fit(X, TARGETS),
        "multioutput y": lambda e, y: e.fit(X, np.stack([np.arange(40) % 3, np.arange(40) % 2], axis=1)),
        "mixed y": lambda e, y: e.fit(X, np.array(["a", 1] * 20, object)),
        "one class": lambda e, y: e.fit(X, ["same"] * 40),
        "one class alone to stratify": lambda e, y: e.set_params(early_stopping=True).fit(X, ["a"] * 39 + ["b"]),
        "partial_fit without classes": lambda e, y: e.partial_fit(X, y),
        "partial_fit with a class that is not announced": lambda e, y: e.partial_fit(X, y, classes=["a", "b", "c"]),
        "partial_fit with other classes": lambda e, y: e.partial_fit(X, y, classes=LABELS[:4]).partial_fit(
            X, y, classes=["a", "b", "c", "z"]
        ),
        "partial_fit with a new class": lambda e, y: e.fit(X, y).partial_fit(X, np.where(y == "a", "z", y)),
        "warm start with fewer classes": lambda e, y: e.set_params(warm_start=True).fit(X, y).fit(X[::2], y[::2]),
        "warm start with other classes": lambda e, y: (
            e.set_params(warm_start=True).fit(X, y).fit(X, np.where(y == "a", "z", y))
        ),
        "predict_proba unfitted": lambda e, y: e.predict_proba(X),
        "predict_log_proba unfitted": lambda e, y: e.predict_log_proba(X),
        "column y": lambda e, y: e.fit(X, y[:, None]),
    },
    "MLPRegressor": {
        "poisson with negative y": lambda e, y: e.set_params(loss="poisson").fit(X, -np.abs(y)),
        "an unknown loss": lambda e, y: e.set_params(loss="huber").fit(X, y),
        "sizes where the loss is": lambda e, y: type(e)((50,)).fit(X, y),
        "y complex": lambda e, y: e.fit(X, TARGETS + 1j),
        "column y": lambda e, y: e.fit(X, y[:, None]),
    },
}
ANY: dict[str, Action] = {
    "predict unfitted": lambda e, y: e.predict(X),
    "score unfitted": lambda e, y: e.score(X, y),
    "not converged": lambda e, y: e.set_params(max_iter=2).fit(X, y),
    "batch too long": lambda e, y: e.set_params(batch_size=41).fit(X, y),
    "names of columns": lambda e, y: e.fit(frame(X, "pqrs"), y).predict(frame(X, "pqsr")),
    "names missing": lambda e, y: e.fit(frame(X, "pqrs"), y).predict(X),
    "names from nowhere": lambda e, y: e.fit(X, y).predict(frame(X, "pqrs")),
    "names of two kinds": lambda e, y: e.fit(frame(X, ["a", 1, 2, 3]), y),
    "lbfgs not converged": lambda e, y: e.set_params(solver="lbfgs", max_iter=2).fit(X, y),
}


def frame(X: np.ndarray, names: Any) -> Any:
    return pytest.importorskip("pandas").DataFrame(X, columns=list(names))


def first_partial_fit(estimator: Any, X: Any, y: Any) -> Any:
    return estimator.partial_fit(X, y, **({"classes": np.unique(y)} if hasattr(estimator, "predict_proba") else {}))


def make(module: Any, name: str, **parameters: Any) -> Any:
    return getattr(module, name)(**{"hidden_layer_sizes": (3,), "max_iter": 12, "random_state": 0, **parameters})


def said(action: Callable[[], Any]) -> tuple[str, str, list[tuple[str, str]]]:
    """Return the kind and text of the error, where sets have no order, and all warnings."""
    error = "", ""
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            action()
        except Exception as raised:
            error = type(raised).__name__, re.sub(r"\{.*?\}", lambda found: str(sorted(found[0])), str(raised))
    # scikit-learn's own arithmetic on infinite numbers warns where fastbp's does not meet them
    kept = [(w.category.__name__, str(w.message)) for w in caught if w.category is not RuntimeWarning]
    return *error, kept


def assert_both_say(name: str, action: Callable[[Any], Any]) -> tuple[str, str, list[tuple[str, str]]]:
    ours = said(lambda: action(fastbp.sklearn))
    theirs = said(lambda: action(neural_network))
    assert ours == theirs
    return ours


@of_1_9
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("name", Y)
def test_a_parameter_out_of_its_domain(name: str, parameters: dict[str, Any]) -> None:
    kind, text, _ = assert_both_say(name, lambda module: make(module, name, **parameters).fit(X, Y[name]))
    assert kind in ("InvalidParameterError", "ValueError")
    assert next(iter(parameters)) in text


# Where scikit-learn stumbles over its own arrays, fastbp has an error of the same kind that says what is wrong.
CLEARER: dict[str, tuple[Action, str]] = {
    "y of strings": (lambda e, y: e.fit(X, LABELS), "could not convert string to float"),
    "other outputs": (lambda e, y: e.fit(X, y).partial_fit(X, np.stack([y, y], axis=1)), "y 2 outputs.*from 4 to 1"),
}


@pytest.mark.parametrize("case", CLEARER)
def test_clearer_errors(case: str) -> None:
    action, text = CLEARER[case]
    with pytest.raises((TypeError, ValueError)):
        action(make(neural_network, "MLPRegressor", max_iter=200, tol=10), TARGETS)
    with pytest.raises(ValueError, match=text):
        action(make(fastbp.sklearn, "MLPRegressor", max_iter=200, tol=10), TARGETS)


CASES = [
    *((name, case, action) for name in Y for case, action in {**FIT_DATA, **ANY, **ONLY[name]}.items()),
]


@of_1_9
@pytest.mark.parametrize(("name", "case", "action"), CASES, ids=[f"{name}-{case}" for name, case, _ in CASES])
def test_of_an_unfitted_estimator(name: str, case: str, action: Action) -> None:
    assert_both_say(name, lambda module: action(make(module, name), Y[name]))


@of_1_9
@pytest.mark.parametrize("case", FITTED)
@pytest.mark.parametrize("name", Y)
def test_of_a_fitted_estimator(name: str, case: str) -> None:
    kind, _, _ = assert_both_say(name, lambda module: FITTED[case](make(module, name).fit(X, Y[name]), Y[name]))
    assert kind, "this case is an error"


@of_1_9
@pytest.mark.parametrize("name", Y)
def test_the_table_holds_errors_and_warnings(name: str) -> None:
    """That both say the same would be true of nothing, too."""
    heard = [
        said(lambda action=action: action(make(neural_network, name), Y[name])) for n, _, action in CASES if n == name
    ]
    assert sum(kind != "" for kind, _, _ in heard) >= 35
    assert len({text for _, text, _ in heard}) >= 30
    categories = {category for _, _, caught in heard for category, _ in caught}
    assert categories >= {"ConvergenceWarning", "UserWarning", "DataConversionWarning"}


# The earlier fit

FAILING: dict[str, Action] = {
    **{
        case: FIT_DATA[case]
        for case in FIT_DATA
        if case not in ("lil", "coo", "one row", "a weight for all", "sparse y")
    },
    **{case: FITTED[case] for case in FITTED if case != "unknown parameter"},
    "a parameter": lambda e, y: e.set_params(alpha=-1).fit(X, y),
    "sizes": lambda e, y: e.set_params(hidden_layer_sizes=(3, 0)).fit(X, y),
}


def fitted_state(estimator: Any) -> dict[str, Any]:
    """Return all that a fit has set, to compare it: pickled, as arrays do not compare."""
    parameters = estimator.get_params()
    return {
        name: pickle.dumps(value)
        for name, value in sorted(vars(estimator).items())
        if name not in parameters and name != "loss"
    }


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("name", Y)
def test_after_an_error_an_earlier_fit_stands(name: str, case: str) -> None:
    estimator = make(fastbp.sklearn, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(X, Y[name])
        other = 3 * X[:, ::-1]  # were anything of the failing fit kept, it would be seen
        predicted, state = estimator.predict(other), fitted_state(estimator)
        parameters = estimator.get_params()
        kind, text, _ = said(lambda: FAILING[case](estimator, Y[name]))
        if kind == "":
            return  # no error for this class
        estimator.set_params(**parameters)
        assert fitted_state(estimator) == state, text
        np.testing.assert_array_equal(estimator.predict(other), predicted)


@pytest.mark.parametrize("name", Y)
def test_after_an_error_an_unfitted_estimator_is_unfitted(name: str) -> None:
    for case, action in FAILING.items():
        estimator = make(fastbp.sklearn, name)
        if case in FITTED or not said(lambda: action(estimator, Y[name]))[0]:  # noqa: B023
            continue
        assert fitted_state(estimator) == {}, case


# Ctrl-C, verbose lines, signatures


@contextmanager
def interrupted_after(words: str) -> Iterator[io.StringIO]:
    """Yield a stream, and press Ctrl-C once these words were written to it."""
    seen, over = threading.Event(), threading.Event()

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            if words in text:
                seen.set()
            return len(text)

    def press() -> None:
        if seen.wait(60) and not over.is_set():
            _thread.interrupt_main()

    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield Stream()
    finally:
        over.set()
        seen.set()
        thread.join()


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("name", Y)
def test_ctrl_c_warns_and_keeps_what_was_learned(name: str, early_stopping: bool) -> None:
    """It is pressed during an endless training; what the completed epochs recorded stands."""
    estimators = [
        make(module, name, max_iter=10**9, tol=0, n_iter_no_change=np.inf, early_stopping=early_stopping, verbose=True)
        for module in (fastbp.sklearn, neural_network)
    ]
    for estimator in estimators if VERSION >= (1, 9) else estimators[:1]:  # older ones cannot score strings
        with pytest.MonkeyPatch.context() as patch, interrupted_after("Iteration 5,") as stdout:
            patch.setattr(sys, "stdout", stdout)
            with pytest.warns(UserWarning, match=r"^Training interrupted by user\.$"):
                estimator.fit(X, Y[name])
        assert 5 <= estimator.n_iter_ == len(estimator.loss_curve_)
        assert estimator.t_ == estimator.n_iter_ * (36 if early_stopping else 40)
        assert estimator.loss_curve_[-1] < estimator.loss_curve_[0]
        assert np.isfinite(estimator.score(X, Y[name]))
        if early_stopping:  # the best weights, restored
            assert estimator.best_validation_score_ == max(estimator.validation_scores_)


@of_1_9
@pytest.mark.parametrize("mode", ["plain", "adaptive", "validated", "stopped"])
@pytest.mark.parametrize("name", Y)
def test_verbose_lines(name: str, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same lines, and numbers that differ in the last digit that is printed at most."""
    parameters: dict[str, Any] = {
        "plain": {"max_iter": 3},
        "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 1, "max_iter": 40},
        "validated": {"early_stopping": True, "max_iter": 4},
        "stopped": {"tol": 0.5, "n_iter_no_change": 2},
    }[mode]
    printed = []
    for module in fastbp.sklearn, neural_network:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            make(module, name, verbose=True, **parameters).fit(X, Y[name])
        printed.append(capsys.readouterr().out)
    number = re.compile(r"-?\d+\.\d+")
    assert number.sub("#", printed[0]) == number.sub("#", printed[1])
    numbers = [[float(n) for n in number.findall(text)] for text in printed]
    np.testing.assert_allclose(*numbers, atol=1.5e-6 if mode == "validated" else 1.5e-8)
    assert printed[0].startswith("Iteration 1, loss = ")


SIGNATURE = {
    "hidden_layer_sizes": (100,), "activation": "relu", "solver": "adam", "alpha": 0.0001, "batch_size": "auto",
    "learning_rate": "constant", "learning_rate_init": 0.001, "power_t": 0.5, "max_iter": 200, "shuffle": True,
    "random_state": None, "tol": 0.0001, "verbose": False, "warm_start": False, "momentum": 0.9,
    "nesterovs_momentum": True, "early_stopping": False, "validation_fraction": 0.1, "beta_1": 0.9, "beta_2": 0.999,
    "epsilon": 1e-08, "n_iter_no_change": 10, "max_fun": 15000,
}  # fmt: skip


@pytest.mark.parametrize("name", Y)
def test_the_signature_is_that_of_1_9_on_every_version(name: str) -> None:
    kind = getattr(fastbp.sklearn, name)
    expected = {**({"loss": "squared_error"} if name == "MLPRegressor" else {}), **SIGNATURE}
    signature = inspect.signature(kind)
    assert {p.name: p.default for p in signature.parameters.values()} == expected
    assert list(signature.parameters) == list(expected)
    positional = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == list(expected)[: list(expected).index("activation") + 1]
    assert kind().get_params() == expected
    fit = list(inspect.signature(kind.fit).parameters)
    assert fit == ["self", "X", "y", "sample_weight"]
    if VERSION >= (1, 9):
        twin = getattr(neural_network, name)
        theirs = inspect.signature(twin).parameters
        assert [(p.name, p.kind, p.default) for p in signature.parameters.values()] == [
            (p.name, p.kind, p.default) for p in theirs.values()
        ]
        public = {member for member in dir(twin) if not member.startswith("_")}
        assert public <= set(dir(kind))
        assert {member for member in dir(kind) if not member.startswith("_")} - {"loss"} == public
        assert kind._parameter_constraints.keys() == twin._parameter_constraints.keys()


# of scikit-learn before 1.8 beside SciPy 1.16 and later
@pytest.mark.filterwarnings("ignore:.*`disp` and `iprint` options:DeprecationWarning")
@pytest.mark.parametrize("name", Y)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_the_same_attributes_appear(name: str, solver: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ours, theirs = (
            make(module, name, solver=solver).fit(X, Y[name]) for module in (fastbp.sklearn, neural_network)
        )
    public = [
        {n for n in dir(e) if not n.startswith("_") and hasattr(e, n) and not callable(getattr(e, n))}
        for e in (ours, theirs)
    ]
    assert public[0] == public[1]
    for attribute in public[1]:
        mine, other = getattr(ours, attribute), getattr(theirs, attribute)
        if isinstance(other, float):  # of NumPy or of Python
            assert isinstance(mine, float), attribute
        else:
            assert type(mine) is type(other), attribute
    copied = copy.deepcopy(ours)
    assert copied.get_params() == ours.get_params()
