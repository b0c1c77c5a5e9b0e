"""Layouts: X and y as they lie, of any dtype, are the same to the bit, and left as they were."""

from __future__ import annotations

import numpy as np
import pytest
from networks import DTYPES, X, Y, bits, fit, gradient_bits, make

import fastbp
import fastbp.fitting
import fastbp.network
from fastbp import Adam
from fastbp.engine.run import Run

RNG = np.random.default_rng(1)
pytestmark = pytest.mark.usefixtures("form")


def frozen(array):
    array.flags.writeable = False
    return array


TARGETS = {
    "one-hot rows": np.eye(4)[Y],
    "one-hot rows, float32": np.eye(4, dtype=np.float32)[Y],
    "one-hot rows, bool": np.eye(4, dtype=bool)[Y],
    "one-hot rows, list": np.eye(4, dtype=int)[Y].tolist(),
    "int8": Y.astype(np.int8),
    "uint64": Y.astype(np.uint64),
    "list": Y.tolist(),
    "strided": np.repeat(Y, 2)[::2],
}


@pytest.mark.parametrize("y", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(
    ("loss", "output"), [("cross_entropy", "softmax"), ("cross_entropy", "sigmoid"), ("mse", "relu")]
)
def test_labels_and_one_hot_rows_give_the_same_bits(loss, output, y):
    one, other = (make(loss=loss, output=output) for _ in range(2))
    losses = fit(one).loss
    history = other.fit(X, y, epochs=3, batch_size=8, optimizer=Adam(0.01), verbose=False)
    assert history.loss == losses
    assert bits(one) == bits(other)
    assert one.loss(X, Y) == other.loss(X, y)
    assert one.accuracy(X, Y) == other.accuracy(X, y)
    assert gradient_bits(one, Y) == gradient_bits(other, y)


LAYOUTS = {
    "F": np.asfortranarray,
    "every second row": lambda A: np.repeat(A, 2, axis=0)[::2],
    "every second column": lambda A: np.repeat(A, 2, axis=1)[:, ::2],
    "backwards": lambda A: A[::-1, ::-1].copy()[::-1, ::-1],
    "columns of a wider array": lambda A: np.hstack([A, A])[:, :6],
    "read-only": lambda A: frozen(A.copy()),
    "big-endian": lambda A: A.astype(A.dtype.newbyteorder(">")),
    "list": lambda A: A.tolist(),
    "tuple of rows": tuple,
}
KINDS = ["float16", "float32", "float64", "int8", "int64", "uint8", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_and_dtype_gives_the_same_bits(layout, kind, dtype):
    """And is left as it was."""
    plain = (3 * RNG.standard_normal((53, 6))).astype(kind) if kind[0] != "u" else RNG.integers(0, 9, (53, 6), kind)
    handed = layout(plain)
    before = np.array(handed)
    expected = np.ascontiguousarray(plain, dtype)
    one, other = make(dtype=dtype), make(dtype=dtype)
    one.fit(expected, Y, batch_size=8, verbose=False, validation_data=(expected, Y))
    other.fit(handed, Y, batch_size=8, verbose=False, validation_data=(handed, Y))
    assert bits(one) == bits(other)
    assert one.predict(expected).tobytes() == other.predict(handed).tobytes()
    assert one.loss(expected, Y) == other.loss(handed, Y)
    assert one.gradients(expected, Y)[0][0].tobytes() == other.gradients(handed, Y)[0][0].tobytes()
    assert np.array(handed).tobytes() == before.tobytes()
    if isinstance(handed, np.ndarray):
        assert handed.flags.writeable is (layout is not LAYOUTS["read-only"])


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_memmaps(tmp_path, mode, order):
    path = tmp_path / "X"
    X.ravel(order).tofile(path)
    one, other = make(), make()
    fit(one)
    mapped = np.memmap(path, np.float32, mode, shape=X.shape, order=order)
    other.fit(mapped, Y, epochs=3, batch_size=8, optimizer=Adam(0.01), verbose=False)
    assert bits(one) == bits(other)
    assert one.predict(X).tobytes() == other.predict(mapped).tobytes()
    assert path.read_bytes() == X.tobytes(order)
    del mapped


def test_read_only_targets_are_taken_and_left():
    for y in (frozen(Y.copy()), frozen(np.eye(4, dtype=np.float32)[Y]), frozen(np.asfortranarray(np.eye(4)[Y]))):
        before = y.tobytes()
        make().fit(frozen(X.copy()), y, epochs=2, verbose=False, validation_data=(X, y))
        assert y.tobytes() == before
        assert not y.flags.writeable


@pytest.fixture
def read_by_the_engine(monkeypatch):
    """Return a list that receives the X and y of each run."""
    seen = []

    class Recording(Run):
        def __init__(self, architecture, weights, biases, X, y, **options):
            seen.append((X, y))
            super().__init__(architecture, weights, biases, X, y, **options)

    for module in (fastbp.fitting, fastbp.network):
        monkeypatch.setattr(module, "Run", Recording)
    return seen


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_copied_that_fits(read_by_the_engine, tmp_path, dtype):
    own = np.ascontiguousarray(X, dtype)
    values = np.eye(4, dtype=dtype)[Y]
    mapped = np.memmap(tmp_path / "X", dtype, "w+", shape=X.shape)
    mapped[:] = X
    network = make(dtype=dtype)
    for given_x, given_y in [(own, Y), (own[10:], Y[10:]), (frozen(own.copy()), values), (mapped, Y)]:
        network.fit(given_x, given_y, verbose=False)
        network.gradients(given_x, given_y)
        for x, y in read_by_the_engine:
            assert np.shares_memory(x, given_x)
            assert np.shares_memory(y, given_y) is (given_y is values)  # labels are places in memory: always copied
        assert len(read_by_the_engine) == 2
        read_by_the_engine.clear()
    del mapped, given_x, x
