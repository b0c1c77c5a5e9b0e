"""Network: what a user of Keras, scikit-learn and NumPy expects of it, from the first fit to an interrupted one."""

from __future__ import annotations

import _thread
import re
import signal
import threading

import numpy as np
import pytest
from numeric import numerical_gradients

import fastbp
import fastbp.fitting
import fastbp.network
from fastbp import SGD, Adam, Callback, History, Network, reference
from fastbp.engine.run import Run
from fastbp.kernels.losses import LOSSES

DTYPES = ["float32", "float64"]
PAIRS = [(loss, output) for loss, outputs in LOSSES.items() for output in outputs]
OPTIMIZERS = {
    "sgd": SGD(0.1),
    "momentum": SGD(0.05, 0.9),
    "nesterov": SGD(0.05, 0.9, nesterov=True),
    "adam": Adam(0.01),
}
RNG = np.random.default_rng(0)
X = RNG.random((53, 6), np.float32)
Y = RNG.integers(0, 4, 53)
REAL = RNG.random((53, 4), np.float32)


def make(sizes=(6, 9, 4), **options):
    options = {"output": "softmax", "seed": 5, **options}
    return Network(sizes, **options)


def fit(network, epochs=3, **options):
    options = {"batch_size": 8, "optimizer": Adam(0.01), "verbose": False, **options}
    return network.fit(X, Y, epochs=epochs, **options)


def bits(network):
    return b"".join(array.tobytes() for array in (*network.weights, *network.biases))


def gradient_bits(network, y):
    dw, db = network.gradients(X, y)
    return b"".join(array.tobytes() for array in (*dw, *db))


def init_of(network):
    return list(zip(network.weights, network.biases, strict=True))


def frozen(array):
    array.flags.writeable = False
    return array


def unbounded(**options):
    """Return a network whose loss grows without bounds when it is trained on X at a learning rate of 2 or more."""
    return Network([6, 4], output="identity", seed=5, **options)


class Calling(Callback):
    """Call a function with the state at the end of each epoch."""

    def __init__(self, function):
        self.on_epoch_end = function


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


# The same bits


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_seed_decides(dtype):
    seeds = [3, np.int64(3), np.random.default_rng(3), np.random.SeedSequence(3)]
    networks = [make(seed=seed, dtype=dtype) for seed in seeds]
    assert len({bits(network) for network in networks}) == 1
    histories = [fit(network) for network in networks]
    assert len({bits(network) for network in networks}) == 1
    assert all(history.loss == histories[0].loss for history in histories)
    assert bits(make(seed=4, dtype=dtype)) != bits(make(seed=3, dtype=dtype))


def test_without_a_seed_networks_differ():
    assert bits(make(seed=None)) != bits(make(seed=None))


def test_a_generator_goes_on_from_network_to_network():
    rng = np.random.default_rng(3)
    first, second = make(seed=rng), make(seed=rng)
    assert bits(first) == bits(make(seed=3))
    assert bits(second) != bits(first)


def test_the_global_generator_is_neither_used_nor_changed():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    fit(make())
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002


@pytest.mark.parametrize("epochs", [1, 2, 5, 6, 7, 12, 30])
def test_orders_drawn_ahead_are_those_drawn_one_by_one(monkeypatch, epochs):
    """Where a core is left, the caller draws while a thread computes: neither more orders nor others, however often."""
    ahead = []
    draw_ahead = fastbp.training._Loop.draw_ahead

    def counting(self):
        before = len(self.drawn)
        draw_ahead(self)
        ahead.append(len(self.drawn) - before)

    monkeypatch.setattr(fastbp.training._Loop, "draw_ahead", counting)
    monkeypatch.setattr(fastbp.engine.run, "WORK_IN_CALLER", 0)
    monkeypatch.setattr(fastbp.engine.run, "get_num_threads", lambda: 2)
    monkeypatch.setattr(fastbp.engine.run, "share_of", lambda n: n)
    monkeypatch.setattr(fastbp.training, "CHUNK_MINIBATCHES", 30)  # five epochs
    networks = make(), make()
    for network, n_threads in zip(networks, (None, 1), strict=True):
        for part in (epochs, 2):
            network.fit(X, Y, epochs=part, batch_size=10, verbose=False, n_threads=n_threads)
        assert sum(ahead) == max(0, epochs - 5), "only beside one thread that was not asked for"
    for one, two in zip(networks[0].weights, networks[1].weights, strict=True):
        assert one.tobytes() == two.tobytes()
    assert networks[0]._rng.bit_generator.state == networks[1]._rng.bit_generator.state


def test_the_order_of_samples_is_drawn_anew_for_each_epoch():
    orders = []
    run_minibatches = Run.minibatches

    class Recording(Run):
        def minibatches(self, order, starts, steps, **options):
            orders.append(order)
            return run_minibatches(self, order, starts, steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastbp.fitting, "Run", Recording)
        fit(make(), 3)
        shuffled = np.concatenate(orders).reshape(3, 53)
        orders.clear()
        fit(make(), 3, shuffle=False)
        kept = np.concatenate(orders).reshape(3, 53)
    np.testing.assert_array_equal(np.sort(shuffled), np.tile(np.arange(53), (3, 1)))
    assert len({order.tobytes() for order in shuffled}) == 3
    np.testing.assert_array_equal(kept, np.tile(np.arange(53), (3, 1)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(dtype):
    results = []
    for n_threads in (1, 2, 3, 5):
        network = make((6, 40, 70, 4), hidden=["tanh", "relu"], dtype=dtype)
        history = fit(network, 2, n_threads=n_threads, validation_data=(X, Y))
        dw, db = network.gradients(X, Y, n_threads=n_threads)
        predicted = network.predict(X, n_threads=n_threads)
        measured = network.loss(X, Y, n_threads=n_threads), network.accuracy(X, Y, n_threads=n_threads)
        arrays = b"".join(array.tobytes() for array in (*dw, *db, predicted))
        results.append((bits(network), arrays, measured, history.loss, history.validation_loss))
    assert all(result == results[0] for result in results)


def test_who_looks_on_does_not_change_a_bit(capsys):
    """Chunks end where somebody looks; the result does not depend on it."""
    watched = [
        {},
        {"verbose": True},
        {"callbacks": [Callback()]},
        {"validation_data": (X, Y)},
        {"callbacks": [Calling(lambda state: state.network.predict(X))]},
    ]
    networks = [make() for _ in watched]
    histories = [fit(network, 5, **options) for network, options in zip(networks, watched, strict=True)]
    assert len({bits(network) for network in networks}) == 1
    assert all(history.loss == histories[0].loss for history in histories)
    assert all(history.accuracy == histories[0].accuracy for history in histories)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100])
def test_chunks_do_not_change_a_bit(monkeypatch, limit):
    one, other = make(), make()
    expected = fit(one, 4)
    monkeypatch.setattr(fastbp.training, "CHUNK_MINIBATCHES", limit)
    history = fit(other, 4)
    assert bits(one) == bits(other)
    assert (history.loss, history.accuracy) == (expected.loss, expected.accuracy)
    assert len(history.seconds) == 4


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


# Weights and biases


@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes_and_dtypes(dtype):
    network = make((6, 9, 1, 4), dtype=dtype)
    assert network.sizes == (6, 9, 1, 4)
    assert network.dtype == dtype
    assert [w.shape for w in network.weights] == [(9, 6), (1, 9), (4, 1)]
    assert [b.shape for b in network.biases] == [(9,), (1,), (4,)]
    assert {array.dtype for array in (*network.weights, *network.biases)} == {np.dtype(dtype)}
    assert all(array.flags.c_contiguous for array in network.weights)


@pytest.mark.parametrize("trained", [False, True])
def test_arrays_are_read_only(trained):
    network = make()
    if trained:
        fit(network)
    for array in (*network.weights, *network.biases):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(TypeError):
        network.weights[0] = network.weights[0]  # a tuple


def test_arrays_handed_out_stay_as_they_were():
    network = make()
    weights = network.weights
    kept = [w.copy() for w in weights]
    fit(network)
    for w, copy in zip(weights, kept, strict=True):
        np.testing.assert_array_equal(w, copy)
    assert not np.array_equal(network.weights[0], weights[0])


@pytest.mark.parametrize("convert", [np.asarray, np.asfortranarray, np.float16, lambda a: a.tolist()])
def test_assigned_arrays_are_copied_in_any_form(convert):
    network = make()
    w = [convert(np.full_like(w, 0.5)) for w in network.weights]
    b = [convert(np.full_like(b, -0.25)) for b in network.biases]
    network.weights, network.biases = w, tuple(b)
    for array in (*w, *b):
        if isinstance(array, np.ndarray):
            array[...] = 7
    assert {float(value) for w in network.weights for value in w.ravel()} == {0.5}
    assert {float(value) for b in network.biases for value in b} == {-0.25}
    assert {array.dtype for array in (*network.weights, *network.biases)} == {np.dtype("float32")}
    assert all(array.flags.c_contiguous and not array.flags.writeable for array in (*network.weights, *network.biases))


def test_assigned_weights_are_what_predicts_and_trains():
    one, other = make(seed=1), make(seed=2)
    one.predict(X)
    one.weights, one.biases = other.weights, other.biases
    assert bits(one) == bits(other)
    assert one.predict(X).tobytes() == other.predict(X).tobytes()
    fit(one, shuffle=False)
    fit(other, shuffle=False)
    assert bits(one) == bits(other)


@pytest.mark.parametrize("l", [0, 1, -1, -2, np.int64(1)])
def test_set_layer(l):
    network, before = make(), make()
    w, b = np.full_like(before.weights[l], 2), np.full_like(before.biases[l], 3)
    network.set_layer(l, w)
    np.testing.assert_array_equal(network.weights[l], w)
    np.testing.assert_array_equal(network.biases[l], before.biases[l])
    network.set_layer(l, biases=b)
    np.testing.assert_array_equal(network.weights[l], w)
    np.testing.assert_array_equal(network.biases[l], b)
    np.testing.assert_array_equal(network.weights[1 - l % 2], before.weights[1 - l % 2])
    np.testing.assert_array_equal(network.biases[1 - l % 2], before.biases[1 - l % 2])


def test_a_wrong_layer_leaves_both_its_arrays():
    network = make()
    before = bits(network)
    with pytest.raises(ValueError, match="biases has shape"):
        network.set_layer(0, np.zeros((9, 6)), np.zeros(8))
    assert bits(network) == before


@pytest.mark.parametrize("dtype", DTYPES)
def test_init_by_arrays(dtype):
    w, b = np.array([[1.0, -2.0], [0.5, 0.25]]), np.array([0.125, -1.0])
    network = Network([2, 2], output="identity", init=[(w, b)], dtype=dtype)
    w[...] = b[...] = 9
    np.testing.assert_array_equal(network.weights[0], [[1.0, -2.0], [0.5, 0.25]])
    np.testing.assert_array_equal(network.biases[0], [0.125, -1.0])
    np.testing.assert_array_equal(network.predict([[2.0, 1.0]]), [[0.125, 0.25]])


@pytest.mark.parametrize("name", ["gaussian", "he_uniform", "zeros"])
def test_init_by_name(name):
    network = make(init=name)
    rng = np.random.default_rng(5)
    for l, (n_in, n_out) in enumerate([(6, 9), (9, 4)]):
        w, b = fastbp.initializers.INITIALIZERS[name](rng, n_in, n_out)
        np.testing.assert_array_equal(network.weights[l], w.astype(np.float32))
        np.testing.assert_array_equal(network.biases[l], b.astype(np.float32))


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_fixed_biases_stay_to_the_bit(optimizer):
    network = make(bias="fixed")
    before, weights = [b.tobytes() for b in network.biases], network.weights
    fit(network, optimizer=optimizer)
    assert [b.tobytes() for b in network.biases] == before
    assert all((new != old).any() for new, old in zip(network.weights, weights, strict=True))
    assert any(b.any() for b in network.biases)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_no_biases_are_fixed_ones_of_zero(optimizer):
    without = make(bias=False)
    zeros = make(bias="fixed", init=[(w, np.zeros(len(w))) for w in without.weights])
    fit(without, optimizer=optimizer, shuffle=False)
    fit(zeros, optimizer=optimizer, shuffle=False)
    assert bits(without) == bits(zeros)
    assert not any(b.any() for b in without.biases)


def test_gradients_of_fixed_and_missing_biases():
    trained = make()
    fixed = make(bias="fixed", init=init_of(trained))
    assert gradient_bits(fixed, Y) == gradient_bits(trained, Y)
    assert any(b.any() for b in fixed.gradients(X, Y)[1])
    assert not any(b.any() for b in make(bias=False).gradients(X, Y)[1])


def test_no_biases_may_be_written_as_none_or_zeros():
    for b in (None, [0.0, 0.0], np.zeros(2)):
        assert not Network([2, 2], bias=False, init=[(np.eye(2), b)]).biases[0].any()
    with pytest.raises(ValueError, match=r"init\[0\]\[1\] has values other than 0, .* bias=False"):
        Network([2, 2], bias=False, init=[(np.eye(2), [0.0, 1.0])])
    with pytest.raises(ValueError, match=r"biases\[0\] has values other than 0, .* bias=False"):
        Network([2, 2], bias=False).biases = [[1.0, 0.0]]


# Asking: all answers fit together


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


# What is handed over


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


# When things go wrong


def diverge(network, **options):
    options = {"epochs": 300, "batch_size": 8, "optimizer": SGD(2.0), "shuffle": False, "verbose": False, **options}
    with pytest.raises(FloatingPointError) as caught:
        network.fit(X, REAL, **options)
    return str(caught.value)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", [SGD(1e6), SGD(1e3, 0.9), SGD(2.0)], ids=str)
def test_a_lost_loss_is_an_error_and_finite_weights_are_kept(optimizer, dtype, watched):
    network = unbounded(dtype=dtype)
    message = diverge(network, optimizer=optimizer, callbacks=[Callback()] if watched else [])
    assert all(np.isfinite(array).all() for array in (*network.weights, *network.biases))
    assert np.isfinite(network.predict(X)).all()
    assert "learning rate" in message
    assert "scale" in message


@pytest.mark.parametrize("rate", [1e30, 1e6, 20.0, 2.0])
def test_the_message_names_the_epoch_and_the_mini_batch(rate):
    """All mini-batches before the one named can be trained on, and that one cannot."""
    message = diverge(unbounded(), optimizer=SGD(rate), batch_size=8)
    found = re.search(r"epoch (\d+), mini-batch (\d+)", message)
    assert found is not None, message
    epoch, minibatch = int(found[1]), int(found[2])
    assert 0 <= minibatch < 7

    def survives(n):
        """Whether the first n mini-batches have finite losses."""
        network = unbounded()
        options = {"batch_size": 8, "optimizer": SGD(rate), "shuffle": False}
        try:
            for _ in range(n // 7):
                network.partial_fit(X, REAL, **options)
            if n % 7:
                network.partial_fit(X[: n % 7 * 8], REAL[: n % 7 * 8], **options)
        except FloatingPointError as error:
            return "the loss" not in str(error)
        return True

    assert survives(7 * epoch + minibatch)
    assert not survives(7 * epoch + minibatch + 1)


def test_an_epoch_that_was_seen_is_kept():
    """With a callback the weights kept are those that the last complete epoch reached, as the callback saw them."""
    seen = []
    network = unbounded()
    diverge(network, callbacks=[Calling(lambda state: seen.append(bits(state.network)))])
    assert len(seen) >= 1
    assert bits(network) == seen[-1]


@pytest.mark.parametrize(("bad", "good"), [(SGD(1e6, 0.5), SGD(0.01, 0.5)), (Adam(1e30), Adam(0.01))], ids=str)
def test_after_a_lost_loss_training_goes_on_as_if_that_had_not_been(bad, good):
    network, fresh = unbounded(), unbounded()
    diverge(network, optimizer=bad, epochs=1)
    assert bits(network) == bits(fresh)
    for each in (network, fresh):
        each.partial_fit(X, REAL, optimizer=good, shuffle=False)
    assert bits(network) == bits(fresh)


def test_a_lost_validation_loss_is_told_and_ends_nothing():
    """Validation samples far out may overflow where training does not."""
    far = np.full((2, 6), 3e38, np.float32)
    history = unbounded(dtype="float64").fit(X, REAL, epochs=2, validation_data=(far, REAL[:2]), verbose=False)
    assert len(history.validation_loss) == 2


def test_a_second_fit_during_a_fit_is_refused():
    network = make()
    refused = []

    def try_all(state):
        for attempt in (
            lambda: fit(network),
            lambda: network.partial_fit(X, Y),
            lambda: setattr(network, "weights", network.weights),
            lambda: setattr(network, "biases", network.biases),
            lambda: network.set_layer(0, network.weights[0]),
        ):
            with pytest.raises(RuntimeError, match=r"in training already: wait .*, or train a copy"):
                attempt()
            refused.append(attempt)

    fit(network, 2, callbacks=[Calling(try_all)])
    assert len(refused) == 10
    other = make()
    fit(other, 2)
    assert bits(network) == bits(other), "what was refused had no effect"


def test_a_second_fit_from_another_thread_is_refused():
    network = make()
    errors = []

    def attempt():
        try:
            fit(network)
        except RuntimeError as error:
            errors.append(error)

    def elsewhere(state):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()

    fit(network, 3, callbacks=[Calling(elsewhere)])
    assert len(errors) == 3
    fit(network, 1)


def test_during_a_fit_others_see_published_weights_only():
    """Predictions from another thread are those of the start or of the end of some epoch, never of a mixture."""
    network = make()
    allowed = {network.predict(X).tobytes()}
    seen: set[bytes] = set()
    done = threading.Event()

    def ask():
        while not done.is_set():
            seen.add(network.predict(X).tobytes())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        publish = Calling(lambda state: allowed.add(state.network.predict(X).tobytes()))
        fit(network, 60, callbacks=[publish])
    finally:
        done.set()
        thread.join()
    assert len(allowed) == 61
    assert seen
    assert seen <= allowed


class Raising(Callback):
    """Raise an error at the end of an epoch."""

    def __init__(self, error, epoch):
        self.error, self.epoch = error, epoch

    def on_epoch_end(self, state):
        if state.history.epochs == self.epoch:
            raise self.error


@pytest.mark.parametrize("error", [LookupError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_what_a_callback_raises_arrives_with_the_weights_reached(error):
    one, other = make(), make()
    with pytest.raises(type(error)) as caught:
        fit(one, 5, callbacks=[Raising(error, 2)])
    assert caught.value is error
    fit(other, 2)
    assert bits(one) == bits(other)
    for network in (one, other):
        network.partial_fit(X, Y, batch_size=8, optimizer=Adam(0.01))
    assert bits(one) == bits(other), "the optimizer goes on, and so do the draws"
    fit(one)


@pytest.mark.parametrize("where", ["on_train_begin", "on_train_end"])
def test_what_a_callback_raises_at_the_begin_and_the_end(where):
    def fail(state):
        raise LookupError(where)

    callback = Callback()
    setattr(callback, where, fail)
    network, other = make(), make()
    with pytest.raises(LookupError, match=where):
        fit(network, 2, callbacks=[callback])
    fit(other, 0 if where == "on_train_begin" else 2)
    assert bits(network) == bits(other)
    fit(network)


def interrupt():
    """Do what Ctrl-C does."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        _thread.interrupt_main()


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_ctrl_c_leaves_the_weights_of_the_last_complete_mini_batch(n_threads, monkeypatch):
    """All samples are one mini-batch, so that an epoch is a step and the steps tell how many epochs there were.

    A mini-batch takes so long that the interrupt finds threads at work, and must wait for them; several interrupts
    find them at several places.
    """
    rng = np.random.default_rng(0)
    many, labels = rng.random((1000, 20), np.float32), rng.integers(0, 4, 1000)
    options = {"batch_size": 1000, "optimizer": SGD(0.01, 0.5), "shuffle": False}
    run_minibatches = Run.minibatches
    runs = []

    class Interrupted(Run):
        def minibatches(self, order, starts, steps, **options):
            if self not in runs:
                runs.append(self)
                threading.Timer(rng.uniform(0.02, 0.05), interrupt).start()
            return run_minibatches(self, order, starts, steps)

    for _ in range(10):
        network, other = make((20, 60, 4)), make((20, 60, 4))
        with monkeypatch.context() as patch:
            patch.setattr(fastbp.fitting, "Run", Interrupted)
            with pytest.raises(KeyboardInterrupt):
                network.fit(many, labels, epochs=10**9, n_threads=n_threads, **options)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("fastbp")]
        other.fit(many, labels, epochs=runs[-1].steps, **options)
        assert bits(network) == bits(other)
        for each in (network, other):
            each.partial_fit(many, labels, **options)
        assert bits(network) == bits(other), "the velocity too is that of the last complete mini-batch"


def test_ctrl_c_after_the_loss_was_lost_leaves_finite_weights(monkeypatch):
    """The interrupt comes within a chunk, before anybody has looked at its losses."""
    run_minibatches = Run.minibatches

    def interrupted(self, order, starts, steps, **options):
        run_minibatches(self, order, starts, steps)
        raise KeyboardInterrupt

    network = unbounded()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "minibatches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            network.fit(X, REAL, epochs=300, batch_size=8, optimizer=SGD(2.0), verbose=False)
    assert all(np.isfinite(array).all() for array in (*network.weights, *network.biases))
    network.partial_fit(X, REAL, optimizer=SGD(1e-3))
    assert np.isfinite(network.predict(X)).all()


# What it says of itself


def test_repr():
    network = Network([784, 30, 20, 10], hidden=["relu", "tanh"], output="softmax", bias="fixed", dtype="float64")
    text = (
        "Network([784, 30, 20, 10], hidden=['relu', 'tanh'], output='softmax', loss='cross_entropy', bias='fixed', "
        "dtype='float64')"
    )
    assert repr(network) == text
    assert eval(text).architecture == network.architecture
    assert repr(eval(repr(Network([2, 1])))) == repr(Network([2, 1]))


def test_summary():
    text = Network([784, 30, 10], hidden="relu", output="softmax").summary()
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "inputs", "neurons", "activation", "parameters"]
    assert lines[1].split() == ["0", "784", "30", "relu", "23,550"]
    assert lines[2].split() == ["1", "30", "10", "softmax", "310"]
    assert "cross_entropy" in lines[3]
    assert "23,860 parameters" in lines[3]
    assert len(lines) == 4
    for bias, words in [(True, "biases trained"), (False, "no biases"), ("fixed", "biases fixed")]:
        network = Network([7, 5, 2], bias=bias)
        assert words in network.summary()
        assert f"{network.architecture.n_parameters} parameters" in network.summary()


# Sizes


def check_against_reference(network, inputs, targets, bound):
    """Ten steps of the network and of the textbook, from the same weights."""
    a = network.architecture
    weights, biases, losses = reference.train(
        network.weights, network.biases, a.activations, a.loss, inputs, targets, hyper={"learning_rate": 0.05},
        batches=5 * reference.minibatches(len(inputs), 7),
    )  # fmt: skip
    before = bits(network)
    history = network.fit(inputs, targets, epochs=5, batch_size=7, optimizer=SGD(0.05), shuffle=False, verbose=False)
    assert bits(network) != before
    for mine, theirs in zip((*network.weights, *network.biases), (*weights, *biases), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=bound, atol=bound)
    assert history.loss[0] == pytest.approx(np.average(losses[:2], weights=[7, 6]), rel=bound)


@pytest.mark.parametrize(
    "sizes",
    [[1, 1], [1, 1, 1], [4] * 41, [3, 2000, 2], [2000, 3], [5, 1, 5], [17, 16, 15, 33]],
    ids=["1-1", "1-1-1", "40 layers", "2000 neurons", "2000 inputs", "bottleneck", "tails"],
)
def test_sizes_from_the_smallest_to_wide_and_deep(sizes):
    rng = np.random.default_rng(1)
    inputs, targets = rng.standard_normal((13, sizes[0])), rng.random((13, sizes[-1]))
    network = Network(sizes, hidden="tanh", output="sigmoid", init="glorot_uniform", dtype="float64", seed=2)
    check_against_reference(network, inputs, targets, 1e-10)
    small = Network(sizes, hidden="tanh", output="sigmoid", init=init_of(network), dtype="float32")
    np.testing.assert_allclose(small.predict(inputs), network.predict(inputs), atol=1e-5)


def test_forty_layers_learn():
    network = Network([6] + [8] * 39 + [4], hidden="tanh", output="softmax", init="glorot_uniform", seed=1)
    history = fit(network, 30, optimizer=Adam(2e-3))
    assert history.loss[-1] < history.loss[0]
    assert all(np.isfinite(w).all() for w in network.weights)
