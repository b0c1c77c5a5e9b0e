"""Many callers: Python threads that train networks of their own and use a shared one, and how they share the cores."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from cases import Cases
from problems import Problem, draw

import fastbp
from fastbp.engine import cores
from fastbp.engine.cores import Call
from fastbp.engine.team import run_team

WATCHDOG = 60  # seconds


def bits(arrays: Any) -> list[bytes]:
    return [np.ascontiguousarray(array).tobytes() for array in arrays]


@pytest.fixture(scope="module")
def problem() -> Problem:
    return draw(np.random.default_rng(40), [20, 70, 3], 3000, hidden="tanh")


def train(problem: Problem) -> fastbp.Network:
    network = problem.network(seed=4)
    network.fit(problem.X, problem.y, epochs=2, batch_size=50, verbose=False)
    return network


MANY = """
import _thread
from concurrent.futures import ThreadPoolExecutor
from candidates import KINDS, candidate, result

shared, X, y, options = candidate(3)
shared.fit(X, y, **options)
start = threading.Barrier({n})

def ask(i):
    a, n_threads = X[i % 7 :: 2], (None, 1, 3)[i % 3]
    if i % 10 == 9:  # packed anew, by whoever comes first
        shared.weights = shared.weights
    match i % 4:
        case 0:
            return shared.predict(a, n_threads=n_threads).tobytes()
        case 1:
            return repr((shared.loss(a, y[i % 7 :: 2], n_threads=n_threads), shared.accuracy(a, y[i % 7 :: 2])))
        case 2:
            return b"".join(w.tobytes() for w in shared.gradients(a, y[i % 7 :: 2], n_threads=n_threads)[0])
        case 3:
            return b"".join(w.tobytes() for w in shared.activations(a, n_threads=n_threads))

def call(i):
    return result(i, n_threads=(None, 1, 2, 3)[i // 2 % 4]) if i % 2 else ask(i // 2)

distinct = 3 * 4 * 7
one_by_one = [result(i) for i in range(KINDS)], [ask(i) for i in range(distinct)]
assert len(set(one_by_one[0])) == KINDS

def wanted(i):
    return one_by_one[0][i % KINDS] if i % 2 else one_by_one[1][i // 2 % distinct]

def work(first):
    start.wait(60)
    for i in range(first, 1000, {n}):
        with cases.one(f"call {{i}}"):
            try:
                got = call(i)
            except RuntimeError as error:  # an assignment meets another
                assert i % 2 == 0 and i // 2 % 10 == 9 and "in training already" in str(error)
                continue
            assert got == wanted(i)

with ThreadPoolExecutor({n}) as pool:
    for done in [pool.submit(work, first) for first in range({n})]:
        done.result()
assert _thread._count() == 0, sys._current_frames()
"""


@pytest.mark.hazard("threads", "1000 calls by 1, 2, 4, 16 Python threads, on own and shared networks")
@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_many_callers(cases: Cases, tmp_path: Path, n: int) -> None:
    """Each result has the bits that it has alone."""
    cases.count_in_child(tmp_path, MANY.format(n=n))


# They share the cores


@pytest.fixture
def teams(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Pretend eight cores and work that repays them; return where the size of each team is noted."""
    sizes = []

    def noting(task: Any, n_workers: int, **options: Any) -> Any:
        sizes.append(n_workers)
        return run_team(task, n_workers, **options)

    for module in "run", "evaluation":
        monkeypatch.setattr(f"fastbp.engine.{module}.run_team", noting)
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    for name in "WORK_PER_THREAD", "LIKELY_WORK_PER_THREAD", "SURE_WORK_PER_THREAD", "WORK_PER_START":
        monkeypatch.setattr(cores, name, 1)
    monkeypatch.setattr("fastbp.engine.evaluation.WORK_PER_START", 1)
    monkeypatch.setattr("fastbp.engine.evaluation.WORK_PER_INTERRUPT", 1)  # the caller is none of the workers
    monkeypatch.setattr("fastbp.engine.run.WORK_IN_CALLER", 0)
    monkeypatch.setattr(cores.n_workers_for, "__defaults__", (1,))
    for name in "FASTBP_NUM_THREADS", "OMP_NUM_THREADS":
        monkeypatch.delenv(name, raising=False)
    yield sizes
    cores._calls.clear()


@pytest.mark.parametrize(("others", "share"), [(0, 8), (1, 4), (2, 2), (3, 2), (4, 1), (7, 1), (20, 1)])
def test_a_call_takes_its_share(teams: list[int], problem: Problem, others: int, share: int) -> None:
    """Of the cores, as many as the other calls of the process leave; where the user says how many, so many."""
    wanted = bits(train(problem).weights)
    teams.clear()
    held = [Call().__enter__() for _ in range(others)]
    try:
        network = train(problem)
        assert set(teams or [1]) == {share}
        teams.clear()
        network.predict(problem.X)
        network.loss(problem.X, problem.y)
        network.gradients(problem.X, problem.y)
        assert set(teams) <= {1} if share == 1 else teams[2] == share and 1 < max(teams[:2]) <= share
        teams.clear()
        network.fit(problem.X, problem.y, n_threads=3, verbose=False)
        network.predict(problem.X, n_threads=3)
        assert set(teams) == {3}
    finally:
        for other in held:
            other.__exit__()
    teams.clear()
    assert bits(train(problem).weights) == wanted
    assert set(teams) == {8}, "they have ended"


def test_the_limit_is_no_share(teams: list[int], problem: Problem) -> None:
    """What set_num_threads allows to each call is shared only where all together would be more than the cores."""
    for limit, others, share in [(2, 1, 2), (2, 3, 2), (2, 4, 1), (3, 1, 3), (16, 0, 16), (16, 1, 8), (1, 5, 1)]:
        fastbp.set_num_threads(limit)
        held = [Call().__enter__() for _ in range(others)]
        try:
            teams.clear()
            train(problem)
        finally:
            fastbp.set_num_threads(None)
            for other in held:
                other.__exit__()
        assert set(teams or [1]) == {share}, limit


def test_the_share_changes_within_a_fit(teams: list[int], problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunk by chunk, to the same bits."""
    wanted = bits(train(problem).weights)
    monkeypatch.setattr("fastbp.training.CHUNK_MINIBATCHES", 15)
    teams.clear()
    others: list[Call] = []

    class Crowd(fastbp.Callback):
        def on_progress(self, state: Any) -> None:
            if len(others) < 4:
                others.append(Call().__enter__())
            else:
                while others:
                    others.pop().__exit__()

    network = problem.network(seed=4)
    network.fit(problem.X, problem.y, epochs=2, batch_size=50, callbacks=[Crowd()], verbose=False)
    assert [n for n in teams if n > 1] == [8, 4, 2, 2, 8, 4, 2]
    assert bits(network.weights) == wanted


def test_an_error_ends_a_call(teams: list[int], problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(task: Any, n_workers: int, **options: Any) -> Any:
        raise ZeroDivisionError

    network = problem.network()
    for module in "run", "evaluation":
        monkeypatch.setattr(f"fastbp.engine.{module}.run_team", failing)
    for call in network.loss, network.gradients, network.fit:
        with pytest.raises(ZeroDivisionError):
            call(problem.X, problem.y)
    assert cores.share_of(8) == 8
    with Call():
        assert cores.share_of(8) == 8


@pytest.mark.hazard("threads", "candidates in training at the same time, in pools of threads")
@pytest.mark.parametrize("pool", ["ThreadPoolExecutor", "joblib"])
def test_candidates_train_in_parallel(cases: Cases, problem: Problem, pool: str) -> None:
    """At the end of each epoch each waits for all others: that ends only where all are in training at once."""
    n = 4
    meeting = threading.Barrier(n, timeout=WATCHDOG)

    class Meet(fastbp.Callback):
        def on_epoch_end(self, state: Any) -> None:
            meeting.wait()

    def candidate(i: int, *callbacks: fastbp.Callback) -> list[bytes]:
        network = problem.network(seed=i)
        network.fit(problem.X, problem.y, epochs=5, batch_size=20 + i, callbacks=callbacks, verbose=False)
        return bits(network.weights)

    if pool == "joblib":
        together = joblib.Parallel(n, backend="threading")(joblib.delayed(candidate)(i, Meet()) for i in range(n))
    else:
        with ThreadPoolExecutor(n) as executor:
            together = list(executor.map(lambda i: candidate(i, Meet()), range(n)))
    for i in range(n):
        with cases.one(i):
            assert together[i] == candidate(i)


# One network


@pytest.mark.hazard("threads", "predictions during a fit are those of an epoch")
def test_predictions_during_a_fit_are_those_of_an_epoch(problem: Problem) -> None:
    """Others see the weights from before or after an epoch, never a mixture."""

    class Watch(fastbp.Callback):
        def __init__(self) -> None:
            self.published: list[bytes] = []

        def on_epoch_end(self, state: Any) -> None:
            self.published.append(network.predict(X).tobytes())
            before, deadline = looks[0], time.monotonic() + WATCHDOG
            while looks[0] < before + 3 and time.monotonic() < deadline:  # one that began after this epoch is over
                time.sleep(1e-4)

    X, looks = problem.X[:50], [0]
    network, watch, finished, seen = problem.network(seed=4), Watch(), threading.Event(), set()
    watch.published.append(network.predict(X).tobytes())

    def look() -> None:
        while not finished.is_set():
            seen.add(network.predict(X).tobytes())
            looks[0] += 1

    with ThreadPoolExecutor(2) as pool:
        looking = [pool.submit(look) for _ in range(2)]
        network.fit(problem.X, problem.y, epochs=10, batch_size=20, callbacks=[watch], verbose=False, n_threads=2)
        finished.set()
        for one in looking:
            one.result(WATCHDOG)
    assert len(set(watch.published)) == 11
    assert seen == set(watch.published) or seen == set(watch.published[1:])


@pytest.mark.hazard("threads", "a second training of a network in training is refused")
def test_one_training_at_a_time(problem: Problem) -> None:
    """A second one is refused, by whichever thread, as is an assignment; the first goes on to the same weights."""
    X, y = problem.X, problem.y
    refused: list[type[BaseException]] = []

    class Meddler(fastbp.Callback):
        def on_epoch_end(self, state: Any) -> None:
            for action in (
                lambda: network.fit(X, y, verbose=False),
                lambda: network.partial_fit(X, y),
                lambda: network.set_layer(0, network.weights[0]),
                lambda: setattr(network, "weights", network.weights),
                lambda: setattr(network, "biases", network.biases),
            ):
                with pytest.raises(RuntimeError, match="in training already"):
                    action()
                with ThreadPoolExecutor(1) as pool:
                    refused.append(type(pool.submit(action).exception(WATCHDOG)))

    network = problem.network(seed=4)
    network.fit(X, y, epochs=2, batch_size=50, callbacks=[Meddler()], verbose=False)
    assert refused == [RuntimeError] * 10
    assert bits(network.weights) == bits(train(problem).weights)
    network.fit(X, y, verbose=False)
