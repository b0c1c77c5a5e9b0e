"""Numerical differentiation: the oracle of every gradient, which knows nothing of backpropagation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def numerical_gradients(
    loss_fn: Callable[[list[NDArray[Any]]], float], arrays: Sequence[NDArray[Any]], step: float = 1e-5
) -> list[NDArray[np.float64]]:
    """Differentiate a scalar function of some arrays by central differences, one element at a time.

    (C(p + h) - C(p - h)) / 2h errs by h^2 C'''/6, and by the rounding of C, about 1e-16 |C| / h in float64: with
    h = 1e-5 both are some 1e-11 where C and its derivatives are near 1.

    Parameters
    ----------
    loss_fn : callable
        Takes a list of arrays like `arrays`, returns C.
    arrays : sequence of ndarray
        Where to differentiate; they stay as they are.
    step : float
        h.

    Returns
    -------
    list of ndarray of float64
        dC/dp, of the shapes of `arrays`.
    """
    arrays = [np.array(array, dtype=np.float64) for array in arrays]
    gradients = [np.zeros_like(array) for array in arrays]
    for array, gradient in zip(arrays, gradients, strict=True):
        for index in np.ndindex(array.shape):
            here = array[index]
            array[index] = here + step
            above = loss_fn(arrays)
            array[index] = here - step
            below = loss_fn(arrays)
            array[index] = here
            gradient[index] = (above - below) / (2 * step)
    return gradients
