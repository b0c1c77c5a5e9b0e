"""Chains: where X has many inputs, each z of the first layer is the sum of two chains of fused multiply-adds.

The first is over b_j and the inputs k < SECOND, the second over the others. The second lies where the deltas will be,
until the two are added.
"""

from __future__ import annotations

from fastbp.kernels._jit import jit
from fastbp.kernels.layers import CHAINS, N_IN, SECOND, STRIDE, WORDS, A, Inputs
from fastbp.kernels.shares import padded_neurons
from fastbp.kernels.simd import lanes, load, store


@jit
def n_chains(layer):
    """How many chains the z of a layer are the sums of."""
    return CHAINS if layer[SECOND] < layer[N_IN] else 1


@jit
def inputs_of(layer, inputs, chain):
    """The inputs of one chain of a layer."""
    if chain == 0:
        return Inputs(inputs.a, inputs.index, inputs.stride, layer[SECOND], inputs.bits)
    k = layer[SECOND]
    return Inputs(inputs.a + k, inputs.index, inputs.stride, layer[N_IN] - k, inputs.bits + layer[WORDS])


@jit
def add_chains(layer, workspace, row, begin, end):
    """z_ij = the sum of its two chains for rows begin <= i < end, whose chains lie in the rows from `row` on."""
    stride, n, from_here = layer[STRIDE], padded_neurons(layer, workspace.a), (row - begin) * layer[STRIDE]
    z = workspace.a + layer[A]
    first, second = z + from_here, workspace.delta + (layer[A] + from_here)
    for i in range(begin, end):
        for j in range(i * stride, i * stride + n, lanes(z)):
            store(z + j, load(first + j) + load(second + j))
