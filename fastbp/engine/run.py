"""Runs: mini-batches and gradients as calls on the kernels; a `Run` holds parameters and buffers of one training."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.architecture import Architecture
from fastbp.engine.cores import Call, Choice, get_num_threads, is_open, n_workers_for, own_cores, share_of
from fastbp.engine.evaluation import Source, layout_of, multiply_adds
from fastbp.engine.narrow import is_narrow, most_workers, narrow_setup
from fastbp.engine.parameters import Floats
from fastbp.engine.sparse import SparseRows
from fastbp.engine.team import Task, run_team
from fastbp.engine.wide import wide_setup
from fastbp.kernels import layers as column
from fastbp.kernels.layers import REPORT_COLUMNS, STEP_COLUMNS, Parameters, Samples
from fastbp.kernels.losses import loss_code
from fastbp.kernels.threads import COMPLETED, STARTED, TEAM_WORDS
from fastbp.kernels.updates import KEEP, UPDATES

__all__ = ["Run", "divisors", "scales"]

Layer = tuple[Sequence[Floats], Sequence[Floats]]
# Multiply-adds that take as long as the update of a weight which no cache holds
WORK_PER_WEIGHT = 50
# Seconds in which threads begin, which they cannot while another runs Python; most do in 0.1 ms
BEGINNING = 1e-3
# Multiply-adds of mini-batches that are over before an interrupt is felt: the caller computes them, a thread costs more
WORK_IN_CALLER = 2_000_000
# It goes on with so many times that for one worker, and calls the kernel again after so many seconds
CALLS_IN_CALLER, SECONDS_IN_CALLER = 50, 1e-3

# order, starts and steps of mini-batches, and the rows of the report on them
Tables = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _beside(meanwhile: Callable[[], None], words: NDArray[Any], worker: int, n_workers: int) -> int:
    """Do what is done meanwhile, as the task of a team."""
    meanwhile()
    return 0


def work_of(architecture: Architecture, X: Source, batch_size: int) -> int:
    """Return the multiply-adds of a mini-batch, or what takes as long."""
    work = batch_size * multiply_adds(architecture, X, training=True)
    return work + WORK_PER_WEIGHT * architecture.sizes[0] * architecture.sizes[1] * isinstance(X, SparseRows)


def divisors(
    order: NDArray[np.int64], starts: NDArray[np.int64], sample_weight: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return what the sums of each mini-batch are divided by: its samples, or the sum of their weights.

    Mini-batch s consists of the samples order[starts[s] : starts[s + 1]], at least one. An order that ends before the
    mini-batches do begins anew, and so do they.
    """
    if sample_weight is None:
        return (starts[1:] - starts[:-1]).astype(np.float64)
    first, last = starts[0], min(starts[-1], len(order))
    once = starts[:-1][starts[:-1] < last]
    return np.resize(np.add.reduceat(sample_weight[order[first:last]], once - first), len(starts) - 1)


def scales(of_each: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the column SCALE of the steps for these divisors: 1 / divisor, 0 for a mini-batch without weight."""
    return np.divide(1.0, of_each, out=np.zeros_like(of_each), where=of_each > 0)


def _samples(
    architecture: Architecture,
    X: Source,
    y: NDArray[Any] | None,
    classify: bool,
    gathered: int,
    sample_weight: NDArray[np.float64] | None = None,
) -> Samples:
    labels = y is not None and y.ndim == 1
    sparse = isinstance(X, SparseRows)
    x = X.values if isinstance(X, SparseRows) else X
    in_rows = not sparse and x.flags.c_contiguous  # strides of axes of length 1 say nothing
    return Samples(
        x=x.ctypes.data,
        x_stride=x.shape[1] if in_rows else 0 if sparse else x.strides[0] // x.itemsize,
        x_step=1 if in_rows or sparse else x.strides[1] // x.itemsize,
        narrow=int(x.dtype != architecture.dtype),
        gathered=gathered,
        y=0 if y is None else y.ctypes.data,
        y_stride=0 if y is None or labels else y.shape[1],
        loss=loss_code(architecture.loss, architecture.output),
        classify=int(classify),
        weight=0 if sample_weight is None else sample_weight.ctypes.data,
        begins=X.begins.ctypes.data if isinstance(X, SparseRows) else 0,
        k=X.k.ctypes.data if isinstance(X, SparseRows) else 0,
    )


class Run:
    """One training: parameters, optimizer's state, samples and buffers, as the kernels want them.

    Parameters
    ----------
    architecture : Architecture
    weights, biases : sequences of arrays
        Canonical; copied.
    X : array (n, n_in) or SparseRows
        Read in place, so it must stay as it is: of the network's dtype, or an array of float32 for one of float64; in
        any order (`fastbp.inputs.readable`).
    y : array (n, n_out) or (n,)
        Targets of the network's dtype, or class labels as int64, C-contiguous.
    sample_weight : float64 array (n,) or None
        As how many samples each counts, C-contiguous; the steps' column SCALE must fit to it (`divisors`).
    batch_size : int
        The largest mini-batch; may be more than there are samples.
    update : str or None
        Name of the update rule; None keeps the gradient of a mini-batch in the first slot instead.
    state : sequence of (weights, biases)
        The optimizer's slots; zeros where it is empty.
    steps : int
        Mini-batches that the optimizer has seen before.
    classify : bool
        Count the samples that are classified rightly.
    n_threads : int or None
        None, and more than there are cores, take what the work repays, and less while other calls compute.

    Attributes
    ----------
    n_workers : int
        The most threads that compute.
    report : float64 array (mini-batches, 2)
        Summed cost and hits of each mini-batch of the last call that was completed.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Sequence[Floats],
        biases: Sequence[Floats],
        X: Source,
        y: NDArray[Any],
        *,
        batch_size: int,
        update: str | None,
        state: Sequence[Layer] = (),
        steps: int = 0,
        classify: bool = False,
        n_threads: int | None = None,
        sample_weight: NDArray[np.float64] | None = None,
    ) -> None:
        self.architecture = architecture
        self.n_slots = 1 if update is None else UPDATES[update].slots
        narrow = is_narrow(architecture, batch_size)
        self.work = work_of(architecture, X, min(batch_size, len(X)))
        self.n_workers = n_workers_for(n_threads, self.work)
        if narrow:
            self.n_workers = min(self.n_workers, most_workers(architecture, batch_size, len(X)))
        self._shares = is_open(n_threads)
        kind = architecture, update, batch_size, self.work, len(X).bit_length()
        self._choice = Choice(self.n_workers, self.work, eager=n_threads is not None, kind=kind)
        slots: list[Layer | None] = [*state] or [None] * self.n_slots
        setup = narrow_setup if narrow else wide_setup
        self._setup = setup(architecture, X, weights, biases, slots, batch_size, self.n_workers)
        self.layout, self.parameters, self._layers = self._setup.layout, self._setup.parameters, self._setup.layers
        trained = architecture.bias is True or (update is None and architecture.bias == "fixed")
        self._layers[:, column.TRAIN_BIAS] = trained
        self._layers[:, column.PENALISED] = 1
        self._code = KEEP if update is None else UPDATES[update].code
        self._kept_alive = X, y, sample_weight
        self._samples = _samples(architecture, X, y, classify, self._setup.gathered, sample_weight)
        self.report = np.zeros((0, REPORT_COLUMNS))
        self.steps = steps
        # no mini-batch: the kernel is compiled or loaded here, where that can be interrupted and nobody takes the time
        nothing = np.zeros((0, REPORT_COLUMNS))
        task = self._train(np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros((0, STEP_COLUMNS)), nothing)
        task(np.zeros(TEAM_WORDS, np.int64), 0, 1)

    @property
    def steps(self) -> int:
        """Mini-batches that the optimizer has seen."""
        before, words = self._count
        return before + int(words[COMPLETED])

    @steps.setter
    def steps(self, steps: int) -> None:
        self._count = steps, np.zeros(TEAM_WORDS, np.int64)

    def _train(
        self,
        order: NDArray[np.int64],
        starts: NDArray[np.int64],
        steps: NDArray[np.float64],
        report: NDArray[np.float64],
    ) -> Task:
        before = self.steps

        def task(words: NDArray[Any], worker: int, n_workers: int) -> int:
            self._count = before, words  # the kernel counts: no interrupt comes between a mini-batch and its count
            completed: int = self._setup.kernel(
                self._layers, self.parameters, self._samples, order, starts, steps, self._code, self._setup.buffers,
                self._setup.replicas, report, words, worker, n_workers,
            )  # fmt: skip
            return completed

        return task

    def minibatches(
        self,
        order: NDArray[np.int64],
        starts: NDArray[np.int64],
        steps: NDArray[np.float64],
        *,
        meanwhile: Callable[[], None] | None = None,
    ) -> NDArray[np.float64]:
        """Train on mini-batches s = 0, 1, ...: samples order[starts[s] : starts[s + 1]], with the numbers steps[s].

        An order that ends before the mini-batches do begins anew: epochs that are not shuffled need it once.
        A mini-batch whose SCALE is 0 changes nothing. Returns a row for each: summed cost and hits, weighted, and where
        its PENALTY is not 0 the sum of squared weights before its update. When interrupted it raises; the parameters
        are then those after the last mini-batch that was completed, `steps` counts it, and `report` has its row.

        Where the number of threads leaves a core, `meanwhile` is called while they compute.
        """
        self.report = np.zeros((len(steps), REPORT_COLUMNS))
        if self.work * len(steps) <= WORK_IN_CALLER and (self._shares or self.n_workers == 1):
            with Call():
                self._in_caller(order, starts, steps, self.report)
            return self.report
        with Call():
            for begin, end, n_workers in self._portions(len(steps)):
                tables = order, starts[begin : end + 1], steps[begin:end], self.report[begin:end]
                started = time.perf_counter()
                n_workers = share_of(n_workers) if self._shares else n_workers
                has_core = self._shares and end == len(steps) and n_workers < share_of(get_num_threads())
                self._by_workers(n_workers, tables, meanwhile if has_core else None)
                self._choice.took(n_workers, end - begin, time.perf_counter() - started)
        return self.report

    def _by_workers(self, n_workers: int, tables: Tables, meanwhile: Callable[[], None] | None) -> None:
        """Train by so many workers; one that is soon ready is the caller, and `meanwhile` has a thread then.

        A thread on a core that sleeps begins late, and who waits for it awakes late.
        """
        work, error = self.work * len(tables[2]), None
        if n_workers == 1 and self.work <= WORK_IN_CALLER and work <= CALLS_IN_CALLER * WORK_IN_CALLER:
            if meanwhile is None:
                self._in_caller(*tables)
            else:
                _, error = run_team(partial(_beside, meanwhile), 1, meanwhile=partial(self._in_caller, *tables))
        else:
            task = self._train(*tables)
            then = partial(self._once_begun, self._count, n_workers, meanwhile) if meanwhile else None
            _, error = run_team(task, n_workers, cores=own_cores(n_workers), meanwhile=then)
        if error is not None:
            try:
                raise error
            finally:
                del error  # else its traceback would keep this frame, and this frame itself

    def _in_caller(
        self,
        order: NDArray[np.int64],
        starts: NDArray[np.int64],
        steps: NDArray[np.float64],
        report: NDArray[np.float64],
    ) -> None:
        """Train by the caller alone, whom interrupts, if it is the main thread, reach whenever the kernel returns."""
        is_main = threading.current_thread() is threading.main_thread()
        begin, n = 0, max(1, WORK_IN_CALLER // self.work) if is_main else len(steps)
        while begin < len(steps):
            end, started = min(begin + n, len(steps)), time.thread_time()
            task = self._train(order, starts[begin : end + 1], steps[begin:end], report[begin:end])
            task(np.zeros(TEAM_WORDS, np.int64), 0, 1)
            seconds = max(time.thread_time() - started, 1e-6)  # none of them is another thread's that runs Python
            begin, n = end, max(1, int((end - begin) * SECONDS_IN_CALLER / seconds))

    def _once_begun(self, before: tuple[int, NDArray[np.int64]], n_workers: int, meanwhile: Callable[[], None]) -> None:
        """Call `meanwhile` when all workers are in the kernel; until then stay awake, lest one is put on this core."""
        give_up = time.perf_counter() + BEGINNING
        while time.perf_counter() < give_up:
            time.sleep(0)  # without the interpreter's lock
            if self._count is not before and self._count[1][STARTED] >= n_workers:
                break
        meanwhile()

    def _portions(self, n: int) -> Iterable[tuple[int, int, int]]:
        return self._choice.portions(n, self.n_workers) if self._shares else [(0, n, self.n_workers)]

    def packed(self) -> Floats:
        """Return the weights and biases as an `Evaluator` takes them; not a copy where they lie so."""
        layout = layout_of(self.architecture)
        return self.parameters.weights if self.layout is layout else layout.pack(*self.canonical())

    def canonical(self) -> tuple[list[Floats], list[Floats]]:
        """Return the weights and biases as new arrays."""
        weights, biases = self.layout.unpack(self.parameters.weights)
        return weights, biases

    def load(self, weights: Sequence[Floats], biases: Sequence[Floats]) -> None:
        """Take other weights and biases, canonical; the optimizer's state stays."""
        packed = self.layout.parameters(weights, biases)
        self.parameters.weights[:], self.parameters.transposed[:] = packed.weights, packed.transposed

    def state(self) -> list[tuple[list[Floats], list[Floats]]]:
        """Return the optimizer's slots as new arrays in canonical layout."""
        return [self.layout.unpack(slot) for slot in (self.parameters.slot_1, self.parameters.slot_2)[: self.n_slots]]

    def snapshot(self, earlier: tuple[int, Parameters] | None = None) -> tuple[int, Parameters]:
        """Return a copy of all that training changes, in the memory of an earlier one where there is one."""
        copies = earlier[1] if earlier else Parameters(*(np.empty_like(array) for array in self.parameters))
        for kept, array in zip(copies, self.parameters, strict=True):
            kept[:] = array
        return self.steps, copies

    def restore(self, snapshot: tuple[int, Parameters]) -> None:
        """Go back to a snapshot."""
        self.steps, parameters = snapshot
        for array, kept in zip(self.parameters, parameters, strict=True):
            array[:] = kept

    def is_finite(self) -> bool:
        """Whether all parameters and the optimizer's state are finite; needs no memory, of which there may be none."""
        slots = (self.parameters.weights, self.parameters.slot_1, self.parameters.slot_2)[: 1 + self.n_slots]
        with np.errstate(invalid="ignore"):  # NaN is the smallest and the largest of what it is among
            return all(math.isfinite(slot.min()) and math.isfinite(slot.max()) for slot in slots)
