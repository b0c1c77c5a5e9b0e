"""Schedules: the rates they give, in fit and in partial_fit that goes on, and that tiny sets still run in one chunk."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import threading

import numpy as np
import pytest

import fastbp
from fastbp import SGD, Adam, Callback, Network
from fastbp.engine.run import Run
from fastbp.history import History
from fastbp.reference import epochs as reference
from fastbp.schedules import Constant, DivideOnPlateau, Exponential, InverseScaling, Moments, Progress, Schedule

RNG = np.random.default_rng(0)
X = RNG.random((23, 4), np.float32)
Y = np.arange(23) % 3

SCHEDULES = {
    "constant": Constant(0.2),
    "inverse by epoch": InverseScaling(0.2),
    "inverse by step": InverseScaling(0.2, 0.3, per="step"),
    "inverse by sample": InverseScaling(0.2, 0.1, per="sample"),
    "exponential": Exponential(0.2, 0.9),
    "plateau": DivideOnPlateau(0.2, 3.0, patience=2, min_delta=0.3),
    "plateau of accuracy": DivideOnPlateau(0.2, 3.0, patience=2, min_delta=0.5, monitor="accuracy"),
    "plateau of validation": DivideOnPlateau(0.2, 3.0, patience=1, min_delta=0.1, monitor="validation_loss"),
}
TWINS = {
    "constant": lambda steps, epochs, samples, losses: 0.2,
    "inverse by epoch": reference.inverse_scaling(0.2, 0.5, "epoch"),
    "inverse by step": reference.inverse_scaling(0.2, 0.3, "step"),
    "inverse by sample": reference.inverse_scaling(0.2, 0.1, "sample"),
    "exponential": reference.exponential(0.2, 0.9),
    "plateau": reference.divide_on_plateau(0.2, 3.0, 2, 0.3, 1e-6),
}
RULES = {
    "sgd": lambda rate: SGD(rate),
    "momentum": lambda rate: SGD(rate, 0.9),
    "nesterov": lambda rate: SGD(rate, 0.9, nesterov=True),
    "adam": lambda rate: Adam(rate),
}


def make(**options):
    return Network([4, 5, 3], output="softmax", seed=3, **options)


def bits(network):
    return b"".join(array.tobytes() for array in (*network.weights, *network.biases))


@pytest.fixture
def chunks(monkeypatch):
    """Return a list that receives how many mini-batches each call of the engine has."""
    seen = []
    minibatches = Run.minibatches

    def counted(self, order, starts, steps, **options):
        seen.append(len(steps))
        return minibatches(self, order, starts, steps)

    monkeypatch.setattr(Run, "minibatches", counted)
    return seen


@pytest.mark.parametrize("name", TWINS)
def test_rates_are_those_of_the_reference(name):
    """As the reference computes them from the same losses, to two roundings."""
    history = make().fit(X, Y, epochs=12, batch_size=5, optimizer=SGD(SCHEDULES[name]), verbose=False)
    expected = [TWINS[name](5 * e, e, 23 * e, history.loss[:e]) for e in range(12)]
    np.testing.assert_allclose(history.learning_rate, expected, rtol=4 * np.finfo(float).eps)
    assert name == "constant" or len(set(expected)) > 2


@pytest.mark.parametrize("name", ["inverse by step", "exponential", "plateau"])
def test_training_is_that_of_the_reference(name):
    """A linear problem whose steps contract errors, so that each of n steps adds a dozen roundings of numbers to 4."""
    inputs, targets = np.array([[-1.0], [0.5], [2.0]]), np.array([[-3.0], [0.25], [2.5]])
    start = [np.array([[0.5]])], [np.array([-0.25])]
    network = Network([1, 1], output="identity", init=[(start[0][0], start[1][0])], dtype="float64")
    epochs = 15
    history = network.fit(
        inputs, targets, epochs=epochs, batch_size=2, optimizer=SGD(SCHEDULES[name]), shuffle=False, verbose=False
    )
    fitted = reference.fit(
        *start, ("identity",), "quadratic", inputs, targets, orders=epochs * [range(3)], batch_size=2, rate=TWINS[name]
    )
    bound = 2 * epochs * 12 * 4 * np.finfo(float).eps
    assert abs(network.weights[0] - fitted.weights[0]).max() <= bound
    assert abs(network.biases[0] - fitted.biases[0]).max() <= bound
    np.testing.assert_allclose(history.loss, fitted.losses, rtol=0, atol=16 * bound)
    assert abs(fitted.weights[0] - 0.5).max() > 0.1, "it moved"


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("shuffle", [False, True])
def test_partial_fit_goes_on_exactly(rule, schedule, shuffle):
    """k calls have the bits of a fit over k epochs, and its history."""
    whole, parts = make(), make()
    options = {"batch_size": 5, "optimizer": rule(schedule), "shuffle": shuffle, "validation_data": (X[:7], Y[:7])}
    if schedule.needs != "validation_loss" and not shuffle:
        del options["validation_data"]
    history = whole.fit(X, Y, epochs=9, verbose=False, **options)
    told = [parts.partial_fit(X, Y, **options) for _ in range(9)]
    assert bits(whole) == bits(parts)
    assert history.learning_rate == [each.learning_rate[0] for each in told]
    assert history.loss == [each.loss[0] for each in told]
    if schedule is not SCHEDULES["constant"]:
        assert len(set(history.learning_rate)) > 1
    for network in (whole, parts):
        network.partial_fit(X, Y, **options)
    assert bits(whole) == bits(parts)


def test_a_copy_goes_on_with_the_schedule():
    network = make()
    options = {"batch_size": 5, "optimizer": Adam(SCHEDULES["plateau"])}
    for _ in range(5):
        network.partial_fit(X, Y, **options)
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        expected = copy.deepcopy(network)
        assert again.partial_fit(X, Y, **options).learning_rate == expected.partial_fit(X, Y, **options).learning_rate
        assert again.partial_fit(X, Y, **options).learning_rate == expected.partial_fit(X, Y, **options).learning_rate


def test_fit_starts_the_schedule_anew_and_keeps_the_weights():
    network = make()
    optimizer = SGD(InverseScaling(0.5))
    first = network.fit(X, Y, epochs=4, optimizer=optimizer, verbose=False)
    second = network.fit(X, Y, epochs=4, optimizer=optimizer, verbose=False)
    assert first.learning_rate == second.learning_rate == [0.5 / (1 + e) ** 0.5 for e in range(4)]
    assert second.loss[0] < first.loss[0]


def test_another_schedule_is_told_the_epochs_before():
    network = make()
    network.fit(X, Y, epochs=3, optimizer=SGD(0.5), verbose=False)
    assert network.partial_fit(X, Y, optimizer=SGD(Exponential(1.0, 0.5))).learning_rate == [0.125]
    assert network.partial_fit(X[:5], Y[:5], optimizer=SGD(Exponential(1.0, 0.5))).learning_rate == [0.0625]
    by_sample = SGD(InverseScaling(1.0, 1.0, per="sample"))
    assert network.partial_fit(X, Y, optimizer=by_sample).learning_rate == [1 / (1 + 4 * 23 + 5)]
    network.weights = network.weights
    assert network.partial_fit(X, Y, optimizer=SGD(Exponential(1.0, 0.5))).learning_rate == [1.0]


@pytest.mark.parametrize("name", ["constant", "inverse by step", "inverse by sample", "exponential"])
def test_what_depends_on_step_and_epoch_alone_needs_no_look(name, chunks):
    make().fit(X, Y, epochs=40, batch_size=5, optimizer=SGD(SCHEDULES[name]), verbose=False)
    assert chunks == [200]


def test_a_plateau_needs_a_look_only_where_it_may_end(chunks):
    schedule = DivideOnPlateau(0.1, patience=8, min_delta=100.0)
    history = make().fit(X, Y, epochs=30, batch_size=23, optimizer=SGD(schedule), verbose=False)
    # the first epoch improves infinity
    assert [round(0.1 / rate) for rate in history.learning_rate] == 9 * [1] + 8 * [5] + 8 * [25] + 5 * [125]
    assert chunks == [8, 1, 8, 8, 5]


def test_looking_on_changes_nothing(chunks):
    for schedule in SCHEDULES.values():
        if schedule.needs == "validation_loss":
            continue
        one, other = make(), make()
        options = {"epochs": 9, "batch_size": 5, "optimizer": SGD(schedule), "verbose": False}
        history = one.fit(X, Y, **options)
        assert other.fit(X, Y, callbacks=[Callback()], **options).learning_rate == history.learning_rate
        assert bits(one) == bits(other)


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_do_not_depend_on_where_they_are_cut(name):
    steps = np.arange(1000)
    moments = Moments(steps, steps // 7, 20 * (steps // 7))
    progress = Progress(3, 60, divisions=2)
    whole = SCHEDULES[name].rates(moments, progress)
    assert whole.dtype == np.float64
    for begin, end in [(0, 1), (1, 8), (500, 1000), (999, 1000), (3, 3)]:
        part = Moments(*(array[begin:end] for array in moments))
        np.testing.assert_array_equal(SCHEDULES[name].rates(part, progress), whole[begin:end])


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_immutable_equal_hashable_and_pickled(schedule):
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.rate = 1.0
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert dataclasses.replace(schedule, rate=0.1) != schedule
    assert SGD(schedule) == SGD(again)
    assert SGD(schedule).schedule is schedule


def test_a_plateau_never_goes_below_the_least():
    progress = Progress(divisions=10_000)
    moments = Moments(*np.zeros((3, 2), np.int64))
    assert DivideOnPlateau(0.1, least=0.01).rates(moments, progress).tolist() == [0.01, 0.01]
    assert DivideOnPlateau(0.001, least=0.01).rates(moments, progress).tolist() == [0.001, 0.001]
    assert DivideOnPlateau(0.1, least=0.0).rates(moments, progress).tolist() == [0.0, 0.0]


def test_nan_is_no_improvement():
    schedule = DivideOnPlateau(0.1, patience=3)
    progress = schedule.after(Progress(), History(loss=[math.nan]), 0, 5)
    assert (progress.epochs, progress.samples, progress.stall.epochs) == (1, 5, 1)


OUTSIDE = [
    (lambda: Constant(0), ValueError, "rate is 0, but must be greater than 0"),
    (lambda: Constant("0.1"), TypeError, "rate is '0.1', but must be a number"),
    (lambda: InverseScaling(0.1, -1), ValueError, "power is -1"),
    (lambda: InverseScaling(0.1, per="batch"), ValueError, "per is 'batch', but must be one of 'epoch', 'step'"),
    (lambda: Exponential(0.1, 1.0), ValueError, r"decay is 1\.0"),
    (lambda: DivideOnPlateau(0.1, 1.0), ValueError, r"divisor is 1\.0"),
    (lambda: DivideOnPlateau(0.1, patience=0), ValueError, "patience is 0"),
    (lambda: DivideOnPlateau(0.1, min_delta=-1), ValueError, "min_delta is -1"),
    (lambda: DivideOnPlateau(0.1, least=math.nan), ValueError, "least is nan"),
    (lambda: DivideOnPlateau(0.1, monitor="val_loss"), ValueError, "monitor is 'val_loss', but must be one of 'loss'"),
    (lambda: SGD(Constant), TypeError, "learning_rate is <class.*must be a number or an instance of a schedule"),
    (lambda: Adam(lambda t: 0.1), TypeError, "learning_rate is <function.*must be a number"),
]


@pytest.mark.parametrize(("make_it", "error", "message"), OUTSIDE)
def test_outside_the_domain(make_it, error, message):
    with pytest.raises(error, match=message):
        make_it()


@pytest.mark.parametrize("figure", ["accuracy", "validation_loss", "validation_accuracy"])
def test_a_figure_that_is_not_recorded_is_refused_at_the_door(figure):
    network = Network([4, 1], output="identity", seed=0)
    network.partial_fit(X, X[:, 0])
    before = pickle.dumps(network)
    with pytest.raises(ValueError, match=f"DivideOnPlateau watches '{figure}', but this training records only loss: "):
        network.fit(X, X[:, 0], optimizer=SGD(DivideOnPlateau(0.1, monitor=figure)))
    assert pickle.dumps(network) == before


class Own(Schedule):
    def __init__(self, answer):
        self.answer = answer

    def rates(self, moments, progress):
        return self.answer(moments)


@pytest.mark.parametrize(
    "answer",
    [lambda m: 0.1, lambda m: np.full(len(m.steps) + 1, 0.1), lambda m: -m.steps, lambda m: m.steps * np.nan],
    ids=["scalar", "too many", "negative", "NaN"],
)
def test_rates_of_ones_own_are_checked(answer):
    network = make()
    before = bits(network)
    with pytest.raises(ValueError, match=r"gave learning rates with .*, but must give one for each of 15 mini-batches"):
        network.fit(X, Y, epochs=3, batch_size=5, optimizer=SGD(Own(answer)), verbose=False)
    assert bits(network) == before


def test_a_schedule_of_ones_own_without_rates():
    class WithoutRates(Schedule):
        pass

    with pytest.raises(TypeError, match=r"abstract.*rates"):
        WithoutRates()


def test_the_module_is_public():
    assert fastbp.schedules.Exponential is Exponential


def test_what_a_schedule_raises_in_another_thread_arrives(monkeypatch):
    """The chunk to come is made ready beside the one at hand: the weights are those that this one leaves."""
    monkeypatch.setattr(fastbp.engine.run, "get_num_threads", lambda: 2)
    monkeypatch.setattr(fastbp.engine.run, "share_of", lambda n: n)
    monkeypatch.setattr(fastbp.training, "CHUNK_MINIBATCHES", 30)
    networks, asked_by_main = (make(), make()), []
    work = fastbp.engine.run.work_of(networks[0].architecture, X, 10)  # of a mini-batch: a chunk is too much at once
    monkeypatch.setattr(fastbp.engine.run, "WORK_IN_CALLER", work)

    class Failing(Schedule):
        def rates(self, moments, progress):
            asked_by_main.append(threading.current_thread() is threading.main_thread())
            if moments.steps[-1] > 100:
                raise LookupError("mine")
            return np.full(len(moments.steps), 0.01)

    for network, n_threads in zip(networks, (None, 1), strict=True):
        asked_by_main.clear()
        with pytest.raises(LookupError, match="mine"):
            network.fit(X, Y, epochs=50, batch_size=10, optimizer=Adam(Failing()), verbose=False, n_threads=n_threads)
        assert all(asked_by_main) == (n_threads == 1)
        assert network._optimizer.step == 99
        network.fit(X, Y, batch_size=10, verbose=False)
    assert bits(networks[0]) == bits(networks[1])
