"""Interrupts: Ctrl-C at any moment ends a call within one mini-batch, and leaves whole what it leaves."""

from __future__ import annotations

import _thread
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from cases import Cases

import fastbp

WATCHDOG = 300  # seconds; a quiet machine takes some ten

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no signals to threads")

INTERRUPTED = """
    import _thread, json, os, signal, sys, threading, time, traceback
    import numpy as np
    import fastbp
    import fastbp.engine.cores

    fastbp.engine.cores.most_threads = lambda: 64  # as in conftest.py: as many threads as are asked for
    X_of = {n_in: np.random.default_rng(0).random((4000, n_in), np.float32) for n_in in (64, 300)}
    X, y = X_of[64], np.arange(4000) % 10
    batch_size, main = 10, threading.main_thread().ident

    def make(sizes=(64, 40, 10), dtype="float32"):
        return fastbp.Network(sizes, hidden="tanh", output="softmax", seed=1, dtype=dtype)

    class Interrupt:
        '''A SIGINT, and perhaps another, some time after the beginning of a block, which it ends.'''

        def __init__(self, after, again=None, to_any_thread=False):
            self.after, self.again = after, again
            self.send = (
                (lambda: os.kill(os.getpid(), signal.SIGINT)) if to_any_thread
                else (lambda: signal.pthread_kill(main, signal.SIGINT))
            )

        def sender(self):
            self.started.wait()
            time.sleep(self.after)
            self.send()
            if self.again is not None:
                time.sleep(self.again)
                self.send()

        def end(self, function):
            '''Whether the function was interrupted; all threads but this one have ended.'''
            self.started = threading.Event()
            thread = threading.Thread(target=self.sender)
            thread.start()
            interrupted = False
            while True:
                try:
                    if not self.started.is_set():
                        self.started.set()
                        function()
                    thread.join()
                    while thread.is_alive():
                        time.sleep(1e-4)
                    break
                except KeyboardInterrupt:
                    interrupted = True
            assert _thread._count() == 0, sys._current_frames()
            return interrupted

    train = dict(batch_size=batch_size, optimizer=fastbp.SGD(0.01), shuffle=False)
    make().fit(X, y, epochs=1, verbose=False, **train)  # compiles
"""


def run(code: str, folder: Path) -> Any:
    """Run Python code in a process that may be interrupted, and return what it printed; warnings are errors there."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", dedent(INTERRUPTED) + dedent(code)],
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


FITS = """
    from fastbp.engine import team
    from fastbp.kernels.shuffling import shuffle as shuffle_samples
    from fastbp.kernels.threads import ABORT, GENERATION

    class Words(np.ndarray):
        '''The words of a team, which note how many barriers it had passed when it was aborted.'''

        def __setitem__(self, place, value):
            super().__setitem__(place, value)
            if place == ABORT:
                aborted_at.append(passed(self))

    def passed(words):
        generation = int(words[GENERATION])
        return generation if generation >= 0 else -generation - 1  # closed

    def words_of(n, dtype, zeros=team.aligned_zeros):
        made.append(zeros(n, dtype).view(Words))
        return made[-1]

    team.aligned_zeros = words_of
    original = team.run_team
    fastbp.engine.run.run_team = lambda task, n, **options: original(
        lambda words, *who: task(np.asarray(words), *who), n, **options
    )

    def barriers(sizes, n, m, n_threads):
        '''How many an epoch of n samples in mini-batches of m passes.'''
        key = sizes, n, m, n_threads
        if key not in measured:
            begun = len(made)
            make(sizes).fit(X_of[sizes[0]][:n], y[:n], batch_size=m, n_threads=n_threads, verbose=False)
            measured[key] = sum(map(passed, made[begun:]))
        return measured[key]

    made, aborted_at, measured = [], [], {}

    def digest(network):
        return b"".join(array.tobytes() for array in (*network.weights, *network.biases))

    def check(i, rng):
        global made, aborted_at
        made, aborted_at = [], []
        in_caller = i >= 200  # who computes whole epochs of few samples himself, and has his turn between them
        in_parts = i >= 230  # several epochs, with turns that nobody feels, while a thread draws their orders
        fastbp.engine.run.WORK_IN_CALLER = 2_000_000 if in_parts else 10**9 if in_caller else 0  # 0: all have a team
        sizes = [(64, 40, 10), (64, 10), (64, 3, 5, 10), (64, 150, 10), (300, 20, 10)][i % 5]
        n = int(rng.integers(1, 100 if in_caller and not in_parts else 4000))
        batch_size = int(rng.choice([1, 7, 10, 64, 256, 4000], p=[0.1, 0.2, 0.2, 0.2, 0.2, 0.1]))
        n_threads, shuffle = [1, None][i // 4 % 2] if in_caller else [1, 2, 5][i % 3], bool(i % 2) or in_parts
        optimizer = [fastbp.SGD(0.01), fastbp.Adam(1e-3), fastbp.SGD(0.01, 0.9)][i // 3 % 3]
        rows, classes = X_of[sizes[0]][:n], y[:n]
        options = dict(batch_size=batch_size, optimizer=optimizer)
        after = rng.uniform(0, 4e-3) if rng.random() < 0.4 else rng.uniform(0, 30e-3)
        network = make(sizes)
        begin = lambda: network.fit(
            rows, classes, epochs=10**6, shuffle=shuffle, n_threads=n_threads, verbose=False,
            callbacks=[fastbp.Callback()] * (in_caller and not in_parts), **options
        )
        assert Interrupt(after, to_any_thread=i % 4 == 0).end(begin), "it was not interrupted"
        teams, aborts = made[:], aborted_at[:]

        steps = network._optimizer.step if network._optimizer else 0
        per_epoch = -(-n // batch_size)
        epochs, rest = divmod(steps, per_epoch)
        other = make(sizes)
        other.fit(rows, classes, epochs=epochs, shuffle=shuffle, n_threads=1, verbose=False, **options)
        order = np.arange(n)
        if rest:
            if shuffle:
                shuffle_samples(order, other._rng.random(n))
            first = order[:rest * batch_size]
            other.partial_fit(rows[first], classes[first], shuffle=False, n_threads=1, **options)
        assert digest(network) == digest(other), f"not the bits of {steps} mini-batches"
        assert network.predict(rows).tobytes() == other.predict(rows).tobytes()

        if aborts and not in_caller:  # else it came before or after all mini-batches
            whole, left = divmod(n, batch_size)
            m = min(batch_size, n)
            each = barriers(sizes, m, batch_size, n_threads)
            last = barriers(sizes, m + left, batch_size, n_threads) - each if left and whole else each * bool(left)
            epochs, inside = divmod(sum(map(passed, teams[:-1])) + aborts[0], each * whole + last)
            before = epochs * per_epoch + min(inside // each, whole)
            assert before <= steps <= before + 1, f"{before} mini-batches at the abort, {steps} at the end"

        for one in network, other:
            one.partial_fit(rows[::-1], classes[::-1], shuffle=False, n_threads=n_threads, **options)
        assert digest(network) == digest(other), "the optimizer does not go on"
        return (in_caller or bool(aborts)) and steps > 0

    rng = np.random.default_rng(3)
    tried = held = midst = 0
    failures = []
    for i in range(200):
        tried += 1
        try:
            midst += check(i, rng)
            held += 1
        except Exception as error:
            failures.append(f"fit {i}: {traceback.format_exc()}")
    print(json.dumps([tried, held, midst, failures[:3]]))
"""


def interrupt_fits(which: str, cases: Cases, folder: Path) -> None:
    """Interrupt and check the fits of that range; enough of them in the midst of their mini-batches."""
    assert FITS.count("range(200)") == 1
    tried, held, in_the_midst, failures = run(FITS.replace("range(200)", which), folder)
    cases.count(tried, held, "\n".join(failures))
    assert in_the_midst >= tried / 4


@pytest.mark.hazard("interrupt", "SIGINT at random moments of fits: within a mini-batch, to the bit")
def test_interrupted_fits(cases: Cases, tmp_path: Path) -> None:
    """The weights are those of a completed mini-batch, no thread is left, and the network trains on as if none was."""
    interrupt_fits("range(200)", cases, tmp_path)


@pytest.mark.hazard("interrupt", "SIGINT at random moments of fits that the caller computes: to the bit")
def test_interrupted_fits_without_a_team(cases: Cases, tmp_path: Path) -> None:
    """Small mini-batches have no thread of their own: an interrupt is felt between two of the caller's portions."""
    interrupt_fits("range(200, 230)", cases, tmp_path)


@pytest.mark.hazard("interrupt", "SIGINT at random moments of fits that the caller computes while a thread draws")
def test_interrupted_fits_beside_a_drawing_thread(cases: Cases, tmp_path: Path) -> None:
    """The caller feels it between two calls of the kernel, and waits for the thread."""
    interrupt_fits("range(230, 290)", cases, tmp_path)


@pytest.mark.hazard("interrupt", "a second SIGINT while the first is dealt with")
def test_two_interrupts(cases: Cases, tmp_path: Path) -> None:
    """No thread is left, and the network trains on."""
    code = """
        held = 0
        for again in (0.0, 0.0001, 0.001, 0.01) * 3:
            network = make()
            begin = lambda: network.fit(X, y, epochs=1_000_000, n_threads=3, verbose=False, **train)
            assert Interrupt(0.05, again).end(begin)
            assert all(np.isfinite(w).all() for w in network.weights)
            network.fit(X, y, epochs=1, n_threads=3, verbose=False, **train)
            held += 1
        print(json.dumps(held))
    """
    cases.count(12, run(code, tmp_path))


@pytest.mark.hazard("interrupt", "a second SIGINT at each step of what Python does after the first")
def test_the_second_interrupt_at_each_step(cases: Cases, tmp_path: Path) -> None:
    """The network has the bits of the mini-batches that were completed; no thread and no claim is left."""
    code = """
        import fastbp.fitting as fitting

        fastbp.training.CHUNK_MINIBATCHES = 100
        engine_run, run_team = fitting.Run, fastbp.engine.run.run_team

        def lingering(task, n_workers, **options):
            '''Run a team for whose threads one must have waited: else they are seen.'''
            def longer(*who):
                completed = task(*who)
                time.sleep(0.02)
                return completed

            return run_team(longer, n_workers, **options)

        def attempt(k):
            '''Send a second SIGINT at the k-th call, or return of one; whether there are so many.'''
            seen, steps, runs = [], 0, []

            def step(frame, event, arg):
                nonlocal steps
                if event in ("call", "c_return"):  # where Python looks for signals
                    steps += 1
                    if steps == k:
                        seen.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {event}")
                        sys.setprofile(None)
                        signal.raise_signal(signal.SIGINT)

            def first(*_):
                signal.signal(signal.SIGINT, signal.default_int_handler)
                sys.setprofile(step)
                raise KeyboardInterrupt

            def send():
                while not (runs and runs[0].steps):
                    time.sleep(1e-3)
                signal.pthread_kill(main, signal.SIGINT)

            class Run(engine_run):
                def __init__(self, *arguments, **options):
                    super().__init__(*arguments, **options)
                    runs.append(self)

            fitting.Run, fastbp.engine.run.run_team = Run, lingering
            network = make()
            thread = threading.Thread(target=send)
            thread.start()
            signal.signal(signal.SIGINT, first)
            try:
                network.fit(X, y, epochs=10**6, n_threads=2, verbose=False, **train)
            except KeyboardInterrupt:
                sys.setprofile(None)
            fitting.Run, fastbp.engine.run.run_team = engine_run, run_team
            thread.join()
            assert _thread._count() == 0, (seen, sys._current_frames())
            assert not fitting._claims, seen
            epochs, rest = divmod(runs[0].steps, 400)
            other = make()
            other.fit(X, y, epochs=epochs, n_threads=1, verbose=False, **train)
            if rest:
                rows = slice(rest * batch_size)
                other.partial_fit(X[rows], y[rows], n_threads=1, **train)
            for one in network, other:
                one.partial_fit(X, y, **train)
            assert all((a == b).all() for a, b in zip(network.weights, other.weights)), (seen, epochs, rest)
            return bool(seen)

        tried, failures = 0, []
        for k in range(1, 1000):
            try:
                if not attempt(k):
                    break
            except AssertionError:
                failures.append(traceback.format_exc())
            tried += 1
        print(json.dumps([tried, failures]))
    """
    tried, failures = run(code, tmp_path)
    assert 50 < tried < 999, "all of them"
    cases.count(tried, tried - len(failures), "\n".join(failures))


AT_EACH_STEP = """
    import _thread
    import os
    from functools import partial
    from fastbp.engine.team import run_team

    def task(words, worker, n_workers):
        '''Stay a little: who does not wait for it is seen.'''
        working.append(worker)
        time.sleep(1e-3)
        working.remove(worker)
        return 7

    def attempt(k, together):
        '''Interrupt a team before the k-th bytecode of the caller, in threading too; where that was.'''
        steps, seen = 0, None

        def step(frame, event, arg):
            nonlocal steps, seen
            frame.f_trace_opcodes = True
            if event == "opcode":
                steps += 1
                if steps == k:
                    seen = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                    raise KeyboardInterrupt
            return step

        sys.settrace(step)
        try:
            completed, error = run_team(task, 2, meanwhile=lambda: None, together=together)
        except KeyboardInterrupt as caught:
            error = caught
        sys.settrace(None)
        assert seen is None or isinstance(error, KeyboardInterrupt), (seen, error)
        assert not working, (seen, working)
        assert _thread._count() == 0, seen
        assert cores() == allowed, seen
        return seen

    cores = partial(getattr(os, "sched_getaffinity", lambda _: set()), 0)
    working, allowed = [], cores()
    assert run_team(task, 2) == (7, None)
    for together in False, True:
        attempt(0, together)  # Python 3.12 traces bytecodes from the next time on
        for k in range(1, 100_000):
            signal.alarm(60)
            with cases.one(f"step {k}, {together}"):
                if attempt(k, together) is None:
                    break
                assert run_team(task, 2) == (7, None)
        assert 100 < k < 99_999, "all of them"
"""


@pytest.mark.hazard("interrupt", "before each bytecode of the caller of a team")
def test_an_interrupt_at_each_step_of_a_team(cases: Cases, tmp_path: Path) -> None:
    """It is handed back, no thread is left, and the caller may use the same cores as before."""
    cases.count_in_child(tmp_path, AT_EACH_STEP)


def test_an_interrupt_at_each_step_of_an_assignment(tmp_path: Path) -> None:
    """The network is left to others, also where the KeyboardInterrupt and its frames are kept as `sys.last_value`."""
    code = """
        def attempt(assign, k):
            '''Return the KeyboardInterrupt of a SIGINT at the k-th call, or return of one, if there are so many.'''
            steps = 0

            def step(frame, event, arg):
                nonlocal steps
                if event in ("call", "c_return"):  # where Python looks for signals
                    steps += 1
                    if steps == k:
                        sys.setprofile(None)
                        signal.raise_signal(signal.SIGINT)

            try:
                sys.setprofile(step)
                assign()
            except KeyboardInterrupt as error:
                return error
            finally:
                sys.setprofile(None)

        network = make()
        assignments = {
            "weights": lambda: setattr(network, "weights", network.weights),
            "biases": lambda: setattr(network, "biases", network.biases),
            "set_layer": lambda: network.set_layer(0, network.weights[0]),
        }
        tried, locked = {}, []
        for name, assign in assignments.items():
            tried[name] = 0
            while error := attempt(assign, tried[name] + 1):
                tried[name] += 1
                try:
                    assign()
                except RuntimeError:
                    locked.append([name, tried[name]])
                    network = make()
        print(json.dumps([tried, locked]))
    """
    tried, locked = run(code, tmp_path)
    assert min(tried.values()) > 10
    assert not locked


def start_of_a_fit(monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Return a fit by a team of three."""
    monkeypatch.setattr("fastbp.engine.run.WORK_IN_CALLER", 0)
    network, X, y = fastbp.Network([6, 5, 3], seed=0), np.ones((40, 6), np.float32), np.arange(40) % 3
    return lambda: network.fit(X, y, epochs=3, batch_size=4, n_threads=3, verbose=False)


def test_a_refused_thread_where_an_interrupt_is_dealt_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who trains on after Ctrl-C gets one thread where three are refused, not the same Ctrl-C again."""
    begin, refused = start_of_a_fit(monkeypatch), []

    def refusing(*call: Any) -> int:
        if not refused:
            refused.append(call)
            raise RuntimeError("can't start new thread")
        return _thread.start_new_thread(*call)

    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with monkeypatch.context() as patch:
            patch.setattr("fastbp.engine.team.start_new_thread", refusing)
            begin()
    assert refused


@pytest.mark.hazard("interrupt", "SIGINT in a long predict")
def test_an_interrupted_predict(cases: Cases, tmp_path: Path) -> None:
    code = """
        network = fastbp.Network([64, 3000, 3000, 10], hidden="relu", seed=1)
        wanted = network.predict(X[:10])
        many = np.tile(X, (10, 1))
        held = 0
        for n_threads in 1, 2:
            assert Interrupt(0.05).end(lambda: network.predict(many, n_threads=n_threads))
            assert (network.predict(X[:10]) == wanted).all()
            held += 1
        print(json.dumps(held))
    """
    cases.count(2, run(code, tmp_path))


@pytest.mark.hazard("denormals", "the mode after an interrupt, of NumPy and of compiled code")
def test_the_mode_after_an_interrupt(cases: Cases, tmp_path: Path) -> None:
    """Also where no thread can be started, and the caller computes itself."""
    code = """
        import numba
        from fastbp.engine import team

        @numba.njit
        def compiled(x, factor):
            return x * factor

        def subnormals_count():
            tiny = [np.float32(1e-40), np.float64(1e-310)]
            one_by_one = [compiled(x, type(x)(0.5)) != 0 for x in tiny]
            many = [bool((np.full(64, x) * type(x)(0.5) != 0).all()) for x in tiny]
            return all(one_by_one) and all(many)

        assert subnormals_count()
        held = 0

        def refuse(*call):
            raise RuntimeError("can't start new thread")

        for i in range(20):
            team.start_new_thread = refuse if i % 2 else _thread.start_new_thread
            network = make()
            begin = lambda: network.fit(X, y, epochs=1_000_000, n_threads=1 + i % 3, verbose=False, **train)
            assert Interrupt(0.02).end(begin)
            held += subnormals_count()
        print(json.dumps(held))
    """
    cases.count(20, run(code, tmp_path))
