"""Register tiles: the block of a matrix product that is kept in SIMD registers while a loop runs over the inner index.

A `Tile` is rows x vectors of hardware lanes. The three products of backpropagation are the same loop over `outer`
(tile[r, :] += x_r w), and differ in what they read and in what they do with the finished tile.

The shape of a tile is part of its type: a `Shape` is a constant inside kernels. `WIDE` has two vectors, `NARROW` one,
used where a layer's last neurons fill one register only. The number of rows follows the registers of the compilation
target: enough independent chains of fused multiply-adds to hide their latency, few enough that nothing is spilled.
`TALL_WIDE` and `TALL_NARROW` have two rows more where there are registers for them, `LONG_NARROW` twice as many;
`SHORT_WIDE` and `SHORT_NARROW` are for few samples, `FEW_WIDE` and `FEW_NARROW` for few inputs or outputs; `ROWS_8` and
`ROWS_16` are the rows of a layer's few neurons or only one (rows.py). Where zeros are left out (zeros.py) the rows of a
tile are panels.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_constant
from numba.extending import intrinsic, models, register_model, typeof_impl

from fastbp.kernels._jit import inlined, jit
from fastbp.kernels.pointers import Pointer, prefetch_to_read
from fastbp.kernels.simd import emit_call, emit_load, emit_splat, emit_store, emit_turned, lanes_of, many_registers


@dataclass(frozen=True)
class Shape:
    """`rows` x `vectors` SIMD registers."""

    rows: int
    vectors: int


_ROWS = 8 if many_registers() else 5
_NARROW_ROWS = 8 if many_registers() else 10
_TALL_ROWS, _SHORT_ROWS, _FEW_ROWS = 10, 5, 4
WIDE, NARROW = Shape(_ROWS, 2), Shape(_NARROW_ROWS, 1)
TALL_WIDE = Shape(_TALL_ROWS, 2) if many_registers() else WIDE
TALL_NARROW = Shape(_TALL_ROWS, 1) if many_registers() else NARROW
LONG_NARROW = Shape(16, 1) if many_registers() else NARROW
SHORT_WIDE, SHORT_NARROW = Shape(_SHORT_ROWS, 2), Shape(_SHORT_ROWS, 1)
FEW_WIDE, FEW_NARROW = Shape(_FEW_ROWS, 2), Shape(_FEW_ROWS, 1)
ROWS_8, ROWS_16 = Shape(8, 1), Shape(16, 1)
PANELS_4, PANELS_2, PANEL, NARROW_PANEL, NO_PANEL = Shape(4, 2), Shape(2, 2), Shape(1, 2), Shape(1, 1), Shape(0, 1)
# Weights are asked for so many k ahead in loops of at least so many: the core looks ahead by itself, but a page at most
_AHEAD, _FAR = 64, 128


class _ShapeType(types.Type):
    """The type of one shape, which has no other value."""

    def __init__(self, shape):
        self.shape = shape
        super().__init__(name=repr(shape))


register_model(_ShapeType)(models.OpaqueModel)


@typeof_impl.register(Shape)
def _type_of_shape(shape, context):
    return _ShapeType(shape)


@lower_constant(_ShapeType)
def _constant_shape(context, builder, kind, value):
    return context.get_dummy_value()


class Tile(types.Type):
    """`rows` x `vectors` SIMD registers of so many `lanes` of `dtype`."""

    def __init__(self, dtype, rows, vectors, lanes):
        self.dtype, self.rows, self.vectors, self.lanes = dtype, rows, vectors, lanes
        super().__init__(name=f"Tile({dtype}, {rows}, {vectors}, {lanes})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        element = manager.lookup(fe_type.dtype).get_value_type()
        vector = ir.VectorType(element, fe_type.lanes)
        super().__init__(manager, fe_type, ir.ArrayType(vector, fe_type.rows * fe_type.vectors))


def _tile_type(kind, p):
    shape = kind.shape
    return Tile(p.dtype, shape.rows, shape.vectors, lanes_of(p.dtype.bitwidth // 8))


def registers_of(builder, tile):
    """The registers of a tile, row after row."""
    return [builder.extract_value(tile, i) for i in range(tile.type.count)]


def pack(builder, tile_type, registers):
    """The tile of these registers."""
    value = ir.Constant(tile_type, ir.Undefined)
    for i, register in enumerate(registers):
        value = builder.insert_value(value, register, i)
    return value


def _constant(shape, p, n):
    def codegen(context, builder, sig, args):
        return context.get_constant(types.intp, n)

    return types.intp(shape, p), codegen


@intrinsic
def n_rows(typingctx, shape, p):
    """Rows of a tile of that shape and of p's dtype."""
    return _constant(shape, p, _tile_type(shape, p).rows)


@intrinsic
def n_columns(typingctx, shape, p):
    """Elements in a row of a tile of that shape and of p's dtype."""
    tile = _tile_type(shape, p)
    return _constant(shape, p, tile.vectors * tile.lanes)


@jit
def rounded_up(n, multiple):
    """The smallest multiple that is at least n."""
    return (n + multiple - 1) // multiple * multiple


@jit
def fits_tall(p, n):
    """Whether n rows fill tall tiles of p's dtype better than others."""
    return rounded_up(n, n_rows(TALL_WIDE, p)) < rounded_up(n, n_rows(WIDE, p))


@intrinsic
def zeros(typingctx, shape, p):
    """A tile of zeros of p's dtype."""
    tile_type = _tile_type(shape, p)

    def codegen(context, builder, sig, args):
        return ir.Constant(context.get_value_type(tile_type), None)

    return tile_type(shape, p), codegen


@intrinsic
def repeat(typingctx, shape, p):
    """A tile whose every row is p[: columns]."""
    tile_type = _tile_type(shape, p)

    def codegen(context, builder, sig, args):
        value_type = context.get_value_type(tile_type)
        row = _load_row(builder, args[1], value_type.element, tile_type.vectors)
        return pack(builder, value_type, row * tile_type.rows)

    return tile_type(shape, p), codegen


@intrinsic
def spread_rows(typingctx, shape, p, offsets):
    """A tile whose row r is p[offsets[r]] everywhere."""
    tile_type = _tile_type(shape, p)

    def codegen(context, builder, sig, args):
        value_type = context.get_value_type(tile_type)
        registers = []
        for offset in cgutils.unpack_tuple(builder, args[2], tile_type.rows):
            x = emit_splat(builder, builder.load(builder.gep(args[1], [offset])), value_type.element)
            registers += [x] * tile_type.vectors
        return pack(builder, value_type, registers)

    return tile_type(shape, p, offsets), codegen


def _load_row(builder, pointer, vector, n_vectors):
    at = [builder.gep(pointer, [ir.Constant(ir.IntType(64), v * vector.count)]) for v in range(n_vectors)]
    return [emit_load(builder, p, vector) for p in at]


def _offsets(shape, p, codegen_row):
    tile_type = _tile_type(shape, p)
    offsets_type = types.UniTuple(types.intp, tile_type.rows)

    def codegen(context, builder, sig, args):
        return context.make_tuple(
            builder, offsets_type, [codegen_row(builder, r, *args[2:]) for r in range(tile_type.rows)]
        )

    return offsets_type, codegen


def place_rows(n, place):
    """Offsets of n rows r = 0, 1, ... by place(builder, r, *args); beyond `last`, the last argument, that row's."""
    offsets_type = types.UniTuple(types.intp, n)

    def codegen(context, builder, sig, args):
        *args, last = args[2:]
        rows = [ir.Constant(last.type, r) for r in range(n)]
        with builder.if_else(builder.icmp_signed("<=", rows[-1], last), likely=True) as (whole, sticking_out):
            with whole:
                all_there, whole_block = [place(builder, r, *args) for r in rows], builder.block
            with sticking_out:
                there = [builder.select(builder.icmp_signed("<=", r, last), r, last) for r in rows]
                some, some_block = [place(builder, r, *args) for r in there], builder.block
        offsets = []
        for value, other in zip(all_there, some, strict=True):
            offset = builder.phi(last.type)
            offset.add_incoming(value, whole_block)
            offset.add_incoming(other, some_block)
            offsets.append(offset)
        return context.make_tuple(builder, offsets_type, offsets)

    return offsets_type, codegen


@intrinsic
def row_offsets(typingctx, shape, p, index, stride, last):
    """Where the rows r = 0, 1, ... of a tile begin: index[min(r, last)] stride.

    A tile that sticks out computes the last sample again, to the same bits.
    """

    def place(builder, r, index, stride):
        return builder.mul(builder.load(builder.gep(index, [r])), stride)

    offsets_type, codegen = place_rows(_tile_type(shape, p).rows, place)
    return offsets_type(shape, p, Pointer(types.int64), types.intp, types.intp), codegen


@intrinsic
def near_offsets(typingctx, shape, p, stride, last):
    """The same of rows that follow each other: min(r, last) stride."""
    rows = _tile_type(shape, p).rows
    offsets_type, codegen = place_rows(rows, lambda builder, r, stride: builder.mul(r, stride))
    return offsets_type(shape, p, types.intp, types.intp), codegen


@intrinsic
def consecutive(typingctx, shape, p):
    """0, 1, 2, ...: constants, which become parts of the instructions that load."""
    offsets_type, codegen = _offsets(shape, p, lambda builder, r: ir.Constant(ir.IntType(64), r))
    return offsets_type(shape, p), codegen


@intrinsic
def multiples(typingctx, shape, p, stride):
    """0, stride, 2 stride, ..."""

    def row(builder, r, stride):
        return builder.mul(stride, ir.Constant(stride.type, r))

    offsets_type, codegen = _offsets(shape, p, row)
    return offsets_type(shape, p, types.intp), codegen


@intrinsic
def outer(typingctx, tile, x, offsets, w):
    """tile[r, :] += x[offsets[r]] w[: columns], by fused multiply-add."""

    def codegen(context, builder, sig, args):
        value_type = context.get_value_type(tile)
        registers = registers_of(builder, args[0])
        w_row = _load_row(builder, args[3], value_type.element, tile.vectors)
        new = []
        for r, offset in enumerate(cgutils.unpack_tuple(builder, args[2], tile.rows)):
            x_r = emit_splat(builder, builder.load(builder.gep(args[1], [offset])), value_type.element)
            for v in range(tile.vectors):
                new.append(emit_call(builder, "fma", x_r, w_row[v], registers[r * tile.vectors + v]))
        return pack(builder, value_type, new)

    return tile(tile, x, offsets, w), codegen


@inlined
def add_outers(tile, x, offsets, w, columns, first, last, new):
    """tile[r, :] += sum_k x[offsets[r] + k] w[k columns :][: columns] over first <= k < last.

    `new` says that the nearest caches do not hold w yet.
    """
    if new and last - first >= _FAR:
        for k in range(first, last):
            prefetch_to_read(w + (k + _AHEAD) * columns, columns)
            tile = outer(tile, x + k, offsets, w + k * columns)
    else:
        for k in range(first, last):
            tile = outer(tile, x + k, offsets, w + k * columns)
    return tile


@intrinsic
def axpy(typingctx, tile, x, w, offsets):
    """tile[r, :] += x w[offsets[r] : offsets[r] + columns], by fused multiply-add."""

    def codegen(context, builder, sig, args):
        value_type = context.get_value_type(tile)
        x = emit_splat(builder, args[1], value_type.element)
        new = []
        for r, offset in enumerate(cgutils.unpack_tuple(builder, args[3], tile.rows)):
            row = _load_row(builder, builder.gep(args[2], [offset]), value_type.element, tile.vectors)
            old = registers_of(builder, args[0])[r * tile.vectors : (r + 1) * tile.vectors]
            new += [emit_call(builder, "fma", x, w_v, sum_v) for w_v, sum_v in zip(row, old, strict=True)]
        return pack(builder, value_type, new)

    return tile(tile, tile.dtype, w, offsets), codegen


@intrinsic
def add(typingctx, tile, other):
    """The sum of two tiles."""

    def codegen(context, builder, sig, args):
        pairs = zip(registers_of(builder, args[0]), registers_of(builder, args[1]), strict=True)
        return pack(builder, context.get_value_type(tile), [builder.fadd(x, y) for x, y in pairs])

    return tile(tile, tile), codegen


@intrinsic
def load_tile(typingctx, shape, p):
    """The tile that lies row after row at p."""
    tile_type = _tile_type(shape, p)

    def codegen(context, builder, sig, args):
        value_type = context.get_value_type(tile_type)
        return pack(builder, value_type, _load_row(builder, args[1], value_type.element, value_type.count))

    return tile_type(shape, p), codegen


@intrinsic
def load_rows(typingctx, shape, p, offsets):
    """The tile whose rows lie at p[offsets[r] :]."""
    tile_type = _tile_type(shape, p)

    def codegen(context, builder, sig, args):
        value_type = context.get_value_type(tile_type)
        registers = []
        for offset in cgutils.unpack_tuple(builder, args[2], tile_type.rows):
            registers += _load_row(builder, builder.gep(args[1], [offset]), value_type.element, tile_type.vectors)
        return pack(builder, value_type, registers)

    return tile_type(shape, p, offsets), codegen


@intrinsic
def store_tile(typingctx, p, tile):
    """Lay the tile row after row at p."""

    def codegen(context, builder, sig, args):
        for i, register in enumerate(registers_of(builder, args[1])):
            emit_store(builder, register, builder.gep(args[0], [ir.Constant(ir.IntType(64), i * register.type.count)]))
        return context.get_dummy_value()

    return types.void(p, tile), codegen


def _store_rows(p, offsets, tile, finish):
    def codegen(context, builder, sig, args):
        places = []
        for offset in cgutils.unpack_tuple(builder, args[1], tile.rows):
            row = builder.gep(args[0], [offset])
            for v in range(tile.vectors):
                places.append(builder.gep(row, [ir.Constant(ir.IntType(64), v * tile.lanes)]))
        # every value is finished before the first is stored: rows that repeat a sample store the same again
        values = [finish(builder, v, place) for v, place in zip(registers_of(builder, args[2]), places, strict=True)]
        for value, place in zip(values, places, strict=True):
            emit_store(builder, value, place)
        return context.get_dummy_value()

    return types.void(p, offsets, tile), codegen


@intrinsic
def store_rows(typingctx, p, offsets, tile):
    """p[offsets[r] :] = tile[r, :]."""
    return _store_rows(p, offsets, tile, lambda builder, value, place: value)


@intrinsic
def multiply_rows(typingctx, p, offsets, tile):
    """p[offsets[r] :] *= tile[r, :]."""

    def finish(builder, value, place):
        return builder.fmul(emit_load(builder, place, value.type), value)

    return _store_rows(p, offsets, tile, finish)


def turned_rows(lanes: int) -> int:
    """Rows of a block that is turned: a part of each strip and panel."""
    return min(8, lanes)


@intrinsic
def n_turned(typingctx, p):
    """Rows of the blocks that `turn` transposes; their columns are p's lanes."""
    n = turned_rows(lanes_of(p.dtype.bitwidth // 8))

    def codegen(context, builder, sig, args):
        return context.get_constant(types.intp, n)

    return types.intp(p), codegen


@intrinsic
def turn(typingctx, p, stride, out, out_stride):
    """out[c, r] = p[r, c] for one block: rows at r stride, which become columns, and columns at c out_stride."""
    lanes = lanes_of(p.dtype.bitwidth // 8)
    rows = turned_rows(lanes)

    def codegen(context, builder, sig, args):
        p, stride, out, out_stride = args
        vector = ir.VectorType(context.get_value_type(sig.args[0].dtype), lanes)
        block = []
        for r in range(rows):
            at = builder.gep(p, [builder.mul(stride, ir.Constant(stride.type, r))])
            block.append(emit_load(builder, at, vector))
        block = emit_turned(builder, block)
        per_vector = lanes // rows
        for c in range(lanes):
            first = c % per_vector * rows
            x = block[c // per_vector]
            column = ir.Constant(ir.VectorType(ir.IntType(32), rows), list(range(first, first + rows)))
            at = builder.gep(out, [builder.mul(out_stride, ir.Constant(out_stride.type, c))])
            emit_store(builder, builder.shuffle_vector(x, x, column), at)
        return context.get_dummy_value()

    return types.void(p, types.intp, p, types.intp), codegen
