"""Seeds: they decide every bit; threads, chunks and those who look on do not."""

from __future__ import annotations

import numpy as np
import pytest
from networks import DTYPES, Calling, X, Y, bits, fit, make

import fastbp
import fastbp.fitting
from fastbp import Adam, Callback
from fastbp.engine.run import Run
from fastbp.schedules import InverseScaling


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


@pytest.mark.parametrize("in_caller", [False, True])
@pytest.mark.parametrize("epochs", [1, 2, 5, 6, 7, 12, 30])
def test_orders_drawn_ahead_are_those_drawn_one_by_one(monkeypatch, epochs, in_caller):
    """Where a core is left, one draws while another computes: neither more orders nor others, however often."""
    ahead = []
    prepare = fastbp.training._Loop.prepare

    def counting(self):
        prepare(self)
        ahead.append(self.following.epochs.n)

    monkeypatch.setattr(fastbp.training._Loop, "prepare", counting)
    networks = make(), make()
    work = fastbp.engine.run.work_of(networks[0].architecture, X, 10)  # of a mini-batch: of all it is too much at once
    monkeypatch.setattr(fastbp.engine.run, "WORK_IN_CALLER", work if in_caller else 0)
    monkeypatch.setattr(fastbp.engine.run, "get_num_threads", lambda: 2)
    monkeypatch.setattr(fastbp.engine.run, "share_of", lambda n: n)
    monkeypatch.setattr(fastbp.training, "CHUNK_MINIBATCHES", 30)  # five epochs, at first one
    threads = []
    start_new_thread = fastbp.engine.team.start_new_thread
    monkeypatch.setattr(
        fastbp.engine.team, "start_new_thread", lambda *args: threads.append(args) or start_new_thread(*args)
    )
    for network, n_threads in zip(networks, (None, 1), strict=True):
        for part in (epochs, 2):
            optimizer = Adam(InverseScaling(0.01, per="step"))  # the rates are told ahead, too
            network.fit(X, Y, epochs=part, batch_size=10, optimizer=optimizer, verbose=False, n_threads=n_threads)
            assert sum(ahead) == (part - 1 if n_threads is None else 0), "only beside one thread not asked for"
            later_chunks = -(-(part - 1) // 5)
            drawing = later_chunks if n_threads is None else 0
            assert len(threads) == (drawing if in_caller else 1 + later_chunks), "for one of the two"
            ahead.clear()
            threads.clear()
    for one, two in zip(networks[0].weights, networks[1].weights, strict=True):
        assert one.tobytes() == two.tobytes()
    assert networks[0]._rng.bit_generator.state == networks[1]._rng.bit_generator.state


def test_the_order_of_samples_is_drawn_anew_for_each_epoch():
    orders, ends = [], []
    run_minibatches = Run.minibatches

    class Recording(Run):
        def minibatches(self, order, starts, steps, **options):
            orders.append(order)
            ends.append(starts[-1])
            return run_minibatches(self, order, starts, steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastbp.fitting, "Run", Recording)
        fit(make(), 3)
        shuffled = np.concatenate(orders).reshape(3, 53)
        orders.clear()
        ends.clear()
        fit(make(), 3, shuffle=False)
    np.testing.assert_array_equal(np.sort(shuffled), np.tile(np.arange(53), (3, 1)))
    assert len({order.tobytes() for order in shuffled}) == 3
    assert ends == [3 * 53], "which go through one order three times"
    np.testing.assert_array_equal(orders, [np.arange(53)])


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


@pytest.mark.parametrize("weight", [None, np.arange(53.0)], ids=["", "weighted"])
@pytest.mark.parametrize("shuffle", [True, False], ids=["shuffled", "kept"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 14, 100])
def test_chunks_do_not_change_a_bit(monkeypatch, limit, shuffle, weight):
    one, other = make(), make()
    options = {"shuffle": shuffle, "sample_weight": weight}
    expected = fit(one, 4, **options)
    monkeypatch.setattr(fastbp.training, "CHUNK_MINIBATCHES", limit)
    history = fit(other, 4, **options)
    assert bits(one) == bits(other)
    assert (history.loss, history.accuracy) == (expected.loss, expected.accuracy)
    assert len(history.seconds) == 4
