"""The disk cache of compiled entry points: many processes and threads at once, and forks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from cases import Cases
from throwaway_package import COMPILED, LOADED, Package, posix


@pytest.mark.hazard("cache", "many cold processes and threads at once")
def test_four_cold_processes(package: Package, cases: Cases) -> None:
    processes = [package.start() for _ in range(4)]
    for process in processes:
        with cases.one(process.pid):
            result, counts = package.finish(process)
            assert result == 9.0
            assert counts in (COMPILED[1], LOADED[1])
    assert len(package.files()) == 1
    assert package.run() == LOADED


@pytest.mark.hazard("cache", "many cold processes and threads at once")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_sixteen_cold_processes(package: Package, cases: Cases) -> None:
    """All have imported all when they begin, at the same moment; nothing is compiled then."""
    program = """
        go, begin = os.pipe()
        children = []
        for _ in range(16):
            if (child := os.fork()) == 0:
                os.read(go, 1)
                seen = call()
                os._exit(0 if seen in ((9.0, {"compiled": 1, "saved": 1}), (9.0, {"loaded": 1})) else 1)
            children.append(child)
        os.write(begin, bytes(16))
        report([os.waitpid(child, 0)[1] for child in children])
        """
    codes = package.run(program)
    cases.count(16, codes.count(0), codes)
    assert len(package.files()) == 1
    assert package.run() == LOADED


@pytest.mark.slow
@pytest.mark.hazard("cache", "16 cold processes train for the first time, and compile all kernels")
def test_sixteen_first_fits(tmp_path: Path, cases: Cases) -> None:
    program = """
        import numpy as np, fastbp
        network = fastbp.Network([4, 3, 2], output="softmax", seed=0)
        network.fit(np.eye(4), np.arange(4) % 2, epochs=3, verbose=False)
        print([w.tobytes().hex() for w in network.weights])
        """
    env = os.environ | {"FASTBP_CACHE_DIR": str(tmp_path / "cache")}
    command, pipes = [sys.executable, "-W", "error", "-c", dedent(program)], {"stdout": -1, "stderr": -1}
    said, seen = [], set()
    processes: list[Any] = [subprocess.Popen(command, env=env, cwd=tmp_path, text=True, **pipes) for _ in range(16)]
    for process in [*processes, None]:
        process = process or subprocess.Popen(command, env=env, cwd=tmp_path, text=True, **pipes)  # type: ignore[call-overload]
        with cases.one(process.pid):
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0
            seen.add(out)
            assert len(seen) == 1
            said.append(err)
    assert said[-1] == "", "the last one loads"
    assert not list((tmp_path / "cache").rglob("*.tmp"))


@pytest.mark.hazard("cache", "many cold processes and threads at once")
def test_threads_call_at_first_use(package: Package) -> None:
    program = """
        from concurrent.futures import ThreadPoolExecutor
        barrier = threading.Barrier(8)
        def first_use(_):
            barrier.wait()
            return entries.total(entries.Layer(np.arange(3.0), np.ones(3), 3))
        with ThreadPoolExecutor(8) as pool:
            report([list(pool.map(first_use, range(8))), dict(_jit.counts)])
        """
    assert package.run(program) == [[9.0] * 8, {"compiled": 1, "saved": 1}]


FORK = """
    import signal, time
    import llvmlite.binding as llvm

    def compile_until_stopped():
        while not stopped.is_set():
            numba.njit(lambda x: x + 1.0)(1.0)

    def assemble_until_stopped():  # in LLVM, but without Numba's lock
        text = "".join(f"define i32 @f{i}() {{ ret i32 0 }}\\n" for i in range(10000))
        while not stopped.is_set():
            llvm.parse_assembly(text)

    def child(generation):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            right = numba.njit(lambda x: x + generation)(1.0) == 1.0 + generation
            os._exit(0 if right and (generation == 0 or child(generation - 1)) else 1)
        return os.waitpid(pid, 0)[1] == 0

    numba.njit(lambda x: x)(1.0)
    stopped = threading.Event()
    thread = threading.Thread(target=WORK)
    thread.start()
    held = []
    for _ in range(3):
        time.sleep(0.05)
        held.append(child(1))
    alive = thread.is_alive()
    stopped.set()
    thread.join()
    report([held, alive, call()])
    """


@posix
@pytest.mark.hazard("processes", "fork while another thread is in the compiler; grandchildren that compile")
@pytest.mark.parametrize("work", ["compile_until_stopped", "assemble_until_stopped"])
def test_fork_while_another_thread_is_in_the_compiler(package: Package, work: str) -> None:
    ignore = "import warnings; warnings.filterwarnings('ignore', '.*fork', DeprecationWarning)\n"  # of Python 3.12
    assert package.run(FORK.replace("WORK", work), ignore) == [[True] * 3, True, COMPILED]
