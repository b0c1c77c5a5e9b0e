"""Callbacks: when they are called, what they see, how they stop a training; and the progress bar."""

from __future__ import annotations

import io
import re
import sys
import types
from contextlib import redirect_stderr

import numpy as np
import pytest

from fastbp import Callback, History, Network, ProgressBar, TrainingState, training
from fastbp.callbacks import is_watched

X = np.random.default_rng(0).random((30, 4), np.float32)
Y = np.arange(30) % 3


class Recorder(Callback):
    """Note every call: its name, and a copy of what the state says at that moment."""

    def __init__(self, name="", calls=None):
        self.name = name
        self.calls = [] if calls is None else calls
        self.states = []

    def note(self, what, state):
        self.calls.append(self.name + what)
        self.states.append((what, state.history.epochs, state.samples, state.loss, state.accuracy))

    def on_train_begin(self, state):
        self.note("begin", state)

    def on_progress(self, state):
        self.note("progress", state)

    def on_epoch_end(self, state):
        self.note("epoch", state)

    def on_train_end(self, state):
        self.note("end", state)


class Raising(Recorder):
    """Raise at one kind of call."""

    def __init__(self, where, name="", calls=None):
        super().__init__(name, calls)
        self.where = where

    def note(self, what, state):
        super().note(what, state)
        if what == self.where:
            raise LookupError(f"raised at {what}")


def make(**options):
    return Network([4, 5, 3], output="softmax", seed=3, **options)


def fit(network, callbacks, **options):
    options = {"epochs": 3, "batch_size": 8, "verbose": False, **options}
    return network.fit(X, Y, callbacks=callbacks, **options)


def test_order_of_calls():
    recorder = Recorder()
    fit(make(), [recorder])
    assert recorder.calls == ["begin", *["progress", "epoch"] * 3, "end"]


def test_each_moment_goes_round_all_callbacks_in_their_order():
    calls = []
    fit(make(), [Recorder("a ", calls), Recorder("b ", calls)], epochs=2)
    moments = ["begin", "progress", "epoch", "progress", "epoch", "end"]
    assert calls == [f"{name} {moment}" for moment in moments for name in "ab"]


def test_no_epochs():
    recorder = Recorder()
    assert fit(make(), [recorder], epochs=0).epochs == 0
    assert recorder.calls == ["begin", "end"]


def test_a_callback_need_not_do_anything():
    assert fit(make(), [Callback(), Callback()]).epochs == 3


@pytest.mark.parametrize("wrap", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_callbacks_in_any_sequence(wrap):
    recorder = Recorder()
    fit(make(), wrap([recorder]))
    assert recorder.calls.count("epoch") == 3


def test_state():
    network = make()
    seen = []

    class Look(Callback):
        def on_epoch_end(self, state):
            assert type(state) is TrainingState
            assert type(state.history) is History
            assert state.network is network
            assert (state.epochs, state.n_samples, state.stop) == (3, 30, False)
            assert state.history.epochs == len(seen) + 1
            assert state.loss == state.history.loss[-1]
            assert state.accuracy == state.history.accuracy[-1]
            assert len(state.history.validation_loss) == len(state.history.validation_accuracy) == len(seen) + 1
            seen.append(state)

    history = fit(network, [Look()], validation_data=(X[:5], Y[:5]))
    assert len(seen) == 3
    assert all(state is seen[0] for state in seen)
    assert seen[0].history is history


def test_state_at_each_moment(monkeypatch):
    """With chunks of one mini-batch progress is told after each: 8, 16, 24 and, the epoch complete, 0 samples."""
    monkeypatch.setattr(training, "CHUNK_MINIBATCHES", 1)
    recorder = Recorder()
    history = fit(make(), [recorder], epochs=2)
    moments = [("progress", 0, 8), ("progress", 0, 16), ("progress", 0, 24), ("progress", 1, 0), ("epoch", 1, 0)]
    moments = [("begin", 0, 0), *moments, *[(what, epoch + 1, samples) for what, epoch, samples in moments]]
    assert [state[:3] for state in recorder.states] == [*moments, ("end", 2, 0)]
    assert np.isnan(recorder.states[0][3])
    assert recorder.states[0][4] is None
    whole = [state[3:] for state in recorder.states if state[0] == "epoch"]
    assert whole == list(zip(history.loss, history.accuracy, strict=True))


def test_figures_in_the_middle_of_an_epoch_are_means_over_the_samples_done(monkeypatch):
    monkeypatch.setattr(training, "CHUNK_MINIBATCHES", 1)
    recorder = Recorder()
    network = make()
    costs = [network.loss(X[i : i + 1], Y[i : i + 1]) for i in range(8)]
    hits = np.mean(network.predict_classes(X[:8]) == Y[:8])
    fit(network, [recorder], shuffle=False)
    _, _, samples, loss, accuracy = recorder.states[1]
    assert samples == 8
    assert loss == pytest.approx(np.mean(costs), rel=1e-6)
    assert accuracy == hits


def test_without_classes_there_is_no_accuracy():
    recorder = Recorder()
    network = Network([4, 2], output="identity", seed=0)
    network.fit(X, X[:, :2], epochs=2, callbacks=[recorder], verbose=False)
    assert {state[4] for state in recorder.states} == {None}


class Stop(Callback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, state):
        state.stop = state.history.epochs == self.epochs


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_stop_ends_the_training_after_the_epoch(epochs):
    one, other = make(), make()
    recorder = Recorder()
    history = fit(one, [Stop(epochs), recorder], epochs=10)
    assert history.epochs == epochs
    assert recorder.calls[-2:] == ["epoch", "end"]
    fit(other, [], epochs=epochs)
    np.testing.assert_array_equal(one.weights[0], other.weights[0])


def test_stop_in_the_middle_of_an_epoch_lets_it_end(monkeypatch):
    monkeypatch.setattr(training, "CHUNK_MINIBATCHES", 1)

    class StopAtOnce(Callback):
        def on_progress(self, state):
            state.stop = True

    assert fit(make(), [StopAtOnce()], epochs=10).epochs == 1


def test_stop_of_the_last_fit_is_forgotten():
    network = make()
    assert fit(network, [Stop(1)]).epochs == 1
    assert fit(network, []).epochs == 3


@pytest.mark.parametrize("where", ["progress", "epoch", "end"])
def test_after_an_exception_every_callback_sees_the_end(where):
    calls = []
    with pytest.raises(LookupError, match=f"raised at {where}"):
        fit(make(), [Raising(where, "a ", calls), Recorder("b ", calls)])
    assert calls.count("a end") == calls.count("b end") == 1
    assert set(calls[-2:]) == {"a end", "b end"}


def test_after_an_exception_at_the_begin_those_who_began_see_the_end():
    calls = []
    with pytest.raises(LookupError, match="raised at begin"):
        fit(make(), [Recorder("a ", calls), Raising("begin", "b ", calls), Recorder("c ", calls)])
    assert calls[:2] == ["a begin", "b begin"]
    assert "a end" in calls
    assert "c end" not in calls


# The progress bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    """Compile before anything is captured, as that is announced on stderr."""
    fit(make(), [])


@pytest.fixture(autouse=True)
def _no_notebook(monkeypatch):
    """Forget an IPython that others imported."""
    monkeypatch.delitem(sys.modules, "IPython", raising=False)


def shown_at_the_end(capsys):
    """Return what the bar shows at the end: tqdm writes over the line after each carriage return."""
    return capsys.readouterr().err.rstrip("\n").split("\r")[-1].strip()


def test_the_bar_shows_epochs_loss_accuracy_and_speed(capsys):
    history = fit(make(), [], verbose=True)
    shown = shown_at_the_end(capsys)
    assert shown.startswith("epoch 3/3")
    assert f"loss={history.loss[-1]:.4f}" in shown
    assert f"accuracy={history.accuracy[-1]:.4f}" in shown
    assert "samples/s" in shown
    assert "val" not in shown


def test_the_bar_shows_the_validation_loss(capsys):
    history = fit(make(), [], verbose=True, validation_data=(X, Y))
    assert f"val_loss={history.validation_loss[-1]:.4f}" in shown_at_the_end(capsys)


def test_the_bar_shows_no_accuracy_where_there_are_no_classes(capsys):
    Network([4, 2], output="identity", seed=0).fit(X, X[:, :2], verbose=True)
    shown = shown_at_the_end(capsys)
    assert "loss=" in shown
    assert "accuracy" not in shown


def test_the_bar_moves_within_an_epoch(capsys, monkeypatch):
    monkeypatch.setattr(training, "CHUNK_MINIBATCHES", 1)
    bar = ProgressBar()
    places = []

    class Look(Callback):
        def on_progress(self, state):
            places.append(bar._bar.n)

    fit(make(), [bar, Look()], epochs=2)
    assert places == [8, 16, 24, 30, 38, 46, 54, 60]
    assert shown_at_the_end(capsys).startswith("epoch 2/2")


def test_a_stopped_bar_is_closed_where_it_stands(capsys):
    bar = ProgressBar()
    fit(make(), [Stop(1), bar], epochs=4)
    assert re.match(r"epoch [12]/4", shown_at_the_end(capsys))
    assert (bar._bar.n, bar._bar.total, bar._bar.disable) == (30, 120, True)


@pytest.mark.parametrize("where", ["progress", "epoch", "end"])
def test_the_bar_is_closed_after_an_exception(capsys, where):
    bar = ProgressBar()
    with pytest.raises(LookupError):
        fit(make(), [Raising(where), bar])
    closed = bar._bar.disable  # tqdm disables a bar when it closes it
    bar._bar.close()
    assert closed


def test_a_bar_serves_several_fits(capsys):
    bar = ProgressBar()
    fit(make(), [bar])
    fit(make(), [bar], epochs=2)
    assert shown_at_the_end(capsys).startswith("epoch 2/2")


@pytest.mark.parametrize("verbose", [None, False, np.False_])
def test_silence_where_nobody_looks(capfd, verbose):
    fit(make(), [], verbose=verbose)
    make().partial_fit(X, Y)
    make().predict(X)
    assert capfd.readouterr() == ("", "")


def test_by_default_a_bar_on_a_terminal():
    with redirect_stderr(Terminal()) as terminal:
        assert is_watched()
        fit(make(), [], verbose=None)
    assert "epoch 3/3" in terminal.getvalue()


def test_no_bar_on_a_terminal_for_those_who_refuse():
    with redirect_stderr(Terminal()) as terminal:
        fit(make(), [], verbose=False)
        make().partial_fit(X, Y)
        make().predict(X)
    assert terminal.getvalue() == ""


def ipython(shell):
    """Return a stand-in for IPython whose shell has that class name; None as in a plain Python that imported it."""
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: None if shell is None else type(shell, (), {})()
    return module


@pytest.mark.parametrize(
    ("shell", "watched"), [("ZMQInteractiveShell", True), ("TerminalInteractiveShell", False), (None, False)]
)
def test_notebooks(monkeypatch, shell, watched):
    monkeypatch.setitem(sys.modules, "IPython", ipython(shell))
    with redirect_stderr(io.StringIO()):
        assert is_watched() is watched


def test_a_terminal_below_ipython(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", ipython("TerminalInteractiveShell"))
    with redirect_stderr(Terminal()):
        assert is_watched() is True


def test_an_ipython_half_imported_is_no_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    with redirect_stderr(io.StringIO()):
        assert is_watched() is False


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


class OnlyWrites:
    """What some hosts put in the place of stderr."""

    def write(self, text):
        return len(text)


STREAMS = {"none, as in pythonw": lambda: None, "closed": closed, "one that only writes": OnlyWrites}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("verbose", [None, True])
def test_no_stderr_to_write_to_is_no_reason_not_to_train(stream, verbose):
    with redirect_stderr(STREAMS[stream]()):
        assert fit(make(), [], verbose=verbose).epochs == 3


def test_the_bar_does_not_change_a_bit(capsys):
    one, other = make(), make()
    fit(one, [], verbose=True)
    fit(other, [], verbose=False)
    for l in range(2):
        np.testing.assert_array_equal(one.weights[l], other.weights[l])
        np.testing.assert_array_equal(one.biases[l], other.biases[l])
