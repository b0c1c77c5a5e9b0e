"""Forward: z_j = b_j + sum_k w_jk a_k and a_j = sigma(z_j), layer by layer, for some rows of a mini-batch."""

from __future__ import annotations

from fastbp.kernels._jit import jit
from fastbp.kernels.activations import activate
from fastbp.kernels.layers import ACTIVATION, K_PADDED, LAYER_COLUMNS, N_IN, N_OUT, NARROW, OUT, PANELS, STRIDE, A, B, W
from fastbp.kernels.simd import load16, pointer_at, store
from fastbp.kernels.sparse import sparse_sums
from fastbp.kernels.tiles import NARROW as NARROW_TILE
from fastbp.kernels.tiles import WIDE, n_columns, n_rows, outer, repeat, row_offsets, store_rows


@jit
def weighted_sums(shape, x, x_index, x_stride, begin, end, w, b, n_in, z, index, z_stride):
    """z_ij = b_j + sum_k w_jk x_ik for rows begin <= i < end and the neurons j of one panel.

    x (rows, n_in) at x_index[i] x_stride; w one panel; b, z at the panel's first neuron; z (rows, ...) at i z_stride.
    One chain of fused multiply-adds over k for each z_ij, whatever the tile.
    """
    columns = n_columns(shape, w)
    for i in range(begin, end, n_rows(shape, w)):
        x_rows = row_offsets(shape, w, x_index, x_stride, i, end - 1)
        tile = repeat(shape, b)
        for k in range(n_in):
            tile = outer(tile, x + k, x_rows, w + k * columns)
        store_rows(z, row_offsets(shape, w, index, z_stride, i, end - 1), tile)


@jit
def activate_rows(code, z, prime, n, training):
    """a_j = sigma(z_j) in place of z_j, and sigma'(z_j) where BP2 will multiply by it."""
    for j in range(0, n, 16):
        a, derivative = activate(code, load16(z + j))
        store(z + j, a)
        if training:
            store(prime + j, derivative)


@jit
def forward(layers, parameters, x, x_index, x_stride, non_zeros, workspace, begin, end, training):
    """All hidden layers' a, and the output layer's z, for rows begin <= i < end.

    When training, deltas of the hidden layers hold sigma'(z_j) until BP2 multiplies them.
    """
    weights, index = parameters.weights, workspace.index
    for l in range(layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        n_in, stride = layer[N_IN], layer[STRIDE]
        w, b, z = weights + layer[W], weights + layer[B], workspace.a + layer[A]
        wide = n_columns(WIDE, w)
        sparse = l == 0 and non_zeros.sparse == 1
        if sparse:
            sparse_sums(layer, weights, x, x_index, non_zeros, begin, end, workspace.a)
        for panel in range(0 if sparse else layer[PANELS]):
            j = panel * wide
            panel_w = w + j * layer[K_PADDED]
            weighted_sums(WIDE, x, x_index, x_stride, begin, end, panel_w, b + j, n_in, z + j, index, stride)
        if layer[NARROW] and not sparse:
            j = layer[PANELS] * wide
            panel_w = w + j * layer[K_PADDED]
            weighted_sums(NARROW_TILE, x, x_index, x_stride, begin, end, panel_w, b + j, n_in, z + j, index, stride)
        if l < layers.n - 1:
            prime = workspace.delta + layer[A]
            for i in range(begin, end):
                activate_rows(layer[ACTIVATION], z + i * stride, prime + i * stride, layer[N_OUT], training)
        x, x_index, x_stride = z, index, stride


@jit
def copy(source, target, n):
    """target[:n] = source[:n]."""
    for j in range(n):
        target[j] = source[j]


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
