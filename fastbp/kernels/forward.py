"""Forward: z_j = b_j + sum_k w_jk a_k and a_j = sigma(z_j), layer by layer, for some rows of a mini-batch."""

from __future__ import annotations

from fastbp.kernels._jit import jit
from fastbp.kernels.activations import activate
from fastbp.kernels.layers import (
    ACTIVATION,
    K_PADDED,
    LAYER_COLUMNS,
    MOSTLY_ZERO,
    N_IN,
    N_OUT,
    OUT,
    PANELS,
    STRIDE,
    A,
    B,
    Inputs,
    W,
)
from fastbp.kernels.memory import copy
from fastbp.kernels.pointers import pointer_at
from fastbp.kernels.shares import is_owned, is_single, own_neurons, padded_neurons
from fastbp.kernels.simd import lanes, load16, store
from fastbp.kernels.sparse import sparse_sums
from fastbp.kernels.threads import barrier
from fastbp.kernels.tiles import (
    NARROW,
    SINGLE,
    TALL_NARROW,
    TALL_WIDE,
    WIDE,
    fits_tall,
    n_columns,
    n_rows,
    outer,
    repeat,
    row_offsets,
    store_rows,
)
from fastbp.kernels.zeros import sums_without_zeros


@jit
def weighted_sums(shape, inputs, begin, end, w, b, n_in, z, index, z_stride):
    """z_ij = b_j + sum_k w_jk x_ik for rows begin <= i < end and the neurons j of one panel.

    w one panel; b, z at the panel's first neuron; z (rows, ...) at i z_stride.
    One chain of fused multiply-adds over k for each z_ij, whatever the tile.
    """
    columns = n_columns(shape, w)
    for i in range(begin, end, n_rows(shape, w)):
        x_rows = row_offsets(shape, w, inputs.index, inputs.stride, i, end - 1)
        tile = repeat(shape, b)
        for k in range(n_in):
            tile = outer(tile, inputs.a + k, x_rows, w + k * columns)
        store_rows(z, row_offsets(shape, w, index, z_stride, i, end - 1), tile)


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
def layer_sums(layer, weights, inputs, non_zeros, sparse, workspace, begin, end, first, last):
    """The z of a layer: rows begin <= i < end, neurons first <= j < last; all neurons where zeros are left out."""
    n_in, stride, index = layer[N_IN], layer[STRIDE], workspace.index
    w, b, z = weights + layer[W], weights + layer[B], workspace.a + layer[A]
    wide, narrow = n_columns(WIDE, w), lanes(w)
    split = layer[PANELS] * wide
    if sparse:
        sparse_sums(layer, weights, inputs, non_zeros, begin, end, workspace.a)
    elif is_single(layer):
        weighted_sums(SINGLE, inputs, begin, end, w, b, n_in, z, index, stride)
    elif layer[MOSTLY_ZERO]:
        sums_without_zeros(layer, weights, inputs, begin, end, workspace.a)
    else:
        tall = fits_tall(w, end - begin)
        for j in range(first, min(last, split), wide):
            panel = w + j * layer[K_PADDED]
            if tall:
                weighted_sums(TALL_WIDE, inputs, begin, end, panel, b + j, n_in, z + j, index, stride)
            else:
                weighted_sums(WIDE, inputs, begin, end, panel, b + j, n_in, z + j, index, stride)
        for j in range(max(first, split), last, narrow):
            panel = w + j * layer[K_PADDED]
            if tall:
                weighted_sums(TALL_NARROW, inputs, begin, end, panel, b + j, n_in, z + j, index, stride)
            else:
                weighted_sums(NARROW, inputs, begin, end, panel, b + j, n_in, z + j, index, stride)


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
        layer_sums(layer, parameters.weights, inputs, non_zeros, sparse, workspace, begin, end, 0, n)
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
        layer_sums(layer, weights, inputs, non_zeros, sparse, workspace, row, last_row, first, last)
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
