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
_ITEMSIZE = {"float": 4, "double": 8, "i64": 8}


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


def emit_masked_load(builder, pointer, wanted, vector):
    """Load those lanes that are wanted, and 0 for the others, whose places are not touched."""
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(vector, [vector.as_pointer(), _I32, wanted.type, vector]),
        f"llvm.masked.load.v{vector.count}{'f32' if str(vector.element) == 'float' else 'f64'}.p0",
    )
    aligned = ir.Constant(_I32, _ITEMSIZE[str(vector.element)])
    place = builder.bitcast(pointer, vector.as_pointer())
    return builder.call(function, [place, aligned, wanted, ir.Constant(vector, None)])


def emit_masked_store(builder, value, pointer, wanted):
    """Store those lanes that are wanted; the places of the others are not touched."""
    vector = value.type
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), _I32, wanted.type]),
        f"llvm.masked.store.v{vector.count}{'f32' if str(vector.element) == 'float' else 'f64'}.p0",
    )
    place = builder.bitcast(pointer, vector.as_pointer())
    builder.call(function, [value, place, ir.Constant(_I32, _ITEMSIZE[str(vector.element)]), wanted])


def emit_first(builder, n, count):
    """Which of so many lanes are the first n."""
    numbers = ir.VectorType(ir.IntType(64), count)
    return builder.icmp_signed("<", ir.Constant(numbers, list(range(count))), emit_splat(builder, n, numbers))


def emit_turned(builder, rows):
    """Vectors that hold a block column by column, from those that hold its rows, which are a power of two."""
    lanes = rows[0].type.count
    # each round interleaves the first half of all elements with the second, which moves the highest bit of their
    # numbers to the lowest place; after as many rounds as r has bits, (r, c) has become (c, r)
    low = [lane for i in range(lanes // 2) for lane in (i, lanes + i)]
    numbers = ir.VectorType(_I32, lanes)
    halves = ir.Constant(numbers, low), ir.Constant(numbers, [lane + lanes // 2 for lane in low])
    for _ in range(len(rows).bit_length() - 1):
        pairs = list(zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True))
        rows = [builder.shuffle_vector(x, y, half) for x, y in pairs for half in halves]
    return rows


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
def load_first(typingctx, p, n):
    """One hardware register of which only the first n lanes are read; the others are 0."""
    vector_type = Vector(p.dtype, lanes_of(p.dtype.bitwidth // 8))

    def codegen(context, builder, sig, args):
        vector = context.get_value_type(vector_type)
        return emit_masked_load(builder, args[0], emit_first(builder, args[1], vector.count), vector)

    return vector_type(p, types.int64), codegen


@intrinsic
def load_wide(typingctx, p, wide):
    """As many float64 as `load(p)` has lanes, from wide."""
    return _load_as(p, wide)


@intrinsic
def load16(typingctx, p):
    """16 logical lanes, however many registers they take."""
    return _load(p, 16)


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
def store_first(typingctx, p, n, x):
    """p[:n] = x[:n]; of fewer lanes all."""

    def codegen(context, builder, sig, args):
        p, n, x = args
        emit_masked_store(builder, x, p, emit_first(builder, n, x.type.count))
        return context.get_dummy_value()

    return types.void(p, types.int64, x), codegen


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


def elementwise(arguments, emit):
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
    return elementwise((x, y, z), lambda builder, *xyz: emit_call(builder, "fma", *xyz))


@intrinsic
def sqrt(typingctx, x):
    """Square root, correctly rounded."""
    return elementwise((x,), lambda builder, x: emit_call(builder, "sqrt", x))


@intrinsic
def absolute(typingctx, x):
    """|x|."""
    return elementwise((x,), lambda builder, x: emit_call(builder, "fabs", x))


@intrinsic
def copysign(typingctx, x, y):
    """|x| with the sign of y."""
    return elementwise((x, y), lambda builder, x, y: emit_call(builder, "copysign", x, y))


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
def narrowed(typingctx, p, x):
    """float64 values, rounded to p's dtype."""
    narrow = Vector(p.dtype, x.lanes)

    def codegen(context, builder, sig, args):
        value, vector = args[1], context.get_value_type(narrow)
        return value if value.type == vector else builder.fptrunc(value, vector)

    return narrow(p, x), codegen


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
