"""The same bits for any number of threads, for reruns, from a cold and a warm cache, and from code for other CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
import workload
from problems import HEADS, HIDDEN, draw

import fastbp
from fastbp.kernels.evaluation import evaluate
from fastbp.kernels.minibatch import train
from fastbp.kernels.narrow import train_narrow

DTYPES = ["float32", "float64"]
WATCHDOG = 300  # seconds; compiling takes some 30 on one core
IS_X86 = llvm.get_process_triple().startswith(("x86_64", "amd64"))
HAS_AVX2 = IS_X86 and all(llvm.get_host_cpu_features().get(name, False) for name in ("avx2", "fma"))
AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe",
}
SSE2 = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}


class Process:
    """The workload of one dtype in a process with a cache of kernels of its own, which runs beside this one."""

    def __init__(self, folder: Path, name: str, dtype: str, environment: dict[str, str]) -> None:
        self._files = {kind: folder / f"{name}.{kind}" for kind in ("out", "err")}
        with open(self._files["out"], "w") as out, open(self._files["err"], "w") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", workload.__file__, dtype],
                env={**os.environ, "FASTBP_CACHE_DIR": str(folder), **environment},
                cwd=folder,
                stdout=out,
                stderr=err,
            )

    def report(self) -> Any:
        """Return what it printed as JSON, when it is finished."""
        try:
            status = self._process.wait(timeout=WATCHDOG)
        finally:
            self.end()
        assert status == 0, self._files["err"].read_text()
        return json.loads(self._files["out"].read_text())

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class Processes:
    """The workload in processes of several kinds, each started once."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._running: dict[str, Process] = {}
        self.folders: dict[str, Path] = {}

    def start(self, kind: str, dtype: str, **environment: str) -> Process:
        kind = f"{kind} {dtype}"
        if kind not in self._running:
            folder = self.folders.get(kind) or self._factory.mktemp("cache")
            self.folders[kind] = folder
            self._running[kind] = Process(folder, kind, dtype, environment)
        return self._running[kind]

    def end(self) -> None:
        for process in self._running.values():
            process.end()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    started = Processes(tmp_path_factory)
    started.start("cold", "float64")  # these two compile while this process goes on, for half a minute
    if HAS_AVX2:
        started.start("avx2", "float32", **AVX2)
    yield started
    started.end()


@cache
def digests() -> dict[str, str]:
    return {dtype: workload.digest(dtype) for dtype in DTYPES}


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads(processes: Processes, dtype: str, n_threads: int) -> None:
    assert workload.digest(dtype, n_threads) == digests()[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("sizes", "batch_size"),
    [
        ([4, 32, 16, 4], 1500), ([10, 16, 1], 520), ([3, 5, 1, 7, 2], 257), ([33, 40, 3], 1024), ([5, 300, 2], 800),
        ([4, 32, 16, 4], 6000), ([300, 20, 3], 400), ([12, 30, 12], 900),
    ],
    ids=str,
)  # fmt: skip
def test_whoever_computes_a_block_of_samples(sizes: list[int], batch_size: int, dtype: str) -> None:
    """Workers with replicas of the parameters take whole blocks, which each of them adds in order."""
    problem = draw(np.random.default_rng(32), sizes, 2 * batch_size + 77, hidden="tanh", dtype=dtype)
    for optimizer in fastbp.SGD(0.1), fastbp.Adam(0.01):
        results = []
        for n_threads in 1, 2, 3, 4:
            network = problem.network()
            history = network.fit(
                problem.X, problem.y, epochs=2, batch_size=batch_size, optimizer=optimizer, l2=0.01, shuffle=False,
                sample_weight=np.linspace(0.1, 2, len(problem.X)), verbose=False, n_threads=n_threads,
            )  # fmt: skip
            results.append([array.tobytes() for array in (*network.weights, *network.biases)] + history.loss)
        assert results[1:] == results[:1] * 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["zeros", "columns", "narrow"])
def test_replicas_of_any_input(form: str, dtype: str) -> None:
    """The last mini-batch has fewer blocks than there are workers; in others some have one more than others."""
    rng = np.random.default_rng(33)
    problem = draw(rng, [300, 20, 3], 2 * 640 + 50, hidden="relu", dtype=dtype)
    X = problem.X * (rng.random(problem.X.shape) < 0.2) if form == "zeros" else problem.X.astype(np.float32)
    X = np.asfortranarray(X) if form == "columns" else X
    results = []
    for n_threads in 1, 2, 3, 4:
        network = problem.network(seed=4)
        history = network.fit(X, problem.y, epochs=2, batch_size=640, verbose=False, n_threads=n_threads)
        results.append([array.tobytes() for array in (*network.weights, *network.biases)] + history.loss)
    assert results[1:] == results[:1] * 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("sizes", "batch_size"),
    [([256, 30, 3], 1), ([400, 30, 10], 10), ([321, 17, 9, 2], 33), ([784, 9, 10], 100), ([500, 32, 3], 128)],
    ids=str,
)
def test_whoever_computes_a_chain(sizes: list[int], batch_size: int, dtype: str) -> None:
    """An even number of workers divides the two chains of the first layer, an odd one its rows."""
    problem = draw(np.random.default_rng(34), sizes, 3 * batch_size + 5, hidden="tanh", dtype=dtype)
    for X in problem.X, np.asfortranarray(problem.X), problem.X.astype(np.float32):
        results = []
        for n_threads in 1, 2, 3, 4:
            network = problem.network(seed=5)
            history = network.fit(X, problem.y, epochs=2, batch_size=batch_size, verbose=False, n_threads=n_threads)
            results.append([array.tobytes() for array in (*network.weights, *network.biases)] + history.loss)
        assert results[1:] == results[:1] * 3


def test_reruns() -> None:
    for dtype in DTYPES:
        assert workload.digest(dtype) == digests()[dtype]


def test_another_order_of_additions_would_show() -> None:
    rng = np.random.default_rng(30)
    X, w = rng.random((9, 33)), rng.random((7, 33))
    a, b = (
        fastbp.Network([33, 7], output="identity", init=[(w[:, order], np.zeros(7))]).predict(X[:, order])
        for order in (np.arange(33), np.arange(33)[::-1])
    )
    assert np.allclose(a, b)
    assert a.tobytes() != b.tobytes()
    assert len(set(digests().values())) == 2


def test_importing_compiles_nothing(processes: Processes) -> None:
    """Neither does it load anything."""
    assert processes.start("cold", "float64").report()["before"] == {"signatures": 0, "counts": {}}


def test_cold_and_warm_cache(processes: Processes) -> None:
    cold = processes.start("cold", "float64").report()
    assert cold["digests"] == {"float64": digests()["float64"]}
    assert cold["counts"] == {"compiled": 4, "saved": 4}
    processes.folders["warm float64"] = processes.folders["cold float64"]
    warm = processes.start("warm", "float64").report()
    assert warm["digests"] == cold["digests"]
    assert warm["counts"] == {"loaded": 4}


@pytest.mark.skipif(not HAS_AVX2, reason="this CPU has no AVX2")
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_avx2_only(processes: Processes, dtype: str) -> None:
    report = processes.start("avx2", dtype, **AVX2).report()
    assert report["register_bytes"] == 32
    assert report["assembly"]["zmm"] == 0
    assert report["assembly"]["ymm"] > 500  # the registers of AVX2 are used, and its fused multiply-add
    assert report["assembly"]["vfmadd"] > 50
    assert report["counts"]["compiled"] == 4
    assert report["digests"] == {dtype: digests()[dtype]}


@pytest.mark.slow
@pytest.mark.skipif(not IS_X86, reason="this is no x86-64")
@pytest.mark.parametrize("dtype", DTYPES)
def test_plain_x86_64(processes: Processes, dtype: str) -> None:
    """Registers of 16 bytes, and no fused multiply-add but that of the C library."""
    report = processes.start("sse2", dtype, **SSE2).report()
    assert report["register_bytes"] == 16
    assert report["assembly"] == {"zmm": 0, "ymm": 0, "vfmadd": 0}
    assert report["digests"] == {dtype: digests()[dtype]}


def test_one_specialisation_a_dtype() -> None:
    """Whatever the architecture, loss, optimizer, targets and memory layout."""
    rng = np.random.default_rng(31)
    for dtype in DTYPES:
        for i, head in enumerate(HEADS):
            for labels in False, True:
                sizes = [3 + i, *[5 + 3 * i] * (i % 3), 2 + i]
                problem = draw(rng, sizes, 9 + i, hidden=HIDDEN[i % 4], head=head, dtype=dtype, labels=labels)
                network = problem.network(seed=0)
                X = np.asfortranarray(problem.X) if labels else problem.X.astype(np.float16)
                for optimizer in workload.OPTIMIZERS:
                    network.fit(X, problem.y, epochs=2, batch_size=4, optimizer=optimizer, verbose=False)
                network.partial_fit(X.tolist(), problem.y, n_threads=2)
                network.gradients(X, problem.y)
                network.activations(X)
                network.predict_classes(X, n_threads=2)
                network.accuracy(X, problem.y)
                network.loss(X, problem.y)
        read_only = problem.X.copy()
        read_only.flags.writeable = False
        network.fit(read_only, problem.y, validation_data=(read_only, problem.y), verbose=False)
    assert len(train.signatures) == len(train_narrow.signatures) == 2
    assert len(evaluate.signatures) == 2
