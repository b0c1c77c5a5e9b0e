"""A throw-away package of tiny kernels, with a cache of its own, for programs that run in new processes.

Every process has a watchdog, and a warning is an error in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from fastbp.kernels import _jit

WATCHDOG = 100  # seconds; a process takes about two

SOURCES = {
    "__init__": "",
    "_jit": Path(_jit.__file__).read_text(encoding="utf-8"),
    "inner": """
        from throwaway._jit import jit

        @jit
        def scale(x):
            return 2.0 * x
        """,
    "entries": """
        from typing import NamedTuple

        import numpy as np

        from throwaway._jit import entry
        from throwaway.inner import scale

        class Layer(NamedTuple):
            weights: np.ndarray
            biases: np.ndarray
            n: int

        @entry
        def total(layer):
            result = 0.0
            for j in range(layer.n):
                result += scale(layer.weights[j]) + layer.biases[j]
            return result

        @entry
        def first(layer):
            return layer.weights[0]

        @entry
        def minus_one(x):
            return x - 1.0
        """,
}

# What every program begins with. call() runs the entry in a module loaded anew, so that it is looked up on disk again.
PRELUDE = """
import errno, importlib, json, os, sys, threading
sys.modules["scipy"] = None  # Numba would import it
from pathlib import Path
import numba
import numpy as np
from throwaway import _jit, entries

def call():
    _jit.counts.clear()
    importlib.reload(entries)
    return entries.total(entries.Layer(np.arange(3.0), np.ones(3), 3)), dict(_jit.counts)

def report(value):
    print(json.dumps(value))
"""

COMPILED = [9.0, {"compiled": 1, "saved": 1}]
LOADED = [9.0, {"loaded": 1}]
NOT_SAVED = [9.0, {"compiled": 1}]

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork, and no modes or owners of files")

# A root that has given up its rights over files, as in a container
WITHOUT_CAPABILITIES = """
import ctypes
header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, none) == 0
"""


class Package:
    """A throw-away package of kernels, and a cache for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        for name, source in SOURCES.items():
            self.write(name, source)

    def write(self, name: str, source: str) -> None:
        """Write a module."""
        path = self.folder / "site" / "throwaway" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source), encoding="utf-8")

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a part of a module."""
        assert old in dedent(SOURCES[name])
        self.write(name, dedent(SOURCES[name]).replace(old, new))

    def start(self, program: str = "report(call())", before: str = "", **environment: str | None) -> Any:
        """Start a process; None removes a variable of its environment."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "FASTBP_", "XDG_", "PYTHON"))}
        env |= {"PYTHONPATH": str(self.folder / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {"FASTBP_CACHE_DIR": str(self.cache)}
        for name, value in environment.items():
            env.pop(name, None)
            if value is not None:
                env[name] = value
        command = [sys.executable, "-W", "error", "-c", dedent(before) + PRELUDE + dedent(program)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=env, cwd=self.folder, text=True, **pipes)

    def run(self, *args: str, **environment: str | None) -> Any:
        """Run a process and return what it reported; its stderr is kept."""
        return self.finish(self.start(*args, **environment))

    def finish(self, process: Any) -> Any:
        """Wait for a process and return what it reported."""
        try:
            out, self.stderr = process.communicate(timeout=WATCHDOG)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            pytest.fail("the process hangs")
        assert process.returncode == 0, self.stderr
        return json.loads(out)

    def files(self, pattern: str = "*/*") -> list[Path]:
        """Return the files in the cache."""
        return sorted(self.cache.glob(pattern))
