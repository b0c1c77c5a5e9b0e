"""Network: what a user of Keras, scikit-learn and NumPy expects of it: layers of any size, weights, what it says."""

from __future__ import annotations

import numpy as np
import pytest
from networks import DTYPES, OPTIMIZERS, X, Y, bits, fit, gradient_bits, init_of, make

import fastbp
from fastbp import SGD, Adam, Network, reference

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
