"""Backward: delta_j = sigma'(z_j) sum_k w_kj delta_k (BP2), from the output layer down, for rows of a mini-batch."""

from __future__ import annotations

from fastbp.kernels._jit import NONE, jit
from fastbp.kernels.layers import LAYER_COLUMNS, N_IN, N_OUT, STRIDE, WT, A
from fastbp.kernels.shares import transposed_rows
from fastbp.kernels.simd import lanes
from fastbp.kernels.tiles import NARROW, WIDE, add_outers, multiply_rows, n_columns, n_rows, near_offsets, zeros


@jit
def propagate(shape, delta_above, stride_above, begin, end, wt, n_above, delta, stride):
    """delta_ij = sigma'(z_ij) sum_k w_kj delta_ik for rows begin <= i < end and the neurons j of one transposed panel.

    delta_above (rows, n_above) at i stride_above; wt one panel: w_kj of its neurons j side by side, k by k;
    delta (rows, ...) at the panel's first neuron holds sigma'(z_ij) before, delta_ij after.
    """
    columns = n_columns(shape, wt)
    for i in range(begin, end, n_rows(shape, wt)):
        above, above_rows = delta_above + i * stride_above, near_offsets(shape, wt, stride_above, end - 1 - i)
        tile = add_outers(zeros(shape, wt), above, above_rows, wt, columns, NONE, n_above, i == begin)
        multiply_rows(delta + i * stride, near_offsets(shape, wt, stride, end - 1 - i), tile)


@jit
def backward(layers, parameters, workspace, begin, end):
    """The deltas of all hidden layers, for rows begin <= i < end."""
    transposed, deltas = parameters.transposed, workspace.delta
    wide, narrow = n_columns(WIDE, transposed), lanes(transposed)
    for l in range(layers.n - 1, 0, -1):
        above, below = layers.table + l * LAYER_COLUMNS, layers.table + (l - 1) * LAYER_COLUMNS
        delta_above, stride_above, n_above = deltas + above[A], above[STRIDE], above[N_OUT]
        wt, delta, stride = transposed + above[WT], deltas + below[A], below[STRIDE]
        n, rows = above[N_IN], transposed_rows(above, transposed)
        j = 0
        while n - j > narrow:
            panel = wt + j * rows
            propagate(WIDE, delta_above, stride_above, begin, end, panel, n_above, delta + j, stride)
            j += wide
        if j < n:
            panel = wt + j * rows
            propagate(NARROW, delta_above, stride_above, begin, end, panel, n_above, delta + j, stride)
