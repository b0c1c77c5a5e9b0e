"""The workspace: every buffer of a run, made once."""

from __future__ import annotations

import numpy as np

from fastbp.engine.memory import CACHE_LINE, aligned_zeros
from fastbp.engine.parameters import Layout, round_up
from fastbp.kernels import layers as column
from fastbp.kernels.layers import BLOCK, COUNTS, STRIP, WORD, Workspace


def bit_words(n_in: int) -> int:
    """Return how many numbers hold the bits of a row's inputs."""
    return -(-n_in // WORD)


def workspace(
    layout: Layout,
    rows: int,
    n_workers: int,
    gathered: int = 0,
    *,
    training: bool,
    sparse: bool = False,
    deltas: bool = True,
    by_blocks: bool = False,
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
    training : bool
        Whether gradients are wanted, too.
    sparse : bool
        Whether a sparse X is trained on.
    deltas : bool
        Whether there are targets.
    by_blocks : bool
        Whether workers compute gradients of whole blocks of samples, which are added afterwards.
    mostly_zero : bool
        Whether the zeros of a dense X are left out.
    """
    layers = layout.layers.copy()
    place = 0
    for layer in layers:
        layer[column.A] = place
        place += rows * int(layer[column.STRIDE])
    layers[0, column.MOSTLY_ZERO] = mostly_zero
    strip = STRIP * 2 * layout.lanes  # of a wide panel
    part_size = layout.size if by_blocks else 0
    n_parts = 2 * -(-rows // (2 * BLOCK))
    strip_rows = n_parts * BLOCK if mostly_zero and rows > BLOCK else rows  # whole blocks of non-zeros are collected
    strip_size = round_up(strip_rows * STRIP, CACHE_LINE // layout.dtype.itemsize) if training else 0
    bits_size = rows * bit_words(int(layers[0, column.N_IN])) + 1 if mostly_zero else 0
    # 16 lanes and a tile's columns may read past the last row of the last layer, never past this
    slack = 2 * 16
    return layers, Workspace(
        rows=aligned_zeros(rows * gathered + slack if gathered else 0, layout.dtype),
        a=aligned_zeros(place + slack, layout.dtype),
        delta=aligned_zeros(place + slack if deltas else 0, layout.dtype),
        scratch=aligned_zeros(n_workers * strip, layout.dtype),
        strips=aligned_zeros(n_workers * strip_size, layout.dtype),
        strip_rows=np.zeros(n_workers * strip_size if mostly_zero else 0, np.int8),
        strip_counts=np.zeros(n_workers * COUNTS if mostly_zero else 0, np.int16),
        strip_size=strip_size,
        bits=np.zeros(bits_size, np.int64),
        index=np.arange(rows, dtype=np.int64),
        cost=np.zeros(rows),
        hits=np.zeros(rows),
        first=aligned_zeros(int(layers[0, column.B]) if sparse else 0, layout.dtype),
        parts=aligned_zeros(n_parts * part_size, layout.dtype),
        bias_parts=aligned_zeros(n_parts * part_size, np.float64),
        part_size=part_size,
        squares=aligned_zeros(layout.squares_size if training else 0, layout.dtype),
    )
