"""Zeros: the first layer's weighted sums and gradient where most inputs are zero, as in images, without those.

Leaving out a term 0 w or 0 delta changes no bit of a chain of fused multiply-adds but the sign of a zero, and the
chains run over the same k and i in the same order as those of `forward.py` and `gradients.py`: with these kernels and
with those come the same numbers, where all are finite.

The non-zeros of each row are marked by bits, in one pass over memory. The weighted sums go from bit to bit; for the
gradient the non-zeros of a strip are collected input by input, once for all panels. What is not zero takes as many
fused multiply-adds as in a tile of many rows, but each of them loads what it multiplies: where less than half of the
inputs are zero, tiles are faster.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastbp.kernels._jit import jit, outline
from fastbp.kernels.layers import K_PADDED, N_IN, PANELS, STRIDE, STRIP, WORD, A, B, W
from fastbp.kernels.pointers import prefetch_to_read
from fastbp.kernels.simd import first_bit, non_zeros8, non_zeros64
from fastbp.kernels.tiles import (
    NARROW_PANEL,
    PANEL,
    PANELS_2,
    add,
    axpy,
    load_rows,
    multiples,
    n_columns,
    store_rows,
    zeros,
)

AHEAD = 2  # rows that are asked for before they are looked at: they lie anywhere in memory


class Columns(NamedTuple):
    """The non-zeros of some samples in a strip: of input c in block b those from (b STRIP + c) block on."""

    values: Any  # of the network's dtype
    rows: Any  # int8: the sample of each, counted from its block's first
    counts: Any  # int16: how many there are, at b STRIP + c


@jit
def words(n_in):
    """Words of a row's bits."""
    return (n_in + WORD - 1) // WORD


@jit
def mark_non_zeros(inputs, begin, end, n_in):
    """Bit q of inputs.bits[i, w] is 1 where x_ik of k = 64 w + q is not zero, for rows begin <= i < end."""
    outline()
    for i in range(begin, end):
        x, row = inputs.a + inputs.index[i] * inputs.stride, inputs.bits + i * words(n_in)
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
def sums_of_non_zeros(shape, inputs, begin, end, w, panel_size, b, n_in, z, z_stride):
    """z_ij = b_j + sum_k w_jk x_ik for rows begin <= i < end and the neurons j of as many panels as the shape has rows.

    w the first panel, each `panel_size` long; b, z at its first neuron; z (rows, ...) at i z_stride.
    """
    outline()
    columns = n_columns(shape, w)
    panels, places = multiples(shape, w, panel_size), multiples(shape, w, columns)
    for k in range(0, n_in, WORD):
        for i in range(begin, end):
            x, z_i = inputs.a + (inputs.index[i] * inputs.stride + k), z + i * z_stride
            tile = load_rows(shape, z_i if k > 0 else b, places)
            left = inputs.bits[i * words(n_in) + k // WORD]
            while left != 0:
                q = first_bit(left)
                tile = axpy(tile, x[q], w + (k + q) * columns, panels)
                left &= left - 1
            store_rows(z_i, places, tile)


@jit
def sums_without_zeros(layer, weights, inputs, begin, end, first, last, a):
    """The z of the first layer: rows begin <= i < end, neurons first <= j < last."""
    outline()
    wide, narrow, n_in, stride = n_columns(PANEL, weights), n_columns(NARROW_PANEL, weights), layer[N_IN], layer[STRIDE]
    w, b, z = weights + layer[W], weights + layer[B], a + layer[A]
    mark_non_zeros(inputs, begin, end, n_in)
    size, last_wide, j = wide * layer[K_PADDED], min(last, layer[PANELS] * wide), first
    while j + 2 * wide <= last_wide:
        panel = w + j * layer[K_PADDED]
        sums_of_non_zeros(PANELS_2, inputs, begin, end, panel, size, b + j, n_in, z + j, stride)
        j += 2 * wide
    while j < last_wide:
        panel = w + j * layer[K_PADDED]
        sums_of_non_zeros(PANEL, inputs, begin, end, panel, size, b + j, n_in, z + j, stride)
        j += wide
    while j < last:
        panel = w + j * layer[K_PADDED]
        sums_of_non_zeros(NARROW_PANEL, inputs, begin, end, panel, size, b + j, n_in, z + j, stride)
        j += narrow


@jit
def collect_columns(inputs, n_in, k, end, slab, columns):
    """Put down the non-zeros x_ik of a slab's samples, k <= k' < end, at most a strip."""
    outline()
    blocks = (slab.m + slab.block - 1) // slab.block
    for c in range(blocks * STRIP):
        columns.counts[c] = 0
    for b in range(blocks):
        first = b * slab.block
        for i in range(first, min(first + slab.block, slab.m)):
            x = inputs.a + (inputs.index[i] * inputs.stride + k)
            left = marked(inputs.bits + i * words(n_in), k, end - k)
            while left != 0:
                c = first_bit(left)
                place = b * STRIP + c
                n = columns.counts[place]
                columns.values[place * slab.block + n] = x[c]
                columns.rows[place * slab.block + n] = i - first
                columns.counts[place] = n + 1
                left &= left - 1


@jit
def gradient_of_non_zeros(shape, columns, first, last, delta, stride, slab, sums):
    """sums[c, j] = sum_i x_ic delta_ij for the inputs first <= c < last of a strip and the j of one panel.

    Or += if there were samples before.
    """
    outline()
    here = multiples(shape, delta, 0)
    for c in range(first, last):
        for b in range((slab.m + slab.block - 1) // slab.block):
            place, delta_b = b * STRIP + c, delta + b * slab.block * stride
            begin = place * slab.block
            tile = zeros(shape, delta)
            for q in range(begin, begin + columns.counts[place]):
                tile = axpy(tile, columns.values[q], delta_b + columns.rows[q] * stride, here)
            if b > 0 or not slab.first:
                tile = add(load_rows(shape, sums, here), tile)
            store_rows(sums, here, tile)
        sums = sums + n_columns(shape, delta)
