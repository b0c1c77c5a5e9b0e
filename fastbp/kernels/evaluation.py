"""Evaluation: samples sent forward, and what they cost, without training.

A call is a row of integers, numbers and addresses: to hand it over takes much less time than the records that `train`
takes, and one sample through a small network is over in less than a microsecond.
"""

from __future__ import annotations

from fastbp.kernels._jit import NONE, entry, jit
from fastbp.kernels.forward import forward, hand_out
from fastbp.kernels.layers import (
    ACTIVATION,
    COST,
    HITS,
    LAYER_COLUMNS,
    MEASURED_COLUMNS,
    N_IN,
    N_OUT,
    STRIDE,
    A,
    Inputs,
    Layers,
    Parameters,
    Samples,
    Workspace,
)
from fastbp.kernels.minibatch import non_zeros_of, output_rows
from fastbp.kernels.output import output
from fastbp.kernels.pointers import float64_at, pointer, pointer_at, share
from fastbp.kernels.threads import aborted, claim, flush_subnormals, restore_mode

# Columns of a call. Addresses: of the table of layers, the workspace's activations and deltas, 0, 1, 2, ..., cost and
# hits of a piece, the report (n, MEASURED_COLUMNS), the words of a team; the rest is as in `Samples`, but for the
# address of the bits of a piece's inputs
LAYERS, N_LAYERS, ACTIVATIONS, DELTAS, INDEX, SAMPLE_COSTS, SAMPLE_HITS, REPORT, TEAM = range(9)
PIECE = 9  # rows that are sent forward at a time, at most as many as the workspace has
X, X_STRIDE, Y, Y_STRIDE, LOSS, CLASSIFY, BEGINS, K, BITS = range(10, 19)
CALL_COLUMNS = 19


@jit
def records(weights, call):
    """The layers, parameters, samples and workspace of a call."""
    index, cost, hits = pointer_at(call[INDEX], call), float64_at(call[SAMPLE_COSTS]), float64_at(call[SAMPLE_HITS])
    a, delta = pointer_at(call[ACTIVATIONS], weights), pointer_at(call[DELTAS], weights)
    return (
        Layers(pointer_at(call[LAYERS], call), call[N_LAYERS]),
        Parameters(weights, weights, weights, weights, weights),
        Samples(
            call[X], call[X_STRIDE], NONE, NONE, NONE, call[Y], call[Y_STRIDE], call[LOSS], call[CLASSIFY], NONE,
            call[BEGINS], call[K],
        ),
        Workspace(
            a, a, delta, a, a, NONE, call, pointer_at(call[BITS], call), index, cost, hits, a, a, cost,
            NONE, cost, NONE, a,
        ),
    )  # fmt: skip


@entry
def evaluate(weights, call, n):
    """Forward passes over n samples, a piece at a time; a team shares the pieces among its workers as they come.

    Activations go where the layers want them (`OUT`); with targets, report[i] receives cost and hit of sample i. A
    team's abort is honoured between the pieces. Returns how many samples' inputs may not be finite.
    """
    mode = flush_subnormals()
    doubtful, done = 0, 0
    call = pointer(call)
    layers, parameters, samples, workspace = records(pointer(weights), call)
    parameters, samples, workspace = share(parameters), share(samples), share(workspace)
    output_layer = layers.table + (layers.n - 1) * LAYER_COLUMNS
    team, piece, index = pointer_at(call[TEAM], call), call[PIECE], workspace.index
    while True:
        row = (claim(team, NONE) if call[TEAM] else done) * piece
        if row >= n or (call[TEAM] and aborted(team)):
            break
        done += 1
        rows = min(piece, n - row)
        x = pointer_at(samples.x, workspace.a) + row * samples.x_stride
        inputs = Inputs(x, index, samples.x_stride, layers.table[N_IN], workspace.bits)
        non_zeros = non_zeros_of(samples, index, row)
        doubtful += forward(layers, parameters, inputs, non_zeros, workspace, 0, rows)
        if samples.y:
            output_rows(layers, samples, index, row, workspace, 0, rows)
            report = float64_at(call[REPORT]) + row * MEASURED_COLUMNS
            for i in range(rows):
                report[i * MEASURED_COLUMNS + COST] = workspace.cost[i]
                report[i * MEASURED_COLUMNS + HITS] = workspace.hits[i]
        else:
            at_once = rows if output_layer[STRIDE] == 1 else 1
            for i in range(0, rows, at_once):
                z = workspace.a + (output_layer[A] + i * output_layer[STRIDE])
                output(output_layer[ACTIVATION], z, output_layer[N_OUT] * at_once)
        hand_out(layers, workspace, 0, rows, row)
    restore_mode(mode)
    return doubtful
