"""Settings and fixtures that all tests share; only the installed package is tested, never the checkout's folder."""

from __future__ import annotations

import json
import os
import signal
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import hypothesis
import pytest
from ledger import Ledger
from throwaway_package import Package

import fastbp
from fastbp.datasets import Digits, Mnist, load_digits, load_mnist

CHECKOUT = Path(__file__).resolve().parents[1]
LOCATION = Path(fastbp.__file__).resolve().parent

# A first example may compile kernels, so no example has a deadline; what CI tries is the same each time.
hypothesis.settings.register_profile("developer", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "developer")


def _is_editable() -> bool:
    try:
        origin = distribution("fastbp").read_text("direct_url.json")
    except PackageNotFoundError:
        return False
    return origin is not None and json.loads(origin).get("dir_info", {}).get("editable", False)


def pytest_configure(config: pytest.Config) -> None:
    if LOCATION == CHECKOUT / "fastbp" and not _is_editable():
        raise pytest.UsageError(
            f"these tests would import the checkout, {LOCATION}, not an installed fastbp: run "
            "`python -m pip install '.[test]' && pytest` (`python -m pytest` puts this folder on the path), "
            "or install an editable one with `python -m pip install -e '.[test]'`"
        )
    os.environ["PYTHONSAFEPATH"] = "1"  # nor do child processes import it, wherever they start
    os.environ["MPLBACKEND"] = "Agg"  # pictures go to files
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background job, and in its children
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Ledger(), "ledger")


def pytest_report_header(config: pytest.Config) -> str:
    return f"fastbp: {LOCATION}{' (editable)' if _is_editable() else ''}"


@pytest.fixture(autouse=True)
def _no_cap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test have as many threads as it asks for, also on a machine with fewer cores."""
    if "capped" not in request.keywords:
        monkeypatch.setattr("fastbp.engine.cores.most_threads", lambda: 64)


def _train_all(narrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastbp.engine.run.is_narrow", lambda architecture, batch_size: narrow)


@pytest.fixture
def all_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every network train as those do whose neurons fill the lanes."""
    _train_all(False, monkeypatch)


@pytest.fixture
def all_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every network train with samples in the lanes."""
    _train_all(True, monkeypatch)


@pytest.fixture(params=["wide", "narrow"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every network train in one form, then in the other."""
    _train_all(request.param == "narrow", monkeypatch)


@pytest.fixture(scope="session")
def digits() -> Digits:
    """Return the shipped digits, read once; read-only, as all tests share them."""
    data = load_digits()
    for array in data:
        array.flags.writeable = False
    return data


@pytest.fixture(scope="session")
def mnist() -> Mnist:
    """Return MNIST, read once; read-only, as all tests share it. It is skipped, with a reason, where no data is."""
    if "FASTBP_DATA" not in os.environ:
        pytest.skip("the environment variable FASTBP_DATA does not name a folder with MNIST")
    data = load_mnist()
    for array in data:
        array.flags.writeable = False
    return data


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """Return a throw-away package of kernels with an empty cache."""
    return Package(tmp_path)
