"""Networks whose neurons fill the lanes: how the parameters and buffers of their training lie."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from fastbp.architecture import Architecture
from fastbp.engine.evaluation import Source, layout_of
from fastbp.engine.parameters import Floats, row_stride
from fastbp.engine.sparse import SparseRows, halves_are_alike, is_mostly_zero
from fastbp.engine.workspace import Setup, parts_kept, replicas, workspace
from fastbp.kernels import layers as column
from fastbp.kernels.layers import BLOCK, CHAINS, ROWS_APART, ROWS_GAP, SLAB
from fastbp.kernels.minibatch import train

# Parameters that are updated by every worker in less time than it takes to share them
PARAMETERS_OF_REPLICAS = 1 << 14
# Samples of a mini-batch that repay looking for their zeros
ROWS_WITHOUT_ZEROS = 32
# Neurons and samples too few to be divided: two workers divide the inputs
NEURONS_OF_HALVES, ROWS_OF_HALVES = 32, 128
# Multiply-adds of z, of a mini-batch above a halved layer, that both compute in less time than they meet twice more
WORK_ABOVE_HALVES = 15_000


def wide_setup(
    architecture: Architecture,
    X: Source,
    weights: Sequence[Floats],
    biases: Sequence[Floats],
    slots: Sequence[Any],
    batch_size: int,
    n_workers: int,
) -> Setup:
    """Return the kernel of a run, its parameters, and buffers for mini-batches of at most so many samples."""
    batch_size = min(batch_size, len(X))
    layout, sparse = layout_of(architecture), isinstance(X, SparseRows)
    parameters = layout.parameters(weights, biases, slots, sums=batch_size > (BLOCK if sparse else SLAB))
    # rows a power of two apart fall into the same few sets of the cache: those of a mini-batch are copied side by
    # side, as are those of an X that lies otherwise than kernels compute with
    lies_so = isinstance(X, SparseRows) or (
        X.flags.c_contiguous and X.dtype == architecture.dtype and architecture.n_in * X.itemsize % 512 != 0
    )
    gathered = 0 if lies_so else row_stride(architecture.n_in, architecture.dtype.itemsize)
    n_replicas = min(n_workers, -(-batch_size // BLOCK))
    if n_replicas == 1 or sparse or layout.size > PARAMETERS_OF_REPLICAS:
        n_replicas = 0
    kept = parts_kept(layout.size, batch_size) if n_replicas else 0
    rows = max(min(batch_size, SLAB), n_replicas * ROWS_APART)
    mostly_zero = batch_size >= ROWS_WITHOUT_ZEROS and is_mostly_zero(X)
    begin, apart = 0, ROWS_APART
    halved, second = False, int(layout.layers[0, column.SECOND])
    if second < architecture.n_in and not isinstance(X, SparseRows) and not n_replicas:
        few = architecture.sizes[1] <= NEURONS_OF_HALVES and batch_size <= ROWS_OF_HALVES
        halved = halves_are_alike(X, second) if mostly_zero else few
    above = sum(n_in * n_out for n_in, n_out in pairwise(architecture.sizes[1:]))
    is_small = batch_size <= BLOCK and batch_size * above <= WORK_ABOVE_HALVES
    if halved and is_small and n_workers == CHAINS and not gathered:
        begin = int(layout.layers[1, column.W]) if above else layout.size
        n_replicas, apart = CHAINS, batch_size + ROWS_GAP
        rows = (n_replicas + 2) * apart  # those of each worker, and the chains of two mini-batches in turn
    layers, buffers = workspace(
        layout, rows, n_workers, gathered, batch_size=batch_size, training=True, sparse=sparse, parts=kept,
        mostly_zero=mostly_zero,
    )  # fmt: skip
    layers[0, column.HALVED] = halved
    room = replicas(parameters, n_replicas, buffers.squares.size, begin, apart)
    return Setup(train, layout, layers, parameters, buffers, room, gathered)
