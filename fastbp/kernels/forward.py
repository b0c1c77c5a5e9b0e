"""Forward: z_j = b_j + sum_k w_jk a_k and a_j = sigma(z_j), layer by layer, for some rows of a mini-batch.

Where X has many inputs, a z of the first layer is the sum of two chains (chains.py).
"""

from __future__ import annotations

from fastbp.kernels._jit import NONE, jit
from fastbp.kernels.activations import activate
from fastbp.kernels.chains import add_chains
from fastbp.kernels.layers import (
    ACTIVATION,
    BOTH,
    K_PADDED,
    LAYER_COLUMNS,
    N_IN,
    N_OUT,
    OUT,
    PANELS,
    SECOND,
    STRIDE,
    WORDS,
    WT,
    A,
    B,
    Inputs,
    W,
)
from fastbp.kernels.memory import copy
from fastbp.kernels.pointers import pointer_at, prefetch_to_read
from fastbp.kernels.rows import (
    add_product4x4,
    add_products4x4,
    add_products16,
    column_of,
    repeat4x4,
    store4x4,
    store_column16,
)
from fastbp.kernels.shares import (
    is_few,
    is_halved,
    is_owned,
    is_single,
    own_chain,
    own_neurons,
    padded_neurons,
)
from fastbp.kernels.simd import fma, lanes, load16, spread16, store, store_first
from fastbp.kernels.sparse import sparse_sums
from fastbp.kernels.threads import barrier
from fastbp.kernels.tiles import (
    FEW_WIDE,
    NARROW,
    ROWS_8,
    ROWS_16,
    SHORT_NARROW,
    SHORT_WIDE,
    TALL_NARROW,
    TALL_WIDE,
    WIDE,
    add,
    add_outers,
    fits_tall,
    load_rows,
    n_columns,
    n_rows,
    near_offsets,
    repeat,
    row_offsets,
    store_rows,
    zeros,
)
from fastbp.kernels.zeros import sums_without_zeros

# Inputs of X in a row whose end the core does not see coming: it fetches longer rows ahead by itself
FETCHED_WIDTH = 256


@jit
def weighted_sums(shape, inputs, begin, end, w, b, chains, z, z_stride, fetched):
    """z_ij = b_j + sum_k w_jk x_ik for rows begin <= i < end and the neurons j of one panel.

    w one panel; b, z at the panel's first neuron; z (rows, ...) at i z_stride.
    Each z_ij is a chain of fused multiply-adds over first <= k < second and one over second <= k < last, whatever the
    tile; `chains` are (first, second, last), and b_j is part of the chain that begins with k = 0. The first `fetched`
    inputs of the next tile's rows are asked for.
    """
    columns = n_columns(shape, w)
    for i in range(begin, end, n_rows(shape, w)):
        x_rows = row_offsets(shape, w, inputs.index + i, inputs.stride, end - 1 - i)
        for r in range(i + n_rows(shape, w), min(i + 2 * n_rows(shape, w), end) if fetched else 0):
            prefetch_to_read(inputs.a + inputs.index[r] * inputs.stride, fetched)
        z_i, z_rows = z + i * z_stride, near_offsets(shape, w, z_stride, end - 1 - i)
        first_k, last_k, end_k = chains
        while first_k < end_k:
            tile = repeat(shape, b) if first_k == 0 else zeros(shape, b)
            tile = add_outers(tile, inputs.a, x_rows, w, columns, first_k, last_k, i == begin)
            if first_k > chains[0]:
                tile = add(load_rows(shape, z_i, z_rows), tile)
            store_rows(z_i, z_rows, tile)
            first_k, last_k = last_k, end_k


@jit
def single_sums(inputs, begin, end, w, b, n_in, z, z_stride):
    """`weighted_sums` of a layer's only neuron, 16 rows at a time: z_i = b + sum_k w_k x_ik."""
    whole = n_in - n_in % lanes(w)
    for i in range(begin, end, n_rows(ROWS_16, w)):
        rows = row_offsets(ROWS_16, w, inputs.index + i, inputs.stride, end - 1 - i)
        z_i = spread16(w, b[0])
        for k in range(0, whole, lanes(w)):
            z_i = add_products16(z_i, inputs.a + k, rows, w + k)
        for k in range(whole, n_in):
            z_i = fma(column_of(inputs.a + k, rows), w[k], z_i)
        if z_stride == 1:
            store_first(z + i, end - i, z_i)
        else:
            store_column16(z, i, end - 1, z_i)


@jit
def few_sums(inputs, begin, end, w, b, n_in, z):
    """`weighted_sums` of a layer's only panel, of at most 4 neurons, twice 4 rows at a time; their z lie at 16 i."""
    fourfold, v = n_in - n_in % 4, lanes(w)
    for i in range(begin, end, n_rows(ROWS_8, w)):
        x, rows = inputs.a + i * inputs.stride, near_offsets(ROWS_8, w, inputs.stride, end - 1 - i)
        z_1, z_2 = repeat4x4(b), repeat4x4(b)
        for k in range(0, fourfold, 4):
            z_1 = add_products4x4(z_1, x + k, rows[:4], w + k * v)
            z_2 = add_products4x4(z_2, x + k, rows[4:], w + k * v)
        for k in range(fourfold, n_in):
            z_1 = add_product4x4(z_1, x + k, rows[:4], w + k * v)
            z_2 = add_product4x4(z_2, x + k, rows[4:], w + k * v)
        store4x4(z, i, end - 1, z_1)
        store4x4(z, i + 4, end - 1, z_2)


@jit
def sums_by(wide, inputs, begin, end, w, b, chains, z, z_stride, fetched):
    """`weighted_sums` of a panel of two registers or one, by tiles that fit the rows and the inputs."""
    rows = inputs, begin, end, w, b, chains, z, z_stride, fetched
    short, tall = end - begin <= n_rows(SHORT_WIDE, w), fits_tall(w, end - begin)
    if wide and chains[2] <= n_rows(FEW_WIDE, w):
        weighted_sums(FEW_WIDE, *rows)
    elif wide and short:
        weighted_sums(SHORT_WIDE, *rows)
    elif wide and tall:
        weighted_sums(TALL_WIDE, *rows)
    elif wide:
        weighted_sums(WIDE, *rows)
    elif short:
        weighted_sums(SHORT_NARROW, *rows)
    elif tall:
        weighted_sums(TALL_NARROW, *rows)
    else:
        weighted_sums(NARROW, *rows)


@jit
def activate_columns(code, z, prime, stride, begin, end, first, last, training):
    """a_j = sigma(z_j) in place of z_j, and sigma'(z_j) where BP2 will multiply by it; neurons first <= j < last."""
    for i in range(begin, end):
        for j in range(i * stride + first, i * stride + last, 16):
            a, derivative = activate(code, load16(z + j))
            store(z + j, a)
            if training:
                store(prime + j, derivative)


@jit
def layer_sums(layer, weights, inputs, non_zeros, sparse, workspace, begin, end, first, last, chain):
    """The z of a layer: rows begin <= i < end, neurons first <= j < last, or of their two chains one.

    All neurons where zeros are left out. The second chain alone is put where the deltas will be.
    """
    n_in, second, stride = layer[N_IN], layer[SECOND], layer[STRIDE]
    w, b, z = weights + layer[W], weights + layer[B], (workspace.delta if chain == 1 else workspace.a) + layer[A]
    chains = second if chain == 1 else NONE, n_in if chain == 1 else second, second if chain == 0 else n_in
    wide, narrow = n_columns(WIDE, w), lanes(w)
    split = layer[PANELS] * wide
    fetched = n_in if layer[WT] < 0 and n_in <= FETCHED_WIDTH else 0
    if sparse:
        sparse_sums(layer, weights, inputs, non_zeros, begin, end, workspace.a)
    elif is_single(layer):
        single_sums(inputs, begin, end, w, b, n_in, z, stride)
    elif is_few(layer, weights, layer[PANELS] > 0):
        few_sums(inputs, begin, end, w, b, n_in, z)
    elif layer[WORDS]:
        sums_without_zeros(layer, chain, weights, inputs, workspace, begin, end)
    else:
        for j in range(first, min(last, split), wide):
            panel = w + j * layer[K_PADDED]
            sums_by(True, inputs, begin, end, panel, b + j, chains, z + j, stride, fetched if j == first else 0)
        for j in range(max(first, split), last, narrow):
            panel = w + j * layer[K_PADDED]
            sums_by(False, inputs, begin, end, panel, b + j, chains, z + j, stride, fetched if j == first else 0)


@jit
def activate_layer(layer, workspace, begin, end, first, last, training):
    """The a of a hidden layer from its z; when training, its deltas hold sigma'(z_j) until BP2 multiplies them."""
    z, prime = workspace.a + layer[A], workspace.delta + layer[A]
    activate_columns(layer[ACTIVATION], z, prime, layer[STRIDE], begin, end, first, last, training)


@jit
def forward(layers, parameters, inputs, non_zeros, workspace, begin, end):
    """All hidden layers' a, and the output layer's z, for rows begin <= i < end.

    Returns in how many of the rows the first neuron's z is not finite: an input that is not finite always shows there.
    """
    doubtful = 0
    for l in range(layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        sparse, n = l == 0 and non_zeros.sparse == 1, padded_neurons(layer, parameters.weights)
        layer_sums(layer, parameters.weights, inputs, non_zeros, sparse, workspace, begin, end, 0, n, BOTH)
        if l == 0:
            for i in range(begin, end):
                z = workspace.a[layer[A] + i * layer[STRIDE]]
                doubtful += z - z != 0.0
        if l < layers.n - 1:
            activate_layer(layer, workspace, begin, end, 0, n, False)
        inputs = Inputs(workspace.a + layer[A], workspace.index, layer[STRIDE], layer[N_OUT], workspace.bits)
    return doubtful


@jit
def forward_together(layers, parameters, inputs, non_zeros, workspace, rows, begin, end, team, worker, n_workers):
    """The same of the first `rows` rows by all workers, of which this one has some; False if the call was aborted."""
    weights = parameters.weights
    by_rows = True
    for l in range(layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        sparse = l == 0 and non_zeros.sparse == 1
        owned = is_owned(layer, weights, rows, n_workers) and not sparse
        if owned and l > 0 and by_rows and not barrier(team, n_workers):
            return False
        by_rows = not owned
        row, last_row, first, last = begin, end, 0, padded_neurons(layer, weights)
        if owned:
            row, last_row = 0, rows
            first, last = own_neurons(layer, weights, worker, n_workers)
        if is_halved(layer, n_workers):
            chain, row, last_row = own_chain(rows, worker, n_workers)
            layer_sums(layer, weights, inputs, non_zeros, sparse, workspace, row, last_row, first, last, chain)
            if not barrier(team, n_workers):
                return False
            row, last_row = begin, end
            add_chains(layer, workspace, row, row, last_row)
        else:
            layer_sums(layer, weights, inputs, non_zeros, sparse, workspace, row, last_row, first, last, BOTH)
        if l < layers.n - 1:
            activate_layer(layer, workspace, row, last_row, first, last, True)
        if owned and not barrier(team, n_workers):
            return False
        inputs = Inputs(workspace.a + layer[A], workspace.index, layer[STRIDE], layer[N_OUT], workspace.bits)
    return True


@jit
def hand_out(layers, workspace, begin, end, row):
    """Copy the activations of rows begin <= i < end to where they are wanted, as rows row, row + 1, ..."""
    for l in range(layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        if layer[OUT]:
            a = workspace.a + layer[A]
            out = pointer_at(layer[OUT], a)
            for i in range(begin, end):
                copy(a + i * layer[STRIDE], out + (row + i - begin) * layer[N_OUT], layer[N_OUT])
