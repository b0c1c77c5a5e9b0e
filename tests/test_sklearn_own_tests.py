"""scikit-learn's own tests, run on fastbp's estimators: those of its MLP, and its checks of any estimator."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sklearn
from sklearn import neural_network
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator
from threadpoolctl import threadpool_limits

import fastbp.sklearn

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
TIMEOUT = 900  # seconds, for a child that hangs; compiling included
ITEMS = {(1, 9): 59}  # in scikit-learn's test_mlp.py


@pytest.mark.skipif(VERSION < (1, 9), reason="older scikit-learn tests older signatures and errors")
def test_its_own_tests_of_the_mlp(tmp_path: Path) -> None:
    """All pass, none is skipped, and it is fastbp's classes that they met."""
    pytest.importorskip("pandas", reason="two of scikit-learn's tests need pandas")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # nothing of this project's settings
    (tmp_path / "watched.py").write_text(WATCHED)
    path = [str(Path(__file__).parent), str(tmp_path), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "drop_in", "-p", "watched", "-p", "no:cacheprovider",
         "-p", "no:randomly", "--junit-xml=report.xml", "--pyargs", "sklearn.neural_network.tests.test_mlp"],
        capture_output=True, text=True, timeout=TIMEOUT, cwd=tmp_path,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, path))},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    cases = ElementTree.parse(tmp_path / "report.xml").getroot().iter("testcase")
    outcomes = Counter(child.tag for case in cases for child in case if child.tag != "properties")
    suite = ElementTree.parse(tmp_path / "report.xml").getroot().find("testsuite")
    assert suite is not None
    assert not outcomes & Counter(["skipped", "failure", "error"]), result.stdout
    assert int(suite.attrib["tests"]) >= 59
    if VERSION in ITEMS:
        assert int(suite.attrib["tests"]) == ITEMS[VERSION]
    assert "trained by fastbp:" in result.stdout
    assert "trained by fastbp: 0" not in result.stdout


# Counts the fits of fastbp's classes, and fails should scikit-learn's own be met under their names.
WATCHED = """
from sklearn import neural_network
import fastbp.sklearn

fits = []
for kind in fastbp.sklearn.MLPClassifier, fastbp.sklearn.MLPRegressor:
    def fit(self, *args, _fit=kind.fit, **kwargs):
        fits.append(type(self))
        return _fit(self, *args, **kwargs)
    kind.fit = fit


def pytest_collection_finish(session):
    modules = {item.module for item in session.items}
    assert all(module.MLPClassifier is fastbp.sklearn.MLPClassifier for module in modules)
    assert all(module.MLPRegressor is fastbp.sklearn.MLPRegressor for module in modules)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"trained by fastbp: {len(fits)}")
"""


def outcomes(estimator: Any) -> dict[str, str]:
    """Return what each of scikit-learn's checks of an estimator says; a check may occur more than once."""
    found: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("ignore", SkipTestWarning)
        for entry in check_estimator(estimator, on_fail=None, on_skip=None):
            name, count = entry["check_name"], 0
            while (key := f"{name} {count}") in found:
                count += 1
            found[key] = entry["status"]
    return found


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_its_checks_of_any_estimator(name: str, solver: str) -> None:
    """Whatever scikit-learn's class passes, fastbp's passes."""
    parameters = {"solver": solver, "max_iter": 100, "random_state": 0, "hidden_layer_sizes": (20,)}
    with threadpool_limits(1, "blas"):  # its products are so small that threads only get into each other's way
        ours = outcomes(getattr(fastbp.sklearn, name)(**parameters))
        theirs = outcomes(getattr(neural_network, name)(**parameters))
    assert ours.keys() == theirs.keys() if VERSION >= (1, 9) else ours.keys() >= theirs.keys()  # without sample weights
    expected = dict.fromkeys(ours, "passed") | theirs
    assert not {key: ours[key] for key, status in expected.items() if status == "passed" and ours[key] != "passed"}
    assert Counter(ours.values())["passed"] >= Counter(theirs.values())["passed"]
    assert Counter(theirs.values())["passed"] >= 40
