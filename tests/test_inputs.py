"""Inputs: whatever a user hands over becomes the same rows, without a copy where none is needed, or a clear error."""

from __future__ import annotations

import datetime
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbp import inputs
from fastbp.inputs import rows

F32, F64 = np.dtype("float32"), np.dtype("float64")
DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g"]
DTYPES += [">i2", ">i4", ">i8", ">u2", ">u8", ">f2", ">f4", ">f8"]


def unaligned(A):
    raw = np.empty(A.nbytes + 1, np.uint8)
    copy = np.ndarray(A.shape, A.dtype, raw.data, offset=1)
    copy[...] = A
    return copy


LAYOUTS = {
    "C": lambda A: A.copy(),
    "F": np.asfortranarray,
    "every second row": lambda A: np.repeat(A, 2, axis=0)[::2],
    "every second column": lambda A: np.repeat(A, 2, axis=1)[:, ::2],
    "rows backwards": lambda A: A[::-1].copy()[::-1],
    "columns backwards": lambda A: A[:, ::-1].copy()[:, ::-1],
    "unaligned": unaligned,
    "one row repeated": lambda A: np.broadcast_to(A[0], A.shape),
    "one column repeated": lambda A: np.broadcast_to(A[:, :1], A.shape),
    "matrix": lambda A: A.view(np.matrix),
    "masked, nothing hidden": np.ma.array,
}


def is_what_kernels_read(result, dtype):
    n_in = result.shape[1]
    return (
        type(result) is np.ndarray
        and result.dtype == dtype
        and result.dtype.isnative
        and result.flags.c_contiguous
        and result.flags.aligned
        and not result.flags.writeable
        and result.strides == (n_in * dtype.itemsize, dtype.itemsize)
    )


class Frame:
    """The least that makes a data frame: slices of rows by iloc, each read as an array."""

    def __init__(self, A):
        self.A = A

    def __len__(self):
        return len(self.A)

    @property
    def iloc(self):
        return self

    def __getitem__(self, rows):
        return np.array(self.A[rows])


class Lazy(Frame):
    """An array on disk, as HDF5 or Zarr hand out: slices of rows, or everything at once."""

    def __init__(self, A):
        super().__init__(A)
        self.dtype, self.shape = A.dtype, A.shape

    iloc = property()  # hides the frame's

    def __array__(self, dtype=None, copy=None):
        return np.array(self.A, dtype=dtype)


class Wrapped:
    """Anything with __array__ and nothing else."""

    def __init__(self, A):
        self.A = A

    def __array__(self, dtype=None, copy=None):
        return self.A


def check_rows(A, layout, dtype):
    X = LAYOUTS[layout](A)
    before = np.array(X, copy=True)
    result = rows(X, A.shape[1], dtype)
    assert is_what_kernels_read(result, dtype)
    np.testing.assert_array_equal(result, before.astype(dtype))
    np.testing.assert_array_equal(np.asarray(X), before)
    plain = np.asarray(X)
    fits = plain.dtype == dtype and plain.flags.c_contiguous and plain.flags.aligned
    assert np.shares_memory(result, plain) == fits


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_dtype_in_every_layout(layout, dtype):
    for source in DTYPES:
        check_rows(np.arange(15).reshape(5, 3).astype(source), layout, dtype)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@given(
    source=st.sampled_from(DTYPES),
    layout=st.sampled_from(sorted(LAYOUTS)),
    n=st.integers(1, 9),
    n_in=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_size_of_any_dtype_in_any_layout(dtype, source, layout, n, n_in, seed):
    check_rows(np.random.default_rng(seed).integers(0, 100, (n, n_in)).astype(source), layout, dtype)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_no_copy_where_it_already_fits(dtype, tmp_path):
    A = np.arange(12.0, dtype=dtype).reshape(4, 3)
    locked = A.view()
    locked.flags.writeable = False
    mapped = np.memmap(tmp_path / "X", dtype, "w+", shape=(4, 3))
    mapped[...] = A
    for X in (A, locked, mapped, A.view(np.matrix), A[1:3], Wrapped(A), memoryview(A), A.reshape(2, 2, 3)[1]):
        result = rows(X, 3, dtype)
        assert np.shares_memory(result, np.asarray(X))
        assert is_what_kernels_read(result, dtype)
    assert A.flags.writeable, "only the view is read-only"


@pytest.mark.parametrize(
    "X",
    [
        np.ones((3, 1), F32)[:, ::-1],
        np.ones((4, 3), F32)[::4],
        np.broadcast_to(np.float32(1), (1, 1)),
        np.ones((1, 3), F32)[::-1],
    ],
    ids=["column backwards", "one row of a stride", "stride 0", "row backwards"],
)
def test_strides_of_axes_of_length_one_are_put_right_without_a_copy(X):
    result = rows(X, X.shape[1], F32)
    assert is_what_kernels_read(result, F32)
    assert np.shares_memory(result, X)
    np.testing.assert_array_equal(result, X)


SIX = np.array([[1, 2], [3, 4], [5, 6]])


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize(
    "X",
    [
        [[1, 2], [3, 4], [5, 6]],
        ((1, 2), (3, 4), (5, 6)),
        [(True, 2.0), [3, 4], np.array([5, 6])],
        [np.array([1, 2], ">i2"), np.array([3, 4], "f2"), [5, np.int8(6)]],
        [np.ma.array([1, 2]), [3, 4], (5, 6)],
        Frame(SIX),
        Lazy(SIX),
        Wrapped(SIX),
        memoryview(SIX),
    ],
    ids=["lists", "tuples", "mixed rows", "mixed dtypes", "mask of nothing", "frame", "lazy", "__array__", "buffer"],
)
def test_other_containers(X, dtype):
    result = rows(X, 2, dtype)
    assert is_what_kernels_read(result, dtype)
    np.testing.assert_array_equal(result, SIX)


@pytest.mark.parametrize("container", [Frame, Lazy, np.ndarray.tolist, list])
@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (1000, 37), (4096, 2), (1, 1), (65, 4096)])
def test_blocks_fit_together(container, shape):
    A = np.random.default_rng(0).random(shape)
    np.testing.assert_array_equal(rows(container(A), shape[1], F32), A.astype(F32))


def test_pandas():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5], "c": np.array([7, 8, 9], "u1")}, index=[9, 7, 8])
    np.testing.assert_array_equal(rows(frame, 3, F32), frame.to_numpy("f4"))
    assert is_what_kernels_read(rows(frame, 3, F64), F64)
    with pytest.raises(ValueError, match=r"X is nan at row 1, column 1"):
        rows(frame.where(frame != 1.5), 3, F32)
    with pytest.raises(TypeError, match=r"astype\(float\)"):
        rows(frame.assign(b=["x", "y", "z"]), 3, F32)
    with pytest.raises(ValueError, match=r"reshape\(1, -1\)"):
        rows(frame["b"], 3, F32)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize(
    "make",
    [
        *((lambda A, d=d: A.astype(d)) for d in DTYPES if d != "?"),
        *((lambda A, f=f: f(A.astype("f8"))) for f in LAYOUTS.values()),
        *((lambda A, f=f: f(A.astype("f4"))) for f in LAYOUTS.values()),
        np.ndarray.tolist,
        list,
        lambda A: tuple(map(tuple, A.tolist())),
        lambda A: Frame(A.astype("f8")),
        lambda A: Lazy(A.astype("f8")),
        lambda A: Wrapped(A.astype("f8")),
    ],
)
def test_memory_on_top_of_X(make, dtype):
    n, n_in = 2000, 120
    X = make(np.random.default_rng(0).integers(0, 100, (n, n_in)))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        result = rows(X, n_in, dtype)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    bound = 1.2 * n * n_in * dtype.itemsize
    if isinstance(X, np.ndarray) and np.shares_memory(result, X):
        bound -= n * n_in * dtype.itemsize
    assert peak - before <= bound


GOOD = np.ones((3, 4))


def with_entry(i, k, value, dtype="f8", A=GOOD):
    copy = A.astype(dtype)
    copy[i, k] = value
    return copy


class Sparse:
    """The mark of a sparse matrix."""

    dtype, shape = F64, (3, 4)

    def toarray(self):
        raise AssertionError("it might not fit into memory")


class Grumpy:
    """A tensor that refuses to become an array, as PyTorch's do while they need gradients."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("call detach() first")


BAD = {
    # what is wrong: X, error, what the message must say
    "None": (None, TypeError, r"X is 'NoneType'"),
    "dict": ({"a": [1.0]}, TypeError, r"X is 'dict'; allowed are"),
    "generator": ((row for row in GOOD), TypeError, r"X is 'generator'.* hand over an array"),
    "text": ("1 2 3 4", TypeError, r"X has dtype <U7; allowed are .*astype\(float\)"),
    "str": (GOOD.astype(str), TypeError, r"dtype <U32; allowed are .*astype\(float\).*categories"),
    "bytes": (GOOD.astype("S"), TypeError, r"dtype \|S32"),
    "StringDType": (GOOD.astype("T"), TypeError, r"StringDType.*astype\(float\)"),
    "list of str": ([["1", "2", "3", "4"]], TypeError, r"dtype <U1"),
    "object": (GOOD.astype(object), TypeError, r"dtype object; allowed are .*X\.astype\(float\)"),
    "list of None": ([[1.0, None, 1.0, 1.0]], TypeError, r"dtype object"),
    "huge ints": ([[10**30, 1, 1, 1]], TypeError, r"dtype object"),
    "complex": (GOOD.astype(complex), TypeError, r"dtype complex128; .*X\.real"),
    "list of complex": ([[1j, 1, 1, 1]], TypeError, r"dtype complex128"),
    "datetime": (np.zeros((3, 4), "M8[s]"), TypeError, r"dtype datetime64\[s\]; .*timedelta64"),
    "list of dates": ([[datetime.date(2000, 1, 1)] * 4], TypeError, r"dtype object"),
    "timedelta": (np.zeros((3, 4), "m8[s]"), TypeError, r"dtype timedelta64\[s\]; .*timedelta64"),
    "structured": (np.zeros((3, 4), "f4,f4"), TypeError, r"structured_to_unstructured"),
    "sparse": (Sparse(), TypeError, r"X is a sparse Sparse; .*X\.toarray\(\)"),
    "tensor": (Grumpy(), TypeError, r"X is a Grumpy that NumPy cannot read \(call detach"),
    "number": (3.0, ValueError, r"shape \(\); it must be two-dimensional with shape \(n, 4\)"),
    "1-D": (GOOD[0], ValueError, r"shape \(4,\); it must .*\(n, 4\).*reshape\(1, -1\).*reshape\(-1, 1\)"),
    "1-D list": ([1.0, 2.0, 3.0, 4.0], ValueError, r"shape \(4,\).*reshape\(1, -1\)"),
    "3-D": (np.ones((3, 2, 2)), ValueError, r"shape \(3, 2, 2\); .*reshape\(len\(X\), -1\)"),
    "3-D frame": (Frame(np.ones((3, 2, 2))), ValueError, r"shape \(3, 2, 2\); .*reshape\(len\(X\), -1\)"),
    "columns": (np.ones((3, 5)), ValueError, r"shape \(3, 5\); it must .*\(n, 4\)"),
    "columns of lists": ([[1, 2, 3]] * 2, ValueError, r"3 entries in row 0 .*must have 4 entries"),
    "columns of a frame": (Frame(np.ones((3, 5))), ValueError, r"shape \(3, 5\); it must .*\(n, 4\)"),
    "transposed": (np.ones((4, 3)), ValueError, r"shape \(4, 3\)"),
    "no rows": (np.ones((0, 4)), ValueError, r"X is empty .*at least one row of 4"),
    "no rows, lists": ([], ValueError, r"X is empty"),
    "no rows, frame": (Frame(np.ones((0, 4))), ValueError, r"X is empty"),
    "no columns": (np.ones((3, 0)), ValueError, r"shape \(3, 0\); it must"),
    "ragged": ([[1, 2, 3, 4], [1, 2, 3]], ValueError, r"3 entries in row 1 .*must have 4"),
    "ragged, far": ([[1, 2, 3, 4]] * 5000 + [[1, 2, 3]], ValueError, r"3 entries in row 5000"),
    "ragged arrays": ([np.ones(4)] * 1024 + [np.ones(3)] * 1024, ValueError, r"3 entries in row 1024"),
    "ragged inside": ([[1, 2, 3, [4, 5]]], ValueError, r"cannot be read as an array"),
    "masked": (np.ma.masked_equal(np.arange(12).reshape(3, 4), 5), ValueError, r"masked entries.*X\.filled"),
    "masked row": ([[1, 2, 3, 4], np.ma.masked_equal([1, 2, 3, 4], 2)], ValueError, r"masked entries in row 1"),
    "nan": (with_entry(1, 2, np.nan), ValueError, r"X is nan at row 1, column 2 .*finite"),
    "inf": (with_entry(2, 3, np.inf), ValueError, r"X is inf at row 2, column 3 .*finite"),
    "-inf, Fortran": (np.asfortranarray(with_entry(0, 1, -np.inf)), ValueError, r"X is -inf at row 0, column 1"),
    "nan, float16": (with_entry(1, 2, np.nan, "f2"), ValueError, r"X is nan at row 1, column 2"),
    "nan, big-endian": (with_entry(1, 2, np.nan, ">f4"), ValueError, r"X is nan at row 1, column 2"),
    "nan, list": (with_entry(1, 2, np.nan).tolist(), ValueError, r"X is nan at row 1, column 2"),
    "nan, frame": (Frame(with_entry(1, 2, np.nan)), ValueError, r"X is nan at row 1, column 2"),
    "nan, lazy": (Lazy(with_entry(1, 2, np.nan)), ValueError, r"X is nan at row 1, column 2"),
    "1e300": (with_entry(1, 2, 1e300), ValueError, r"X is 1e\+300 at row 1, column 2 .*float32 .*3\.402823e\+38"),
    "-1e39, list": (with_entry(2, 0, -1e39).tolist(), ValueError, r"X is -1e\+39 at row 2, column 0 .*float32"),
    "1e300, frame": (Frame(with_entry(1, 2, 1e300)), ValueError, r"X is 1e\+300 at row 1, column 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    X, error, message = BAD[case]
    with pytest.raises(error, match=message):
        rows(X, 4, F32)


def test_float32_errors_also_where_nothing_is_converted():
    with pytest.raises(ValueError, match="X is inf at row 1, column 2"):
        rows(with_entry(1, 2, np.inf, "f4"), 4, F32)


@pytest.mark.parametrize("value", [3.4028235e38, -3.4028235e38, 1e-300, -0.0, 1e-45])
def test_what_float32_can_hold_or_round_to_zero_is_taken(value):
    np.testing.assert_array_equal(rows([[value]], 1, F32), np.array([[value]]).astype(F32))


@pytest.mark.skipif(np.finfo("g").max == np.finfo("f8").max, reason="long double is double here")
def test_long_double_beyond_float64():
    with pytest.raises(ValueError, match=r"row 1, column 2 .*float64 cannot hold .*rescale X$"):
        rows(with_entry(1, 2, np.longdouble("1e4000"), "g"), 4, F64)


def test_sparse_of_scipy():
    sparse = pytest.importorskip("scipy.sparse")
    for X in (sparse.csr_array(GOOD), sparse.coo_matrix(GOOD)):
        with pytest.raises(TypeError, match=r"toarray\(\)"):
            rows(X, 4, F32)


@given(data=st.data(), container=st.sampled_from([np.asarray, np.asfortranarray, Frame, np.ndarray.tolist]))
def test_the_first_offender_is_named_wherever_it_is(data, container):
    shape = data.draw(st.sampled_from([(1, 70_000), (70_000, 1), (700, 101), (3, 3)]))
    A = np.zeros(shape)
    places = data.draw(st.lists(st.integers(0, A.size - 1), min_size=1, max_size=3))
    A.flat[places] = np.nan
    i, k = divmod(min(places), shape[1])
    with pytest.raises(ValueError, match=rf"X is nan at row {i}, column {k} "):
        rows(container(A), shape[1], F64)


def test_a_name_of_ones_own():
    with pytest.raises(ValueError, match=r"^validation X is empty"):
        rows([], 4, F32, name="validation X")


def test_as_array_shares_memory_and_keeps_the_shape():
    A = np.arange(6).reshape(1, 2, 3)
    assert inputs.as_array(A, "A") is A
    assert np.shares_memory(inputs.as_array(A.view(np.ma.MaskedArray), "A"), A)
