"""The compiled engine against the reference: gradients, loss and activations within a bound that is derived (naive.py).

Besides that: small integers, where nothing rounds and each bit is known; finite differences, which know nothing of
backpropagation; and relations that hold whatever the numbers are, most of them to the bit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive import REFERENCE, Bounded, Pass, share_of_bound, tolerance, train
from numeric import numerical_gradients
from pairwise import pairwise
from problems import HEADS, HIDDEN, SIZES, Array, Problem, draw, draw_exact

import fastbp
from fastbp.kernels.layers import BLOCK
from fastbp.reference import matrix

DTYPES = ["float32", "float64"]
BATCHES = [1, 2, 4, 5, 6, 9, 10, 11, 127, 128, 129, 255, 256, 257, 1023, 1024, 1025, 2500]
THREADS = [1, 2, 3, 4, 8]
BIASES = [True, False, "fixed"]
pytestmark = pytest.mark.usefixtures("form")


def same_bits(got: Array, wanted: Array) -> bool:
    """Whether two arrays are equal to the bit; unlike ==, this tells 0 from -0 and knows a NaN."""
    return got.shape == wanted.shape and got.dtype == wanted.dtype and got.tobytes() == wanted.tobytes()


# The derived bound


def bounds(problem: Problem) -> tuple[Pass, Pass]:
    """Return the bounds of the kernels and of the reference.

    Beside float32 kernels the reference's is some 2^-27 of theirs, and the hundredth more of `tolerance` is enough.
    """
    by_kernel = problem.bounds(problem.kernel())
    return by_kernel, problem.bounds(REFERENCE) if problem.dtype == np.float64 else by_kernel


def share(got: Any, wanted: Any, by_kernel: Bounded, by_reference: Bounded) -> float:
    """Return the largest share of its bound that a difference takes."""
    if by_kernel is by_reference:
        return share_of_bound(got, wanted, 1.01 * by_kernel.error)
    return share_of_bound(got, wanted, tolerance(by_kernel, by_reference))


def check(problem: Problem, n_threads: int) -> None:
    """Check all that a mini-batch gives against the reference."""
    network, data = problem.network(), (problem.X, problem.y)
    dw, db = network.gradients(*data, sample_weight=problem.weight, n_threads=n_threads)
    a = network.activations(problem.X, n_threads=n_threads)
    np.testing.assert_array_equal(network.predict(problem.X, n_threads=n_threads), a[-1])
    cost = network.loss(*data, sample_weight=problem.weight, n_threads=n_threads)

    cost_expected, dw_expected, db_expected, a_expected = problem.expected()
    kernel, reference = bounds(problem)
    assert share(cost, cost_expected, kernel.cost, reference.cost) <= 1
    for l in range(len(problem.weights)):
        assert share(a[l], a_expected[l], kernel.activations[l], reference.activations[l]) <= 1, f"a of layer {l}"
        assert share(dw[l], dw_expected[l], kernel.dw[l], reference.dw[l]) <= 1, f"dC/dw of layer {l}"
        if problem.bias is False:
            assert not db[l].any()
        else:
            assert share(db[l], db_expected[l], kernel.db[l], reference.db[l]) <= 1, f"dC/db of layer {l}"


CASES = pairwise(
    {
        "n_in": [1, 2, 3, 5, 8, 9, 15, 16, 17, 31, 33, 65],
        "n_hidden": [1, 2, 4, 7, 8, 9, 15, 16, 17, 32, 33, 65],
        "n_out": [1, 2, 3, 4, 7, 8, 9, 16, 17, 31, 33, 65],
        "m": BATCHES,
        "head": HEADS,
        "depth": [1, 2, 3, 4, 24],
        "n_threads": THREADS,
        "hidden": HIDDEN,
        "bias": BIASES,
        "dtype": DTYPES,
        "labels": [False, True],
    }
)


def problem_of(case: dict[str, Any]) -> Problem:
    sizes = [case["n_in"], *[case["n_hidden"]] * (case["depth"] - 1), case["n_out"]]
    chosen = {name: case[name] for name in ("hidden", "head", "dtype", "bias", "labels")}
    return draw(np.random.default_rng(sum(sizes) + case["m"]), sizes, case["m"], **chosen)


def name_of(case: dict[str, Any]) -> str:
    return "-".join("_".join(value) if isinstance(value, tuple) else str(value) for value in case.values())


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_within_the_bound(case: dict[str, Any]) -> None:
    check(problem_of(case), case["n_threads"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bound_says_something(dtype: str) -> None:
    """It is small beside the gradients, and a gradient that lacks one sample is outside it."""
    relative, outside, tried = [], 0, 0
    for case in [case for case in CASES if case["dtype"] == dtype][::6]:
        problem = problem_of(case)
        expected, kernel = problem.expected()[1], problem.bounds(problem.kernel())
        if len(problem.X) == 1 or not expected[0].any():  # dead neurons, or a softmax of one
            continue
        relative.append(max(float(dw.error.max() / np.abs(dw.value).max()) for dw in kernel.dw))
        lacking = problem.network().gradients(problem.X[:-1], problem.y[:-1])[0]
        outside += max(share(g, w, b, b) for g, w, b in zip(lacking, expected, kernel.dw, strict=True)) > 1
        tried += 1
    assert tried > 10
    assert outside >= 0.9 * tried  # relu may have been silent for that sample
    assert np.median(relative) < {"float32": 2e-4, "float64": 1e-12}[dtype]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the same for all
@given(data=st.data())
def test_any_network(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 100), min_size=2, max_size=6), "sizes")
    hidden = data.draw(st.lists(st.sampled_from(HIDDEN), min_size=len(sizes) - 2, max_size=len(sizes) - 2), "hidden")
    problem = draw(
        np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed")),
        sizes,
        data.draw(st.integers(1, 600), "m"),
        hidden=hidden,
        head=data.draw(st.sampled_from(HEADS), "head"),
        dtype=data.draw(st.sampled_from(DTYPES), "dtype"),
        bias=data.draw(st.sampled_from(BIASES), "bias"),
        labels=data.draw(st.booleans(), "labels"),
    )
    check(problem, data.draw(st.sampled_from(THREADS), "n_threads"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [[1500, 700, 3], [5, 2100, 2], [2, 4, 1300], [3, 1301, 1], [40, 1, 70]], ids=str)
def test_thousands_of_neurons(sizes: list[int], dtype: str) -> None:
    check(draw(np.random.default_rng(1), sizes, 7, hidden="tanh", head=("softmax", "cross_entropy"), dtype=dtype), 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_forty_layers(dtype: str) -> None:
    check(draw(np.random.default_rng(2), [9] * 41, 33, hidden="tanh", head=("identity", "mse"), dtype=dtype), 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_whole_set_as_one_batch(dtype: str) -> None:
    check(draw(np.random.default_rng(3), [7, 5, 3], 20_011, hidden="relu", dtype=dtype), 2)


# Nothing rounds


def exactly(problem: Problem) -> tuple[float, list[Array], list[Array]]:
    """Return cost and gradients to the bit: sums of small integers, times 1/m, rounded as the dtype does."""
    X, Y = problem.X.astype(np.float64), problem.Y
    m = len(X)
    cost, dw, db = matrix.loss_and_gradients(*problem.wide(), problem.loss, X, Y)
    a = matrix.forward(*problem.wide(), X)[1]
    sums = [[np.zeros(len(w)) if g is None else np.rint(g * m) for g, w in zip(by, dw, strict=True)] for by in (dw, db)]
    # also the sums of their terms' sizes stay far below 2^24: the weights have three entries a row
    assert max(np.abs(array).max() for array in (*a, *sums[0], *sums[1])) < 2**21
    scale = problem.dtype.type(1 / m)
    scaled_w, scaled_b = ([s.astype(problem.dtype) * scale for s in by] for by in sums)
    return float(np.rint(2 * cost * m) / 2 / m), scaled_w, scaled_b


EXACT = pairwise(
    {
        "n_in": SIZES,
        "n_hidden": SIZES,
        "n_out": SIZES,
        "m": BATCHES,
        "n_threads": THREADS,
        "depth": [1, 2, 3],
        "dtype": DTYPES,
        "hidden": ["relu", "identity"],
        "bias": BIASES,
    }
)


@pytest.mark.parametrize("n_threads", THREADS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_to_the_bit(dtype: str, n_threads: int) -> None:
    for case in [case for case in EXACT if (case["dtype"], case["n_threads"]) == (dtype, n_threads)]:
        sizes = [case["n_in"], *[case["n_hidden"]] * (case["depth"] - 1), case["n_out"]]
        rng = np.random.default_rng(sum(sizes))
        problem = draw_exact(rng, sizes, case["m"], hidden=case["hidden"], dtype=dtype, bias=case["bias"])
        network, data = problem.network(), (problem.X, problem.y)
        cost, *expected = exactly(problem)
        assert network.loss(*data, n_threads=n_threads) == cost, case
        for got, wanted in zip(network.gradients(*data, n_threads=n_threads), expected, strict=True):
            for g, w in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(g, w, err_msg=str(case))
        for a, wanted in zip(network.activations(problem.X, n_threads=n_threads), problem.expected()[3], strict=True):
            np.testing.assert_array_equal(a, wanted, err_msg=str(case))


# Finite differences


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("head", HEADS, ids="-".join)
def test_finite_differences(hidden: str, head: tuple[str, str]) -> None:
    """The difference quotient errs by some h^2 C'''/6: a third of how much it changes from 2h to h.

    And by the error of both values of C, over 2h. The rest is what the gradient itself may err.
    """
    problem = draw(np.random.default_rng(6), [3, 4, 5, 2], 7, hidden=hidden, head=head, dtype="float64")
    n_layers = len(problem.weights)

    def loss(arrays: list[Array]) -> float:
        moved = replace(problem, weights=arrays[:n_layers], biases=arrays[n_layers:])
        return moved.network().loss(problem.X, problem.y)

    dw, db = problem.network().gradients(problem.X, problem.y)
    by_kernel = problem.bounds(problem.kernel())
    h = 1e-5
    close, far = (numerical_gradients(loss, [*problem.weights, *problem.biases], step) for step in (h, 2 * h))
    assert max(np.abs(array).max() for array in close) > 1e-2
    for got, once, twice, bound in zip([*dw, *db], close, far, [*by_kernel.dw, *by_kernel.db], strict=True):
        allowed = np.abs(twice - once) + 1.1 * by_kernel.cost.error / h + bound.error
        assert np.max(allowed) < 1e-8
        assert share_of_bound(got, once, allowed) <= 1


# Extremes


@pytest.mark.parametrize("dtype", DTYPES)
def test_poisson_of_extreme_rates(dtype: str) -> None:
    """0 log 0 is 0; a rate that underflows to 0 still has a finite cost, one that overflows an infinite one."""
    z = np.array([0.0, -3.0, 2.0, -500.0 if dtype == "float32" else -2000.0])
    y = np.array([0.0, 7.0, 0.0, 2.0])
    network = fastbp.Network([1, 4], output="exp", dtype=dtype, init=[(z[:, None], np.zeros(4))])
    a = np.exp(z)
    cost = np.sum(np.where(y > 0, y * (np.log(np.maximum(y, 1)) - z), 0) - y + a)
    assert network.loss([[1.0]], [y]) == pytest.approx(cost, rel=8 * float(np.finfo(dtype).eps))
    np.testing.assert_allclose(network.gradients([[1.0]], [y])[1][0], a - y, rtol=4 * float(np.finfo(dtype).eps))
    assert network.loss([[-2.0]], [y]) == np.inf
    with pytest.raises(FloatingPointError):
        network.fit([[-2.0]], [y], verbose=False)


@pytest.mark.parametrize(("dtype", "huge"), [("float32", 1e38), ("float64", 1e307)])
@pytest.mark.parametrize("n_out", [1, 2, 3, 8, 16, 17, 40])
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("signs", [[1, -1, 0], [-1, 1, 0], [-1]], ids=str)
def test_huge_logits_give_a_finite_loss(signs: list[int], output: str, n_out: int, dtype: str, huge: float) -> None:
    """Logits of 1e38, -1e38 and 0: the results are those of the limit, up to a few roundings."""
    logits = huge * np.resize(signs, n_out)
    eps = float(np.finfo(dtype).eps)
    z = logits.astype(dtype).astype(np.float64)
    network = fastbp.Network([1, n_out], output=output, dtype=dtype, init=[(logits[:, None], np.zeros(n_out))])
    for label in range(n_out):
        y = np.eye(n_out)[label]
        if output == "softmax":
            a = (z == z.max()) / np.sum(z == z.max())
            terms = np.array([z.max() - z[label], np.log(np.sum(z == z.max()))])
        else:
            a = np.where(z == 0, 0.5, z > 0)
            terms = np.maximum(z, 0) - y * z + np.where(z == 0, np.log(2), 0)
        loss, (dw, db) = network.loss([[1.0]], [y]), network.gradients([[1.0]], [y])
        assert np.isfinite(loss)
        assert loss == pytest.approx(terms.sum(), rel=8 * eps, abs=0)
        np.testing.assert_allclose(network.predict([[1.0]])[0], a, rtol=0, atol=4 * eps)
        for g in dw[0][:, 0], db[0]:
            np.testing.assert_allclose(g, a - y, rtol=0, atol=4 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS, ids="-".join)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_nan_reaches_the_loss(hidden: str, head: tuple[str, str], dtype: str) -> None:
    """Two infinities of different signs meet in z of one neuron; every activation and every loss passes the NaN on."""
    problem = draw(np.random.default_rng(7), [1, 2, 5, 3], 3, hidden=["identity", hidden], head=head, dtype=dtype)
    problem.weights[0][:] = 0.9 * np.finfo(dtype).max
    problem.weights[1][:] = 0
    problem.weights[1][4] = [1, -1]
    X = np.array([[0.0], [2.0], [0.5]], dtype)
    network = problem.network()
    a = network.activations(X)[1]
    assert np.isnan(a[1, 4])
    assert np.isfinite(a[[0, 2]]).all()
    assert np.isnan(network.predict(X)[1]).all()
    assert np.isnan(network.loss(X, problem.y))
    assert np.isnan(network.gradients(X, problem.y)[1][2]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_hidden", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33])
@pytest.mark.parametrize("hidden", ["sigmoid", "tanh"])
def test_an_extreme_neuron_stays_alone(hidden: str, n_hidden: int, dtype: str) -> None:
    """Whatever one neuron with an infinite z computes, all that does not read it has the same bits as without it."""
    tame = draw(np.random.default_rng(8), [5, n_hidden, n_hidden, 3], 11, hidden=hidden, dtype=dtype)
    tame.X[:, 0] = 2
    for j in range(0, n_hidden, max(1, n_hidden // 5)):
        results = []
        for value in 0.9 * np.finfo(dtype).max, 0.0:
            problem = replace(tame, weights=[w.copy() for w in tame.weights], biases=[b.copy() for b in tame.biases])
            problem.weights[0][j, 0] = problem.biases[0][j] = value
            problem.weights[1][:, j] = 0  # nobody reads it
            network = problem.network()
            results.append((network.activations(tame.X), *network.gradients(tame.X, tame.y)))
        (a, dw, db), (a_calm, dw_calm, db_calm) = results
        assert (a[0][:, j] == 1).all() or dtype == "float32"  # 5 ULP of tanh
        others = np.arange(n_hidden) != j
        for got, wanted in [
            (a[0][:, others], a_calm[0][:, others]), (a[1], a_calm[1]), (a[2], a_calm[2]),
            (dw[0][others], dw_calm[0][others]), (db[0][others], db_calm[0][others]),
            (dw[1][:, others], dw_calm[1][:, others]), (db[1], db_calm[1]), (dw[2], dw_calm[2]), (db[2], db_calm[2]),
        ]:  # fmt: skip
            assert np.isfinite(got).all()
            assert same_bits(got, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_out", [2, 3, 7, 8, 9, 16, 17, 31, 33])
def test_an_infinite_output_stays_alone(n_out: int, dtype: str) -> None:
    """An output that overflows spoils its own gradient, not those of its neighbours in a register."""
    tame = draw(np.random.default_rng(9), [4, n_out], 12, head=("identity", "quadratic"), dtype=dtype)
    tame.X[:, 0] = 2
    dw_calm, db_calm = tame.network().gradients(tame.X, tame.y)
    for j in {0, n_out // 2, n_out - 1}:
        wild = replace(tame, weights=[tame.weights[0].copy()])
        wild.weights[0][j] = np.finfo(dtype).max
        others = np.arange(n_out) != j
        dw, db = wild.network().gradients(wild.X, wild.y)
        assert not np.isfinite(db[0][j])
        assert same_bits(dw[0][others], dw_calm[0][others])
        assert same_bits(db[0][others], db_calm[0][others])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_out", [2, 3, 9, 17])
def test_logits_further_apart_than_the_largest_number(n_out: int, dtype: str) -> None:
    """The class that is right costs nothing, however far the others are; that it is another cannot be told in dtype."""
    largest = np.finfo(dtype).max
    for j in {0, n_out // 2, n_out - 1}:
        w = np.full((n_out, 1), -largest, dtype)
        w[j] = largest
        network = fastbp.Network([1, n_out], output="softmax", init=[(w, np.zeros(n_out))], dtype=dtype)
        wanted = np.eye(n_out, dtype=dtype)[[j]]
        assert same_bits(network.predict([[1.0]]), wanted)
        for y in [j], wanted:
            assert network.loss([[1.0]], y) == 0
            dw, db = network.gradients([[1.0]], y)
            assert not dw[0].any()
            assert not db[0].any()
        assert network.loss([[1.0]], [(j + 1) % n_out]) == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [2, 5, 6, 11, 33])
def test_an_extreme_sample_stays_alone(m: int, dtype: str) -> None:
    problem = draw(np.random.default_rng(10), [6, 9, 4], m, hidden="relu", head=("identity", "mse"), dtype=dtype)
    calm = problem.network().activations(problem.X)
    for i in {0, m // 2, m - 1}:
        X = problem.X.copy()
        X[i] = np.finfo(dtype).max
        others = np.arange(m) != i
        for got, wanted in zip(problem.network().activations(X), calm, strict=True):
            assert same_bits(got[others], wanted[others])


# Relations


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_in", [64, 128, 256, 512, 1024])
def test_rows_a_power_of_two_apart(n_in: int, dtype: str, n_threads: int) -> None:
    """These are copied side by side first. One input more, always 0, makes them be read in place: to the same bits."""
    for m in 3, 10, 33, 1030 if n_in == 128 else 17:
        problem = draw(np.random.default_rng(n_in), [n_in, 17, 3], m, hidden="tanh", dtype=dtype)
        check(problem, n_threads)
        wider = replace(
            problem,
            weights=[np.pad(problem.weights[0], ((0, 0), (0, 1)), constant_values=1), problem.weights[1]],
            X=np.pad(problem.X, ((0, 0), (0, 1))),
        )
        (dw, _), (dw_wider, _) = (p.network().gradients(p.X, p.y, n_threads=n_threads) for p in (problem, wider))
        assert same_bits(dw_wider[0][:, :n_in], dw[0])
        assert same_bits(dw_wider[1], dw[1])
        networks = [p.network() for p in (problem, wider)]
        for network, p in zip(networks, (problem, wider), strict=True):
            network.fit(p.X, p.y, epochs=2, batch_size=7, shuffle=False, n_threads=n_threads, verbose=False)
        assert same_bits(networks[1].weights[0][:, :n_in], networks[0].weights[0])
        assert same_bits(networks[1].weights[1], networks[0].weights[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 7, 33, 300])
def test_each_row_for_itself(m: int, dtype: str) -> None:
    """A sample has the same activations, to the bit, alone and among others, in any order."""
    head = ("softmax", "cross_entropy")
    problem = draw(np.random.default_rng(11), [13, 9, 5], m, hidden="tanh", head=head, dtype=dtype)
    network = problem.network()
    together = network.activations(problem.X)
    order = np.random.default_rng(m).permutation(m)
    for got, wanted in zip(network.activations(problem.X[order]), together, strict=True):
        assert same_bits(got, wanted[order])
    for i in range(0, m, max(1, m // 7)):
        for got, wanted in zip(network.activations(problem.X[i : i + 1]), together, strict=True):
            assert same_bits(got, wanted[i : i + 1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cut", [1, 3, 256, 300, 1024])
def test_a_split_batch(cut: int, dtype: str) -> None:
    """The gradient of a batch is the weighted mean of those of its parts."""
    problem = draw(np.random.default_rng(12), [8, 11, 4], 1300, hidden="tanh", dtype=dtype)
    parts = [replace(problem, X=problem.X[s], y=problem.y[s]) for s in (slice(None, cut), slice(cut, None))]
    shares = [len(part.X) / len(problem.X) for part in parts]
    whole, *pieces = ([*dw, *db] for dw, db in (problem.network().gradients(p.X, p.y) for p in (problem, *parts)))
    whole_bound, *bound = ([*b.dw, *b.db] for b in (p.bounds(p.kernel()) for p in (problem, *parts)))
    for i, got in enumerate(whole):
        mean = sum(s * piece[i].astype(np.float64) for s, piece in zip(shares, pieces, strict=True))
        allowed = whole_bound[i].error + sum(s * b[i].error for s, b in zip(shares, bound, strict=True))
        assert share_of_bound(got, mean, 1.01 * allowed) <= 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_in_another_order(dtype: str) -> None:
    problem = draw(np.random.default_rng(12), [8, 11, 4], 700, hidden="sigmoid", dtype=dtype)
    order = np.random.default_rng(12).permutation(700)
    network, bound = problem.network(), problem.bounds(problem.kernel())
    results = [network.gradients(problem.X[i], problem.y[i]) for i in (slice(None), order)]
    for kind, errors in enumerate((bound.dw, bound.db)):
        for got, wanted, b in zip(results[1][kind], results[0][kind], errors, strict=True):
            assert share_of_bound(got, wanted, 2.02 * b.error) <= 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_twice_the_same_block(dtype: str) -> None:
    """A block of samples twice: the sum is doubled and the divisor too, exactly."""
    problem = draw(np.random.default_rng(13), [8, 11, 4], BLOCK, hidden="sigmoid", dtype=dtype)
    network = problem.network()
    once = network.gradients(problem.X, problem.y)
    twice = network.gradients(np.tile(problem.X, (2, 1)), np.tile(problem.y, (2, 1)))
    for got, wanted in zip((*twice[0], *twice[1]), (*once[0], *once[1]), strict=True):
        assert same_bits(got, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("power", [-20, -1, 1, 20])
def test_scaled_inputs(power: int, dtype: str) -> None:
    """Inputs times 2^p and first weights over 2^p: the same z, and the first gradient times 2^p, to the bit."""
    problem = draw(np.random.default_rng(14), [9, 10, 3], 50, hidden="tanh", dtype=dtype)
    scale = problem.dtype.type(2.0**power)
    scaled = replace(problem, X=problem.X * scale, weights=[problem.weights[0] / scale, problem.weights[1]])
    (dw, db), (dw_scaled, db_scaled) = (p.network().gradients(p.X, p.y) for p in (problem, scaled))
    assert same_bits(dw_scaled[0], dw[0] * scale)
    for got, wanted in zip((dw_scaled[1], *db_scaled), (dw[1], *db), strict=True):
        assert same_bits(got, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", [fastbp.SGD(0.5), fastbp.SGD(0.5, 0.9, True), fastbp.Adam(0.1)], ids=repr)
def test_permuted_outputs_learn_the_same(optimizer: Any, dtype: str) -> None:
    """Without hidden layers each output learns for itself: in another order they reach the same weights, to the bit."""
    problem = draw(np.random.default_rng(15), [9, 21], 40, head=("sigmoid", "quadratic"), dtype=dtype)
    order = np.random.default_rng(15).permutation(21)
    w, b = problem.weights[0][order], problem.biases[0][order]
    networks = []
    for p in problem, replace(problem, weights=[w], biases=[b], y=problem.y[:, order]):
        networks.append(p.network(seed=3))
        networks[-1].fit(p.X, p.y, epochs=3, batch_size=7, optimizer=optimizer, verbose=False)
    assert same_bits(networks[1].weights[0], networks[0].weights[0][order])
    assert same_bits(networks[1].biases[0], networks[0].biases[0][order])
    assert not np.array_equal(networks[0].weights[0], problem.weights[0])


def permute_hidden(problem: Problem, order: Array) -> Problem:
    w, b = problem.weights, problem.biases
    return replace(problem, weights=[w[0][order], w[1][:, order]], biases=[b[0][order], b[1]])


@pytest.mark.parametrize("n_hidden", [2, 8, 9, 17, 33])
@pytest.mark.parametrize("dtype", DTYPES)
def test_permuted_hidden_neurons_to_the_bit(dtype: str, n_hidden: int) -> None:
    """Where nothing rounds, and in the layer itself always, another order of hidden neurons changes no bit."""
    rng = np.random.default_rng(16)
    order = rng.permutation(n_hidden)
    problem = draw_exact(rng, [7, n_hidden, 3], 8, hidden="relu", dtype=dtype)
    networks = [p.network() for p in (problem, permute_hidden(problem, order))]
    for network in networks:  # a quarter of a mean of 8 samples: five more bits behind the point
        network.fit(problem.X, problem.y, batch_size=8, optimizer=fastbp.SGD(0.25), shuffle=False, verbose=False)
    np.testing.assert_array_equal(networks[1].weights[0], networks[0].weights[0][order])
    np.testing.assert_array_equal(networks[1].biases[0], networks[0].biases[0][order])
    np.testing.assert_array_equal(networks[1].weights[1], networks[0].weights[1][:, order])
    assert not np.array_equal(networks[0].weights[0], problem.weights[0])

    smooth = draw(rng, [7, n_hidden, 3], 8, hidden="tanh", dtype=dtype)
    a, permuted = (p.network().activations(p.X)[0] for p in (smooth, permute_hidden(smooth, order)))
    assert same_bits(permuted, a[:, order])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("update", ["sgd", "momentum"])
def test_permuted_hidden_neurons_learn_the_same(update: str, dtype: str) -> None:
    """Elsewhere sums over them round in another order: both results are within their bounds of the same weights."""
    rng = np.random.default_rng(17)
    order = rng.permutation(9)
    problem = draw(rng, [5, 9, 3], 12, hidden="tanh", head=("softmax", "cross_entropy"), dtype=dtype, labels=True)
    optimizer = fastbp.SGD(0.1, 0.9 if update == "momentum" else 0.0)
    hyper = {"learning_rate": 0.1, "momentum": 0.9}
    batches = [slice(0, 5), slice(5, 10), slice(10, 12)]
    networks, bound = [], []
    for p in problem, permute_hidden(problem, order):
        networks.append(p.network())
        networks[-1].fit(p.X, p.y, batch_size=5, shuffle=False, optimizer=optimizer, verbose=False)
        arrays = p.weights, p.biases, p.activations, p.loss, p.X.astype(np.float64), p.Y
        bound.append(train(p.kernel(5), *arrays, update=update, hyper=hyper, batches=batches)[0])
    for l, permuted in enumerate([lambda w: w[order], lambda w: w[:, order]]):
        allowed = 1.01 * (permuted(bound[0][l].error) + bound[1][l].error)
        assert allowed.max() < {"float32": 1e-4, "float64": 1e-12}[dtype]
        assert share_of_bound(networks[1].weights[l], permuted(networks[0].weights[l]), allowed) <= 1


# Counting


@pytest.mark.parametrize("n_threads", THREADS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_hits(dtype: str, n_threads: int) -> None:
    for n_out in 1, 2, 9, 17:
        head = ("softmax" if n_out > 1 else "sigmoid", "cross_entropy")
        problem = draw(np.random.default_rng(18), [4, n_out], 1030, head=head, dtype=dtype, labels=True)
        a = problem.network().predict(problem.X)
        right = a.argmax(axis=1) == problem.y if n_out > 1 else (a[:, 0] >= 0.5) == (problem.y[:, 0] >= 0.5)
        assert 0 < right.mean() < 1
        assert problem.network().accuracy(problem.X, problem.y, n_threads=n_threads) == right.mean()


def test_of_equal_outputs_the_first_counts() -> None:
    network = fastbp.Network([1, 5], output="softmax", init=[(np.zeros((5, 1)), np.zeros(5))])
    assert network.accuracy(np.ones((3, 1)), [0, 1, 0]) == 2 / 3
