"""Parameters: canonical weights and biases <-> the panels that the kernels read.

`Layout` says where each layer lies in the flat arrays; `pack` and `unpack` convert. Panels depend on the compilation
target (its SIMD width), canonical arrays do not: those are what a network owns, saves and pickles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastbp.architecture import Architecture
from fastbp.engine.memory import CACHE_LINE, aligned_zeros
from fastbp.kernels import layers as column
from fastbp.kernels.activations import ACTIVATIONS
from fastbp.kernels.layers import LAYER_COLUMNS, SQUARED, STRIP, Parameters
from fastbp.kernels.simd import lanes_of
from fastbp.kernels.tiles import FEW_WIDE, NARROW, WIDE, turned_rows

Floats = NDArray[Any]
# Inputs of X from which on a z is the sum of two chains, so that two workers can divide weights and X
INPUTS_OF_TWO_CHAINS = 256
# Inputs whose weights are turned at a time, from columns of a panel into rows: the nearest cache holds them
TURNED = 256


def round_up(n: int, multiple: int) -> int:
    """Return the smallest multiple that is at least n."""
    return -(-n // multiple) * multiple


def row_stride(n: int, itemsize: int) -> int:
    """Return elements between two rows of n: 16 logical lanes, and not a power of two, whose rows share cache sets."""
    stride = round_up(n, 16)
    return stride + 16 if stride * itemsize % 512 == 0 else stride


class Layout:
    """Where the layers of an architecture lie in the flat arrays of a run.

    Attributes
    ----------
    layers : int64 array (L, LAYER_COLUMNS)
        The kernels' table of layers, all columns but those of a single call set.
    size, transposed_size : int
        Elements of the parameters, and of the transposed panels.
    row_size : int
        Elements of the workspace for one sample, over all layers.
    squares_size : int
        Elements of the sums of squared weights.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.dtype = architecture.dtype
        itemsize = self.dtype.itemsize
        self.lanes = lanes = lanes_of(itemsize)
        aligned = CACHE_LINE // itemsize
        self.layers = layers = np.zeros((len(architecture.sizes) - 1, LAYER_COLUMNS), np.int64)
        self.size = self.transposed_size = self.row_size = self.squares_size = 0
        for l, layer in enumerate(layers):
            n_in, n_out = architecture.sizes[l : l + 2]
            registers = -(-n_out // lanes)
            panels, narrow = divmod(registers, 2)
            two_chains = l == 0 and n_in >= INPUTS_OF_TWO_CHAINS
            # so that two workers can share the layer, unless each computes a chain
            if registers == 2 and 2 * lanes > 16 and n_in > FEW_WIDE.rows and not two_chains:
                panels, narrow = 0, 2
            padded = max(round_up(n_in, rows) for rows in (WIDE.rows, NARROW.rows, turned_rows(lanes)))
            width = registers * lanes
            if l > 0 and n_out == 1:
                panels, narrow, padded, width = 0, 0, round_up(n_in, 2 * lanes), 1
            layer[column.N_IN], layer[column.N_OUT] = n_in, n_out
            half = round_up(n_in, 2 * STRIP) // 2
            layer[column.SECOND] = half if two_chains else n_in
            layer[column.ACTIVATION] = ACTIVATIONS[architecture.activations[l]].code
            layer[column.PANELS], layer[column.NARROW], layer[column.K_PADDED] = panels, narrow, padded
            layer[column.W] = self.size
            self.size += round_up(width * padded, aligned)
            layer[column.B] = self.size
            self.size += round_up(registers * lanes, aligned)
            layer[column.WT] = -1
            if l > 0:
                layer[column.WT] = self.transposed_size
                self.transposed_size += round_up(round_up(n_in, lanes) * width, aligned)
            side_by_side = width == 1 and l == len(layers) - 1 and architecture.activations[l] != "softmax"
            layer[column.STRIDE] = 1 if side_by_side else row_stride(n_out, itemsize)
            self.row_size += int(layer[column.STRIDE])
            layer[column.SQUARES] = self.squares_size
            self.squares_size += round_up(n_out, 16) * -(-n_in // SQUARED)

    def _panels(self, flat: Floats, l: int) -> list[tuple[slice, Floats]]:
        """Return for each kind of panel the neurons j it holds, and its view of the flat array (panel, k, j)."""
        layer = self.layers[l]
        wide, padded, n = 2 * self.lanes, int(layer[column.K_PADDED]), int(layer[column.PANELS])
        start, split = int(layer[column.W]), n * wide
        if not n and not layer[column.NARROW]:
            return [(slice(0, 1), flat[start : start + padded].reshape(1, padded, 1))]
        views = [(slice(0, split), flat[start : start + split * padded].reshape(n, padded, wide))]
        if narrow := int(layer[column.NARROW]):
            start += split * padded
            view = flat[start : start + narrow * self.lanes * padded].reshape(narrow, padded, self.lanes)
            views.append((slice(split, split + narrow * self.lanes), view))
        return views

    def pack(self, weights: Sequence[Floats], biases: Sequence[Floats]) -> Floats:
        """Return a flat array of the run's dtype from weights[l] (n_out, n_in) and biases[l] (n_out,)."""
        flat = aligned_zeros(self.size, self.dtype)
        for l, (w, b) in enumerate(zip(weights, biases, strict=True)):
            n_out, n_in = w.shape
            by_columns = w.dtype == self.dtype and w.strides[0] == self.dtype.itemsize
            for neurons, view in self._panels(flat, l):
                part = w[neurons]
                whole, rest = divmod(len(part), view.shape[2])
                inner = view[:, :n_in]
                if whole and by_columns:  # the weights of a panel from one input lie side by side, here and there
                    item = f"V{view.shape[2] * self.dtype.itemsize}"
                    inner[:whole].view(item)[:, :, 0] = part[: whole * view.shape[2]].T.view(item).T
                elif whole:
                    inner[:whole] = part[: whole * view.shape[2]].reshape(whole, view.shape[2], n_in).transpose(0, 2, 1)
                if rest:
                    inner[whole, :, :rest] = part[whole * view.shape[2] :].T
            start = int(self.layers[l, column.B])
            flat[start : start + n_out] = b
        return flat

    def unpack(self, flat: Floats, order: Literal["C", "F"] = "C") -> tuple[list[Floats], list[Floats]]:
        """Return new weights, in rows or columns, and biases from a flat array."""
        weights, biases = [], []
        for l, layer in enumerate(self.layers):
            n_in, n_out = int(layer[column.N_IN]), int(layer[column.N_OUT])
            w = np.empty((n_out, n_in), self.dtype, order=order)
            for neurons, view in self._panels(flat, l):
                part = w[neurons]
                width = view.shape[2]
                whole, rest = divmod(len(part), width)
                inner = view[:, :n_in]
                rows, columns = part[: whole * width].reshape(whole, width, n_in), inner[:whole].transpose(0, 2, 1)
                for k in range(0, n_in, TURNED):
                    rows[:, :, k : k + TURNED] = columns[:, :, k : k + TURNED]
                if rest:
                    part[whole * width :] = inner[whole, :, :rest].T
            start = int(layer[column.B])
            weights.append(w)
            biases.append(flat[start : start + n_out].copy())
        return weights, biases

    def transpose(self, weights: Sequence[Floats]) -> Floats:
        """Return the transposed panels of all layers but the first."""
        flat = aligned_zeros(self.transposed_size, self.dtype)
        for layer, w in zip(self.layers, weights, strict=True):
            if layer[column.WT] < 0:
                continue
            n_out, n_in = w.shape
            start = int(layer[column.WT])
            registers = -(-n_in // self.lanes)
            rows = 1 if n_out == 1 else round_up(n_out, self.lanes)
            for k in range(0, n_in, 2 * self.lanes):
                width = min(2 * self.lanes, registers * self.lanes - k)
                panel = flat[start + k * rows : start + (k + width) * rows].reshape(rows, width)
                part = w[:, k : k + width]
                panel[:n_out, : part.shape[1]] = part
        return flat

    def parameters(
        self, weights: Sequence[Floats], biases: Sequence[Floats], state: Sequence[Any] = (), *, sums: bool = False
    ) -> Parameters:
        """Return all flat arrays of a run: packed weights, the optimizer's state as packed slots, room for sums.

        A slot that is None is all zeros.
        """
        slots = [aligned_zeros(self.size, self.dtype) if slot is None else self.pack(*slot) for slot in state]
        nothing = np.zeros(0, self.dtype)
        return Parameters(
            weights=self.pack(weights, biases),
            slot_1=slots[0] if slots else nothing,
            slot_2=slots[1] if len(slots) > 1 else nothing,
            sums=aligned_zeros(self.size, self.dtype) if sums else nothing,
            transposed=self.transpose(weights),
        )
