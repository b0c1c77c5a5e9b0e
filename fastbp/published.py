"""Published weights: those that belong together, as all threads see them, ready to answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.evaluation import Evaluator

__all__ = ["Published"]

Floats = NDArray[Any]
_FLOAT64 = np.dtype(np.float64)


class Published:
    """Weights and biases that belong together, read-only; packed for the kernels when first needed.

    Parameters
    ----------
    evaluator : Evaluator
        The network's.
    weights, biases : sequences of arrays
        Nobody else may have them: they are made read-only.
    """

    def __init__(self, evaluator: Evaluator, weights: Sequence[Floats], biases: Sequence[Floats]) -> None:
        for array in (*weights, *biases):
            array.flags.writeable = False
        # views, because the owner of its memory could be made writeable again
        self.weights = tuple(w[:] for w in weights)
        self.biases = tuple(b[:] for b in biases)
        self.evaluator = evaluator
        self._dtype, self._n_in = evaluator.architecture.dtype, evaluator.architecture.n_in
        self._packed: Floats | None = None

    def packed(self) -> Floats:
        """Return weights and biases as the kernels read them."""
        # two threads may both pack: to the same bits
        if self._packed is None:
            self._packed = self.evaluator.layout.pack(self.weights, self.biases)
        return self._packed

    def outputs_of_few(self, X: Any) -> Floats | None:
        """Return the outputs for a few samples; None if X is anything but a few finite rows of float32 or float64.

        For those this is all: nothing else of X can be wrong, and to find that out takes longer than a small network
        computes.
        """
        if type(X) is not np.ndarray:
            return None
        shape, dtype = X.shape, X.dtype
        if len(shape) != 2 or shape[1] != self._n_in or not 0 < shape[0] <= self.evaluator.few:
            return None
        if dtype is self._dtype:
            outputs, doubtful = self.evaluator.outputs_of_few(self.packed(), X)
        elif dtype is _FLOAT64:
            with np.errstate(all="ignore"):  # what is too large shows as an infinity
                outputs, doubtful = self.evaluator.outputs_of_few(self.packed(), X)
        else:
            return None
        return None if doubtful else outputs
