"""Targets: labels or values, checked against what the loss takes, without a copy where none is needed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbp.targets import one_hot, targets

F32, F64 = np.dtype("float32"), np.dtype("float64")
INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">i8", ">u4"]
REALS = ["?", *INTEGERS, "f2", "f4", "f8", "g", ">f4"]
PAIRS = [
    ("quadratic", "identity"),
    ("quadratic", "sigmoid"),
    ("quadratic", "tanh"),
    ("mse", "relu"),
    ("mse", "sigmoid"),
    ("cross_entropy", "sigmoid"),
    ("cross_entropy", "softmax"),
    ("poisson", "exp"),
]


def check_form(result, n, n_out, dtype):
    """Exactly one of the two, as the kernels read it."""
    assert (result.labels is None) != (result.values is None)
    array = result.values if result.labels is None else result.labels
    assert array.dtype == (dtype if result.labels is None else np.int64)
    assert array.shape == ((n, n_out) if result.labels is None else (n,))
    assert type(array) is np.ndarray
    assert array.flags.c_contiguous
    assert array.flags.aligned
    assert array.dtype.isnative
    assert not array.flags.writeable


@given(
    source=st.sampled_from(INTEGERS),
    pair=st.sampled_from(PAIRS),
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=20),
    step=st.sampled_from([1, 2, -1]),
)
def test_labels_of_any_integer_dtype(source, pair, labels, step):
    y = np.repeat(np.array(labels, source), abs(step))[::step]
    result = targets(y, len(y), 7, F32, *pair)
    check_form(result, len(y), 7, F32)
    np.testing.assert_array_equal(result.labels, y)
    np.testing.assert_array_equal(result.dense(F64, 7), np.eye(7)[y])


@pytest.mark.parametrize("y", [[2, 0, 1], (2, 0, 1), np.array([2, 0, 1]), memoryview(np.array([2, 0, 1])), range(3)])
def test_labels_in_any_container(y):
    result = targets(y, 3, 3, F32, "cross_entropy", "softmax")
    check_form(result, 3, 3, F32)
    np.testing.assert_array_equal(result.labels, list(y))


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("source", REALS)
@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, np.ndarray.tolist])
def test_one_hot_rows_of_any_real_dtype(dtype, source, layout):
    y = layout(np.eye(4)[[3, 0, 0, 2, 1]].astype(source))
    for pair in PAIRS:
        result = targets(y, 5, 4, dtype, *pair)
        check_form(result, 5, 4, dtype)
        np.testing.assert_array_equal(result.values, np.eye(4)[[3, 0, 0, 2, 1]])


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("source", REALS)
@pytest.mark.parametrize("shape", [(5,), (5, 1)])
@pytest.mark.parametrize("container", [np.asarray, np.ndarray.tolist])
def test_one_output(dtype, source, shape, container):
    y = np.array([0, 1, 1, 0, 1], source).reshape(shape)
    for pair in (("quadratic", "identity"), ("cross_entropy", "sigmoid")):
        result = targets(container(y), 5, 1, dtype, *pair)
        check_form(result, 5, 1, dtype)
        np.testing.assert_array_equal(result.values.ravel(), [0, 1, 1, 0, 1])


def test_one_output_strided_and_backwards():
    y = np.arange(10.0)[::-2]
    np.testing.assert_array_equal(targets(y, 5, 1, F32, "mse", "identity").values, y[:, None])


def test_memory_is_shared_where_y_already_fits():
    labels = np.array([1, 0, 2])
    values = np.array([[0.5, -2.0], [1.0, 3.0], [0.0, 9.0]], F32)
    one = np.array([0.5, -2.0, 7.0], F32)
    locked = labels.copy()
    locked.flags.writeable = False
    mse = ("mse", "identity")
    assert not np.shares_memory(targets(labels, 3, 3, F32, *mse).labels, labels), "whoever changes them may not harm"
    assert np.shares_memory(targets(values, 3, 2, F32, *mse).values, values)
    assert np.shares_memory(targets(one, 3, 1, F32, *mse).values, one)
    assert np.shares_memory(targets(one[:, None], 3, 1, F32, *mse).values, one)
    assert labels.flags.writeable, "only the view is read-only"
    assert values.flags.writeable, "only the view is read-only"


def test_pandas():
    pd = pytest.importorskip("pandas")
    series = pd.Series([2, 0, 1], index=[5, 6, 7])
    np.testing.assert_array_equal(targets(series, 3, 3, F32, "mse", "sigmoid").labels, [2, 0, 1])
    np.testing.assert_array_equal(targets(series, 3, 1, F32, "mse", "identity").values, [[2], [0], [1]])
    np.testing.assert_array_equal(targets(series.to_frame(), 3, 1, F32, "mse", "identity").values, [[2], [0], [1]])
    dummies = pd.get_dummies(series)
    np.testing.assert_array_equal(targets(dummies, 3, 3, F32, "mse", "sigmoid").values, np.eye(3)[[2, 0, 1]])
    with pytest.raises(TypeError, match="astype"):
        targets(pd.Series(["a", "b", "c"]), 3, 3, F32, "mse", "sigmoid")


@pytest.mark.parametrize(
    ("y", "pair"),
    [
        ([[-5.0, 1e30], [2.0, 0.0]], ("mse", "identity")),
        ([[-5.0, 7.0], [2.0, 0.0]], ("quadratic", "sigmoid")),
        ([[0.25, 0.5], [1.0, 1.0]], ("cross_entropy", "sigmoid")),
        ([[0.25, 0.75], [1.0, 0.0]], ("cross_entropy", "softmax")),
        ([[0.25, 0.750009], [1.000009, 0.0]], ("cross_entropy", "softmax")),
        ([[0.0, 7.5], [1e30, 0.0]], ("poisson", "exp")),
    ],
)
def test_values_that_the_loss_takes(y, pair):
    np.testing.assert_array_equal(targets(y, 2, 2, F64, *pair).values, y)


def test_distributions_rounded_to_float32_are_taken():
    p = np.random.default_rng(0).dirichlet(np.ones(1000), 50)
    targets(p.astype(F32), 50, 1000, F32, "cross_entropy", "softmax")


CE, MSE = ("cross_entropy", "softmax"), ("mse", "identity")
BCE = ("cross_entropy", "sigmoid")
EYE = np.eye(3)

BAD = {
    # what is wrong: y, n, n_out, (loss, output), error, what the message must say
    "None": (None, 3, 3, CE, TypeError, r"y is 'NoneType'"),
    "number": (1, 3, 3, CE, ValueError, r"y is a single number; .*3 samples"),
    "empty": ([], 3, 3, CE, ValueError, r"y has 0 targets, but there are 3 samples"),
    "empty array": (np.empty((0, 3)), 3, 3, CE, ValueError, r"y has 0 targets"),
    "short": ([0, 1], 3, 3, CE, ValueError, r"y has 2 targets, but there are 3 samples"),
    "long": ([0, 1, 2, 0], 3, 3, CE, ValueError, r"y has 4 targets"),
    "short matrix": (EYE[:2], 3, 3, CE, ValueError, r"y has 2 targets"),
    "short lists": (EYE[:2].tolist(), 3, 3, CE, ValueError, r"y has 2 targets"),
    "label too large": ([0, 1, 3], 3, 3, CE, ValueError, r"y\[2\] is 3; class labels must lie in 0\.\.2: np\.unique"),
    "label negative": ([0, -1, 5], 3, 3, CE, ValueError, r"y\[1\] is -1; class labels must lie in 0\.\.2"),
    "label -1 alone": ([0, 1, -1], 3, 3, CE, ValueError, r"y\[2\] is -1; class labels must lie in 0\.\.2"),
    "label huge": (np.array([2**64 - 1, 0], "u8"), 2, 3, CE, ValueError, r"y\[0\] is 18446744073709551615"),
    "label beyond int64": ([2**70, 0], 2, 3, CE, TypeError, r"dtype object"),
    "labels from 1": (np.array([1, 2, 3]), 3, 3, MSE, ValueError, r"y\[2\] is 3"),
    "float labels": ([0.0, 1.0, 2.0], 3, 3, CE, TypeError, r"dtype float64; .*y\.astype\(int\).*\(3, 3\)"),
    "bool labels": ([True, False, True], 3, 3, CE, TypeError, r"dtype bool; .*y\.astype\(int\)"),
    "two outputs, bools": ([True, False, True], 3, 2, CE, TypeError, r"dtype bool"),
    "str labels": (["a", "b", "c"], 3, 3, CE, TypeError, r"dtype <U1; .*categories as numbers"),
    "object labels": (np.array([0, 1, 2], object), 3, 3, CE, TypeError, r"dtype object; .*astype"),
    "complex": ([1j, 0, 0], 3, 1, MSE, TypeError, r"dtype complex128"),
    "complex matrix": (EYE.astype(complex), 3, 3, CE, TypeError, r"dtype complex128"),
    "object matrix": (EYE.astype(object), 3, 3, CE, TypeError, r"dtype object"),
    "dates": (np.zeros(3, "M8[D]"), 3, 1, MSE, TypeError, r"dtype datetime64"),
    "column of labels": (np.array([[0], [1], [2]]), 3, 3, CE, ValueError, r"shape \(3, 1\); .*np\.ravel\(y\)"),
    "columns": (np.eye(3), 3, 4, CE, ValueError, r"y has shape \(3, 3\); it must .*\(n, 4\)"),
    "one output, one-hot": (EYE[:, :2], 3, 1, BCE, ValueError, r"y has shape \(3, 2\); it must .*\(n, 1\)"),
    "3-D": (np.ones((3, 2, 2)), 3, 4, MSE, ValueError, r"y has shape \(3, 2, 2\)"),
    "ragged": ([[1, 0, 0], [0, 1], [0, 0, 1]], 3, 3, CE, ValueError, r"y has 2 entries in row 1"),
    "ragged labels": ([0, [1], 2], 3, 3, CE, ValueError, r"y cannot be read as an array"),
    "masked": (np.ma.masked_equal([0, 1, 2], 1), 3, 3, CE, ValueError, r"y has masked entries"),
    "masked matrix": (np.ma.masked_equal(EYE, 1), 3, 3, CE, ValueError, r"y has masked entries"),
    "negative count": ([3.0, -0.5], 2, 1, ("poisson", "exp"), ValueError, r"y is -0\.5 at row 1, .*at least 0: shift"),
    "nan": ([0.0, np.nan, 1.0], 3, 1, MSE, ValueError, r"y is nan at row 1, column 0"),
    "inf": ([[0.0, np.inf]], 1, 2, MSE, ValueError, r"y is inf at row 0, column 1"),
    "overflow": ([0.0, 1e300], 2, 1, MSE, ValueError, r"y is 1e\+300 at row 1, column 0 .*float32"),
    "no probability": ([0, 1, 2], 3, 1, BCE, ValueError, r"y is 2\.0 at row 2, column 0 .*0\.\.1.*'mse'"),
    "-1 and 1": ([-1, 1], 2, 1, BCE, ValueError, r"y is -1\.0 at row 0, column 0 .*0\.\.1"),
    "sigmoid rows": ([[0.5, 1.5]], 1, 2, BCE, ValueError, r"y is 1\.5 at row 0, column 1"),
    "negative row": ([[0.5, 0.5], [1.5, -0.5]], 2, 2, CE, ValueError, r"y is -0\.5 at row 1, column 1"),
    "sum": ([[0.5, 0.5], [0.5, 0.4]], 2, 2, CE, ValueError, r"y sums to 0\.9 in row 1 .*must sum to 1: divide by"),
    "sum, two classes": (np.array([[1, 0], [1, 1]]), 2, 2, CE, ValueError, r"y sums to 2 in row 1 .*sigmoid output"),
    "sum, just off": ([[0.5, 0.50002]], 1, 2, CE, ValueError, r"y sums to 1\.00002 in row 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_targets(case):
    y, n, n_out, pair, error, message = BAD[case]
    with pytest.raises(error, match=message):
        targets(y, n, n_out, F32, *pair)


def test_a_row_far_down_that_does_not_sum_to_one():
    y = np.tile(np.float32([0.5, 0.5]), (100_000, 1))
    y[77_777, 1] = 0.75
    with pytest.raises(ValueError, match=r"y sums to 1\.25 in row 77777"):
        targets(y, 100_000, 2, F32, *CE)


def test_a_name_of_ones_own():
    with pytest.raises(ValueError, match=r"^validation y has 2 targets"):
        targets([0, 1], 3, 3, F32, *CE, name="validation y")


def test_sparse_of_scipy():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"y\.toarray\(\)"):
        targets(sparse.csr_array(EYE), 3, 3, F32, *CE)


def test_dense_of_values_and_one_hot():
    y = np.array([[0.5, 0.5], [1, 0]])
    dense = targets(y, 2, 2, F32, *CE).dense(F64, 2)
    assert dense.dtype == F64
    np.testing.assert_array_equal(dense, y)
    for dtype in (F32, F64):
        matrix = one_hot(np.array([2, 0, 2], np.int32), 4, dtype)
        assert matrix.dtype == dtype
        np.testing.assert_array_equal(matrix, np.eye(4)[[2, 0, 2]])


def test_immutable():
    result = targets([0, 1], 2, 2, F32, *CE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.labels = None
    with pytest.raises(ValueError, match="read-only"):
        result.labels[0] = 1
