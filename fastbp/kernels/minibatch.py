"""Mini-batches: forward, delta, gradient and update, one after the other, by all workers together.

Rows are divided among the workers for the forward and backward pass, parameters for the gradient; a barrier stands
before and after it. Where each worker has a replica of the parameters, blocks of rows are divided, whose gradients all
workers add and put to use after a barrier. Where two have replicas of the layers above a halved one, these are not
divided. `train` is the entry that Python calls.
"""

from __future__ import annotations

from fastbp.kernels._jit import NONE, ONE, entry, jit, outline
from fastbp.kernels.activations import SOFTMAX
from fastbp.kernels.backward import backward
from fastbp.kernels.chains import add_chains
from fastbp.kernels.forward import activate_layer, forward_together, layer_sums
from fastbp.kernels.gradients import gradients
from fastbp.kernels.layers import (
    ACTIVATION,
    BETA_1,
    BETA_2,
    BLOCK,
    BLOCKS,
    CHAINS,
    COST,
    EPSILON,
    ETA,
    GAP,
    HITS,
    LAYER_COLUMNS,
    MEASURED_COLUMNS,
    MU,
    N_IN,
    N_OUT,
    NORM,
    PART,
    PENALTY,
    REPORT_COLUMNS,
    SCALE,
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
from fastbp.kernels.pointers import float32_at, int32_at, pointer, pointer_at, prefetch_to_read, share
from fastbp.kernels.shares import (
    block_size,
    is_halved,
    is_replicated,
    n_blocks,
    next_block,
    own_inputs,
    own_rows,
    padded_neurons,
)
from fastbp.kernels.simd import load16, store_first
from fastbp.kernels.sparse import NonZeros, learn_sparse
from fastbp.kernels.threads import (
    COMPLETED,
    barrier,
    barriers_passed,
    flush_subnormals,
    forget_claims,
    gather,
    is_closed,
    restore_mode,
)
from fastbp.kernels.updates import Hyper

FETCHED_INPUTS = 4096  # of a mini-batch, at most, that a worker asks for while the one before is computed


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
def fetch_samples(layers, samples, order, m, like, worker, n_workers):
    """Ask for the targets of a worker's rows of a mini-batch to come, and for its inputs if those are few."""
    outline()
    k, n, begin, end = own_inputs(layers.table, m, worker, n_workers)
    n_out = layers.table[(layers.n - 1) * LAYER_COLUMNS + N_OUT]
    x, y, labels = pointer_at(samples.x, like), pointer_at(samples.y, like), pointer_at(samples.y, order)
    few = (end - begin) * n <= FETCHED_INPUTS and samples.x_step == 1 and samples.begins == 0 and samples.narrow == 0
    for i in range(begin, end if few else begin):
        prefetch_to_read(x + (order[i] * samples.x_stride + k), n)
    for i in range(begin, end):
        if samples.y_stride == 0:
            prefetch_to_read(labels + order[i], 1)
        else:
            prefetch_to_read(y + order[i] * samples.y_stride, n_out)


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
        if stride == 1:
            single_output(samples.loss, z, delta, y, *places)
        else:
            few_outputs(samples.loss, z, delta, n, y, *places)
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
            store_first(delta + j, layer[N_OUT] - j, load16(delta + j) * weight)
        workspace.cost[i] *= weight
        workspace.hits[i] *= weight


@jit
def parameters_at(parameters, q, q_transposed):
    """The parameters as kernels hand them on, from these elements on."""
    return Parameters(
        pointer(parameters.weights) + q,
        pointer(parameters.slot_1) + q,
        pointer(parameters.slot_2) + q,
        pointer(parameters.sums) + q,
        pointer(parameters.transposed) + q_transposed,
    )


@jit
def as_pointers(workspace, parts_kept, squares):
    """The workspace as kernels hand it on."""
    return Workspace(
        pointer(workspace.rows),
        pointer(workspace.a),
        pointer(workspace.delta),
        pointer(workspace.scratch),
        pointer(workspace.strips),
        workspace.strip_size,
        pointer(workspace.column_bits),
        pointer(workspace.bits),
        pointer(workspace.index),
        pointer(workspace.cost),
        pointer(workspace.hits),
        pointer(workspace.first),
        pointer(workspace.parts),
        pointer(workspace.bias_parts),
        workspace.part_size,
        pointer(workspace.part_costs),
        parts_kept,
        squares,
    )


@jit
def own_records(parameters, workspace, replicas, worker, n_workers):
    """What a worker learns with: its replica of the parameters, made anew, or they themselves; its buffers.

    The first worker needs no replica: the others have theirs before it changes anything.
    """
    replicated = is_replicated(replicas, n_workers)
    kept = workspace.parts_kept if replicated else 0
    own, squares = parameters_at(parameters, NONE, NONE), pointer(workspace.squares)
    if replicated and worker > 0:
        common, begin, size_transposed = own, replicas.begin, len(parameters.transposed)
        size = len(parameters.weights) - begin
        q, q_transposed = worker * (size + GAP) - size, worker * (size_transposed + GAP) - size_transposed
        own = parameters_at(replicas.parameters, q - begin, q_transposed)
        squares = pointer(replicas.squares) + (worker * (len(workspace.squares) + GAP) - len(workspace.squares))
        copy(common.weights + begin, own.weights + begin, size)
        copy(common.slot_1 + begin, own.slot_1 + begin, size if len(parameters.slot_1) > 0 else 0)
        copy(common.slot_2 + begin, own.slot_2 + begin, size if len(parameters.slot_2) > 0 else 0)
        copy(common.transposed, own.transposed, size_transposed)
    return own, as_pointers(workspace, kept, squares)


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
def sum_of(values, begin, end):
    """The sum of values[begin:end]."""
    total = 0.0
    for i in range(begin, end):
        total += values[i]
    return total


@jit
def learn(layers, parameters, samples, order, m, step, code, workspace, report, team, worker, n_workers):
    """One mini-batch of the m samples order[0 ... m - 1]; False if the call was aborted before its update."""
    hyper = share(
        Hyper(code, step[SCALE], step[ETA], step[MU], step[BETA_1], step[BETA_2], step[EPSILON], step[PENALTY])
    )
    non_zeros = non_zeros_of(samples, order, NONE)
    n_in, x, block = layers.table[N_IN], pointer_at(samples.x, workspace.a), block_size(m)
    replicated, slab_size, slabs = workspace.parts_kept > 0, BLOCKS * block, n_blocks(workspace.parts_kept, BLOCKS)
    # who divide rows and parameters with this worker: nobody, where each has a replica
    member, members = (NONE, ONE) if replicated else (worker, n_workers)
    start = 0
    while start < m:
        rows = min(m - start, slabs * slab_size if replicated else slab_size)
        begin, end, size, row = own_rows(rows, block, replicated, worker, n_workers)
        turn = barriers_passed(team) % 2 if replicated else 0
        part = turn * workspace.parts_kept
        if replicated and worker == 0:
            forget_claims(team, 1 - turn)
        inputs = Inputs(x, order + start, samples.x_stride, n_in, workspace.bits)
        first = next_block(begin, end, rows, block, team, turn) if replicated else begin
        while first < rows:
            last_row, here = row + min(rows - first, size), order + (start + first - row)
            inputs = Inputs(x, here, samples.x_stride, n_in, workspace.bits)
            if samples.gathered:
                gather_rows(samples, inputs, workspace.rows, row, last_row)
                inputs = Inputs(workspace.rows, workspace.index, samples.gathered, n_in, workspace.bits)
                if not replicated and not barrier(team, n_workers):
                    return False
            if not forward_together(
                layers, parameters, inputs, non_zeros, workspace, rows, row, last_row, team, member, members
            ):
                return False
            output_rows(layers, samples, here, NONE, workspace, row, last_row)
            backward(layers, parameters, workspace, row, last_row)
            if replicated:
                number = part + first // block
                slab = share(Slab(row, last_row - row, block, True, False, PART, number))
                bits = workspace.bits + row * CHAINS * layers.table[WORDS]
                of_block = Inputs(inputs.a, inputs.index + row, inputs.stride, n_in, bits)
                gradients(layers, parameters, of_block, workspace, worker, member, members, slab, hyper, NONE)
                said = workspace.part_costs + number * MEASURED_COLUMNS
                said[COST] = sum_of(workspace.cost, row, last_row)
                said[HITS] = sum_of(workspace.hits, row, last_row if samples.classify else row)
            first = next_block(first + block, end, rows, block, team, turn) if replicated else rows
        if not barrier(team, n_workers):
            return False
        for first in range(0, rows, slab_size):
            is_first, is_last = start + first == 0, start + first + slab_size >= m
            asked, m_slab = SUM if replicated else WHOLE, min(rows - first, slab_size)
            slab = share(Slab(0, m_slab, block, is_first, is_last, asked, part + first // block))
            if non_zeros.sparse:
                learn_sparse(layers.table, parameters, inputs, non_zeros, workspace, worker, n_workers, slab, hyper)
            gradients(layers, parameters, inputs, workspace, worker, member, members, slab, hyper, non_zeros.sparse)
        for b in range(n_blocks(rows, block) if worker == 0 else 0):
            if replicated:
                said = workspace.part_costs + (part + b) * MEASURED_COLUMNS
                report[COST] += said[COST]
                report[HITS] += said[HITS]
            else:
                report[COST] += sum_of(workspace.cost, b * block, min((b + 1) * block, rows))
                if samples.classify:
                    report[HITS] += sum_of(workspace.hits, b * block, min((b + 1) * block, rows))
        start += rows
        if not replicated and not barrier(team, n_workers) and start < m:
            return False
    if worker == 0 and hyper.penalty != 0.0:
        report[NORM] = norm(layers, workspace)
    return True


@jit
def learn_by_halves(
    layers, parameters, own, samples, order, m, step, code, workspace, buffers, apart, report, team, worker
):  # fmt: skip
    """`learn` by two workers that halve the first layer and have replicas of the layers above, which they compute both.

    `parameters` and `workspace` hold what is common, of which each changes its inputs' half of the first layer; `own`
    and `buffers` are the worker's. Its rows lie `apart` rows from those of the other; then come those of the chains of
    two mini-batches in turn.
    """
    outline()
    hyper = share(
        Hyper(code, step[SCALE], step[ETA], step[MU], step[BETA_1], step[BETA_2], step[EPSILON], step[PENALTY])
    )
    first, above = layers.table, Layers(layers.table + LAYER_COLUMNS, layers.n - 1)
    non_zeros = non_zeros_of(samples, order, NONE)
    n, x, bits = padded_neurons(first, parameters.weights), pointer_at(samples.x, workspace.a), workspace.bits
    chains, row = (CHAINS + barriers_passed(team) % 2) * apart, worker * apart
    last_row = row + m
    inputs = Inputs(x, order + -chains, samples.x_stride, first[N_IN], bits)
    layer_sums(first, parameters.weights, inputs, non_zeros, False, workspace, chains, chains + m, 0, n, worker)
    if not barrier(team, CHAINS):
        return False
    add_chains(first, buffers, chains, row, last_row)
    if above.n > 0:
        activate_layer(first, buffers, row, last_row, 0, n, True)
    hidden = Inputs(buffers.a + first[A], buffers.index, first[STRIDE], first[N_OUT], bits)
    forward_together(above, own, hidden, non_zeros, buffers, m, row, last_row, team, NONE, ONE)
    output_rows(layers, samples, order + -row, NONE, buffers, row, last_row)
    backward(layers, own, buffers, row, last_row)
    slab = share(Slab(row, m, m, True, True, WHOLE, 0))
    inputs = Inputs(x, order, samples.x_stride, first[N_IN], bits + chains * CHAINS * first[WORDS])
    gradients(Layers(first, ONE), parameters, inputs, workspace, worker, worker, CHAINS, slab, hyper, NONE)
    hidden = Inputs(buffers.a + first[A], buffers.index + row, first[STRIDE], first[N_OUT], bits)
    gradients(above, own, hidden, buffers, worker, NONE, ONE, slab, hyper, NONE)
    if hyper.penalty != 0.0:
        barrier(team, CHAINS)
    if worker == 0:
        report[COST] += sum_of(buffers.cost, row, last_row)
        if samples.classify:
            report[HITS] += sum_of(buffers.hits, row, last_row)
        if hyper.penalty != 0.0:
            report[NORM] = norm(layers, buffers)
    return True


@entry
def train(
    layers, parameters, samples, order, starts, steps, code, workspace, replicas, report, team, worker, n_workers
):
    """One worker's part of consecutive mini-batches; how many were completed, the same for all workers.

    Mini-batch s consists of the samples order[starts[s] : starts[s + 1]], where the order begins anew at its end; its
    hyper-parameters are steps[s] (float64, columns in layers.py), code is the update's; report[s] receives its summed
    cost and hits, and the norm of its weights.
    """
    mode = flush_subnormals()
    done = 0
    layers = Layers(pointer(layers), len(layers))
    own, buffers = own_records(parameters, workspace, replicas, worker, n_workers)
    own, buffers, samples = share(own), share(buffers), share(samples)
    by_halves = is_halved(layers.table, n_workers) and is_replicated(replicas, n_workers)
    here = share(parameters_at(parameters, NONE, NONE))
    common = share(as_pointers(workspace, NONE, pointer(workspace.squares)))
    words = pointer(team)
    if gather(words, n_workers):
        for s in range(len(steps)):
            samples_of, m = pointer(order) + starts[s] % len(order), starts[s + 1] - starts[s]
            step, said = pointer(steps) + s * STEP_COLUMNS, pointer(report) + s * REPORT_COLUMNS
            # once closed, another worker may still be reading what the next forward pass would overwrite
            if is_closed(words):
                break
            if s + 1 < len(steps) and starts[s + 2] - starts[s + 1] <= BLOCK:
                following, m_following = pointer(order) + starts[s + 1] % len(order), starts[s + 2] - starts[s + 1]
                fetch_samples(layers, samples, following, m_following, own.weights, worker, n_workers)
            if step[SCALE] > 0.0:
                if by_halves:
                    goes_on = learn_by_halves(
                        layers, here, own, samples, samples_of, m, step, code, common, buffers, replicas.apart, said,
                        words, worker,
                    )  # fmt: skip
                else:
                    goes_on = learn(
                        layers, own, samples, samples_of, m, step, code, buffers, said, words, worker, n_workers
                    )
                if not goes_on:
                    break
            done += 1
    if worker == 0:
        words[COMPLETED] = done  # for a caller whom an interrupt keeps from what is returned
    restore_mode(mode)
    return done
