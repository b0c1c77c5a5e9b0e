"""Fitting: what is learned and recorded, and how a training goes on from the one before."""

from __future__ import annotations

import numpy as np
import pytest
from networks import DTYPES, OPTIMIZERS, REAL, Calling, X, Y, bits, fit, init_of, make

import fastbp
from fastbp import SGD, Adam, History, Network

# Learning


@pytest.mark.parametrize(
    ("architecture", "training"),
    [
        ({"hidden": "relu", "output": "softmax"}, {"optimizer": "adam", "epochs": 30}),
        ({"hidden": "tanh", "output": "softmax", "dtype": "float64"}, {"optimizer": SGD(0.1, 0.9), "epochs": 15}),
        ({"hidden": "sigmoid", "output": "sigmoid"}, {"optimizer": SGD(0.5), "epochs": 25, "batch_size": 10}),
        ({"loss": "quadratic"}, {"optimizer": SGD(3.0), "epochs": 30, "batch_size": 10}),
        ({"hidden": "relu", "output": "identity", "loss": "mse"}, {"optimizer": "adam", "epochs": 60}),
    ],
    ids=["softmax", "momentum", "cross-entropy", "quadratic", "identity"],
)
def test_digits_are_learned(digits, architecture, training):
    X_train, X_test, y_train, y_test = fastbp.datasets.train_test_split(*digits, seed=1)
    network = Network([64, 30, 10], seed=2, **architecture)
    assert network.accuracy(X_test, y_test) < 0.3
    history = network.fit(X_train, y_train, verbose=False, **training)
    assert network.accuracy(X_test, y_test) > 0.93
    assert history.loss[-1] < history.loss[0] / 3
    assert history.accuracy[-1] > 0.95 > history.accuracy[0]


def test_a_function_is_learned():
    x = np.linspace(-1, 1, 200)[:, None]
    network = Network([1, 20, 1], hidden="tanh", output="identity", seed=0)
    network.fit(x, np.sin(3 * x), epochs=300, optimizer=Adam(0.01), verbose=False)
    assert abs(network.predict(x) - np.sin(3 * x)).max() < 0.05


@pytest.mark.parametrize("dtype", [bool, int, float, np.float32, np.uint8])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_output_learns_exclusive_or(dtype, shape):
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    y = np.array([0, 1, 1, 0]).astype(dtype).reshape(shape)
    network = Network([2, 8, 1], hidden="tanh", seed=1)
    history = network.fit(corners, y, epochs=300, optimizer=Adam(0.05), verbose=False)
    np.testing.assert_array_equal(network.predict_classes(corners), [0, 1, 1, 0])
    assert network.predict(corners).shape == (4, 1)
    assert network.accuracy(corners, y) == history.accuracy[-1] == 1.0


def test_history():
    history = fit(make(), 4)
    assert type(history) is History
    assert history.epochs == 4
    for values in (history.loss, history.accuracy, history.seconds):
        assert len(values) == 4
        assert all(type(value) is float for value in values)
    assert history.validation_loss == history.validation_accuracy == []
    assert all(0 <= share <= 1 for share in history.accuracy)
    assert all(second >= 0 for second in history.seconds)


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples_as_it_ran():
    """Not the mean of the mini-batches' means: the last one is shorter."""
    network = make(dtype="float64")
    follower = make(dtype="float64")
    history = fit(network, 1, shuffle=False)
    costs = hits = 0.0
    for start in range(0, 53, 8):
        batch = slice(start, start + 8)
        n = len(Y[batch])
        costs += n * follower.loss(X[batch], Y[batch])
        hits += n * follower.accuracy(X[batch], Y[batch])
        follower.partial_fit(X[batch], Y[batch], batch_size=8, optimizer=Adam(0.01), shuffle=False)
    assert bits(follower) == bits(network)
    assert history.loss[0] == pytest.approx(costs / 53, rel=1e-12)
    assert history.accuracy[0] == pytest.approx(hits / 53, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "y", "is_there"),
    [
        ({"output": "softmax"}, Y, True),
        ({"output": "softmax"}, np.eye(4)[Y], True),
        ({"output": "sigmoid"}, Y, True),
        ({"output": "identity"}, Y, True),
        ({"output": "sigmoid"}, np.eye(4)[Y], True),
        ({"output": "sigmoid", "loss": "quadratic"}, np.eye(4)[Y], True),
        ({"output": "sigmoid"}, np.eye(4)[Y] * 0.5, False),
        ({"output": "sigmoid"}, np.maximum(np.eye(4)[Y], np.eye(4)[0]), False),
        ({"output": "sigmoid"}, np.eye(4)[Y] * (Y != 0)[:, None], False),
        ({"output": "identity"}, REAL, False),
        ({"output": "sigmoid", "loss": "quadratic"}, REAL, False),
        ({"sizes": (6, 1), "output": "sigmoid"}, Y % 2, True),
        ({"sizes": (6, 1), "output": "sigmoid", "loss": "mse"}, REAL[:, 0], False),
        ({"sizes": (6, 1), "output": "identity"}, REAL[:, 0], False),
    ],
)
def test_accuracy_is_told_of_classes_only(options, y, is_there):
    history = make(**options).fit(X, y, epochs=2, validation_data=(X, y), verbose=False)
    assert history.epochs == len(history.loss) == len(history.validation_loss) == 2
    assert len(history.accuracy) == len(history.validation_accuracy) == (2 if is_there else 0)


def test_validation_is_measured_at_the_end_of_each_epoch():
    network = make()
    X_other, y_other = X[:20][::-1], Y[20:40]
    after = []

    def look(state):
        after.append((network.loss(X_other, y_other), network.accuracy(X_other, y_other)))

    history = fit(network, 4, validation_data=(X_other, y_other), callbacks=[Calling(look)])
    assert list(zip(history.validation_loss, history.validation_accuracy, strict=True)) == after
    assert len(set(history.validation_loss)) == 4
    assert after[-1] == (network.loss(X_other, y_other), network.accuracy(X_other, y_other))


def test_validation_changes_nothing_of_the_training():
    one, other = make(), make()
    history = fit(one, validation_data=[X[:7], Y[:7]])
    assert history.loss == fit(other).loss
    assert bits(one) == bits(other)


# Going on


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_fit_goes_on_from_the_present_weights_with_the_optimizer_anew(optimizer):
    network = make()
    fit(network, 2, optimizer=optimizer, shuffle=False)
    fresh = make(init=init_of(network))
    fit(network, 2, optimizer=optimizer, shuffle=False)
    fit(fresh, 2, optimizer=optimizer, shuffle=False)
    assert bits(network) == bits(fresh)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_passes_one_by_one_are_one_fit(optimizer, dtype, shuffle):
    whole, parts, both = (make(dtype=dtype) for _ in range(3))
    history = fit(whole, 4, optimizer=optimizer, shuffle=shuffle)
    options = {"batch_size": 8, "optimizer": optimizer, "shuffle": shuffle}
    losses = [parts.partial_fit(X, Y, **options).loss for _ in range(4)]
    assert bits(parts) == bits(whole)
    assert losses == [[loss] for loss in history.loss]
    fit(both, 2, optimizer=optimizer, shuffle=shuffle)
    for _ in range(2):
        both.partial_fit(X, Y, **options)
    assert bits(both) == bits(whole)


def test_passes_over_other_samples_and_sizes_go_on():
    """Momentum by hand: the velocity lives on, whatever the samples, the mini-batch and the learning rate."""
    network = Network([1, 1], output="identity", bias=False, init=[([[0.5]], None)], dtype="float64")
    w, v = 0.5, 0.0
    for x, y, eta in [([1.0], [2.0], 0.1), ([2.0, -1.0], [0.0, 1.0], 0.2), ([0.5], [1.0], 0.05)]:
        network.partial_fit(np.array(x)[:, None], y, batch_size=4, optimizer=SGD(eta, 0.5))
        gradient = np.mean([(w * xi - yi) * xi for xi, yi in zip(x, y, strict=True)])
        v = 0.5 * v - eta * gradient
        w += v
    assert network.weights[0][0, 0] == pytest.approx(w, rel=1e-14)


def assign_weights(network):
    network.weights = network.weights


def assign_biases(network):
    network.biases = network.biases


def assign_layer(network):
    network.set_layer(0, network.weights[0])


def assign_nothing(network):
    pass


@pytest.mark.parametrize(
    ("between", "optimizer", "anew"),
    [
        (assign_nothing, Adam(0.01), False),
        (assign_nothing, Adam(0.02, 0.8), False),
        (assign_nothing, SGD(0.01, 0.9), True),
        (assign_weights, Adam(0.01), True),
        (assign_biases, Adam(0.01), True),
        (assign_layer, Adam(0.01), True),
    ],
)
def test_when_passes_start_the_optimizer_anew(between, optimizer, anew):
    network = make()
    network.partial_fit(X, Y, optimizer=Adam(0.01), shuffle=False)
    between(network)
    fresh = make(init=init_of(network))
    network.partial_fit(X, Y, optimizer=optimizer, shuffle=False)
    fresh.partial_fit(X, Y, optimizer=optimizer, shuffle=False)
    assert (bits(network) == bits(fresh)) is anew


def test_no_epochs_change_nothing_but_the_optimizer():
    one, other = make(), make()
    before = bits(one)
    history = fit(one, 0, validation_data=(X, Y))
    assert history == History()
    assert bits(one) == before
    fit(one)
    fit(other)
    assert bits(one) == bits(other), "nothing was drawn"


@pytest.mark.parametrize("batch_size", [53, 54, 1000, 10**30])
def test_a_mini_batch_of_more_than_all_is_one_of_all(batch_size):
    one, other = make(), make()
    fit(one, batch_size=53)
    fit(other, batch_size=batch_size)
    assert bits(one) == bits(other)
