"""Zeros: the first layer's weighted sums and gradient where most inputs are zero, as in images, without those.

Leaving out a term 0 w or 0 delta changes no bit of a chain of fused multiply-adds but the sign of a zero, and the
chains run over the same k and i in the same order as those of `forward.py` and `gradients.py`: with these kernels and
with those come the same numbers, where all are finite.

The non-zeros of each row and chain are marked by bits, in one pass over memory, and those of a strip once more by
inputs, for all panels. The weighted sums and the gradient go from bit to bit. What is not zero takes as many fused
multiply-adds as in a tile of many rows, but each of them loads what it multiplies: where less than half of the inputs
are zero, tiles are faster.
"""

from __future__ import annotations

from fastbp.kernels._jit import NONE, jit, outline
from fastbp.kernels.bits import column64, first_bit, non_zeros8, non_zeros64
from fastbp.kernels.chains import add_chains, inputs_of, n_chains
from fastbp.kernels.layers import (
    BOTH,
    CHAINS,
    COLUMN_BITS,
    GAP,
    K_PADDED,
    PANELS,
    SECOND,
    STRIDE,
    STRIP,
    WORD,
    WORDS,
    WORDS_OF_BLOCK,
    A,
    B,
    W,
)
from fastbp.kernels.pointers import prefetch_to_read
from fastbp.kernels.shares import n_blocks, padded_neurons
from fastbp.kernels.tiles import (
    NARROW_PANEL,
    NO_PANEL,
    PANEL,
    PANELS_2,
    PANELS_4,
    add,
    axpy,
    load_rows,
    load_tile,
    multiples,
    n_columns,
    n_rows,
    store_rows,
    store_tile,
    zeros,
)

ROWS = 64  # rows whose sums stay in the nearest cache while their inputs are gone through
AHEAD = 4  # rows that are asked for before they are looked at: they lie anywhere in memory


@jit
def bits_of(layer, inputs, i):
    """Pointer to the bits of the inputs of a row."""
    return inputs.bits + i * CHAINS * layer[WORDS]


@jit
def mark_non_zeros(layer, inputs, begin, end):
    """Bit q of number w of a row's bits is 1 where its input k = 64 w + q is not zero, for rows begin <= i < end."""
    outline()
    n_in = inputs.n
    for i in range(begin, end):
        x, row = inputs.a + inputs.index[i] * inputs.stride, bits_of(layer, inputs, i)
        ahead = inputs.a + inputs.index[min(i + AHEAD, end - 1)] * inputs.stride
        for w in range(n_in // WORD):
            prefetch_to_read(ahead + w * WORD, WORD)
            row[w] = non_zeros64(x + w * WORD)
        k, q = n_in // WORD * WORD, 0
        if k < n_in:
            row[k // WORD] = 0
        while k + q + 8 <= n_in:
            row[k // WORD] |= non_zeros8(x + (k + q)) << q
            q += 8
        while k + q < n_in:
            if x[k + q] != 0.0:
                row[k // WORD] |= 1 << q
            q += 1


@jit
def marked(row, k, n):
    """The bits of a row from input k on, of n < 64 inputs; reads, and leaves out, a word beyond the last."""
    w, q = k // WORD, k % WORD
    bits = row[w]
    if q > 0:
        bits = ((bits >> q) & ((1 << (WORD - q)) - 1)) | (row[w + 1] << (WORD - q))
    return bits & ((1 << n) - 1)


@jit
def sums_of_non_zeros(shape, rest, layer, chain, weights, inputs, begin, end, j, z):
    """z_ij = b_j + sum_k w_jk x_ik for rows begin <= i < end and some neurons: j and those that follow.

    They are those of as many wide panels, or one narrow, as `shape` has rows, and then of the narrow panel of `rest`.
    b_j is part of the first chain.
    """
    outline()
    first_k, columns = chain * layer[SECOND], n_columns(shape, weights)
    panels, places = multiples(shape, weights, columns * layer[K_PADDED]), multiples(shape, weights, columns)
    j_rest, narrow = j + n_rows(shape, weights) * columns, n_columns(rest, weights)
    w = weights + (layer[W] + j * layer[K_PADDED] + first_k * columns)
    w_rest = weights + (layer[W] + j_rest * layer[K_PADDED] + first_k * narrow)
    for k in range(0, inputs.n, WORD):
        for i in range(begin, end):
            left = bits_of(layer, inputs, i)[k // WORD]
            if left == 0 and k > 0:
                continue
            x, z_i = inputs.a + (inputs.index[i] * inputs.stride + k), z + i * layer[STRIDE]
            tile, tile_rest = zeros(shape, z), zeros(rest, z)
            if chain == 0 or k > 0:
                start = z_i if k > 0 else weights + layer[B]
                tile, tile_rest = load_rows(shape, start + j, places), load_tile(rest, start + j_rest)
            while left != 0:
                q = first_bit(left)
                tile = axpy(tile, x[q], w + (k + q) * columns, panels)
                tile_rest = axpy(tile_rest, x[q], w_rest + (k + q) * narrow, panels)
                left &= left - 1
            store_rows(z_i + j, places, tile)
            store_tile(z_i + j_rest, tile_rest)


@jit
def chain_without_zeros(layer, chain, weights, inputs, workspace, begin, end):
    """One chain of the z of the first layer for rows begin <= i < end."""
    outline()
    inputs = inputs_of(layer, inputs, chain)
    z = (workspace.a if chain == 0 else workspace.delta) + layer[A]
    mark_non_zeros(layer, inputs, begin, end)
    wide, narrow = n_columns(PANEL, weights), n_columns(NARROW_PANEL, weights)
    j, last_wide, last = NONE, layer[PANELS] * wide, padded_neurons(layer, weights)
    while j + 4 * wide <= last_wide:
        sums_of_non_zeros(PANELS_4, NO_PANEL, layer, chain, weights, inputs, begin, end, j, z)
        j += 4 * wide
    if j + 2 * wide <= last_wide:
        sums_of_non_zeros(PANELS_2, NO_PANEL, layer, chain, weights, inputs, begin, end, j, z)
        j += 2 * wide
    if j + wide == last_wide < last:
        sums_of_non_zeros(PANEL, NARROW_PANEL, layer, chain, weights, inputs, begin, end, j, z)
    elif j + wide == last_wide:
        sums_of_non_zeros(PANEL, NO_PANEL, layer, chain, weights, inputs, begin, end, j, z)
    else:
        while j < last:
            sums_of_non_zeros(NARROW_PANEL, NO_PANEL, layer, chain, weights, inputs, begin, end, j, z)
            j += narrow


@jit
def sums_without_zeros(layer, chains, weights, inputs, workspace, begin, end):
    """The z of the first layer for rows begin <= i < end, or one of their chains.

    The second one lies where the deltas will.
    """
    for i in range(begin, end, ROWS):
        last = min(i + ROWS, end)
        for chain in range(n_chains(layer)):
            if chains == BOTH or chain == chains:
                chain_without_zeros(layer, chain, weights, inputs, workspace, i, last)
        if chains == BOTH and n_chains(layer) > 1:
            add_chains(layer, workspace, i, i, last)


@jit
def column_bits_of(workspace, worker):
    """Where a worker marks the non-zeros of a strip by inputs."""
    return workspace.column_bits + worker * (COLUMN_BITS + GAP)


@jit
def mark_columns(layer, inputs, k, slab, columns):
    """Bit i of number (b WORDS_OF_BLOCK + w) STRIP + c is 1 where input k + c of block b, row 64 w + i, is not zero."""
    outline()
    chain = 0 if k < layer[SECOND] else 1
    inputs, k = inputs_of(layer, inputs, chain), k - chain * layer[SECOND]
    n, rows = min(STRIP, inputs.n - k), columns + (COLUMN_BITS - WORD)
    for b in range(n_blocks(slab.m, slab.block)):
        end = min((b + 1) * slab.block, slab.m)
        for w in range(n_blocks(slab.block, WORD)):
            first = b * slab.block + w * WORD
            for r in range(WORD):
                rows[r] = 0
            for i in range(first, min(first + WORD, end)):
                prefetch_to_read(inputs.a + (inputs.index[i] * inputs.stride + k), n)
                rows[i - first] = marked(bits_of(layer, inputs, i), k, n)
            for c in range(STRIP):
                columns[(b * WORDS_OF_BLOCK + w) * STRIP + c] = column64(rows, c)


@jit
def add_product(tile, inputs, k, i, delta, stride, here):
    """The tile and x_ik delta_ij, for the j of its panels."""
    x_ik = inputs.a[inputs.index[i] * inputs.stride + k]
    return axpy(tile, x_ik, delta + i * stride, here)


@jit
def add_products(tile, inputs, k, first, left, delta, stride, here):
    """The tile and x_ik delta_ij for the rows that are marked, counted from the first."""
    while left != 0:
        tile = add_product(tile, inputs, k, first + first_bit(left), delta, stride, here)
        left &= left - 1
    return tile


@jit
def gradient_of_non_zeros(shape, inputs, k, n, b, columns, delta, stride, slab, sums, apart):
    """sums[k, j] = sum_i x_ik delta_ij over block b, for n inputs from k on and the j of some panels.

    Or += if there were samples before. `columns` are the bits of input k; the panels' sums lie `apart` elements apart.
    Two inputs at a time: chains that do not wait for each other.
    """
    outline()
    width = n_columns(shape, delta)
    here, panels = multiples(shape, delta, width), multiples(shape, delta, apart)
    for c in range(0, n, 2):
        k_1, k_2, g_1, g_2 = k + c, k + c + 1, sums + c * width, sums + (c + 1) * width
        tile_1, tile_2 = zeros(shape, delta), zeros(shape, delta)
        for w in range(n_blocks(slab.block, WORD)):
            first, bits = b * slab.block + w * WORD, columns + ((b * WORDS_OF_BLOCK + w) * STRIP + c)
            left_1, left_2 = bits[0], bits[1]
            while left_1 != 0 and left_2 != 0:
                tile_1 = add_product(tile_1, inputs, k_1, first + first_bit(left_1), delta, stride, here)
                tile_2 = add_product(tile_2, inputs, k_2, first + first_bit(left_2), delta, stride, here)
                left_1 &= left_1 - 1
                left_2 &= left_2 - 1
            tile_1 = add_products(tile_1, inputs, k_1, first, left_1, delta, stride, here)
            tile_2 = add_products(tile_2, inputs, k_2, first, left_2, delta, stride, here)
        if b > 0 or not slab.first:
            tile_1 = add(load_rows(shape, g_1, panels), tile_1)
            tile_2 = add(load_rows(shape, g_2, panels), tile_2)
        store_rows(g_1, panels, tile_1)
        store_rows(g_2, panels, tile_2)
