"""Samples: the two shuffles, the order of the matrices, what becomes a matrix and what does not."""

from __future__ import annotations

import random

import numpy as np
import pytest
from nielsen import pairs

from fastbp.nielsen.samples import Samples


def python2_shuffle(items):
    """random.shuffle of Python 2.7, in its own words: j = int(random() * (i + 1))."""
    for i in reversed(range(1, len(items))):
        j = int(random.random() * (i + 1))
        items[i], items[j] = items[j], items[i]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 255, 256, 257, 1000])
@pytest.mark.parametrize(("kind", "oracle"), [("python3", random.shuffle), ("python2", python2_shuffle)])
def test_shuffle(n, kind, oracle):
    """The same order as the shuffle of the list itself, and the generator left in the same state."""
    wanted = list(range(n))
    random.seed(n)
    for _ in range(3):
        oracle(wanted)
    after = random.getstate()
    got = list(range(n))
    samples = Samples(got)
    random.seed(n)
    for _ in range(3):
        assert samples.shuffle(random, kind) is True
    assert got == wanted
    assert samples.pairs is got
    assert random.getstate() == after


def test_matrices_stay_and_order_follows():
    data = pairs(20)
    samples = Samples(data)
    samples.shuffle(random, "python3")
    X = samples.inputs(7)
    for _ in range(3):
        samples.shuffle(random, "python3")
        samples.shuffle(random, "python2")
    assert samples.inputs(7) is X
    Y = samples.targets(10)  # made after the shuffles, in the order of X
    for position, (x, y) in enumerate(data):
        np.testing.assert_array_equal(X[samples.order[position]], x[:, 0])
        np.testing.assert_array_equal(Y[samples.order[position]], y[:, 0])


def test_matrices_are_copies_until_forgotten():
    data = pairs(20)
    samples = Samples(data)
    X = samples.inputs(7)
    assert X.dtype == np.float64
    assert X.flags.c_contiguous
    data[3][0][2] = 9.0
    assert samples.inputs(7)[3, 2] != 9.0
    samples.forget()
    assert samples.inputs(7)[3, 2] == 9.0


def test_other_iterables_are_listed():
    data = pairs(5)
    for form in (iter(data), tuple(data), (pair for pair in data)):
        samples = Samples(form)
        assert len(samples) == 5
        assert samples.pairs is not data
        assert all(a is b for a, b in zip(samples.pairs, data, strict=True))


COLUMN = np.ones((3, 1))
WRONG = {
    "one wrong length": [COLUMN, np.ones((4, 1)), np.ones((2, 1))],
    "rows": [np.ones((1, 3))] * 3,
    "flat": [np.ones(3)] * 3,
    "complex": [COLUMN.astype(complex)] * 3,
    "complex once": [COLUMN, COLUMN.astype(complex)],
    "longdouble": [COLUMN.astype(np.longdouble)] * 3,
    "objects": [COLUMN.astype(object)] * 3,
    "strings": [COLUMN.astype(str)] * 3,
    "times": [COLUMN.astype("m8[s]")] * 3,
    "lists": [[[1.0], [2.0], [3.0]]] * 3,
    "matrix": [np.ma.array(COLUMN)] * 3,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_matrix(wrong):
    """(np.longdouble is float64 on some systems: then it is one.)"""
    columns = WRONG[wrong]
    if wrong == "longdouble" and columns[0].dtype == np.float64:
        pytest.skip("longdouble is float64 here")
    assert Samples([(x, COLUMN) for x in columns]).inputs(3) is None
    assert Samples([(COLUMN, y) for y in columns]).targets(3) is None


def test_mixed_types_are_one_matrix():
    columns = [COLUMN.astype(dtype) for dtype in ("f4", "f8", "i8", "u1", ">f4", "?")]
    np.testing.assert_array_equal(Samples([(x, x) for x in columns]).inputs(3), np.ones((6, 3)), strict=True)


@pytest.mark.parametrize(
    ("labels", "taken"),
    [
        ([1, 2, 3], True),
        (list(np.array([1, 2, 3], np.uint8)), True),
        ([np.array(1), np.int64(2), 3], True),
        ([1.0, 2.0], False),
        ([True, False], False),
        (["1", "2"], False),
        ([COLUMN, COLUMN], False),
        ([COLUMN, np.ones((4, 1))], False),
        ([1, 10**30], False),
        ([None, 1], False),
    ],
)
def test_labels(labels, taken):
    got = Samples([(COLUMN, label) for label in labels]).labels()
    if taken:
        np.testing.assert_array_equal(got, labels)
    else:
        assert got is None
