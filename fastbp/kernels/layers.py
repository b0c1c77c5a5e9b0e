"""The records that kernels take: a table of layers, the parameters, the workspace, the samples and the steps.

All of them are flat arrays and integers, so that one compiled kernel serves every architecture; whatever differs from
layer to layer is a column of the table of layers, whatever differs from step to step a column of the table of steps.

Parameters lie in *panels*. A panel holds the weights of the neurons that fill one row of a register tile: for k = 0 ...
n_in - 1 it holds w_jk of its neurons j side by side. A layer has `PANELS` wide ones (two registers) and, where its last
neurons fill only one register, a narrow one after them (`NARROW`). A layer that two registers of more than 16 lanes
would hold whole has narrow ones alone, so that two workers can share it, unless its inputs are few. A layer with a
single neuron, above another layer, has no panel: its weights lie side by side. Rows are padded with `K_PADDED - N_IN`
that nobody reads. Narrow networks have all their weights as they are, w_jk at j n_in + k, and then all biases. The
transposed panels (`WT`) hold the same weights by neurons k of the layer below, for BP2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

(
    N_IN,  # neurons k
    N_OUT,  # neurons j
    ACTIVATION,  # code, see activations.py
    TRAIN_BIAS,  # 1 if the biases take part in updates
    PENALISED,  # 1 if the L2 penalty of a step holds for its weights
    PANELS,  # wide panels
    NARROW,  # narrow panels that follow
    K_PADDED,  # rows of a panel
    SECOND,  # the first input k of the second chain of z, after whole strips; N_IN where there is one chain
    W,  # offset of the panels in the parameters
    B,  # offset of the biases in the parameters
    WT,  # offset of the transposed panels, -1 without
    A,  # offset of the layer's activations in the workspace; its deltas have the same offset in theirs
    STRIDE,  # elements between the activations of two samples; 1 for a single output without softmax
    OUT,  # address where predictions of this layer are wanted, 0 where not
    SQUARES,  # offset of the sums of squared weights in the workspace
    WORDS,  # numbers that hold the bits of one chain's inputs, where those that are zero are left out; 0 where not
    HALVED,  # 1 where an even number of workers divides the two chains of z
) = range(18)
LAYER_COLUMNS = 18

# Columns of the table of steps (float64); see updates.Hyper. SCALE is 1 / divisor of the mini-batch's sums, which is
# the number of its samples or the sum of their weights; where it is 0, nothing happens
ETA, MU, BETA_1, BETA_2, EPSILON, PENALTY, SCALE = range(7)
STEP_COLUMNS = 7

# Columns of the report on each mini-batch (float64)
# sums over its samples of weight C, and of weight where classified rightly; with a PENALTY sum w^2 before the update
COST, HITS, NORM = range(3)
REPORT_COLUMNS = 3
MEASURED_COLUMNS = 2  # without an update

BLOCK = 128  # samples at most in one chain of a gradient; blocks are added in order
STRIP = 40  # inputs k whose gradient tiles follow each other: whole tiles
SQUARED = 40  # k in one chain of a sum of squares: a strip is a multiple of it
BLOCKS = 8  # in a slab
PITCH = BLOCK + 16  # elements between neurons where samples lie side by side: no power of two, whose lines share sets
SLAB = BLOCKS * BLOCK  # samples for which activations are kept at a time: a larger mini-batch is accumulated
# Elements, and rows of at least 16 elements, between what two workers write: a page, beyond which no core prefetches.
# A line that another core has fetched so would have to be claimed back by its writer
GAP, ROWS_GAP = 1024, 64
ROWS_APART = BLOCK + ROWS_GAP  # rows between the first ones of two workers that have blocks of their own
WORD = 64  # inputs whose bits make a number
CHAINS = 2  # of a z, at most
BOTH: Any = np.int64(CHAINS)  # of them are asked for, and not one, by its number 0 or 1
WORDS_OF_BLOCK = BLOCK // WORD  # numbers that hold the bits of one input in the samples of a block
COLUMN_BITS = BLOCKS * WORDS_OF_BLOCK * STRIP + WORD  # of the inputs of a strip in a slab, and of 64 samples


class Parameters(NamedTuple):
    """Flat arrays of the network's dtype; the first four have the same layout, and may be empty where not needed.

    Entries take this and `Workspace` as arrays, and hand them on as pointers to their first elements, in a record that
    lies in memory (`pointers.share`): fields that are arguments are written to the stack at each call.
    """

    weights: Any
    slot_1: Any  # optimizer's state, or where the gradient is kept
    slot_2: Any
    sums: Any  # gradient accumulated over the slabs of a large mini-batch
    transposed: Any


class Layers(NamedTuple):
    """The table of layers inside kernels: a pointer, and the number of layers; layer l begins at l LAYER_COLUMNS."""

    table: Any
    n: int


class Inputs(NamedTuple):
    """What a layer reads: the activations of the layer below, or rows of X."""

    a: Any  # pointer: input k of row i lies at index[i] stride + k
    index: Any
    stride: int
    n: int  # inputs of a row that may be read
    bits: Any  # pointer to int64: which inputs of row i are not zero, from i CHAINS WORDS on, where zeros are left out


# What is asked of a slab's gradient: all of it; the part of the one block that it is, left in `Workspace.parts`; the
# sum of such parts
WHOLE, PART, SUM = range(3)


class Slab(NamedTuple):
    """The samples at hand, of a mini-batch whose gradient may be the sum over several slabs."""

    begin: int  # the first row
    m: int  # rows
    block: int  # rows whose gradient is one chain
    first: bool  # whether they begin the mini-batch
    last: bool  # whether they end it
    asked: int  # WHOLE, PART or SUM
    part: int  # number of the part, or of the first of those that are summed


class Workspace(NamedTuple):
    """What a run computes; a and delta have the network's dtype."""

    rows: Any  # copies of the inputs of a slab, where they are gathered
    a: Any
    delta: Any
    scratch: Any  # the gradient of one strip, for each worker
    strips: Any  # inputs of one strip, for each worker
    strip_size: int
    column_bits: Any  # int64: in which rows they are not zero, for each worker, where zeros are left out
    bits: Any  # int64: which inputs of the rows at hand are not zero
    index: Any  # int64: 0, 1, 2, ...
    cost: Any  # float64: C of each sample of a slab
    hits: Any  # float64: 1 where a sample is classified rightly
    first: Any  # gradient of the first layer over the samples at hand, where X is sparse; 0 between mini-batches
    parts: Any  # gradients of blocks, of `parts_kept` of one mini-batch and then as many of the next
    bias_parts: Any  # float64: those of the biases
    part_size: int  # elements between the parts of two blocks
    part_costs: Any  # float64 (parts, 2): the costs and hits of their samples, summed
    parts_kept: int  # parts of one mini-batch that lie there: all, or those of some slabs; 0 where there are none
    squares: Any  # sums of squared weights, (k // SQUARED, n_out rounded up to 16) for each layer


class NarrowWorkspace(NamedTuple):
    """What the workers of a narrow network compute, each from `size` elements after the one before, and a gap, on."""

    a: Any  # inputs and activations of a block, neuron after neuron, sample beside sample
    delta: Any  # deltas, in the same places
    size: int
    sums: Any  # the gradient of a mini-batch of several blocks, for each worker
    parts: Any  # gradients of blocks, of `parts_kept` of one mini-batch and then as many of the next
    part_size: int  # elements of a gradient
    part_costs: Any  # float64 (parts, 2): the costs and hits of their samples, summed
    parts_kept: int  # of one mini-batch
    block: int  # pairs of vectors of samples in a block, at most


class Replicas(NamedTuple):
    """The parameters as each worker but the first, who takes those of the network, has them for itself.

    Where they are few and mini-batches large. Each adds the parts of all blocks and makes every update, the same: so
    that once a mini-batch they wait for each other, and only parts move between their cores. Or of the layers above one
    that two workers halve, where those are small: each computes them for all rows, and only the chains of z move. What
    moves lies at different places in two mini-batches in turn, as one worker may be computing the next while another
    reads.
    """

    n: int  # the most workers that have them; 0 where all share the parameters
    begin: int  # the first parameter that is replicated
    apart: int  # rows between the first ones of two workers
    parameters: Any  # `Parameters`, of all but the first one after the other, each after a gap
    squares: Any  # `Workspace.squares`, likewise


class Samples(NamedTuple):
    """Where X and y lie: addresses, and elements between two rows."""

    x: int
    x_stride: int
    x_step: int  # elements between neighbours in a row; 1 unless rows are gathered
    narrow: int  # 1 where X is of float32 and the network of float64; rows are gathered then
    gathered: int  # stride of the copies of a mini-batch's rows; 0 where X is read in place
    y: int  # rows of targets of the network's dtype, or class labels of int64
    y_stride: int  # 0 for labels
    loss: int  # code, see losses.py
    classify: int  # 1 if hits are wanted
    weight: int  # float64 weights of the samples; 0 where each counts once
    begins: int  # where X is sparse: int64, begins[i] ... begins[i + 1] are the non-zeros of sample i; 0 where dense
    k: int  # int32, the input of each non-zero; x then holds their values
