"""Anatomy: where the time of a mini-batch goes: the products of each layer, activations, loss, barriers, Python.

The parts are the engine's own kernels, called one at a time on the buffers of a run, by all its workers at once and one
mini-batch after the other; the learning rate is 0, so that nothing drifts away meanwhile. Beside them the mini-batch as
a whole is timed: what it takes longer than its parts is the `rest`, waiting for the other worker and moving data
between caches. What `fit` takes beyond that is `Python`: order, tables, threads, history.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from benchmarks.common import WORKS, Work
from peak import Peak
from rivals import Fastbp

from fastbp.engine.run import Run
from fastbp.engine.team import run_team
from fastbp.kernels._jit import OPTIONS
from fastbp.kernels.backward import backward
from fastbp.kernels.chains import add_chains
from fastbp.kernels.forward import activate_layer, forward_together
from fastbp.kernels.forward import layer_sums as wide_sums
from fastbp.kernels.gradients import gradients
from fastbp.kernels.lane_tiles import PAIR
from fastbp.kernels.lanes import (
    activate_neurons,
    layer_deltas,
    layer_gradient,
    layer_sums,
    output_samples,
    take_inputs,
    take_targets,
)
from fastbp.kernels.layers import ACTIVATION as LAYER_ACTIVATION
from fastbp.kernels.layers import (
    BETA_1,
    BETA_2,
    CHAINS,
    EPSILON,
    ETA,
    LAYER_COLUMNS,
    MU,
    N_IN,
    N_OUT,
    PART,
    PENALTY,
    REPORT_COLUMNS,
    SCALE,
    SLAB,
    STRIDE,
    SUM,
    WHOLE,
    WORDS,
    A,
    Inputs,
    Layers,
    Slab,
)
from fastbp.kernels.minibatch import (
    as_pointers,
    learn,
    learn_by_halves,
    non_zeros_of,
    output_rows,
    own_records,
    parameters_at,
)
from fastbp.kernels.narrow import learn as learn_narrow
from fastbp.kernels.narrow import own_buffers, own_parameters, parts_of, sum_parts, train_narrow, update_all
from fastbp.kernels.pointers import pointer, pointer_at, share
from fastbp.kernels.shares import block_size, is_halved, is_replicated, n_blocks, own_rows, padded_neurons
from fastbp.kernels.threads import barrier, flush_subnormals, gather, restore_mode
from fastbp.kernels.updates import Hyper

FORWARD, ACTIVATION, OUTPUT, DELTA, GRADIENT, UPDATE, BARRIER, MINIBATCH = range(8)
NAMES = ["forward", "activation", "output and loss", "delta", "gradient", "sums and update", "barriers", "mini-batch"]
LEAST_SECONDS = 0.02  # of one measurement: a team starts in less than a hundredth of it
ROUNDS = 5


@numba.njit(**OPTIONS)
def perform(
    part, l, layers, parameters, samples, order, m, step, code, workspace, replicas, report, team, worker, n_workers,
    times
):  # fmt: skip
    """One worker's share of one part, of layer l, for the mini-batches order[: m], order[m : 2 m], ... in turn.

    The gradient includes the update, which is made tile by tile.
    """
    mode = flush_subnormals()
    layers = Layers(pointer(layers), len(layers))
    halves = is_halved(layers.table, n_workers) and is_replicated(replicas, n_workers)
    of_all = share(parameters_at(parameters, 0, 0))
    common = share(as_pointers(workspace, 0, pointer(workspace.squares)))
    parameters, workspace = own_records(parameters, workspace, replicas, worker, n_workers)
    parameters, samples, workspace = share(parameters), share(samples), share(workspace)
    words, n_minibatches = pointer(team), len(order) // m
    hyper = share(
        Hyper(code, step[SCALE], step[ETA], step[MU], step[BETA_1], step[BETA_2], step[EPSILON], step[PENALTY])
    )
    non_zeros = non_zeros_of(samples, pointer(order), 0)
    replicated, block = workspace.parts_kept > 0, block_size(m)
    begin, end, size, row = own_rows(m, block, replicated, worker, n_workers)
    pieces = n_blocks(end - begin, block) if replicated else 1
    member, members = (0, 1) if replicated or (halves and l > 0) else (worker, n_workers)
    chains = CHAINS * replicas.apart
    all_chains = workspace.bits + chains * CHAINS * layers.table[WORDS]
    if halves:
        begin, end, size, row = 0, m, m, worker * replicas.apart
    layer = layers.table + l * LAYER_COLUMNS
    one, x = Layers(layer, 1), pointer_at(samples.x, workspace.a)
    gather(words, n_workers)
    for i in range(times):
        inputs = Inputs(x, pointer(order), samples.x_stride, layer[N_IN], workspace.bits)
        for piece in range(pieces):
            first = begin + piece * size
            last_row = row + min(end - first, size)
            here = pointer(order) + (i % n_minibatches * m + first - row)
            inputs = Inputs(x, here, samples.x_stride, layer[N_IN], workspace.bits)
            if l > 0:
                below = layer + -LAYER_COLUMNS
                inputs = Inputs(workspace.a + below[A], workspace.index, below[STRIDE], layer[N_IN], workspace.bits)
            elif samples.gathered:
                inputs = Inputs(workspace.rows, workspace.index, samples.gathered, layer[N_IN], workspace.bits)
            if part == FORWARD and halves and l == 0:
                n = padded_neurons(layer, parameters.weights)
                inputs = Inputs(x, here + (row - chains), samples.x_stride, layer[N_IN], workspace.bits)
                wide_sums(layer, of_all.weights, inputs, non_zeros, False, common, chains, chains + m, 0, n, worker)
                barrier(words, n_workers)
                add_chains(layer, workspace, chains, row, last_row)
            elif part == FORWARD:
                forward_together(
                    one, parameters, inputs, non_zeros, workspace, m, row, last_row, words, member, members
                )  # fmt: skip
            elif part == ACTIVATION:
                n = padded_neurons(layer, parameters.weights)
                activate_layer(layer, workspace, row, last_row, 0, n, True)
            elif part == OUTPUT:
                output_rows(layers, samples, here, 0, workspace, row, last_row)
            elif part == DELTA:
                backward(Layers(layer + -LAYER_COLUMNS, 2), parameters, workspace, row, last_row)
            elif part == GRADIENT and replicated:
                slab = share(Slab(row, last_row - row, block, True, False, PART, first // block))
                bits = workspace.bits + row * CHAINS * layers.table[WORDS]
                of_block = Inputs(inputs.a, inputs.index + row, inputs.stride, inputs.n, bits)
                gradients(one, parameters, of_block, workspace, worker, member, members, slab, hyper, 0)
        if part == GRADIENT and halves:
            slab = share(Slab(row, m, m, True, True, WHOLE, 0))
            if l == 0:
                inputs = Inputs(x, inputs.index + row, samples.x_stride, layer[N_IN], all_chains)
                gradients(one, of_all, inputs, common, worker, worker, CHAINS, slab, hyper, 0)
            else:
                inputs = Inputs(inputs.a, inputs.index + row, inputs.stride, layer[N_IN], workspace.bits)
                gradients(one, parameters, inputs, workspace, worker, 0, 1, slab, hyper, 0)
        elif part == GRADIENT:
            slab = share(Slab(0, m, block, True, True, SUM if replicated else WHOLE, 0))
            gradients(one, parameters, inputs, workspace, worker, member, members, slab, hyper, 0)
        elif part == BARRIER:
            for _ in range(1 if replicated or halves else 2):
                barrier(words, n_workers)
        elif part == MINIBATCH and halves:
            learn_by_halves(
                layers, of_all, parameters, samples, pointer(order) + i % n_minibatches * m, m, pointer(step), code,
                common, workspace, replicas.apart, pointer(report), words, worker,
            )  # fmt: skip
        elif part == MINIBATCH:
            learn(
                layers, parameters, samples, pointer(order) + i % n_minibatches * m, m, pointer(step), code, workspace,
                pointer(report), words, worker, n_workers,
            )  # fmt: skip
    restore_mode(mode)
    return 0


@numba.njit(**OPTIONS)
def perform_narrow(
    part, l, layers, parameters, samples, order, m, step, code, buffers, replicas, report, team, worker, n_workers,
    times
):  # fmt: skip
    """`perform` for a narrow network; the inputs are part of the first layer's forward pass."""
    mode = flush_subnormals()
    layers = Layers(pointer(layers), len(layers))
    parameters, samples = share(own_parameters(parameters, replicas, worker)), share(samples)
    buffers = share(own_buffers(buffers, worker))
    words, n_minibatches = pointer(team), len(order) // m
    hyper = share(
        Hyper(code, step[SCALE], step[ETA], step[MU], step[BETA_1], step[BETA_2], step[EPSILON], step[PENALTY])
    )
    pairs = (m + PAIR - 1) // PAIR
    n_blocks = (pairs + buffers.block - 1) // buffers.block
    n_parts = min(parts_of(pairs, buffers.block), buffers.parts_kept)
    layer = layers.table + l * LAYER_COLUMNS
    below = layer[A + -LAYER_COLUMNS] if l > 0 else 0
    a, delta, weights = buffers.a + layer[A], buffers.delta + layer[A], parameters.weights
    gather(words, n_workers)
    for i in range(times):
        for b in range(n_blocks * worker // n_workers, n_blocks * (worker + 1) // n_workers):
            first, last = b * pairs // n_blocks * PAIR, min((b + 1) * pairs // n_blocks * PAIR, m)
            here, rows = pointer(order) + (i % n_minibatches * m + first), last - first
            if part == FORWARD:
                if l == 0:
                    take_inputs(samples, here, rows, layer[N_IN], buffers.a)
                layer_sums(layer, weights, buffers.a + below, rows, a)
            elif part == ACTIVATION:
                activate_neurons(layer[LAYER_ACTIVATION], layer[N_OUT], rows, a, delta)
            elif part == OUTPUT:
                take_targets(samples, here, rows, layer[N_OUT], delta)
                output_samples(layer, samples, here, rows, a, delta)
            elif part == DELTA:
                layer_deltas(layer, weights, delta, rows, buffers.delta + below)
            elif part == GRADIENT:
                g = buffers.parts + b * n_parts // n_blocks * buffers.part_size
                layer_gradient(layer, delta, buffers.a + below, rows, False, g)
        if part == UPDATE:
            sum_parts(buffers.parts, n_parts, buffers.part_size, True, buffers.sums)
            update_all(layers, parameters, buffers.sums, buffers.part_size, hyper)
        elif part == BARRIER:
            barrier(words, n_workers)
        elif part == MINIBATCH:
            learn_narrow(
                layers, parameters, samples, pointer(order) + i % n_minibatches * m, m, pointer(step), code, buffers,
                pointer(report), words, worker, n_workers,
            )  # fmt: skip
    restore_mode(mode)
    return 0


@dataclass
class Part:
    """One part of a mini-batch and the best time that it took."""

    kind: int
    l: int
    flops: int = 0
    times: int = 1
    seconds: float = float("inf")

    @property
    def name(self) -> str:
        """What it is, and of which layer."""
        layered = self.kind in (FORWARD, ACTIVATION, DELTA, GRADIENT)
        return f"layer {self.l}: {NAMES[self.kind]}" if layered else NAMES[self.kind]


class Anatomy:
    """The parts of a mini-batch of one work, timed."""

    def __init__(self, work: Work, dtype: str) -> None:
        self.work = work = replace(work, batch_size=min(work.batch_size, SLAB))
        self.fit = Fastbp(work, dtype)
        self.fit.run(1)
        self.fit.run(1)  # the first may have tried numbers of threads
        self.n_threads = self.fit.threads
        network, X = self.fit.network, self.fit.X
        self.run = Run(
            network.architecture, network.weights, network.biases, X, self.fit.y, batch_size=work.batch_size,
            update=work.update, classify=work.classifies, n_threads=self.n_threads,
        )  # fmt: skip
        self.order = np.random.default_rng(0).permutation(work.n)
        self.step = work.optimizer().steps(0, np.zeros(1))[0]
        self.step[SCALE] = 1 / work.batch_size
        self.whole = Part(MINIBATCH, 0)
        self.parts = list(self._parts())
        self.peak = 0.0

    def _parts(self) -> Iterator[Part]:
        sizes, m = self.work.sizes, self.work.batch_size
        flops = [2 * m * n_in * n_out for n_in, n_out in pairwise(sizes)]
        for l in range(len(flops)):
            yield Part(FORWARD, l, flops[l])
            yield Part(ACTIVATION, l) if l < len(flops) - 1 else Part(OUTPUT, l)
        for l in range(len(flops) - 1, 0, -1):
            yield Part(DELTA, l, flops[l])
        for l in range(len(flops)):
            yield Part(GRADIENT, l, flops[l])
        if self.run._setup.kernel is train_narrow:
            yield Part(UPDATE, 0)
        yield Part(BARRIER, 0)

    def perform(self, part: Part) -> float:
        """Return the seconds in which the team does a part as often as it says."""
        run, setup, report = self.run, self.run._setup, np.zeros(REPORT_COLUMNS)
        of_part = perform_narrow if setup.kernel is train_narrow else perform

        def task(words: Any, worker: int, n_workers: int) -> int:
            return int(
                of_part(
                    part.kind, part.l, run._layers, run.parameters, run._samples, self.order, self.work.batch_size,
                    self.step, run._code, setup.buffers, setup.replicas, report, words, worker, n_workers, part.times,
                )
            )  # fmt: skip

        start = time.perf_counter()
        _, error = run_team(task, self.n_threads)
        if error is not None:
            raise error
        return time.perf_counter() - start

    def measure(self) -> float:
        """Time all parts, in turns; return the seconds that `fit` takes for a mini-batch."""
        self.perform(self.whole)  # compiles
        for part in (self.whole, *self.parts):
            while self.perform(part) < LEAST_SECONDS:
                part.times *= 2
        peak = Peak()
        per_epoch, seconds = -(-self.work.n // self.work.batch_size), float("inf")
        epochs = 1 + int(0.25 / self.timed_fit(1))
        for _ in range(ROUNDS):
            self.peak = peak.measure(self.fit.dtype, self.n_threads)
            seconds = min(seconds, self.timed_fit(epochs) / epochs / per_epoch)
            for part in (self.whole, *self.parts):
                part.seconds = min(part.seconds, self.perform(part) / part.times)
        return seconds

    def time_forward(self) -> None:
        """Time the parts of the forward pass once more."""
        for part in self._forward_parts():
            part.seconds = min(part.seconds, self.perform(part) / part.times)

    def forward_seconds(self) -> float:
        """Return the time of the forward pass of a mini-batch, output and loss included."""
        return sum(part.seconds for part in self._forward_parts())

    def _forward_parts(self) -> list[Part]:
        return [part for part in self.parts if part.kind in (FORWARD, ACTIVATION, OUTPUT)]

    def timed_fit(self, epochs: int) -> float:
        """Return the seconds of a fit."""
        start = time.perf_counter()
        self.fit.run(epochs)
        return time.perf_counter() - start


def print_anatomy(name: str, dtype: str) -> None:
    """Measure one work and print its parts."""
    anatomy = Anatomy(WORKS[name], dtype)
    seconds = anatomy.measure()
    print(
        f"{name}, {dtype}, mini-batch of {anatomy.work.batch_size}, {anatomy.n_threads} threads "
        f"(peak {anatomy.peak / 1e9:.0f} GF/s)\n  {'':30} {'us':>9} {'part':>6} {'GF/s':>7} {'of peak':>8}"
    )
    whole, parts = anatomy.whole, anatomy.parts
    lines = [(part.name, part.seconds, part.flops) for part in parts]
    lines.append(("rest: waiting, caches", whole.seconds - sum(part.seconds for part in parts), 0))
    lines.append(("Python", seconds - whole.seconds, 0))
    lines.append(("fit, a mini-batch", seconds, sum(part.flops for part in parts)))
    for label, taken, flops in lines:
        rate = f" {flops / taken / 1e9:7.1f} {100 * flops / taken / anatomy.peak:6.0f} %" if flops else ""
        print(f"  {label:30} {1e6 * taken:9.2f} {100 * taken / seconds:4.0f} %{rate}", flush=True)
