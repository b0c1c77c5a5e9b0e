"""Pointers as Numba values: where elements, or a record, lie, without wraparound or bounds checks."""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_getattr_generic
from numba.core.typing import signature
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

_I32 = ir.IntType(32)
_LINE = 64  # bytes of a cache line


class Pointer(types.Type):
    """Address of elements of `dtype`: `p + n`, `p[i]` and `p[i] = x`, without wraparound or bounds checks."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Pointer({dtype})")


@register_model(Pointer)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, manager.lookup(fe_type.dtype).get_data_type().as_pointer())


@intrinsic
def pointer(typingctx, array):
    """Address of the first element of a C-contiguous array."""

    def codegen(context, builder, sig, args):
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return Pointer(array.dtype)(array), codegen


@intrinsic
def pointer_at(typingctx, address, like):
    """The address (an integer) as a pointer to elements of the dtype of `like`, itself a pointer."""

    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return like(types.intp, like), codegen


def _prefetch(p, to_write):
    def codegen(context, builder, sig, args):
        byte = ir.IntType(8).as_pointer()
        takes = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, takes, "llvm.prefetch.p0")
        step = ir.Constant(ir.IntType(64), _LINE // (p.dtype.bitwidth // 8))
        write, all_levels, data = ir.Constant(_I32, to_write), ir.Constant(_I32, 3), ir.Constant(_I32, 1)
        with cgutils.for_range_slice(builder, ir.Constant(ir.IntType(64), 0), args[1], step, ir.IntType(64)) as (q, _):
            line = builder.bitcast(builder.gep(args[0], [q]), byte)
            builder.call(function, [line, write, all_levels, data])
        return context.get_dummy_value()

    return types.void(p, types.intp), codegen


@intrinsic
def prefetch(typingctx, p, n):
    """Ask for the cache lines of p[:n], which will be written soon; n is a constant or a small number."""
    return _prefetch(p, 1)


@intrinsic
def prefetch_to_read(typingctx, p, n):
    """The same of what will only be read."""
    return _prefetch(p, 0)


@type_callable(operator.add)
def _type_pointer_add(context):
    def typer(p, n):
        if isinstance(p, Pointer) and isinstance(n, types.Integer):
            return signature(p, p, types.intp)
        return None

    return typer


@lower_builtin(operator.add, Pointer, types.Integer)
def _pointer_add(context, builder, sig, args):
    return builder.gep(args[0], [args[1]])


@type_callable(operator.getitem)
def _type_pointer_getitem(context):
    def typer(p, n):
        if isinstance(p, Pointer) and isinstance(n, types.Integer):
            return signature(p.dtype, p, types.intp)
        return None

    return typer


@lower_builtin(operator.getitem, Pointer, types.Integer)
def _pointer_getitem(context, builder, sig, args):
    return builder.load(builder.gep(args[0], [args[1]]))


@type_callable(operator.setitem)
def _type_pointer_setitem(context):
    def typer(p, n, x):
        if isinstance(p, Pointer) and isinstance(n, types.Integer):
            return signature(types.none, p, types.intp, p.dtype)
        return None

    return typer


@lower_builtin(operator.setitem, Pointer, types.Integer, types.Any)
def _pointer_setitem(context, builder, sig, args):
    builder.store(args[2], builder.gep(args[0], [args[1]]))
    return context.get_dummy_value()


class Shared(types.Type):
    """A record in memory, of which every field is read by its name when it is needed."""

    def __init__(self, record):
        self.record = record
        super().__init__(name=f"Shared({record})")


@register_model(Shared)
class _SharedModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, manager.lookup(fe_type.record).get_value_type().as_pointer())


@intrinsic
def share(typingctx, record):
    """A record as kernels hand it on: as one argument, not as all its fields; valid in the kernel that calls this."""

    def codegen(context, builder, sig, args):
        return cgutils.alloca_once_value(builder, args[0])

    return Shared(record)(record), codegen


@intrinsic
def value_of(typingctx, shared):
    """The record itself."""

    def codegen(context, builder, sig, args):
        return builder.load(args[0])

    return shared.record(shared), codegen


@infer_getattr
class _SharedFields(AttributeTemplate):
    key = Shared

    def generic_resolve(self, shared, field):
        return shared.record[shared.record.fields.index(field)] if field in shared.record.fields else None


@lower_getattr_generic(Shared)
def _shared_field(context, builder, shared, record, field):
    return builder.load(cgutils.gep_inbounds(builder, record, 0, shared.record.fields.index(field)))


def _at(dtype, name):
    def typing(typingctx, address):
        def codegen(context, builder, sig, args):
            return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

        return Pointer(dtype)(types.intp), codegen

    typing.__name__ = name
    typing.__doc__ = f"The address (an integer) as a pointer to {dtype}."
    return intrinsic(typing)


int32_at = _at(types.int32, "int32_at")
float32_at = _at(types.float32, "float32_at")
float64_at = _at(types.float64, "float64_at")
