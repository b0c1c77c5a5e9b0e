"""Divergence: a loss that grows without bounds is an error that helps, and finite weights are kept."""

from __future__ import annotations

import re

import numpy as np
import pytest
from networks import DTYPES, REAL, Calling, X, bits

from fastbp import SGD, Adam, Callback, Network
from fastbp.engine.run import Run


def unbounded(**options):
    """Return a network whose loss grows without bounds when it is trained on X at a learning rate of 2 or more."""
    return Network([6, 4], output="identity", seed=5, **options)


def diverge(network, **options):
    options = {"epochs": 300, "batch_size": 8, "optimizer": SGD(2.0), "shuffle": False, "verbose": False, **options}
    with pytest.raises(FloatingPointError) as caught:
        network.fit(X, REAL, **options)
    return str(caught.value)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", [SGD(1e6), SGD(1e3, 0.9), SGD(2.0)], ids=str)
def test_a_lost_loss_is_an_error_and_finite_weights_are_kept(optimizer, dtype, watched):
    network = unbounded(dtype=dtype)
    message = diverge(network, optimizer=optimizer, callbacks=[Callback()] if watched else [])
    assert all(np.isfinite(array).all() for array in (*network.weights, *network.biases))
    assert np.isfinite(network.predict(X)).all()
    assert "learning rate" in message
    assert "scale" in message


@pytest.mark.parametrize("rate", [1e30, 1e6, 20.0, 2.0])
def test_the_message_names_the_epoch_and_the_mini_batch(rate):
    """All mini-batches before the one named can be trained on, and that one cannot."""
    message = diverge(unbounded(), optimizer=SGD(rate), batch_size=8)
    found = re.search(r"epoch (\d+), mini-batch (\d+)", message)
    assert found is not None, message
    epoch, minibatch = int(found[1]), int(found[2])
    assert 0 <= minibatch < 7

    def survives(n):
        """Whether the first n mini-batches have finite losses."""
        network = unbounded()
        options = {"batch_size": 8, "optimizer": SGD(rate), "shuffle": False}
        try:
            for _ in range(n // 7):
                network.partial_fit(X, REAL, **options)
            if n % 7:
                network.partial_fit(X[: n % 7 * 8], REAL[: n % 7 * 8], **options)
        except FloatingPointError as error:
            return "the loss" not in str(error)
        return True

    assert survives(7 * epoch + minibatch)
    assert not survives(7 * epoch + minibatch + 1)


def test_an_epoch_that_was_seen_is_kept():
    """With a callback the weights kept are those that the last complete epoch reached, as the callback saw them."""
    seen = []
    network = unbounded()
    diverge(network, callbacks=[Calling(lambda state: seen.append(bits(state.network)))])
    assert len(seen) >= 1
    assert bits(network) == seen[-1]


@pytest.mark.parametrize(("bad", "good"), [(SGD(1e6, 0.5), SGD(0.01, 0.5)), (Adam(1e30), Adam(0.01))], ids=str)
def test_after_a_lost_loss_training_goes_on_as_if_that_had_not_been(bad, good):
    network, fresh = unbounded(), unbounded()
    diverge(network, optimizer=bad, epochs=1)
    assert bits(network) == bits(fresh)
    for each in (network, fresh):
        each.partial_fit(X, REAL, optimizer=good, shuffle=False)
    assert bits(network) == bits(fresh)


def test_a_lost_validation_loss_is_told_and_ends_nothing():
    """Validation samples far out may overflow where training does not."""
    far = np.full((2, 6), 3e38, np.float32)
    history = unbounded(dtype="float64").fit(X, REAL, epochs=2, validation_data=(far, REAL[:2]), verbose=False)
    assert len(history.validation_loss) == 2


def test_ctrl_c_after_the_loss_was_lost_leaves_finite_weights(monkeypatch):
    """The interrupt comes within a chunk, before anybody has looked at its losses."""
    run_minibatches = Run.minibatches

    def interrupted(self, order, starts, steps, **options):
        run_minibatches(self, order, starts, steps)
        raise KeyboardInterrupt

    network = unbounded()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "minibatches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            network.fit(X, REAL, epochs=300, batch_size=8, optimizer=SGD(2.0), verbose=False)
    assert all(np.isfinite(array).all() for array in (*network.weights, *network.biases))
    network.partial_fit(X, REAL, optimizer=SGD(1e-3))
    assert np.isfinite(network.predict(X)).all()
