"""What the threads of one call share: a barrier that can be aborted; and the floating-point mode of a thread.

The words of a team are int64, each on a cache line of its own. `GENERATION` alone decides: the last thread to arrive
advances it from g to g + 1, a thread that sees the abort word closes it by writing -g - 1, and whoever is first decides
for all, so that either every thread goes on or none does.
"""

from __future__ import annotations

import ctypes
import platform
import sys

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.kernels._jit import jit

# Places in the words of a team: two cache lines apart; what is claimed has two, for turns
WORD_APART, TEAM_WORDS = 16, 160
ARRIVED, GENERATION, ABORT, STARTED, COMPLETED, ASLEEP, DOUBT, SLEEPS, CLAIMED, _ = range(0, TEAM_WORDS, WORD_APART)
_VOID, _TIMESPEC = ir.VoidType(), ir.ArrayType(ir.IntType(64), 2)
# Pauses before a waiting thread sleeps, some 0.3 ms, as to be woken takes 0.05. Each sleep halves them, _PROVEN waits
# without one double them: where those who are waited for have to share a core with who waits, pauses only delay them.
# Where they do not, being woken may take longer than the pauses that are left, so that the others sleep in their turn,
# and so on: after _TRIED sleeps, and twice as many, and so on, one wait has all pauses; if they are enough, there are
# more from then on.
# The CPU is never merely offered (sched_yield): Linux takes that for giving up the rest of a turn, and hands it on.
_SPINS, _HALVINGS, _PROVEN, _TRIED = 10_000, 7, 64, 32
_NAP = 1_000_000  # nanoseconds of sleep after which to look for an abort, of which nobody tells

# How a thread sleeps until another wakes it. Symbols, because an address in a kernel would keep it from being stored.
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine()) if sys.platform == "linux" else None
_FUTEX_WAIT, _FUTEX_WAKE = 128, 129  # among the threads of one process
if sys.platform == "win32":
    _system: ctypes.CDLL = ctypes.WinDLL("kernelbase")
    _symbols = {"fastbp_wait": _system.WaitOnAddress, "fastbp_wake": _system.WakeByAddressAll}
elif _FUTEX is not None:
    _symbols = {"fastbp_syscall": ctypes.CDLL(None).syscall}
else:
    _symbols = {"fastbp_sleep": ctypes.CDLL(None).usleep}
for _name, _function in _symbols.items():
    llvm.add_symbol(_name, ctypes.cast(_function, ctypes.c_void_p).value)


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
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "seq_cst", 8)

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
def _sleep_while(typingctx, words, index, value):
    """Sleep until somebody wakes those who wait for words[index], at once if it is no longer value; or for a while."""

    def codegen(context, builder, sig, args):
        pointer, value = builder.gep(args[0], [args[1]]), args[2]
        if sys.platform == "win32":
            compared = cgutils.alloca_once_value(builder, value)
            milliseconds = ir.Constant(ir.IntType(32), _NAP // 10**6)
            _call(builder, "fastbp_wait", pointer, compared, _int64(8), milliseconds, returns=ir.IntType(32))
        elif _FUTEX is not None:
            duration = cgutils.alloca_once_value(builder, ir.Constant(_TIMESPEC, [_NAP // 10**9, _NAP % 10**9]))
            _futex(builder, pointer, _FUTEX_WAIT, value, builder.ptrtoint(duration, ir.IntType(64)))
        else:
            _call(builder, "fastbp_sleep", ir.Constant(ir.IntType(32), 1))
        return context.get_dummy_value()

    return types.void(words, types.intp, types.int64), codegen


@intrinsic
def _wake_sleepers(typingctx, words, index):
    """Wake all who sleep until words[index] changes."""

    def codegen(context, builder, sig, args):
        pointer = builder.gep(args[0], [args[1]])
        if sys.platform == "win32":
            _call(builder, "fastbp_wake", pointer)
        elif _FUTEX is not None:
            _futex(builder, pointer, _FUTEX_WAKE, _int64(2**31 - 1), _int64(0))
        return context.get_dummy_value()

    return types.void(words, types.intp), codegen


def _int64(value):
    return ir.Constant(ir.IntType(64), value)


def _futex(builder, pointer, operation, value, duration):
    """The system call that waits while the lower half of *pointer is that of value, or wakes so many who do."""
    place = builder.ptrtoint(pointer, ir.IntType(64))
    arguments = _int64(_FUTEX), place, _int64(operation), value, duration, _int64(0), _int64(0)
    _call(builder, "fastbp_syscall", *arguments, returns=ir.IntType(64))


@jit
def _patience(team):
    """Pauses before a thread sleeps, while others may have to share its core."""
    return _SPINS >> _read(team, DOUBT) // _PROVEN


@jit
def _tries(team):
    """Whether a wait has all pauses nevertheless."""
    n = _read(team, SLEEPS) + 1
    return n >= _TRIED and n & (n - 1) == 0


@jit
def _wait(team, index, value, waits):
    """One step of waiting while team[index] is `value`, after `waits` of them; how many it has been then."""
    if waits < _patience(team) or (waits < _SPINS and _tries(team)):
        _pause()
        return waits + 1
    if waits <= _SPINS:  # the first sleep of this wait
        team[DOUBT] = min(_read(team, DOUBT) + _PROVEN, _HALVINGS * _PROVEN)
        _add(team, SLEEPS, 1)
    _add(team, ASLEEP, 1)
    _sleep_while(team, index, value)
    _add(team, ASLEEP, -1)
    return _SPINS + 1


@jit
def _remember(team, waits):
    """What a wait that is over, after so many steps, says of the next ones; one that slept has said it."""
    if waits > _SPINS or _read(team, DOUBT) == 0:
        return
    if waits > _patience(team):
        team[DOUBT] = _read(team, DOUBT) // 2
        team[SLEEPS] = 0
    else:
        team[DOUBT] = max(_read(team, DOUBT) - 1, 0)  # another thread may have changed it


@jit
def _wake(team, index):
    """Wake those who wait for team[index], which has changed."""
    if _read(team, ASLEEP):
        _wake_sleepers(team, index)


@jit
def barrier(team, n_workers):
    """Wait for all workers; True when all go on, False when all stop because the call was aborted."""
    generation = _read(team, GENERATION)
    if generation < 0:
        return False
    closed = -generation - 1
    if n_workers == 1:  # nobody else writes the word
        team[GENERATION] = closed if _read(team, ABORT) else generation + 1
        return team[GENERATION] != closed
    if _add(team, ARRIVED, 1) == n_workers - 1:
        _add(team, ARRIVED, -n_workers)
        following = closed if _read(team, ABORT) else generation + 1
        decided = _replace(team, GENERATION, generation, following) == generation
        _wake(team, GENERATION)
        return decided and following != closed
    waits = 0
    while _read(team, GENERATION) == generation:
        if _read(team, ABORT):
            _replace(team, GENERATION, generation, closed)
        waits = _wait(team, GENERATION, generation, waits)
    _remember(team, waits)
    return _read(team, GENERATION) != closed  # any other value: this barrier was passed, whatever came after


@jit
def barriers_passed(team):
    """How many barriers the workers have passed: the same for all between two of them."""
    generation = _read(team, GENERATION)
    return generation if generation >= 0 else -generation - 1


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
    _wake(team, STARTED)
    waits = 0
    while True:
        started = _read(team, STARTED)
        if started >= n_workers:
            return True
        if _read(team, ABORT):
            return False
        waits = _wait(team, STARTED, started, waits)


@jit
def claim(team, turn):
    """The next piece of work that nobody has claimed, in one of two turns: 0, 1, 2, ..."""
    return _add(team, CLAIMED + turn * WORD_APART, 1)


@jit
def forget_claims(team, turn):
    """Begin a turn anew, in which nobody is at present.

    That is the other of the two: past a barrier some claim in the turn that follows before others have read anything.
    """
    team[CLAIMED + turn * WORD_APART] = 0


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
