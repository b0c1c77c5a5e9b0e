"""The ecosystem: what users put estimators into, with fastbp's in scikit-learn's place and the same results."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier, BaggingRegressor, StackingClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    cross_val_predict,
    cross_val_score,
    learning_curve,
)
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import fastbp
import fastbp.sklearn
from fastbp.engine import wide

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 5))
LABELS = np.array(["ash", "elm", "oak"])[(X @ RNG.standard_normal((5, 3))).argmax(axis=1)]
TARGETS = np.sin(X[:, 0]) + 0.5 * X[:, 1]
Y = {"MLPClassifier": LABELS, "MLPRegressor": TARGETS}
TIMEOUT = 300  # seconds, for a child that hangs; compiling included


@pytest.fixture(autouse=True)
def unconverged_is_meant() -> Iterator[None]:
    with warnings.catch_warnings(), threadpool_limits(1, "blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def make(name: str, module: Any = fastbp.sklearn, **parameters: Any) -> Any:
    return getattr(module, name)(**{"hidden_layer_sizes": (6,), "max_iter": 15, "random_state": 0, **parameters})


def classifier(module: Any, **parameters: Any) -> Any:
    return make("MLPClassifier", module, **parameters)


def regressor(module: Any, **parameters: Any) -> Any:
    return make("MLPRegressor", module, **parameters)


# The same results in meta-estimators and model selection

GRID = {"alpha": [1e-4, 1.0], "hidden_layer_sizes": [(3,), (8,)], "solver": ["adam", "sgd"]}
MEMBERS: dict[str, Callable[[Any], Any]] = {
    "pipeline": lambda m: make_pipeline(StandardScaler(), classifier(m)).fit(X, LABELS).predict_proba(X),
    "pipeline, early stopping": lambda m: (
        make_pipeline(StandardScaler(), regressor(m, early_stopping=True)).fit(X, TARGETS).predict(X)
    ),
    "grid search": lambda m: GridSearchCV(classifier(m), GRID, cv=3).fit(X, LABELS).cv_results_["mean_test_score"],
    "grid search over a pipeline": lambda m: (
        GridSearchCV(make_pipeline(StandardScaler(), regressor(m)), {"mlpregressor__alpha": [1e-4, 1.0]}, cv=3)
        .fit(X, TARGETS)
        .cv_results_["mean_test_score"]
    ),
    "several scorers": lambda m: (
        GridSearchCV(classifier(m), {"alpha": [0, 1]}, cv=3, scoring=["accuracy", "neg_log_loss"], refit="neg_log_loss")
        .fit(X, LABELS)
        .cv_results_["mean_test_neg_log_loss"]
    ),
    "halving": lambda m: (
        HalvingGridSearchCV(
            classifier(m), {"alpha": [0, 1e-3, 1e-2, 1.0]}, resource="max_iter", max_resources=24, random_state=0, cv=3
        )
        .fit(X, LABELS)
        .cv_results_["mean_test_score"]
    ),
    "cross_val_score": lambda m: cross_val_score(regressor(m), X, TARGETS, cv=4),
    "cross_val_predict": lambda m: cross_val_predict(classifier(m), X, LABELS, cv=3, method="predict_log_proba"),
    "learning_curve, incremental": lambda m: learning_curve(
        classifier(m), X, LABELS, cv=3, exploit_incremental_learning=True, train_sizes=[0.3, 0.6, 1.0]
    )[2],
    "calibration": lambda m: CalibratedClassifierCV(classifier(m), cv=3).fit(X, LABELS).predict_proba(X),
    "isotonic calibration": lambda m: (
        CalibratedClassifierCV(classifier(m), method="isotonic", cv=3).fit(X, LABELS).predict_proba(X)
    ),
    "bagging": lambda m: (
        BaggingClassifier(classifier(m), n_estimators=4, random_state=0).fit(X, LABELS).predict_proba(X)
    ),
    "bagging regressors": lambda m: (
        BaggingRegressor(regressor(m), n_estimators=4, max_features=3, random_state=0).fit(X, TARGETS).predict(X)
    ),
    "voting": lambda m: (
        VotingClassifier([("a", classifier(m)), ("b", LogisticRegression())], voting="soft")
        .fit(X, LABELS)
        .predict_proba(X)
    ),
    "stacking": lambda m: (
        StackingClassifier([("a", classifier(m)), ("b", LogisticRegression())], cv=3).fit(X, LABELS).predict_proba(X)
    ),
    "chain": lambda m: ClassifierChain(classifier(m)).fit(X, X[:, :2] > 0).predict_proba(X),
    "multioutput": lambda m: np.array(MultiOutputClassifier(classifier(m)).fit(X, X[:, :2] > 0).predict_proba(X)),
    "transformed target": lambda m: (
        TransformedTargetRegressor(regressor(m), func=np.sinh, inverse_func=np.arcsinh).fit(X, TARGETS).predict(X)
    ),
    "permutation importance": lambda m: (
        permutation_importance(regressor(m).fit(X, TARGETS), X, TARGETS, n_repeats=3, random_state=0).importances
    ),
    "sparse": lambda m: classifier(m).fit(sparse.csr_array(X), LABELS).predict_proba(sparse.csc_array(X)),
    "integers": lambda m: classifier(m).fit((4 * X).astype(np.int32), LABELS).predict_proba((4 * X).astype(np.int8)),
    "lists": lambda m: classifier(m).fit(X.tolist(), LABELS.tolist()).predict_proba(X[:3].tolist()),
    "multilabel": lambda m: classifier(m).fit(X, (X[:, :3] > 0).astype(int)).predict(X),
    "float32 fit, float64 predict": lambda m: classifier(m).fit(X.astype(np.float32), LABELS).predict_proba(X),
}


@pytest.mark.skipif(sklearn.__version__.startswith(("1.6", "1.7", "1.8")), reason="the numbers are those of 1.9")
@pytest.mark.parametrize("member", MEMBERS)
def test_the_same_results(member: str) -> None:
    ours, theirs = (np.asarray(MEMBERS[member](module)) for module in (fastbp.sklearn, neural_network))
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    tolerance = 1e-4 if "float32" in member else 1e-7
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


# of LogisticRegression before scikit-learn 1.8 beside SciPy 1.16 and later
@pytest.mark.filterwarnings("ignore:.*`disp` and `iprint` options:DeprecationWarning")
@pytest.mark.parametrize("member", MEMBERS)
def test_members_work(member: str) -> None:
    """On every version of scikit-learn."""
    assert np.isfinite(np.asarray(MEMBERS[member](fastbp.sklearn))).all()


# An estimator among estimators


@pytest.mark.parametrize("name", Y)
def test_clone(name: str) -> None:
    generator = np.random.RandomState(3)
    estimator = make(name, alpha=0.5, random_state=generator).fit(X, Y[name])
    cloned = clone(estimator)
    assert not hasattr(cloned, "coefs_")
    assert cloned.get_params()["alpha"] == 0.5
    assert cloned.random_state is not generator
    assert is_classifier(estimator) == (name == "MLPClassifier")
    assert is_regressor(estimator) == (name == "MLPRegressor")
    assert repr(estimator).startswith(f"{name}(alpha=0.5, hidden_layer_sizes=(6,), max_iter=15,")
    assert "estimator" in estimator._repr_html_()
    assert vars(type(estimator)()).keys() - estimator.get_params() <= {"loss"}, "parameters only are set in __init__"


def test_set_output_of_a_pipeline() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcde"))
    pipeline = make_pipeline(StandardScaler(), classifier(fastbp.sklearn)).set_output(transform="pandas")
    pipeline.fit(frame, LABELS)
    assert list(pipeline[-1].feature_names_in_) == list("abcde")
    np.testing.assert_array_equal(
        pipeline.predict(frame),
        make_pipeline(StandardScaler(), classifier(fastbp.sklearn)).fit(X, LABELS).predict(X),
    )


def test_frames_and_feature_names() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["v", "w", "x", "y", "z"])
    estimator = classifier(fastbp.sklearn, early_stopping=True).fit(frame, pandas.Series(LABELS, dtype="category"))
    assert list(estimator.feature_names_in_) == ["v", "w", "x", "y", "z"]
    assert estimator.n_features_in_ == 5
    np.testing.assert_array_equal(estimator.classes_, ["ash", "elm", "oak"])
    with pytest.warns(UserWarning, match="X does not have valid feature names, but MLPClassifier was fitted with"):
        estimator.predict(X)
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(frame[["w", "v", "x", "y", "z"]])
    estimator.fit(X, LABELS)
    assert not hasattr(estimator, "feature_names_in_")
    mixed = frame.astype({"v": np.float32, "w": np.int64})
    assert regressor(fastbp.sklearn).fit(mixed, pandas.Series(TARGETS)).coefs_[0].dtype == np.float64
    singles = regressor(fastbp.sklearn).fit(frame.astype(np.float32), pandas.Series(TARGETS))
    assert singles.coefs_[0].dtype == np.float32


def test_metadata_routing() -> None:
    """Sample weights reach `fit` and `score` through a search, and only where they are asked for."""
    weights = RNG.uniform(0.1, 5, len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = make("MLPClassifier").set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        routing = estimator.get_metadata_routing()
        assert routing.fit.requests["sample_weight"] is True
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        search = GridSearchCV(estimator, {"alpha": [1e-3]}, cv=3).fit(X, LABELS, sample_weight=weights)
        piped = make_pipeline(scaler, estimator).fit(X, LABELS, sample_weight=weights)[-1]
        deaf = make("MLPClassifier").set_fit_request(sample_weight=False).set_score_request(sample_weight=False)
        plain = make_pipeline(scaler, deaf).fit(X, LABELS)[-1]
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError):
            GridSearchCV(make("MLPClassifier"), {"alpha": [1]}).fit(X, LABELS, sample_weight=weights)
        assert make("MLPClassifier").set_partial_fit_request(classes=True, sample_weight=True)
        assert make("MLPRegressor").set_partial_fit_request(sample_weight=True)
    direct = make("MLPClassifier", alpha=1e-3).fit(X, LABELS, sample_weight=weights)
    np.testing.assert_array_equal(search.best_estimator_.coefs_[0], direct.coefs_[0])
    direct = make("MLPClassifier").fit(StandardScaler().fit_transform(X), LABELS, sample_weight=weights)
    np.testing.assert_array_equal(piped.coefs_[0], direct.coefs_[0])
    assert not np.allclose(piped.coefs_[0], plain.coefs_[0])


def test_tags() -> None:
    for name in Y:
        ours, theirs = (make(name, module).__sklearn_tags__() for module in (fastbp.sklearn, neural_network))
        assert ours.input_tags.sparse
        theirs.input_tags.sparse = True  # version 1.6 forgets that
        assert ours == theirs


# Dumps


def by_joblib(estimator: Any) -> Any:
    stream = io.BytesIO()
    joblib.dump(estimator, stream, compress=3)
    stream.seek(0)
    return joblib.load(stream)


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda estimator: pickle.loads(pickle.dumps(estimator)),
    "pickle 2": lambda estimator: pickle.loads(pickle.dumps(estimator, 2)),
    "joblib": by_joblib,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("name", Y)
def test_a_copy_is_the_same_estimator(name: str, solver: str, copied: Callable[[Any], Any]) -> None:
    unfitted = copied(make(name, solver=solver))
    estimator = make(name, solver=solver).fit(X, Y[name])
    again = copied(estimator)
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))
    np.testing.assert_array_equal(unfitted.fit(X, Y[name]).predict(X), estimator.predict(X))
    assert again.get_params() == estimator.get_params()
    assert vars(again).keys() == vars(estimator).keys()


@pytest.mark.parametrize("copied", [COPIES["deepcopy"], COPIES["pickle"], COPIES["joblib"]], ids=list("dpj"))
@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("name", Y)
def test_a_copy_goes_on_like_the_original(name: str, solver: str, copied: Callable[[Any], Any]) -> None:
    estimator = make(name, solver=solver, learning_rate="invscaling").fit(X, Y[name])
    again = copied(estimator)
    for e in estimator, again:
        e.partial_fit(X[:50], Y[name][:50]).partial_fit(X[50:], Y[name][50:])
    for a, b in zip(again.coefs_, estimator.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
    again.coefs_[0][:] = 0
    assert estimator.coefs_[0].any()


def test_a_dump_does_not_hold_the_data() -> None:
    small = make("MLPRegressor", early_stopping=True, warm_start=True).fit(X, TARGETS)
    many = np.tile(X, (100, 1))
    large = make("MLPRegressor", early_stopping=True, warm_start=True).fit(many, np.tile(TARGETS, 100))
    difference = len(pickle.dumps(large)) - len(pickle.dumps(small))
    assert difference <= 16 * len(many), "at most an index for each sample, for the split that is kept"
    assert difference < many.nbytes / 2


def test_a_dump_is_read_by_a_new_process() -> None:
    estimator = make("MLPClassifier").fit(X, LABELS)
    program = (
        "import pickle, sys; e, X = pickle.load(sys.stdin.buffer);"
        "pickle.dump((e.predict_proba(X), e.partial_fit(X[:40], e.predict(X[:40])).t_), sys.stdout.buffer)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps((estimator, X)), capture_output=True, timeout=TIMEOUT
    )
    assert answer.returncode == 0, answer.stderr.decode()
    probabilities, seen = pickle.loads(answer.stdout)
    np.testing.assert_array_equal(probabilities, estimator.predict_proba(X))
    assert seen == 15 * 120 + 40


# Candidates side by side


def search(module: Any, n_jobs: int = 1) -> Any:
    return GridSearchCV(classifier(module, max_iter=10), GRID, cv=2, n_jobs=n_jobs).fit(X, LABELS)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_parallel_search_finds_what_a_serial_one_finds(backend: str) -> None:
    serial = search(fastbp.sklearn)
    with joblib.parallel_config(backend, n_jobs=2):
        parallel = search(fastbp.sklearn, n_jobs=2)
    np.testing.assert_array_equal(parallel.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"])
    for a, b in zip(parallel.best_estimator_.coefs_, serial.best_estimator_.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


class Watched:
    """Stands for the kernel that trains; records who is inside at the same time, and with how many threads each."""

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self.kernel = kernel
        self.inside: dict[int, int] = {}
        self.most, self.most_threads, self.overlaps, self.calls = 0, 0, 0, 0
        self.lock = threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        words, n_workers, n_minibatches = arguments[-3], arguments[-1], len(arguments[5])
        if not n_minibatches:
            return self.kernel(*arguments)
        with self.lock:
            self.inside[id(words)] = n_workers
            self.calls += 1
            alone = len(self.inside) == 1
            self.most = max(self.most, len(self.inside))
            self.most_threads = max(self.most_threads, sum(self.inside.values()))
        result = self.kernel(*arguments)
        with self.lock:
            self.overlaps += not alone or len(self.inside) > 1
            self.inside.pop(id(words), None)
        return result


def test_candidates_train_in_parallel_under_threading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fits are inside their kernels at the same time: a kernel that held the interpreter's lock would be alone.

    Each is there most of the time, so that nearly all calls meet the other's; only the last of the slower may be alone.
    """
    watched = Watched(wide.train)
    monkeypatch.setattr(wide, "train", watched)
    many, targets = np.tile(X, (40, 1)), np.tile(TARGETS, 40)
    estimators = [make("MLPRegressor", hidden_layer_sizes=(64, 64), max_iter=40, tol=0) for _ in range(2)]
    with joblib.parallel_config("threading", n_jobs=2):
        fitted = joblib.Parallel()(joblib.delayed(estimator.fit)(many, targets) for estimator in estimators)
    assert watched.most == 2
    assert watched.overlaps >= watched.calls / 2
    for a, b in zip(fitted[0].coefs_, fitted[1].coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_threads_inside_adapt_under_threading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit alone takes the cores that repay; two at a time share them, and give the same bits."""
    watched = Watched(wide.train)
    monkeypatch.setattr(wide, "train", watched)
    monkeypatch.setattr("fastbp.engine.cores.available_cores", lambda: 4)
    for variable in "FASTBP_NUM_THREADS", "OMP_NUM_THREADS":
        monkeypatch.delenv(variable, raising=False)
    many, targets = np.tile(X, (40, 1)), np.tile(TARGETS, 40)

    def estimator() -> Any:
        return make("MLPRegressor", hidden_layer_sizes=(128, 128), batch_size=800, max_iter=6, tol=0)

    alone = estimator().fit(many, targets)
    assert watched.most_threads == 4
    watched.most_threads = 0
    with joblib.parallel_config("threading", n_jobs=4):
        fitted = joblib.Parallel()(joblib.delayed(estimator().fit)(many, targets) for _ in range(4))
    assert watched.most == 4
    for other in fitted:
        for a, b in zip(alone.coefs_, other.coefs_, strict=True):
            np.testing.assert_array_equal(a, b)
    assert watched.most_threads <= 4 + 4, "the first to come took all cores; those that came later, one each"


def test_threads_inside_adapt_under_loky() -> None:
    """joblib tells its processes how many threads each may use; together they are no more than the cores."""
    cores = fastbp.get_num_threads()
    with joblib.parallel_config("loky", n_jobs=2):
        processes = set(joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(8)))
        threads = set(joblib.Parallel()(joblib.delayed(fastbp.get_num_threads)() for _ in range(8)))
    assert os.getpid() not in processes
    assert threads == {max(1, min(cores, joblib.cpu_count() // 2))}
    with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=1):
        assert set(joblib.Parallel()(joblib.delayed(fastbp.get_num_threads)() for _ in range(8))) == {1}
