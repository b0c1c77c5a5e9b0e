"""Kernels of one vector, called on whole arrays in the floating-point mode of the engine; and how far off they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastbp.kernels import elementary
from fastbp.kernels.pointers import pointer
from fastbp.kernels.simd import load16, store
from fastbp.kernels.threads import flush_subnormals, restore_mode

Floats = NDArray[Any]


def elementwise(function: Callable[..., Any]) -> Callable[[Floats], Floats]:
    """Return a NumPy function from a kernel that takes one vector and returns one."""

    @numba.njit(nogil=True, error_model="numpy")
    def loop(x, y):  # type: ignore[no-untyped-def]
        mode = flush_subnormals()
        for i in range(0, len(x), 16):
            store(pointer(y) + i, function(load16(pointer(x) + i)))
        restore_mode(mode)

    def on_array(x: Floats) -> Floats:
        padded = np.zeros(-(-len(x) // 16) * 16, x.dtype)
        padded[: len(x)] = x
        y = np.empty_like(padded)
        loop(padded, y)
        return y[: len(x)]

    return on_array


def stated_ulps() -> dict[tuple[str, str], float]:
    """Return {(function, dtype): bound}, as the docstring of the kernels states it."""
    assert elementary.__doc__ is not None
    return {
        (name, dtype): float(bound)
        for dtype, line in re.findall(r"^ *(float32|float64) (.*)$", elementary.__doc__, re.MULTILINE)
        for name, bound in re.findall(r"(\w+) (\d+(?:\.\d+)?)", line)
    }


def ulp(rounded: Floats) -> NDArray[np.float64]:
    """Return the unit in the last place of each normal number: the distance to the next one away from zero."""
    if rounded.dtype == np.float32:
        power = (rounded.view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
        return power.astype(np.float64) * 2.0**-23
    return np.spacing(np.abs(rounded))
