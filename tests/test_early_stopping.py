"""Early stopping, the weights that are kept, validation by a fraction, and the plan's judge behind them."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from scipy import sparse

from fastbp import SGD, Adam, Callback, EarlyStopping, History, Network, TrainingState
from fastbp.engine.run import Run
from fastbp.kernels.layers import ETA, STEP_COLUMNS
from fastbp.reference import epochs as reference
from fastbp.training import Plan, train

RNG = np.random.default_rng(0)
X = RNG.random((40, 4), np.float32)
Y = RNG.integers(0, 3, 40)  # noise: the validation's loss soon rises
DATA = {"validation_data": (X[30:], Y[30:])}


def make(**options):
    return Network([4, 12, 3], hidden="tanh", output="softmax", seed=3, **options)


def fit(network, epochs, callbacks=(), **options):
    options = {"batch_size": 5, "optimizer": Adam(0.05), "verbose": False, **DATA, **options}
    return network.fit(X[:30], Y[:30], epochs=epochs, callbacks=callbacks, **options)


def go_on(network):
    network.partial_fit(X[:30], Y[:30], batch_size=5, optimizer=Adam(0.05))


def bits(network):
    return b"".join(array.tobytes() for array in (*network.weights, *network.biases))


MONITORS = ["loss", "accuracy", "validation_loss", "validation_accuracy"]


@pytest.mark.parametrize("min_delta", [0.0, 0.02])
@pytest.mark.parametrize("patience", [1, 4])
@pytest.mark.parametrize("monitor", MONITORS)
def test_it_stops_where_the_reference_says_so_with_the_best_weights(monitor, patience, min_delta):
    network, other = make(), make()
    stopping = EarlyStopping(monitor, patience=patience, min_delta=min_delta)
    history = fit(network, 300, [stopping])
    values = getattr(history, monitor)
    less = [-value for value in values] if "accuracy" in monitor else values
    assert [reference.stops(less[:n], patience, min_delta) for n in range(1, len(less) + 1)] == [
        *[False] * (history.epochs - 1),
        stopping.stopped,
    ]
    assert stopping.stopped == (history.epochs < 300)
    assert stopping.best_epoch == int(np.argmin(less))
    assert stopping.best == values[stopping.best_epoch]
    fit(other, stopping.best_epoch + 1)
    assert bits(network) == bits(other)


def test_after_the_best_weights_were_restored_training_goes_on_from_there():
    """Optimizer's state and steps are those of the best epoch; only the draws have gone on."""
    network, other = make(), make()
    stopping = EarlyStopping(patience=4)
    history = fit(network, 300, [stopping])
    assert stopping.best_epoch + 1 < history.epochs < 300
    fit(other, stopping.best_epoch + 1)
    other._rng.bit_generator.state = network._rng.bit_generator.state
    for each in (network, other):
        go_on(each)
    assert bits(network) == bits(other)


def test_the_best_weights_are_restored_also_where_epochs_run_out():
    network, other = make(), make()
    stopping = EarlyStopping(patience=1000)
    history = fit(network, 60, [stopping])
    assert not stopping.stopped
    assert history.epochs == 60 > stopping.best_epoch + 1
    assert network.loss(X[30:], Y[30:]) == pytest.approx(min(history.validation_loss), rel=1e-6)
    fit(other, stopping.best_epoch + 1)
    assert bits(network) == bits(other)


def test_without_best_weights_it_leaves_the_last():
    network, other = make(), make()
    history = fit(network, 300, [EarlyStopping(patience=3, restore_best=False)])
    fit(other, history.epochs)
    assert bits(network) == bits(other)


@pytest.mark.parametrize("error", [KeyboardInterrupt, LookupError])
def test_the_best_weights_are_restored_after_errors(error):
    class Late(Callback):
        def on_epoch_end(self, state):
            if state.history.epochs == 50:
                raise error

    network, other = make(), make()
    stopping = EarlyStopping(patience=100)
    with pytest.raises(error):
        fit(network, 300, [stopping, Late()])
    assert stopping.best_epoch < 49
    fit(other, stopping.best_epoch + 1)
    assert bits(network) == bits(other)


def test_the_best_weights_are_seen_at_the_end():
    seen = []

    class Look(Callback):
        def on_train_end(self, state):
            seen.append(bits(state.network))

    network = make()
    fit(network, 300, [EarlyStopping(patience=4), Look()])
    assert seen == [bits(network)]


def test_figures_that_are_not_finite_are_never_the_best():
    stopping = EarlyStopping("loss", patience=3)
    state = TrainingState(None, History(), 9, 1)
    kept = []
    state._keep = lambda: kept.append(state.history.epochs)
    for loss in [math.nan, math.inf, 2.0, math.nan, 1.0, math.inf, math.nan]:
        assert not state.stop
        state.history.loss.append(loss)
        stopping.on_epoch_end(state)
    state.history.loss.append(1.5)
    stopping.on_epoch_end(state)
    assert state.stop
    assert kept == [3, 5]
    assert (stopping.best, stopping.best_epoch) == (1.0, 4)


def test_one_serves_several_trainings():
    stopping = EarlyStopping(patience=4)
    first = fit(make(), 300, [stopping])
    assert fit(make(), 300, [stopping]).epochs == first.epochs
    fit(make(), 2, [stopping])
    assert not stopping.stopped


def test_stopping_by_tolerance_computes_ahead(monkeypatch):
    """Only where the training may end somebody looks, as long as no weights are kept: the history is the same."""
    calls = []
    minibatches = Run.minibatches

    def counted(self, order, starts, steps, **options):
        calls.append(len(steps) // 6)
        return minibatches(self, order, starts, steps)

    monkeypatch.setattr(Run, "minibatches", counted)
    options = {"validation_data": None, "optimizer": SGD(0.5)}
    one, other = make(), make()
    stopping = EarlyStopping("loss", patience=8, min_delta=0.01, restore_best=False)
    history = fit(one, 1000, [stopping], **options)
    assert history.epochs < 1000
    assert sum(calls) == history.epochs, "nothing was computed in vain"
    assert len(calls) < history.epochs / 3
    again = fit(other, 1000, [stopping, Callback()], **options)
    assert calls[-1] == 1
    assert again.loss == history.loss
    assert bits(one) == bits(other)


OUTSIDE = [
    ({"monitor": "val_loss"}, ValueError, "monitor is 'val_loss', but must be one of 'loss', 'accuracy'"),
    ({"monitor": None}, TypeError, "monitor is None"),
    ({"patience": 0}, ValueError, "patience is 0, but must be at least 1"),
    ({"patience": 1.5}, TypeError, "patience is 1.5"),
    ({"min_delta": -1e-9}, ValueError, "min_delta is -1e-09"),
    ({"restore_best": "yes"}, TypeError, "restore_best is 'yes'"),
]


@pytest.mark.parametrize(("options", "error", "message"), OUTSIDE)
def test_outside_the_domain(options, error, message):
    with pytest.raises(error, match=message):
        EarlyStopping(**options)


def test_a_figure_that_is_not_recorded_is_refused_at_the_door():
    network = make()
    go_on(network)
    before = pickle.dumps(network)
    with pytest.raises(ValueError, match="EarlyStopping watches 'validation_loss', but this"):
        fit(network, 5, [EarlyStopping()], validation_data=None)
    assert pickle.dumps(network) == before


# A fraction for validation


@pytest.mark.parametrize("y", [Y, np.eye(3)[Y]], ids=["labels", "rows"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("fraction", [0.25, 0.01, np.float32(0.5)])
def test_a_fraction_is_drawn_first_then_trained_on_is_the_rest(fraction, shuffle, y):
    one, other = make(), make()
    options = {"epochs": 4, "batch_size": 7, "shuffle": shuffle, "verbose": False}
    history = one.fit(X, y, validation_fraction=fraction, **options)
    drawn = other._rng.permutation(40)
    count = math.ceil(fraction * 40)
    held_out, chosen = np.sort(drawn[:count]), np.sort(drawn[count:])
    expected = other.fit(X[chosen], y[chosen], validation_data=(X[held_out], y[held_out]), **options)
    assert bits(one) == bits(other)
    assert history.loss == expected.loss
    assert history.validation_loss == expected.validation_loss
    assert history.validation_accuracy == expected.validation_accuracy


def test_the_samples_are_not_copied_for_a_fraction(monkeypatch):
    seen = []

    class Recording(Run):
        def __init__(self, architecture, weights, biases, given, y, **options):
            seen.append(given)
            super().__init__(architecture, weights, biases, given, y, **options)

    monkeypatch.setattr("fastbp.fitting.Run", Recording)
    make().fit(X, Y, validation_fraction=0.3, verbose=False)
    assert np.shares_memory(seen[0], X)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation_fraction": 0.0}, ValueError, "validation_fraction is 0.0, but must be greater than 0"),
        ({"validation_fraction": 1}, ValueError, "validation_fraction is 1, but must be .* less than 1"),
        ({"validation_fraction": "0.1"}, TypeError, "validation_fraction is '0.1', but must be a number"),
        ({"validation_fraction": 0.99}, ValueError, "validation_fraction is 0.99, which holds all of 40 samples out"),
        ({"validation_fraction": 0.1, **DATA}, ValueError, "validation_data and validation_fraction are both given"),
    ],
)
def test_a_wrong_fraction(options, error, message):
    network = make()
    before = pickle.dumps(network)
    with pytest.raises(error, match=message):
        network.fit(X, Y, **options)
    assert pickle.dumps(network) == before


# The plan's judge


def plan_of(epochs, judge, *, ahead=None, rates=None, **options):
    """Return a plan and a run over 30 samples in mini-batches of 10, by SGD."""
    network = make()
    run = Run(network.architecture, network.weights, network.biases, X[:30], Y[:30], batch_size=10, update="sgd")

    def steps(first, rates):
        rows = np.zeros((len(rates), STEP_COLUMNS))
        rows[:, ETA] = rates
        return rows

    def constant(first, epochs):
        return np.full(len(epochs), 0.1)

    plan = Plan(epochs, np.arange(30), 10, None, rates or constant, steps, True, judge=judge, ahead=ahead, **options)
    return run, plan, TrainingState(network, History(), epochs, 30)


def run_bits(run):
    return b"".join(array.tobytes() for array in (*run.canonical()[0], *run.canonical()[1]))


def test_the_judge_comes_after_the_validation_and_before_the_callbacks():
    calls = []

    class Tell(Callback):
        def on_epoch_end(self, state):
            calls.append(("callback", state.history.epochs))

    def judge(state):
        assert len(state.history.loss) == len(state.history.validation_loss) == len(state.history.learning_rate)
        calls.append(("judge", state.history.epochs))

    run, plan, state = plan_of(2, judge, validate=lambda: (calls.append(("validate", len(calls))), (0.5, None))[1])
    train(run, plan, state, callbacks=[Tell()])
    assert [name for name, _ in calls] == ["validate", "judge", "callback"] * 2
    assert [epoch for name, epoch in calls if name != "validate"] == [1, 1, 2, 2]


@pytest.mark.parametrize("ahead", [None, lambda: 1, lambda: 3], ids=["none", "1", "3"])
def test_the_judge_stops_and_turns(ahead):
    """The rate is halved after epochs 3 and 6, and the training ends with epoch 9 of 50."""
    rate, asked = [0.2], []

    def judge(state):
        if state.history.epochs % 3 == 0:
            rate[0] /= 2
        state.stop = state.history.epochs == 9

    def rates(first, epochs):
        asked.append((first, epochs.tolist()))
        return np.full(len(epochs), rate[0])

    run, plan, state = plan_of(50, judge, ahead=ahead, rates=rates)
    train(run, plan, state)
    assert state.history.learning_rate == [0.2] * 3 + [0.1] * 3 + [0.05] * 3
    step = 9 if ahead and ahead() == 3 else 3
    assert asked == [(first, [s // 3 for s in range(first, first + step)]) for first in range(0, 27, step)]
    network, other = make(), make()
    for eta in (0.2, 0.1, 0.05):
        for _ in range(3):
            network.partial_fit(X[:30], Y[:30], batch_size=10, optimizer=SGD(eta), shuffle=False)
    assert run_bits(run) == bits(network) != bits(other)


def test_the_judge_keeps_weights():
    def judge(state):
        if state.history.epochs in (2, 4):
            state.keep()

    run, plan, state = plan_of(7, judge)
    train(run, plan, state)
    network = make()
    for _ in range(4):
        network.partial_fit(X[:30], Y[:30], batch_size=10, optimizer=SGD(0.1), shuffle=False)
    assert state.kept_epoch == 4
    assert state.history.epochs == 7
    assert run.steps == 12
    assert run_bits(run) == bits(network)
    with pytest.raises(RuntimeError, match="while no training was under way"):
        state.keep()


def test_weights_of_an_epoch_that_is_past_cannot_be_kept():
    run, plan, state = plan_of(7, lambda state: state.keep(), ahead=lambda: 3)
    with pytest.raises(RuntimeError, match=r"ahead\(\) must return 1"):
        train(run, plan, state)


def test_the_begin_can_be_kept():
    class Undo(Callback):
        def on_train_begin(self, state):
            state.keep()

    network, fresh = make(), make()
    fit(network, 3, [Undo()])
    assert bits(network) == bits(fresh)


@pytest.mark.parametrize("form", ["csr_matrix", "csc_matrix", "csr_array"])
def test_a_fraction_of_sparse_samples(form):
    thin = X * (RNG.random(X.shape) < 0.4)
    thin[[0, 5]] = 0
    one, other = make(), make()
    options = {"epochs": 4, "batch_size": 7, "validation_fraction": 0.4, "verbose": False}
    history = one.fit(thin, Y, **options)
    expected = other.fit(getattr(sparse, form)(thin), Y, **options)
    assert bits(one) == bits(other)
    assert history.validation_loss == expected.validation_loss
