"""fastbp.nielsen.network beside the book's network.py: attributes, draws, prints, learning, data in every form."""

from __future__ import annotations

import copy
import inspect
import itertools
import pickle
import random

import numpy as np
import pytest
from book import network as book
from nielsen import Spy, assert_close, assert_same_bits, captured, labelled, pairs, seed, states

from fastbp.nielsen import descent, network


def both(sizes):
    """Return our network and the book's, from the same draws."""
    made = []
    for module in (network, book):
        seed()
        made.append(module.Network(sizes))
    return made


def train_both(sizes, data, *args, **options):
    """Train both from the same state, on lists of their own; return them with lists, prints and generators."""
    results = []
    for net in both(sizes):
        listed = list(data)
        seed(5)
        _, printed = captured(net.SGD, listed, *args, **options)
        results.append((net, listed, printed, states()))
    return results


def assert_trained_alike(sizes, data, *args, **options):
    (ours, our_list, our_print, our_states), (theirs, their_list, their_print, their_states) = train_both(
        sizes, data, *args, **options
    )
    assert our_print == their_print
    assert all(a is b for a, b in zip(our_list, their_list, strict=True))
    assert our_states == their_states
    assert_close(ours, theirs)
    return ours


@pytest.fixture
def spy(monkeypatch):
    return Spy(monkeypatch)


@pytest.mark.parametrize("sizes", [[7, 5, 10], (3, 2), [4, 6, 5, 3]])
def test_start(sizes):
    seed()
    ours = network.Network(sizes)
    after = states()
    seed()
    theirs = book.Network(sizes)
    assert after == states()
    assert vars(ours).keys() == vars(theirs).keys()
    assert ours.num_layers == theirs.num_layers
    assert ours.sizes is sizes
    assert_same_bits(ours, theirs)


@pytest.mark.parametrize(
    "name", ["__init__", "feedforward", "update_mini_batch", "backprop", "evaluate", "cost_derivative"]
)
def test_signature(name):
    ours, theirs = (list(inspect.signature(getattr(module.Network, name)).parameters) for module in (network, book))
    assert ours == theirs


def test_signature_of_sgd():
    ours, theirs = (inspect.signature(module.Network.SGD).parameters for module in (network, book))
    assert list(ours)[:-1] == list(theirs)
    assert ours["test_data"].default is None
    assert ours["shuffle"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("sizes", [[7, 5, 10], [7, 10], [7, 4, 3, 10], [7, 33, 17, 10]])
@pytest.mark.parametrize("mini_batch_size", [1, 8, 9, 40, 100])
def test_learns_as_the_book(sizes, mini_batch_size, spy):
    assert_trained_alike(sizes, pairs(), 3, mini_batch_size, 3.0, labelled())
    assert spy.minibatches == 3 * -(-40 // mini_batch_size)


@pytest.mark.parametrize("eta", [3, 0.5, np.float64(0.5), np.int32(2), 0, -1.0])
def test_eta(eta, spy):
    assert_trained_alike([7, 5, 10], pairs(), 2, 10, eta)
    assert spy.minibatches == 8


@pytest.mark.parametrize("eta", [np.float32(0.3), np.array(0.3), np.array([[0.3]])])
def test_eta_whose_arithmetic_is_not_float64(eta, spy):
    (ours, *_), (theirs, *_) = train_both([7, 5, 10], pairs(), 2, 10, eta)
    assert_same_bits(ours, theirs)
    assert spy.minibatches == 0


@pytest.mark.parametrize("epochs", [0, 1, 7])
@pytest.mark.parametrize("test_data", [None, [], labelled()])
def test_prints(epochs, test_data):
    _, printed = captured(network.Network([7, 5, 10]).SGD, pairs(), epochs, 10, 3.0, test_data)
    lines = printed.splitlines()
    assert len(lines) == epochs
    for epoch, line in enumerate(lines):
        if test_data:
            assert line.startswith(f"Epoch {epoch}: ")
            assert line.endswith(" / 30")
        else:
            assert line == f"Epoch {epoch} complete"


def test_returns_nothing():
    assert captured(network.Network([7, 5, 10]).SGD, pairs(), 1, 10, 3.0)[0] is None


def test_one_output():
    data = [(x, y[:1]) for x, y in pairs()]
    assert_trained_alike([7, 5, 1], data, 3, 10, 3.0, [(x, 0) for x, _ in data[:20]])


def test_tiny_sets_with_and_without_tests(spy):
    """Few samples take the book's way where somebody looks at every epoch, and many epochs at a time otherwise."""
    xor = [(np.array([[i], [j]]), np.array([[i ^ j]])) for i in (0, 1) for j in (0, 1)]
    assert_trained_alike([2, 3, 1], xor, 50, 1, 3.0)
    assert spy.minibatches == 200
    (ours, *_), (theirs, *_) = train_both([2, 3, 1], xor, 50, 1, 3.0, [(x, 0) for x, _ in xor])
    assert_same_bits(ours, theirs)
    assert spy.minibatches == 200


def test_many_epochs_at_a_time_stop_where_they_shall(monkeypatch, spy):
    monkeypatch.setattr(descent, "CHUNK_MINIBATCHES", 10)
    assert_trained_alike([7, 5, 10], pairs(), 7, 10, 3.0)  # 4 mini-batches an epoch: 2, 2, 2, 1 epochs
    assert spy.minibatches == 28


def test_a_very_short_set():
    assert_trained_alike([7, 5, 10], pairs(1), 3, 10, 3.0)


def test_no_samples():
    net = network.Network([7, 5, 10])
    before = copy.deepcopy(net)
    _, printed = captured(net.SGD, [], 2, 10, 3.0)
    assert printed == "Epoch 0 complete\nEpoch 1 complete\n"
    assert_same_bits(net, before)


# Data in every form


@pytest.mark.parametrize(
    "form", [iter, tuple, lambda data: zip(*zip(*data, strict=True), strict=True), lambda data: (p for p in data)]
)
def test_iterables(form):
    data = pairs()
    ours, theirs = both([7, 5, 10])
    for net, given, tests in (ours, form(data), form(labelled())), (theirs, list(data), labelled()):
        seed()
        printed = captured(net.SGD, given, 2, 10, 3.0, tests)[1]
        assert "/ 30" in printed
    assert_close(ours, theirs)


class Listed(list):
    pass


def test_a_list_of_another_class_is_shuffled_in_place():
    given = Listed(pairs())
    before = list(given)
    captured(network.Network([7, 5, 10]).SGD, given, 1, 10, 3.0)
    assert [id(p) for p in given] != [id(p) for p in before]
    assert {id(p) for p in given} == {id(p) for p in before}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
def test_dtypes(dtype, spy):
    data = [((8 * x).astype(dtype), y.astype(dtype)) for x, y in pairs()]
    if dtype == "bool":  # NumPy cannot subtract bools from floats' bools, but from floats it can
        data = [(x, y.astype(float)) for x, y in data]
    assert_trained_alike([7, 5, 10], data, 2, 10, 0.5)
    assert spy.minibatches == 8


@pytest.mark.parametrize(
    "layout", [lambda x: np.asfortranarray(x), lambda x: np.repeat(x, 2, axis=0)[::2], lambda x: x[::-1][::-1]]
)
def test_layouts(layout, spy):
    data = [(layout(x), layout(y)) for x, y in pairs()]
    assert_trained_alike([7, 5, 10], data, 2, 10, 3.0)
    assert spy.minibatches == 8


def test_pairs_as_lists():
    assert_trained_alike([7, 5, 10], [[x, y] for x, y in pairs()], 2, 10, 3.0)


def error_of(net, data):
    """Return what an epoch raises, None if nothing."""
    seed(5)
    try:
        captured(net.SGD, data, 1, 10, 3.0)
    except Exception as error:
        return type(error), str(error)
    return None


class Array(np.ndarray):
    pass


ODD = {
    "longdouble": lambda x, y: (x.astype(np.longdouble), y),
    "a subclass": lambda x, y: (x.view(Array), y),
    "several samples side by side": lambda x, y: (np.hstack([x, x]), np.hstack([y, y])),
    "y a number": lambda x, y: (x, 0.5),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_the_engine_does_not_take_goes_the_books_way(odd, spy):
    data = [ODD[odd](x, y) for x, y in pairs()]
    ours, theirs = both([7, 5, 10])
    assert error_of(ours, list(data)) == error_of(theirs, list(data))
    assert_same_bits(ours, theirs)
    assert spy.minibatches == 0


def test_caller_s_arrays_are_left_alone():
    data = pairs()
    before = copy.deepcopy(data)
    for x, y in data:
        x.flags.writeable = y.flags.writeable = False
    listed = list(data)
    captured(network.Network([7, 5, 10]).SGD, listed, 2, 10, 3.0, labelled())
    for (x, y), (x_before, y_before) in zip(data, before, strict=True):
        np.testing.assert_array_equal(x, x_before)
        np.testing.assert_array_equal(y, y_before)


# Weights belong to the user


def test_weights_are_bound_anew_and_writable():
    net = network.Network([7, 5, 10])
    old = [*net.weights, *net.biases]
    before = copy.deepcopy(old)
    captured(net.SGD, pairs(), 1, 10, 3.0)
    for array, kept in zip(old, before, strict=True):
        np.testing.assert_array_equal(array, kept)
    new = [*net.weights, *net.biases]
    assert not any(np.shares_memory(a, b) for a, b in itertools.product(new, old))
    assert all(a.flags.writeable and a.dtype == np.float64 for a in new)


def change_in_place(net):
    net.weights[0][2, 3] = 5.0
    net.biases[1] *= 0.5


def change_whole(net):
    net.weights = [0.5 * w for w in net.weights]
    net.biases[0] = np.asfortranarray(net.biases[0] + 1)


def change_read_only(net):
    for w in net.weights:
        w.flags.writeable = False


def change_layers(net):
    net.sizes, net.num_layers = [7, 2, 6, 10], 4
    net.weights = [np.ones((2, 7)), np.ones((6, 2)), np.ones((10, 6))]
    net.biases = [np.zeros((2, 1)), np.zeros((6, 1)), np.zeros((10, 1))]


@pytest.mark.parametrize("change", [change_in_place, change_whole, change_read_only, change_layers])
def test_changes_between_calls_count(change, spy):
    nets = both([7, 5, 10])
    for net in nets:
        seed()
        captured(net.SGD, pairs(), 1, 10, 3.0)
        change(net)
        captured(net.SGD, pairs(), 1, 10, 3.0)
    assert_close(*nets)
    assert nets[0].evaluate(labelled()) == nets[1].evaluate(labelled())
    assert spy.minibatches == 8


def float32_weights(net):
    net.weights = [w.astype(np.float32) for w in net.weights]


def flat_biases(net):
    net.biases = [b.ravel() for b in net.biases]


def fewer_layers(net):
    net.num_layers = 2


def matrices(net):
    net.weights = [w.view(Array) for w in net.weights]


def big_endian(net):
    net.weights = [w.astype(">f8") for w in net.weights]


@pytest.mark.parametrize("change", [float32_weights, flat_biases, fewer_layers, matrices, big_endian])
def test_arrays_that_the_engine_does_not_take(change, spy):
    """They go the book's way, whose bits these are; what comes out of that may be the engine's next."""
    ours, theirs = both([7, 5, 10])
    for net in ours, theirs:
        change(net)
    assert error_of(ours, pairs()) == error_of(theirs, pairs())
    assert spy.minibatches == 0
    assert_same_bits(ours, theirs)


def test_wrong_sizes_raise_what_the_book_raises():
    ours, theirs = (error_of(net, pairs()) for net in both([6, 5, 10]))
    assert ours == theirs
    assert "not aligned" in ours[1]


# Asking


def test_evaluate(spy):
    ours, theirs = both([7, 5, 10])
    data = labelled(200)
    hits = ours.evaluate(data)
    assert type(hits) is int
    assert hits == theirs.evaluate(data) > 0
    assert spy.evaluated == 200
    assert ours.evaluate(iter(data)) == hits


@pytest.mark.parametrize(
    "label", [float, lambda y: np.array(y), lambda y: f"{y}", lambda y: np.float32(y), lambda y: [y]]
)
def test_labels_of_other_types(label):
    ours, theirs = both([7, 5, 10])
    data = [(x, label(y)) for x, y in labelled(60)]
    try:
        wanted = theirs.evaluate(data)
    except (TypeError, ValueError) as error:
        with pytest.raises(type(error)):
            ours.evaluate(data)
    else:
        assert ours.evaluate(data) == wanted


def test_equal_outputs_are_the_first_label():
    net = network.Network([7, 5, 10])
    net.weights = [np.zeros_like(w) for w in net.weights]
    net.biases = [np.zeros_like(b) for b in net.biases]
    assert net.evaluate([(x, 0) for x, _ in labelled()]) == 30


def test_feedforward_and_backprop_have_the_books_bits():
    ours, theirs = both([7, 5, 4, 10])
    x, y = pairs()[0]
    np.testing.assert_array_equal(ours.feedforward(x), theirs.feedforward(x))
    X = np.hstack([x for x, _ in pairs()])
    assert ours.feedforward(X).shape == (10, 40)
    np.testing.assert_array_equal(ours.feedforward(X), theirs.feedforward(X))
    for got, wanted in zip(ours.backprop(x, y), theirs.backprop(x, y), strict=True):
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    for net in ours, theirs:
        net.update_mini_batch(pairs()[:7], 0.3)
    assert_same_bits(ours, theirs)
    np.testing.assert_array_equal(network.sigmoid(x), book.sigmoid(x))
    np.testing.assert_array_equal(network.sigmoid_prime(x), book.sigmoid_prime(x))
    np.testing.assert_array_equal(ours.cost_derivative(x, 2 * x), -x)


# What goes wrong


@pytest.mark.parametrize("interrupted_after", [0, 3, 7])
def test_an_interrupt_keeps_the_last_mini_batch(monkeypatch, interrupted_after):
    """The first epochs are four mini-batches each; weights are those of the book after as many as were done."""

    class Run(descent.Run):
        def minibatches(self, order, starts, steps, **options):
            super().minibatches(order, starts[: interrupted_after + 1], steps[:interrupted_after])
            raise KeyboardInterrupt

    ours, theirs = both([7, 5, 10])
    monkeypatch.setattr(descent, "Run", Run)
    seed()
    with pytest.raises(KeyboardInterrupt):
        captured(ours.SGD, pairs(), 3, 10, 3.0)
    seed()
    listed = pairs()
    done = 0
    while done < interrupted_after:
        random.shuffle(listed)
        for k in range(0, 40, 10)[: interrupted_after - done]:
            theirs.update_mini_batch(listed[k : k + 10], 3.0)
            done += 1
    assert_close(ours, theirs)


def test_what_is_not_finite_stops_nothing():
    """As in the book: an epoch ends with weights that are not numbers, and the next begins."""
    net = network.Network([7, 5, 10])
    data = pairs()
    data[3][0][0] = np.nan
    _, printed = captured(net.SGD, data, 2, 10, 3.0, labelled())
    assert [line.split(":")[0] for line in printed.splitlines()] == ["Epoch 0", "Epoch 1"]
    assert np.isnan(net.weights[0]).any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((pairs(), 1, 0, 3.0), ValueError, "must not be zero"),
        ((pairs(), 1, 2.5, 3.0), TypeError, "integer"),
        ((pairs(), 1.5, 10, 3.0), TypeError, "integer"),
        (([(1, 2, 3)] * 20, 1, 10, 3.0), ValueError, "too many values"),
        ((5, 1, 10, 3.0), TypeError, "not iterable"),
    ],
)
def test_bad_arguments(arguments, error, message):
    net = network.Network([7, 5, 10])
    before = copy.deepcopy(net)
    with pytest.raises(error, match=message):
        captured(net.SGD, *arguments)
    assert_same_bits(net, before)


def test_bad_shuffle():
    with pytest.raises(ValueError, match="shuffle is 'python4', but must be one of 'python3', 'python2'"):
        network.Network([7, 5, 10]).SGD(pairs(), 1, 10, 3.0, shuffle="python4")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies(duplicate):
    net = network.Network([7, 5, 10])
    captured(net.SGD, pairs(), 1, 10, 3.0)
    assert_same_bits(duplicate(net), net)
    assert vars(duplicate(net)).keys() == {"num_layers", "sizes", "biases", "weights"}
