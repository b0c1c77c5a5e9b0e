"""Objective: the loss of all samples as a function of one vector, which is what L-BFGS minimises.

The vector holds coefs_, layer by layer, and then intercepts_, as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.architecture import Architecture
from fastbp.engine.run import Run, divisors, scales
from fastbp.kernels.layers import COST, NORM, PENALTY, SCALE, STEP_COLUMNS

__all__ = ["Objective", "pack", "places", "unpack"]

Floats = NDArray[Any]
# Where coefs_ lie in the vector, and what shape they have; where intercepts_ lie
Places = tuple[list[tuple[int, int, tuple[int, int]]], list[tuple[int, int]]]


def places(sizes: Sequence[int]) -> Places:
    """Return where the parameters of layers of these sizes lie in the vector."""
    coefs, intercepts, start = [], [], 0
    for n_in, n_out in pairwise(sizes):
        coefs.append((start, start + n_in * n_out, (n_in, n_out)))
        start += n_in * n_out
    for n_out in sizes[1:]:
        intercepts.append((start, start + n_out))
        start += n_out
    return coefs, intercepts


def pack(
    coefs: Sequence[Floats], intercepts: Sequence[Floats], out: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return all parameters as one vector, in `out` if that is given."""
    arrays = [array.ravel() for array in (*coefs, *intercepts)]
    if out is None:
        out = np.empty(sum(array.size for array in arrays))
    return np.concatenate(arrays, out=out)


def unpack(vector: Floats, where: Places) -> tuple[list[Floats], list[Floats]]:
    """Return views of a vector's coefs and intercepts."""
    coefs = [vector[start:end].reshape(shape) for start, end, shape in where[0]]
    return coefs, [vector[start:end] for start, end in where[1]]


class Objective:
    """The loss of all samples.

    Parameters
    ----------
    architecture : Architecture
        Of float64.
    X, y, sample_weight
        As for `Run`.
    alpha : float
        The L2 penalty alpha/2 sum w^2 is divided by the number of samples, or by the sum of their weights.
    """

    def __init__(
        self,
        architecture: Architecture,
        X: Any,
        y: NDArray[Any],
        sample_weight: NDArray[np.float64] | None,
        alpha: float,
    ) -> None:
        n = len(X)
        weights, biases = [], []
        for n_in, n_out in pairwise(architecture.sizes):
            weights.append(np.zeros((n_out, n_in)))
            biases.append(np.zeros(n_out))
        self._run = Run(architecture, weights, biases, X, y, batch_size=n, update=None, sample_weight=sample_weight)
        self._where = places(architecture.sizes)
        self._gradient = np.empty(sum(w.size + b.size for w, b in zip(weights, biases, strict=True)))
        self._order, self._starts = np.arange(n), np.array([0, n])
        self._steps = np.zeros((1, STEP_COLUMNS))
        self._steps[:, SCALE] = scales(divisors(self._order, self._starts, sample_weight))
        self._steps[:, PENALTY] = alpha * self._steps[:, SCALE]

    def __call__(self, vector: Floats) -> tuple[float, NDArray[np.float64]]:
        """Return the loss and its gradient, which the next call overwrites.

        They may be infinite or NaN, as the line search then turns back.
        """
        coefs, intercepts = unpack(vector, self._where)
        self._run.load([w.T for w in coefs], intercepts)
        report = self._run.minibatches(self._order, self._starts, self._steps)
        scale, penalty = self._steps[0, SCALE], self._steps[0, PENALTY]
        loss = float(report[0, COST] * scale + penalty / 2 * report[0, NORM])
        weights, biases = self._run.layout.unpack(self._run.parameters.slot_1, order="F")
        return loss, pack([w.T for w in weights], biases, self._gradient)
