"""Gradients: dC/dw_jk = a_k delta_j (BP4) and dC/db_j = delta_j (BP3), summed over the mini-batch, then put to use.

Each element is cut into blocks of `BLOCK` samples, each one chain of fused multiply-adds, and the blocks are added in
order. A finished tile updates its parameters at once, without passing through memory.

The tiles of all layers are divided among the workers by *strips*: some tiles along k of one panel. All panels of the
same k follow each other, so that these columns of the inputs are fetched from memory once for all neurons.
"""

from __future__ import annotations

from fastbp.kernels._jit import inlined, jit
from fastbp.kernels.layers import (
    BLOCK,
    K_PADDED,
    LAYER_COLUMNS,
    N_IN,
    N_OUT,
    PANELS,
    PENALISED,
    STRIDE,
    STRIP,
    STRIPS,
    TRAIN_BIAS,
    WT,
    A,
    B,
    W,
)
from fastbp.kernels.memory import copy
from fastbp.kernels.norms import square
from fastbp.kernels.shares import is_owned, own_neurons, padded_neurons
from fastbp.kernels.simd import lanes, load, outline, prefetch, store_rounded, wide_zeros, widen
from fastbp.kernels.tiles import NARROW as NARROW_TILE
from fastbp.kernels.tiles import WIDE, add, consecutive, load_tile, n_columns, n_rows, outer, store_tile, zeros
from fastbp.kernels.updates import update, update_many

# The inputs of a strip are gathered where enough panels and rows repay it: rows of X lie on a page of memory each, and
# more pages than the core remembers slow every access down.
GATHERED_PANELS, GATHERED_ROWS = 3, 32
FETCHED_AHEAD = 32  # samples whose products take long enough to fetch a tile of parameters meanwhile


@inlined
def weight_gradient(shape, x, x_index, x_stride, k, n_in, delta, stride, m, fresh, sums):
    """sums[k, j] = sum_i x_ik delta_ij for the k and j of one tile, or += if not fresh.

    Rows k beyond n_in repeat the last.
    """
    inputs = consecutive(shape, x, k, n_in - 1)
    for first in range(0, m, BLOCK):
        tile = zeros(shape, x)
        for i in range(first, min(first + BLOCK, m)):
            tile = outer(tile, x + x_index[i] * x_stride, inputs, delta + i * stride)
        if first > 0 or not fresh:
            tile = add(load_tile(shape, sums), tile)
        store_tile(sums, tile)


@inlined
def bias_gradient(delta, stride, m, columns, fresh, sums):
    """sums[j] = sum_i delta_ij in float64 for the neurons j of one panel, or += if not fresh."""
    second = columns - lanes(delta)  # of the two registers of a row; the first again in a narrow panel
    total_1 = wide_zeros(delta) if fresh else widen(load(sums))
    total_2 = wide_zeros(delta) if fresh else widen(load(sums + second))
    for first in range(0, m, BLOCK):
        block_1, block_2 = wide_zeros(delta), wide_zeros(delta)
        for i in range(first, min(first + BLOCK, m)):
            block_1 = block_1 + widen(load(delta + i * stride))
            block_2 = block_2 + widen(load(delta + (i * stride + second)))
        total_1, total_2 = total_1 + block_1, total_2 + block_2
    store_rounded(sums, total_1)
    store_rounded(sums + second, total_2)


@jit
def transpose_tile(w, rows, columns, k, n_in, j, n_out, wt):
    """Copy w_jk of one tile, which begins at neurons k and j, into the transposed panels of its layer."""
    narrow = lanes(w)
    wide = 2 * narrow
    for k_here in range(k, min(k + rows, n_in)):
        panel = k_here // wide * wide
        width = wide if n_in - panel > narrow else narrow
        column = wt + (panel * n_out + k_here - panel)
        row = w + (k_here - k) * columns
        for c in range(min(columns, n_out - j)):
            column[(j + c) * width] = row[c]


@jit
def learn_biases(layer, parameters, delta, j, columns, m, scratch, first, last, code, hyper):
    """The gradient of the biases of one panel, which begins at neuron j and at delta, and their update."""
    outline()
    q = layer[B] + j
    g = scratch if first and last else parameters.sums + q
    bias_gradient(delta, layer[STRIDE], m, columns, first, g)
    if last:
        update_many(code, parameters.weights + q, g, parameters.slot_1 + q, parameters.slot_2 + q, columns, 0.0, hyper)


@jit
def learn_strip(shape, layer, parameters, x, x_index, x_stride, j, k, workspace, m, worker, first, last, code, hyper):
    """The gradient of one strip of a layer, from neurons j and k on, and its update; with k = 0 the biases too.

    A mini-batch of several slabs is summed in `parameters.sums`: `first` tells that this slab begins it, `last` that it
    ends it.
    """
    weights, slot_1, slot_2 = parameters.weights, parameters.slot_1, parameters.slot_2
    columns, rows, n_in, stride = n_columns(shape, weights), n_rows(shape, weights), layer[N_IN], layer[STRIDE]
    delta = workspace.delta + (layer[A] + j)
    size = rows * columns
    whole = first and last
    penalty = hyper.penalty if layer[PENALISED] else 0.0
    g = workspace.scratch + worker * (n_rows(WIDE, weights) * n_columns(WIDE, weights))  # no tile is larger
    if last and penalty != 0.0:
        q = layer[W] + j * layer[K_PADDED] + k * columns
        square(layer, weights + q, k, min(STRIP * rows, n_in - k), columns, j, workspace)
    for k_here in range(k, min(k + STRIP * rows, n_in), rows):
        q = layer[W] + j * layer[K_PADDED] + k_here * columns
        if not whole:
            g = parameters.sums + q
        if last and m >= FETCHED_AHEAD:
            prefetch(weights + q, size)
            prefetch(slot_1 + q, size)
            prefetch(slot_2 + q, size)
        weight_gradient(shape, x, x_index, x_stride, k_here, n_in, delta, stride, m, first, g)
        if last:
            update(code, weights + q, g, slot_1 + q, slot_2 + q, size, penalty, hyper)
            if layer[WT] >= 0:
                wt = parameters.transposed + layer[WT]
                transpose_tile(weights + q, rows, columns, k_here, n_in, j, layer[N_OUT], wt)
    if k == 0 and layer[TRAIN_BIAS]:
        learn_biases(layer, parameters, delta, j, columns, m, g, first, last, code, hyper)


@jit
def gather_columns(x, x_index, x_stride, m, begin, end, target, stride):
    """target[i, : end - begin] = x_ik for begin <= k < end, the rows side by side."""
    for i in range(m):
        copy(x + (x_index[i] * x_stride + begin), target + i * stride, end - begin)


@jit
def learn_strips(
    layer, parameters, x, x_index, x_stride, workspace, m, worker, begin, end, j, last_j, first, last, code, hyper
):
    """The strips begin <= strip < end of the neurons from j up to last_j of a layer, counted along these first."""
    weights = parameters.weights
    wide, length = n_columns(WIDE, weights), STRIP * n_rows(WIDE, weights)
    split = layer[PANELS] * wide
    panels = (min(last_j, split) - j) // wide
    n_wide = panels * ((layer[N_IN] + length - 1) // length)
    gathered = workspace.strips + worker * workspace.strip_size
    in_place = panels < GATHERED_PANELS or m < GATHERED_ROWS
    k_gathered = -1
    for strip in range(begin, end):
        if strip < n_wide:
            j_here, k = j + strip % panels * wide, strip // panels * length
            if in_place:
                learn_strip(
                    WIDE, layer, parameters, x, x_index, x_stride, j_here, k, workspace, m, worker, first, last, code,
                    hyper,
                )  # fmt: skip
            else:
                if k != k_gathered:
                    gather_columns(x, x_index, x_stride, m, k, min(k + length, layer[N_IN]), gathered, length)
                    k_gathered = k
                learn_strip(
                    WIDE, layer, parameters, gathered + (-k), workspace.index, length, j_here, k, workspace, m, worker,
                    first, last, code, hyper,
                )  # fmt: skip
        else:
            k = (strip - n_wide) * STRIP * n_rows(NARROW_TILE, weights)
            learn_strip(
                NARROW_TILE, layer, parameters, x, x_index, x_stride, split, k, workspace, m, worker, first, last, code,
                hyper,
            )  # fmt: skip


@jit
def gradients(
    layers, parameters, x, x_index, x_stride, workspace, m, worker, n_workers, first, last, code, hyper, skipped
):
    """A worker's share of all layers but the first `skipped`, for the m samples of one slab.

    Of a layer that is owned these are its own neurons, of all others together some strips.
    """
    weights = parameters.weights
    wide, length = n_columns(WIDE, weights), STRIP * n_rows(WIDE, weights)
    length_narrow = STRIP * n_rows(NARROW_TILE, weights)
    n_divided = 0  # strips of the layers that are divided by strips
    for l in range(layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        if l >= skipped and not is_owned(layer, weights, m, n_workers):
            n_divided += layer[STRIPS]
    begin, end = n_divided * worker // n_workers, n_divided * (worker + 1) // n_workers
    below = 0  # strips of such layers below this one
    for l in range(layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        strip, last_strip = max(begin - below, 0), min(end - below, layer[STRIPS])
        j, last_j = 0, padded_neurons(layer, weights)
        if l < skipped:
            last_strip = strip
        elif is_owned(layer, weights, m, n_workers):
            j, last_j = own_neurons(layer, weights, worker, n_workers)
            strip, last_strip = 0, (last_j - j) // wide * ((layer[N_IN] + length - 1) // length)
            if last_j > layer[PANELS] * wide:
                last_strip += (layer[N_IN] + length_narrow - 1) // length_narrow
        else:
            below += layer[STRIPS]
        learn_strips(
            layer, parameters, x, x_index, x_stride, workspace, m, worker, strip, last_strip, j, last_j, first,
            last, code, hyper,
        )  # fmt: skip
        x, x_index, x_stride = workspace.a + layer[A], workspace.index, layer[STRIDE]
