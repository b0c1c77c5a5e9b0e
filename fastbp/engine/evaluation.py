"""Evaluation: samples sent forward, and what they cost, without training.

An `Evaluator` keeps small buffers from one call to the next: to make them takes longer than a small network computes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.architecture import Architecture
from fastbp.engine.cores import WORK_PER_START, Call, is_open, n_workers_for, share_of
from fastbp.engine.memory import aligned_zeros
from fastbp.engine.parameters import Floats, Layout, round_up
from fastbp.engine.sparse import SparseRows, is_mostly_zero
from fastbp.engine.team import run_team
from fastbp.engine.workspace import bit_words, bits, workspace
from fastbp.kernels import evaluation as word
from fastbp.kernels import layers as column
from fastbp.kernels.evaluation import evaluate as evaluate_kernel
from fastbp.kernels.layers import MEASURED_COLUMNS
from fastbp.kernels.losses import loss_code
from fastbp.kernels.threads import TEAM_WORDS

__all__ = ["Evaluator", "Source", "evaluator_of", "layout_of", "multiply_adds"]

Source = Floats | SparseRows
# Multiply-adds of an evaluation that is long enough to be interrupted, so that a thread does it while the caller waits
WORK_PER_INTERRUPT = 4_000_000_000
# And from which on the caller first lets the others leave its core: 0.1 ms, where else they may begin milliseconds late
_WORK_TOGETHER = 300_000_000
_TILE = 10  # rows: pieces are whole tiles
_PIECE_BYTES = 1 << 17  # of activations that a worker keeps: they stay in its second-level cache
_PIECE_WORK, _PIECE_ROWS = 11_000_000, 110  # multiply-adds, unless rows are so few: others wait for the last piece
_PIECES_PER_WORKER = 4  # at least, so that one whose core is busy with something else leaves its pieces to the others
# Bytes of activations, inputs and multiply-adds up to which samples are few: the buffers for them are kept
_FEW_BYTES, _FEW_INPUTS, _FEW_WORK = 1 << 15, 4096, 10_000_000
_KEPT = 8  # buffers: for so many workers at the same time


@lru_cache(maxsize=64)
def layout_of(architecture: Architecture) -> Layout:
    """Return the layout of an architecture."""
    return Layout(architecture)


@lru_cache(maxsize=4)
def evaluator_of(architecture: Architecture) -> Evaluator:
    """Return an evaluator for an architecture, for who has none; the last few are remembered."""
    return Evaluator(architecture)


def multiply_adds(architecture: Architecture, X: Source, *, training: bool) -> int:
    """Return the multiply-adds for one sample: forward, and in training also delta and gradient."""
    products = [n_in * n_out for n_in, n_out in zip(architecture.sizes, architecture.sizes[1:], strict=False)]
    if isinstance(X, SparseRows):
        products[0] = -(-len(X.values) // len(X)) * architecture.sizes[1]
    return 3 * sum(products) - products[0] if training else sum(products)


class _Buffers:
    """What one worker needs: a workspace for some rows, and the call that says where it lies.

    Attributes
    ----------
    call : int64 array (CALL_COLUMNS,)
        Without samples.
    layers : int64 array (L, LAYER_COLUMNS)
        The table that it names, for which no activations are wanted.
    bits : int64 array or None
        For the bits of the rows' inputs, where a call leaves out zeros.
    """

    bits: NDArray[np.int64] | None = None

    def __init__(self, layout: Layout, rows: int, *, deltas: bool) -> None:
        self.layers, space = workspace(layout, rows, 1, training=False, deltas=deltas)
        self.call = np.zeros(word.CALL_COLUMNS, np.int64)
        self.call[[word.LAYERS, word.N_LAYERS, word.PIECE]] = self.layers.ctypes.data, len(self.layers), rows
        self.call[word.ACTIVATIONS : word.REPORT] = [
            array.ctypes.data for array in (space.a, space.delta, space.index, space.cost, space.hits)
        ]
        self._kept_alive = space


class _BuffersOfFew(_Buffers):
    """The same for a few rows, with room for their inputs and outputs, so that a call needs to be told nothing.

    Attributes
    ----------
    inputs, outputs : arrays (rows, n_in) and (rows, n_out)
    input, output : their first rows
    own_call : int64 array (CALL_COLUMNS,)
        From `inputs` to `outputs`.
    """

    def __init__(self, layout: Layout, rows: int) -> None:
        super().__init__(layout, rows, deltas=True)
        n_in, n_out = int(self.layers[0, column.N_IN]), int(self.layers[-1, column.N_OUT])
        self.inputs, self.outputs = np.zeros((rows, n_in), layout.dtype), np.zeros((rows, n_out), layout.dtype)
        self.input, self.output = self.inputs[:1], self.outputs[:1]
        self._own_layers = self.layers.copy()
        self._own_layers[-1, column.OUT] = self.outputs.ctypes.data
        self.own_call = self.call.copy()
        places = self._own_layers.ctypes.data, self.inputs.ctypes.data, n_in
        self.own_call[[word.LAYERS, word.X, word.X_STRIDE]] = places


class Evaluator:
    """What sends samples forward through an architecture, whatever its weights, and from many threads at once.

    Parameters
    ----------
    architecture : Architecture

    Attributes
    ----------
    layout : Layout
    few : int
        Rows that `outputs_of_few` takes at the most.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture, self.layout = architecture, layout_of(architecture)
        self._work = sum(a * b for a, b in zip(architecture.sizes, architecture.sizes[1:], strict=False))
        row_bytes = self.layout.row_size * self.layout.dtype.itemsize
        rows = min(_PIECE_BYTES // row_bytes, max(_PIECE_ROWS, _PIECE_WORK // self._work))
        self._rows = max(_TILE, rows // _TILE * _TILE)
        few = min(max(1, _FEW_BYTES // row_bytes), _FEW_INPUTS // architecture.n_in, _FEW_WORK // self._work)
        self.few = max(0, few)
        self._outputs = {len(architecture.sizes) - 2}  # the layer that they come from
        self._loss = loss_code(architecture.loss, architecture.output)
        self._idle: list[_BuffersOfFew] = []  # one operation on it is atomic: nobody else has what was taken
        self._idle_of_many: list[_Buffers] = []  # likewise, for pieces of many samples
        self._keeps_many = self._rows * row_bytes <= _PIECE_BYTES

    def _take(self) -> _BuffersOfFew:
        try:
            return self._idle.pop()
        except IndexError:
            return _BuffersOfFew(self.layout, self.few)

    def _take_of_many(self) -> _Buffers:
        try:
            return self._idle_of_many.pop()
        except IndexError:
            return _Buffers(self.layout, self._rows, deltas=False)

    def _give_back(self, buffers: _Buffers) -> None:
        if isinstance(buffers, _BuffersOfFew):
            if len(self._idle) < _KEPT:
                self._idle.append(buffers)
        elif len(self._idle_of_many) < _KEPT:
            self._idle_of_many.append(buffers)

    def outputs_of_few(self, weights: Floats, X: NDArray[Any]) -> tuple[Floats, int]:
        """Send a few samples forward in the caller's thread.

        Parameters
        ----------
        weights : array
            Packed.
        X : array (n, n_in) of real numbers
            1 to `few` rows.

        Returns
        -------
        array (n, n_out) of the network's dtype
        int
            How many samples may have an entry that is not finite.
        """
        buffers = self._take()
        n = len(X)
        inputs, outputs = buffers.input, buffers.output
        if n > 1:
            inputs, outputs = buffers.inputs[:n], buffers.outputs[:n]
        inputs[...] = X
        doubtful: int = evaluate_kernel(weights, buffers.own_call, n)
        copied = outputs.copy()
        self._give_back(buffers)
        return copied, doubtful

    def evaluate(
        self,
        weights: Floats,
        X: Source,
        y: NDArray[Any] | None = None,
        *,
        classify: bool = False,
        wanted: dict[int, Floats] | None = None,
        n_threads: int | None = None,
        doubt: Callable[[], None] | None = None,
    ) -> NDArray[np.float64]:
        """Send samples forward.

        Parameters
        ----------
        weights : array
            Packed.
        X, y : arrays
            As for `Run`; without y no cost is computed.
        classify : bool
        wanted : dict of l -> array (n, n_out of layer l)
            Where the activations of a weight layer shall go; C-contiguous, of the network's dtype.
        n_threads : int or None
        doubt : callable, optional
            Called at the end where X may have entries that are not finite; nothing was raised because of them.

        Returns
        -------
        float64 array (n, 2)
            Cost and hit of each sample; empty without y.
        """
        n, wanted = len(X), wanted or {}
        report = np.zeros((n if y is not None else 0, MEASURED_COLUMNS))
        if isinstance(X, np.ndarray) and n <= self.few and y is None and wanted.keys() == self._outputs:
            doubtful = self._write_outputs_of_few(weights, X, wanted)
        else:
            doubtful = self._share(weights, X, y, classify, wanted, n_threads, report)
        if doubtful and doubt is not None:
            doubt()
        return report

    def _write_outputs_of_few(self, weights: Floats, X: NDArray[Any], wanted: dict[int, Floats]) -> int:
        """Do without a team, and a call of their own, for a few samples of which nothing but the outputs is wanted."""
        outputs, doubtful = self.outputs_of_few(weights, X)
        for array in wanted.values():
            array[...] = outputs
        return doubtful

    def _share(
        self,
        weights: Floats,
        X: Source,
        y: NDArray[Any] | None,
        classify: bool,
        wanted: dict[int, Floats],
        n_threads: int | None,
        report: NDArray[np.float64],
    ) -> int:
        """Let as many workers as it repays share the samples; return how many of these are doubtful."""
        n = len(X)
        work = n * (multiply_adds(self.architecture, X, training=False) if isinstance(X, SparseRows) else self._work)
        with Call():
            n_workers = min(n_workers_for(n_threads, work, WORK_PER_START), -(-n // self._rows))
            if is_open(n_threads):
                n_workers = share_of(n_workers)
            team: list[_Buffers]
            few, kept = n_workers == 1 and n <= self.few, y is None and self._keeps_many
            if few:
                team = [self._take()]
            elif kept:
                team = [self._take_of_many() for _ in range(n_workers)]
            else:
                rows, deltas = min(n, self._rows), y is not None
                team = [_Buffers(self.layout, rows, deltas=deltas) for _ in range(n_workers)]
            layers = team[0].layers.copy()
            for l, array in wanted.items():
                layers[l, column.OUT] = array.ctypes.data
            layers[0, column.WORDS] = bit_words(layers[0]) if is_mostly_zero(X) else 0
            calls = [self._call(buffers, layers, X, y, classify, report) for buffers in team]
            if n_workers == 1 and work < WORK_PER_INTERRUPT:
                doubtful: int = evaluate_kernel(weights, calls[0], n)
            else:
                doubtful = _by_team(weights, calls, n, work, kept_alive=(team, layers, X, y, wanted, report))
            for buffers in team if few or kept else ():
                self._give_back(buffers)
        return doubtful

    def _call(
        self,
        buffers: _Buffers,
        layers: NDArray[np.int64],
        X: Source,
        y: NDArray[Any] | None,
        classify: bool,
        report: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        call = buffers.call.copy()
        call[word.LAYERS] = layers.ctypes.data
        if isinstance(X, SparseRows):
            call[word.X], call[word.BEGINS], call[word.K] = (array.ctypes.data for array in (X.values, X.begins, X.k))
        else:
            call[word.X], call[word.X_STRIDE] = X.ctypes.data, X.shape[1]
        if layers[0, column.WORDS]:
            buffers.bits = bits(int(call[word.PIECE]), layers[0])
            call[word.BITS] = buffers.bits.ctypes.data
        if y is not None:
            call[word.Y], call[word.Y_STRIDE] = y.ctypes.data, 0 if y.ndim == 1 else y.shape[1]
            call[word.LOSS], call[word.CLASSIFY], call[word.REPORT] = self._loss, classify, report.ctypes.data
        return call


def _by_team(weights: Floats, calls: list[NDArray[np.int64]], n: int, n_products: int, kept_alive: object) -> int:
    """Let a team share the samples; each worker has a call, and a workspace, of its own.

    The caller is one of them, unless it is to look for an interrupt meanwhile. A worker keeps alive what the addresses
    in its call lie in: nobody knows when the caller is interrupted.
    """
    pieces = len(calls) * max(_PIECES_PER_WORKER, -(-n // int(len(calls) * calls[0][word.PIECE])))
    piece = round_up(-(-n // pieces), _TILE)
    doubtful = [0] * len(calls)
    claims = aligned_zeros(TEAM_WORDS, np.int64)
    is_long, together = n_products >= WORK_PER_INTERRUPT, n_products >= _WORK_TOGETHER

    def work(words: NDArray[Any], worker: int) -> None:
        call, _ = calls[worker], kept_alive
        call[word.TEAM], call[word.PIECE] = words.ctypes.data, min(piece, call[word.PIECE])
        doubtful[worker] = evaluate_kernel(weights, call, n)

    def task(words: NDArray[Any], worker: int, n_workers: int) -> int:
        work(words if is_long else claims, worker)
        return 0

    if is_long:
        _, error = run_team(task, len(calls))
    else:
        own = partial(work, claims, len(calls) - 1)
        _, error = run_team(task, len(calls) - 1, meanwhile=own, together=together)
    if error is not None:
        try:
            raise error
        finally:
            del error  # else its traceback would keep this frame, and this frame itself
    return sum(doubtful)
