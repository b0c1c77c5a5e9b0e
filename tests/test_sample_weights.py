"""Sample weights: a sample of weight w counts as w samples, in gradient, loss, accuracy and training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numeric import numerical_gradients
from problems import HEADS, Array, Problem, draw
from test_kernels import check
from test_training_steps import RULES, SHARP, compare

import fastbp
from fastbp.reference import component, matrix, train

DTYPES = ["float32", "float64"]
pytestmark = pytest.mark.usefixtures("form")


def weighted(rng: np.random.Generator, problem: Problem, *, zeros: float = 0.2) -> Problem:
    """Give the samples weights, some of which are 0."""
    m = len(problem.X)
    return replace(problem, weight=rng.exponential(1, m) * (rng.random(m) >= zeros) + (np.arange(m) == 0))


# Against the reference


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS, ids="-".join)
@pytest.mark.parametrize("m", [1, 11, 257, 1025])
def test_within_the_bound(m: int, head: tuple[str, str], dtype: str) -> None:
    rng = np.random.default_rng(m)
    n_out = 1 + m % 19
    problem = draw(rng, [5, 9, n_out], m, hidden="tanh", head=head, dtype=dtype, labels=m % 2 == 0)
    check(weighted(rng, problem), n_threads=1 + m % 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("update", RULES)
def test_ten_steps(update: str, dtype: str) -> None:
    """Five mini-batches an epoch, of which the second has no weight at all."""
    rng = np.random.default_rng(41)
    problem = weighted(rng, draw(rng, [6, 9, 3], 23, head=("sigmoid", "quadratic"), dtype=dtype))
    assert problem.weight is not None
    problem.weight[5:10] = 0
    share, relative = compare(problem, update, batch_size=5, epochs=2, n_threads=2)
    assert share <= 1
    assert relative <= SHARP[dtype]


def test_slabs() -> None:
    rng = np.random.default_rng(42)
    problem = weighted(rng, draw(rng, [4, 5, 3], 2500, dtype="float64"))
    share, relative = compare(problem, "adam", batch_size=1200, epochs=2, n_threads=3)
    assert share <= 1
    assert relative <= SHARP["float64"]


def test_both_forms_of_the_reference() -> None:
    rng = np.random.default_rng(43)
    problem = weighted(rng, draw(rng, [5, 4, 3], 12, dtype="float64"))
    data = *problem.wide(), problem.loss, problem.X, problem.Y, problem.weight
    ours, twin = component.loss_and_gradients(*data), matrix.loss_and_gradients(*data)
    assert component.loss(*data) == pytest.approx(matrix.loss(*data), rel=1e-14)
    assert ours[0] == pytest.approx(twin[0], rel=1e-14) == pytest.approx(matrix.loss(*data), rel=1e-14)
    for ours_by, twin_by in zip(ours[1:], twin[1:], strict=True):
        for a, b in zip(ours_by, twin_by, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-15)


def test_finite_differences() -> None:
    rng = np.random.default_rng(44)
    problem = weighted(rng, draw(rng, [3, 4, 2], 9, hidden="tanh", dtype="float64"))

    def loss(arrays: list[Array]) -> float:
        moved = replace(problem, weights=arrays[:2], biases=arrays[2:])
        return moved.network().loss(problem.X, problem.y, sample_weight=problem.weight)

    dw, db = problem.network().gradients(problem.X, problem.y, sample_weight=problem.weight)
    for got, expected in zip([*dw, *db], numerical_gradients(loss, [*problem.weights, *problem.biases]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


# What weights mean


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_one_change_no_bit(dtype: str) -> None:
    problem = draw(np.random.default_rng(45), [7, 9, 3], 50, dtype=dtype, labels=True)
    networks = [problem.network(seed=0) for _ in range(2)]
    for network, weight in zip(networks, (None, np.ones(50)), strict=True):
        network.fit(problem.X, problem.y, epochs=3, batch_size=7, sample_weight=weight, verbose=False)
    for a, b in zip(
        (*networks[0].weights, *networks[0].biases), (*networks[1].weights, *networks[1].biases), strict=True
    ):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weight_of_two_is_a_sample_twice(dtype: str) -> None:
    rng = np.random.default_rng(46)
    problem = draw(rng, [5, 6, 3], 30, head=("softmax", "cross_entropy"), dtype=dtype, labels=True)
    counts = rng.integers(0, 4, 30)
    X, y, network = np.repeat(problem.X, counts, axis=0), np.repeat(problem.y, counts), problem.network()
    eps = float(np.finfo(dtype).eps)
    given: dict[str, Any] = {"sample_weight": counts}
    assert network.loss(problem.X, problem.y, **given) == pytest.approx(network.loss(X, y), rel=1e-13)
    assert network.accuracy(problem.X, problem.y, **given) == pytest.approx(network.accuracy(X, y), rel=1e-13)
    for ours, twin in zip(network.gradients(problem.X, problem.y, **given), network.gradients(X, y), strict=True):
        for a, b in zip(ours, twin, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=len(X) * eps)  # sums of at most so many terms below 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("update", RULES)
def test_a_mini_batch_without_weight_changes_nothing(update: str, dtype: str) -> None:
    """Neither the weights, nor what the optimizer remembers of gradients."""
    problem = draw(np.random.default_rng(47), [5, 6, 3], 12, dtype=dtype)
    rest: dict[str, Any] = {"batch_size": 4, "optimizer": RULES[update][0], "shuffle": False}
    networks = [problem.network() for _ in range(2)]
    weight = np.repeat([1.0, 0.0], [8, 4])
    for network in networks:
        network.partial_fit(problem.X, problem.y, **rest)
    first = networks[0].partial_fit(problem.X, problem.y, sample_weight=weight, **rest)
    second = networks[1].partial_fit(problem.X[:8], problem.y[:8], **rest)
    assert first.loss[0] == pytest.approx(second.loss[0] * 8 / 12, rel=1e-14)
    for arrays in zip(*((*n.weights, *n.biases) for n in networks), strict=True):
        assert arrays[0].tobytes() == arrays[1].tobytes()
    for slots in zip(*(n._optimizer.slots for n in networks), strict=True):
        for parts in zip(*slots, strict=True):
            for a, b in zip(*parts, strict=True):
                assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("n_threads", [2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads(dtype: str, n_threads: int) -> None:
    rng = np.random.default_rng(48)
    problem = weighted(rng, draw(rng, [33, 17, 5], 600, dtype=dtype))
    results = []
    for threads in 1, n_threads:
        network = problem.network(seed=0)
        history = network.fit(
            problem.X, problem.y, epochs=2, batch_size=270, sample_weight=problem.weight, n_threads=threads,
            verbose=False,
        )  # fmt: skip
        results.append([history.loss, [w.tobytes() for w in (*network.weights, *network.biases)]])
    assert results[0] == results[1]


# History


def test_an_epochs_mean_counts_samples() -> None:
    """A mini-batch has the weighted mean of its cost and hits; in the mean of an epoch it counts by its samples."""
    rng = np.random.default_rng(49)
    problem = weighted(rng, draw(rng, [4, 3], 10, head=("softmax", "cross_entropy"), dtype="float64", labels=True))
    network = problem.network()
    history = network.fit(
        problem.X, problem.y, batch_size=4, sample_weight=problem.weight, shuffle=False, verbose=False,
        optimizer=fastbp.SGD(1e-300),
    )  # fmt: skip
    parts = [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert problem.weight is not None
    for got, measure in (history.loss, network.loss), (history.accuracy, network.accuracy):
        means = [measure(problem.X[p], problem.y[p], sample_weight=problem.weight[p]) for p in parts]
        assert got[0] == pytest.approx(np.dot(means, [4, 4, 2]) / 10, rel=1e-13)


# At the door

WRONG = {
    "too few": ([1.0, 2.0], ValueError, r"shape \(2,\)"),
    "a matrix": ([[1.0], [2.0], [3.0]], ValueError, r"shape \(3, 1\)"),
    "a number": (2.0, ValueError, r"shape \(\)"),
    "negative": ([1.0, -0.5, 2.0], ValueError, r"sample_weight\[1\] is -0.5"),
    "NaN": ([1.0, 2.0, np.nan], ValueError, r"sample_weight\[2\] is nan"),
    "infinite": ([np.inf, 2.0, 1.0], ValueError, r"sample_weight\[0\] is inf"),
    "all zero": ([0, 0, 0], ValueError, "sums to 0.0"),
    "too large": ([1e308, 1e308, 1e308], ValueError, "sums to inf"),
    "too small": ([5e-324, 0, 0], ValueError, "sums to 5e-324"),
    "text": (["a", "b", "c"], TypeError, "sample_weight has dtype"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("call", ["fit", "partial_fit", "loss", "accuracy", "gradients"])
def test_wrong_weights(call: str, name: str) -> None:
    given, error, message = WRONG[name]
    network = fastbp.Network([2, 2], seed=0)
    before = [w.copy() for w in network.weights]
    with pytest.raises(error, match=message):
        getattr(network, call)(np.zeros((3, 2)), [0, 1, 0], sample_weight=given)
    np.testing.assert_array_equal(network.weights, before)


def test_weights_are_read_in_place_and_stay() -> None:
    """Of any dtype and layout; a list, too."""
    problem = draw(np.random.default_rng(50), [3, 2], 6, dtype="float64")
    weight = np.array([1, 2, 0, 1, 3, 1])
    expected = problem.network().gradients(problem.X, problem.y, sample_weight=weight)[0][0]
    for given in (
        weight.tolist(),
        weight.astype(np.float32),
        np.repeat(weight.astype(float), 2)[::2],
        weight.astype(">f8"),
    ):
        kept = np.array(given)
        got = problem.network().gradients(problem.X, problem.y, sample_weight=given)[0][0]
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(given, kept)


def test_the_reference_skips_a_mini_batch_without_weight() -> None:
    X, Y, weight = np.ones((4, 1)), np.zeros((4, 1)), np.array([0.0, 0.0, 1.0, 1.0])
    batches = [slice(0, 2), slice(2, 4)]
    w, _, losses = train(
        [np.ones((1, 1))], [None], ("identity",), "quadratic", X, Y, batches=batches, sample_weight=weight,
        hyper={"learning_rate": 0.5},
    )  # fmt: skip
    assert losses.tolist() == [0.0, 0.5]
    assert w[0] == 0.5
