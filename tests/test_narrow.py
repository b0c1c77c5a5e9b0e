"""Narrow networks, trained with samples in the lanes: who they are, how lanes are added, how samples are divided.

What they compute is compared with the reference where it is for all networks (test_kernels.py, test_training_steps.py).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from problems import Array, draw
from scipy.sparse import csr_array

import fastbp
from fastbp.engine import narrow
from fastbp.engine.narrow import NarrowLayout, is_narrow, most_workers
from fastbp.engine.workspace import parts_kept
from fastbp.kernels import lanes
from fastbp.kernels.lane_tiles import LANES, PAIR, ROW, SQUARE
from fastbp.kernels.layers import BLOCK, PITCH
from fastbp.kernels.narrow import parts_of
from fastbp.kernels.pointers import pointer
from fastbp.kernels.tiles import NARROW

DTYPES = ["float32", "float64"]


# Who they are


@pytest.mark.parametrize(
    ("sizes", "batch_size", "wanted"),
    [
        ([4, 32, 16, 4], 10_000, True),
        ([10, 16, 1], 32, True),
        ([64, 48, 48, 48], 32, True),
        ([65, 48, 10], 32, False),
        ([64, 49, 10], 1000, False),
        ([64, 10, 49], 1000, False),
        ([10, 48, 1], 31, False),
        ([10, 12, 1], 8, True),
        ([10, 13, 1], 8, False),
        ([10, 2, 1], 7, False),
    ],
)
def test_who_is_narrow(sizes: list[int], batch_size: int, wanted: bool) -> None:
    assert is_narrow(fastbp.Network(sizes).architecture, batch_size) == wanted


@pytest.mark.parametrize(("sizes", "n", "batch_size"), [([5, 9, 3], 45, 10), ([40, 40, 3], 500, 200)], ids=str)
def test_what_is_asked_for_decides(sizes: list[int], n: int, batch_size: int) -> None:
    """A mini-batch that has fewer samples than were asked for is trained like the others, alone or after them."""
    problem = draw(np.random.default_rng(1), sizes, n, dtype="float32")
    options: dict[str, Any] = {"batch_size": batch_size, "optimizer": fastbp.SGD(0.1, 0.9), "shuffle": False}
    network, follower = problem.network(), problem.network()
    network.fit(problem.X, problem.y, verbose=False, **options)
    for begin in range(0, n, batch_size):
        end = begin + batch_size
        follower.partial_fit(problem.X[begin:end], problem.y[begin:end], **options)
    for ours, theirs in zip(follower.weights, network.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# How lanes are added


@numba.njit(nogil=True)
def square_products(delta, n_out, a, n_in, m, others, g_w, g_b):  # type: ignore[no-untyped-def]
    lanes.sum_products(SQUARE, pointer(delta), n_out, pointer(a), n_in, m, others, pointer(g_w), pointer(g_b))


@numba.njit(nogil=True)
def row_products(delta, n_out, a, n_in, m, others, g_w, g_b):  # type: ignore[no-untyped-def]
    lanes.sum_products(ROW, pointer(delta), n_out, pointer(a), n_in, m, others, pointer(g_w), pointer(g_b))


def by_halves(x: Array) -> Array:
    """Return the sums of the lanes of x (..., lanes): the upper half is added to the lower until one is left."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        x = x[..., :half] + x[..., half:]
    return x[..., 0]


def in_lanes(rng: np.random.Generator, n: int, m: int, dtype: str) -> Array:
    """Return n rows of m numbers, and zeros up to whole vectors, as the kernels hold them."""
    rows = np.full((n, PITCH), np.nan, dtype)
    rows[:, : -(-m // LANES) * LANES] = 0
    rows[:, :m] = rng.standard_normal((n, m))
    return rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("products", [square_products, row_products])
@pytest.mark.parametrize("n", [*range(1, 19), 31, 33, 48])
def test_lanes_are_added_by_halves(n: int, products: Any, dtype: str) -> None:
    """To the bit: in each lane one after the other, then the lanes as a tree, whatever the registers."""
    rng = np.random.default_rng(n)
    for m in 1, 15, 16, 17, 100, 128:
        delta, a = in_lanes(rng, n, m, dtype), in_lanes(rng, 2, m, dtype)
        g_w, guard = np.zeros(2 * n, dtype), np.full(n + 1, 7, dtype)
        vectors = delta[:, : -(-m // LANES) * LANES].reshape(n, -1, LANES)
        wanted = by_halves(np.add.accumulate(vectors, axis=1)[:, -1])
        products(delta, n, a, 2, m, False, g_w, guard)
        np.testing.assert_array_equal(guard, np.append(wanted, np.array([7], dtype)))
        products(delta, n, a, 2, m, True, g_w, guard)
        np.testing.assert_array_equal(guard, np.append(wanted + wanted, np.array([7], dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("products", [square_products, row_products])
def test_products_are_added_by_halves(products: Any, dtype: str) -> None:
    """With one vector of samples no sum comes before the tree, and a product by a power of two does not round."""
    rng = np.random.default_rng(5)
    for n_out in 1, 2, 3, 4, 5, 7, 8, 17:
        for n_in in 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33:
            delta, a = in_lanes(rng, n_out, 13, dtype), in_lanes(rng, n_in, 13, dtype)
            a[:, :13] = 2.0 ** rng.integers(-3, 4, (n_in, 13))
            wanted = by_halves(delta[:, None, :LANES] * a[None, :, :LANES]).ravel()
            g, g_b = np.full(n_out * n_in + 1, 7, dtype), np.zeros(n_out, dtype)
            products(delta, n_out, a, n_in, 13, False, g, g_b)
            np.testing.assert_array_equal(g, np.append(wanted, np.array([7], dtype)))
            products(delta, n_out, a, n_in, 13, True, g, g_b)
            np.testing.assert_array_equal(g, np.append(wanted + wanted, np.array([7], dtype)))


# Tiles that are shorter than a vector of samples, as all are where registers are small


@numba.njit(nogil=True)
def short_tiles(layer, weights, a, delta_above, m, z, delta):  # type: ignore[no-untyped-def]
    lanes.weighted_sums(NARROW, pointer(layer), pointer(weights), pointer(a), m, pointer(z))
    lanes.propagate(NARROW, pointer(layer), pointer(weights), pointer(delta_above), m, pointer(delta))


@pytest.mark.parametrize("m", [1, 3, 8, 9, 16, 17, 33])
def test_short_tiles_fill_the_last_vector(m: int) -> None:
    """Sums over the lanes read all of it."""
    rng = np.random.default_rng(m)
    network = fastbp.Network([5, 3], output="identity", dtype="float64", seed=1)
    layout = NarrowLayout(network.architecture)
    weights = layout.pack(network.weights, [np.arange(3.0)])
    whole = -(-m // LANES) * LANES
    a, above = (rng.standard_normal((n, PITCH)) for n in (5, 3))
    z, delta = np.full((3, PITCH), np.nan), np.full((5, PITCH), 2.0)
    short_tiles(layout.layers[0], weights, a, above, m, z, delta)
    w = network.weights[0]
    np.testing.assert_allclose(z[:, :whole], w @ a[:, :whole] + np.arange(3.0)[:, None], rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(delta[:, :whole], 2 * (w.T @ above[:, :whole]), rtol=1e-13, atol=1e-13)


# How samples are divided


@numba.njit(nogil=True)
def cut(pairs, block):  # type: ignore[no-untyped-def]
    return parts_of(pairs, block)


@pytest.mark.parametrize("block", [BLOCK // PAIR, BLOCK // 2 // PAIR])
def test_parts(block: int) -> None:
    """One block, or an even number of parts of at most two; as many as there is room for, and workers for each."""
    for m in [*range(1, 700), 1024, 1025, 2048, 2049, 5000, 10_000, 65_537]:
        pairs = -(-m // PAIR)
        n = cut(pairs, block)
        ends = [p * pairs // n for p in range(n + 1)]
        sizes = np.diff(ends)
        assert ends[-1] == pairs
        assert n == 1 or n % 2 == 0
        assert 1 <= sizes.min() <= sizes.max() <= (block if m <= 2048 * block // 4 else 2 * block)
        assert sizes.max() - sizes.min() <= 1
        if block == BLOCK // PAIR or m <= BLOCK:
            assert n <= parts_kept(1, m)


@pytest.mark.parametrize(("sizes", "batch_size", "most"), [([4, 8, 2], 128, 1), ([40, 40, 40], 128, 2)])
def test_workers_have_blocks(sizes: list[int], batch_size: int, most: int) -> None:
    assert most_workers(fastbp.Network(sizes).architecture, batch_size, 1000) == most
    assert most_workers(fastbp.Network(sizes).architecture, 10_000, 10_000) == 79
    assert most_workers(fastbp.Network(sizes).architecture, 10_000, 100) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [[4, 32, 16, 4], [40, 40, 3]], ids=str)
@pytest.mark.parametrize("batch_size", [40, 100, 128, 200, 700, 2100])
def test_the_bits_of_any_team(batch_size: int, sizes: list[int], dtype: str) -> None:
    """With several groups of parts, too, and a last mini-batch that is shorter."""
    problem = draw(np.random.default_rng(2), sizes, 2 * batch_size + 33, hidden="tanh", dtype=dtype)
    results = set()
    for n_threads in 1, 2, 3, 4:
        network = problem.network()
        history = network.fit(
            problem.X, problem.y, epochs=2, batch_size=batch_size, optimizer=fastbp.Adam(0.01), l2=0.01,
            n_threads=n_threads, shuffle=False, verbose=False,
        )  # fmt: skip
        results.add(b"".join(a.tobytes() for a in (*network.weights, *network.biases)) + repr(history.loss).encode())
    assert len(results) == 1


def test_several_groups_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not all parts are kept at a time, the sum goes on; in the same order."""
    problem = draw(np.random.default_rng(3), [6, 9, 2], 5000, hidden="tanh", dtype="float64")
    whole = problem.network().gradients(problem.X, problem.y, n_threads=2)
    monkeypatch.setattr(narrow, "parts_kept", lambda size, batch_size: 3)
    in_groups = [problem.network().gradients(problem.X, problem.y, n_threads=n) for n in (1, 2, 3)]
    for gradients in in_groups:
        for kind, kind_wanted in zip(gradients, whole, strict=True):
            for got, wanted in zip(kind, kind_wanted, strict=True):
                np.testing.assert_array_equal(got, wanted)


# What they read


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_in", [1, 2, 3, 4, 5, 7, 8, 13, 64])
def test_inputs_of_any_layout(n_in: int, dtype: str) -> None:
    """Rows, columns, of float32, without zeros, none of whose elements beyond the last is touched: the same bits."""
    rng = np.random.default_rng(n_in)
    problem = draw(rng, [n_in, 7, 3], 77, dtype=dtype, labels=True)
    X = (rng.integers(-3, 4, (77, n_in)) / 4).astype(dtype)
    guarded = np.full((79, n_in), np.nan, dtype)[1:-1]
    guarded[:] = X
    results = set()
    for layout in X, np.asfortranarray(X), X.astype(np.float32), csr_array(X), guarded:
        network = problem.network(seed=3)
        network.fit(layout, problem.y, epochs=2, batch_size=40, verbose=False)
        gradients = network.gradients(layout, problem.y)
        results.add(b"".join(a.tobytes() for a in (*network.weights, *network.biases, *gradients[0], *gradients[1])))
    assert len(results) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_out", [1, 2, 5, 11])
@pytest.mark.parametrize("weighted", [False, True])
def test_hits_and_costs_of_the_history(weighted: bool, n_out: int, dtype: str) -> None:
    """At a learning rate that changes nothing they are those of `loss` and `accuracy`."""
    head = ("softmax" if n_out > 1 else "sigmoid", "cross_entropy")
    problem = draw(np.random.default_rng(6), [4, 9, n_out], 333, head=head, dtype=dtype, labels=True)
    weight = np.random.default_rng(7).exponential(1, 333) if weighted else None
    network = problem.network()
    expected = [f(problem.X, problem.y, sample_weight=weight) for f in (network.loss, network.accuracy)]
    history = network.fit(
        problem.X, problem.y, batch_size=333, optimizer=fastbp.SGD(1e-30), sample_weight=weight, verbose=False
    )
    assert history.loss == pytest.approx([expected[0]], rel=1e-6 if dtype == "float32" else 1e-14)
    if n_out > 1:
        assert history.accuracy == pytest.approx([expected[1]], rel=1e-14)


# How their parameters lie


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [[1, 1], [3, 5, 2], [48, 48, 1, 7]], ids=str)
def test_parameters_come_back(sizes: list[int], dtype: str) -> None:
    network = fastbp.Network(sizes, dtype=dtype, seed=1)
    layout = NarrowLayout(network.architecture)
    biases = [np.arange(1, 1 + len(b), dtype=dtype) for b in network.biases]
    flat = layout.pack(network.weights, biases)
    assert np.count_nonzero(flat) == sum(w.size + len(w) for w in network.weights)
    weights, others = layout.unpack(flat)
    for got, wanted in zip(weights + others, [*network.weights, *biases], strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.base is None
    by_columns, _ = layout.unpack(flat, order="F")
    assert all(w.flags.f_contiguous for w in by_columns)
