"""Threads: the barrier, the team of one call, interrupts, and the floating-point mode of each."""

from __future__ import annotations

import _thread
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from cases import Cases
from problems import Array, Problem, draw
from teams import team_threads

import fastbp
from fastbp.engine.memory import aligned_zeros
from fastbp.engine.team import run_team
from fastbp.kernels.pointers import pointer
from fastbp.kernels.threads import ABORT, TEAM_WORDS, barrier, flush_subnormals, gather, restore_mode

DTYPES = ["float32", "float64"]
LINE = 16  # int64 places from one worker's counter to the next: they share no cache line
WATCHDOG = 60  # seconds
NEVER = -1


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = _thread._count()
    yield
    assert not team_threads()
    assert _thread._count() == before


# The barrier


@numba.njit(nogil=True)
def march(words, worker, n_workers, rounds, progress, abort_in):  # type: ignore[no-untyped-def]
    """Pass barriers until one is closed; return how many, and how often another worker was not where it must be."""
    team = pointer(words)
    passed, misplaced = 0, 0
    if not gather(team, n_workers):
        return passed, misplaced
    for r in range(rounds):
        progress[worker * LINE] = r + 1
        if r == abort_in and worker == abort_in % n_workers:
            words[ABORT] = 1
        if not barrier(team, n_workers):
            break
        passed += 1
        for other in range(n_workers):  # all have arrived here, and none is past the next barrier
            if not r + 1 <= progress[other * LINE] <= r + 2:
                misplaced += 1
    for _ in range(3):  # a closed barrier stays closed
        if passed < rounds and barrier(team, n_workers):
            misplaced += 1
    return passed, misplaced


def march_together(
    n_workers: int, rounds: int, abort_in: int = NEVER, while_they_run: Callable[[Array], None] | None = None
) -> list[int]:
    """Return how many barriers each worker passed, having checked where they were."""
    words, progress = aligned_zeros(TEAM_WORDS, np.int64), np.zeros(n_workers * LINE, np.int64)
    with ThreadPoolExecutor(n_workers) as pool:
        arguments = n_workers, rounds, progress, abort_in
        results = [pool.submit(march, words, worker, *arguments) for worker in range(n_workers)]
        if while_they_run is not None:
            while_they_run(words)
        try:
            passed, misplaced = zip(*(result.result(WATCHDOG) for result in results), strict=True)
        finally:
            words[ABORT] = 1  # nobody waits for ever
    assert misplaced == (0,) * n_workers
    return list(passed)


@pytest.mark.parametrize("n_workers", range(1, 9))
def test_nobody_passes_a_barrier_alone(n_workers: int) -> None:
    rounds = 20_000 if n_workers <= 2 else 2_000
    assert march_together(n_workers, rounds) == [rounds] * n_workers


@pytest.mark.parametrize("n_workers", range(1, 9))
def test_an_abort_by_a_worker_stops_all_at_one_barrier(n_workers: int) -> None:
    for abort_in in [0, 1, *range(2, 40)]:
        passed = march_together(n_workers, 10_000, abort_in)
        assert passed == [passed[0]] * n_workers
        assert passed[0] <= abort_in  # the one that aborts has not arrived: that barrier cannot be passed


@pytest.mark.parametrize("n_workers", range(1, 9))
def test_an_abort_from_outside_stops_all_at_one_barrier(n_workers: int) -> None:
    rng = np.random.default_rng(n_workers)
    stopped = 0
    for _ in range(60):

        def abort(words: Array) -> None:
            time.sleep(rng.uniform(0, 2e-3))
            words[ABORT] = 1

        passed = march_together(n_workers, 100_000_000, while_they_run=abort)
        assert passed == [passed[0]] * n_workers
        stopped += passed[0] > 0
    assert stopped > 0


def test_an_abort_before_the_start() -> None:
    for n_workers in range(1, 9):
        words, progress = aligned_zeros(TEAM_WORDS, np.int64), np.zeros(n_workers * LINE, np.int64)
        words[ABORT] = 1
        assert march(words, 0, n_workers, 5, progress, NEVER) == (0, 0)  # waits for nobody


SLEEPERS = """
import numba
from fastbp.kernels import threads
from fastbp.kernels.pointers import pointer

ABORTED = ...
if not ABORTED:
    threads._NAP = 3600 * 10**9  # nobody looks by himself for an hour

@numba.njit(nogil=True)
def arrive(words, n_workers):
    return threads.gather(pointer(words), n_workers)

@numba.njit(nogil=True)
def meet(words, n_workers):
    return threads.barrier(pointer(words), n_workers)

def together(steps, n_workers, late):
    words, went_on = np.zeros(threads.TEAM_WORDS, np.int64), []

    def work(worker):
        for step in steps:
            if worker == late:
                while words[threads.ASLEEP] < n_workers - 1:
                    time.sleep(1e-4)
                if ABORTED:
                    words[threads.ABORT] = 1
                    return
            went_on.append(step(words, n_workers))

    team = [threading.Thread(target=work, args=(worker,)) for worker in range(n_workers)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert words[threads.ASLEEP] == 0
    assert went_on == ([False] * (n_workers - 1) if ABORTED else [True] * len(steps) * n_workers)

assert arrive(np.zeros(threads.TEAM_WORDS, np.int64), 1) and meet(np.zeros(threads.TEAM_WORDS, np.int64), 1)
for steps in ([arrive], [meet]) if ABORTED else ([arrive, meet, meet],):
    for n_workers in 2, 3, 8:
        for late in range(n_workers):
            with cases.one(f"{n_workers} workers, {late} is late"):
                together(steps, n_workers, late)
"""


@pytest.mark.hazard("oversubscription", "who sleeps at a barrier is woken by the last to arrive, or sees an abort")
@pytest.mark.parametrize("aborted", [False, True])
def test_sleepers(cases: Cases, tmp_path: Path, aborted: bool) -> None:
    cases.count_in_child(tmp_path, SLEEPERS.replace("...", repr(aborted)))


# The team


def marching(rounds: int) -> tuple[Callable[..., int], list[tuple[int, int]]]:
    """Return a task that marches, and where it notes who did."""
    progress, marched = np.zeros(16 * LINE, np.int64), []

    def task(words: Array, worker: int, n_workers: int, rounds: int = rounds) -> int:
        marched.append((worker, n_workers))
        passed, misplaced = march(words, worker, n_workers, rounds, progress, NEVER)
        assert misplaced == 0
        return passed

    return task, marched


@pytest.mark.parametrize("n_workers", [1, 2, 3, 8])
def test_a_team_completes(n_workers: int) -> None:
    task, marched = marching(100)
    assert run_team(task, n_workers) == (100, None)
    assert sorted(marched) == [(worker, n_workers) for worker in range(n_workers)]


@pytest.mark.parametrize(
    "error", [ValueError("no"), MemoryError(), RuntimeError("no"), SystemExit(3), KeyboardInterrupt()]
)
@pytest.mark.parametrize(("n_workers", "bad"), [(1, 0), (2, 0), (2, 1), (8, 5)])
def test_an_error_in_one_worker_ends_all(n_workers: int, bad: int, error: BaseException) -> None:
    """Whether it comes before all have met, or in the midst of things, all others stop, and it is handed back."""
    for rounds in None, 0, 50:
        good, _ = marching(1_000_000_000)

        def task(words: Array, worker: int, n_workers: int, good: Any = good, rounds: int | None = rounds) -> int:
            if worker != bad:
                return good(words, worker, n_workers)
            if rounds is not None:
                good(words, worker, n_workers, rounds)
            raise error

        completed, got = run_team(task, n_workers)
        assert got is error
        assert completed == 0


def refuse(monkeypatch: pytest.MonkeyPatch, refused: Callable[[int], bool], error: type[BaseException]) -> list[int]:
    """Let some starts of threads fail, counted from 0; return where they are counted."""
    count = [0]

    def sometimes(*call: Any) -> int:
        count[0] += 1
        if refused(count[0] - 1):
            raise error("can't start new thread")
        return _thread.start_new_thread(*call)

    monkeypatch.setattr("fastbp.engine.team.start_new_thread", sometimes)
    return count


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_a_refused_start_leaves_one_to_do_the_work(
    monkeypatch: pytest.MonkeyPatch, k: int, error: type[BaseException]
) -> None:
    refuse(monkeypatch, lambda i: i == k, error)
    task, marched = marching(100)
    assert run_team(task, 4) == (100, None)
    assert marched[-1] == (0, 1)
    assert len(marched) == k + 1


def test_all_starts_refused_leave_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, lambda i: True, RuntimeError)
    task, marched = marching(100)
    assert run_team(task, 4) == (100, None)
    assert marched == [(0, 1)]


@pytest.mark.parametrize("refused", [NEVER, 0, 2])
def test_who_keeps_what_a_thread_was_to_call(monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    """As a debugger may, or an audit hook: the team takes no thread for one at work that is not."""
    kept: list[tuple[Any, ...]] = []

    def keeping(*call: Any) -> int:
        kept.append(call)
        if len(kept) - 1 == refused:
            raise RuntimeError("can't start new thread")
        return _thread.start_new_thread(*call)

    monkeypatch.setattr("fastbp.engine.team.start_new_thread", keeping)
    task, marched = marching(100)
    assert run_team(task, 3) == (100, None)
    assert marched[-1] == (0, 1) or refused == NEVER
    assert kept


@pytest.fixture(scope="module")
def problem() -> Problem:
    return draw(np.random.default_rng(40), [20, 17, 3], 3000, hidden="tanh")


def train(problem: Problem, **options: Any) -> fastbp.Network:
    network = problem.network(seed=4)
    network.fit(problem.X, problem.y, **{"epochs": 2, "batch_size": 50, "verbose": False, **options})
    return network


def bits(arrays: Any) -> list[bytes]:
    return [np.ascontiguousarray(array).tobytes() for array in arrays]


@pytest.mark.parametrize("refused", [lambda i: i == 0, lambda i: i == 2, lambda i: i % 2 == 1, lambda i: True])
def test_results_do_not_depend_on_refusals(
    monkeypatch: pytest.MonkeyPatch, problem: Problem, refused: Callable[[int], bool]
) -> None:
    wanted = train(problem, n_threads=1)
    a, gradients = bits(wanted.activations(problem.X)), wanted.gradients(problem.X, problem.y)
    count = refuse(monkeypatch, refused, RuntimeError)
    got = train(problem, n_threads=4)
    assert bits(got.weights) == bits(wanted.weights)
    assert bits(got.activations(problem.X, n_threads=4)) == a
    for by, other in zip(got.gradients(problem.X, problem.y, n_threads=4), gradients, strict=True):
        assert bits(by) == bits(other)
    assert count[0] >= 3


# Interrupts


def test_what_the_caller_does_meanwhile() -> None:
    """It is done beside the team; what it raises is returned, and no thread is left."""
    begun, may_end = threading.Event(), threading.Event()

    def task(words: Array, worker: int, n_workers: int) -> int:
        begun.set()
        assert may_end.wait(60)
        return 7

    def meanwhile() -> None:
        assert begun.wait(60)
        may_end.set()

    def fails() -> None:
        meanwhile()
        raise ZeroDivisionError

    assert run_team(task, 2, meanwhile=meanwhile) == (7, None)
    begun.clear(), may_end.clear()
    completed, error = run_team(task, 2, meanwhile=fails)
    assert completed == 7
    assert isinstance(error, ZeroDivisionError)
    assert not team_threads()


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system does not say which cores a thread may use"
)
def test_who_computes_together_keeps_apart() -> None:
    """The others leave the core of a caller that computes, too, and only they: it may move again, whatever comes."""
    allowed, of_workers, of_caller = os.sched_getaffinity(0), [], []
    if len(allowed) < 2:
        pytest.skip("there is one core only")

    def task(words: Array, worker: int, n_workers: int) -> int:
        of_workers.append(os.sched_getaffinity(0))
        return 7

    def meanwhile() -> None:
        of_caller.append(os.sched_getaffinity(0))

    def fails() -> None:
        raise ZeroDivisionError

    assert run_team(task, 2, meanwhile=meanwhile, together=True) == (7, None)
    assert of_caller == [allowed]
    assert of_workers[0] == of_workers[1] < allowed
    assert len(of_workers[0]) == len(allowed) - 1
    assert isinstance(run_team(task, 2, meanwhile=fails, together=True)[1], ZeroDivisionError)
    assert os.sched_getaffinity(0) == allowed


def test_a_thread_that_is_refused_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's share is done, and then all of the task by one."""

    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    def task(words: Array, worker: int, n_workers: int) -> int:
        done.append("task")
        return 7

    done: list[str] = []
    monkeypatch.setattr("fastbp.engine.team.start_new_thread", refuse)
    assert run_team(task, 1, meanwhile=lambda: done.append("meanwhile"), together=True) == (7, None)
    assert done == ["meanwhile", "task"]


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
@pytest.mark.parametrize(("n_in", "batch_size", "n_minibatches"), [(60, 40, 400), (128, 200, 100), (60, 1500, 30)])
def test_an_abort_at_any_moment_leaves_a_completed_minibatch(
    monkeypatch: pytest.MonkeyPatch, n_in: int, batch_size: int, n_minibatches: int, n_threads: int
) -> None:
    """An update that has begun is completed with what belongs to it, by workers at any distance from each other."""
    problem = draw(np.random.default_rng(44), [n_in, 70, 5], n_minibatches * batch_size, hidden="tanh")
    options = {"batch_size": batch_size, "optimizer": fastbp.SGD(0.1), "shuffle": False}
    after = [bits(problem.weights)]  # the bits after so many steps
    step_by_step = problem.network()
    for begin in range(0, len(problem.X), batch_size):
        rows = slice(begin, begin + batch_size)
        step_by_step.partial_fit(problem.X[rows], problem.y[rows], n_threads=1, **options)
        after.append(bits(step_by_step.weights))

    def abort(words: Array, delay: float) -> None:
        time.sleep(delay)
        words[ABORT] = 1

    rng = np.random.default_rng(batch_size)
    longest, in_the_midst = 10e-3, 0
    with ThreadPoolExecutor(1) as pool:
        for _ in range(100):
            delay = rng.uniform(0, longest)

            def aborted_team(
                task: Any, n_workers: int, delay: float = delay, **options: Any
            ) -> tuple[int, BaseException | None]:
                def begin(words: Array, worker: int, n_workers: int) -> int:
                    if worker == 0:
                        pool.submit(abort, words, delay)
                    return task(words, worker, n_workers)

                return run_team(begin, n_workers, **options)[0], Interrupted()

            network = problem.network()
            with monkeypatch.context() as context:
                context.setattr("fastbp.engine.run.run_team", aborted_team)
                with pytest.raises(Interrupted):
                    network.fit(problem.X, problem.y, verbose=False, n_threads=n_threads, **options)
            done = network._optimizer.step
            assert bits(network.weights) == after[done], f"after {done} mini-batches"
            in_the_midst += 0 < done < n_minibatches
            if in_the_midst == 20:
                break
            if done == n_minibatches:  # too late
                longest *= 0.7
            elif done == 0:
                longest *= 1.4
    assert in_the_midst > 0


# The floating-point mode


def subnormals_count() -> bool:
    """Whether arithmetic of this thread, scalar and vector, in both precisions, takes subnormal numbers as they are."""
    results = []
    for dtype in np.float32, np.float64:
        smallest = np.finfo(dtype).smallest_subnormal
        results.append(bool(dtype(smallest) * dtype(1) != 0))
        results += (np.full(64, smallest) * dtype(1) != 0).tolist()  # an operand
        results += (np.full(64, np.finfo(dtype).tiny) / dtype(2) != 0).tolist()  # a result
    assert len(set(results)) == 1
    return results[0]


@numba.njit
def set_mode():  # type: ignore[no-untyped-def]
    return flush_subnormals()


@numba.njit
def put_back(mode):  # type: ignore[no-untyped-def]
    restore_mode(mode)


def use(problem: Problem, n_threads: int | None) -> Iterator[str]:
    """Call all that computes, and yield after each."""
    network = problem.network(seed=4)
    X, y = problem.X, problem.y
    network.fit(X, y, verbose=False, n_threads=n_threads)
    yield "fit"
    network.partial_fit(X, y, n_threads=n_threads)
    yield "partial_fit"
    network.predict(X[:3], n_threads=n_threads)
    yield "a small predict"
    network.activations(X, n_threads=n_threads)
    yield "activations"
    network.loss(X, y, n_threads=n_threads)
    yield "loss"
    network.gradients(X, y, n_threads=n_threads)
    yield "gradients"


@pytest.mark.hazard("denormals", "the mode of the caller is as before each call")
@pytest.mark.parametrize("n_threads", [None, 1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_mode_of_the_caller_is_as_before(dtype: str, n_threads: int | None) -> None:
    problem = draw(np.random.default_rng(41), [9, 8, 3], 400, dtype=dtype)
    assert subnormals_count()
    for action in use(problem, n_threads):
        assert subnormals_count(), action

    def in_another_mode() -> None:
        mode = set_mode()
        try:
            assert not subnormals_count()
            for action in use(problem, n_threads):
                assert not subnormals_count(), action
        finally:
            put_back(mode)
        assert subnormals_count()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(in_another_mode).result(WATCHDOG)
    assert subnormals_count()


@pytest.mark.hazard("denormals", "the mode after an error")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_mode_after_an_error(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = draw(np.random.default_rng(42), [9, 3], 40, head=("identity", "quadratic"), dtype=dtype)
    network = problem.network()
    for refused in lambda i: False, lambda i: True:  # also where the caller does the work itself
        with monkeypatch.context() as context:
            refuse(context, refused, RuntimeError)
            with pytest.raises(FloatingPointError):
                network.fit(problem.X, problem.y, epochs=500, optimizer=fastbp.SGD(1e4), verbose=False)
        assert subnormals_count()
        assert np.isfinite(network.weights[0]).all()


@pytest.mark.hazard("denormals", "the mode after an error")
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_mode_in_and_after_a_callback_that_raises(dtype: str, n_threads: int) -> None:
    """A callback is the user's code: it sees the user's mode."""
    problem = draw(np.random.default_rng(42), [9, 3], 40, dtype=dtype)
    network, modes = problem.network(), []

    class Raise(fastbp.Callback):
        def on_progress(self, state: Any) -> None:
            modes.append(subnormals_count())

        def on_epoch_end(self, state: Any) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        network.fit(problem.X, problem.y, batch_size=4, callbacks=[Raise()], verbose=False, n_threads=n_threads)
    assert modes
    assert all(modes)
    assert subnormals_count()
    for call in network.fit, network.loss, network.gradients:
        with pytest.raises(ValueError, match="X has shape"):
            call(problem.X[:, 1:], problem.y, n_threads=n_threads)
        assert subnormals_count()


@pytest.mark.hazard("denormals", "subnormal numbers count as zero in every thread")
@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_numbers_count_as_zero_in_every_thread(dtype: str) -> None:
    """In the caller as in a worker, so that the bits do not depend on who computes."""
    info = np.finfo(dtype)
    problem = draw(np.random.default_rng(43), [5, 9, 2], 300, hidden="identity", head=("identity", "mse"), dtype=dtype)
    for array in (*problem.weights, problem.X, problem.y):
        array *= np.sqrt(info.tiny)  # so that products lie about the smallest normal number
    for b in problem.biases:
        b[:] = 0
    problem.weights[0][0] = info.tiny / 2
    problem.X[:, 1] = 2
    network = problem.network()
    a = network.activations(problem.X)[0]
    assert not a[:, 0].any()
    assert a[:, 1:].any()
    results = []
    for n_threads in 1, 2, 4:
        trained = train(problem, n_threads=n_threads, optimizer=fastbp.SGD(0.5, 0.9))
        gradients = network.gradients(problem.X, problem.y, n_threads=n_threads)
        arrays = [*network.activations(problem.X, n_threads=n_threads), *gradients[0], *gradients[1], *trained.weights]
        results.append(bits(arrays))
        for array in (*arrays[:2], *gradients[0], *gradients[1]):
            assert not ((array != 0) & (np.abs(array) < info.tiny)).any()
    assert results[0] == results[1] == results[2]
