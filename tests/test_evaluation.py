"""Evaluation: a few samples by the short way, and many by a team, give what samples sent by the long way give."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest

from fastbp import Network
from fastbp.engine import evaluation
from fastbp.engine.evaluation import Evaluator, evaluator_of
from fastbp.engine.memory import aligned_zeros
from fastbp.kernels.threads import TEAM_WORDS

DTYPES = ["float32", "float64"]
SIZES = [(4, 24, 24, 2), (1, 1), (3, 17, 5), (784, 30, 10), (50, 33, 70, 1), (5000, 2)]


def make(sizes=(4, 24, 24, 2), dtype="float32"):
    return Network(list(sizes), hidden="tanh", output="softmax" if sizes[-1] > 1 else "sigmoid", dtype=dtype, seed=0)


def drawn(n, n_in, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal((n, n_in)).astype(dtype)


def long_way(network, X):
    """The outputs by `activations`, which does not know few samples from many."""
    return network.activations(X)[-1]


def what_becomes_of(call):
    try:
        return repr(call())
    except (ValueError, TypeError) as error:
        return repr(error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_few_samples_have_the_bits_of_many(sizes, dtype):
    network = make(sizes, dtype)
    few = network._evaluator.few
    many = drawn(max(few, 1) + 3, sizes[0], dtype)
    wanted = long_way(network, many)
    for n in {1, 2, few - 1, few, few + 1, few + 3}:
        if n > 0:
            assert network.predict(many[:n]).tobytes() == wanted[:n].tobytes(), n
            assert network.predict(many[-n:], n_threads=2).tobytes() == wanted[-n:].tobytes(), n


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "lay",
    [
        np.asfortranarray,
        lambda X: np.repeat(X, 2, axis=0)[::2],
        lambda X: np.repeat(X, 3, axis=1)[:, ::3],
        lambda X: X[::-1][::-1],
        lambda X: np.broadcast_to(X, X.shape),
        lambda X: np.frombuffer(b"_" + X.tobytes(), np.uint8)[1:].view(X.dtype).reshape(X.shape),
        lambda X: X.astype(X.dtype.newbyteorder()),
        lambda X: X.view(np.matrix),
        lambda X: np.ma.array(X),
        lambda X: X.astype(np.float16).astype(X.dtype).astype(np.float16),
        lambda X: np.round(X).astype(np.int8),
        lambda X: X.tolist(),
    ],
    ids="columns rows-apart entries-apart turned read-only unaligned swapped matrix masked half int8 list".split(),
)
def test_however_they_lie(lay, dtype):
    network = make(dtype=dtype)
    X = lay(drawn(3, 4, dtype))
    plain = np.array(X, dtype=np.float64 if isinstance(X, list) else np.asarray(X).dtype.newbyteorder("="))
    assert network.predict(X).tobytes() == long_way(network, plain).tobytes()


def test_float64_samples_are_rounded_to_the_network():
    network, X = make(), drawn(3, 4, "float64")
    assert network.predict(X).tobytes() == long_way(network, X.astype(np.float32)).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "X",
    [
        np.zeros((0, 4)),
        np.zeros(4),
        np.zeros((1, 3)),
        np.zeros((1, 1)),
        np.zeros((1, 1, 4)),
        np.array([[0, 1, np.nan, 2]]),
        np.array([[0, 1, 2, 3], [0, 1, 2, -np.inf]]),
        np.array([[0, 1, 2, 1e300]]) * 1e8,
        np.array([[0, 1, 2, 1e300]]),
        np.zeros((1, 4), complex),
        np.zeros((1, 4), object),
        np.array(1.0),
    ],
    ids=lambda X: f"{X.dtype}{X.shape}",
)
def test_what_is_refused_is_refused_alike(X, dtype):
    network = make(dtype=dtype)
    X = X.astype(dtype) if X.dtype == np.float64 and np.abs(X).max(initial=0) < 1e100 else X
    before = X.tobytes()
    assert what_becomes_of(lambda: network.predict(X)) == what_becomes_of(lambda: long_way(network, X))
    assert X.tobytes() == before
    after = drawn(1, 4, dtype)
    assert network.predict(after).tobytes() == long_way(network, after).tobytes()


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, True, "2"])
def test_threads_are_checked_for_few_samples_too(n_threads):
    with pytest.raises((ValueError, TypeError), match="n_threads is"):
        make().predict(np.zeros((1, 4), np.float32), n_threads=n_threads)


def test_outputs_that_are_not_finite_are_returned_where_the_samples_are():
    network = Network([1, 1], output="identity", init=[([[3e38]], [0.0])])
    assert network.predict(np.array([[3e38]], np.float32)).tolist() == [[np.inf]]


def test_what_is_returned_belongs_to_the_caller():
    network, X = make(), drawn(2, 4)
    first = network.predict(X[:1])
    kept = first.copy()
    second = network.predict(X[1:])
    assert first.tobytes() == kept.tobytes() != second.tobytes()
    assert first.flags.owndata
    assert first.flags.writeable
    first[:] = 7
    assert network.predict(X[:1]).tobytes() == kept.tobytes()


def test_published_weights_count_at_once():
    network, X = make(), drawn(1, 4)
    network.predict(X)
    network.weights = [w * 2 for w in network.weights]
    assert network.predict(X).tobytes() == long_way(copy.deepcopy(network), X).tobytes()


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_share_no_buffers(twin):
    network, X = make(), drawn(1, 4)
    wanted = network.predict(X)
    other = twin(network)
    assert other._evaluator is not network._evaluator
    assert other.predict(X).tobytes() == wanted.tobytes()


def test_many_threads_share_a_network():
    """Each keeps asking about its own sample; buffers that two had at once would mix their answers."""
    network, n = make((4, 200, 200, 2)), 6
    X = drawn(n, 4)
    wanted = [long_way(network, X[i : i + 1]).tobytes() for i in range(n)]
    wrong, meeting = [], threading.Barrier(n)

    def ask(i):
        meeting.wait(60)
        wrong.extend(i for _ in range(2000) if network.predict(X[i : i + 1]).tobytes() != wanted[i])

    threads = [threading.Thread(target=ask, args=[i]) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(network._evaluator._idle) <= evaluation._KEPT


def test_no_more_buffers_are_kept_than_said():
    evaluator = Evaluator(make().architecture)
    for buffers in [evaluator._take() for _ in range(evaluation._KEPT + 5)]:
        evaluator._give_back(buffers)
    assert len(evaluator._idle) == evaluation._KEPT


def test_buffers_kept_are_small():
    for sizes in [*SIZES, (10, 5000, 5000, 10), (4000, 3000, 10)]:
        network = make(sizes)
        buffers = network._evaluator._take()
        arrays = [array for array in buffers._kept_alive if isinstance(array, np.ndarray)]
        row = 8 * sum(n + 16 for n in sizes)  # bytes of a sample's numbers, where a single one is too much to be few
        assert sum(array.nbytes for array in [*arrays, buffers.inputs, buffers.outputs]) <= 250_000 + 3 * row, sizes


@pytest.mark.parametrize("n_threads", [1, 2])
def test_buffers_for_many_are_kept_and_leave_no_trace(n_threads):
    """Whatever was computed in them before, a NaN too: the bits are those of new buffers."""
    architecture = make((20, 50, 3), "float64").architecture
    used, (weights, biases) = (
        Evaluator(architecture),
        ([np.ones((50, 20)), np.ones((3, 50))], [np.ones(50), np.ones(3)]),
    )
    packed = used.layout.pack(weights, biases)

    def outputs(evaluator, X):
        result = np.empty((len(X), 3))
        evaluator.evaluate(packed, X, wanted={1: result}, n_threads=n_threads)
        report = evaluator.evaluate(packed, X, np.arange(len(X)) % 3, classify=True, n_threads=n_threads)
        return result.tobytes() + report.tobytes()

    for n in 1000, 700, 900, 5000, 200:
        X = drawn(n, 20, "float64")
        assert n > used.few
        outputs(used, np.full((800, 20), np.nan))
        assert outputs(used, X) == outputs(Evaluator(architecture), X)
        assert len(used._idle_of_many) == n_threads
    taken = [used._take_of_many() for _ in range(9)]
    for buffers in taken:
        used._give_back(buffers)
    assert used._idle_of_many == taken[:8]
    arrays = [array for array in taken[0]._kept_alive if isinstance(array, np.ndarray)]
    assert sum(array.nbytes for array in arrays) <= 200_000


def test_buffers_of_wide_layers_are_not_kept():
    network = make((10, 5000, 5000, 10))
    network.predict(drawn(100, 10, "float32"), n_threads=1)
    assert not network._evaluator._idle_of_many


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("is_long", "by_caller"), [(True, False), (False, False), (False, True)])
def test_workers_that_come_late_find_their_work_done(monkeypatch, dtype, is_long, by_caller):
    """Whichever workers there are share all pieces: also where a single one of three ever gets a core."""
    network, X = make((20, 50, 3), dtype), drawn(2000, 20, dtype)
    y = np.arange(2000) % 3
    wanted, loss = long_way(network, X), network.loss(X, y)
    teams = []

    def one_of_them(task, n_workers, meanwhile=None, together=False):
        teams.append(n_workers if meanwhile is None else n_workers + 1)
        words = aligned_zeros(TEAM_WORDS, np.int64)
        if meanwhile is not None and by_caller:
            meanwhile()
            return 0, None
        return task(words, n_workers - 1, n_workers), None

    monkeypatch.setattr(evaluation, "run_team", one_of_them)
    monkeypatch.setattr(evaluation, "WORK_PER_INTERRUPT", 1 if is_long else 10**9)
    monkeypatch.setattr("fastbp.engine.cores.available_cores", lambda: 3)
    assert network.predict(X, n_threads=3).tobytes() == wanted.tobytes()
    assert network.loss(X, y, n_threads=3) == loss
    assert teams == [3, 3]


def test_who_keeps_no_evaluator_has_one_of_the_last_few():
    one, other = make().architecture, make().architecture
    assert evaluator_of(one) is evaluator_of(other)
    assert evaluator_of.cache_info().maxsize <= 8
