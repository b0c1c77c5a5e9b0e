"""Predictions, losses and gradients: all answers fit together, with each other and with the textbook."""

from __future__ import annotations

import numpy as np
import pytest
from networks import DTYPES, X, Y, bits, fit, make
from numeric import numerical_gradients

from fastbp import SGD, Network, reference
from fastbp.kernels.losses import LOSSES

PAIRS = [(loss, output) for loss, outputs in LOSSES.items() for output in outputs]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("loss", "output"), PAIRS)
def test_answers_are_consistent(loss, output, dtype):
    network = make((6, 9, 5, 4), hidden=["tanh", "relu"], output=output, loss=loss, dtype=dtype)
    fit(network, 1)
    a = network.activations(X)
    assert [layer.shape for layer in a] == [(53, 9), (53, 5), (53, 4)]
    assert {layer.dtype for layer in a} == {np.dtype(dtype)}
    predicted = network.predict(X)
    assert predicted.tobytes() == a[-1].tobytes()
    assert all(array.flags.writeable and array.flags.c_contiguous for array in (*a, predicted)), "the caller's own"
    classes = network.predict_classes(X)
    assert classes.dtype == np.int64
    np.testing.assert_array_equal(classes, predicted.argmax(axis=1))
    assert network.accuracy(X, Y) == np.mean(classes == Y)

    # as the textbook has it; float32 is compared in its own precision
    names = network.architecture.activations
    parameters = [[array.astype(float) for array in arrays] for arrays in (network.weights, network.biases)]
    cost, dw, db = reference.matrix.loss_and_gradients(*parameters, names, loss, X, reference.one_hot(Y, 4))
    bound = 1e3 * float(np.finfo(dtype).eps)
    assert network.loss(X, Y) == pytest.approx(cost, rel=bound)
    my_dw, my_db = network.gradients(X, Y)
    for mine, theirs in zip([*my_dw, *my_db], [*dw, *db], strict=True):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine, theirs, rtol=bound, atol=bound)
    np.testing.assert_allclose(predicted, reference.matrix.predict(*parameters, names, X), rtol=bound, atol=bound)


@pytest.mark.parametrize(("loss", "output"), PAIRS)
def test_gradients_are_those_of_the_loss(loss, output):
    network = make((6, 3, 4), hidden="tanh", output=output, loss=loss, dtype="float64")

    def cost(arrays):
        network.weights, network.biases = arrays[:2], arrays[2:]
        return network.loss(X, Y)

    dw, db = network.gradients(X, Y)
    expected = numerical_gradients(cost, [*network.weights, *network.biases])
    for mine, numerical in zip([*dw, *db], expected, strict=True):
        np.testing.assert_allclose(mine, numerical, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_of_sgd_follows_the_gradients(dtype):
    network = make(dtype=dtype)
    before = [*network.weights, *network.biases]
    dw, db = network.gradients(X, Y)
    fit(network, 1, batch_size=53, shuffle=False, optimizer=SGD(0.5))
    eps = np.finfo(dtype).eps
    for w, g, new in zip(before, [*dw, *db], [*network.weights, *network.biases], strict=True):
        step = 0.5 * g.astype(float)
        assert (abs(new - (w - step)) <= eps * (abs(w) + abs(step))).all()


def test_the_first_of_equal_outputs_is_the_class():
    network = Network([1, 4], output="identity", init=[(np.zeros((4, 1)), [1.0, 2.0, 2.0, 0.0])])
    np.testing.assert_array_equal(network.predict_classes([[5.0], [0.0]]), [1, 1])
    assert network.accuracy([[5.0], [0.0]], [1, 2]) == 0.5


def test_one_output_is_class_1_from_one_half_on():
    network = Network([1, 1], output="identity", init=[([[1.0]], [0.0])])
    below = np.nextafter(np.float32(0.5), np.float32(0))
    np.testing.assert_array_equal(network.predict_classes([[below], [0.5], [2.0], [-1.0]]), [0, 1, 1, 0])
    assert network.accuracy([[below], [0.5], [2.0], [-1.0]], [0, 1, 1, 1]) == 0.75


@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 1000, 3001])
def test_a_sample_has_the_same_bits_alone_and_among_others(n):
    network = make((6, 33, 4))
    many = np.random.default_rng(n).standard_normal((n, 6)).astype(np.float32)
    together = network.predict(many)
    for i in {0, n // 2, n - 1}:
        assert network.predict(many[i : i + 1]).tobytes() == together[i].tobytes()


def test_losses_add_up_over_parts():
    network = make(dtype="float64")
    parts = [network.loss(X[i : i + 1], Y[i : i + 1]) for i in range(53)]
    assert network.loss(X, Y) == pytest.approx(np.mean(parts), rel=1e-14)


def test_asking_changes_nothing():
    one, other = make(), make()
    one.partial_fit(X, Y)
    other.partial_fit(X, Y)
    for _ in range(2):
        one.predict(X), one.predict_classes(X), one.activations(X), one.loss(X, Y), one.accuracy(X, Y)
        one.gradients(X, Y), one.summary(), repr(one)
    one.partial_fit(X, Y)
    other.partial_fit(X, Y)
    assert bits(one) == bits(other)
