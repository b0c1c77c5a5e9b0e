"""Mini-batches of narrow networks: blocks of samples divided among the workers, gradients added, parameters updated.

Each worker has a replica of the parameters, which are few, computes the gradients of whole blocks (lanes.py), adds
those of all blocks and makes every update, as in minibatch.py. `train_narrow` is the entry that Python calls.
"""

from __future__ import annotations

from fastbp.kernels._jit import NONE, entry, jit, outline
from fastbp.kernels.lane_tiles import PAIR
from fastbp.kernels.lanes import block_gradient
from fastbp.kernels.layers import (
    BETA_1,
    BETA_2,
    COST,
    EPSILON,
    ETA,
    GAP,
    HITS,
    MEASURED_COLUMNS,
    MU,
    NORM,
    PENALTY,
    REPORT_COLUMNS,
    SCALE,
    STEP_COLUMNS,
    TRAIN_BIAS,
    B,
    Layers,
    NarrowWorkspace,
)
from fastbp.kernels.memory import copy
from fastbp.kernels.minibatch import parameters_at
from fastbp.kernels.pointers import pointer, prefetch, share
from fastbp.kernels.shares import next_block, own_rows
from fastbp.kernels.simd import lanes, load, load16, store, sum_lanes, wide_zeros16, widen
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
from fastbp.kernels.updates import Hyper, update

# Blocks in a part where there are many: the fewer parts, the less moves from core to core
BLOCKS_OF_PART, MANY_BLOCKS = 2, 16


@jit
def parts_of(pairs, block):
    """Into how many parts so many pairs of vectors are cut: one block, or an even number, for two workers."""
    if pairs <= block:
        return 1
    longest = block if pairs <= MANY_BLOCKS * block else BLOCKS_OF_PART * block
    return 2 * ((pairs + 2 * longest - 1) // (2 * longest))


@jit
def part_gradient(layers, weights, samples, order, m, buffers, part):
    """The gradient of the m samples order[0 ... m - 1], block by block, and their summed cost and hits."""
    outline()
    g, said = buffers.parts + part * buffers.part_size, buffers.part_costs + part * MEASURED_COLUMNS
    prefetch(g, buffers.part_size)  # other cores have read what lay there
    pairs = (m + PAIR - 1) // PAIR
    n = (pairs + buffers.block - 1) // buffers.block
    said[COST] = said[HITS] = 0.0
    for b in range(n):
        first, last = b * pairs // n * PAIR, (b + 1) * pairs // n * PAIR
        cost, hits = block_gradient(
            layers, weights, samples, order + first, min(last, m) - first, buffers.a, buffers.delta, b > 0, g
        )
        said[COST] += cost
        said[HITS] += hits


@jit
def sum_parts(parts, n_parts, size, is_first, sums):
    """sums = the sum of the gradients of some blocks, or += if there were others."""
    outline()
    for q in range(0, size, lanes(sums)):
        total = load(parts + q)
        if not is_first:
            total = load(sums + q) + total
        for b in range(1, n_parts):
            total = total + load(parts + (b * size + q))
        store(sums + q, total)


@jit
def sum_of_squares(w, n):
    """sum_q w_q^2, in float64."""
    outline()
    total = wide_zeros16(w)
    for q in range(0, n, 16):
        w_q = widen(load16(w + q))
        total = total + w_q * w_q
    return sum_lanes(total)


@jit
def update_all(layers, parameters, g, size, hyper):
    """Update all weights, which come first, and all biases, where these are trained."""
    w, s1, s2, n = parameters.weights, parameters.slot_1, parameters.slot_2, layers.table[B]
    update(hyper.code, w, g, s1, s2, n, hyper.penalty, hyper)
    if layers.table[TRAIN_BIAS]:
        update(hyper.code, w + n, g + n, s1 + n, s2 + n, size - n, 0.0, hyper)


@jit
def learn(layers, parameters, samples, order, m, step, code, buffers, report, team, worker, n_workers):
    """One mini-batch of the m samples order[0 ... m - 1]; False if the call was aborted before its update."""
    outline()
    hyper = share(
        Hyper(code, step[SCALE], step[ETA], step[MU], step[BETA_1], step[BETA_2], step[EPSILON], step[PENALTY])
    )
    size, g = buffers.part_size, buffers.sums
    pairs = (m + PAIR - 1) // PAIR
    n_parts = parts_of(pairs, buffers.block)
    start = 0
    while start < n_parts:
        n = min(n_parts - start, buffers.parts_kept)
        begin, end, _, _ = own_rows(n, 1, True, worker, n_workers)
        turn = barriers_passed(team) % 2
        kept = turn * buffers.parts_kept
        if worker == 0:
            forget_claims(team, 1 - turn)
        part = next_block(begin, end, n, 1, team, turn)
        while part < n:
            first, last = (start + part) * pairs // n_parts * PAIR, (start + part + 1) * pairs // n_parts * PAIR
            part_gradient(
                layers, parameters.weights, samples, order + first, min(last, m) - first, buffers, kept + part
            )
            part = next_block(part + 1, end, n, 1, team, turn)
        if not barrier(team, n_workers):
            return False
        if n_parts == 1:
            g = buffers.parts + kept * size
        else:
            sum_parts(buffers.parts + kept * size, n, size, start == 0, g)
        for p in range(kept, kept + n if worker == 0 else kept):
            report[COST] += buffers.part_costs[p * MEASURED_COLUMNS + COST]
            report[HITS] += buffers.part_costs[p * MEASURED_COLUMNS + HITS]
        start += n
    if worker == 0 and hyper.penalty != 0.0:
        report[NORM] = sum_of_squares(parameters.weights, layers.table[B])
    update_all(layers, parameters, g, size, hyper)
    return True


@jit
def own_parameters(parameters, replicas, worker):
    """The parameters that a worker learns with: those of the network, or its replica of them, made anew."""
    own = parameters_at(parameters, NONE, NONE)
    if worker > 0:
        common, q = own, (worker - 1) * (len(parameters.weights) + GAP)
        own = parameters_at(replicas, q, NONE)
        copy(common.weights, own.weights, len(parameters.weights))
        copy(common.slot_1, own.slot_1, len(parameters.slot_1))
        copy(common.slot_2, own.slot_2, len(parameters.slot_2))
    return own


@jit
def own_buffers(buffers, worker):
    """The buffers as a worker hands them on."""
    size, sums = buffers.size + GAP, buffers.part_size + GAP
    return NarrowWorkspace(
        pointer(buffers.a) + worker * size,
        pointer(buffers.delta) + worker * size,
        buffers.size,
        pointer(buffers.sums) + worker * sums,
        pointer(buffers.parts),
        buffers.part_size,
        pointer(buffers.part_costs),
        buffers.parts_kept,
        buffers.block,
    )


@entry
def train_narrow(
    layers, parameters, samples, order, starts, steps, code, buffers, replicas, report, team, worker, n_workers
):
    """`train` of a narrow network."""
    mode = flush_subnormals()
    done = 0
    layers = Layers(pointer(layers), len(layers))
    here, own, samples = own_parameters(parameters, replicas, worker), own_buffers(buffers, worker), share(samples)
    here, own = share(here), share(own)
    words = pointer(team)
    if gather(words, n_workers):
        for s in range(len(steps)):
            samples_of, m = pointer(order) + starts[s] % len(order), starts[s + 1] - starts[s]
            step, said = pointer(steps) + s * STEP_COLUMNS, pointer(report) + s * REPORT_COLUMNS
            # once closed, another worker may still be reading what the next blocks would overwrite
            if is_closed(words):
                break
            if step[SCALE] > 0.0 and not learn(
                layers, here, samples, samples_of, m, step, code, own, said, words, worker, n_workers
            ):
                break
            done += 1
    if worker == 0:
        words[COMPLETED] = done  # for a caller whom an interrupt keeps from what is returned
    restore_mode(mode)
    return done
