"""Epoch: once through 50 000 samples, as many as in the book's split of MNIST."""

from __future__ import annotations

from .common import CASES, FIT, assert_ten_steps_equal, samples


class Epoch:
    """Time of one epoch, with all that a call of fit does."""

    params = (("fastbp", "numpy"), tuple(CASES))
    param_names = ("implementation", "network")
    timeout = 600

    def setup(self, implementation: str, network: str) -> None:
        case = CASES[network]
        assert_ten_steps_equal(case)
        self.fit = FIT[implementation](case, *samples(50_000))

    def time_fit(self, implementation: str, network: str) -> None:
        self.fit()
