"""The ledger of hazards counts what is tried, and fails what does not hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

@pytest.mark.hazard("cache", "all hold")
def test_good(cases):
    with cases.one("a"):
        pass
    cases.count(10, 10)
    cases.remark("12 bytes")

@pytest.mark.hazard("cache", "one does not")
def test_bad(cases):
    for i in range(5):
        with cases.one(i):
            assert i != 3, "three"

@pytest.mark.hazard("threads", "elsewhere")
def test_counted(cases):
    cases.count(7, 6, "six")

@pytest.mark.hazard("threads", "between two cases")
def test_raises(cases):
    with cases.one("a"):
        pass
    raise ValueError("between")

@pytest.mark.hazard("memory", "nothing")
def test_nothing(cases):
    pass

@pytest.mark.hazard("memory", "one case each")
@pytest.mark.parametrize("i", [0, 1, 2])
def test_without_cases(i):
    pass

@pytest.fixture
def ends_badly():
    yield
    raise ValueError("too late")

@pytest.mark.hazard("memory", "a fixture")
def test_fixture(ends_badly):
    pass

@pytest.mark.hazard("memory", "not here")
def test_skipped():
    pytest.skip("why")
"""
TABLE = """
threads elsewhere 7 6 BROKEN
threads between two cases 2 1 BROKEN
cache all hold 11 11 12 bytes
cache one does not 5 4 BROKEN
memory nothing 1 0 BROKEN
memory one case each 3 3
memory a fixture 2 1 BROKEN
memory not here 0 0 skipped: why
all 31 26
"""


def test_what_it_counts_and_fails(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text(
        "from ledger import Ledger\n\ndef pytest_configure(config):\n    config.pluginmanager.register(Ledger())\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--strict-markers",
        "--color=no",
        "-rN",
        str(tmp_path),
    ]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH" and not k.startswith("PYTEST_")}
    env["PYTHONPATH"] = str(Path(__file__).parent)
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    begin = next(i for i, line in enumerate(lines) if "hazards: cases tried, cases held" in line)
    assert lines[begin + 1 : -1] == TABLE.strip().splitlines()
    assert "4 failed, 5 passed, 1 skipped, 1 error" in lines[-1]
    for what in "three", "six: 6 of 7 held", "4 of 5 cases held", "no case was tried":
        assert what in done.stdout, what
