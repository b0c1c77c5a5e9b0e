"""Unfinished fits: what a callback raises, and Ctrl-C, leave the weights that were reached."""

from __future__ import annotations

import _thread
import signal
import threading

import numpy as np
import pytest
from networks import X, Y, bits, fit, make
from teams import team_threads

import fastbp
import fastbp.fitting
from fastbp import SGD, Adam, Callback
from fastbp.engine.run import Run


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
        assert not team_threads()
        other.fit(many, labels, epochs=runs[-1].steps, **options)
        assert bits(network) == bits(other)
        for each in (network, other):
            each.partial_fit(many, labels, **options)
        assert bits(network) == bits(other), "the velocity too is that of the last complete mini-batch"
