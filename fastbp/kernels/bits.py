"""Bits: which numbers are zero, and the parts of floating-point numbers that exp and log need."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastbp.kernels.simd import elementwise, emit_load, emit_splat

# Which numbers are zero


def _non_zeros(p, n):
    def codegen(context, builder, sig, args):
        vector = ir.VectorType(context.get_value_type(p.dtype), n)
        mask = builder.fcmp_unordered("!=", emit_load(builder, args[0], vector), ir.Constant(vector, None))
        bits = builder.bitcast(mask, ir.IntType(n))
        return bits if n == 64 else builder.zext(bits, ir.IntType(64))

    return types.int64(p), codegen


@intrinsic
def non_zeros8(typingctx, p):
    """Bit q of an int64 is 1 where p[q] is not zero, for q < 8."""
    return _non_zeros(p, 8)


@intrinsic
def non_zeros64(typingctx, p):
    """Bit q of an int64 is 1 where p[q] is not zero, for q < 64."""
    return _non_zeros(p, 64)


@intrinsic
def column64(typingctx, p, q):
    """Bit i of an int64 is bit q of p[i], for i < 64."""

    def codegen(context, builder, sig, args):
        vector = ir.VectorType(ir.IntType(64), 64)
        wanted = emit_splat(builder, builder.shl(ir.Constant(ir.IntType(64), 1), args[1]), vector)
        column = builder.and_(emit_load(builder, args[0], vector), wanted)
        return builder.bitcast(builder.icmp_signed("!=", column, ir.Constant(vector, None)), ir.IntType(64))

    return types.int64(p, types.int64), codegen


@intrinsic
def first_bit(typingctx, bits):
    """The lowest bit that is 1; there must be one."""

    def codegen(context, builder, sig, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


# Bits of floating-point numbers: what exp and log need

_FORMAT = {32: (23, 127), 64: (52, 1023)}  # bits of the dtype -> bits of the mantissa, bias of the exponent


def _integers(vector):
    return ir.VectorType(ir.IntType({"float": 32, "double": 64}[str(vector.element)]), vector.count)


@intrinsic
def times_power_of_two(typingctx, y, shifted):
    """y 2^n, a normal number, for the integer n = shifted - 1.5 2^(mantissa bits) in the last bits of `shifted`."""
    mantissa, _ = _FORMAT[shifted.dtype.bitwidth]

    def emit(builder, y, shifted):
        integers = _integers(y.type)
        shift = ir.Constant(integers, [mantissa] * integers.count)
        n = builder.shl(builder.bitcast(shifted, integers), shift)
        return builder.bitcast(builder.add(builder.bitcast(y, integers), n), y.type)

    return elementwise((y, shifted), emit)


@intrinsic
def exponent(typingctx, x):
    """e of x = s 2^e with 1/2 <= s < 1, for normal positive x."""
    mantissa, bias = _FORMAT[x.dtype.bitwidth]

    def emit(builder, x):
        integers = _integers(x.type)
        field = builder.lshr(builder.bitcast(x, integers), ir.Constant(integers, [mantissa] * integers.count))
        return builder.sitofp(builder.sub(field, ir.Constant(integers, [bias - 1] * integers.count)), x.type)

    return elementwise((x,), emit)


@intrinsic
def significand(typingctx, x):
    """s of x = s 2^e with 1/2 <= s < 1, for normal positive x."""
    mantissa, bias = _FORMAT[x.dtype.bitwidth]

    def emit(builder, x):
        integers = _integers(x.type)
        kept = builder.and_(builder.bitcast(x, integers), ir.Constant(integers, [2**mantissa - 1] * integers.count))
        return builder.bitcast(
            builder.or_(kept, ir.Constant(integers, [(bias - 1) << mantissa] * integers.count)), x.type
        )

    return elementwise((x,), emit)
