"""Norms: sum_jk w_jk^2 of the weights that the L2 penalty holds for, the loss's second term.

For each neuron j the k are cut into groups of `SQUARED`, each one chain of fused multiply-adds, made just before the
update while the weights are at hand; the groups are then added in float64, in an order that depends on nothing but the
sizes of the layers.
"""

from __future__ import annotations

from fastbp.kernels._jit import jit
from fastbp.kernels.layers import LAYER_COLUMNS, N_IN, N_OUT, PENALISED, SQUARED, SQUARES
from fastbp.kernels.simd import fma, lanes, load, load16, outline, store, sum_lanes, wide_zeros16, widen


@jit
def square(w, rows, columns, fresh, sums):
    """sums[j] = sum_k w_jk^2 over the first rows k of a tile that lies at w, or += if not fresh."""
    outline()
    for j in range(0, columns, lanes(w)):
        first = load(w + j)
        total = first * first if fresh else fma(first, first, load(sums + j))
        for k in range(1, rows):
            w_k = load(w + (k * columns + j))
            total = fma(w_k, w_k, total)
        store(sums + j, total)


@jit
def squares_of(layer, workspace, j, k):
    """Where the sums of a layer's neurons j, j + 1, ... over the group of k stand."""
    return workspace.squares + (layer[SQUARES] + k // SQUARED * ((layer[N_OUT] + 15) // 16 * 16) + j)


@jit
def norm(layers, workspace):
    """sum_jk w_jk^2 over the layers that are penalised, from the sums of `square`."""
    outline()
    total = 0.0
    for l in range(layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        if layer[PENALISED]:
            in_layer = wide_zeros16(workspace.squares)
            begin, end = squares_of(layer, workspace, 0, 0), (layer[N_IN] + SQUARED - 1) // SQUARED
            for q in range(0, end * ((layer[N_OUT] + 15) // 16 * 16), 16):
                in_layer = in_layer + widen(load16(begin + q))
            total += sum_lanes(in_layer)
    return total
