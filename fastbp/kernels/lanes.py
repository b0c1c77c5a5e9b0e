"""Samples in the lanes: the gradient of a block of samples, for networks whose neurons would not fill the lanes.

Activations and deltas lie neuron after neuron, `PITCH` elements apart, sample beside sample; weights and biases as they
are, w_jk at j n_in + k. Each product is a tile of some neurons by some samples, to which neuron after neuron is added,
its weights the same in all lanes. A gradient is a sum over the lanes. The last vector of a block is computed whole,
however few samples a tile has: lanes that lack a sample have the last one's inputs, and no delta.
"""

from __future__ import annotations

from numba.extending import intrinsic

from fastbp.kernels._jit import NONE, jit, outline
from fastbp.kernels.activations import SOFTMAX, activate
from fastbp.kernels.choice import choose
from fastbp.kernels.elementary import exp, log
from fastbp.kernels.lane_tiles import (
    LANES,
    ROW,
    SQUARE,
    add_products,
    add_values,
    no_sums,
    no_values,
    places_of_columns,
    places_of_rows,
    store_sums,
    sums_columns,
    sums_rows,
    turn4,
)
from fastbp.kernels.layers import ACTIVATION, LAYER_COLUMNS, N_IN, N_OUT, PITCH, A, B, W
from fastbp.kernels.losses import OUTPUTS, categorical_cross_entropy
from fastbp.kernels.pointers import float32_at, float64_at, int32_at, pointer_at
from fastbp.kernels.rows import gather16
from fastbp.kernels.simd import (
    first16,
    load16,
    narrowed,
    spread16,
    store,
    store_rounded,
    sum_lanes,
    where,
    wide_zeros16,
    widen,
)
from fastbp.kernels.sparse import column
from fastbp.kernels.tiles import (
    FEW_WIDE,
    WIDE,
    multiply_rows,
    n_columns,
    n_rows,
    near_offsets,
    outer,
    rounded_up,
    spread_rows,
    store_rows,
    zeros,
)


@jit
def take_rows(p, order, stride, m, n, out):
    """out[k PITCH + i] = p[order[i] stride + k] for m samples and n columns; up to 16 samples the last one again."""
    for i in range(0, m, LANES):
        for k in range(0, n, 4):
            turn4(p + k, order, stride, i, m - 1, n - k, out + (k * PITCH + i), PITCH)


@jit
def take_non_zeros(samples, order, m, n_in, x):
    """The inputs of samples whose zeros are not stored; one beyond the others, wherever it came from, is left out."""
    outline()
    values, begins, inputs = pointer_at(samples.x, x), pointer_at(samples.begins, order), int32_at(samples.k)
    for k in range(n_in):
        for i in range(0, m, LANES):
            store(x + (k * PITCH + i), spread16(x, 0))
    for i in range(m):
        for q in range(begins[order[i]], begins[order[i] + 1]):
            k = column(inputs, q)
            if k < n_in:
                x[k * PITCH + i] = values[q]


@jit
def take_inputs(samples, order, m, n_in, x):
    """The inputs of the samples order[0 ... m - 1]."""
    outline()
    step, stride = samples.x_step, samples.x_stride
    if samples.begins:
        take_non_zeros(samples, order, m, n_in, x)
    elif step == 1 and samples.narrow == 0:
        take_rows(pointer_at(samples.x, x), order, stride, m, n_in, x)
    elif samples.narrow:
        source32 = float32_at(samples.x)
        for k in range(n_in):
            for i in range(0, m, LANES):
                store_rounded(x + (k * PITCH + i), widen(gather16(source32 + k * step, order, NONE, stride, i, m - 1)))
    else:
        source = pointer_at(samples.x, x)
        for k in range(n_in):
            for i in range(0, m, LANES):
                store(x + (k * PITCH + i), gather16(source + k * step, order, NONE, stride, i, m - 1))


@jit
def take_targets(samples, order, m, n_out, y):
    """The y_j of these samples."""
    outline()
    if samples.y_stride:
        take_rows(pointer_at(samples.y, y), order, samples.y_stride, m, n_out, y)
    else:
        labels = pointer_at(samples.y, order)
        for j in range(n_out):
            for i in range(0, m, LANES):
                store(y + (j * PITCH + i), spread16(y, 0))
        for i in range(m):
            y[labels[order[i]] * PITCH + i] = 1


@jit
def weighted_sums(shape, layer, weights, a, m, z):
    """z_j = b_j + sum_k w_jk a_k."""
    outline()
    n_in, n_out = layer[N_IN], layer[N_OUT]
    w, b = weights + layer[W], weights + layer[B]
    for i in range(0, rounded_up(m, LANES), n_columns(shape, w)):
        for j in range(0, n_out, n_rows(shape, w)):
            last = n_out - 1 - j
            w_rows = near_offsets(shape, w, n_in, last)
            tile = spread_rows(shape, b + j, near_offsets(shape, w, 1, last))
            for k in range(n_in):
                tile = outer(tile, w + (j * n_in + k), w_rows, a + (k * PITCH + i))
            store_rows(z + (j * PITCH + i), near_offsets(shape, w, PITCH, last), tile)


@jit
def activate_neurons(code, n, m, z, prime):
    """a_j = sigma(z_j) in place of z_j, and sigma'(z_j) where BP2 will multiply by it."""
    outline()
    for j in range(n):
        for i in range(j * PITCH, j * PITCH + m, LANES):
            a, derivative = activate(code, load16(z + i))
            store(z + i, a)
            store(prime + i, derivative)


@jit
def class_of16(a, n):
    """`class_of` of 16 samples, as numbers of the dtype."""
    if n == 1:
        return where(load16(a) >= 0.5, spread16(a, 1), 0.0)
    best, largest = spread16(a, 0), load16(a)
    for j in range(1, n):
        a_j = load16(a + j * PITCH)
        is_larger = a_j > largest
        best, largest = where(is_larger, spread16(a, j), best), where(is_larger, a_j, largest)
    return best


@jit
def softmax_cost16(z, y, n, live):
    """`output_cost` of 16 samples where the output is softmax: a_j, delta_j, and C of each sample."""
    outline()
    largest, outputs = load16(z), spread16(z, n)
    for j in range(1, n):
        z_j = load16(z + j * PITCH)
        largest = where(z_j > largest, z_j, largest)
    total = wide_zeros16(z)
    for j in range(n):
        total = total + widen(exp(load16(z + j * PITCH) - largest))
    total_here = narrowed(z, total)
    log_total = log(total_here)
    c = wide_zeros16(z)
    for j in range(0, n * PITCH, PITCH):
        log_a = load16(z + j) - largest
        a = exp(log_a) / total_here
        terms, delta = categorical_cross_entropy(log_a - log_total, a, a, load16(y + j), outputs)
        c = c + widen(where(live, terms, 0.0))
        store(z + j, a)
        store(y + j, where(live, delta, 0.0))
    return c


@jit
def elementwise_cost16(terms_of, z, y, n, live):
    """The same where the outputs are not coupled."""
    c, outputs = wide_zeros16(z), spread16(z, n)
    for j in range(0, n * PITCH, PITCH):
        a, terms, delta = terms_of(load16(z + j), load16(y + j), outputs)
        c = c + widen(where(live, terms, 0.0))
        store(z + j, a)
        store(y + j, where(live, delta, 0.0))
    return c


@intrinsic
def _elementwise_cost16(typingctx, loss, z, y, n, live):
    """`elementwise_cost16` of the loss and output with that code."""
    return choose(typingctx, [*OUTPUTS.values()], (z, y, n, live), through=elementwise_cost16)


@jit
def output_samples(layer, samples, order, m, z, delta):
    """The output layer's a in place of z, and delta in place of y; the summed cost and hits of m samples."""
    outline()
    n, total, hits = layer[N_OUT], wide_zeros16(z), wide_zeros16(z)
    for i in range(0, m, LANES):
        live, z_i, y_i = first16(m - i), z + i, delta + i
        wanted = class_of16(y_i, n) if samples.classify else spread16(z, 0)
        if layer[ACTIVATION] == SOFTMAX:
            c = softmax_cost16(z_i, y_i, n, live)
        else:
            c = _elementwise_cost16(samples.loss, z_i, y_i, n, live)
        hit = wide_zeros16(z)
        if samples.classify:
            hit = widen(where(live, where(class_of16(z_i, n) != wanted, spread16(z, 0), 1.0), 0.0))
        if samples.weight:
            weight = gather16(float64_at(samples.weight), order, NONE, 1, i, m - 1)
            c, hit, weight_here = c * weight, hit * weight, narrowed(z, weight)
            for j in range(0, n * PITCH, PITCH):
                store(y_i + j, load16(y_i + j) * weight_here)
        total, hits = total + c, hits + hit
    return sum_lanes(total), sum_lanes(hits)


@jit
def propagate(shape, layer, weights, delta_above, m, delta):
    """delta_k = sigma'(z_k) sum_j w_jk delta_j (BP2) for the inputs k of a layer; sigma' lies where delta_k will."""
    outline()
    n_in, n_out, w = layer[N_IN], layer[N_OUT], weights + layer[W]
    for i in range(0, rounded_up(m, LANES), n_columns(shape, w)):
        for k in range(0, n_in, n_rows(shape, w)):
            last = n_in - 1 - k
            w_columns = near_offsets(shape, w, 1, last)
            tile = zeros(shape, w)
            for j in range(n_out):
                tile = outer(tile, w + (j * n_in + k), w_columns, delta_above + (j * PITCH + i))
            multiply_rows(delta + (k * PITCH + i), near_offsets(shape, w, PITCH, last), tile)


@jit
def sum_products(shape, delta, n_out, a, n_in, m, others, g_w, g_b):
    """g_jk = sum_i a_ik delta_ij (BP4) and g_j = sum_i delta_ij (BP3), or += if there were others."""
    outline()
    rows, columns = sums_rows(shape, g_w), sums_columns(shape, g_w)
    for j in range(0, n_out, rows):
        delta_j, last_j = delta + j * PITCH, n_out - 1 - j
        delta_places = places_of_rows(shape, g_w, PITCH, last_j)
        for k in range(0, n_in, columns):
            a_k, a_places = a + k * PITCH, places_of_columns(shape, g_w, PITCH, n_in - 1 - k)
            tile = no_sums(shape, g_w)
            if k == 0:  # once for each j: the deltas are at hand
                values = no_values(shape, g_b)
                for i in range(0, m, LANES):
                    tile = add_products(tile, delta_j + i, delta_places, a_k + i, a_places)
                    values = add_values(values, delta_j + i, delta_places)
                store_sums(g_b + j, (NONE,), n_out - j, values, others)
            else:
                for i in range(0, m, LANES):
                    tile = add_products(tile, delta_j + i, delta_places, a_k + i, a_places)
            store_sums(g_w + (j * n_in + k), places_of_rows(shape, g_w, n_in, last_j), n_in - k, tile, others)


@jit
def layer_sums(layer, weights, below, m, z):
    """`weighted_sums` of a layer by tiles that fit its neurons."""
    if layer[N_OUT] <= n_rows(FEW_WIDE, z):
        weighted_sums(FEW_WIDE, layer, weights, below, m, z)
    else:
        weighted_sums(WIDE, layer, weights, below, m, z)


@jit
def layer_deltas(layer, weights, delta, m, delta_below):
    """`propagate` through a layer by tiles that fit its inputs."""
    if layer[N_IN] <= n_rows(FEW_WIDE, delta):
        propagate(FEW_WIDE, layer, weights, delta, m, delta_below)
    else:
        propagate(WIDE, layer, weights, delta, m, delta_below)


@jit
def layer_gradient(layer, delta, below, m, others, g):
    """The gradient of a layer's weights and biases, by tiles that fit its neurons."""
    n_in, n_out = layer[N_IN], layer[N_OUT]
    g_w, g_b = g + layer[W], g + layer[B]
    if n_out < sums_rows(SQUARE, g):
        sum_products(ROW, delta, n_out, below, n_in, m, others, g_w, g_b)
    else:
        sum_products(SQUARE, delta, n_out, below, n_in, m, others, g_w, g_b)


@jit
def block_gradient(layers, weights, samples, order, m, a, delta, others, g):
    """The gradient g, summed over a block of m samples, or += if there were others; the summed cost and hits."""
    below, last = a, layers.table + (layers.n - 1) * LAYER_COLUMNS
    take_inputs(samples, order, m, layers.table[N_IN], a)
    for l in range(layers.n):
        layer = layers.table + l * LAYER_COLUMNS
        z = a + layer[A]
        layer_sums(layer, weights, below, m, z)
        if l < layers.n - 1:
            activate_neurons(layer[ACTIVATION], layer[N_OUT], m, z, delta + layer[A])
        below = z
    take_targets(samples, order, m, last[N_OUT], delta + last[A])
    summed = output_samples(last, samples, order, m, a + last[A], delta + last[A])
    for l in range(layers.n - 1, 0, -1):
        layer = layers.table + l * LAYER_COLUMNS
        place = layers.table[(l - 1) * LAYER_COLUMNS + A]
        layer_deltas(layer, weights, delta + layer[A], m, delta + place)
        layer_gradient(layer, delta + layer[A], a + place, m, others, g)
    layer_gradient(layers.table, delta + layers.table[A], a, m, others, g)
    return summed
