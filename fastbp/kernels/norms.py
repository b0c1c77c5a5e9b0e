"""Norms: sum_jk w_jk^2 of the weights that the L2 penalty holds for, the loss's second term.

For each neuron j the k are cut into groups of `SQUARED`, each one chain of fused multiply-adds, made just before the
update while the weights are at hand; the groups are then added in float64, in an order that depends on nothing but the
sizes of the layers.
"""

from __future__ import annotations

from fastbp.kernels._jit import jit
from fastbp.kernels.layers import LAYER_COLUMNS, N_IN, N_OUT, PENALISED, SQUARED, SQUARES
from fastbp.kernels.simd import fma, lanes, load, load16, outline, spread16, store, sum_lanes, wide_zeros16, widen


@jit
def square(w, rows, columns, sums):
    """sums[j] += sum_k w_jk^2 over the first rows k of a tile that lies at w; 0 before the first tile of a group."""
    outline()
    second = columns - lanes(w)  # of the two registers of a row; the first again in a narrow panel
    total_1, total_2 = load(sums), load(sums + second)
    for q in range(0, rows * columns, columns):
        w_1, w_2 = load(w + q), load(w + (q + second))
        total_1, total_2 = fma(w_1, w_1, total_1), fma(w_2, w_2, total_2)
    store(sums, total_1)
    store(sums + second, total_2)


@jit
def squares_of(layer, workspace, j, k):
    """Where the sums of a layer's neurons j, j + 1, ... over the group of k stand."""
    return workspace.squares + (layer[SQUARES] + k // SQUARED * ((layer[N_OUT] + 15) // 16 * 16) + j)


@jit
def norm(layers, workspace):
    """sum_jk w_jk^2 over the layers that are penalised, from the sums of `square`, which become 0."""
    outline()
    total = 0.0
    for l in range(layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        if layer[PENALISED]:
            in_layer = wide_zeros16(workspace.squares)
            begin, end = squares_of(layer, workspace, 0, 0), (layer[N_IN] + SQUARED - 1) // SQUARED
            for q in range(0, end * ((layer[N_OUT] + 15) // 16 * 16), 16):
                in_layer = in_layer + widen(load16(begin + q))
                store(begin + q, spread16(begin, 0.0))
            total += sum_lanes(in_layer)
    return total
