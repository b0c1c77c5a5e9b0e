"""Predict: what a network is asked without being trained: activations, the loss, the gradients; one sample and many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .common import GRADIENTS, IMPLEMENTATIONS, LOSS, PREDICT, WORKS, Timed, fast_or_full

ASKED = tuple(fast_or_full(["784-30-10", "784-512-512-10"], list(WORKS)))
# a small network inside a control loop
SMALL = replace(WORKS["4-32-16-4"], sizes=(4, 24, 24, 2))


class Predict(Timed):
    """Time of a call of predict."""

    params = (IMPLEMENTATIONS, ASKED, (1, 10_000))
    param_names = ("implementation", "work", "rows")

    def setup(self, implementation: str, work: str, rows: int) -> None:
        X, _ = WORKS[work].samples(rows)
        fast, plain = (PREDICT[name](WORKS[work], X) for name in IMPLEMENTATIONS)
        np.testing.assert_allclose(fast(), plain(), rtol=1e-4, atol=1e-5)
        self.predict = fast if implementation == "fastbp" else plain

    def time_predict(self, implementation: str, work: str, rows: int) -> None:
        self.predict()


class SingleSample(Timed):
    """Time of predict for one sample, through 4-24-24-2."""

    params = (IMPLEMENTATIONS,)
    param_names = ("implementation",)

    def setup(self, implementation: str) -> None:
        X, _ = SMALL.samples(1)
        fast, plain = (PREDICT[name](SMALL, X) for name in IMPLEMENTATIONS)
        np.testing.assert_allclose(fast(), plain(), rtol=1e-4, atol=1e-5)
        self.predict = fast if implementation == "fastbp" else plain

    def time_predict(self, implementation: str) -> None:
        self.predict()


class Gradients(Timed):
    """Time of gradients and loss over 10 000 samples."""

    params = (IMPLEMENTATIONS, ASKED)
    param_names = ("implementation", "work")

    def setup(self, implementation: str, work: str) -> None:
        samples = WORKS[work].samples(10_000)
        losses = [LOSS[name](WORKS[work], *samples) for name in IMPLEMENTATIONS]
        gradients = [GRADIENTS[name](WORKS[work], *samples) for name in IMPLEMENTATIONS]
        np.testing.assert_allclose(losses[0](), losses[1](), rtol=1e-4)
        for fast, plain in zip(gradients[0](), gradients[1](), strict=True):
            assert np.linalg.norm(fast - plain) <= 1e-3 * np.linalg.norm(plain)
        own = IMPLEMENTATIONS.index(implementation)
        self.loss, self.gradients = losses[own], gradients[own]

    def time_gradients(self, implementation: str, work: str) -> None:
        self.gradients()

    def time_loss(self, implementation: str, work: str) -> None:
        self.loss()
