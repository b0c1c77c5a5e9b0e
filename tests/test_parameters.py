"""Parameters: canonical weights and biases to panels and back, for sizes around the widths of registers and tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastbp.architecture import Architecture
from fastbp.engine.memory import CACHE_LINE, aligned_zeros
from fastbp.engine.parameters import Layout, round_up, row_stride
from fastbp.kernels import layers as column
from fastbp.kernels.simd import lanes_of
from fastbp.kernels.tiles import NARROW, WIDE, turned_rows

DTYPES = ["float32", "float64"]
WIDEST = 2 * lanes_of(4)
EDGES = sorted(
    {1, 2, 3, 64, 100} | {n + d for n in (8, 16, 32, lanes_of(4), lanes_of(8), 10) for d in (-1, 0, 1)} - {0}
)
SIZES = st.lists(st.one_of(st.sampled_from(EDGES), st.integers(1, 3 * WIDEST)), min_size=2, max_size=5)


def random_arrays(sizes, dtype, seed=0):
    """Return weights and biases of random bits, without an infinity or a NaN."""
    rng = np.random.default_rng(seed)
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    weights = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    biases = [rng.standard_normal(shape[0]).astype(dtype) for shape in shapes]
    return weights, biases


def layout_of(sizes, dtype="float32"):
    return Layout(Architecture.of(sizes, dtype=dtype))


def places(layout, l):
    """Return where w_jk and b_j stand, as the kernels' records tell: panels of two registers, then of one."""
    layer, lanes = layout.layers[l], layout.lanes
    n_in, n_out = int(layer[column.N_IN]), int(layer[column.N_OUT])
    padded, n_wide = int(layer[column.K_PADDED]), int(layer[column.PANELS])
    if l > 0 and n_out == 1:  # side by side, without a panel
        return layer[column.W] + np.arange(n_in)[np.newaxis], layer[column.B] + np.arange(1)
    w = np.empty((n_out, n_in), np.int64)
    for j in range(n_out):
        width = 2 * lanes if j < n_wide * 2 * lanes else lanes
        first = j // width * width  # neuron of the panel
        w[j] = layer[column.W] + first * padded + np.arange(n_in) * width + (j - first)
    return w, layer[column.B] + np.arange(n_out)


def transposed_places(layout, l):
    """Return where w_jk stands in the transposed panels: those of neurons k, two registers side by side, j by j."""
    layer, lanes = layout.layers[l], layout.lanes
    n_in, n_out = int(layer[column.N_IN]), int(layer[column.N_OUT])
    registers, rows = round_up(n_in, lanes) // lanes, 1 if n_out == 1 else round_up(n_out, lanes)
    w = np.empty((n_out, n_in), np.int64)
    for k in range(n_in):
        panel = k // (2 * lanes)
        width = min(2, registers - 2 * panel) * lanes
        w[:, k] = layer[column.WT] + panel * 2 * lanes * rows + np.arange(n_out) * width + (k - panel * 2 * lanes)
    return w


@given(sizes=SIZES, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**32 - 1))
@example(sizes=[1, 1], dtype="float32", seed=0)
@example(sizes=[300, 257, 5], dtype="float64", seed=0)
def test_there_and_back_are_the_same_bits(sizes, dtype, seed):
    weights, biases = random_arrays(sizes, dtype, seed)
    layout = layout_of(sizes, dtype)
    packed = layout.pack(weights, biases)
    assert packed.shape == (layout.size,)
    assert packed.dtype == dtype
    for given_arrays, returned in zip((weights, biases), layout.unpack(packed), strict=True):
        for before, after in zip(given_arrays, returned, strict=True):
            assert after.dtype == dtype
            assert after.flags.c_contiguous
            assert after.flags.owndata
            assert not np.shares_memory(after, packed)
            assert after.shape == before.shape
            assert after.tobytes() == before.tobytes()


@given(sizes=SIZES, dtype=st.sampled_from(DTYPES))
def test_every_parameter_stands_where_the_kernels_look_for_it(sizes, dtype):
    weights, biases = random_arrays(sizes, dtype)
    layout = layout_of(sizes, dtype)
    packed, transposed = layout.pack(weights, biases), layout.transpose(weights)
    taken = []
    for l, (w, b) in enumerate(zip(weights, biases, strict=True)):
        here_w, here_b = places(layout, l)
        np.testing.assert_array_equal(packed[here_w], w)
        np.testing.assert_array_equal(packed[here_b], b)
        taken += [here_w.ravel(), here_b]
        if l > 0:
            np.testing.assert_array_equal(transposed[transposed_places(layout, l)], w)
    used = np.concatenate(taken)
    assert len(np.unique(used)) == len(used), "no place is taken twice"
    rest = np.ones(layout.size, bool)
    rest[used] = False
    assert not packed[rest].any(), "padding is zero"


@given(sizes=SIZES, dtype=st.sampled_from(DTYPES))
def test_transposed_panels_do_not_overlap_and_end_in_their_array(sizes, dtype):
    layout = layout_of(sizes, dtype)
    assert layout.layers[0, column.WT] == -1
    taken = [transposed_places(layout, l).ravel() for l in range(1, len(sizes) - 1)]
    used = np.concatenate([np.zeros(0, np.int64), *taken])
    assert len(np.unique(used)) == len(used)
    assert len(layout.transpose(random_arrays(sizes, dtype)[0])) == layout.transposed_size
    assert not len(used) or used.max() < layout.transposed_size


@given(sizes=SIZES, dtype=st.sampled_from(DTYPES))
def test_the_table_of_layers(sizes, dtype):
    layout = layout_of(sizes, dtype)
    itemsize = np.dtype(dtype).itemsize
    end = 0
    for layer, n_in, n_out in zip(layout.layers, sizes[:-1], sizes[1:], strict=True):
        assert (layer[column.N_IN], layer[column.N_OUT]) == (n_in, n_out)
        assert layer[column.W] >= end, "layers stand one after the other"
        is_single = end > 0 and n_out == 1
        registers = 1 if is_single else 2 * layer[column.PANELS] + layer[column.NARROW]
        assert (registers - 1) * layout.lanes < n_out <= registers * layout.lanes
        assert layer[column.K_PADDED] >= n_in
        if is_single:
            assert layer[column.K_PADDED] % (2 * layout.lanes) == 0
        else:
            assert all(
                layer[column.K_PADDED] >= round_up(n_in, rows)
                for rows in (NARROW.rows, WIDE.rows, turned_rows(layout.lanes))
            )
        end = layer[column.B] + registers * layout.lanes
        width = 1 if is_single else registers * layout.lanes
        assert layer[column.B] >= layer[column.W] + width * layer[column.K_PADDED]
        for offset in (layer[column.W], layer[column.B], max(0, layer[column.WT])):
            assert offset * itemsize % CACHE_LINE == 0, "panels begin on a cache line"
    assert end <= layout.size
    assert layout.row_size == layout.layers[:, column.STRIDE].sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_out", EDGES)
def test_tails_of_every_width(n_out, dtype):
    """Every number of neurons around the edges, on as many inputs around theirs."""
    for n_in in EDGES:
        weights, biases = random_arrays([n_in, n_out, 3], dtype)
        layout = layout_of([n_in, n_out, 3], dtype)
        w, b = layout.unpack(layout.pack(weights, biases))
        np.testing.assert_array_equal(w[0], weights[0])
        np.testing.assert_array_equal(w[1], weights[1])
        np.testing.assert_array_equal(b[0], biases[0])


def test_signs_of_zero_and_the_smallest_numbers_survive():
    tiny = np.float32(1e-45)
    w, b = np.array([[-0.0, tiny], [0.0, -tiny]], np.float32), np.array([-0.0, tiny], np.float32)
    layout = layout_of([2, 2])
    (returned_w,), (returned_b,) = layout.unpack(layout.pack([w], [b]))
    assert returned_w.tobytes() == w.tobytes()
    assert returned_b.tobytes() == b.tobytes()


def test_what_is_packed_is_not_touched_and_a_copy():
    weights, biases = random_arrays([3, 4, 2], "float32")
    for array in (*weights, *biases):
        array.flags.writeable = False
    layout = layout_of([3, 4, 2])
    packed = layout.pack(weights, biases)
    packed[:] = 7
    assert not any((array == 7).any() for array in (*weights, *biases))


@pytest.mark.parametrize("n_slots", [0, 1, 2])
@pytest.mark.parametrize("sums", [False, True])
def test_all_flat_arrays_of_a_run(n_slots, sums):
    sizes = [5, 40, 3]
    weights, biases = random_arrays(sizes, "float32")
    slots = [random_arrays(sizes, "float32", seed) for seed in range(1, 1 + n_slots)]
    layout = layout_of(sizes)
    flat = layout.parameters(weights, biases, slots, sums=sums)
    np.testing.assert_array_equal(flat.weights, layout.pack(weights, biases))
    np.testing.assert_array_equal(flat.transposed, layout.transpose(weights))
    for slot, array in zip(slots, (flat.slot_1, flat.slot_2), strict=False):
        np.testing.assert_array_equal(array, layout.pack(*slot))
    assert [len(flat.slot_1), len(flat.slot_2)] == [layout.size if i < n_slots else 0 for i in range(2)]
    assert len(flat.sums) == (layout.size if sums else 0)
    assert not flat.sums.any()
    for i, one in enumerate(flat):
        assert one.dtype == np.float32
        assert not any(np.shares_memory(one, other) for other in flat[i + 1 :])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 1000])
def test_arrays_begin_on_a_cache_line(n, dtype):
    for _ in range(4):
        array = aligned_zeros(n, dtype)
        assert (array.shape, array.dtype) == ((n,), np.dtype(dtype))
        assert array.ctypes.data % CACHE_LINE == 0
        assert not array.any()


@given(n=st.integers(1, 5000), itemsize=st.sampled_from([4, 8]))
def test_strides_of_rows_avoid_powers_of_two(n, itemsize):
    stride = row_stride(n, itemsize)
    assert n <= stride < n + 32
    assert stride % 16 == 0
    assert stride * itemsize % 512


@given(n=st.integers(0, 10**6), multiple=st.integers(1, 100))
def test_round_up(n, multiple):
    rounded = round_up(n, multiple)
    assert rounded % multiple == 0
    assert n <= rounded < n + multiple
