"""Variants: an epoch of one network with each optimizer, each activation and each loss; ten iterations of L-BFGS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastbp import LBFGS
from fastbp.kernels.activations import ACTIVATIONS
from fastbp.kernels.losses import LOSSES
from fastbp.kernels.updates import UPDATES
from fastbp.reference.epochs import lbfgs

from .common import FIT, IMPLEMENTATIONS, Array, Timed, Work, assert_ten_steps_equal, varied

RATE = {"learning_rate": 1e-4}
MOMENTUM = {**RATE, "momentum": 0.9}
HYPER = {"sgd": RATE, "momentum": MOMENTUM, "nesterov": MOMENTUM, "adam": RATE}
HIDDEN = tuple(name for name, row in ACTIVATIONS.items() if row.hidden)
ITERATIONS = 10
PAIRS = tuple(f"{loss} of {output}" for loss, outputs in LOSSES.items() for output in outputs)


class _Variant(Timed):
    """An epoch of the common work, changed in one thing."""

    def prepare(self, implementation: str, work: Work) -> None:
        """Check that both are equal, then make the one that is timed."""
        assert_ten_steps_equal(work)
        self.fit = FIT[implementation](work, *work.samples())


class Optimizer(_Variant):
    """Each rule of the kernels' table."""

    params = (IMPLEMENTATIONS, tuple(UPDATES))
    param_names = ("implementation", "optimizer")

    def setup(self, implementation: str, optimizer: str) -> None:
        self.prepare(implementation, varied(update=optimizer, hyper=HYPER[optimizer]))

    def time_fit(self, implementation: str, optimizer: str) -> None:
        self.fit()


class QuasiNewton(Timed):
    """L-BFGS: all samples at once, ten iterations, in float64: curvature magnifies the rounding of float32."""

    params = (IMPLEMENTATIONS,)
    param_names = ("implementation",)

    def setup(self, implementation: str) -> None:
        work = varied(n=2000)
        network, (X, y) = work.network("float64"), work.samples(dtype="float64")
        start, intercepts, Y = network.weights, network.biases, work.targets(y, "float64")

        def fast() -> list[Array]:
            network.weights, network.biases = start, intercepts
            network.fit(X, y, optimizer=LBFGS(max_iterations=ITERATIONS), verbose=False)
            return list(network.weights)

        def plain() -> list[Array]:
            return lbfgs(start, intercepts, work.activations, work.loss, X, Y, iterations=ITERATIONS)[0]

        for w, mine, other in zip(start, fast(), plain(), strict=True):
            assert np.linalg.norm(mine - other) <= 1e-6 * np.linalg.norm(other - w)
        self.fit: Callable[[], list[Array]] = fast if implementation == "fastbp" else plain

    def time_fit(self, implementation: str) -> None:
        self.fit()


class Activation(_Variant):
    """Each activation of the hidden layer."""

    params = (IMPLEMENTATIONS, HIDDEN)
    param_names = ("implementation", "activation")

    def setup(self, implementation: str, activation: str) -> None:
        self.prepare(implementation, varied(hidden=activation))

    def time_fit(self, implementation: str, activation: str) -> None:
        self.fit()


class Loss(_Variant):
    """Each loss with each output activation that it goes with, on 30 outputs."""

    params = (IMPLEMENTATIONS, PAIRS)
    param_names = ("implementation", "loss")

    def setup(self, implementation: str, loss: str) -> None:
        name, output = loss.split(" of ")
        self.prepare(implementation, varied(sizes=(256, 64, 30), output=output, loss=name))

    def time_fit(self, implementation: str, loss: str) -> None:
        self.fit()
