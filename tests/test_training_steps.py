"""Ten training steps of every optimizer against the reference; updates to the bit; slabs; biases that are not trained.

How far two trainings may be apart is derived step by step (`naive.train`): the error of the weights goes through the
next mini-batch like any other, so the bound grows as fast as errors can at the worst. Nothing is tuned; problems are
such that it stays small beside the weights, which each test asserts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from itertools import chain
from typing import Any

import naive
import numpy as np
import pytest
from problems import Array, Problem, draw

import fastbp
from fastbp import reference

DTYPES = ["float32", "float64"]
pytestmark = pytest.mark.usefixtures("form")
RULES: dict[str, tuple[Any, Mapping[str, float]]] = {
    "sgd": (fastbp.SGD(0.2), {"learning_rate": 0.2}),
    "momentum": (fastbp.SGD(0.1, 0.9), {"learning_rate": 0.1, "momentum": 0.9}),
    "nesterov": (fastbp.SGD(0.1, 0.8, nesterov=True), {"learning_rate": 0.1, "momentum": 0.8}),
    "adam": (fastbp.Adam(), {"learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}),
}
# How large the bound may be beside the largest weight of its layer: more, and a test would say little
SHARP = {"float32": 1e-3, "float64": 1e-11}


def test_every_rule_is_here() -> None:
    assert set(RULES) == set(reference.UPDATES) == set(naive.STEPS)
    for update, (optimizer, hyper) in RULES.items():
        assert optimizer.update == update
        assert set(hyper) == set(reference.UPDATES[update].hyper)


def compare(
    problem: Problem, update: str, batch_size: int, epochs: int, n_threads: int = 1, l2: float = 0.0
) -> tuple[float, float]:
    """Train here and there; return the largest share of the bound, and the largest bound beside its layer's weights."""
    optimizer, hyper = RULES[update]
    network = problem.network()
    history = network.fit(
        problem.X, problem.y, epochs=epochs, batch_size=batch_size, optimizer=optimizer, shuffle=False,
        verbose=False, n_threads=n_threads, sample_weight=problem.weight, l2=l2,
    )  # fmt: skip
    batches = epochs * reference.minibatches(len(problem.X), batch_size)
    rest: dict[str, Any] = {
        "update": update, "hyper": hyper, "batches": batches, "train_bias": problem.bias is True,
        "sample_weight": problem.weight, "l2": l2,
    }  # fmt: skip
    data = problem.loss, problem.X.astype(np.float64), problem.Y
    weights, biases, losses = reference.train(*problem.wide(), *data, **rest)
    sizes = np.tile([len(batch) for batch in batches[: len(batches) // epochs]], (epochs, 1))
    np.testing.assert_allclose(
        history.loss, (losses.reshape(epochs, -1) * sizes).sum(axis=1) / len(problem.X), rtol=SHARP[problem.dtype.name]
    )
    bound = [
        naive.train(f, problem.weights, problem.biases, problem.activations, *data, **rest)
        for f in (problem.kernel(batch_size), naive.REFERENCE)
    ]
    share = relative = 0.0
    expected = chain(weights, (np.zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)))
    largest = [np.abs(w).max() for w in weights] * 2
    for got, wanted, kernel, own, size in zip(
        (*network.weights, *network.biases), expected, chain(*bound[0]), chain(*bound[1]), largest, strict=True
    ):
        if got.ndim == 1 and problem.bias is not True:
            np.testing.assert_array_equal(got, wanted)
            continue
        allowed = naive.tolerance(kernel, own)
        share = max(share, naive.share_of_bound(got, wanted, allowed))
        relative = max(relative, float(allowed.max() / size))
    return share, relative


PROBLEMS = {
    "one_layer": ([9, 5], [], ("softmax", "cross_entropy"), True),
    "sigmoid": ([6, 9, 3], ["sigmoid"], ("sigmoid", "cross_entropy"), True),
    "sigmoid_quadratic": ([17, 8, 2], ["sigmoid"], ("sigmoid", "quadratic"), True),
    "tanh": ([5, 8, 2], ["tanh"], ("identity", "mse"), True),
    "mixed": ([4, 8, 7, 3], ["tanh", "sigmoid"], ("softmax", "cross_entropy"), True),
    "poisson": ([5, 8, 2], ["tanh"], ("exp", "poisson"), True),
    "relu": ([8, 10, 4], ["relu"], ("softmax", "cross_entropy"), True),
    "linear": ([3, 4, 2], ["identity"], ("tanh", "mse"), True),
    "no_bias": ([6, 9, 3], ["tanh"], ("identity", "quadratic"), False),
    "fixed_bias": ([6, 9, 3], ["sigmoid"], ("relu", "mse"), "fixed"),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("update", RULES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_ten_steps(name: str, update: str, dtype: str) -> None:
    """Two epochs of five mini-batches, the last of which has 3 samples rather than 5."""
    sizes, hidden, head, bias = PROBLEMS[name]
    problem = draw(np.random.default_rng(21), sizes, 23, hidden=hidden, head=head, dtype=dtype, bias=bias)
    share, relative = compare(problem, update, batch_size=5, epochs=2)
    assert share <= 1
    assert relative <= SHARP[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("update", RULES)
def test_ten_steps_of_the_digits(update: str, dtype: str, digits: Any) -> None:
    problem = draw(np.random.default_rng(22), [64, 30, 10], 1, dtype=dtype)
    X, y = digits.X[:98].astype(dtype), digits.y[:98].astype(np.int64)
    problem = Problem(problem.weights, problem.biases, problem.activations, problem.loss, X, y)
    share, relative = compare(problem, update, batch_size=10, epochs=1, n_threads=2)
    assert share <= 1
    assert relative <= 10 * SHARP[dtype]  # 64 inputs of one sign


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "batch_size"), [(2500, 2500), (2600, 1025), (2048, 1024), (1281, 1280)])
def test_slabs(m: int, batch_size: int, dtype: str) -> None:
    """A mini-batch of more than 1024 samples is summed in parts."""
    problem = draw(np.random.default_rng(23), [4, 5, 3], m, dtype=dtype)
    for update in RULES:
        for n_threads in 1, 3:
            share, relative = compare(problem, update, batch_size, epochs=2, n_threads=n_threads)
            assert share <= 1
            assert relative <= SHARP[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [False, "fixed"])
def test_biases_that_are_not_trained(bias: Any, dtype: str) -> None:
    problem = draw(np.random.default_rng(24), [3, 9, 2], 30, dtype=dtype, bias=bias)
    for optimizer, _ in RULES.values():
        network = problem.network()
        network.fit(problem.X, problem.y, epochs=3, batch_size=7, optimizer=optimizer, verbose=False)
        for l in range(2):
            np.testing.assert_array_equal(network.biases[l], problem.biases[l])
            assert not np.isclose(network.weights[l], problem.weights[l], rtol=1e-6).all()
    assert (bias is False) == (not any(b.any() for b in problem.biases))


# An update to the bit


def fma(x: Array, y: Array, z: Array) -> Array:
    """x y + z, rounded once, by rational arithmetic."""
    exact = [
        Fraction(a) * Fraction(b) + Fraction(c) for a, b, c in zip(x.tolist(), y.tolist(), z.tolist(), strict=True)
    ]
    return np.array([rounded(value, x.dtype) for value in exact], x.dtype)


def rounded(value: Fraction, dtype: np.dtype[Any]) -> float:
    """Return the number of this dtype that is nearest to a fraction, the even one of two."""
    near = dtype.type(float(value))  # rounded twice: at most one step off
    down, up = np.nextafter(near, dtype.type(-np.inf)), np.nextafter(near, dtype.type(np.inf))

    def key(number: Any) -> tuple[Fraction, int]:
        odd = int(number.view(f"u{dtype.itemsize}")) & 1
        return abs(Fraction(float(number)) - value), odd

    return float(min((near, down, up), key=key))


def by_hand(update: str, w: Array, g: Array, state: list[Array], t: int) -> tuple[Array, list[Array]]:
    """Return a parameter and its state after step t, each operation rounded to the dtype as the kernels do it."""
    h = RULES[update][1]
    number = w.dtype.type

    def full(x: float) -> Array:
        return np.full_like(w, x)

    eta = full(-h["learning_rate"])
    if update == "sgd":
        return fma(g, eta, w), []
    if update in ("momentum", "nesterov"):
        mu = number(h["momentum"])
        v = fma(g, eta, state[0] * mu)
        return (w + v if update == "momentum" else w + fma(g, eta, v * mu)), [v]
    beta_1, beta_2 = h["beta_1"], h["beta_2"]
    correction = np.sqrt(-np.expm1(t * math.log(beta_2)))  # 1 - beta^t, without the rounding of beta^t
    eta_t = number(h["learning_rate"] * correction / -np.expm1(t * math.log(beta_1)))
    m = fma(g, full(1 - beta_1), state[0] * number(beta_1))
    v = fma(g * g, full(1 - beta_2), state[1] * number(beta_2))
    return w - m * eta_t / (np.sqrt(v) + number(h["epsilon"] * correction)), [m, v]


def test_fma_by_hand() -> None:
    """It rounds once: x x - 1 for x = 1 + eps is 2 eps + eps^2, of which x x forgets the last part."""
    for dtype in np.float32, np.float64:
        eps = np.finfo(dtype).eps
        x = np.array([1 + eps], dtype)
        assert fma(x, x, -np.ones_like(x))[0] == dtype(2 * float(eps)) + dtype(float(eps) ** 2)
        assert (x * x - 1)[0] == 2 * eps
    # 1 + 2^-24 + 2^-60 is above the middle of two float32, which its nearest float64 is not
    tie = fma(np.array([2.0**-30], np.float32), np.array([2.0**-30], np.float32), np.array([1], np.float32))
    assert tie[0] == 1
    assert rounded(1 + Fraction(1, 2**24) + Fraction(1, 2**60), np.dtype(np.float32)) == 1 + 2**-23


@pytest.mark.parametrize("m", [1, 10, 300, 1100])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("update", RULES)
def test_store_then_update_equals_fused(update: str, dtype: str, m: int) -> None:
    """Four steps by gradients() and an update by hand have the same bits as four of `partial_fit`."""
    problem = draw(np.random.default_rng(25), [7, 5, 3], m, hidden="tanh", dtype=dtype)
    network, stored = problem.network(), problem.network()
    state = [[np.zeros(w.size, dtype)] * reference.UPDATES[update].n_states for w in (*stored.weights, *stored.biases)]
    for t in range(1, 5):
        network.partial_fit(
            problem.X, problem.y, batch_size=m, optimizer=RULES[update][0], shuffle=False, n_threads=1 + t % 2
        )
        dw, db = stored.gradients(problem.X, problem.y)
        updated = []
        for i, (w, g) in enumerate(zip((*stored.weights, *stored.biases), (*dw, *db), strict=True)):
            new, state[i] = by_hand(update, w.ravel(), g.ravel(), state[i], t)
            assert new.dtype == dtype
            updated.append(new.reshape(w.shape))
        stored.weights, stored.biases = updated[:2], updated[2:]
        for got, wanted in zip((*network.weights, *network.biases), updated, strict=True):
            assert got.tobytes() == wanted.tobytes(), f"step {t}"
