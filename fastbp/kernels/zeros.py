"""Zeros: the first layer's weighted sums and gradient where most inputs are zero, as in images, without those.

Leaving out a term 0 w or 0 delta changes no bit of a chain of fused multiply-adds but the sign of a zero, and the
chains run over the same k and i in the same order as those of `forward.py` and `gradients.py`: with these kernels and
with those come the same numbers, where all are finite.

The non-zeros of each row and chain are marked by bits, in one pass over memory. The weighted sums go from bit to bit;
for the gradient the non-zeros of a strip are collected input by input, once for all panels. What is not zero takes as
many fused multiply-adds as in a tile of many rows, but each of them loads what it multiplies: where less than half of
the inputs are zero, tiles are faster.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastbp.kernels._jit import NONE, jit, outline
from fastbp.kernels.bits import first_bit, non_zeros8, non_zeros64
from fastbp.kernels.layers import (
    BOTH,
    CHAINS,
    COUNTS,
    K_PADDED,
    PANELS,
    SECOND,
    STRIDE,
    STRIP,
    WORD,
    WORDS,
    A,
    B,
    W,
)
from fastbp.kernels.pointers import prefetch_to_read
from fastbp.kernels.shares import inputs_of, n_blocks, n_chains, padded_neurons
from fastbp.kernels.simd import lanes, load, store
from fastbp.kernels.tiles import (
    NARROW_PANEL,
    NO_PANEL,
    PANEL,
    PANELS_2,
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
AHEAD = 2  # rows that are asked for before they are looked at: they lie anywhere in memory


class Columns(NamedTuple):
    """The non-zeros of some samples in a strip: of input c in block b those from (b STRIP + c) block on."""

    values: Any  # of the network's dtype
    rows: Any  # int8: the sample of each, counted from its block's first
    counts: Any  # int16: how many there are, at b STRIP + c


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
    while j + 2 * wide <= last_wide:
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
def add_chains(layer, workspace, begin, end):
    """z_ij = the sum of its two chains, for rows begin <= i < end."""
    z, second, n = workspace.a + layer[A], workspace.delta + layer[A], padded_neurons(layer, workspace.a)
    for i in range(begin, end):
        for j in range(i * layer[STRIDE], i * layer[STRIDE] + n, lanes(z)):
            store(z + j, load(z + j) + load(second + j))


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
            add_chains(layer, workspace, i, last)


@jit
def columns_of(workspace, worker):
    """Where a worker collects the non-zeros of a strip."""
    places = worker * workspace.strip_size
    return Columns(workspace.strips + places, workspace.strip_rows + places, workspace.strip_counts + worker * COUNTS)


@jit
def collect_columns(layer, inputs, k, slab, columns):
    """Put down the non-zeros x_ik of a slab's samples, for the inputs of a strip from k on."""
    outline()
    chain = 0 if k < layer[SECOND] else 1
    inputs, k = inputs_of(layer, inputs, chain), k - chain * layer[SECOND]
    n = min(STRIP, inputs.n - k)
    block = slab.block
    blocks = n_blocks(slab.m, block)
    for c in range(blocks * STRIP):
        columns.counts[c] = 0
    for b in range(blocks):
        first = b * block
        for i in range(first, min(first + block, slab.m)):
            x = inputs.a + (inputs.index[i] * inputs.stride + k)
            left = marked(bits_of(layer, inputs, i), k, n)
            while left != 0:
                c = first_bit(left)
                place = b * STRIP + c
                count = columns.counts[place]
                columns.values[place * block + count] = x[c]
                columns.rows[place * block + count] = i - first
                columns.counts[place] = count + 1
                left &= left - 1


@jit
def gradient_of_non_zeros(shape, columns, first, last, delta, stride, slab, sums):
    """sums[c, j] = sum_i x_ic delta_ij for the inputs first <= c < last of a strip and the j of one panel.

    Or += if there were samples before.
    """
    outline()
    here, block = multiples(shape, delta, 0), slab.block
    blocks, goes_on = n_blocks(slab.m, block), not slab.first
    for c in range(first, last):
        for b in range(blocks):
            place, delta_b = b * STRIP + c, delta + b * block * stride
            begin = place * block
            tile = zeros(shape, delta)
            for q in range(begin, begin + columns.counts[place]):
                tile = axpy(tile, columns.values[q], delta_b + columns.rows[q] * stride, here)
            if b > 0 or goes_on:
                tile = add(load_rows(shape, sums, here), tile)
            store_rows(sums, here, tile)
        sums = sums + n_columns(shape, delta)


@jit
def gradient_by_panel(wide, columns, first, last, delta, stride, slab, sums):
    """`gradient_of_non_zeros` of a panel of two registers or one."""
    if wide:
        gradient_of_non_zeros(PANEL, columns, first, last, delta, stride, slab, sums)
    else:
        gradient_of_non_zeros(NARROW_PANEL, columns, first, last, delta, stride, slab, sums)
