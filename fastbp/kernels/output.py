"""The output layer: a from z, the cost C of the sample, its delta (BP1), and whether its class is right."""

from __future__ import annotations

from fastbp.kernels._jit import jit, outline
from fastbp.kernels.activations import SOFTMAX, activate
from fastbp.kernels.elementary import exp, log
from fastbp.kernels.losses import categorical_cross_entropy, output_terms
from fastbp.kernels.rows import (
    first4x4,
    gather4x4,
    gather16,
    load4x4,
    store4x4,
    store_sums4x4,
)
from fastbp.kernels.simd import (
    first16,
    load16,
    max_lanes,
    spread16,
    store,
    store_first,
    sum_lanes,
    where,
    wide_zeros16,
    widen,
)


@jit
def softmax_terms(z, n):
    """The largest z_j, and sum_j e^(z_j - largest): softmax without overflow."""
    largest = max_lanes(where(first16(n), load16(z), float("-inf")))
    for j in range(16, n, 16):
        largest = max(largest, max_lanes(where(first16(n - j), load16(z + j), float("-inf"))))
    total = wide_zeros16(z)
    for j in range(0, n, 16):
        total = total + widen(where(first16(n - j), exp(load16(z + j) - largest), 0.0))
    return largest, sum_lanes(total)


@jit
def output(activation, z, n):
    """a_j in place of z_j."""
    if activation == SOFTMAX:
        largest, total = softmax_terms(z, n)
        for j in range(0, n, 16):
            store(z + j, exp(load16(z + j) - largest) / total)
    else:
        for j in range(0, n, 16):
            store(z + j, activate(activation, load16(z + j))[0])


@jit
def element(loss, z, y, n):
    """a_j, the terms of C and delta_j (BP1) of neurons that are not coupled."""
    outline()
    return output_terms(loss, z, y, n)


@jit
def output_cost(activation, loss, z, delta, n):
    """C of one sample; a_j in place of z_j, and delta_j (BP1) in place of y_j."""
    c = wide_zeros16(z)
    outputs = spread16(z, n)
    if activation == SOFTMAX:
        largest, total = softmax_terms(z, n)
        log_total = log(spread16(z, total))
        for j in range(0, n, 16):
            log_a = load16(z + j) - largest
            a = exp(log_a) / total
            live = first16(n - j)
            terms, delta_j = categorical_cross_entropy(log_a - log_total, a, a, load16(delta + j), outputs)
            c = c + widen(where(live, terms, 0.0))
            store(z + j, a)
            store(delta + j, where(live, delta_j, 0.0))
    else:
        for j in range(0, n, 16):
            live = first16(n - j)
            a, terms, delta_j = element(loss, load16(z + j), load16(delta + j), outputs)
            c = c + widen(where(live, terms, 0.0))
            store(z + j, a)
            store(delta + j, where(live, delta_j, 0.0))
    return sum_lanes(c)


@jit
def single_output(loss, z, delta, y, y_index, shift, y_stride, begin, end, costs):
    """`few_outputs` for one neuron, 16 rows at a time; its z and delta lie side by side."""
    one = spread16(z, 1)
    for i in range(begin, end, 16):
        y_i = gather16(y, y_index, shift, y_stride, i, end - 1)
        a, cost_i, delta_i = element(loss, load16(z + i), y_i, one)
        store_first(z + i, end - i, a)
        store_first(delta + i, end - i, delta_i)
        store_first(costs + i, end - i, widen(cost_i))


@jit
def few_outputs(loss, z, delta, n, y, y_index, shift, y_stride, begin, end, costs):
    """`output_cost` of the rows begin <= i < end, 4 rows at a time, for at most 4 outputs that are not coupled.

    z, delta (rows, n) at 16 i; the targets at (y_index[i] + shift) y_stride; costs[i] receives C of row i.
    """
    outputs, live = spread16(z, n), first4x4(n)
    for i in range(begin, end, 4):
        z_ij = load4x4(z, i, end - 1)
        y_ij = gather4x4(y, n, y_index, shift, y_stride, i, end - 1)
        a, terms, delta_ij = element(loss, z_ij, y_ij, outputs)
        store4x4(z, i, end - 1, a)
        store4x4(delta, i, end - 1, where(live, delta_ij, 0.0))
        store_sums4x4(costs, i, end - 1, widen(where(live, terms, 0.0)))


@jit
def class_of(a, n):
    """The class with the largest a_j, the first of equals; with one output, 1 where it is at least 1/2."""
    if n == 1:
        return 1 if a[0] >= 0.5 else 0
    best, largest = 0, a[0]
    for j in range(1, n):
        if a[j] > largest:
            best, largest = j, a[j]
    return best
