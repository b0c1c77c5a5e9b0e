"""The worked example: every printed digit of one step of backpropagation by hand, and of ten thousand steps.

M. Mazur, "A Step by Step Backpropagation Example" (2015), with biases that stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from fastbp import SGD, Network, reference

X, Y = np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])
INIT = [([[0.15, 0.20], [0.25, 0.30]], [0.35, 0.35]), ([[0.40, 0.45], [0.50, 0.55]], [0.60, 0.60])]
GRADIENTS = [
    "0.000438568 0.000877135 0.000497713 0.000995425",
    "0.082167041 0.082667628 -0.022602540 -0.022740242",
]
AFTER_ONE_STEP = [
    "0.14978072 0.19956143 0.24975114 0.29950229",
    "0.35891648 0.40866619 0.51130127 0.56137012",
]
STEPS = 10_000


def digits(values: Any, decimals: int) -> str:
    """Return numbers as they are printed, rounded to so many decimals."""
    return " ".join(f"{value:.{decimals}f}" for value in np.ravel(values))


@pytest.fixture
def network() -> Network:
    return Network([2, 2, 2], loss="quadratic", bias="fixed", dtype="float64", init=INIT)


def train(network: Network, steps: int) -> list[float]:
    """Train for some steps; return the error before each."""
    return network.fit(X, Y, epochs=steps, batch_size=1, optimizer=SGD(learning_rate=0.5)).loss


def test_forward(network: Network) -> None:
    hidden, output = network.activations(X)
    assert digits(hidden, 9) == "0.593269992 0.596884378"
    assert digits(output, 9) == "0.751365070 0.772928465"
    assert digits(network.loss(X, Y), 9) == "0.298371109"


def test_gradients(network: Network) -> None:
    gradients, _ = network.gradients(X, Y)
    assert [digits(g, 9) for g in gradients] == GRADIENTS


def test_one_step(network: Network) -> None:
    history = network.fit(X, Y, batch_size=1, optimizer=SGD(learning_rate=0.5))
    assert digits(history.loss, 9) == "0.298371109"  # the error before the step
    assert [digits(w, 8) for w in network.weights] == AFTER_ONE_STEP
    assert digits(network.loss(X, Y), 9) == "0.291027774"
    assert [b.tolist() for b in network.biases] == [[0.35, 0.35], [0.60, 0.60]]


@pytest.mark.parametrize("parts", [[STEPS], [1, 4_999, 5_000]], ids=str)
def test_ten_thousand_steps(network: Network, parts: Iterable[int]) -> None:
    """In one call or several: plain gradient descent remembers nothing."""
    losses = [loss for steps in parts for loss in train(network, steps)]
    assert len(losses) == STEPS
    assert digits(losses[:2], 9) == "0.298371109 0.291027774"
    assert f"{network.loss(X, Y):.4e}" == "3.5102e-05"
    assert digits(network.predict(X), 7) == "0.0159136 0.9840643"
    assert [b.tolist() for b in network.biases] == [[0.35, 0.35], [0.60, 0.60]]


def test_ten_thousand_steps_are_those_of_the_reference(network: Network) -> None:
    """Each of T steps rounds a weight by 2^-53 of it, and the descent contracts: 1e-12 is T times that."""
    start = network.weights, network.biases
    losses = train(network, STEPS)
    weights, biases, expected = reference.train(
        *start, ("sigmoid", "sigmoid"), "quadratic", X, Y,
        hyper={"learning_rate": 0.5}, batches=[slice(0, 1)] * STEPS, train_bias=False,
    )  # fmt: skip
    np.testing.assert_allclose(losses, expected, rtol=1e-12 * 10, atol=0)
    for w, w_expected in zip(network.weights, weights, strict=True):
        np.testing.assert_allclose(w, w_expected, rtol=1e-12, atol=0)
    for b, b_expected in zip(network.biases, biases, strict=True):
        np.testing.assert_array_equal(b, b_expected)
