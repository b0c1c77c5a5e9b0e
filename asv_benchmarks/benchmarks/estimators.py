"""Estimators: `fit` and `predict` of fastbp.sklearn, and the same calls of scikit-learn's MLP.

`python asv_benchmarks/estimators.py` prints both beside each other, from one run.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import scipy.sparse
from numpy.typing import NDArray
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning

import fastbp.sklearn
from fastbp.datasets import load_mnist

Array = NDArray[Any]
IMPLEMENTATIONS: dict[str, ModuleType] = {"fastbp": fastbp.sklearn, "sklearn": neural_network}
DTYPES = ("float32", "float64")
# How far weights may lie apart after few steps, in units of the layer's largest. Those of L-BFGS in float32 are not
# compared: scikit-learn evaluates its loss in float32 there, fastbp in float64.
EQUAL = {"float32": 1e-5, "float64": 1e-9}


@dataclass(frozen=True)
class Setting:
    """An estimator and the samples it is fitted to.

    `floor` is how many times as fast as scikit-learn's fastbp's shall be.
    """

    kind: str
    data: str
    n: int
    parameters: Mapping[str, Any]
    floor: float
    layout: str = "rows"

    def samples(self, dtype: str) -> tuple[Any, Array]:
        """Return X and y; the same at each call."""
        X, y = DATA[self.data](self.n)
        X = LAYOUTS[self.layout](X.astype(dtype))
        return X, y if self.kind == "MLPClassifier" else y.astype(dtype)

    def estimator(self, implementation: str, **parameters: Any) -> Any:
        """Return it, unfitted; it ends after `max_iter` epochs, whatever it has learned."""
        endless = {} if self.parameters.get("solver") == "lbfgs" else {"n_iter_no_change": np.inf}
        options = {"random_state": 1, **endless, **self.parameters, **parameters}
        return getattr(IMPLEMENTATIONS[implementation], self.kind)(**options)


@functools.cache
def images(n: int) -> tuple[Array, Array]:
    """Return MNIST where FASTBP_DATA is set, as in scikit-learn's bench_mnist; otherwise noisy copies of patterns."""
    if "FASTBP_DATA" in os.environ:
        X, y, _, _ = load_mnist()
        return X[:n].astype(np.float32), y[:n]
    rng = np.random.default_rng(0)
    patterns = rng.random((10, 784), dtype=np.float32) * (rng.random((10, 784)) < 0.3)
    labels = rng.integers(10, size=n)
    return patterns[labels] * rng.random((n, 784), dtype=np.float32), labels


@functools.cache
def curve(n: int, n_in: int) -> tuple[Array, Array]:
    """Return inputs and a smooth function of them, which a network with tanh can learn."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, n_in))
    return X, np.tanh(X @ rng.standard_normal(n_in))


def thinned(X: Array) -> Any:
    """Return X as compressed rows (CSR) with one number of twenty."""
    return scipy.sparse.csr_array(np.where(np.random.default_rng(1).random(X.shape) < 0.05, X, 0).astype(X.dtype))


LAYOUTS: dict[str, Callable[[Array], Any]] = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "sparse": thinned,
}
DATA: dict[str, Callable[[int], tuple[Array, Array]]] = {
    "images": images,
    "100 inputs": functools.partial(curve, n_in=100),
    "400 inputs": functools.partial(curve, n_in=400),
    "10 inputs": functools.partial(curve, n_in=10),
    "two classes": lambda n: (curve(n, 20)[0], (curve(n, 20)[1] > 0).astype(int)),
}
FITS = {
    # the network of scikit-learn's benchmarks/bench_mnist.py
    "784-100-100-10 adam batch 200": Setting(
        "MLPClassifier", "images", 60_000, {"hidden_layer_sizes": (100, 100), "max_iter": 3}, 3
    ),
    "100-64-64-1 adam batch 200": Setting(
        "MLPRegressor", "100 inputs", 20_000, {"hidden_layer_sizes": (64, 64), "activation": "tanh", "max_iter": 5}, 8
    ),
    "10-16-1 adam batch 32": Setting(
        "MLPRegressor", "10 inputs", 20_000,
        {"hidden_layer_sizes": (16,), "activation": "tanh", "batch_size": 32, "max_iter": 5}, 20,
    ),
    "784-100-10 lbfgs": Setting(
        "MLPClassifier", "images", 10_000, {"hidden_layer_sizes": (100,), "solver": "lbfgs", "max_iter": 10}, 2
    ),
    "100-64-64-1 lbfgs": Setting(
        "MLPRegressor", "100 inputs", 20_000,
        {"hidden_layer_sizes": (64, 64), "activation": "tanh", "solver": "lbfgs", "max_iter": 10}, 2,
    ),
    "100 rows, one epoch": Setting("MLPClassifier", "two classes", 100, {"max_iter": 1}, 1),
    "100 rows, defaults": Setting("MLPClassifier", "two classes", 100, {"max_iter": 200}, 1),
}  # fmt: skip
# Where only the memory is looked at: samples that lie in other ways
OTHER_LAYOUTS = {
    "400-50-1 adam, columns": Setting(
        "MLPRegressor", "400 inputs", 20_000, {"hidden_layer_sizes": (50,), "max_iter": 2}, 0, "columns"
    ),
    "400-50-1 adam, sparse": Setting(
        "MLPRegressor", "400 inputs", 20_000, {"hidden_layer_sizes": (50,), "max_iter": 2}, 0, "sparse"
    ),
    "400-50-1 lbfgs, columns": Setting(
        "MLPRegressor", "400 inputs", 20_000,
        {"hidden_layer_sizes": (50,), "solver": "lbfgs", "max_iter": 5}, 0, "columns",
    ),
}  # fmt: skip
REMEMBERED = {**{name: setting for name, setting in FITS.items() if setting.n > 100}, **OTHER_LAYOUTS}
# setting -> methods that are timed; a fit of a single epoch comes first
PREDICTIONS = {
    "784-100-100-10 adam batch 200": ("predict", "predict_proba"),
    "100-64-64-1 adam batch 200": ("predict",),
    "10-16-1 adam batch 32": ("predict",),
}
PREDICT_FLOOR = 2
ROWS = 1000, 10_000


@contextmanager
def unconverged() -> Iterator[None]:
    """Without the warning that so few epochs are not enough."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def nudged(X: Any) -> Any:
    """Return X one ULP larger, but for its zeros."""
    if scipy.sparse.issparse(X):
        other = X.copy()
        other.data = np.nextafter(X.data, np.inf, dtype=X.dtype)
        return other
    return np.where(X == 0, X, np.nextafter(X, np.inf, dtype=X.dtype))


def assert_equal_fits(setting: Setting, dtype: str) -> None:
    """Check that both make the same weights of the first samples; it also compiles fastbp.

    Weights of a layer that scikit-learn itself moves by more than a tenth of the bound when X changes by one ULP say
    nothing: of 784-100-100-10 in float32 Adam magnifies the rounding of gradients that are nearly 0.
    """
    X, y = setting.samples(dtype)
    X, y = X[:1000], y[:1000]
    with unconverged():
        fast, plain = (setting.estimator(name, max_iter=2).fit(X, y) for name in IMPLEMENTATIONS)
        moved = setting.estimator("sklearn", max_iter=2).fit(nudged(X), y)
    if setting.parameters.get("solver") == "lbfgs" and dtype == "float32":
        return
    layers = [fit.coefs_ + fit.intercepts_ for fit in (fast, plain, moved)]
    compared = 0
    for mine, other, beside in zip(*layers, strict=True):
        bound = EQUAL[dtype] * np.abs(other).max()
        if np.abs(beside - other).max() <= bound / 10:
            compared += 1
            assert np.abs(mine - other).max() <= bound
    assert compared >= len(plain.coefs_)
    assert abs(fast.loss_ - plain.loss_) <= EQUAL[dtype] * max(1, plain.loss_)


def fitting(setting: Setting, implementation: str, dtype: str) -> Callable[[], Any]:
    """Return what fits a new estimator."""
    X, y = setting.samples(dtype)

    def fit() -> Any:
        with unconverged():
            return setting.estimator(implementation).fit(X, y)

    return fit


def predicting(setting: Setting, implementation: str, dtype: str, method: str, rows: int) -> Callable[[], Array]:
    """Return what asks a fitted estimator."""
    X, y = setting.samples(dtype)
    with unconverged():
        estimator = setting.estimator(implementation, max_iter=1).fit(X[:1000], y[:1000])
    return functools.partial(getattr(estimator, method), X[:rows].copy())


def rise_of_memory(call: Callable[[], Any]) -> int:
    """Return the bytes by which the process grows at most during a call.

    Linux keeps a high-water mark that can be set back; elsewhere the size is read as often as possible.
    """
    process, mark = psutil.Process(), Path("/proc/self/clear_refs")
    if mark.exists():
        mark.write_text("5")
        before = process.memory_info().rss
        call()
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) - before
    ended, largest = threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(0.001):
            largest[0] = max(largest[0], process.memory_info().rss)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        ended.set()
        watcher.join()
    return largest[0] - before


class FitEstimator:
    """Time of a call of `fit` on a new estimator."""

    params = (tuple(IMPLEMENTATIONS), tuple(FITS), DTYPES)
    param_names = ("implementation", "setting", "dtype")
    timeout = 600

    def setup(self, implementation: str, setting: str, dtype: str) -> None:
        assert_equal_fits(FITS[setting], dtype)
        self.fit = fitting(FITS[setting], implementation, dtype)

    def time_fit(self, implementation: str, setting: str, dtype: str) -> None:
        self.fit()


class PredictEstimator:
    """Time of a prediction, for one row and for many."""

    params = (tuple(IMPLEMENTATIONS), tuple((s, m) for s, methods in PREDICTIONS.items() for m in methods), (1, *ROWS))
    param_names = ("implementation", "setting", "rows")
    timeout = 600

    def setup(self, implementation: str, setting: tuple[str, str], rows: int) -> None:
        name, method = setting
        fast, plain = (predicting(FITS[name], each, "float32", method, rows) for each in IMPLEMENTATIONS)
        assert_equal_predictions(fast(), plain())
        self.predict = fast if implementation == "fastbp" else plain

    def time_predict(self, implementation: str, setting: tuple[str, str], rows: int) -> None:
        self.predict()


def assert_equal_predictions(fast: Array, plain: Array) -> None:
    """Check that two estimators answer alike, but for labels whose probabilities are all but equal."""
    if fast.dtype.kind == "f":
        np.testing.assert_allclose(fast, plain, rtol=1e-3, atol=1e-4)
    else:
        assert np.mean(fast == plain) >= 0.999


class MemoryEstimator:
    """Rise of the process's memory during a second fit."""

    params = (tuple(IMPLEMENTATIONS), tuple(REMEMBERED))
    param_names = ("implementation", "setting")
    timeout = 600
    unit = "bytes"

    def setup(self, implementation: str, setting: str) -> None:
        assert_equal_fits(REMEMBERED[setting], "float32")
        self.fit = fitting(REMEMBERED[setting], implementation, "float32")
        self.fit()

    def track_rise(self, implementation: str, setting: str) -> int:
        return rise_of_memory(self.fit)
