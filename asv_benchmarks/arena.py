"""Arena: a process in which one rival waits for its turns; and the table of all rivals.

So no library's threads, allocator or affinity meets another's, and each takes the cores that it takes by itself.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from benchmarks.common import WORKS
from frameworks import (
    Jax,
    JaxFlat,
    JaxFlatPinned,
    JaxPinned,
    Keras,
    Torch,
    TorchCompiled,
    TorchCompiledPinned,
    TorchPinned,
)
from rivals import Fastbp, Numpy, NumpyPinned, Rival, Sklearn

ON_ONE = " on one core"
RIVALS: dict[str, type[Rival]] = {
    "fastbp": Fastbp,
    "numpy": Numpy, "numpy" + ON_ONE: NumpyPinned,
    "sklearn": Sklearn,
    "torch": Torch, "torch" + ON_ONE: TorchPinned,
    "torch compiled": TorchCompiled, "torch compiled" + ON_ONE: TorchCompiledPinned,
    "jax": Jax, "jax" + ON_ONE: JaxPinned,
    "jax flat": JaxFlat, "jax flat" + ON_ONE: JaxFlatPinned,
    "keras": Keras,
}  # fmt: skip
# read by the libraries when they are imported, which is before the process can say anything
ENVIRONMENT = {"KERAS_BACKEND": "jax"}
ON_ONE_CORE = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}  # fmt: skip


def library_of(name: str) -> str:
    """Return the library of which a rival is one form."""
    return name.split()[0]


def installed() -> list[str]:
    """Return the names of those that can run here."""
    return [name for name, kind in RIVALS.items() if all(importlib.util.find_spec(need) for need in kind.needs)]


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Give these to the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Arena:
    """A process in which one rival waits for its turns."""

    def __init__(self, name: str, dtype: str) -> None:
        self.name = name
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs, name, dtype), daemon=True)
        with environment({**ENVIRONMENT, **(ON_ONE_CORE if RIVALS[name].pinned else {})}):
            self.process.start()
        theirs.close()

    def ask(self, command: str, argument: Any) -> Any:
        """Return what the rival answers. Raises RuntimeError where it fails."""
        self.connection.send((command, argument))
        try:
            failed, answer = self.connection.recv()
        except EOFError:
            failed, answer = True, "its process died"
        if failed:
            raise RuntimeError(f"{self.name}: {answer}")
        return answer

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.join(10)
        self.process.terminate()


def serve(connection: Connection, name: str, dtype: str) -> None:
    """Answer until nobody asks any more; the process is this rival's alone."""
    if RIVALS[name].pinned and hasattr(os, "sched_setaffinity"):  # before JAX counts the cores
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    host = Host(RIVALS[name], dtype)
    while True:
        try:
            command, argument = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            connection.send((False, getattr(host, command)(argument)))
        except Exception as error:
            message = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
            connection.send((True, message))


class Host:
    """What a rival's process can be asked."""

    def __init__(self, kind: type[Rival], dtype: str) -> None:
        self.kind, self.dtype = kind, dtype
        self.rival: Rival

    def learn(self, question: tuple[str, int]) -> tuple[float, float]:
        """Begin a work, train so many epochs in orders that are the same for all.

        Return the quality reached, and the seconds of the last epoch.
        """
        name, epochs = question
        work = WORKS[name]
        self.rival = self.kind(work, self.dtype)
        rng = np.random.default_rng(2)
        start = 0.0
        for _ in range(epochs):
            start = time.perf_counter()
            self.rival.epoch(rng.permutation(work.n))
        seconds = time.perf_counter() - start
        return float(self.rival.quality()), seconds

    def seconds(self, epochs: int) -> float:
        """Return the time of so many epochs."""
        start = time.perf_counter()
        self.rival.run(epochs)
        return time.perf_counter() - start

    def threads(self, _: None) -> int:
        """Return how many threads computed in the last run; 0 where that is not known."""
        return self.rival.threads
