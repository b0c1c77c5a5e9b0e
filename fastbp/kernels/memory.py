"""Memory: copies between places that kernels know."""

from __future__ import annotations

from fastbp.kernels._jit import jit


@jit
def copy(source, target, n):
    """target[:n] = source[:n]."""
    for j in range(n):
        target[j] = source[j]
