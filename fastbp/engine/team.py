"""The team: the threads of one call. They are started, waited for and, when anything goes wrong, aborted here.

Threads live inside one call and share nothing with any other: no global pool that a fork would lose or two callers
would fight for. The caller waits, or does meanwhile what Ctrl-C can interrupt.

They are threads of `_thread`: those of `threading` are started and joined in Python, with locks and conditions that
Ctrl-C can leave locked, or take for ended what has not. Here Ctrl-C comes before or after a start, never within.
"""

from __future__ import annotations

import os
import sys
import weakref
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.cores import cores_apart
from fastbp.engine.memory import aligned_zeros
from fastbp.kernels.threads import ABORT, TEAM_WORDS

__all__ = ["Task", "run_team"]

# (the team's words, this worker, how many workers) -> how much it completed
Task = Callable[[NDArray[Any], int, int], int]
_GLANCE = 0.01  # seconds between two looks for an interrupt
_BEGINNING = 5e-4  # seconds in which a thread begins and goes elsewhere, unless it was refused or a neighbour is there


class _Worker:
    """What one thread of the team does; what its task returned or raised: neither where the thread did not begin."""

    def __init__(self) -> None:
        self.completed: int | None = None
        self.error: BaseException | None = None
        self.has_begun = allocate_lock()  # until then locked
        self.has_begun.acquire()
        self._begins: dict[str, bool] = {}  # whether it does, by who said so first: the thread, or `cancel`
        self._at_work = allocate_lock()
        self._at_work.acquire()

    def call(self, *arguments: Any) -> Callable[[], None]:
        """Return what the thread shall call; as nobody else keeps it, it goes when the thread ends, or cannot begin.

        With it goes the lock: C alone does that, so that no signal is handled there. A lock's `release` takes no
        argument, its `__exit__` any.
        """
        call = partial(self._run, *arguments)
        self._call = weakref.ref(call, cast("Callable[[Any], None]", self._at_work.__exit__))
        return call

    def _run(self, task: Task, words: NDArray[Any], worker: int, n_workers: int, cores: Iterable[int]) -> None:
        if not self._begins.setdefault("", True):
            return
        try:
            _settle(cores)
            self.has_begun.release()
            self.completed = task(words, worker, n_workers)
        except BaseException as error:
            self.error = error
            words[ABORT] = 1

    def cancel(self) -> None:
        """Let a thread that was refused not call the task, should it come after all."""
        self._begins.setdefault("", False)

    def has_result(self) -> bool:
        """Whether the task has returned or raised."""
        return self.completed is not None or self.error is not None

    def has_ended(self, timeout: float) -> bool:
        """Wait; whether no thread is at work, nor will be."""
        if self._call() is None or self._at_work.acquire(timeout=timeout):
            return True
        # the lock stays locked where there is no memory to release it, or a debugger or an audit hook keeps the call
        return self.has_result() or self._begins.get("") is False

    def has_failed(self) -> bool:
        """Whether it has raised something, or will have no result."""
        return self.error is not None or (self._call() is None and not self.has_result())


def run_team(
    task: Task,
    n_workers: int,
    *,
    cores: Sequence[int] = (),
    meanwhile: Callable[[], None] | None = None,
    together: bool = False,
) -> tuple[int, BaseException | None]:
    """Run a task by `n_workers` threads together.

    Parameters
    ----------
    task : callable
        Called in each thread with (words, worker, n_workers); the kernels it calls gather on `words` before they do
        anything that cannot be done twice, meet at barriers there, and end early when the words' ABORT is set.
    n_workers : int
        If there cannot be so many, one does the work, at the worst the caller itself.
    cores : sequence of int
        The core of each thread (Linux); empty where they may move.
    meanwhile : callable or None
        What the caller does while they work; what it raises ends the call.
    together : bool
        Whether that is a share of the work, which the caller begins when the others have left its core (Linux).

    Returns
    -------
    completed : int
        What the task returned, the same in all threads; less than asked for after an interrupt or an error.
    error : BaseException or None
        What a thread raised, or what interrupted the caller. No thread is left then.

    Raises
    ------
    MemoryError
        There is none even for the little that a team needs; the task was not called.
    """
    words = aligned_zeros(TEAM_WORDS, np.int64)
    workers = [_Worker() for _ in range(n_workers)]
    own, others = cores_apart() if together else (set(), set())
    calls = [
        workers[worker].call(task, words, worker, n_workers, cores[worker : worker + 1] if cores else others)
        for worker in reversed(range(n_workers))
    ]
    error: BaseException | None = None
    try:  # without a loop: from Python 3.12 on, what is raised as one jumps back is not caught around it
        _start(words, calls, workers)
        if own:
            _let_begin(workers, own, others)
        if meanwhile is not None:
            meanwhile()
        _wait(words, workers)
    except BaseException as caught:
        try:  # nothing may come before it: another signal would outrun the threads
            _abort(words, calls, workers, own | others)
        except BaseException:  # it came before or after that could try again
            _abort(words, calls, workers, own | others)
        error = caught.with_traceback(None)  # its frames would keep the words, the task and itself
    if error is None and not all(worker.has_result() for worker in workers):  # none went past the gathering
        if n_workers > 1:
            return run_team(task, 1)
        return task(aligned_zeros(TEAM_WORDS, np.int64), 0, 1), None
    raised = [worker.error for worker in workers if worker.error is not None]
    return min(worker.completed or 0 for worker in workers), error or (raised[0] if raised else None)


def _settle(cores: Iterable[int]) -> None:
    """Keep the thread that calls this on some cores, if any are named."""
    if sys.platform == "linux" and cores:
        with suppress(OSError):  # they are no longer ours
            os.sched_setaffinity(0, cores)


def _let_begin(workers: list[_Worker], own: set[int], others: set[int]) -> None:
    """Wait, on the caller's own core, until the workers have left it.

    Where the others have slept for a moment, Linux puts a new thread on the core of the caller, to wait there for its
    turn: for milliseconds, if the caller goes on. The caller is kept from being woken where the thread has gone.
    """
    _settle(own)
    for worker in workers:
        worker.has_begun.acquire(timeout=_BEGINNING)
    _settle(own | others)


def _start(words: NDArray[Any], calls: list[Callable[[], None]], workers: list[_Worker]) -> None:
    """Give each call to a thread; when one is refused, end those that were started."""
    try:
        while calls:
            start_new_thread(calls.pop(), ())
    except (RuntimeError, MemoryError):
        words[ABORT] = 1
        for worker in workers[-1 - len(calls) :]:
            worker.cancel()
        calls.clear()


def _wait(words: NDArray[Any], workers: list[_Worker]) -> None:
    """Wait until no thread is at work; when one will have no result, let the others end."""
    for worker in workers:
        while not worker.has_ended(_GLANCE):  # a signal may have reached another thread than this
            if any(other.has_failed() for other in workers):  # and had no memory to say so
                words[ABORT] = 1


def _abort(words: NDArray[Any], calls: list[Callable[[], None]], workers: list[_Worker], cores: set[int]) -> None:
    """End those that were started, each at its next barrier, and wait for them, whatever interrupts.

    The caller gets back its cores, if any are named.
    """
    try:
        words[ABORT] = 1
        calls.clear()
        _wait(words, workers)
        _settle(cores)
    except BaseException:  # another signal, of any kind: begun again, as a thread that is left would use freed buffers
        _abort(words, calls, workers, cores)
