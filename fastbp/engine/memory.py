"""Arrays that begin on a cache line, so that no SIMD register straddles two."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

CACHE_LINE = 64


def aligned_zeros(n: int, dtype: DTypeLike) -> NDArray[np.generic]:
    """Return n zeros that begin on a cache line."""
    dtype = np.dtype(dtype)
    if n == 0:
        return np.zeros(0, dtype)
    raw = np.zeros(n * dtype.itemsize + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n * dtype.itemsize].view(dtype)
