"""Memory: copies between places that kernels know."""

from __future__ import annotations

from fastbp.kernels._jit import jit


@jit
def copy(source, target, n):
    """target[:n] = source[:n]."""
    for j in range(n):
        target[j] = source[j]


@jit
def copy_rows(x, x_index, x_stride, x_step, target, stride, n, begin, end):
    """target[i, k] = x[x_index[i], k] for rows begin <= i < end and the first n columns; strides count elements."""
    if x_step == 1:
        for i in range(begin, end):
            copy(x + x_index[i] * x_stride, target + i * stride, n)
    else:  # column by column: there the samples lie closest to each other
        for k in range(n):
            column = x + k * x_step
            for i in range(begin, end):
                target[i * stride + k] = column[x_index[i] * x_stride]
