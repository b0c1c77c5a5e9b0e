"""Cores: how many threads a call may use, how many its work repays, and how many other calls leave it."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path

from fastbp.arguments import whole

__all__ = [
    "Call",
    "Choice",
    "available_cores",
    "cores_apart",
    "get_num_threads",
    "is_open",
    "n_workers_for",
    "own_cores",
    "set_num_threads",
    "share_of",
]

# Multiply-adds of a mini-batch that may repay one more thread (two barriers, and what moves from core to core), that
# mostly do, and that surely do.
WORK_PER_THREAD, LIKELY_WORK_PER_THREAD, SURE_WORK_PER_THREAD = 5_000, 1_000_000, 2_000_000
# Multiply-adds of a trial of a number of threads: some milliseconds, beside which threads start in no time
WORK_PER_TRIAL = 200_000_000
# Trials' worth of work before anything is tried: where a neighbour has a core, a team may first have to wait for it
_TRIALS_BEFORE = 6
# Chunks after which the other number is tried again, and while one takes less than so many times as long as the other
_CHUNKS_PER_TRIAL, _CHUNKS_IN_DOUBT, _CLOSE = 16, 4, 1.5
_SECOND_LOOK = 2  # the chunk in which it is tried again for the first time: before, no cache held anything
_MOST_EXPERIENCES = 256  # kinds of training that are remembered
_GAIN = 0.95  # the time that more threads must stay below, as a part of one thread's
# Multiply-adds of a call without barriers (predict) that repay starting one more thread.
WORK_PER_START = 10_000_000
_QUOTA_LASTS = 1.0  # seconds
_current_core = getattr(ctypes.PyDLL(None), "sched_getcpu", None) if sys.platform == "linux" else None
_limit: int | None = None
_quota: tuple[float, float | None] | None = None  # when it was read, and what it was


def set_num_threads(n: int | None) -> None:
    """Limit the threads of every call that does not say `n_threads` itself.

    Parameters
    ----------
    n : int or None
        At least 1; None returns to what the environment says.

    Raises
    ------
    ValueError, TypeError
        n is below 1, or no integer.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.set_num_threads(1)
    >>> fastbp.get_num_threads()
    1
    >>> fastbp.set_num_threads(None)
    """
    global _limit
    _limit = None if n is None else whole(n, "n", 1)


def get_num_threads() -> int:
    """Return the largest number of threads that a call uses by itself.

    That is what `set_num_threads` said; else the environment's FASTBP_NUM_THREADS or OMP_NUM_THREADS; never more than
    the cores that this process may use (affinity and control group).

    Returns
    -------
    int

    Examples
    --------
    >>> import fastbp
    >>> fastbp.get_num_threads() >= 1
    True
    """
    if _limit is not None:
        return _limit
    for name in "FASTBP_NUM_THREADS", "OMP_NUM_THREADS":
        value = os.environ.get(name, "").split(",")[0].strip()
        if value.isdecimal() and int(value) >= 1:
            return min(int(value), available_cores())
    return available_cores()


def available_cores() -> int:
    """Return the cores that this process may use: its affinity, and its control group's quota rounded up."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _recent_quota()
    return max(1, min(cores, math.ceil(quota))) if quota else cores


def _recent_quota() -> float | None:
    """Return what `_cgroup_quota` has said a moment ago: to read it takes longer than a small call computes."""
    global _quota
    now = time.monotonic()
    if _quota is None or now - _quota[0] >= _QUOTA_LASTS:
        _quota = now, _cgroup_quota()
    return _quota[1]


def _cgroup_quota() -> float | None:
    """Return the CPUs that the control group grants (Linux), None without a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        lines = _read(Path("/proc/self/cgroup")).splitlines()
    except OSError:
        return None
    granted = []
    for line in lines:
        try:
            _, controllers, path = line.split(":", 2)
            if controllers == "":  # version 2: every level may have a limit
                own = folder / path.lstrip("/")
                for level in (own, *own.parents):
                    if (level / "cpu.max").exists():
                        quota, period = _read(level / "cpu.max").split()
                        if quota != "max":
                            granted.append(int(quota) / int(period))
                    if level == folder:
                        break
            elif "cpu" in controllers.split(","):
                for own in (folder / controllers / path.lstrip("/"), folder / "cpu"):
                    if (own / "cpu.cfs_quota_us").exists():
                        quota_us = int(_read(own / "cpu.cfs_quota_us"))
                        if quota_us > 0:
                            granted.append(quota_us / int(_read(own / "cpu.cfs_period_us")))
                        break
        except (OSError, ValueError):
            continue
    return min(granted) if granted else None


def most_threads() -> int:
    """Return how many threads can compute at the same time."""
    return available_cores()


def is_open(n_threads: int | None) -> bool:
    """Whether the number of threads is left to the work: nobody said it, or said more than there are cores."""
    return n_threads is None or n_threads > most_threads()


def n_workers_for(n_threads: int | None, work: float, repays: int = WORK_PER_THREAD) -> int:
    """Return the most threads for a call whose unit of work is `work` multiply-adds: those asked for, or what repays.

    Never more than the cores: threads that wait for each other would have to take turns on one.
    """
    if n_threads is not None and not is_open(n_threads):
        return n_threads
    repaid = int(work // repays)
    return min(get_num_threads() if n_threads is None else most_threads(), repaid) if repaid > 1 else 1


def own_cores(n_workers: int) -> list[int]:
    """Return a core for each thread where they take all that this process may use and nobody else computes; else none.

    Without one of its own Linux puts a thread beside another now and then, when somebody wakes for a moment: for
    milliseconds both take turns, and wait for each other. Beside a neighbour they must be free to move.
    """
    if sys.platform != "linux" or n_workers == 1:
        return []
    cores = sorted(os.sched_getaffinity(0))
    return cores if len(cores) == n_workers and _running() <= 1 else []


def cores_apart() -> tuple[set[int], set[int]]:
    """Return the core of the caller, and the others that it may use; nothing where the system does not tell."""
    if _current_core is None:
        return set(), set()
    own, allowed = {int(_current_core())}, os.sched_getaffinity(0)
    return (own, allowed - own) if own < allowed else (set(), set())


def _running() -> float:
    """Return how many threads of this machine compute at the moment, this one among them."""
    try:
        return int(_read("/proc/loadavg").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return math.inf


def _read(path: Path | str) -> str:
    """Return the text of one of the system's files, and leave none open when Ctrl-C comes.

    With `open` it may come between the call and the `with`; here the file is there before it is open.
    """
    file = FileIO.__new__(FileIO)
    try:
        FileIO.__init__(file, path)
        return file.readall().decode()
    finally:
        file.close()


class Call:
    """A call while it computes: with it those in other Python threads share the cores.

    >>> with Call():
    ...     share_of(64) <= 64
    True
    """

    def __enter__(self) -> Call:
        _calls.add(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _calls.discard(self)


_calls: set[Call] = set()  # those that compute at present; one operation on it is atomic
if hasattr(os, "register_at_fork"):  # the child has none of the other threads
    os.register_at_fork(after_in_child=_calls.clear)


def share_of(n_workers: int) -> int:
    """Return how many of the threads that a call would take alone the other calls of this moment leave it."""
    if n_workers == 1 or len(_calls) <= 1:
        return n_workers
    return max(1, min(n_workers, max(available_cores(), get_num_threads()) // max(1, len(_calls))))


@dataclass
class _Experience:
    """What a training has learned of its work.

    Attributes
    ----------
    seconds : dict of threads -> float
        The time of a mini-batch.
    chunks : int
        Calls that were long enough for a trial.
    minibatches : int
        Of all calls.
    """

    seconds: dict[int, float] = field(default_factory=dict)
    chunks: int = 0
    minibatches: int = 0


_experiences: dict[Hashable, _Experience] = {}  # of the trainings of this process, by what they were


class Choice:
    """How many threads compute the mini-batches of a training: tried out, because a busy core decides it too.

    No bit depends on it. Where the work leaves no doubt, and where it is too little for a trial, the work decides.

    Parameters
    ----------
    most : int
        The most threads.
    work : int
        Multiply-adds of a mini-batch.
    eager : bool
        Whether to take the most where nothing is known yet: somebody has asked for many.
    kind : hashable, optional
        What is trained: a training goes on from what the last one of the same kind has learned, lest each of many
        short ones pays for trials of its own.
    """

    def __init__(self, most: int, work: float, *, eager: bool = False, kind: Hashable = None) -> None:
        self.most, self._work, self._eager = most, work, eager
        self._sure = work >= SURE_WORK_PER_THREAD * most
        self._kind = None if kind is None or most == 1 or self._sure else (kind, most)
        known = _experiences.get(self._kind, _Experience())
        self._learned = replace(known, seconds=known.seconds.copy())

    def portions(self, n: int, most: int) -> Iterator[tuple[int, int, int]]:
        """Cut n mini-batches into portions (begin, end, threads), with at most `most` threads; `took` after each."""
        trial, learned = max(1, int(WORK_PER_TRIAL / self._work)), self._learned
        learned.minibatches += n
        if most == 1 or self._sure or n < 4 * trial or learned.minibatches < _TRIALS_BEFORE * trial:
            yield 0, n, most if self._sure else min(most, self._best(most))
            return
        learned.chunks += 1
        if self._is_time_to_look():
            learned.seconds.pop(1 if self._best(most) == most else most, None)
        begin = 0
        for n_workers in (most, 1):
            if n_workers not in learned.seconds:
                yield begin, begin + trial, n_workers
                begin += trial
        yield begin, n, self._best(most)

    def took(self, n_workers: int, n: int, seconds: float) -> None:
        """Note the time that n mini-batches took."""
        self._learned.seconds[n_workers] = seconds / n
        if self._kind is not None:
            if len(_experiences) >= _MOST_EXPERIENCES:
                _experiences.clear()
            _experiences[self._kind] = replace(self._learned, seconds=self._learned.seconds.copy())

    def _is_time_to_look(self) -> bool:
        chunks, seconds = self._learned.chunks, self._learned.seconds.values()
        in_doubt = len(seconds) > 0 and max(seconds) < _CLOSE * min(seconds)
        return chunks == _SECOND_LOOK or chunks % (_CHUNKS_IN_DOUBT if in_doubt else _CHUNKS_PER_TRIAL) == 0

    def _best(self, most: int) -> int:
        seconds = self._learned.seconds
        if 1 in seconds and most in seconds:
            return most if seconds[most] < _GAIN * seconds[1] else 1
        return most if self._eager else min(most, max(1, int(self._work // LIKELY_WORK_PER_THREAD)))
