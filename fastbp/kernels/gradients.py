"""Gradients: dC/dw_jk = a_k delta_j (BP4) and dC/db_j = delta_j (BP3), summed over the mini-batch, then put to use.

Each element is cut into blocks of `BLOCK` samples, each one chain of fused multiply-adds, and the blocks are added in
order. A finished tile updates its parameters at once, without passing through memory.

Where there are few parameters and many samples, each worker computes the gradients of whole blocks, whose activations
and deltas it has at hand, and they are added afterwards.

The tiles of all layers are divided among the workers by *strips*: some tiles along k of one panel. All panels of the
same k follow each other, so that these columns of the inputs are fetched from memory once for all neurons.
"""

from __future__ import annotations

from fastbp.kernels._jit import inlined, jit, outline
from fastbp.kernels.layers import (
    BLOCK,
    K_PADDED,
    LAYER_COLUMNS,
    N_IN,
    N_OUT,
    NARROW,
    PANELS,
    PART,
    PENALISED,
    STRIDE,
    STRIP,
    SUM,
    TRAIN_BIAS,
    WT,
    A,
    B,
    Inputs,
    W,
)
from fastbp.kernels.memory import copy
from fastbp.kernels.norms import square, square_single
from fastbp.kernels.pointers import prefetch
from fastbp.kernels.shares import is_owned, is_single, own_neurons, padded_neurons
from fastbp.kernels.simd import fma, lanes, load, load_wide, no_sum, store, store_rounded, wide_zeros, widen
from fastbp.kernels.tiles import NARROW as NARROW_TILE
from fastbp.kernels.tiles import WIDE, add, consecutive, load_tile, n_columns, n_rows, outer, store_tile, zeros
from fastbp.kernels.updates import update, update_many

# The inputs of a strip are gathered where enough panels and rows repay it: rows of X lie on a page of memory each, and
# more pages than the core remembers slow every access down.
GATHERED_PANELS, GATHERED_ROWS = 3, 32
EVERYTHING = 1 << 62  # more work than any layer is
FETCHED_AHEAD = 32  # samples whose products take long enough to fetch a tile of parameters meanwhile


@inlined
def weight_gradient(shape, inputs, k, delta, stride, m, fresh, sums):
    """sums[k, j] = sum_i x_ik delta_ij for the k and j of one tile, or += if not fresh."""
    x, offsets = inputs.a + k, consecutive(shape, delta)
    for first in range(0, m, BLOCK):
        tile = zeros(shape, delta)
        for i in range(first, min(first + BLOCK, m)):
            tile = outer(tile, x + inputs.index[i] * inputs.stride, offsets, delta + i * stride)
        if first > 0 or not fresh:
            tile = add(load_tile(shape, sums), tile)
        store_tile(sums, tile)


@jit
def add_parts(part, part_size, n_parts, fresh, sums, n):
    """sums[:n] = the sum of the parts of some blocks, or += if not fresh."""
    outline()
    for q in range(0, n, lanes(sums)):
        total = load(part + q)
        if not fresh:
            total = load(sums + q) + total
        for b in range(1, n_parts):
            total = total + load(part + (b * part_size + q))
        store(sums + q, total)


@inlined
def bias_gradient(delta, stride, part, part_size, columns, slab, sums):
    """sums[j] = sum_i delta_ij in float64 for the neurons j of one panel, or += if these samples are not the first."""
    second = columns - lanes(delta)  # of the two registers of a row; the first again in a narrow panel
    total_1 = wide_zeros(delta) if slab.first else widen(load(sums))
    total_2 = wide_zeros(delta) if slab.first else widen(load(sums + second))
    for first in range(0, slab.m, BLOCK):
        block_1, block_2 = wide_zeros(delta), wide_zeros(delta)
        if slab.asked == SUM:
            here = part + first // BLOCK * part_size
            block_1, block_2 = load_wide(delta, here), load_wide(delta, here + second)
        else:
            for i in range(first, min(first + BLOCK, slab.m)):
                block_1 = block_1 + widen(load(delta + i * stride))
                block_2 = block_2 + widen(load(delta + (i * stride + second)))
        if slab.asked == PART:
            store(part, block_1)
            store(part + second, block_2)
        total_1, total_2 = total_1 + block_1, total_2 + block_2
    if slab.asked != PART:
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
def place_of(q, parameters, workspace, worker, slab):
    """Where the gradient of the parameters from q on is computed: by the worker in its scratch, unless it is kept."""
    if slab.asked == PART:
        return workspace.parts + (slab.begin // BLOCK * workspace.part_size + q)
    if slab.first and slab.last:
        weights = parameters.weights
        return workspace.scratch + worker * (n_rows(WIDE, weights) * n_columns(WIDE, weights))  # no tile is larger
    return parameters.sums + q


@jit
def learn_biases(layer, parameters, workspace, j, columns, worker, slab, hyper):
    """The gradient of the biases of one panel, which begins at neuron j, and their update."""
    outline()
    q, stride, size = layer[B] + j, layer[STRIDE], workspace.part_size
    delta = workspace.delta + (layer[A] + slab.begin * stride + j)
    part = workspace.bias_parts + (slab.begin // BLOCK * size + q)
    b, slot_1, slot_2 = parameters.weights + q, parameters.slot_1 + q, parameters.slot_2 + q
    g = place_of(q, parameters, workspace, worker, slab)
    bias_gradient(delta, stride, part, size, columns, slab, g)
    if slab.last:
        update_many(hyper.code, b, g, slot_1, slot_2, columns, 0.0, hyper)


@jit
def gather_columns(inputs, m, k, n, workspace, worker):
    """The inputs k, ..., k + n - 1 of m rows, side by side in the worker's own memory; zeros for those that are not."""
    target = workspace.strips + worker * workspace.strip_size
    there = min(inputs.n - k, n)
    for i in range(m):
        row = target + i * n
        copy(inputs.a + (inputs.index[i] * inputs.stride + k), row, there)
        for c in range(there, n):
            row[c] = 0
    return Inputs(target + (-k), workspace.index, n, k + n)


@jit
def learn_strip(shape, layer, parameters, inputs, j, k, workspace, worker, slab, hyper):
    """The gradient of one strip of a layer, from neurons j and k on, and its update; with k = 0 the biases too.

    A mini-batch of several slabs is summed in `parameters.sums`.
    """
    weights, slot_1, slot_2 = parameters.weights, parameters.slot_1, parameters.slot_2
    columns, rows, n_in = n_columns(shape, weights), n_rows(shape, weights), layer[N_IN]
    delta = workspace.delta + (layer[A] + slab.begin * layer[STRIDE] + j)
    size = rows * columns
    penalty = hyper.penalty if layer[PENALISED] else 0.0
    end = min(k + STRIP, n_in)
    if slab.last and penalty != 0.0:
        q = layer[W] + j * layer[K_PADDED] + k * columns
        square(layer, weights + q, k, end - k, columns, j, workspace)
    for k_here in range(k, end, rows):
        q = layer[W] + j * layer[K_PADDED] + k_here * columns
        g = place_of(q, parameters, workspace, worker, slab)
        if slab.last and slab.m >= FETCHED_AHEAD:
            prefetch(weights + q, size)
            prefetch(slot_1 + q, size)
            prefetch(slot_2 + q, size)
        if slab.asked == SUM:
            add_parts(workspace.parts + q, workspace.part_size, n_blocks(slab.m), slab.first, g, size)
        else:
            if k_here + rows > inputs.n:
                inputs = gather_columns(inputs, slab.m, k_here, rows, workspace, worker)
            weight_gradient(shape, inputs, k_here, delta, layer[STRIDE], slab.m, slab.first, g)
        if slab.last:
            update(hyper.code, weights + q, g, slot_1 + q, slot_2 + q, size, penalty, hyper)
            if layer[WT] >= 0:
                wt = parameters.transposed + layer[WT]
                transpose_tile(weights + q, rows, columns, k_here, n_in, j, layer[N_OUT], wt)
    if k == 0 and layer[TRAIN_BIAS]:
        learn_biases(layer, parameters, workspace, j, columns, worker, slab, hyper)


@jit
def single_gradient(a, stride, delta, delta_stride, m, fresh, sums):
    """sums[k] = sum_i a_ik delta_i for the inputs k of two registers, or += if not fresh."""
    v = lanes(a)
    total_1, total_2 = load(sums), load(sums + v)
    for first in range(0, m, BLOCK):
        block_1, block_2 = no_sum(a), no_sum(a)
        for i in range(first, min(first + BLOCK, m)):
            delta_i = delta[i * delta_stride]
            block_1 = fma(load(a + i * stride), delta_i, block_1)
            block_2 = fma(load(a + (i * stride + v)), delta_i, block_2)
        if first > 0 or not fresh:
            block_1, block_2 = total_1 + block_1, total_2 + block_2
        total_1, total_2 = block_1, block_2
    store(sums, total_1)
    store(sums + v, total_2)


@jit
def learn_single(layer, parameters, inputs, workspace, worker, slab, hyper):
    """The gradient of a layer's only neuron, whose registers hold inputs k, and its update."""
    outline()
    weights, n_in = parameters.weights, layer[N_IN]
    size, delta = 2 * lanes(weights), workspace.delta + (layer[A] + slab.begin * layer[STRIDE])
    penalty = hyper.penalty if layer[PENALISED] else 0.0
    if slab.last and penalty != 0.0:
        square_single(layer, weights + layer[W], workspace)
    for k in range(0, n_in, size):
        q = layer[W] + k
        g = place_of(q, parameters, workspace, worker, slab)
        if slab.asked == SUM:
            add_parts(workspace.parts + q, workspace.part_size, n_blocks(slab.m), slab.first, g, size)
        else:
            a = inputs.a + (inputs.index[0] * inputs.stride + k)
            single_gradient(a, inputs.stride, delta, layer[STRIDE], slab.m, slab.first, g)
        for r in range(n_in - k, size):  # what lies beyond the inputs shall not grow
            g[r] = 0
        if slab.last:
            update_many(
                hyper.code, weights + q, g, parameters.slot_1 + q, parameters.slot_2 + q, size, penalty, hyper
            )  # fmt: skip
            copy(weights + q, parameters.transposed + (layer[WT] + k), min(size, n_in - k))
    if layer[TRAIN_BIAS]:
        learn_biases(layer, parameters, workspace, 0, lanes(weights), worker, slab, hyper)


@jit
def n_blocks(m):
    """Into how many blocks m samples are cut."""
    return (m + BLOCK - 1) // BLOCK


@jit
def strip_work(shape, weights, n):
    """What a strip of n inputs is, in multiply-adds of registers for each sample."""
    rows, registers = n_rows(shape, weights), n_columns(shape, weights) // lanes(weights)
    return (n + rows - 1) // rows * rows * registers


@jit
def layer_work(layer, weights):
    """What all strips of a layer are."""
    n_in = layer[N_IN]
    if is_single(layer):
        return n_in // lanes(weights) + 1
    return layer[PANELS] * strip_work(WIDE, weights, n_in) + layer[NARROW] * strip_work(NARROW_TILE, weights, n_in)


@jit
def learn_strips(layer, parameters, inputs, first_j, last_j, before, begin, end, workspace, worker, slab, hyper):
    """A worker's strips of the neurons first_j <= j < last_j of a layer.

    Its own are those whose middle lies from `begin` up to `end` when the work of all strips, `before` of it below this
    layer, lies along a line.
    """
    weights, n_in = parameters.weights, layer[N_IN]
    wide, narrow = n_columns(WIDE, weights), lanes(weights)
    split = layer[PANELS] * wide
    if is_single(layer):
        if begin <= 2 * before + layer_work(layer, weights) < end:
            learn_single(layer, parameters, inputs, workspace, worker, slab, hyper)
        return
    last_wide = min(last_j, split)
    repays_gathering = (last_wide - first_j) // wide >= GATHERED_PANELS and slab.m >= GATHERED_ROWS
    for k in range(0, n_in, STRIP):
        work = strip_work(WIDE, weights, min(STRIP, n_in - k))
        strip_inputs, is_gathered = inputs, False
        for j in range(first_j, last_wide, wide):
            if begin <= 2 * before + work < end:
                if repays_gathering and slab.asked != SUM and not is_gathered:
                    strip_inputs, is_gathered = gather_columns(inputs, slab.m, k, STRIP, workspace, worker), True
                learn_strip(WIDE, layer, parameters, strip_inputs, j, k, workspace, worker, slab, hyper)
            before += work
    for k in range(0, n_in, STRIP):
        work = strip_work(NARROW_TILE, weights, min(STRIP, n_in - k))
        for j in range(max(first_j, split), last_j, narrow):
            if begin <= 2 * before + work < end:
                learn_strip(NARROW_TILE, layer, parameters, inputs, j, k, workspace, worker, slab, hyper)
            before += work


@jit
def gradients(layers, parameters, inputs, workspace, worker, part, n_parts, slab, hyper, skipped):
    """One of the shares of all layers but the first `skipped`, computed by a worker.

    Of a layer that is owned these are its own neurons, of all others together strips of about the same work.
    """
    outline()
    weights = parameters.weights
    total = 0
    for l in range(skipped, layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        if not is_owned(layer, weights, slab.m, n_parts):
            total += layer_work(layer, weights)
    before = 0
    for l in range(layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        if l >= skipped:
            j, last_j = 0, padded_neurons(layer, weights)
            begin, end = 2 * total * part // n_parts, 2 * total * (part + 1) // n_parts
            if is_owned(layer, weights, slab.m, n_parts):
                j, last_j = own_neurons(layer, weights, part, n_parts)
                begin, end = 0, EVERYTHING
            learn_strips(layer, parameters, inputs, j, last_j, before, begin, end, workspace, worker, slab, hyper)
            if end != EVERYTHING:
                before += layer_work(layer, weights)
        inputs = Inputs(workspace.a + layer[A], workspace.index + slab.begin, layer[STRIDE], layer[N_OUT])
