"""The team: the threads of one call. They are started, joined and, when anything goes wrong, aborted here.

Threads live inside one call and share nothing with any other: no global pool that a fork would lose or two callers
would fight for. The caller waits, at most
with something else to do meanwhile, so that Ctrl-C works while they compute.
"""

from __future__ import annotations

import mmap
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.memory import aligned_zeros
from fastbp.kernels.threads import ABORT, TEAM_WORDS

if sys.platform == "linux":
    import resource

__all__ = ["Task", "run_team"]

# (the team's words, this worker, how many workers) -> how much it completed
Task = Callable[[NDArray[Any], int, int], int]
_GLANCE = 0.01  # seconds between two looks for an interrupt
_PATIENCE = 5.0  # seconds for a thread whose start was interrupted, to show itself
_FIRST_FRAMES = 4 << 20  # bytes that Python needs to begin a thread, by far: an arena of small objects, a stack's chunk
_USUAL_STACK = 8 << 20


# The threads of calls before, which the next worker frees: Python does that with a callback, and if that came in the
# main thread, a Ctrl-C at that moment would be printed and forgotten.
_ended: list[_Worker] = []


class _Worker(threading.Thread):
    """One thread of the team; what its task returned or raised."""

    def __init__(self, task: Task, words: NDArray[Any], worker: int, n_workers: int) -> None:
        super().__init__(name=f"fastbp-{worker}", daemon=True)
        self._arguments = task, words, worker, n_workers
        self.completed = 0
        self.error: BaseException | None = None
        # waited for instead of join, which in Python 3.11 and 3.12 takes a thread for ended when it is interrupted; and
        # instead of an Event, which needs memory to wait and to be set
        self._at_work = threading.Lock()
        self._at_work.acquire()

    def run(self) -> None:
        task, words, worker, n_workers = self._arguments
        del self._arguments  # the buffers go with this frame
        _ended.clear()
        try:
            self.completed = task(words, worker, n_workers)
        except BaseException as error:
            self.error = error
            words[ABORT] = 1
        finally:
            self._at_work.release()

    def has_finished(self, timeout: float) -> bool:
        """Wait; whether it has finished, or has died before it began because there was no memory."""
        if not self._at_work.acquire(timeout=timeout):
            if self.is_alive():
                return False
            if not self._at_work.acquire(blocking=False):
                self.error = self.error or MemoryError("a thread could not begin")
                return True
        self._at_work.release()
        return True

    def is_at_work(self) -> bool:
        """Whether it has not said that it has finished, and has a frame."""
        return self._at_work.locked() and self.ident in sys._current_frames()

    def has_failed(self) -> bool:
        """Whether it has raised something, or has died."""
        return self.has_finished(0) and self.error is not None


def run_team(
    task: Task, n_workers: int, *, meanwhile: Callable[[], None] | None = None
) -> tuple[int, BaseException | None]:
    """Run a task by `n_workers` threads together.

    Parameters
    ----------
    task : callable
        Called in each thread with (words, worker, n_workers); the kernels it calls gather on `words` before they do
        anything that cannot be done twice, meet at barriers there, and end early when the words' ABORT is set.
    n_workers : int
        If the system refuses to start so many, one does the work, at the worst the caller itself.
    meanwhile : callable or None
        What the caller does while they work; what it raises ends the call.

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
    before = sys.exc_info()[1]
    words = aligned_zeros(TEAM_WORDS, np.int64)
    workers = [_Worker(task, words, worker, n_workers) for worker in range(n_workers)]
    error: BaseException | None = None
    try:
        for worker in workers:
            _check_room()
            worker.start()
        if meanwhile is not None:
            meanwhile()
        for worker in workers:
            while not worker.has_finished(_GLANCE):  # a signal may have reached another thread than this
                if any(other.has_failed() for other in workers):  # and had no memory to say so
                    words[ABORT] = 1
        for worker in workers:
            worker.join()
    except BaseException as caught:
        try:  # nothing may come before it: another signal would outrun the threads
            _abort(words, workers)
        except BaseException:  # it came before or after that could wait again
            _abort(words, workers)
        interruption = _interrupt_behind(caught, before)
        error = interruption.with_traceback(None)  # its frames would keep the threads
        refused = any(worker.ident is None for worker in workers)  # so that none went past the gathering
        if refused and isinstance(interruption, RuntimeError | MemoryError):
            if n_workers > 1:
                return run_team(task, 1)
            return task(aligned_zeros(TEAM_WORDS, np.int64), 0, 1), None
    raised = [worker.error for worker in workers if worker.error is not None]
    _ended.extend(worker for worker in workers if worker.error is None)
    return min(worker.completed for worker in workers), error or (raised[0] if raised else None)


def _interrupt_behind(error: BaseException, before: BaseException | None) -> BaseException:
    """Return the KeyboardInterrupt that an error hides, unless that was being handled before; else the error.

    Interrupted at the wrong moment, to wait for a thread's start ends with a RuntimeError about an unlocked lock.
    """
    context = error.__context__
    return context if isinstance(context, KeyboardInterrupt) and context is not before else error


def _check_room() -> None:
    """Raise MemoryError where a thread's stack would fit but not what Python needs to begin it.

    Python would wait for ever for such a thread to say that it has started.
    """
    if sys.platform == "linux":  # others do not limit the address space
        limit = resource.getrlimit(resource.RLIMIT_STACK)[0]
        stack = threading.stack_size() or (_USUAL_STACK if limit == resource.RLIM_INFINITY else limit)
        try:
            mmap.mmap(-1, stack + _FIRST_FRAMES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        except OSError:
            raise MemoryError("no room for another thread") from None


def _abort(words: NDArray[Any], workers: list[_Worker]) -> None:
    """End those that were started, each at its next barrier, and wait for them, whatever interrupts."""
    words[ABORT] = 1
    deadline = time.monotonic() + _PATIENCE
    for worker in workers:
        while True:
            try:
                if worker.ident is not None:
                    # an interrupted is_alive, too, takes a thread for ended; one that has a frame has not
                    while not worker.has_finished(_GLANCE) or worker.is_at_work():
                        pass
                    worker.join()
                elif worker in threading.enumerate() and time.monotonic() < deadline:
                    time.sleep(0.001)
                    continue
                break
            except KeyboardInterrupt:
                continue
