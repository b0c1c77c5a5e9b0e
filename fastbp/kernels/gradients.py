"""Gradients: dC/dw_jk = a_k delta_j (BP4) and dC/db_j = delta_j (BP3), summed over the mini-batch, then put to use.

Each element is cut into blocks of at most `BLOCK` samples, each one chain of fused multiply-adds, and the blocks are
added in order. A finished tile, or where samples are few a strip of tiles, updates its parameters at once, from the
nearest cache.

Where each worker has a replica of the parameters, it computes the gradients of whole blocks, whose activations and
deltas it has at hand, and all workers add those of all blocks afterwards.

The tiles of all layers are divided among the workers by *strips*: some tiles along k of one panel. Where samples are
many, all panels of the same k follow each other, so that these columns of the inputs are fetched from memory once for
all neurons, and where workers halve the inputs; where samples are few, all strips of a panel, so that parameters are
fetched in the order in which they lie.
"""

from __future__ import annotations

from fastbp.kernels._jit import NONE, jit, outline
from fastbp.kernels.layers import (
    GAP,
    HALVED,
    K_PADDED,
    LAYER_COLUMNS,
    N_IN,
    N_OUT,
    NARROW,
    PANELS,
    PART,
    PENALISED,
    SECOND,
    STRIDE,
    STRIP,
    SUM,
    TRAIN_BIAS,
    WHOLE,
    WORDS,
    WT,
    A,
    B,
    Inputs,
    W,
)
from fastbp.kernels.memory import copy
from fastbp.kernels.norms import square, square_single
from fastbp.kernels.pointers import prefetch
from fastbp.kernels.shares import (
    is_few,
    is_halved,
    is_owned,
    is_single,
    n_blocks,
    own_chain,
    own_neurons,
    padded_neurons,
    transposed_rows,
)
from fastbp.kernels.simd import fma, lanes, load, load_first, load_wide, no_sum, store, store_rounded, wide_zeros, widen
from fastbp.kernels.tiles import (
    FEW_NARROW,
    FEW_WIDE,
    LONG_NARROW,
    NARROW_PANEL,
    PANEL,
    PANELS_2,
    TALL_NARROW,
    TALL_WIDE,
    WIDE,
    add,
    consecutive,
    fits_tall,
    load_tile,
    n_columns,
    n_rows,
    n_turned,
    outer,
    rounded_up,
    store_tile,
    turn,
    zeros,
)
from fastbp.kernels.tiles import NARROW as NARROW_TILE
from fastbp.kernels.updates import update
from fastbp.kernels.zeros import column_bits_of, gradient_of_non_zeros, mark_columns

# The inputs of a strip are gathered where enough panels and rows repay it: rows of X lie on a page of memory each, and
# more pages than the core remembers slow every access down. Where rows are fewer, strips follow each other by panels.
GATHERED_PANELS, GATHERED_ROWS = 3, 32
EVERYTHING = 1 << 62  # more work than any layer is
AT_ONCE = 8  # inputs whose parameters are updated together, where zeros are left out of a single block
FETCHED_AHEAD = 32  # samples whose products take long enough to fetch a tile's parameters meanwhile


@jit
def weight_gradient(shape, inputs, k, end, delta, stride, slab, sums):
    """sums[k, j] = sum_i x_ik delta_ij from k up to `end`, for the j of one panel; or += if there were samples before.

    sums tile after tile, the last one whole.
    """
    outline()
    rows, offsets = n_rows(shape, delta), consecutive(shape, delta)
    for k_here in range(k, end, rows):
        x, first = inputs.a + k_here, 0
        while first < slab.m:  # a range whose step is no constant divides
            tile = zeros(shape, delta)
            for i in range(first, min(first + slab.block, slab.m)):
                tile = outer(tile, x + inputs.index[i] * inputs.stride, offsets, delta + i * stride)
            if first > 0 or not slab.first:
                tile = add(load_tile(shape, sums), tile)
            store_tile(sums, tile)
            first += slab.block
        sums = sums + rows * n_columns(shape, delta)


@jit
def few_gradient(inputs, k, n_k, delta, stride, index, n, slab, tile, sums):
    """`weight_gradient` of n_k inputs and the few neurons n of a panel: here the neurons are the rows of a tile."""
    outline()
    v, end = lanes(delta), min(k + n_k, inputs.n)
    for r in range(n_k):
        store(sums + r * v, no_sum(delta))
    deltas = Inputs(delta, index, stride, n, inputs.bits)
    for first in range(k, end, v):
        a = inputs.a + (inputs.index[0] * inputs.stride + first)
        weight_gradient(FEW_NARROW, deltas, 0, n, a, inputs.stride, slab, tile)
        for r in range(min(v, end - first)):
            for j in range(n):
                sums[(first - k + r) * v + j] = tile[j * v + r]


@jit
def add_parts(q, workspace, slab, sums, n):
    """sums[:n] = the sum of what the blocks of a slab give for the parameters from q on, or += if there were others."""
    outline()
    size = workspace.part_size
    part, n_parts = workspace.parts + (slab.part * size + q), n_blocks(slab.m, slab.block)
    for q in range(0, n, lanes(sums)):
        total = load(part + q)
        if not slab.first:
            total = load(sums + q) + total
        for b in range(1, n_parts):
            total = total + load(part + (b * size + q))
        store(sums + q, total)


@jit
def bias_gradient(delta, stride, part, part_size, slab, sums):
    """sums[j] = sum_i delta_ij in float64 for the j of one register, or += if these samples are not the first."""
    total = wide_zeros(delta) if slab.first else widen(load(sums))
    first = 0
    while first < slab.m:
        block = wide_zeros(delta)
        if slab.asked == SUM:
            block = load_wide(delta, part + first // slab.block * part_size)
        else:
            for i in range(first, min(first + slab.block, slab.m)):
                block = block + widen(load(delta + i * stride))
        if slab.asked == PART:
            store(part, block)
        total = total + block
        first += slab.block
    if slab.asked != PART:
        store_rounded(sums, total)


@jit
def transpose_strip(layer, w, k, end, columns, j, wt):
    """Copy w_jk of a strip of inputs k, ..., end - 1 and one panel from neuron j on into the transposed panels."""
    outline()
    narrow, n_in, rows = lanes(w), layer[N_IN], transposed_rows(layer, w)
    for k_here in range(k, end, n_turned(w)):
        panel = k_here // (2 * narrow) * (2 * narrow)
        width = 2 * narrow if n_in - panel > narrow else narrow
        row, column = w + (k_here - k) * columns, wt + (panel * rows + k_here - panel + j * width)
        for c in range(0, columns, narrow):
            turn(row + c, columns, column + c * width, width)


@jit
def scratch_of(workspace, worker, weights):
    """A worker's own memory for the gradient of a strip, none of which is larger than one of two wide panels."""
    return workspace.scratch + worker * (2 * STRIP * n_columns(WIDE, weights) + GAP)


@jit
def is_used_at_once(slab):
    """Whether a slab is a whole mini-batch, whose gradient nobody else adds to."""
    return slab.asked != PART and slab.first and slab.last


@jit
def place_of(q, parameters, workspace, worker, slab):
    """Where the gradient of the parameters from q on is computed: by the worker in its scratch, unless it is kept."""
    if slab.asked == PART:
        return workspace.parts + (slab.part * workspace.part_size + q)
    if is_used_at_once(slab):
        return scratch_of(workspace, worker, parameters.weights)
    return parameters.sums + q


@jit
def learn_biases(layer, parameters, workspace, j, columns, worker, slab, hyper):
    """The gradient of the biases of one panel, which begins at neuron j, and their update."""
    outline()
    q, stride, size = layer[B] + j, layer[STRIDE], workspace.part_size
    delta = workspace.delta + (layer[A] + slab.begin * stride + j)
    part = workspace.bias_parts + (slab.part * size + q)
    b, slot_1, slot_2 = parameters.weights + q, parameters.slot_1 + q, parameters.slot_2 + q
    g = place_of(q, parameters, workspace, worker, slab)
    for c in range(0, columns, lanes(delta)):
        bias_gradient(delta + c, stride, part + c, size, slab, g + c)
    for c in range(stride, columns):  # of one neuron whose deltas lie side by side
        g[c] = 0
    if slab.last:
        update(hyper.code, b, g, slot_1, slot_2, columns, 0.0, hyper)


@jit
def gather_columns(inputs, m, k, n, workspace, worker):
    """The inputs k, ..., k + n - 1 of m rows, side by side in the worker's own memory; zeros for those that are not."""
    target = workspace.strips + worker * workspace.strip_size
    there = min(inputs.n - k, n)
    for i in range(m):
        source = inputs.a + (inputs.index[i] * inputs.stride + k)
        for c in range(0, n, lanes(target)):  # the last register reaches into the next row, which is yet to come
            store(target + (i * n + c), load_first(source + c, there - c))
    return Inputs(target + (-k), workspace.index, n, k + n, inputs.bits)


@jit
def tile_rows(weights, wide, n_in):
    """Inputs k of a tile of two registers or one that fits so many inputs."""
    if n_in <= n_rows(FEW_WIDE, weights):
        return n_rows(FEW_WIDE, weights)
    if fits_tall(weights, n_in):
        return n_rows(TALL_WIDE, weights) if wide else n_rows(TALL_NARROW, weights)
    return n_rows(WIDE, weights) if wide else n_rows(NARROW_TILE, weights)


@jit
def gradient_by(wide, rows, inputs, k, end, delta, stride, slab, sums):
    """`weight_gradient` by tiles of two registers, or of one, and so many rows, or twice as many."""
    if not wide and end - k >= n_rows(LONG_NARROW, delta) and n_rows(LONG_NARROW, delta) % rows == 0:
        first, k = k, end - (end - k) % n_rows(LONG_NARROW, delta)
        weight_gradient(LONG_NARROW, inputs, first, k, delta, stride, slab, sums)
        sums = sums + (k - first) * lanes(delta)
    if wide and rows == n_rows(FEW_WIDE, delta):
        weight_gradient(FEW_WIDE, inputs, k, end, delta, stride, slab, sums)
    elif wide and rows == n_rows(WIDE, delta):
        weight_gradient(WIDE, inputs, k, end, delta, stride, slab, sums)
    elif wide:
        weight_gradient(TALL_WIDE, inputs, k, end, delta, stride, slab, sums)
    elif rows == n_rows(FEW_NARROW, delta):
        weight_gradient(FEW_NARROW, inputs, k, end, delta, stride, slab, sums)
    elif rows == n_rows(NARROW_TILE, delta):
        weight_gradient(NARROW_TILE, inputs, k, end, delta, stride, slab, sums)
    else:
        weight_gradient(TALL_NARROW, inputs, k, end, delta, stride, slab, sums)


@jit
def learn_strip(layer, parameters, inputs, wide, j, k, workspace, worker, slab, hyper):
    """The gradient of one strip of a layer, from neurons j and k on, and its update; with k = 0 the biases too.

    A mini-batch of several slabs is summed in `parameters.sums`.
    """
    outline()
    weights, slot_1, slot_2 = parameters.weights, parameters.slot_1, parameters.slot_2
    n_in, rows = layer[N_IN], tile_rows(weights, wide, layer[N_IN])
    columns = n_columns(WIDE, weights) if wide else lanes(weights)
    delta = workspace.delta + (layer[A] + slab.begin * layer[STRIDE] + j)
    penalty = hyper.penalty if layer[PENALISED] else 0.0
    end = min(k + STRIP, n_in)
    strip = layer[W] + j * layer[K_PADDED] + k * columns
    if slab.last and penalty != 0.0:
        square(layer, weights + strip, k, end - k, columns, j, workspace)
    # tile by tile where each is updated at once, from the nearest cache, unless samples are few: an update of a strip
    # costs less than those of its tiles
    few = is_few(layer, weights, wide) and slab.first
    at_once = STRIP
    if slab.m >= FETCHED_AHEAD and slab.asked == WHOLE and not few:
        at_once = rows if wide else rounded_up(n_rows(LONG_NARROW, weights), rows)
    for first in range(k, end, at_once):
        last = min(first + at_once, end)
        n_k = rounded_up(last - first, rows)
        q, size = strip + (first - k) * columns, n_k * columns
        g = place_of(q, parameters, workspace, worker, slab)
        if slab.last and slab.m >= FETCHED_AHEAD:
            prefetch(weights + q, size)
            prefetch(slot_1 + q, size)
            prefetch(slot_2 + q, size)
        if slab.asked == SUM:
            add_parts(q, workspace, slab, g, size)
        elif few:
            tile = scratch_of(workspace, worker, weights) + STRIP * columns
            index, n = workspace.index, layer[N_OUT]
            few_gradient(inputs, first, n_k, delta, layer[STRIDE], index, n, slab, tile, g)
        else:
            if first + n_k > inputs.n:
                inputs = gather_columns(inputs, slab.m, first, n_k, workspace, worker)
            gradient_by(wide, rows, inputs, first, last, delta, layer[STRIDE], slab, g)
        if slab.last:
            update(hyper.code, weights + q, g, slot_1 + q, slot_2 + q, size, penalty, hyper)
    if slab.last and layer[WT] >= 0:
        transpose_strip(layer, weights + strip, k, end, columns, j, parameters.transposed + layer[WT])
    if k == 0 and layer[TRAIN_BIAS]:
        learn_biases(layer, parameters, workspace, j, columns, worker, slab, hyper)


@jit
def learn_non_zeros(shape, layer, parameters, inputs, j, k, workspace, worker, slab, hyper):
    """`learn_strip` of as many panels as `shape` has rows, of a layer whose zeros are left out."""
    outline()
    weights, slot_1, slot_2 = parameters.weights, parameters.slot_1, parameters.slot_2
    panels, columns = n_rows(shape, weights), n_columns(shape, weights)
    delta = workspace.delta + (layer[A] + slab.begin * layer[STRIDE] + j)
    penalty = hyper.penalty if layer[PENALISED] else 0.0
    end, apart = min(k + STRIP, layer[N_IN]), columns * layer[K_PADDED]
    strip = layer[W] + j * layer[K_PADDED] + k * columns
    for p in range(panels if slab.last and penalty != 0.0 else 0):
        square(layer, weights + (strip + p * apart), k, end - k, columns, j + p * columns, workspace)
    # block by block where there are several: their deltas and these columns of their inputs stay in the nearest cache
    at_once = AT_ONCE if slab.m <= slab.block else STRIP
    for first in range(k, end, at_once):
        n_k = min(at_once, end - first)
        q, size = strip + (first - k) * columns, n_k * columns
        g = place_of(q, parameters, workspace, worker, slab)
        g_apart = at_once * columns if is_used_at_once(slab) else apart
        for p in range(panels if slab.last else 0):
            prefetch(weights + (q + p * apart), size)
            prefetch(slot_1 + (q + p * apart), size)
            prefetch(slot_2 + (q + p * apart), size)
        bits = column_bits_of(workspace, worker) + (first - k)
        for b in range(n_blocks(slab.m, slab.block)):
            gradient_of_non_zeros(shape, inputs, first, n_k, b, bits, delta, layer[STRIDE], slab, g, g_apart)
        for p in range(panels if slab.last else 0):
            q_p, g_p = q + p * apart, g + p * g_apart
            update(hyper.code, weights + q_p, g_p, slot_1 + q_p, slot_2 + q_p, size, penalty, hyper)
    for p in range(panels if k == 0 and layer[TRAIN_BIAS] else 0):
        learn_biases(layer, parameters, workspace, j + p * columns, columns, worker, slab, hyper)


@jit
def single_gradient(a, stride, delta, delta_stride, slab, sums):
    """sums[k] = sum_i a_ik delta_i for the k of two registers, or += if these samples are not the first."""
    v = lanes(a)
    total_1, total_2 = load(sums), load(sums + v)
    first = 0
    while first < slab.m:
        block_1, block_2 = no_sum(a), no_sum(a)
        for i in range(first, min(first + slab.block, slab.m)):
            delta_i = delta[i * delta_stride]
            block_1 = fma(load(a + i * stride), delta_i, block_1)
            block_2 = fma(load(a + (i * stride + v)), delta_i, block_2)
        if first > 0 or not slab.first:
            block_1, block_2 = total_1 + block_1, total_2 + block_2
        total_1, total_2 = block_1, block_2
        first += slab.block
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
            add_parts(q, workspace, slab, g, size)
        else:
            a = inputs.a + (inputs.index[0] * inputs.stride + k)
            single_gradient(a, inputs.stride, delta, layer[STRIDE], slab, g)
        for r in range(n_in - k, size):  # what lies beyond the inputs shall not grow
            g[r] = 0
        if slab.last:
            update(hyper.code, weights + q, g, parameters.slot_1 + q, parameters.slot_2 + q, size, penalty, hyper)
            copy(weights + q, parameters.transposed + (layer[WT] + k), min(size, n_in - k))
    if layer[TRAIN_BIAS]:
        learn_biases(layer, parameters, workspace, NONE, lanes(weights), worker, slab, hyper)


@jit
def strip_work(layer, weights, wide, n):
    """What n inputs of a layer are, in multiply-adds of registers for each sample; of whole strips the sum of each."""
    if is_few(layer, weights, wide):
        return rounded_up(n, 8) * n_rows(FEW_NARROW, weights) // lanes(weights)
    return rounded_up(n, tile_rows(weights, wide, layer[N_IN])) * (2 if wide else 1)


@jit
def layer_work(layer, weights, n):
    """What the strips of a layer's first n inputs are."""
    if is_single(layer):
        return n // lanes(weights) + 1
    return layer[PANELS] * strip_work(layer, weights, True, n) + layer[NARROW] * strip_work(layer, weights, False, n)


@jit
def half_of_strips(layer, weights, part, n_parts):
    """Where the strips of a halved layer begin and end that a worker learns: `learn_strips`, with none before."""
    first = 2 * layer_work(layer, weights, layer[SECOND])
    chain, begin, end = own_chain(first, part, n_parts)
    if chain == 0:
        return begin, end
    _, begin, end = own_chain(2 * layer_work(layer, weights, layer[N_IN]) - first, part, n_parts)
    return first + begin, first + end


@jit
def learn_strips_of_non_zeros(layer, parameters, inputs, before, begin, end, workspace, worker, slab, hyper):
    """`learn_strips` of a layer whose zeros are left out; two panels at a time are one strip."""
    outline()
    weights, n_in, last_j = parameters.weights, layer[N_IN], padded_neurons(layer, parameters.weights)
    columns, narrow = n_columns(WIDE, weights), lanes(weights)
    split = layer[PANELS] * columns
    for k in range(0, n_in, STRIP):
        j, is_marked = NONE, False
        while j < last_j:
            wide, panels = j < split, 2 if j + 2 * columns <= split else 1
            work = panels * strip_work(layer, weights, wide, min(STRIP, n_in - k))
            if begin <= 2 * before + work < end:
                if not is_marked:
                    mark_columns(layer, inputs, k, slab, column_bits_of(workspace, worker))
                is_marked = True
                rest = layer, parameters, inputs, j, k, workspace, worker, slab, hyper
                if panels == 2:
                    learn_non_zeros(PANELS_2, *rest)
                elif wide:
                    learn_non_zeros(PANEL, *rest)
                else:
                    learn_non_zeros(NARROW_PANEL, *rest)
            before += work
            j += panels * columns if wide else narrow


@jit
def learn_strips(layer, parameters, inputs, first_j, last_j, before, begin, end, workspace, worker, slab, hyper):
    """A worker's strips of the neurons first_j <= j < last_j of a layer.

    Its own are those whose middle lies from `begin` up to `end` when the work of all strips, `before` of it below this
    layer, lies along a line.
    """
    weights, n_in = parameters.weights, layer[N_IN]
    wide_columns, narrow = n_columns(WIDE, weights), lanes(weights)
    split = layer[PANELS] * wide_columns
    if is_single(layer):
        if begin <= 2 * before + layer_work(layer, weights, n_in) < end:
            learn_single(layer, parameters, inputs, workspace, worker, slab, hyper)
        return
    if layer[WORDS] and slab.asked != SUM:
        learn_strips_of_non_zeros(layer, parameters, inputs, before, begin, end, workspace, worker, slab, hyper)
        return
    rows = max(tile_rows(weights, True, n_in), tile_rows(weights, False, n_in))
    several = last_j - first_j > narrow
    repays_gathering = (last_j - first_j) // wide_columns >= GATHERED_PANELS and slab.m >= GATHERED_ROWS
    n_strips, by_panels = (n_in + STRIP - 1) // STRIP, slab.m < GATHERED_ROWS and layer[HALVED] == 0
    n_wide, first_narrow = max(min(last_j, split) - first_j, 0) // wide_columns, max(first_j, split)
    n_panels = n_wide + max(last_j - first_narrow, 0) // narrow
    strip_inputs, prepared_k = inputs, -1
    for s in range(n_strips * n_panels):
        p, k = s % n_panels, s // n_panels * STRIP
        if by_panels:
            p, k = s // n_strips, s % n_strips * STRIP
        wide = p < n_wide
        j = first_j + p * wide_columns if wide else first_narrow + (p - n_wide) * narrow
        work = strip_work(layer, weights, wide, min(STRIP, n_in - k))
        if begin <= 2 * before + work < end:
            n_k = rounded_up(min(STRIP, n_in - k), rows)
            if prepared_k != k and slab.asked != SUM:
                strip_inputs = inputs
                if repays_gathering or (several and k + n_k > inputs.n):
                    strip_inputs = gather_columns(inputs, slab.m, k, n_k, workspace, worker)
                prepared_k = k
            if wide:  # compiled for each: small mini-batches gain 3 %
                learn_strip(layer, parameters, strip_inputs, True, j, k, workspace, worker, slab, hyper)
            else:
                learn_strip(layer, parameters, strip_inputs, False, j, k, workspace, worker, slab, hyper)
        before += work


@jit
def gradients(layers, parameters, inputs, workspace, worker, part, n_parts, slab, hyper, skipped):
    """One of the shares of all layers but the first `skipped`, computed by a worker.

    Of a layer that is owned these are its own neurons, of one that is halved strips of its own inputs, of all others
    together strips of about the same work.
    """
    outline()
    weights = parameters.weights
    shared_begin, shared_end = 0, EVERYTHING
    if n_parts > 1:
        total = 0
        for l in range(skipped, layers.n):
            layer = layers.table + l * LAYER_COLUMNS
            if not is_owned(layer, weights, slab.m, n_parts) and not is_halved(layer, n_parts):
                total += layer_work(layer, weights, layer[N_IN])
        shared_begin, shared_end = 2 * total * part // n_parts, 2 * total * (part + 1) // n_parts
    before = NONE
    for l in range(layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        if l >= skipped:
            j, last_j, below = 0, padded_neurons(layer, weights), NONE
            if is_owned(layer, weights, slab.m, n_parts):
                j, last_j = own_neurons(layer, weights, part, n_parts)
                begin, end = 0, EVERYTHING
            elif is_halved(layer, n_parts):
                begin, end = half_of_strips(layer, weights, part, n_parts)
            else:
                begin, end, below = shared_begin, shared_end, before
                before += layer_work(layer, weights, layer[N_IN])
            learn_strips(layer, parameters, inputs, j, last_j, below, begin, end, workspace, worker, slab, hyper)
        inputs = Inputs(
            workspace.a + layer[A], workspace.index + slab.begin, layer[STRIDE], layer[N_OUT], workspace.bits
        )
