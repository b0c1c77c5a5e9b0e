"""What the threads of one call share: a barrier that can be aborted; and the floating-point mode of a thread.

The words of a team are int64, each on a cache line of its own. `GENERATION` alone decides: the last thread to arrive
advances it from g to g + 1, a thread that sees the abort word closes it by writing -g - 1, and whoever is first decides
for all, so that either every thread goes on or none does.
"""

from __future__ import annotations

import ctypes
import sys

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.kernels._jit import jit

# Places in the words of a team: two cache lines apart
ARRIVED, GENERATION, ABORT, STARTED, COMPLETED, CLAIMED = 0, 16, 32, 48, 64, 80
TEAM_WORDS = 96
_SPINS = 200  # pauses before the CPU is offered to somebody else
_VOID = ir.VoidType()
_OFFERS = 2000  # offers before the thread sleeps: the others wait for a CPU themselves

# A symbol, because an address inside a kernel would keep it from being stored on disk.
if sys.platform == "win32":
    _system = ctypes.WinDLL("kernel32")
    _yield_cpu, _sleep = _system.SwitchToThread, _system.Sleep
else:
    _system = ctypes.CDLL(None)
    _yield_cpu, _sleep = _system.sched_yield, _system.usleep
llvm.add_symbol("fastbp_yield", ctypes.cast(_yield_cpu, ctypes.c_void_p).value)
llvm.add_symbol("fastbp_sleep", ctypes.cast(_sleep, ctypes.c_void_p).value)


@intrinsic
def _add(typingctx, words, index, value):
    """words[index] += value, atomically; the old value."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", builder.gep(args[0], [args[1]]), args[2], "seq_cst")

    return types.int64(words, types.intp, types.int64), codegen


@intrinsic
def _read(typingctx, words, index):
    """words[index], atomically."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "acquire", 8)

    return types.int64(words, types.intp), codegen


@intrinsic
def _replace(typingctx, words, index, old, new):
    """words[index] = new if it is still old, atomically; what it was."""

    def codegen(context, builder, sig, args):
        pointer = builder.gep(args[0], [args[1]])
        return builder.extract_value(builder.cmpxchg(pointer, args[2], args[3], "seq_cst", "acquire"), 0)

    return types.int64(words, types.intp, types.int64, types.int64), codegen


def _is_x86() -> bool:
    return llvm.get_process_triple().startswith(("x86_64", "i686", "amd64"))


def _is_arm64() -> bool:
    return llvm.get_process_triple().startswith(("aarch64", "arm64"))


def _call(builder, name, *args, returns=_VOID):
    """Call a function or LLVM intrinsic by its name."""
    takes = ir.FunctionType(returns, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, takes, name), args)


@intrinsic
def _pause(typingctx):
    """Tell the CPU that this is a spinning loop."""

    def codegen(context, builder, sig, args):
        if _is_x86():
            _call(builder, "llvm.x86.sse2.pause")
        elif _is_arm64():
            _call(builder, "llvm.aarch64.hint", ir.Constant(ir.IntType(32), 1))
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _offer_cpu(typingctx):
    """Let the operating system run another thread."""

    def codegen(context, builder, sig, args):
        _call(builder, "fastbp_yield")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _sleep_briefly(typingctx):
    """Sleep for the shortest time the system knows."""

    def codegen(context, builder, sig, args):
        _call(builder, "fastbp_sleep", ir.Constant(ir.IntType(32), 1))
        return context.get_dummy_value()

    return types.void(), codegen


@jit
def barrier(team, n_workers):
    """Wait for all workers; True when all go on, False when all stop because the call was aborted."""
    generation = _read(team, GENERATION)
    if generation < 0:
        return False
    closed = -generation - 1
    if _add(team, ARRIVED, 1) == n_workers - 1:
        _add(team, ARRIVED, -n_workers)
        following = closed if _read(team, ABORT) else generation + 1
        return _replace(team, GENERATION, generation, following) == generation and following != closed
    waits = 0
    while _read(team, GENERATION) == generation:
        if _read(team, ABORT):
            _replace(team, GENERATION, generation, closed)
        waits += 1
        if waits < _SPINS:
            _pause()
        elif waits < _SPINS + _OFFERS:
            _offer_cpu()
        else:
            _sleep_briefly()
    return _read(team, GENERATION) != closed  # any other value: this barrier was passed, whatever came after


@jit
def is_closed(team):
    """Whether the workers have stopped meeting each other."""
    return _read(team, GENERATION) < 0


@jit
def aborted(team):
    """Whether the call was aborted."""
    return _read(team, ABORT) != 0


@jit
def gather(team, n_workers):
    """Wait until every worker has started; False when the call was aborted before."""
    _add(team, STARTED, 1)
    while _read(team, STARTED) < n_workers:
        if _read(team, ABORT):
            return False
        _offer_cpu()
    return True


@jit
def claim(team):
    """The next piece of work that nobody has claimed: 0, 1, 2, ..."""
    return _add(team, CLAIMED, 1)


@intrinsic
def flush_subnormals(typingctx):
    """Make subnormal numbers count as zero in this thread; the mode before, for `restore_mode`.

    Subnormal arithmetic is up to a hundred times slower. Sets FTZ and DAZ of MXCSR, or FZ of FPCR.
    """

    def codegen(context, builder, sig, args):
        mode = _read_mode(builder)
        _write_mode(builder, builder.or_(mode, ir.Constant(mode.type, 0x8040 if _is_x86() else 1 << 24)))
        return mode

    return types.int64(), codegen


@intrinsic
def restore_mode(typingctx, mode):
    """Put the floating-point mode back."""

    def codegen(context, builder, sig, args):
        _write_mode(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def _read_mode(builder):
    if _is_x86():
        place = cgutils.alloca_once(builder, ir.IntType(32))
        _call(builder, "llvm.x86.sse.stmxcsr", builder.bitcast(place, ir.IntType(8).as_pointer()))
        return builder.zext(builder.load(place), ir.IntType(64))
    if _is_arm64():
        return _call(builder, "llvm.aarch64.get.fpcr", returns=ir.IntType(64))
    return ir.Constant(ir.IntType(64), 0)


def _write_mode(builder, mode):
    # the fences keep loads and stores, and so the arithmetic between them, on their side
    builder.fence("seq_cst", targetscope="singlethread")
    if _is_x86():
        place = cgutils.alloca_once(builder, ir.IntType(32))
        builder.store(builder.trunc(mode, ir.IntType(32)), place)
        _call(builder, "llvm.x86.sse.ldmxcsr", builder.bitcast(place, ir.IntType(8).as_pointer()))
    elif _is_arm64():
        _call(builder, "llvm.aarch64.set.fpcr", mode)
    builder.fence("seq_cst", targetscope="singlethread")
