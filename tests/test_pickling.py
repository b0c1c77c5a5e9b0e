"""Pickling: copies of a network predict and go on training like the original, here and in other processes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

import fastbp
from fastbp import SGD, Adam, Network

RNG = np.random.default_rng(0)
X = RNG.random((37, 6), np.float32)
Y = np.arange(37) % 4

COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy}
COPIES |= {f"pickle {p}": partial(lambda network, p: pickle.loads(pickle.dumps(network, p)), p=p) for p in range(2, 6)}
OPTIMIZERS = {"sgd": SGD(0.1), "momentum": SGD(0.1, 0.9), "nesterov": SGD(0.1, 0.9, nesterov=True), "adam": Adam(0.01)}


def make(**options):
    return Network([6, 9, 4], output="softmax", seed=5, **options)


def go_on(network, optimizer, **options):
    for _ in range(2):
        network.partial_fit(X, Y, batch_size=8, optimizer=optimizer, **options)


def bits(network):
    return b"".join(array.tobytes() for array in (*network.weights, *network.biases))


FRESH = {
    "float32": make,
    "float64": lambda: make(dtype="float64"),
    "no biases": lambda: make(bias=False),
    "fixed biases": lambda: make(bias="fixed"),
    "activations": lambda: Network([6, 3, 5, 4], hidden=["relu", "tanh"], output="identity", loss="mse", seed=1),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("made", FRESH.values(), ids=FRESH)
def test_a_copy_is_the_same_network(made, copied):
    network = made()
    again = copied(network)
    assert type(again) is Network
    assert again.architecture == network.architecture
    assert repr(again) == repr(network)
    assert bits(again) == bits(network)
    assert again.predict(X).tobytes() == network.predict(X).tobytes()


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_copy_of_a_trained_network_goes_on_like_the_original(optimizer, copied, shuffle):
    network = make()
    go_on(network, optimizer)
    again = copied(network)
    go_on(network, optimizer, shuffle=shuffle)
    go_on(again, optimizer, shuffle=shuffle)
    assert bits(again) == bits(network)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_is_independent(copied):
    network = make()
    go_on(network, "adam")
    before, predicted = bits(network), network.predict(X).tobytes()
    again = copied(network)
    go_on(again, "adam")
    again.weights = [np.zeros_like(w) for w in again.weights]
    assert bits(network) == before
    assert network.predict(X).tobytes() == predicted
    for mine, its in zip((*network.weights, *network.biases), (*again.weights, *again.biases), strict=True):
        assert not np.shares_memory(mine, its)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_arrays_of_a_copy_are_read_only(copied):
    again = copied(make())
    for array in (*again.weights, *again.biases):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_made_during_training_can_be_trained(copied):
    """As the error of a second fit advises; the copy has the weights that the epoch reached."""
    copies, reached = [], []

    class Checkpoint(fastbp.Callback):
        def on_epoch_end(self, state):
            copies.append(copied(state.network))
            reached.append(bits(state.network))
            copies[-1].fit(X, Y, epochs=0)

    make().fit(X, Y, epochs=3, callbacks=[Checkpoint()], verbose=False)
    assert [bits(network) for network in copies] == reached
    assert len(set(reached)) == 3
    copies[0].fit(X, Y, verbose=False)
    assert bits(copies[0]) != reached[0]


def everything_in(state, seen=None):
    """Yield all objects in a pickled state, as deep as they lie."""
    seen = set() if seen is None else seen
    if id(state) in seen:
        return
    seen.add(id(state))
    yield state
    inner = []
    if isinstance(state, dict):
        inner = [*state.keys(), *state.values()]
    elif isinstance(state, list | tuple | set):
        inner = list(state)
    elif hasattr(state, "__dict__") and not isinstance(state, type):
        inner = list(vars(state).values())
    for item in inner:
        yield from everything_in(item, seen)


def test_no_lock_no_buffer_and_no_panel_is_in_the_state():
    network = make()
    go_on(network, "adam")
    network.predict(X)
    state = network.__getstate__()
    names = {type(item).__name__ for item in everything_in(state)}
    assert not [name for name in names if "lock" in name.lower() or name in ("Run", "Parameters", "Workspace")]
    arrays = [item for item in everything_in(state) if isinstance(item, np.ndarray)]
    assert {array.shape for array in arrays} == {(9, 6), (9,), (4, 9), (4,)}, "canonical, whatever the CPU"
    assert len(arrays) == 3 * 4, "the parameters, and Adam's m and v"


def test_a_pickle_is_hardly_larger_than_what_it_holds():
    network = Network([300, 200, 10], seed=0)
    network.fit(np.zeros((4, 300)), np.zeros((4, 10)), verbose=False)
    network.predict(np.zeros((4, 300)))
    held = 3 * sum(array.nbytes for array in (*network.weights, *network.biases))
    assert held <= len(pickle.dumps(network)) <= held + 10_000


def test_to_pickle_changes_nothing():
    one, other = make(), make()
    go_on(one, "adam")
    go_on(other, "adam")
    one.predict(X)
    pickle.dumps(one)
    copy.deepcopy(one)
    go_on(one, "adam")
    go_on(other, "adam")
    assert bits(one) == bits(other)


CHILD = """
import pickle, sys
import numpy as np
network, X, Y, optimizer = pickle.load(sys.stdin.buffer)
predicted = network.predict(X)
for _ in range(2):
    network.partial_fit(X, Y, batch_size=8, optimizer=optimizer)
pickle.dump((predicted, network), sys.stdout.buffer)
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pickles_move_between_processes(dtype):
    network, optimizer = make(dtype=dtype), Adam(0.01)
    go_on(network, optimizer)
    sent = pickle.dumps((network, X, Y, optimizer))
    child = subprocess.run([sys.executable, "-c", CHILD], input=sent, capture_output=True, check=False, timeout=300)
    assert child.returncode == 0, child.stderr.decode()
    predicted, returned = pickle.loads(child.stdout)
    assert predicted.tobytes() == network.predict(X).tobytes()
    go_on(network, optimizer)
    assert bits(returned) == bits(network)
    go_on(network, optimizer)
    go_on(returned, optimizer)
    assert bits(returned) == bits(network)


def test_history_and_optimizers_can_be_pickled():
    history = make().fit(X, Y, epochs=2, verbose=False)
    assert pickle.loads(pickle.dumps(history)) == history
    for optimizer in OPTIMIZERS.values():
        assert pickle.loads(pickle.dumps(optimizer)) == optimizer
