"""A number is lost: where that was, and what is left does not depend on who looks on or how chunks are cut."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastbp.engine.run
import fastbp.engine.wide
from fastbp import SGD, Adam, Callback, Network, training
from fastbp.engine.run import Run
from fastbp.schedules import Schedule

RNG = np.random.default_rng(0)
X = RNG.uniform(1, 2, (23, 4)).astype(np.float32)
Y = RNG.uniform(-30, 30, (23, 3)).astype(np.float32)  # gradients above 1, so that 1e308 overflows in float64 too
RULES = {
    "sgd": lambda rate: SGD(rate),
    "momentum": lambda rate: SGD(rate, 0.5),
    "nesterov": lambda rate: SGD(rate, 0.5, nesterov=True),
    "adam": lambda rate: Adam(rate),
}


class Spike(Schedule):
    """A rate that learns, but for one mini-batch."""

    def __init__(self, at, height, rate=0.01):
        self.at, self.height, self.rate = at, height, rate

    def rates(self, moments, progress):
        return np.where(moments.steps == self.at, self.height, self.rate)


def make(**options):
    return Network([4, 6, 3], hidden="tanh", output="identity", seed=3, **options)


def bits(network):
    return b"".join(array.tobytes() for array in (*network.weights, *network.biases))


def options_of(rule, schedule):
    return {"batch_size": 5, "optimizer": RULES[rule](schedule), "verbose": False}


def go_on(network, rule):
    network.partial_fit(X, Y, batch_size=5, optimizer=RULES[rule](0.01))


def lose(network, rule, schedule, epochs=6, **options):
    """Train until a number is lost; return what is said, and where that was."""
    with pytest.raises(FloatingPointError) as caught:
        network.fit(X, Y, epochs=epochs, **options_of(rule, schedule), **options)
    message = str(caught.value)
    found = re.match(r"(.*) in epoch (\d+), mini-batch (\d+) \(both counted from 0\)", message)
    assert found, message
    assert "learning rate that is too large" in message
    assert f"after {found[2]} epochs of this training" in message
    return found[1], int(found[2]), int(found[3])


WATCHERS = {
    "nobody": {},
    "callback": {"callbacks": [Callback()]},
    "validation": {"validation_data": (X[:3], Y[:3])},
    "one thread": {"n_threads": 1},
    "two": {"n_threads": 2},
}


@pytest.mark.hazard("non-finite", "a weight or the loss overflows in the first, a middle, the last mini-batch")
@pytest.mark.parametrize(("rule", "dtype"), [*((rule, "float32") for rule in RULES), ("momentum", "float64")])
@pytest.mark.parametrize("at", [0, 2, 9, 13, 29], ids=lambda at: f"epoch {at // 5}, mini-batch {at % 5}")
@pytest.mark.parametrize("limit", [None, 2], ids=["whole epochs", "chunks of 2"])
def test_a_weight_overflows(at, rule, limit, dtype, monkeypatch):
    """First, middle and last mini-batches: what is left is a network that trained for the epochs before."""
    if limit:
        monkeypatch.setattr(training, "CHUNK_MINIBATCHES", limit)
    expected = make(dtype=dtype)
    expected.fit(X, Y, epochs=at // 5, **options_of(rule, 0.01))
    left = bits(expected)
    go_on(expected, rule)
    for who, options in WATCHERS.items():
        if limit and who != "callback":
            continue
        network = make(dtype=dtype)
        assert lose(network, rule, Spike(at, 1e308), **options) == ("a weight overflowed", at // 5, at % 5), who
        assert bits(network) == left, who
        go_on(network, rule)
        assert bits(network) == bits(expected), f"{who}: the optimizer's state, or the draws"


@pytest.mark.hazard("non-finite", "a weight or the loss overflows in the first, a middle, the last mini-batch")
@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize("at", [0, 3, 4, 9, 13, 28])
def test_the_loss_is_lost(at, limit, monkeypatch):
    """Both weights become -2e38, which is a number, but the next output is their sum, which is none."""
    if limit:
        monkeypatch.setattr(training, "CHUNK_MINIBATCHES", limit)
    inputs, targets = np.ones((23, 2), np.float32), np.zeros((23, 1), np.float32)
    epoch, minibatch = divmod(at + 1, 5)

    def line():
        return Network([2, 1], output="identity", bias=False, init=[([[0.5, 0.5]], None)])

    for watch in ([], [Callback()]):
        network, expected = line(), line()
        with pytest.raises(FloatingPointError, match=rf"the loss became inf in epoch {epoch}, mini-batch {minibatch} "):
            network.fit(inputs, targets, epochs=6, callbacks=watch, **options_of("sgd", Spike(at, 2e38, 1e-9)))
        # where the mini-batch at fault is the first of an epoch, the one before it is in a complete epoch
        expected.fit(inputs, targets, epochs=epoch, **options_of("sgd", Spike(at, 2e38, 1e-9)))
        assert bits(network) == bits(expected)
        assert (network.weights[0] < -1e38).all() == (minibatch == 0)


@pytest.mark.hazard("non-finite", "a weight or the loss overflows in the first, a middle, the last mini-batch")
@pytest.mark.parametrize("value", ["inf", "nan"])
@pytest.mark.parametrize("rule", RULES)
def test_the_very_first_loss_is_lost(rule, value):
    """The weights are numbers, but the first output is none: an infinity, or the difference of two."""

    def start():
        if value == "inf":
            return Network([2, 1], output="identity", bias=False, init=[([[3e38, 3e38]], None)])
        init = [([[3e38, 3e38], [-3e38, -3e38]], None), ([[1.0, 1.0]], None)]
        return Network([2, 2, 1], hidden="identity", output="identity", bias=False, init=init)

    network, inputs, targets = start(), np.ones((23, 2), np.float32), np.zeros((23, 1), np.float32)
    with pytest.raises(FloatingPointError, match=f"the loss became {value} in epoch 0, mini-batch 0 .*learning rate"):
        network.fit(inputs, targets, epochs=6, **options_of(rule, 0.01))
    assert bits(network) == bits(start())
    assert network._optimizer.step == 0
    assert not any(np.any(w) for weights, _ in network._optimizer.slots for w in weights), "the optimizer's state"


@pytest.mark.hazard("non-finite", "a weight or the loss overflows in the first, a middle, the last mini-batch")
@pytest.mark.parametrize("epochs", [1, 6])
def test_a_weight_that_overflows_in_the_very_last_mini_batch(epochs):
    """No loss tells of it any more."""
    at = 5 * epochs - 1
    assert lose(make(), "adam", Spike(at, 1e308), epochs=epochs) == ("a weight overflowed", epochs - 1, 4)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_between_a_weight_that_overflows_and_who_would_see_it(error, monkeypatch):
    """Weights are looked at where an epoch ends, and the loss tells of none before the next mini-batch."""
    monkeypatch.setattr(training, "CHUNK_MINIBATCHES", 1)

    class Trip(Callback):
        def on_progress(self, state):
            if state.history.epochs == 2 and state.samples == 15:
                raise error

    network, expected = make(), make()
    expected.fit(X, Y, epochs=2, **options_of("momentum", 0.01))
    with pytest.raises(error):
        network.fit(X, Y, epochs=6, callbacks=[Trip()], **options_of("momentum", Spike(12, 1e308)))
    assert bits(network) == bits(expected)
    left, wanted = network._optimizer, expected._optimizer
    assert left.step == wanted.step
    for slot, slot_wanted in zip(left.slots, wanted.slots, strict=True):
        for arrays, arrays_wanted in zip(slot, slot_wanted, strict=True):
            for array, array_wanted in zip(arrays, arrays_wanted, strict=True):
                np.testing.assert_array_equal(array, array_wanted)


@pytest.mark.parametrize("ahead", [True, False])
def test_the_history_ends_with_the_last_good_epoch(ahead):
    class Look(Callback):
        def ahead(self):
            return np.inf if ahead else 1

        def on_train_end(self, state):
            self.history = state.history

    look = Look()
    lose(make(), "sgd", Spike(17, 1e308), callbacks=[look])
    expected = make().fit(X, Y, epochs=3, **options_of("sgd", 0.01))
    assert look.history.loss == expected.loss
    assert len(look.history.learning_rate) == len(look.history.seconds) == 3


def test_the_first_of_several_is_named(monkeypatch):
    """Many mini-batches, any of which may be the first: found by halves, in few calls of the engine."""
    calls = []
    minibatches = Run.minibatches

    def counted(self, order, starts, steps, **options):
        calls.append(len(steps))
        return minibatches(self, order, starts, steps)

    monkeypatch.setattr(Run, "minibatches", counted)
    n = 500
    inputs, targets = np.repeat(X[:1], n, axis=0), np.repeat(Y[:1], n, axis=0)
    for at in (0, 1, 249, 250, 498, 499):
        network = make()
        calls.clear()
        with pytest.raises(FloatingPointError, match=f"a weight overflowed in epoch 0, mini-batch {at} "):
            network.fit(inputs, targets, batch_size=1, optimizer=SGD(Spike(at, 1e308)), shuffle=False, verbose=False)
        assert bits(network) == bits(make())
        assert len(calls) <= 1 + 10
        assert sum(calls) <= 3 * n


def test_an_interrupt_while_the_place_is_searched(monkeypatch):
    """The second call of the engine, the first of the search, is interrupted: finite weights are left."""
    minibatches = Run.minibatches
    calls = []

    def interrupted(self, order, starts, steps, **options):
        calls.append(len(steps))
        report = minibatches(self, order, starts, steps)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return report

    network = make()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "minibatches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            network.fit(X, Y, epochs=6, **options_of("sgd", Spike(13, 1e308)))
    assert bits(network) == bits(make())


# Interrupts between a mini-batch and its count


@pytest.mark.parametrize("rule", RULES)
def test_no_interrupt_comes_between_mini_batches_and_their_count(rule, monkeypatch):
    """It comes when all is computed and the team has returned, but the caller was not told."""
    run_team = fastbp.engine.run.run_team

    def interrupted(task, n_workers, **options):
        run_team(task, n_workers, **options)
        raise KeyboardInterrupt

    network, expected = make(), make()
    with monkeypatch.context() as patch:
        patch.setattr(fastbp.engine.run, "WORK_IN_CALLER", 0)
        patch.setattr(fastbp.engine.run, "run_team", interrupted)
        with pytest.raises(KeyboardInterrupt):
            network.fit(X, Y, epochs=3, **options_of(rule, 0.01))
    expected.fit(X, Y, epochs=3, **options_of(rule, 0.01))
    for _ in range(2):
        assert bits(network) == bits(expected)
        go_on(network, rule)
        go_on(expected, rule)


@pytest.mark.parametrize("who", ["workers", "the caller", "the caller after threads were refused"])
def test_the_kernel_counts(who, monkeypatch):
    """Also where an interrupt comes out of the kernel's call in the caller."""
    train_kernel = fastbp.engine.wide.train

    def interrupted(*arguments):
        train_kernel(*arguments)
        if len(arguments[5]):  # mini-batches
            raise KeyboardInterrupt

    network = make()
    monkeypatch.setattr(fastbp.engine.wide, "train", interrupted)
    run = Run(network.architecture, network.weights, network.biases, X, Y, batch_size=5, update="adam", steps=40)
    with monkeypatch.context() as patch:
        if who != "the caller":
            patch.setattr(fastbp.engine.run, "WORK_IN_CALLER", 0)
        if "refused" in who:

            def refuse(self):
                raise RuntimeError("can't start new thread")

            patch.setattr("threading.Thread.start", refuse)
        with pytest.raises(KeyboardInterrupt):
            run.minibatches(np.arange(23), np.array([0, 5, 10, 15]), Adam().steps(40, np.full(3, 0.01)))
    assert run.steps == 43
    run.steps = 7
    assert run.steps == 7


def test_the_history_after_an_interrupt_has_the_complete_epochs(monkeypatch):
    """The team is stopped after 13 of 30 mini-batches: two epochs and three mini-batches."""
    minibatches = Run.minibatches

    def interrupted(self, order, starts, steps, **options):
        minibatches(self, order, starts[:14], steps[:13])
        raise KeyboardInterrupt

    class Look(Callback):
        def ahead(self):
            return np.inf

        def on_train_end(self, state):
            self.history = state.history

    look, network = Look(), make()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "minibatches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            network.fit(X, Y, epochs=6, callbacks=[look], **options_of("sgd", 0.01))
    assert look.history.loss == make().fit(X, Y, epochs=2, **options_of("sgd", 0.01)).loss
    assert network._optimizer.step == 13
