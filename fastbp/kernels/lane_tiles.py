"""Tiles whose lanes are samples: for networks so narrow that their neurons would leave most lanes idle.

16 samples lie side by side, in as many registers as they take. A `Tile` of such vectors holds products of rows of one
array with rows of another, lane by lane, until `store_sums` adds up the lanes: as a fixed tree, so that the sums have
the same bits on every CPU.

The shapes are those of a target with registers enough; where there are fewer, or a vector takes several, tiles have
fewer rows and columns.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.kernels.rows import by_rows, lanes_from, side_by_side
from fastbp.kernels.simd import (
    emit_call,
    emit_first,
    emit_load,
    emit_masked_load,
    emit_masked_store,
    emit_store,
    many_registers,
    register_bytes,
)
from fastbp.kernels.tiles import Shape, Tile, pack, place_rows, registers_of

_I32, _I64 = ir.IntType(32), ir.IntType(64)
LANES = 16  # samples side by side
PAIR = 2 * LANES  # samples that are never divided: what the widest registers hold of a row of a tile
SQUARE, ROW = Shape(4, 4), Shape(1, 16)


def _sums_tile(shape, p):
    """The type of a tile of that shape, halved until its accumulators fit the registers."""
    itemsize = p.dtype.bitwidth // 8
    rows, columns = shape.shape.rows, shape.shape.vectors
    while rows * columns * LANES * itemsize > (16 if many_registers() else 8) * register_bytes() and rows * columns > 1:
        if columns > rows:
            columns //= 2
        else:
            rows //= 2
    return Tile(p.dtype, rows, columns, LANES)


@intrinsic
def sums_rows(typingctx, shape, p):
    """Rows of a tile of sums of that shape and of p's dtype: a constant."""
    n = _sums_tile(shape, p).rows
    return types.intp(shape, p), lambda context, builder, sig, args: context.get_constant(types.intp, n)


@intrinsic
def sums_columns(typingctx, shape, p):
    """Its columns: a constant."""
    n = _sums_tile(shape, p).vectors
    return types.intp(shape, p), lambda context, builder, sig, args: context.get_constant(types.intp, n)


def _multiple(builder, r, stride):
    return builder.mul(r, stride)


@intrinsic
def places_of_rows(typingctx, shape, p, stride, last):
    """Where the rows of a tile of sums begin: min(r, last) stride."""
    offsets_type, codegen = place_rows(_sums_tile(shape, p).rows, _multiple)
    return offsets_type(shape, p, types.intp, types.intp), codegen


@intrinsic
def places_of_columns(typingctx, shape, p, stride, last):
    """The same of its columns: min(c, last) stride."""
    offsets_type, codegen = place_rows(_sums_tile(shape, p).vectors, _multiple)
    return offsets_type(shape, p, types.intp, types.intp), codegen


def _zeros(tile_type, shape, p):
    def codegen(context, builder, sig, args):
        return ir.Constant(context.get_value_type(tile_type), None)

    return tile_type(shape, p), codegen


@intrinsic
def no_sums(typingctx, shape, p):
    """A tile of zeros."""
    return _zeros(_sums_tile(shape, p), shape, p)


@intrinsic
def no_values(typingctx, shape, p):
    """A row of zeros, as many vectors as such a tile has rows."""
    return _zeros(Tile(p.dtype, 1, _sums_tile(shape, p).rows, LANES), shape, p)


def _load_lanes(builder, p, offsets, vector):
    return [emit_load(builder, builder.gep(p, [offset]), vector) for offset in offsets]


@intrinsic
def add_products(typingctx, tile, x, x_places, y, y_places):
    """tile[r, c] += x[x_places[r] :] y[y_places[c] :], lane by lane, by fused multiply-adds."""

    def codegen(context, builder, sig, args):
        value_type = context.get_value_type(tile)
        x_rows = _load_lanes(builder, args[1], cgutils.unpack_tuple(builder, args[2], tile.rows), value_type.element)
        y_rows = _load_lanes(builder, args[3], cgutils.unpack_tuple(builder, args[4], tile.vectors), value_type.element)
        pairs = [(x_r, y_c) for x_r in x_rows for y_c in y_rows]
        sums = registers_of(builder, args[0])
        new = [emit_call(builder, "fma", *pair, total) for pair, total in zip(pairs, sums, strict=True)]
        return pack(builder, value_type, new)

    return tile(tile, x, x_places, y, y_places), codegen


@intrinsic
def add_values(typingctx, tile, y, y_places):
    """tile[0, c] += y[y_places[c] :], lane by lane, of a tile with one row."""

    def codegen(context, builder, sig, args):
        value_type = context.get_value_type(tile)
        y_rows = _load_lanes(builder, args[1], cgutils.unpack_tuple(builder, args[2], tile.vectors), value_type.element)
        new = [builder.fadd(total, y) for total, y in zip(registers_of(builder, args[0]), y_rows, strict=True)]
        return pack(builder, value_type, new)

    return tile(tile, y, y_places), codegen


def _halves(n, segment, group):
    """How the upper halves of segments are added to the lower ones, for two vectors of n lanes in segments.

    Returns which lanes of both, in turn, are the lower halves, and which of their segments each place holds then. What
    is longer than a group of lanes moves in whole groups, the rest within each: CPUs do both by one instruction.
    """
    low: list[int] = []
    order: list[int] = []
    whole = n if segment > group else group
    for at in range(0, n, whole):
        for vector in (0, n):
            for begin in range(vector + at, vector + at + whole, segment):
                low += range(begin, begin + segment // 2)
                order.append(begin // segment)
    return low, order


def _merged(n, group, combine, vectors):
    """n vectors of n lanes, of which combine(x, y, low, half) adds the halves of segments: at last one vector."""
    segment = n
    while segment > 1:
        low, _ = _halves(n, segment, group)
        vectors = [combine(x, y, low, segment // 2) for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
        segment //= 2
    return vectors[0]


def _order(n, group):
    """In which place each of n vectors has to be merged, for the sum of vector i to come to lane i."""

    def combine(x, y, low, half):
        _, order = _halves(n, 2 * half, group)
        return [(x + y)[segment] for segment in order]

    return _merged(n, group, combine, [[place] for place in range(n)])


def emit_lane_sums(builder, vectors):
    """The sums of the lanes of some vectors, a power of two, as one vector: halves are added until one lane is left."""
    n, vector = len(vectors), vectors[0].type
    group = min(4 if str(vector.element) == "float" else 2, n)  # 128 bits
    lanes = vector.count
    while lanes > n:
        lanes //= 2
        vectors = [
            builder.fadd(lanes_from(builder, x, range(lanes)), lanes_from(builder, x, range(lanes, 2 * lanes)))
            for x in vectors
        ]

    def combine(x, y, low, half):
        numbers = ir.VectorType(_I32, n)
        lower = builder.shuffle_vector(x, y, ir.Constant(numbers, low))
        upper = builder.shuffle_vector(x, y, ir.Constant(numbers, [lane + half for lane in low]))
        return builder.fadd(lower, upper)

    arranged = dict(zip(_order(n, group), vectors, strict=True))
    return _merged(n, group, combine, [arranged[place] for place in range(n)])


@intrinsic
def store_sums(typingctx, p, p_places, n, tile, others):
    """p[p_places[r] + c] = the sum of the lanes of tile[r, c], or += if there were others; the first n columns."""

    def codegen(context, builder, sig, args):
        p, places, n, value, others = args
        sums = emit_lane_sums(builder, registers_of(builder, value))
        columns = tile.vectors
        row = ir.VectorType(sums.type.element, columns)
        none, wanted = ir.Constant(row, None), emit_first(builder, n, columns)
        rows = [
            (builder.gep(p, [place]), lanes_from(builder, sums, range(r * columns, (r + 1) * columns)))
            for r, place in enumerate(cgutils.unpack_tuple(builder, places, tile.rows))
        ]
        whole = builder.icmp_signed("<=", ir.Constant(n.type, columns), n)
        with builder.if_else(whole, likely=True) as (all_columns, some_columns):
            # every sum is finished before the first is stored: rows that repeat the last one store the same again
            with all_columns:
                old = [builder.select(others, emit_load(builder, place, row), none) for place, _ in rows]
                for (place, x), before in zip(rows, old, strict=True):
                    emit_store(builder, builder.fadd(x, before), place)
            with some_columns:
                old = [builder.select(others, emit_masked_load(builder, place, wanted, row), none) for place, _ in rows]
                for (place, x), before in zip(rows, old, strict=True):
                    emit_masked_store(builder, builder.fadd(x, before), place, wanted)
        return context.get_dummy_value()

    return types.void(p, p_places, types.intp, tile, types.boolean), codegen


@intrinsic
def turn4(typingctx, p, index, stride, i, last, n, out, pitch):
    """out[c pitch + r] = p[index[i + r] stride + c] for 16 rows, those beyond `last` as `last`; c < 4, 0 for c >= n."""
    dtype = p.dtype

    def codegen(context, builder, sig, args):
        p, index, stride, i, last, n, out, pitch = args
        first, row = builder.gep(index, [i]), ir.VectorType(context.get_value_type(dtype), 4)
        wanted = emit_first(builder, n, 4)

        def emit(rows):
            quarters = []
            for r in rows:
                place = builder.gep(p, [builder.mul(builder.load(builder.gep(first, [r])), stride)])
                quarters.append(emit_masked_load(builder, place, wanted, row))
            a, b, c, d = (side_by_side(builder, quarters[r::4]) for r in range(4))
            numbers = ir.VectorType(_I32, LANES)

            def both(x, y, lanes):
                return builder.shuffle_vector(x, y, ir.Constant(numbers, lanes))

            groups = range(0, LANES, 4)
            interleaved = [[lane + g for g in groups for lane in (c, c + 16, c + 1, c + 17)] for c in (0, 2)]
            pairs = [[lane + g for g in groups for lane in (c, c + 1, c + 16, c + 17)] for c in (0, 2)]
            for half, lanes in enumerate(interleaved):
                ab, cd = both(a, b, lanes), both(c, d, lanes)
                for column, of_pairs in enumerate(pairs):
                    at = builder.gep(out, [builder.mul(pitch, ir.Constant(_I64, 2 * half + column))])
                    emit_store(builder, both(ab, cd, of_pairs), at)

        by_rows(builder, i, last, emit)
        return context.get_dummy_value()

    return types.void(p, index, types.intp, types.intp, types.intp, types.intp, p, types.intp), codegen
