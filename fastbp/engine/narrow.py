"""Narrow networks, which train with samples in the lanes: which these are, and how parameters and buffers lie then."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fastbp.architecture import Architecture
from fastbp.engine.evaluation import Source
from fastbp.engine.memory import aligned_zeros
from fastbp.engine.parameters import Floats, round_up
from fastbp.engine.workspace import Setup, parts_kept
from fastbp.kernels import layers as column
from fastbp.kernels.activations import ACTIVATIONS
from fastbp.kernels.lane_tiles import LANES, PAIR
from fastbp.kernels.layers import BLOCK, GAP, LAYER_COLUMNS, MEASURED_COLUMNS, PITCH, NarrowWorkspace, Parameters
from fastbp.kernels.narrow import train_narrow

# Neurons of a layer at most, and for each sample of a mini-batch, that samples in the lanes compute in less time
WIDTH, WIDTH_PER_SAMPLE = 48, 1.5
# Inputs at most, and samples at least
INPUTS, SAMPLES = 64, 8
# Multiply-adds of a sample that repay dividing a mini-batch of one block between two workers
WORK_OF_HALF_BLOCKS = 2_000


def is_narrow(architecture: Architecture, batch_size: int) -> bool:
    """Return whether a network is to be trained with samples in the lanes: of few neurons, by samples enough."""
    n_in, *widths = architecture.sizes
    fits = n_in <= INPUTS and max(widths) <= min(WIDTH, WIDTH_PER_SAMPLE * batch_size)
    return fits and batch_size >= SAMPLES


def block_most(architecture: Architecture, batch_size: int) -> int:
    """Return the most samples of a block: fewer where two workers could not share a mini-batch otherwise."""
    work = sum(n_in * n_out for n_in, n_out in itertools.pairwise(architecture.sizes))
    return BLOCK // 2 if batch_size <= BLOCK and work >= WORK_OF_HALF_BLOCKS else BLOCK


class NarrowLayout:
    """Where the layers lie in the flat arrays of such a run: all weights as they are, then all biases.

    Attributes
    ----------
    layers : int64 array (L, LAYER_COLUMNS)
        The kernels' table of layers; `A` counts in neurons of `PITCH` samples, after the inputs.
    size : int
        Elements of the parameters.
    rows : int
        Inputs and neurons whose values are kept.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.dtype, sizes = architecture.dtype, architecture.sizes
        self.layers = np.zeros((len(sizes) - 1, LAYER_COLUMNS), np.int64)
        place, row = 0, round_up(sizes[0], 4)  # rows are taken four at a time
        for l, layer in enumerate(self.layers):
            n_in, n_out = sizes[l : l + 2]
            layer[column.N_IN], layer[column.N_OUT] = n_in, n_out
            layer[column.ACTIVATION] = ACTIVATIONS[architecture.activations[l]].code
            layer[column.W], layer[column.A] = place, row * PITCH
            layer[column.WT] = -1
            place += n_out * n_in
            row += n_out
        self.rows = row + 4
        place = round_up(place, LANES)
        for layer in self.layers:
            layer[column.B] = place
            place += int(layer[column.N_OUT])
        self.size = round_up(place, LANES)

    def pack(self, weights: Sequence[Floats], biases: Sequence[Floats]) -> Floats:
        """Return a flat array of the run's dtype from weights[l] (n_out, n_in) and biases[l] (n_out,)."""
        flat = aligned_zeros(self.size, self.dtype)
        for layer, w, b in zip(self.layers, weights, biases, strict=True):
            flat[layer[column.W] :][: w.size] = w.ravel()
            flat[layer[column.B] :][: b.size] = b
        return flat

    def unpack(self, flat: Floats, order: Literal["C", "F"] = "C") -> tuple[list[Floats], list[Floats]]:
        """Return new weights, in rows or columns, and biases from a flat array."""
        weights, biases = [], []
        for layer in self.layers:
            n_in, n_out = int(layer[column.N_IN]), int(layer[column.N_OUT])
            w, b = flat[layer[column.W] :][: n_out * n_in], flat[layer[column.B] :][:n_out]
            weights.append(w.reshape(n_out, n_in).copy(order=order))
            biases.append(b.copy())
        return weights, biases

    def parameters(self, weights: Sequence[Floats], biases: Sequence[Floats], state: Sequence[Any] = ()) -> Parameters:
        """Return all flat arrays of a run: packed weights and the optimizer's state; a slot that is None is zeros."""
        slots = [aligned_zeros(self.size, self.dtype) if slot is None else self.pack(*slot) for slot in state]
        nothing = np.zeros(0, self.dtype)
        return Parameters(
            weights=self.pack(weights, biases),
            slot_1=slots[0] if slots else nothing,
            slot_2=slots[1] if len(slots) > 1 else nothing,
            sums=nothing,
            transposed=nothing,
        )


def narrow_workspace(
    layout: NarrowLayout, batch_size: int, most: int, n_workers: int
) -> tuple[NarrowWorkspace, Parameters]:
    """Return buffers for blocks of at most so many samples, and room for the replicas of all workers but the first."""
    dtype, size, kept = layout.dtype, layout.rows * PITCH, parts_kept(layout.size, batch_size)
    buffers = NarrowWorkspace(
        a=aligned_zeros(n_workers * (size + GAP), dtype),
        delta=aligned_zeros(n_workers * (size + GAP), dtype),
        size=size,
        sums=aligned_zeros(n_workers * (layout.size + GAP), dtype),
        parts=aligned_zeros(2 * kept * layout.size, dtype),
        part_size=layout.size,
        part_costs=np.zeros(2 * kept * MEASURED_COLUMNS),
        parts_kept=kept,
        block=most // PAIR,
    )
    weights, slot_1, slot_2 = (aligned_zeros((n_workers - 1) * (layout.size + GAP), dtype) for _ in range(3))
    nothing = np.zeros(0, dtype)
    return buffers, Parameters(weights, slot_1, slot_2, sums=nothing, transposed=nothing)


def narrow_setup(
    architecture: Architecture,
    X: Source,
    weights: Sequence[Floats],
    biases: Sequence[Floats],
    slots: Sequence[Any],
    batch_size: int,
    n_workers: int,
) -> Setup:
    """Return the kernel of a run, its parameters, and buffers for mini-batches of at most so many samples.

    What is asked for decides on the bits, not how many samples there are: mini-batches may come one by one.
    """
    layout, most = NarrowLayout(architecture), block_most(architecture, batch_size)
    parameters = layout.parameters(weights, biases, slots)
    buffers, replicas = narrow_workspace(layout, min(batch_size, len(X)), most, n_workers)
    return Setup(train_narrow, layout, layout.layers, parameters, buffers, replicas, 0)


def most_workers(architecture: Architecture, batch_size: int, n: int) -> int:
    """Return how many workers a mini-batch of at most n samples has blocks for."""
    return -(-min(batch_size, n) // block_most(architecture, batch_size))
