"""Predict: the activations of the output layer, for one sample and for 10 000."""

from __future__ import annotations

import numpy as np

from .common import CASES, PREDICT, samples


class Predict:
    """Time of a call of predict."""

    params = (("fastbp", "numpy"), tuple(CASES), (1, 10_000))
    param_names = ("implementation", "network", "n_samples")
    timeout = 600

    def setup(self, implementation: str, network: str, n_samples: int) -> None:
        X, _ = samples(n_samples)
        fast, plain = (PREDICT[name](CASES[network], X) for name in ("fastbp", "numpy"))
        np.testing.assert_allclose(fast(), plain(), rtol=1e-4, atol=1e-6)
        self.predict = fast if implementation == "fastbp" else plain

    def time_predict(self, implementation: str, network: str, n_samples: int) -> None:
        self.predict()
