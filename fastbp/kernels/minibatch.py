"""Mini-batches: forward, delta, gradient and update, one after the other, by all workers together.

Rows are divided among the workers for the forward and backward pass, parameters for the gradient; a barrier stands
before and after it. `train` is the entry that Python calls.
"""

from __future__ import annotations

from fastbp.kernels._jit import NONE, ONE, entry, jit, outline
from fastbp.kernels.activations import SOFTMAX
from fastbp.kernels.backward import backward
from fastbp.kernels.forward import forward_together
from fastbp.kernels.gradients import gradients
from fastbp.kernels.layers import (
    ACTIVATION,
    BETA_1,
    BETA_2,
    CHAINS,
    COST,
    EPSILON,
    ETA,
    HITS,
    LAYER_COLUMNS,
    MU,
    N_IN,
    N_OUT,
    NORM,
    PART,
    PENALTY,
    REPORT_COLUMNS,
    SCALE,
    SLAB,
    STEP_COLUMNS,
    STRIDE,
    SUM,
    WHOLE,
    WORDS,
    A,
    Inputs,
    Layers,
    Parameters,
    Slab,
    Workspace,
)
from fastbp.kernels.memory import copy, copy_rows
from fastbp.kernels.norms import norm
from fastbp.kernels.output import class_of, few_outputs, output_cost, single_output
from fastbp.kernels.pointers import float32_at, int32_at, pointer, pointer_at, share
from fastbp.kernels.shares import block_size, n_blocks
from fastbp.kernels.simd import load16, store
from fastbp.kernels.sparse import NonZeros, learn_sparse
from fastbp.kernels.threads import COMPLETED, barrier, flush_subnormals, gather, is_closed, restore_mode
from fastbp.kernels.updates import Hyper


@jit
def targets(samples, sample, label_pointer, y, n):
    """Put the y_j of one sample at y."""
    if samples.y_stride == 0:
        for j in range(n):
            y[j] = 0
        y[pointer_at(samples.y, label_pointer)[sample]] = 1
    else:
        copy(pointer_at(samples.y, y) + sample * samples.y_stride, y, n)


@jit
def class_wanted(samples, sample, label_pointer, y, n):
    """The class of one sample, whose y_j lie at y."""
    if samples.y_stride == 0:
        return pointer_at(samples.y, label_pointer)[sample]
    return class_of(y, n)


@jit
def output_rows(layers, samples, order, shift, workspace, begin, end):
    """The output layer's a and delta, cost and hit of rows begin <= i < end; row i is the sample order[i] + shift."""
    layer = layers.table + (layers.n - 1) * LAYER_COLUMNS
    n, stride = layer[N_OUT], layer[STRIDE]
    few = n <= 4 and layer[ACTIVATION] != SOFTMAX and samples.y_stride > 0 and (n == 1 or not samples.classify)
    if few:
        z, delta, y = workspace.a + layer[A], workspace.delta + layer[A], pointer_at(samples.y, workspace.a)
        places = order, shift, samples.y_stride, begin, end, workspace.cost
        if n == 1:
            single_output(layer[ACTIVATION], samples.loss, z, delta, y, *places)
        else:
            few_outputs(layer[ACTIVATION], samples.loss, z, delta, n, y, *places)
        for i in range(begin, end if samples.classify else begin):
            wanted = y[(order[i] + shift) * samples.y_stride] >= 0.5
            workspace.hits[i] = 1.0 if (z[i * stride] >= 0.5) == wanted else 0.0
    for i in range(begin, begin if few else end):
        z = workspace.a + (layer[A] + i * stride)
        delta = workspace.delta + (layer[A] + i * stride)
        targets(samples, order[i] + shift, order, delta, n)
        wanted = class_wanted(samples, order[i] + shift, order, delta, n) if samples.classify else -1
        workspace.cost[i] = output_cost(layer[ACTIVATION], samples.loss, z, delta, n)
        workspace.hits[i] = 1.0 if samples.classify and class_of(z, n) == wanted else 0.0
    if samples.weight:
        weigh(pointer_at(samples.weight, workspace.cost), order, shift, layer, workspace, begin, end)


@jit
def weigh(weights, order, shift, layer, workspace, begin, end):
    """Let each sample of these rows count as often as it weighs, in its delta, cost and hit."""
    outline()
    for i in range(begin, end):
        weight = weights[order[i] + shift]
        delta = workspace.delta + (layer[A] + i * layer[STRIDE])
        for j in range(0, layer[N_OUT], 16):
            store(delta + j, load16(delta + j) * weight)
        workspace.cost[i] *= weight
        workspace.hits[i] *= weight


@jit
def as_pointers(layers, parameters, workspace):
    """The records as kernels hand them on."""
    return (
        Layers(pointer(layers), len(layers)),
        Parameters(
            pointer(parameters.weights),
            pointer(parameters.slot_1),
            pointer(parameters.slot_2),
            pointer(parameters.sums),
            pointer(parameters.transposed),
        ),
        Workspace(
            pointer(workspace.rows),
            pointer(workspace.a),
            pointer(workspace.delta),
            pointer(workspace.scratch),
            pointer(workspace.strips),
            pointer(workspace.strip_rows),
            pointer(workspace.strip_counts),
            workspace.strip_size,
            pointer(workspace.bits),
            pointer(workspace.index),
            pointer(workspace.cost),
            pointer(workspace.hits),
            pointer(workspace.first),
            pointer(workspace.parts),
            pointer(workspace.bias_parts),
            workspace.part_size,
            pointer(workspace.squares),
        ),
    )


@jit
def non_zeros_of(samples, like, first):
    """Where the non-zeros of the samples first, first + 1, ... lie."""
    return NonZeros(1 if samples.begins else 0, pointer_at(samples.begins, like) + first, int32_at(samples.k))


@jit
def gather_rows(samples, inputs, target, begin, end):
    """Copy the inputs of rows begin <= i < end, which lie anyhow, side by side to `target`."""
    outline()
    index, stride, step, n = inputs.index, inputs.stride, samples.x_step, inputs.n
    if samples.narrow:
        copy_rows(float32_at(samples.x), index, stride, step, target, samples.gathered, n, begin, end)
    else:
        copy_rows(inputs.a, index, stride, step, target, samples.gathered, n, begin, end)


@jit
def learn(layers, parameters, samples, order, m, step, code, workspace, report, team, worker, n_workers):
    """One mini-batch of the m samples order[0 ... m - 1]; False if the call was aborted before its update."""
    hyper = share(
        Hyper(code, step[SCALE], step[ETA], step[MU], step[BETA_1], step[BETA_2], step[EPSILON], step[PENALTY])
    )
    non_zeros = non_zeros_of(samples, order, NONE)
    for start in range(0, m, SLAB):
        rows = min(m - start, SLAB)
        first, last = start == 0, start + rows == m
        begin, end = rows * worker // n_workers, rows * (worker + 1) // n_workers
        block = block_size(rows)
        blocks = n_blocks(rows, block)
        by_blocks = workspace.part_size > 0 and n_workers > 1 and blocks >= n_workers
        if by_blocks:
            begin = blocks * worker // n_workers * block
            end = min(blocks * (worker + 1) // n_workers * block, rows)
        slab = share(Slab(0, rows, block, first, last, SUM if by_blocks else WHOLE))
        n_in = layers.table[N_IN]
        x = pointer_at(samples.x, workspace.a)
        inputs = Inputs(x, order + start, samples.x_stride, n_in, workspace.bits)
        if samples.gathered:
            gather_rows(samples, inputs, workspace.rows, begin, end)
            inputs = Inputs(workspace.rows, workspace.index, samples.gathered, n_in, workspace.bits)
            if not barrier(team, n_workers):
                return False
        if not forward_together(
            layers, parameters, inputs, non_zeros, workspace, rows, begin, end, team, worker, n_workers
        ):
            return False
        output_rows(layers, samples, order + start, NONE, workspace, begin, end)
        backward(layers, parameters, workspace, begin, end)
        for row in range(begin, end if by_blocks else begin, block):
            part = share(Slab(row, min(end - row, block), block, True, False, PART))
            bits = workspace.bits + row * CHAINS * layers.table[WORDS]
            here = Inputs(inputs.a, inputs.index + row, inputs.stride, n_in, bits)
            gradients(layers, parameters, here, workspace, worker, NONE, ONE, part, hyper, NONE)
        if not barrier(team, n_workers):
            return False
        if non_zeros.sparse:
            learn_sparse(layers.table, parameters, inputs, non_zeros, workspace, worker, n_workers, slab, hyper)
        gradients(layers, parameters, inputs, workspace, worker, worker, n_workers, slab, hyper, non_zeros.sparse)
        if worker == 0:
            for i in range(rows):
                report[COST] += workspace.cost[i]
                report[HITS] += workspace.hits[i]
        if not barrier(team, n_workers) and not last:
            return False
    if worker == 0 and hyper.penalty != 0.0:
        report[NORM] = norm(layers, workspace)
    return True


@entry
def train(layers, parameters, samples, order, starts, steps, code, workspace, report, team, worker, n_workers):
    """One worker's part of consecutive mini-batches; how many were completed, the same for all workers.

    Mini-batch s consists of the samples order[starts[s] : starts[s + 1]], its hyper-parameters are steps[s] (float64,
    columns in layers.py), code is the update's; report[s] receives its summed cost and
    hits, and the norm of its weights.
    """
    mode = flush_subnormals()
    done = 0
    layers, parameters, workspace = as_pointers(layers, parameters, workspace)
    parameters, workspace = share(parameters), share(workspace)
    words = pointer(team)
    if gather(words, n_workers):
        for s in range(len(steps)):
            here, m = pointer(order) + starts[s], starts[s + 1] - starts[s]
            step, said = pointer(steps) + s * STEP_COLUMNS, pointer(report) + s * REPORT_COLUMNS
            # once closed, another worker may still be reading what the next forward pass would overwrite
            if is_closed(words):
                break
            if step[SCALE] > 0.0 and not learn(
                layers, parameters, samples, here, m, step, code, workspace, said, words, worker, n_workers
            ):
                break
            done += 1
    if worker == 0:
        words[COMPLETED] = done  # for a caller whom an interrupt keeps from what is returned
    restore_mode(mode)
    return done
