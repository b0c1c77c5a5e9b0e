"""Oversubscription: more threads than cores, fewer cores than the machine has, neighbours that are busy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from candidates import KINDS, candidate, result
from cases import Cases

from fastbp.engine.cores import available_cores

HERE = [1, 2, 3, 7, *(available_cores() * k for k in (1, 2, 4, 8, 16))]


@pytest.fixture(scope="module")
def wanted() -> list[str]:
    """Return the results of one thread; its machine code is then on disk for all others."""
    return [result(i, n_threads=1) for i in range(KINDS)]


def try_all(cases: Cases, wanted: list[str], n_kinds: int = 6) -> None:
    for n_threads in sorted(set(HERE)):
        for i in range(n_kinds):
            with cases.one(f"{n_threads} threads, candidate {i}"):
                assert result(i, n_threads) == wanted[i]


@pytest.mark.hazard("oversubscription", "up to 16 threads a core, asked for")
def test_more_threads_than_cores(cases: Cases, wanted: list[str]) -> None:
    try_all(cases, wanted)


@pytest.fixture
def neighbours() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep every core busy, twice."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * available_cores())]
    try:
        yield busy
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.hazard("oversubscription", "beside two busy processes a core")
def test_busy_neighbours(cases: Cases, wanted: list[str], neighbours: list[subprocess.Popen[bytes]]) -> None:
    try_all(cases, wanted, n_kinds=2)
    assert all(process.poll() is None for process in neighbours)


ONE_CORE = """
from candidates import result
from fastbp.engine.cores import available_cores

WANTED, N_THREADS = ..., ...
LIMIT
for n_threads in [None, *N_THREADS]:
    for i in 0, 3:
        with cases.one(f'{n_threads} threads, candidate {i}'):
            assert available_cores() == 1
            assert result(i, n_threads) == WANTED[i]
"""


def on_one_core(cases: Cases, folder: Path, wanted: list[str], limit: str) -> None:
    program = ONE_CORE.replace("..., ...", f"{wanted!r}, {sorted(set(HERE))!r}").replace("LIMIT", limit)
    cases.count_in_child(folder, program)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
@pytest.mark.hazard("oversubscription", "an affinity of one core")
def test_an_affinity_of_one_core(cases: Cases, tmp_path: Path, wanted: list[str]) -> None:
    on_one_core(cases, tmp_path, wanted, "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])")


@pytest.fixture
def group_of_one_core(tmp_path: Path) -> Iterator[Path]:
    """Make a control group that grants one core, of whichever version there is; skip where that is not allowed."""
    root = Path("/sys/fs/cgroup")
    kinds = [(root / "cpu", "cpu.cfs_quota_us", "100000"), (root, "cpu.max", "100000 100000")]
    for base, file, text in kinds:
        group = base / f"fastbp-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / file).exists():
                (group / file).write_text(text)
                yield group
                return
        except OSError:
            continue
        finally:
            group.rmdir()
    pytest.skip("no right to make a control group here")


@pytest.mark.hazard("oversubscription", "a control group of one core")
def test_a_control_group_of_one_core(cases: Cases, tmp_path: Path, wanted: list[str], group_of_one_core: Path) -> None:
    limit = f"import pathlib; pathlib.Path({str(group_of_one_core / 'cgroup.procs')!r}).write_text(str(os.getpid()))"
    on_one_core(cases, tmp_path, wanted, limit)


# What belongs to others


def use() -> None:
    network, X, y, options = candidate(1)
    network.fit(np.tile(X, (50, 1)), np.tile(y, 50), n_threads=2, **options)
    network.predict(X, n_threads=2)


@pytest.mark.hazard("oversubscription", "the settings of threadpoolctl and torch are untouched")
@pytest.mark.parametrize("library", ["threadpoolctl", "torch"])
def test_settings_of_others(library: str) -> None:
    module = pytest.importorskip(library)

    def settings() -> object:
        if library == "torch":
            return module.get_num_threads(), module.get_num_interop_threads()
        return module.threadpool_info()

    before = settings()
    assert before
    use()
    assert settings() == before
    if library == "torch":
        module.set_num_threads(1)
        use()
        assert module.get_num_threads() == 1
        module.set_num_threads(before[0])  # type: ignore[index]
    else:
        with module.threadpool_limits(1):
            limited = settings()
            assert limited != before or available_cores() == 1
            use()
            assert settings() == limited
        assert settings() == before
