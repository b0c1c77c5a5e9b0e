"""Sparse inputs: the first layer's weighted sums and gradient from the non-zeros of X, in compressed rows (CSR).

Leaving out a term 0 w or 0 delta changes no bit of a chain of fused multiply-adds, and the chains here run over the
same k and i in the same order as those of `forward.py` and `gradients.py`: sparse and dense X give the same bits, where
nothing is infinite or NaN.

k is the caller's own array, which another thread may change meanwhile. Each number is therefore read once for each use
(`column`) and bounded there; of a wrong one comes a wrong result, but nothing is read or written beyond the weights.

For the gradient the inputs k are divided among the workers. Each adds what its non-zeros contribute to a gradient that
is 0 elsewhere, then updates all weights of its k and leaves zeros behind.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastbp.kernels._jit import jit, outline
from fastbp.kernels.gradients import learn_biases
from fastbp.kernels.layers import (
    K_PADDED,
    N_IN,
    NARROW,
    PANELS,
    PENALISED,
    SECOND,
    SQUARED,
    STRIDE,
    TRAIN_BIAS,
    A,
    B,
    W,
)
from fastbp.kernels.norms import square
from fastbp.kernels.simd import fma, lanes, load, no_sum, store
from fastbp.kernels.updates import update


class NonZeros(NamedTuple):
    """Where the non-zeros of each sample lie, in the order of k; x points to their values."""

    sparse: int  # 0 where X is dense, and x points to its rows
    begins: Any  # pointer to int64: those of sample i from begins[i] up to begins[i + 1]
    k: Any  # pointer to int32, read by `column` alone


@intrinsic
def column(typingctx, k, q):
    """k[q] >= 0, a negative one as a very large; the compiler may not read it a second time (LLVM's "unordered")."""

    def codegen(context, builder, sig, args):
        k_q = builder.load_atomic(builder.gep(args[0], [args[1]]), "unordered", 4)
        return builder.zext(k_q, ir.IntType(64))

    return types.int64(k, types.intp), codegen


@jit
def first_with(k, begin, end, limit):
    """The first of the increasing k[begin : end] that is at least `limit`, or end; one of them whatever they are."""
    while begin < end:
        middle = (begin + end) // 2
        if column(k, middle) < limit:
            begin = middle + 1
        else:
            end = middle
    return begin


@jit
def panel_of(layer, weights, panel):
    """A panel's first neuron j, its columns, and the second of its registers (the first again where it is narrow)."""
    narrow, n_wide = lanes(weights), layer[PANELS]
    if panel < n_wide:
        return panel * 2 * narrow, 2 * narrow, narrow
    return (n_wide + panel) * narrow, narrow, 0


@jit
def sparse_sums(layer, weights, inputs, non_zeros, begin, end, a):
    """z_ij = b_j + sum_k w_jk x_ik for rows begin <= i < end; row i is the sample index[i] of the inputs."""
    outline()
    stride, x = layer[STRIDE], inputs.a
    for panel in range(layer[PANELS] + layer[NARROW]):
        j, columns, second = panel_of(layer, weights, panel)
        w, b, z = weights + (layer[W] + j * layer[K_PADDED]), weights + (layer[B] + j), a + (layer[A] + j)
        for i in range(begin, end):
            sample = inputs.index[i]
            q, last, first_k, last_k = non_zeros.begins[sample], non_zeros.begins[sample + 1], 0, layer[SECOND]
            z_1, z_2 = load(b), load(b + second)
            while first_k < layer[N_IN]:
                chain_1, chain_2 = (z_1, z_2) if first_k == 0 else (no_sum(b), no_sum(b))
                while q < last:
                    k = column(non_zeros.k, q)
                    if k >= last_k:
                        break
                    chain_1 = fma(load(w + k * columns), x[q], chain_1)
                    chain_2 = fma(load(w + (k * columns + second)), x[q], chain_2)
                    q += 1
                z_1, z_2 = (chain_1, chain_2) if first_k == 0 else (z_1 + chain_1, z_2 + chain_2)
                first_k, last_k = last_k, layer[N_IN]
            store(z + i * stride, z_1)
            store(z + (i * stride + second), z_2)


@jit
def scatter(x, non_zeros, sample, k_begin, k_end, delta, columns, second, g):
    """g[k, j] += x_k delta_j for the non-zeros of one sample with k_begin <= k < k_end."""
    outline()
    last = non_zeros.begins[sample + 1]
    delta_1, delta_2 = load(delta), load(delta + second)
    for q in range(first_with(non_zeros.k, non_zeros.begins[sample], last, k_begin), last):
        k = column(non_zeros.k, q)
        if k >= k_end:
            break
        g_k = g + k * columns
        # both before the first is stored: in a narrow panel they are the same
        g_1, g_2 = fma(delta_1, x[q], load(g_k)), fma(delta_2, x[q], load(g_k + second))
        store(g_k, g_1)
        store(g_k + second, g_2)


@jit
def collect(non_zeros, sample, k_begin, k_end, columns, second, g, sums):
    """sums[k, j] += g[k, j] and g[k, j] = 0 at the non-zeros of one sample."""
    outline()
    last = non_zeros.begins[sample + 1]
    for q in range(first_with(non_zeros.k, non_zeros.begins[sample], last, k_begin), last):
        k = column(non_zeros.k, q)
        if k >= k_end:
            break
        g_k, sums_k = g + k * columns, sums + k * columns
        g_1, g_2 = load(g_k), load(g_k + second)
        sum_1, sum_2 = load(sums_k) + g_1, load(sums_k + second) + g_2
        store(sums_k, sum_1)
        store(sums_k + second, sum_2)
        for c in range(columns):
            g_k[c] = 0.0


@jit
def learn_sparse(layer, parameters, inputs, non_zeros, workspace, worker, n_workers, slab, hyper):
    """A worker's share of the first layer's gradient, for the m samples of one slab, and its update with the last."""
    outline()
    weights, n_in, stride, m = parameters.weights, layer[N_IN], layer[STRIDE], slab.m
    groups = (n_in + SQUARED - 1) // SQUARED
    k_begin, k_end = groups * worker // n_workers * SQUARED, groups * (worker + 1) // n_workers * SQUARED
    k_end = min(k_end, n_in)
    penalty = hyper.penalty if layer[PENALISED] else 0.0
    one_block = slab.first and slab.last and m == slab.block
    for panel in range(layer[PANELS] + layer[NARROW]):
        j, columns, second = panel_of(layer, weights, panel)
        delta = workspace.delta + (layer[A] + j)
        place = layer[W] + j * layer[K_PADDED]
        g, sums = workspace.first + place, parameters.sums + place
        for begin in range(0, m, slab.block):
            end = min(begin + slab.block, m)
            for i in range(begin, end):
                scatter(inputs.a, non_zeros, inputs.index[i], k_begin, k_end, delta + i * stride, columns, second, g)
            if not one_block:
                for i in range(begin, end):
                    collect(non_zeros, inputs.index[i], k_begin, k_end, columns, second, g, sums)
        if slab.last:
            total = g if one_block else sums
            for k in range(k_begin, k_end, SQUARED):
                rows, q = min(SQUARED, k_end - k), place + k * columns
                if penalty != 0.0:
                    square(layer, weights + q, k, rows, columns, j, workspace)
                g_k, n = total + k * columns, rows * columns
                slot_1, slot_2 = parameters.slot_1 + q, parameters.slot_2 + q
                update(hyper.code, weights + q, g_k, slot_1, slot_2, n, penalty, hyper)
                for c in range(n):
                    g_k[c] = 0.0
        if worker == 0 and layer[TRAIN_BIAS]:
            learn_biases(layer, parameters, workspace, j, columns, worker, slab, hyper)
