"""Cases: what a test of a hazard tries, itself or in a child process with a watchdog."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import dedent

WATCHDOG = 240  # seconds; a child takes a few
# What every program begins with; where it hangs it says so, and ends. (faulthandler's own timer hangs after a fork.)
PRELUDE = """
import faulthandler, os, signal, sys, threading, time

def watch():
    if hasattr(signal, "alarm"):
        signal.alarm({timeout})
    else:
        faulthandler.dump_traceback_later({timeout}, exit=True)

if hasattr(signal, "alarm"):
    faulthandler.register(signal.SIGALRM, chain=True)
watch()
import numpy as np
import fastbp
import fastbp.engine.cores
from cases import Cases

fastbp.engine.cores.most_threads = lambda: 64  # as in conftest.py: as many threads as a program asks for
"""
REPORT = "print(cases.report())"


class Cases:
    """The cases of one test."""

    def __init__(self) -> None:
        self.tried = self.held = 0
        self.failures: list[str] = []
        self.remarks: list[str] = []
        self._counting = threading.Lock()

    @contextmanager
    def one(self, what: object) -> Iterator[None]:
        """Try one case: it held when nothing is raised."""
        try:
            yield
        except Exception:  # whatever it is, the case is counted as one that did not hold, with its traceback
            self.count(1, 0, f"{what}: {traceback.format_exc()}")
        else:
            self.count(1, 1)

    def count(self, tried: int, held: int, what: object = "") -> None:
        """Add cases that were counted elsewhere."""
        assert 0 <= held <= tried
        with self._counting:
            self.tried += tried
            self.held += held
            if held < tried:
                self.failures.append(f"{what}: {held} of {tried} held" if tried > 1 else str(what))

    def remark(self, figure: str) -> None:
        """Print a figure in the table, behind the cases."""
        self.remarks.append(figure)

    def report(self) -> str:
        """Return all as JSON, for `count_in_child`."""
        return json.dumps({name: getattr(self, name) for name in ("tried", "held", "failures", "remarks")})

    def check(self) -> None:
        """Fail where not all held."""
        if self.failures:
            raise AssertionError(f"{self.held} of {self.tried} cases held\n" + "\n".join(self.failures[:10]))
        assert self.tried > 0, "no case was tried"

    def count_in_child(
        self, folder: Path, program: str, *, options: tuple[str, ...] = ("-W", "error"), **environment: str | None
    ) -> None:
        """Add the cases that a Python program tries in a process of its own; None removes a variable.

        A program with a function `main(cases)` may be imported by processes that it spawns; any other has `cases`.
        """
        path = folder / "program.py"
        body = dedent(program)
        if "def main(" in body:
            body += f"\n\nif __name__ == '__main__':\n    cases = Cases()\n    main(cases)\n    {REPORT}\n"
        else:
            body = f"cases = Cases()\n{body}\n{REPORT}\n"
        path.write_text(PRELUDE.format(timeout=WATCHDOG) + body, encoding="utf-8")
        env = {**os.environ, "PYTHONPATH": _path(), "PYTHONFAULTHANDLER": "1"}
        for name, value in environment.items():
            env.pop(name, None)
            if value is not None:
                env[name] = value
        command = [sys.executable, *options, str(path)]
        # into files: a grandchild that hangs would keep a pipe open
        with open(folder / "stdout", "w+") as stdout, open(folder / "stderr", "w+") as stderr:
            child = subprocess.Popen(command, env=env, cwd=folder, stdout=stdout, stderr=stderr, start_new_session=True)
            with suppress(subprocess.TimeoutExpired):
                child.wait(WATCHDOG + 10)
            _end_all(child)
            out, err = (file.seek(0) or file.read() for file in (stdout, stderr))
        try:
            assert child.returncode == 0
            report = json.loads(out.splitlines()[-1])
            self.tried += report["tried"]
            self.held += report["held"]
            self.remarks += report["remarks"]
            self.failures += [f"{failure}{err}" for failure in report["failures"]]
        except (AssertionError, IndexError, KeyError, ValueError):
            self.count(1, 0, f"the child ended with {child.returncode}: {out}{err}")


def _path() -> str:
    """Return the search path of a child: the package under test, and the helpers of these tests."""
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*([given] if given else []), str(Path(__file__).parent)])


def _end_all(child: subprocess.Popen[bytes]) -> None:
    """End a child that hangs, and whatever it has left."""
    if sys.platform == "win32":
        child.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
