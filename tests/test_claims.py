"""Claims: a network is trained by one at a time, and what others see of it meanwhile."""

from __future__ import annotations

import threading

import pytest
from networks import Calling, X, Y, bits, fit, make


def test_a_second_fit_during_a_fit_is_refused():
    network = make()
    refused = []

    def try_all(state):
        for attempt in (
            lambda: fit(network),
            lambda: network.partial_fit(X, Y),
            lambda: setattr(network, "weights", network.weights),
            lambda: setattr(network, "biases", network.biases),
            lambda: network.set_layer(0, network.weights[0]),
        ):
            with pytest.raises(RuntimeError, match=r"in training already: wait .*, or train a copy"):
                attempt()
            refused.append(attempt)

    fit(network, 2, callbacks=[Calling(try_all)])
    assert len(refused) == 10
    other = make()
    fit(other, 2)
    assert bits(network) == bits(other), "what was refused had no effect"


def test_a_second_fit_from_another_thread_is_refused():
    network = make()
    errors = []

    def attempt():
        try:
            fit(network)
        except RuntimeError as error:
            errors.append(error)

    def elsewhere(state):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()

    fit(network, 3, callbacks=[Calling(elsewhere)])
    assert len(errors) == 3
    fit(network, 1)


def test_during_a_fit_others_see_published_weights_only():
    """Predictions from another thread are those of the start or of the end of some epoch, never of a mixture."""
    network = make()
    allowed = {network.predict(X).tobytes()}
    seen: set[bytes] = set()
    done = threading.Event()

    def ask():
        while not done.is_set():
            seen.add(network.predict(X).tobytes())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        publish = Calling(lambda state: allowed.add(state.network.predict(X).tobytes()))
        fit(network, 60, callbacks=[publish])
    finally:
        done.set()
        thread.join()
    assert len(allowed) == 61
    assert seen
    assert seen <= allowed
