"""SIMD vectors as Numba values: a `Vector` is some lanes of one dtype, which lie at a `Pointer`.

Arithmetic and comparisons between vectors, or of a vector with a number, use the ordinary operators; numbers take
the dtype of the vector, so that float32 stays float32. LLVM legalises any number of lanes on any CPU, and every
operation here is exact to the bit on all of them (IEEE basic operations and fused multiply-add).

Two widths are used. `load` takes one hardware register of the compilation target, for arithmetic whose result does
not depend on the width. `load16` takes 16 logical lanes on every CPU; horizontal sums are defined on those, as a
fixed tree, so that they have the same bits everywhere.
"""

from __future__ import annotations

import functools
import operator

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.core.typing import signature
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

_I32 = ir.IntType(32)
_ITEMSIZE = {"float": 4, "double": 8}


@functools.cache
def register_bytes() -> int:
    """Bytes of a SIMD register of Numba's compilation target (not of the host: NUMBA_CPU_NAME may name another CPU)."""
    program = """
    define void @probe(ptr %p) {
      %x = load <16 x float>, ptr %p
      %y = fadd <16 x float> %x, %x
      store <16 x float> %y, ptr %p
      ret void
    }"""
    assembly = cpu_target.target_context.codegen()._tm.emit_assembly(llvm.parse_assembly(program))
    return 64 if "zmm" in assembly else 32 if "ymm" in assembly else 16


@functools.cache
def many_registers() -> bool:
    """Whether the target has 32 vector registers (AVX-512, NEON) rather than 16."""
    return register_bytes() == 64 or not llvm.get_process_triple().startswith(("x86_64", "i686", "amd64"))


def lanes_of(itemsize: int) -> int:
    """Lanes of a hardware register for elements of `itemsize` bytes."""
    return register_bytes() // itemsize


class Vector(types.Type):
    """A SIMD vector of `lanes` elements of `dtype`."""

    def __init__(self, dtype, lanes):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


class Mask(types.Type):
    """One truth value a lane."""

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(name=f"Mask({lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        element = manager.lookup(fe_type.dtype).get_value_type()
        super().__init__(manager, fe_type, ir.VectorType(element, fe_type.lanes))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, ir.VectorType(ir.IntType(1), fe_type.lanes))


# Pieces of LLVM code, shared with tiles.py


def emit_load(builder, pointer, vector):
    """Load a vector from elements that need not be aligned to its size."""
    value = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    value.align = _ITEMSIZE[str(vector.element)]
    return value


def emit_store(builder, value, pointer):
    """Store a vector to such elements."""
    store = builder.store(value, builder.bitcast(pointer, value.type.as_pointer()))
    store.align = _ITEMSIZE[str(value.type.element)]


def emit_splat(builder, x, vector):
    """All lanes equal to the scalar x."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, x, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count))


def emit_call(builder, name, *args):
    """Call the LLVM intrinsic `name` on vectors or scalars of one floating type."""
    t = args[0].type
    element = getattr(t, "element", t)
    suffix = {"float": "f32", "double": "f64"}[str(element)]
    if isinstance(t, ir.VectorType):
        suffix = f"v{t.count}{suffix}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(t, [t] * len(args)), f"llvm.{name}.{suffix}"
    )
    return builder.call(function, args)


# Loads and stores


def _load_as(p, wide):
    vector_type = Vector(wide.dtype, lanes_of(p.dtype.bitwidth // 8))

    def codegen(context, builder, sig, args):
        return emit_load(builder, args[1], context.get_value_type(vector_type))

    return vector_type(p, wide), codegen


def _load(p, lanes):
    vector_type = Vector(p.dtype, lanes)

    def codegen(context, builder, sig, args):
        return emit_load(builder, args[0], context.get_value_type(vector_type))

    return vector_type(p), codegen


@intrinsic
def load(typingctx, p):
    """One hardware register of elements."""
    return _load(p, lanes_of(p.dtype.bitwidth // 8))


@intrinsic
def load1(typingctx, p):
    """One lane."""
    return _load(p, 1)


@intrinsic
def load_wide(typingctx, p, wide):
    """As many float64 as `load(p)` has lanes, from wide."""
    return _load_as(p, wide)


@intrinsic
def load16(typingctx, p):
    """16 logical lanes, however many registers they take."""
    return _load(p, 16)


def _by_rows(builder, i, last, emit, n=16):
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

        return _by_rows(builder, i, last, emit)

    return vector_type(p, index, types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def load_column16(typingctx, p, i, last):
    """p[16 (i + r)] for 16 rows, those beyond `last` as `last`."""
    vector_type = Vector(p.dtype, 16)

    def codegen(context, builder, sig, args):
        p, i, last = args
        place = _places(builder, p, i, 16)

        def emit(rows):
            return _vector_from(builder, [place(r) for r in rows], context.get_value_type(vector_type))

        return _by_rows(builder, i, last, emit)

    return vector_type(p, types.intp, types.intp), codegen


def _store_by_rows(p, x, step):
    def codegen(context, builder, sig, args):
        p, i, last, x = args
        place = _places(builder, p, i, step)

        def emit(rows):
            for lane, r in enumerate(rows):
                builder.store(builder.extract_element(x, ir.Constant(_I32, lane)), place(r))

        _by_rows(builder, i, last, emit)
        return context.get_dummy_value()

    return types.void(p, types.intp, types.intp, x), codegen


@intrinsic
def store_column16(typingctx, p, i, last, x):
    """p[16 (i + r)] = x_r for 16 rows; those beyond `last` must hold what `last` does."""
    return _store_by_rows(p, x, 16)


@intrinsic
def store_rows16(typingctx, p, i, last, x):
    """p[i + r] = x_r for 16 rows; those beyond `last` must hold what `last` does."""
    return _store_by_rows(p, x, 1)


def _side_by_side(builder, quarters):
    """Four vectors of 4 lanes as one."""
    while len(quarters) > 1:
        n = 2 * quarters[0].type.count
        both = ir.Constant(ir.VectorType(_I32, n), list(range(n)))
        quarters = [builder.shuffle_vector(x, y, both) for x, y in zip(quarters[::2], quarters[1::2], strict=True)]
    return quarters[0]


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
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(row, [row.as_pointer(), _I32, wanted.type, row]),
            f"llvm.masked.load.v4f{dtype.bitwidth}.p0",
        )
        aligned = ir.Constant(_I32, dtype.bitwidth // 8)

        def emit(rows):
            quarters = []
            for r in rows:
                sample = builder.add(builder.load(builder.gep(first, [r])), shift)
                place = builder.bitcast(builder.gep(p, [builder.mul(sample, stride)]), row.as_pointer())
                quarters.append(builder.call(function, [place, aligned, wanted, ir.Constant(row, None)]))
            return _side_by_side(builder, quarters)

        return _by_rows(builder, i, last, emit, 4)

    return Vector(dtype, 16)(p, types.intp, index, types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def load4x4(typingctx, p, i, last):
    """p[16 (i + r) + j] for 4 rows and j < 4, row after row, those beyond `last` as `last`."""
    vector_type = Vector(p.dtype, 16)

    def codegen(context, builder, sig, args):
        p, i, last = args
        place, row = _places(builder, p, i, 16), ir.VectorType(context.get_value_type(vector_type.dtype), 4)

        def emit(rows):
            return _side_by_side(builder, [emit_load(builder, place(r), row) for r in rows])

        return _by_rows(builder, i, last, emit, 4)

    return vector_type(p, types.intp, types.intp), codegen


def _lanes_of(builder, x, lanes):
    """Some lanes of x as a vector."""
    return builder.shuffle_vector(x, x, ir.Constant(ir.VectorType(_I32, len(lanes)), list(lanes)))


@intrinsic
def store4x4(typingctx, p, i, last, x):
    """p[16 (i + r) + j] = x_(4r + j) for 4 rows and j < 4; those beyond `last` must hold what `last` does."""

    def codegen(context, builder, sig, args):
        p, i, last, x = args
        place = _places(builder, p, i, 16)

        def emit(rows):
            for q, r in enumerate(rows):
                emit_store(builder, _lanes_of(builder, x, range(4 * q, 4 * q + 4)), place(r))

        _by_rows(builder, i, last, emit, 4)
        return context.get_dummy_value()

    return types.void(p, types.intp, types.intp, x), codegen


@intrinsic
def store_sums4x4(typingctx, p, i, last, x):
    """p[i + r] = sum_j x_(4r + j) for 4 rows and j < 4, as `sum_lanes`; those beyond `last` must hold what it does."""

    def codegen(context, builder, sig, args):
        p, i, last, x = args
        place, columns = _places(builder, p, i, 1), [_lanes_of(builder, x, range(j, 16, 4)) for j in range(4)]
        sums = builder.fadd(builder.fadd(columns[0], columns[2]), builder.fadd(columns[1], columns[3]))

        def emit(rows):
            for q, r in enumerate(rows):
                builder.store(builder.extract_element(sums, ir.Constant(_I32, q)), place(r))

        _by_rows(builder, i, last, emit, 4)
        return context.get_dummy_value()

    return types.void(p, types.intp, types.intp, x), codegen


@intrinsic
def lanes(typingctx, p):
    """How many elements `load(p)` takes: a constant."""
    n = lanes_of(p.dtype.bitwidth // 8)

    def codegen(context, builder, sig, args):
        return context.get_constant(types.intp, n)

    return types.intp(p), codegen


@intrinsic
def store(typingctx, p, x):
    """p[: lanes] = x."""

    def codegen(context, builder, sig, args):
        emit_store(builder, args[1], args[0])
        return context.get_dummy_value()

    return types.void(p, x), codegen


@intrinsic
def spread16(typingctx, p, x):
    """The number x in 16 lanes of p's dtype."""
    vector_type = Vector(p.dtype, 16)

    def codegen(context, builder, sig, args):
        return _spread(context, builder, args[1], sig.args[1], vector_type)

    return signature(vector_type, p, x), codegen


def _zeros(p, vector_type):
    def codegen(context, builder, sig, args):
        return ir.Constant(context.get_value_type(vector_type), None)

    return vector_type(p), codegen


@intrinsic
def no_sum(typingctx, p):
    """Zeros, as many as `load(p)` has lanes: the start of a chain of sums."""
    return _zeros(p, Vector(p.dtype, lanes_of(p.dtype.bitwidth // 8)))


@intrinsic
def wide_zeros(typingctx, p):
    """As many float64 zeros as `load(p)` has lanes: the start of a sum."""
    return _zeros(p, Vector(types.float64, lanes_of(p.dtype.bitwidth // 8)))


@intrinsic
def wide_zeros16(typingctx, p):
    """16 float64 zeros: the start of a horizontal sum."""
    return _zeros(p, Vector(types.float64, 16))


# Arithmetic and comparisons


def _spread(context, builder, value, from_type, vector_type):
    """A vector as it is; a number cast to the dtype and put in every lane."""
    if isinstance(from_type, Vector):
        return value
    x = context.cast(builder, value, from_type, vector_type.dtype)
    return emit_splat(builder, x, context.get_value_type(vector_type))


def _vector_of(arguments):
    """The one vector type among the arguments, if the others are of the same type or numbers."""
    found = {t for t in arguments if isinstance(t, Vector)}
    if len(found) == 1 and all(isinstance(t, Vector | types.Number) for t in arguments):
        return found.pop()
    return None


def _define(op, emit, compares=False):
    @type_callable(op)
    def type_op(context):
        def typer(x, y):
            vector = _vector_of((x, y))
            if vector is None:
                return None
            return signature(Mask(vector.lanes) if compares else vector, x, y)

        return typer

    def lower(context, builder, sig, args):
        vector = _vector_of(sig.args)
        x, y = (_spread(context, builder, a, t, vector) for a, t in zip(args, sig.args, strict=True))
        return emit(builder, x, y)

    for left, right in (Vector, Vector), (Vector, types.Number), (types.Number, Vector):
        lower_builtin(op, left, right)(lower)


_define(operator.add, lambda builder, x, y: builder.fadd(x, y))
_define(operator.sub, lambda builder, x, y: builder.fsub(x, y))
_define(operator.mul, lambda builder, x, y: builder.fmul(x, y))
_define(operator.truediv, lambda builder, x, y: builder.fdiv(x, y))
# ordered comparisons: false where either side is NaN; != is true there
_define(operator.lt, lambda builder, x, y: builder.fcmp_ordered("<", x, y), compares=True)
_define(operator.le, lambda builder, x, y: builder.fcmp_ordered("<=", x, y), compares=True)
_define(operator.gt, lambda builder, x, y: builder.fcmp_ordered(">", x, y), compares=True)
_define(operator.ge, lambda builder, x, y: builder.fcmp_ordered(">=", x, y), compares=True)
_define(operator.ne, lambda builder, x, y: builder.fcmp_unordered("!=", x, y), compares=True)


@type_callable(operator.neg)
def _type_neg(context):
    return lambda x: signature(x, x) if isinstance(x, Vector) else None


@lower_builtin(operator.neg, Vector)
def _neg(context, builder, sig, args):
    return builder.fneg(args[0])


def _elementwise(arguments, emit):
    """An intrinsic of vectors and numbers: the signature and code of emit(builder, *vectors)."""
    vector = _vector_of(arguments)
    if vector is None:
        return None

    def codegen(context, builder, sig, args):
        return emit(builder, *(_spread(context, builder, a, t, vector) for a, t in zip(args, sig.args, strict=True)))

    return signature(vector, *arguments), codegen


@intrinsic
def fma(typingctx, x, y, z):
    """x y + z, rounded once."""
    return _elementwise((x, y, z), lambda builder, *xyz: emit_call(builder, "fma", *xyz))


@intrinsic
def sqrt(typingctx, x):
    """Square root, correctly rounded."""
    return _elementwise((x,), lambda builder, x: emit_call(builder, "sqrt", x))


@intrinsic
def absolute(typingctx, x):
    """|x|."""
    return _elementwise((x,), lambda builder, x: emit_call(builder, "fabs", x))


@intrinsic
def copysign(typingctx, x, y):
    """|x| with the sign of y."""
    return _elementwise((x, y), lambda builder, x, y: emit_call(builder, "copysign", x, y))


@intrinsic
def where(typingctx, mask, x, y):
    """x where the mask is true, y elsewhere; x or y may be a number."""
    vector = _vector_of((x, y))
    if vector is None or not isinstance(mask, Mask):
        return None

    def codegen(context, builder, sig, args):
        chosen, other = (_spread(context, builder, a, t, vector) for a, t in zip(args[1:], sig.args[1:], strict=True))
        return builder.select(args[0], chosen, other)

    return signature(vector, mask, x, y), codegen


@intrinsic
def first16(typingctx, count):
    """Mask of 16 lanes that is true in the first `count`."""

    def codegen(context, builder, sig, args):
        vector = ir.VectorType(ir.IntType(64), 16)
        return builder.icmp_signed("<", ir.Constant(vector, list(range(16))), emit_splat(builder, args[0], vector))

    return Mask(16)(types.int64), codegen


@intrinsic
def first4x4(typingctx, count):
    """Mask of 4 rows of 4 lanes that is true in the first `count` of each row."""

    def codegen(context, builder, sig, args):
        vector = ir.VectorType(ir.IntType(64), 16)
        return builder.icmp_signed("<", ir.Constant(vector, list(range(4)) * 4), emit_splat(builder, args[0], vector))

    return Mask(16)(types.int64), codegen


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
    mantissa, _ = _FORMAT[y.dtype.bitwidth]

    def emit(builder, y, shifted):
        integers = _integers(y.type)
        shift = ir.Constant(integers, [mantissa] * integers.count)
        n = builder.shl(builder.bitcast(shifted, integers), shift)
        return builder.bitcast(builder.add(builder.bitcast(y, integers), n), y.type)

    return _elementwise((y, shifted), emit)


@intrinsic
def exponent(typingctx, x):
    """e of x = s 2^e with 1/2 <= s < 1, for normal positive x."""
    mantissa, bias = _FORMAT[x.dtype.bitwidth]

    def emit(builder, x):
        integers = _integers(x.type)
        field = builder.lshr(builder.bitcast(x, integers), ir.Constant(integers, [mantissa] * integers.count))
        return builder.sitofp(builder.sub(field, ir.Constant(integers, [bias - 1] * integers.count)), x.type)

    return _elementwise((x,), emit)


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

    return _elementwise((x,), emit)


# Across the lanes


@intrinsic
def widen(typingctx, x):
    """The same values in float64."""
    wide = Vector(types.float64, x.lanes)

    def codegen(context, builder, sig, args):
        if x.dtype == types.float64:
            return args[0]
        return builder.fpext(args[0], context.get_value_type(wide))

    return wide(x), codegen


@intrinsic
def store_rounded(typingctx, p, x):
    """p[: lanes] = x, rounded to p's dtype."""

    def codegen(context, builder, sig, args):
        value = args[1]
        vector = ir.VectorType(context.get_value_type(p.dtype), x.lanes)
        emit_store(builder, value if value.type == vector else builder.fptrunc(value, vector), args[0])
        return context.get_dummy_value()

    return types.void(p, x), codegen


def _tree(x, combine):
    """Combine the upper half with the lower half until one lane is left."""

    def codegen(context, builder, sig, args):
        value = args[0]
        while value.type.count > 1:
            half = value.type.count // 2
            low, high = (
                builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(_I32, half), list(range(at, at + half))))
                for at in (0, half)
            )
            value = combine(builder, low, high)
        return builder.extract_element(value, ir.Constant(_I32, 0))

    return x.dtype(x), codegen


@intrinsic
def sum_lanes(typingctx, x):
    """Sum of the lanes, as a fixed tree."""
    return _tree(x, lambda builder, low, high: builder.fadd(low, high))


@intrinsic
def max_lanes(typingctx, x):
    """The largest lane."""
    return _tree(x, lambda builder, low, high: builder.select(builder.fcmp_ordered(">", low, high), low, high))
