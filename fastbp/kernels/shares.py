"""Shares: what each worker of a team does of a layer. No bit depends on it, only what has to move between the cores.

A layer's forward pass is divided by rows: each worker computes all neurons of its samples, and needs all weights. Where
a layer has more neurons than the mini-batch has rows, it is *owned*, divided by neurons: each worker computes its own
neurons for all samples, and later their gradients and updates, so that these weights stay in its core's cache. Not
where zeros are left out: each worker would have to look for those of all samples.

An even number of workers *halves* the first layer, where its z are sums of two chains, if zeros are left out of both
alike or if neurons and samples are few: each worker computes one chain, of more samples, and later the gradients and
updates of the inputs of that chain, so that their weights, and these columns of X, stay in its core's cache. Where the
layers above are small, two workers have replicas of these, compute them for all rows, and make the same updates: so
they meet once a mini-batch, when the chains are there.

Few parameters are *replicated*: each worker has all of them for itself, computes the gradients of whole blocks of
samples, and makes every update. To write lines that other cores have read takes longer than to compute them twice.
Of many blocks the last ones are nobody's own: whoever is ready with his claims one of them, as no core is always as
fast as the others.
"""

from __future__ import annotations

from fastbp.kernels._jit import NONE, jit
from fastbp.kernels.layers import (
    BLOCK,
    CHAINS,
    HALVED,
    N_IN,
    N_OUT,
    NARROW,
    PANELS,
    ROWS_APART,
    SECOND,
    WORDS,
    WT,
)
from fastbp.kernels.simd import lanes
from fastbp.kernels.threads import claim
from fastbp.kernels.tiles import FEW_NARROW, WIDE, n_columns, n_rows, rounded_up

CLAIMED_OF = 4  # of so many blocks one is claimed: a half or an eighth of them gain no more


@jit
def _unit(layer, weights):
    """Neurons that are never divided: whole panels, and whole logical vectors of 16."""
    return max(n_columns(WIDE, weights) if layer[PANELS] else lanes(weights), 16)


@jit
def is_owned(layer, weights, rows, n_workers):
    """Whether the workers divide a layer by its neurons: they are many, and each worker gets nearly as many."""
    if n_workers == 1 or layer[N_OUT] < rows or layer[WORDS] > 0 or is_halved(layer, n_workers):
        return False
    unit = _unit(layer, weights)
    units = (layer[N_OUT] + unit - 1) // unit
    idle = (n_workers - units % n_workers) % n_workers
    return units >= n_workers and 4 * idle <= units


@jit
def is_halved(layer, n_workers):
    """Whether each worker computes one of the chains of a layer."""
    return layer[HALVED] == 1 and n_workers % CHAINS == 0


@jit
def own_chain(rows, worker, n_workers):
    """The chain of a halved layer that a worker computes, and the rows begin <= i < end for which it does."""
    n = n_workers // CHAINS
    return worker // n, rows * (worker % n) // n, rows * (worker % n + 1) // n


@jit
def own_inputs(layer, rows, worker, n_workers):
    """The inputs k, ..., k + n - 1 of rows begin <= i < end that a worker reads of X, unless the layer is owned."""
    if not is_halved(layer, n_workers):
        return NONE, layer[N_IN], rows * worker // n_workers, rows * (worker + 1) // n_workers
    chain, begin, end = own_chain(rows, worker, n_workers)
    k = chain * layer[SECOND]
    return k, (layer[SECOND] if chain == 0 else layer[N_IN] - k), begin, end


@jit
def is_replicated(replicas, n_workers):
    """Whether each worker has its own replica of the parameters, or of those above a halved layer."""
    return 1 < n_workers <= replicas.n


@jit
def own_rows(rows, block, replicated, worker, n_workers):
    """The rows begin <= i < end of a mini-batch that a worker takes, so many at a time, and where in the workspace."""
    if not replicated:
        begin, end = rows * worker // n_workers, rows * (worker + 1) // n_workers
        return begin, end, end - begin, begin
    blocks = owned_blocks(rows, block)
    begin, end = blocks * worker // n_workers * block, blocks * (worker + 1) // n_workers * block
    return begin, end, block, worker * ROWS_APART


@jit
def owned_blocks(rows, block):
    """How many blocks of rows are some worker's own; the others follow."""
    blocks = n_blocks(rows, block)
    return blocks - blocks // CLAIMED_OF


@jit
def next_block(first, end, rows, block, team, turn):
    """Where the next block of a worker begins: at `first`, if this is its own, or one that it claims; or at `rows`."""
    if first < end:
        return first
    owned = owned_blocks(rows, block) * block
    return min(owned + claim(team, turn) * block, rows) if owned < rows else rows


@jit
def is_single(layer):
    """Whether it is a layer without panels, whose only neuron's weights lie side by side."""
    return layer[PANELS] + layer[NARROW] == 0


@jit
def is_few(layer, weights, wide):
    """Whether a panel of one register, of a layer above another, has so few neurons that most lanes would be idle."""
    return not wide and layer[WT] >= 0 and layer[N_OUT] <= min(lanes(weights) // 2, n_rows(FEW_NARROW, weights))


@jit
def padded_neurons(layer, weights):
    """Neurons of a layer with those that fill up its last panel, or the register of the only neuron."""
    if is_single(layer):
        return lanes(weights)
    return layer[PANELS] * n_columns(WIDE, weights) + layer[NARROW] * lanes(weights)


@jit
def transposed_rows(layer, weights):
    """Neurons of a transposed panel: a layer's own with those that fill up its last panel."""
    return 1 if is_single(layer) else padded_neurons(layer, weights)


@jit
def own_neurons(layer, weights, worker, n_workers):
    """The neurons first <= j < last of an owned layer, filled up, that a worker owns."""
    unit, n = _unit(layer, weights), padded_neurons(layer, weights)
    units = (n + unit - 1) // unit
    return units * worker // n_workers * unit, min(units * (worker + 1) // n_workers * unit, n)


@jit
def block_size(m):
    """Samples in a block of m: as many in each as can be, in one block or an even number, for two workers."""
    pairs = rounded_up(m, 2 * BLOCK) // (2 * BLOCK)
    return m if m <= BLOCK else rounded_up(m, 2 * pairs) // (2 * pairs)


@jit
def n_blocks(m, block):
    """Into how many blocks m samples are cut."""
    return (m + block - 1) // block
