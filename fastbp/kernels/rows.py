"""Vectors whose lanes come from several samples: what is computed of one output, or of a few, for many rows at once.

Rows of the workspace begin 16 elements apart, as those of a layer with at most 16 neurons do, or at offsets; rows of y
lie anywhere.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.kernels.simd import (
    Mask,
    Vector,
    emit_call,
    emit_load,
    emit_masked_load,
    emit_splat,
    emit_store,
    emit_turned,
    lanes_of,
)

_I32 = ir.IntType(32)


def by_rows(builder, i, last, emit, n=16):
    """What emit(rows) returns for the n rows i, i + 1, ..., counted from i, of which those beyond `last` are `last`."""
    rows, n_before = [ir.Constant(i.type, r) for r in range(n)], builder.sub(last, i)
    with builder.if_else(builder.icmp_signed("<=", rows[-1], n_before), likely=True) as (all_there, some_beyond):
        with all_there:
            whole, whole_block = emit(rows), builder.block
        with some_beyond:
            part = emit([builder.select(builder.icmp_signed("<", r, n_before), r, n_before) for r in rows])
            part_block = builder.block
    if whole is None:
        return None
    value = builder.phi(whole.type)
    value.add_incoming(whole, whole_block)
    value.add_incoming(part, part_block)
    return value


def _places(builder, p, i, step):
    """Where the rows, counted from i, of p begin, `step` elements apart."""
    step = ir.Constant(i.type, step)
    first = builder.gep(p, [builder.mul(i, step)])
    return lambda r: builder.gep(first, [builder.mul(r, step)])


def _vector_from(builder, places, vector):
    """The elements at some places."""
    value = ir.Constant(vector, ir.Undefined)
    for r, place in enumerate(places):
        value = builder.insert_element(value, builder.load(place), ir.Constant(_I32, r))
    return value


@intrinsic
def gather16(typingctx, p, index, shift, stride, i, last):
    """p[(index[i + r] + shift) stride] for 16 rows, those beyond `last` as `last`."""
    vector_type = Vector(p.dtype, 16)

    def codegen(context, builder, sig, args):
        p, index, shift, stride, i, last = args
        first = builder.gep(index, [i])

        def emit(rows):
            samples = [builder.add(builder.load(builder.gep(first, [r])), shift) for r in rows]
            places = [builder.gep(p, [builder.mul(sample, stride)]) for sample in samples]
            return _vector_from(builder, places, context.get_value_type(vector_type))

        return by_rows(builder, i, last, emit)

    return vector_type(p, index, types.intp, types.intp, types.intp, types.intp), codegen


def side_by_side(builder, vectors):
    """Some vectors, a power of two, as one."""
    while len(vectors) > 1:
        n = 2 * vectors[0].type.count
        both = ir.Constant(ir.VectorType(_I32, n), list(range(n)))
        vectors = [builder.shuffle_vector(x, y, both) for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]


@intrinsic
def column_of(typingctx, p, offsets):
    """p[offsets[r]] for 16 rows."""
    vector_type = Vector(p.dtype, 16)

    def codegen(context, builder, sig, args):
        places = [builder.gep(args[0], [offset]) for offset in cgutils.unpack_tuple(builder, args[1], 16)]
        return _vector_from(builder, places, context.get_value_type(vector_type))

    return vector_type(p, offsets), codegen


@intrinsic
def add_products16(typingctx, z, p, offsets, w):
    """z_r + sum_k p[offsets[r] + k] w[k] for 16 rows, k after k of one register, by fused multiply-adds."""

    def codegen(context, builder, sig, args):
        z, p, offsets, w = args
        lanes = lanes_of(sig.args[1].dtype.bitwidth // 8)
        row = ir.VectorType(z.type.element, lanes)
        rows = [emit_load(builder, builder.gep(p, [o]), row) for o in cgutils.unpack_tuple(builder, offsets, 16)]
        columns, n = emit_turned(builder, rows), 16 // lanes
        for k in range(lanes):
            w_k = emit_splat(builder, builder.load(builder.gep(w, [ir.Constant(_I32, k)])), z.type)
            z = emit_call(builder, "fma", side_by_side(builder, columns[k * n : (k + 1) * n]), w_k, z)
        return z

    return z(z, p, offsets, w), codegen


@intrinsic
def store_column16(typingctx, p, i, last, x):
    """p[16 (i + r)] = x_r for 16 rows; those beyond `last` must hold what `last` does."""

    def codegen(context, builder, sig, args):
        p, i, last, x = args
        place = _places(builder, p, i, 16)

        def emit(rows):
            for lane, r in enumerate(rows):
                builder.store(builder.extract_element(x, ir.Constant(_I32, lane)), place(r))

        by_rows(builder, i, last, emit)
        return context.get_dummy_value()

    return types.void(p, types.intp, types.intp, x), codegen


@intrinsic
def gather4x4(typingctx, p, n, index, shift, stride, i, last):
    """p[(index[i + r] + shift) stride + j] for 4 rows and j < 4, 0 where j >= n; rows beyond `last` as `last`."""
    dtype = p.dtype

    def codegen(context, builder, sig, args):
        p, n, index, shift, stride, i, last = args
        first = builder.gep(index, [i])
        row = ir.VectorType(context.get_value_type(dtype), 4)
        numbers = ir.VectorType(ir.IntType(64), 4)
        wanted = builder.icmp_signed("<", ir.Constant(numbers, list(range(4))), emit_splat(builder, n, numbers))

        def emit(rows):
            quarters = []
            for r in rows:
                sample = builder.add(builder.load(builder.gep(first, [r])), shift)
                quarters.append(emit_masked_load(builder, builder.gep(p, [builder.mul(sample, stride)]), wanted, row))
            return side_by_side(builder, quarters)

        return by_rows(builder, i, last, emit, 4)

    return Vector(dtype, 16)(p, types.intp, index, types.intp, types.intp, types.intp, types.intp), codegen


def lanes_from(builder, x, lanes):
    """Some lanes of x as a vector."""
    return builder.shuffle_vector(x, x, ir.Constant(ir.VectorType(_I32, len(lanes)), list(lanes)))


def _repeated(builder, p):
    """p[:4] four times."""
    return lanes_from(builder, emit_load(builder, p, ir.VectorType(p.type.pointee, 4)), [0, 1, 2, 3] * 4)


@intrinsic
def repeat4x4(typingctx, p):
    """p[j] for 4 rows and j < 4."""
    return Vector(p.dtype, 16)(p), lambda context, builder, sig, args: _repeated(builder, args[0])


@intrinsic
def add_products4x4(typingctx, z, p, offsets, w):
    """z_rj + sum_k p[offsets[r] + k] w_jk for 4 rows and j < 4, k after k of four, by fused multiply-adds.

    w_jk lie at w[k lanes + j].
    """

    def codegen(context, builder, sig, args):
        z, p, offsets, w = args
        lanes, row = lanes_of(sig.args[1].dtype.bitwidth // 8), ir.VectorType(z.type.element, 4)
        places = [builder.gep(p, [offset]) for offset in cgutils.unpack_tuple(builder, offsets, 4)]
        rows = side_by_side(builder, [emit_load(builder, place, row) for place in places])
        for k in range(4):
            x_k = lanes_from(builder, rows, [4 * r + k for r in range(4) for _ in range(4)])
            w_k = _repeated(builder, builder.gep(w, [ir.Constant(_I32, k * lanes)]))
            z = emit_call(builder, "fma", x_k, w_k, z)
        return z

    return z(z, p, offsets, w), codegen


@intrinsic
def add_product4x4(typingctx, z, p, offsets, w):
    """`add_products4x4` of one k."""

    def codegen(context, builder, sig, args):
        z, p, offsets, w = args
        row = ir.VectorType(z.type.element, 4)
        places = [builder.gep(p, [offset]) for offset in cgutils.unpack_tuple(builder, offsets, 4)]
        x_k = side_by_side(builder, [emit_splat(builder, builder.load(place), row) for place in places])
        return emit_call(builder, "fma", x_k, _repeated(builder, w), z)

    return z(z, p, offsets, w), codegen


@intrinsic
def load4x4(typingctx, p, i, last):
    """p[16 (i + r) + j] for 4 rows and j < 4, row after row, those beyond `last` as `last`."""
    vector_type = Vector(p.dtype, 16)

    def codegen(context, builder, sig, args):
        p, i, last = args
        place, row = _places(builder, p, i, 16), ir.VectorType(context.get_value_type(vector_type.dtype), 4)

        def emit(rows):
            return side_by_side(builder, [emit_load(builder, place(r), row) for r in rows])

        return by_rows(builder, i, last, emit, 4)

    return vector_type(p, types.intp, types.intp), codegen


@intrinsic
def store4x4(typingctx, p, i, last, x):
    """p[16 (i + r) + j] = x_(4r + j) for 4 rows and j < 4; those beyond `last` must hold what `last` does."""

    def codegen(context, builder, sig, args):
        p, i, last, x = args
        place = _places(builder, p, i, 16)

        def emit(rows):
            for q, r in enumerate(rows):
                emit_store(builder, lanes_from(builder, x, range(4 * q, 4 * q + 4)), place(r))

        by_rows(builder, i, last, emit, 4)
        return context.get_dummy_value()

    return types.void(p, types.intp, types.intp, x), codegen


@intrinsic
def store_sums4x4(typingctx, p, i, last, x):
    """p[i + r] = sum_j x_(4r + j) for 4 rows and j < 4, as `sum_lanes`; those beyond `last` must hold what it does."""

    def codegen(context, builder, sig, args):
        p, i, last, x = args
        place, columns = _places(builder, p, i, 1), [lanes_from(builder, x, range(j, 16, 4)) for j in range(4)]
        sums = builder.fadd(builder.fadd(columns[0], columns[2]), builder.fadd(columns[1], columns[3]))

        def emit(rows):
            for q, r in enumerate(rows):
                builder.store(builder.extract_element(sums, ir.Constant(_I32, q)), place(r))

        by_rows(builder, i, last, emit, 4)
        return context.get_dummy_value()

    return types.void(p, types.intp, types.intp, x), codegen


@intrinsic
def first4x4(typingctx, count):
    """Mask of 4 rows of 4 lanes that is true in the first `count` of each row."""

    def codegen(context, builder, sig, args):
        vector = ir.VectorType(ir.IntType(64), 16)
        return builder.icmp_signed("<", ir.Constant(vector, list(range(4)) * 4), emit_splat(builder, args[0], vector))

    return Mask(16)(types.int64), codegen
