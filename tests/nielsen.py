"""What the tests of fastbp.nielsen share: the modules beside the book's, small data, and a look at who did the work."""

from __future__ import annotations

import contextlib
import io
import random
from typing import Any

import numpy as np
import pytest
from book import network as book_network
from book import network2 as book_network2

from fastbp.engine.evaluation import Evaluator
from fastbp.nielsen import descent, network, network2

PAIRS = {"network": (network, book_network), "network2": (network2, book_network2)}
# Sums of products in another order: some thousand roundings of 1e-16, and room for what training makes of them.
RTOL, ATOL = 1e-9, 1e-12


def pairs(n: int = 40, n_in: int = 7, n_out: int = 10, seed: int = 0) -> list[tuple[Any, Any]]:
    """Return training data as mnist_loader makes them: x (n_in, 1) float32, y (n_out, 1) float64 one-hot."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, n_in), dtype=np.float32)
    return [(x.reshape(n_in, 1), np.eye(n_out)[[rng.integers(n_out)]].T) for x in X]


def labelled(n: int = 30, n_in: int = 7, n_out: int = 10, seed: int = 1) -> list[tuple[Any, Any]]:
    """Return evaluation data: x (n_in, 1) float32, and an int64 label."""
    return [(x, np.argmax(y)) for x, y in pairs(n, n_in, n_out, seed)]


def seed(number: int = 12345678) -> None:
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002


def states() -> tuple[Any, Any]:
    """Return where the two global generators stand."""
    kind, key, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), (kind, tuple(key), *rest)


def captured(function, *args, **options) -> tuple[Any, str]:
    """Return what a function returns, and what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        result = function(*args, **options)
    return result, out.getvalue()


def assert_close(ours, book) -> None:
    """Check that two networks have the same weights and biases but for the order of sums."""
    for name in "weights", "biases":
        got, wanted = getattr(ours, name), getattr(book, name)
        assert isinstance(got, list)
        assert [a.shape for a in got] == [a.shape for a in wanted]
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=RTOL, atol=ATOL)


def assert_same_bits(ours, book) -> None:
    for name in "weights", "biases":
        for a, b in zip(getattr(ours, name), getattr(book, name), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b, strict=True)


class Spy:
    """Counts the mini-batches and the forward passes that the engine computes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.minibatches = 0
        self.evaluated = 0
        spy = self

        class Run(descent.Run):
            def minibatches(self, order, starts, steps, **options):
                spy.minibatches += len(steps)
                return super().minibatches(order, starts, steps)

        class Counting(Evaluator):
            def evaluate(self, weights, X, *args, **options):
                spy.evaluated += len(X)
                return super().evaluate(weights, X, *args, **options)

        monkeypatch.setattr(descent, "Run", Run)
        monkeypatch.setattr(descent, "evaluator_of", Counting)
