"""Failures: threads that are refused or die, memory that is short, workers and callbacks that raise, at every turn.

Whatever fails, the error is raised or the work is done without; no thread is left; the caller's arrays are untouched;
the network is as after some completed mini-batch, and goes on from there.
"""

from __future__ import annotations

import _thread
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import Cases
from teams import team_threads

import fastbp
from fastbp.engine import evaluation, narrow, run, team, wide

N, BATCH, EPOCHS = 240, 40, 2
STEPS = EPOCHS * N // BATCH
OPTIONS: dict[str, Any] = {"batch_size": BATCH, "optimizer": fastbp.SGD(0.1, 0.9), "shuffle": False}
FIT = {**OPTIONS, "epochs": EPOCHS, "verbose": False}


class Failed(Exception):
    pass


def bits(network: fastbp.Network) -> list[bytes]:
    return [array.tobytes() for array in (*network.weights, *network.biases)]


class Walk:
    """A training whose weights are known after each mini-batch."""

    def __init__(self, dtype: str) -> None:
        rng = np.random.default_rng(3)
        self.dtype = dtype
        self.X = rng.standard_normal((N, 12)).astype(dtype)
        self.y = rng.integers(0, 4, N)
        self.given = self.X.tobytes(), self.y.tobytes()
        network = self.network()
        self.after = [bits(network)]
        for _ in range(EPOCHS):
            for begin in range(0, N, BATCH):
                self.go_on(network, begin)
                self.after.append(bits(network))
        network.loss(self.X, self.y)  # loads what is not yet: the cache takes failures for reasons to compile

    def network(self) -> fastbp.Network:
        return fastbp.Network([12, 70, 4], hidden="tanh", output="softmax", dtype=self.dtype, seed=5)

    def go_on(self, network: fastbp.Network, begin: int) -> None:
        network.partial_fit(self.X[begin : begin + BATCH], self.y[begin : begin + BATCH], n_threads=1, **OPTIONS)

    def check(self, network: fastbp.Network) -> int:
        """Assert that nothing is broken; return how many mini-batches were completed."""
        assert not team_threads()
        assert (self.X.tobytes(), self.y.tobytes()) == self.given
        done = self.after.index(bits(network))
        remembered = network._optimizer
        if remembered is not None:
            assert remembered.step == done, "weights and optimizer belong together"
        if remembered is not None or done == 0:
            for step in range(done, STEPS):
                self.go_on(network, step * BATCH % N)
            assert bits(network) == self.after[-1], "it goes on as if nothing had happened"
        start = self.network()
        network.weights, network.biases = start.weights, start.biases
        network.fit(self.X, self.y, n_threads=2, **FIT)
        assert bits(network) == self.after[-1], "the next call works"
        return done


@pytest.fixture(scope="module", params=["float32", "float64"])
def walk(request: pytest.FixtureRequest) -> Walk:
    return Walk(request.param)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python look after each third mini-batch."""
    monkeypatch.setattr("fastbp.training.CHUNK_MINIBATCHES", 3)


def every(
    cases: Cases, walk: Walk, failing: Callable[[int], Any], error: type[BaseException] | None, what: str, **more: Any
) -> set[int]:
    """Let the k-th fail, for every k that is reached; return the mini-batches after which a training ended."""
    ends = set()
    for k in range(2000):
        network = walk.network()
        with cases.one(f"{what}, k = {k}"):
            raised = None
            with failing(k) as failed:
                try:
                    network.fit(walk.X, walk.y, **FIT | more)
                except BaseException as caught:
                    raised = caught
            assert type(raised) is (error if failed and error else type(None)), raised
            if raised is None:
                assert bits(network) == walk.after[-1]
            del raised
            ends.add(walk.check(network))
        if not failed:
            assert k > 1, "something failed"
            cases.check()
            return ends
    raise AssertionError("no end")


# Threads


@pytest.mark.hazard("failure", "the k-th start of a thread refused, for every k")
@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_a_start_refused(cases: Cases, walk: Walk, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """The work is done by fewer."""

    @contextmanager
    def refused(k: int) -> Iterator[list[int]]:
        failed: list[int] = []
        count = iter(range(10**6))

        def sometimes(*call: Any) -> int:
            if next(count) == k:
                failed.append(k)
                raise error("can't start new thread")
            return _thread.start_new_thread(*call)

        with monkeypatch.context() as context:
            context.setattr(team, "start_new_thread", sometimes)
            yield failed

    every(cases, walk, refused, None, error.__name__, n_threads=3)


NPROC = """
import _thread, resource
from candidates import KINDS, result
from fastbp.engine import team

wanted = [result(i) for i in range(KINDS)]
refused = [0]

def counting(*call):
    try:
        return _thread.start_new_thread(*call)
    except RuntimeError:
        refused[0] += 1
        raise

team.start_new_thread = counting
limits = range(1, 7) if os.geteuid() == 0 else [1]
if os.geteuid() == 0:  # whom no limit concerns
    os.setuid(54321)
for limit in limits:
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
    for n_threads in 1, 2, 4:
        for i in 0, 4, 5, 6:  # whose mini-batches workers can share
            before = refused[0]
            with cases.one(f'{limit} threads allowed, {n_threads} wanted, candidate {i}'):
                assert result(i, n_threads) == wanted[i]
                assert refused[0] > before or limit > n_threads or n_threads == 1, 'it was refused'
                assert _thread._count() == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_NPROC counts threads on Linux only")
@pytest.mark.hazard("failure", "RLIMIT_NPROC: the system itself refuses threads")
def test_no_more_threads_by_rlimit(cases: Cases, tmp_path: Path) -> None:
    cases.count_in_child(tmp_path, NPROC)


@pytest.mark.hazard("failure", "the k-th thread has no memory to begin, or its entry raises, for every k")
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("fate", ["dies", "raises"])
def test_a_failing_worker(cases: Cases, walk: Walk, monkeypatch: pytest.MonkeyPatch, n_threads: int, fate: str) -> None:
    """What one cannot begin is done by fewer."""
    monkeypatch.setattr("fastbp.engine.run.WORK_IN_CALLER", 0)  # even one worker has a thread
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # what a thread dies of is printed
    work = team._Worker._run

    @contextmanager
    def failing(k: int) -> Iterator[list[int]]:
        failed: list[int] = []
        count = iter(range(10**6))

        def sometimes(worker: Any, task: Any, *arguments: Any) -> None:
            if next(count) != k:
                work(worker, task, *arguments)
                return
            failed.append(k)
            if fate == "dies":
                raise MemoryError

            def raising(*arguments: Any) -> int:
                raise Failed

            work(worker, raising, *arguments)

        with monkeypatch.context() as context:
            context.setattr(team._Worker, "_run", sometimes)
            yield failed

    ends = every(cases, walk, failing, None if fate == "dies" else Failed, fate, n_threads=n_threads)
    assert ends == ({STEPS} if fate == "dies" else {0, 3, 6, 9, STEPS})


@pytest.mark.hazard("failure", "the k-th entry in the caller's own thread raises, for every k")
@pytest.mark.parametrize("form", ["wide", "narrow"])
def test_a_failing_entry(
    cases: Cases, walk: Walk, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, form: str
) -> None:
    module, name = (wide, "train") if form == "wide" else (narrow, "train_narrow")
    train = getattr(module, name)
    if form == "narrow":
        request.getfixturevalue("all_narrow")
        walk = Walk(walk.dtype)

    @contextmanager
    def failing(k: int) -> Iterator[list[int]]:
        failed: list[int] = []
        count = iter(range(10**6))

        def sometimes(*arguments: Any) -> Any:
            if next(count) == k:
                failed.append(k)
                raise Failed
            return train(*arguments)

        with monkeypatch.context() as context:
            context.setattr(module, name, sometimes)
            yield failed

    assert every(cases, walk, failing, Failed, "entry", n_threads=1) == {0, 3, 6, 9, STEPS}


@pytest.mark.hazard("failure", "the k-th entry in any other call raises, for every k")
@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("name", ["predict", "activations", "loss", "gradients"])
def test_a_call_whose_entry_raises(
    cases: Cases, walk: Walk, monkeypatch: pytest.MonkeyPatch, name: str, n_threads: int
) -> None:
    """The other workers end, and the next call has the right bits."""
    for module, limit in (run, "WORK_IN_CALLER"), (evaluation, "WORK_PER_INTERRUPT"):
        monkeypatch.setattr(module, limit, 0)  # even one worker has a thread
    X, y = np.tile(walk.X, (20, 1)), np.tile(walk.y, 20)  # several pieces

    def ask(network: fastbp.Network) -> bytes:
        arguments = (X, y) if name in ("loss", "gradients") else (X,)
        return pickle.dumps(getattr(network, name)(*arguments, n_threads=n_threads))

    @contextmanager
    def failing(k: int) -> Iterator[list[int]]:
        failed: list[int] = []
        count = iter(range(10**6))

        def patched(kernel: Any) -> Any:
            def sometimes(*arguments: Any) -> Any:
                if next(count) == k:
                    failed.append(k)
                    raise Failed
                return kernel(*arguments)

            return sometimes

        with monkeypatch.context() as context:
            for module, kernel in (wide, "train"), (evaluation, "evaluate_kernel"):
                context.setattr(module, kernel, patched(getattr(module, kernel)))
            yield failed

    wanted = ask(walk.network())
    for k in range(100):
        network = walk.network()
        with cases.one(f"{name}, {n_threads} threads, k = {k}"):
            raised = False
            with failing(k) as failed:
                try:
                    ask(network)
                except Failed:
                    raised = True
            assert raised == bool(failed)
            assert ask(network) == wanted
            assert walk.check(network) == 0
        if not failed:
            assert k >= n_threads, "each worker has an entry"
            return


# Callbacks


class Raising(fastbp.Callback):
    """Raise at the k-th call of one kind."""

    def __init__(self, hook: str, k: int) -> None:
        self.calls: list[str] = []
        self.failed: list[int] = []
        self.hook, self.k = hook, k

    def _note(self, hook: str) -> None:
        self.calls.append(hook)
        if hook == self.hook and self.calls.count(hook) == self.k + 1:
            self.failed.append(self.k)
            raise Failed

    def on_train_begin(self, state: Any) -> None:
        self._note("on_train_begin")

    def on_progress(self, state: Any) -> None:
        self._note("on_progress")

    def on_epoch_end(self, state: Any) -> None:
        self._note("on_epoch_end")

    def on_train_end(self, state: Any) -> None:
        self._note("on_train_end")


@pytest.mark.hazard("failure", "a callback raises in its k-th call of each hook, for every k")
@pytest.mark.parametrize("hook", ["on_train_begin", "on_progress", "on_epoch_end", "on_train_end"])
def test_a_callback_raises(cases: Cases, walk: Walk, hook: str) -> None:
    for k in range(100):
        bad, good, network = Raising(hook, k), Raising("", 0), walk.network()
        with cases.one(f"{hook}, k = {k}"):
            try:
                network.fit(walk.X, walk.y, callbacks=[good, bad], n_threads=2, **FIT)
            except Failed:
                assert bad.failed
            else:
                assert not bad.failed
            assert good.calls.count("on_train_end") == 1
            ends = {"on_train_begin": 0, "on_progress": 3 * (k + 1), "on_epoch_end": (k + 1) * N // BATCH}
            assert walk.check(network) == (ends.get(hook, STEPS) if bad.failed else STEPS)
        if not bad.failed:
            assert k > 0
            return


# Memory

MAKERS = ["array", "asarray", "ascontiguousarray", "zeros", "zeros_like", "empty", "arange", "concatenate", "full"]
MAKERS += ["repeat", "diff", "vstack", "cumsum", "append"]
METHODS = {"copy", "astype", "all", "any", "mean", "argmax"}


@contextmanager
def short_of_memory(k: int) -> Iterator[list[int]]:
    """Let the k-th of this thread's allocations by NumPy raise MemoryError: its functions, and methods of arrays."""
    failed: list[int] = []
    count = iter(range(10**6))
    caller = threading.get_ident()

    def allocate() -> None:
        if threading.get_ident() == caller and next(count) == k:
            failed.append(k)
            raise MemoryError

    def patched(function: Any) -> Any:
        def short(*arguments: Any, **options: Any) -> Any:
            allocate()
            return function(*arguments, **options)

        return short

    def profile(frame: Any, event: str, function: Any) -> None:
        own = frame.f_globals.get("__name__", "").startswith("fastbp.")
        if event == "c_call" and own and function.__name__ in METHODS:
            allocate()

    with pytest.MonkeyPatch.context() as context:
        for name in MAKERS:
            context.setattr(np, name, patched(getattr(np, name)))
        sys.setprofile(profile)
        try:
            yield failed
        finally:
            sys.setprofile(None)


@pytest.mark.hazard("failure", "the k-th allocation in a fit fails, for every k")
@pytest.mark.parametrize("looked_at", [False, True])
def test_a_fit_short_of_memory(cases: Cases, walk: Walk, looked_at: bool) -> None:
    options: dict[str, Any] = {"n_threads": 2}
    if looked_at:
        options |= {"callbacks": [fastbp.Callback()], "validation_data": (walk.X, walk.y)}
    ends = every(cases, walk, short_of_memory, MemoryError, "allocation", **options)
    assert {0, 3, 6, 9, STEPS} <= ends


CALLS: dict[str, Callable[[fastbp.Network, Any, Any], Any]] = {
    "predict": lambda network, X, y: network.predict(X, n_threads=2),
    "predict_classes": lambda network, X, y: network.predict_classes(X),
    "activations": lambda network, X, y: network.activations(X),
    "loss": lambda network, X, y: network.loss(X, y),
    "accuracy": lambda network, X, y: network.accuracy(X, y),
    "gradients": lambda network, X, y: network.gradients(X, y, n_threads=2),
    "set_layer": lambda network, X, y: network.set_layer(0, network.weights[0], network.biases[0]),
    "weights": lambda network, X, y: setattr(network, "weights", network.weights),
}


@pytest.mark.hazard("failure", "the k-th allocation in any other call fails, for every k")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_short_of_memory(cases: Cases, walk: Walk, name: str) -> None:
    call = CALLS[name]
    wanted = repr(call(walk.network(), walk.X, walk.y))
    for k in range(1000):
        network = walk.network()
        with cases.one(f"{name}, k = {k}"):
            raised = None
            with short_of_memory(k) as failed:
                try:
                    call(network, walk.X, walk.y)
                except MemoryError as caught:
                    raised = caught
            assert bool(raised) == bool(failed)
            assert repr(call(network, walk.X, walk.y)) == wanted
            assert walk.check(network) == 0
        if not failed:
            assert k > 0
            return


ADDRESS_SPACE = """
import _thread, gc, resource

def network(dtype):
    return fastbp.Network([80, 100, 10], hidden='tanh', output='softmax', seed=1, dtype=dtype)

X = np.random.default_rng(0).random((3000, 80))
Xs = {'float32': X.astype('float32'), 'float64': X}
y = np.arange(3000) % 10
given = [array.tobytes() for array in (*Xs.values(), y)]
options = dict(batch_size=1000, verbose=False, shuffle=False, optimizer=fastbp.Adam())
calls = {
    'fit': lambda n, X: n.fit(X, y, epochs=2, n_threads=N, **options).loss,
    'predict': lambda n, X: n.predict(X, n_threads=N),
    'gradients': lambda n, X: n.gradients(X, y, n_threads=N),
}

def used():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[0]) * resource.getpagesize()

def fill_holes():
    '''Take what the heap has free for large arrays: after a compilation that is megabytes, which no limit concerns.'''
    before = used()
    while used() == before:
        holes.append(np.empty(LARGE, np.uint8))

def bits(network):
    return [array.tobytes() for array in (*network.weights, *network.biases)]

holes, LARGE = [], int(os.environ['MALLOC_MMAP_THRESHOLD_'])
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
rng = np.random.default_rng(0)
for N, dtypes in (1, ['float32']), (2, ['float32']), (4, ['float64']):
    for dtype in dtypes:
        after = [bits(network(dtype))]
        walking = network(dtype)
        for step in range(6):
            rows = slice(step % 3 * 1000, step % 3 * 1000 + 1000)
            walking.partial_fit(Xs[dtype][rows], y[rows], batch_size=1000, shuffle=False, optimizer=fastbp.Adam())
            after.append(bits(walking))
        for name, call in calls.items():
            shorts = 0
            wanted = repr(call(network(dtype), Xs[dtype]))
            top = 500_000 if name == 'predict' else 3_000_000  # below it arrays are refused, above it stacks
            for spare in [0, *rng.integers(0, top, 12).tolist(), *rng.integers(top, 40_000_000, 5).tolist()]:
                tried = network(dtype)
                gc.collect()
                fill_holes()
                with cases.one(f'{name}, {dtype}, {N} threads, {spare} bytes'):
                    watch()
                    resource.setrlimit(resource.RLIMIT_AS, (used() + spare, hard))
                    short = False
                    try:
                        call(tried, Xs[dtype])
                    except MemoryError:
                        short = True
                    finally:
                        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
                    shorts += short
                    assert bits(tried) in (after if short else after[-1:] if name == 'fit' else after[:1])
                    assert _thread._count() == 0, sys._current_frames()
                    assert [array.tobytes() for array in (*Xs.values(), y)] == given
                    assert repr(call(network(dtype), Xs[dtype])) == wanted
                    tried.fit(Xs[dtype][:100], y[:100], verbose=False)
            with cases.one(f'{name}, {dtype}, {N} threads: some limits were too low, some were not'):
                assert 0 < shorts < 18, shorts
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is obeyed on Linux only")
@pytest.mark.hazard("failure", "RLIMIT_AS: each of many limits of the address space")
def test_limits_of_the_address_space(cases: Cases, tmp_path: Path) -> None:
    """Either a MemoryError or the right result: never a crash, never a hang."""
    # glibc: every large array for which the heap has no hole is a mapping of its own, and no thread's arena has room
    # for it
    cases.count_in_child(tmp_path, ADDRESS_SPACE, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_ARENA_MAX="1")
