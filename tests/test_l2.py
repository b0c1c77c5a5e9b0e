"""The L2 penalty: its gradient, its term of the loss, and the sum of squared weights as the kernels compute it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import SIZES, Array, Problem, draw
from test_training_steps import RULES, SHARP, compare

import fastbp
from fastbp import reference
from fastbp.architecture import Architecture
from fastbp.engine.run import Run, divisors, scales
from fastbp.history import History, TrainingState
from fastbp.kernels.layers import ETA, NORM, PENALTY, SCALE, SQUARED, STEP_COLUMNS, STRIP
from fastbp.kernels.tiles import NARROW, TALL_NARROW, TALL_WIDE, WIDE
from fastbp.training import Plan, train

DTYPES = ["float32", "float64"]
pytestmark = pytest.mark.usefixtures("form")


def norms(problem: Problem, update: str | None, penalties: list[float], n_threads: int, eta: float = 0.5) -> Array:
    """Return the column NORM of one mini-batch for each penalty, all samples in it."""
    a = Architecture.of(
        problem.sizes, hidden=list(problem.activations[:-1]), output=problem.activations[-1], loss=problem.loss,
        dtype=problem.dtype,
    )  # fmt: skip
    n = len(problem.X)
    y = problem.Y.astype(problem.dtype)
    run = Run(a, problem.weights, problem.biases, problem.X, y, batch_size=n, update=update, n_threads=n_threads)
    steps = np.zeros((len(penalties), STEP_COLUMNS))
    order, starts = np.tile(np.arange(n), len(steps)), n * np.arange(len(steps) + 1)
    steps[:, ETA], steps[:, PENALTY], steps[:, SCALE] = eta, penalties, scales(divisors(order, starts))
    return run.minibatches(order, starts, steps)[:, NORM]


# The sum


def test_strips_are_whole_multiples_of_a_chain() -> None:
    for shape in WIDE, NARROW, TALL_WIDE, TALL_NARROW:
        assert STRIP % shape.rows == 0
    assert STRIP % SQUARED == 0
    assert {STRIP % rows for rows in (5, 8, 10)} == {0}, "on other targets too"


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_to_the_bit(dtype: str) -> None:
    """Padding has no part in it, and no weight is counted twice."""
    rng = np.random.default_rng(51)
    for i, (n_in, n_out) in enumerate(itertools.product([*SIZES, 79, 80, 81, 121], [1, 3, 8, 16, 17, 33, 65])):
        problem = draw(rng, [n_in, 5, n_out], 3, hidden="identity", head=("identity", "mse"), dtype=dtype)
        weights = [rng.integers(-9, 10, w.shape).astype(dtype) for w in problem.weights]
        problem = replace(problem, weights=weights)
        expected = sum(int((w.astype(int) ** 2).sum()) for w in weights)
        for update in None, "adam":
            assert norms(problem, update, [0.25], 1 + i % 4).tolist() == [expected]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [[784, 30, 10], [3, 700, 2], [1, 1]], ids=str)
def test_within_the_bound(sizes: list[int], dtype: str) -> None:
    """At most `SQUARED` roundings in a chain, then sums in float64; of weights as they are before each update."""
    problem = draw(np.random.default_rng(52), sizes, 4, dtype=dtype)
    u = float(np.finfo(dtype).eps) / 2
    bound = 1.01 * (SQUARED * u + sum(w.size for w in problem.weights) * 2.0**-53)
    network, got = problem.network(), norms(problem, "sgd", [0.01] * 3, 2)
    for step in range(3):
        expected = sum(float((w.astype(np.float64) ** 2).sum()) for w in network.weights)
        assert abs(got[step] - expected) <= bound * expected
        network.partial_fit(
            problem.X, problem.y, batch_size=4, optimizer=fastbp.SGD(0.5), l2=0.01, shuffle=False, n_threads=1
        )
    assert len(set(got.tolist())) == 3, "the weights moved"


@pytest.mark.parametrize("n_threads", [2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads(dtype: str, n_threads: int) -> None:
    problem = draw(np.random.default_rng(53), [201, 67, 33, 5], 21, dtype=dtype)
    one, many = (norms(problem, "momentum", [0.1] * 4, threads) for threads in (1, n_threads))
    assert one.tobytes() == many.tobytes()


def test_only_where_it_is_wanted() -> None:
    problem = draw(np.random.default_rng(54), [9, 4], 5)
    got = norms(problem, "sgd", [0.0, 0.5, 0.0], 1)
    assert got[0] == got[2] == 0
    assert got[1] > 0


# Training


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("update", RULES)
def test_ten_steps(update: str, dtype: str, bias: bool) -> None:
    """History's loss has the term, too: `compare` holds it against the reference."""
    problem = draw(np.random.default_rng(55), [6, 9, 3], 23, head=("sigmoid", "quadratic"), dtype=dtype, bias=bias)
    share, relative = compare(problem, update, batch_size=5, epochs=2, n_threads=2, l2=0.05)
    assert share <= 1
    assert relative <= SHARP[dtype]


def test_slabs_and_sample_weights() -> None:
    rng = np.random.default_rng(56)
    problem = draw(rng, [4, 5, 3], 2500, dtype="float64")
    problem = replace(problem, weight=rng.exponential(1, 2500))
    share, relative = compare(problem, "sgd", batch_size=1200, epochs=2, n_threads=3, l2=0.5)
    assert share <= 1
    assert relative <= SHARP["float64"]


@pytest.mark.parametrize("update", [fastbp.SGD(0.1), fastbp.Adam()], ids=["sgd", "adam"])
def test_the_term_of_the_loss(update: Any) -> None:
    """loss = cost + l2/2 sum w^2, to float64's rounding; the gradient of the term is what the update adds."""
    problem = draw(np.random.default_rng(57), [5, 4, 2], 8, dtype="float64")
    cost = problem.network().loss(problem.X, problem.y)
    history = problem.network().fit(problem.X, problem.y, batch_size=8, l2=0.25, optimizer=update, verbose=False)
    expected = cost + 0.125 * sum(float((w**2).sum()) for w in problem.weights)
    assert history.loss[0] == pytest.approx(expected, rel=1e-14)


def test_penalty_of_the_sum() -> None:
    """scikit-learn's alpha: its gradient is divided by the samples of each mini-batch, the last of which has fewer."""
    problem = draw(np.random.default_rng(58), [5, 4, 2], 7, head=("identity", "quadratic"), dtype="float64")
    a = problem.network().architecture
    run = Run(a, problem.weights, problem.biases, problem.X, problem.Y, batch_size=4, update="sgd")

    def rates(first: int, epochs: Array) -> Array:
        return np.full(len(epochs), 0.1)

    def steps(first: int, rates: Array) -> Array:
        table = np.zeros((len(rates), STEP_COLUMNS))
        table[:, ETA] = 0.1
        return table

    state = TrainingState(None, History(), 1, 7)
    train(run, Plan(1, np.arange(7), 4, None, rates, steps, False, penalty_of_sum=0.3), state)
    expected = [*problem.wide()[0]], [*problem.wide()[1]]
    total = 0.0
    for part in slice(0, 4), slice(4, 7):
        m = part.stop - part.start
        w, b, losses = reference.train(
            *expected, problem.activations, problem.loss, problem.X, problem.Y, batches=[part], l2=0.3 / m,
            hyper={"learning_rate": 0.1},
        )  # fmt: skip
        expected = w, b
        total += m * losses[0]
    assert state.history.loss[0] == pytest.approx(total / 7, rel=1e-14)
    for got, wanted in zip(run.canonical()[0], expected[0], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-15)


@pytest.mark.parametrize("given", [-0.1, np.inf, np.nan, "0.1", True, None])
@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_wrong_penalties(call: str, given: Any) -> None:
    network = fastbp.Network([1, 1], seed=0)
    with pytest.raises((ValueError, TypeError), match="l2 is"):
        getattr(network, call)([[0.0]], [0.0], l2=given)
