"""Norms: sum_jk w_jk^2 of the weights that the L2 penalty holds for, the loss's second term.

For each neuron j the k are cut into groups of `SQUARED`, each one chain of fused multiply-adds, made just before their
update while the weights are at hand; the groups are then added in float64, in an order that depends on nothing but the
sizes of the layers.
"""

from __future__ import annotations

from fastbp.kernels._jit import jit, outline
from fastbp.kernels.layers import LAYER_COLUMNS, N_IN, N_OUT, PENALISED, SQUARED, SQUARES
from fastbp.kernels.simd import fma, lanes, load, load1, load16, store, sum_lanes, wide_zeros16, widen


@jit
def group_size(layer):
    """Elements between the sums of two groups."""
    return (layer[N_OUT] + 15) // 16 * 16


@jit
def square(layer, w, k, rows, columns, j, workspace):
    """The sums of some groups: w points to the weights of inputs k, k + 1, ... to the neurons of a panel from j on."""
    outline()
    step = group_size(layer)
    sums = workspace.squares + (layer[SQUARES] + k // SQUARED * step + j)
    second = columns - lanes(w)  # of the two registers of a row; the first again in a narrow panel
    for begin in range(0, rows, SQUARED):
        w_1, w_2 = load(w + begin * columns), load(w + (begin * columns + second))
        total_1, total_2 = w_1 * w_1, w_2 * w_2
        for q in range((begin + 1) * columns, min(begin + SQUARED, rows) * columns, columns):
            w_1, w_2 = load(w + q), load(w + (q + second))
            total_1, total_2 = fma(w_1, w_1, total_1), fma(w_2, w_2, total_2)
        store(sums, total_1)
        store(sums + second, total_2)
        sums = sums + step


@jit
def square_single(layer, w, workspace):
    """The sums of a layer's only neuron, whose weights lie side by side."""
    outline()
    sums = workspace.squares + layer[SQUARES]
    for begin in range(0, layer[N_IN], SQUARED):
        total = load1(w + begin) * load1(w + begin)
        for k in range(begin + 1, min(begin + SQUARED, layer[N_IN])):
            total = fma(load1(w + k), load1(w + k), total)
        store(sums, total)
        sums = sums + group_size(layer)


@jit
def norm(layers, workspace):
    """sum_jk w_jk^2 over the layers that are penalised, from the sums of `square`."""
    outline()
    total = 0.0
    for l in range(layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        if layer[PENALISED]:
            in_layer = wide_zeros16(workspace.squares)
            n = (layer[N_IN] + SQUARED - 1) // SQUARED * group_size(layer)
            for q in range(layer[SQUARES], layer[SQUARES] + n, 16):
                in_layer = in_layer + widen(load16(workspace.squares + q))
            total += sum_lanes(in_layer)
    return total
