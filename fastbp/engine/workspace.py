"""The workspace: every buffer of a run, made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastbp.engine.memory import CACHE_LINE, aligned_zeros
from fastbp.engine.parameters import Layout, round_up
from fastbp.kernels import layers as column
from fastbp.kernels.layers import (
    BLOCK,
    BLOCKS,
    CHAINS,
    COLUMN_BITS,
    GAP,
    MEASURED_COLUMNS,
    STRIP,
    WORD,
    Parameters,
    Replicas,
    Workspace,
)

# Elements of the gradients of blocks that are kept at a time, if more than those of a slab: what a cache holds
PARTS_KEPT = 1 << 15


class Setup(NamedTuple):
    """What a run trains with."""

    kernel: Callable[..., Any]  # the entry that does
    layout: Any  # `Layout`, or another class with the same methods
    layers: np.ndarray  # the table of layers
    parameters: Parameters
    buffers: NamedTuple  # as the kernel wants them
    replicas: NamedTuple
    gathered: int  # stride of the copies of a mini-batch's rows; 0 where X is read in place


def bit_words(layer: np.ndarray) -> int:
    """Return how many numbers hold the bits of a row's inputs in one chain of a layer, the longest."""
    return -(-int(layer[column.SECOND]) // WORD)


def bits(rows: int, layer: np.ndarray) -> np.ndarray:
    """Return room for those of the inputs of so many rows, and for a number that is read beyond them."""
    return np.zeros(rows * CHAINS * int(layer[column.WORDS]) + 1, np.int64)


def workspace(
    layout: Layout,
    rows: int,
    n_workers: int,
    gathered: int = 0,
    *,
    batch_size: int = 0,
    training: bool,
    sparse: bool = False,
    deltas: bool = True,
    parts: int = 0,
    mostly_zero: bool = False,
) -> tuple[np.ndarray, Workspace]:
    """Return the table of layers with its places in the workspace, and buffers for `rows` samples.

    Parameters
    ----------
    layout : Layout
    rows : int
        Samples whose activations are kept at a time.
    n_workers : int
    gathered : int
        Stride of the copies of input rows; 0 without.
    batch_size : int
        Samples of a mini-batch.
    training : bool
        Whether gradients are wanted, too.
    sparse : bool
        Whether a sparse X is trained on.
    deltas : bool
        Whether there are targets.
    parts : int
        Blocks whose gradients are kept at a time, in each of two places.
    mostly_zero : bool
        Whether the zeros of a dense X are left out.
    """
    layers = layout.layers.copy()
    place = 0
    for layer in layers:
        layer[column.A] = place
        place += rows * int(layer[column.STRIDE])
    layers[0, column.WORDS] = bit_words(layers[0]) if mostly_zero else 0
    strip = 2 * STRIP * 2 * layout.lanes + GAP  # of two wide panels
    strip_size = round_up(min(rows, batch_size) * STRIP, CACHE_LINE // layout.dtype.itemsize) + GAP if training else 0
    # 16 lanes and a tile's columns may read past the last row of the last layer, never past this
    slack = 2 * 16
    # without deltas these are the second chains of the first layer's z
    in_chains = layers[0, column.SECOND] < layers[0, column.N_IN]
    delta_size = place if deltas else rows * int(layers[0, column.STRIDE]) if in_chains else 0
    return layers, Workspace(
        rows=aligned_zeros(rows * gathered + slack if gathered else 0, layout.dtype),
        a=aligned_zeros(place + slack, layout.dtype),
        delta=aligned_zeros(delta_size + slack, layout.dtype),
        scratch=aligned_zeros(n_workers * strip, layout.dtype),
        strips=aligned_zeros(n_workers * strip_size, layout.dtype),
        strip_size=strip_size,
        column_bits=np.zeros(n_workers * (COLUMN_BITS + GAP) if training and mostly_zero else 0, np.int64),
        bits=bits(rows, layers[0]),
        index=np.arange(rows, dtype=np.int64),
        cost=np.zeros(rows),
        hits=np.zeros(rows),
        first=aligned_zeros(int(layers[0, column.B]) if sparse else 0, layout.dtype),
        parts=aligned_zeros(2 * parts * layout.size, layout.dtype),
        bias_parts=aligned_zeros(2 * parts * layout.size, np.float64),
        part_size=layout.size,
        part_costs=np.zeros(2 * parts * MEASURED_COLUMNS),
        parts_kept=parts,
        squares=aligned_zeros(layout.squares_size if training else 0, layout.dtype),
    )


def parts_kept(size: int, batch_size: int) -> int:
    """Return how many gradients of so many elements are kept: those of a mini-batch, or of as many slabs as fit."""
    slabs = max(1, PARTS_KEPT // (BLOCKS * size))
    return min(2 * -(-batch_size // (2 * BLOCK)), slabs * BLOCKS)


def replicas(parameters: Parameters, n: int, squares_size: int, begin: int, apart: int) -> Replicas:
    """Return room for the replicas of n workers, of whom the first takes the parameters themselves."""
    others = max(n - 1, 0)
    sizes = [max(array.size - begin, 0) for array in parameters[:-1]] + [parameters.transposed.size]
    return Replicas(
        n=n,
        begin=begin,
        apart=apart,
        parameters=Parameters(*(aligned_zeros(others * (size + GAP), parameters.weights.dtype) for size in sizes)),
        squares=aligned_zeros(others * (squares_size + GAP), parameters.weights.dtype),
    )
