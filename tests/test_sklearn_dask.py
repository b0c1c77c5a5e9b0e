"""dask: a search whose candidates are trained by the worker processes of a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install 'fastbp[dask]'")
TIMEOUT = 300  # seconds, for a cluster that hangs; compiling included

# A child process: a cluster starts processes of its own that import this program, sets up its own logging, and leaves
# threads behind for a while. Each worker may use as many threads as dask gives it, and no worker is idle.
PROGRAM = """
import json
import os
import sys
import warnings

import joblib
import numpy as np
from distributed import Client, LocalCluster
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score

import fastbp
from fastbp.sklearn import MLPClassifier, MLPRegressor

rng = np.random.default_rng(0)
X = rng.standard_normal((300, 6))
labels = (X[:, 0] > X[:, 1]).astype(int)
GRID = {"alpha": [1e-4, 0.1, 1.0], "hidden_layer_sizes": [(4,), (8,), (8, 4)]}


def measured(estimator, X, y):
    return {"accuracy": estimator.score(X, y), "process": os.getpid(), "threads": fastbp.get_num_threads()}


def search():
    candidate = MLPClassifier(max_iter=20, random_state=0)
    found = GridSearchCV(candidate, GRID, cv=3, scoring=measured, refit="accuracy", n_jobs=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return found.fit(X, labels)


def values(found, name):
    return [float(v) for fold in range(3) for v in found.cv_results_[f"split{fold}_test_{name}"]]


def main():
    with joblib.parallel_config("sequential"):
        local = search()
        scores = cross_val_score(MLPRegressor(random_state=0, tol=0.1), X, X[:, 0], cv=4)
    cluster = LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0", local_directory=sys.argv[1])
    with cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        workers = list(client.run(os.getpid).values())
        with joblib.parallel_config("dask"):
            distant = search()
            distant_scores = cross_val_score(MLPRegressor(random_state=0, tol=0.1), X, X[:, 0], cv=4, n_jobs=-1)
    same = [np.array_equal(a, b) for a, b in zip(distant.best_estimator_.coefs_, local.best_estimator_.coefs_)]
    print(json.dumps({
        "here": os.getpid(), "workers": workers, "processes": values(distant, "process"),
        "threads": values(distant, "threads"), "local": values(local, "accuracy"),
        "distant": values(distant, "accuracy"), "best": [str(local.best_params_), str(distant.best_params_)],
        "same": all(same), "scores": [list(scores), list(distant_scores)],
    }))


if __name__ == "__main__":
    main()
"""


def test_a_search_on_two_workers(tmp_path: Path) -> None:
    """Candidates are spread over both, find what a local search finds, and take one thread each, as dask asks for."""
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    child = subprocess.run(
        [sys.executable, "program.py", str(tmp_path)],
        capture_output=True, text=True, timeout=TIMEOUT, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert child.returncode == 0, child.stdout + child.stderr
    report = json.loads(child.stdout.splitlines()[-1])
    assert set(report["processes"]) == set(report["workers"])
    assert len(report["workers"]) == 2
    assert report["here"] not in report["workers"]
    assert set(report["threads"]) == {1.0}
    assert report["distant"] == report["local"]
    assert report["best"][0] == report["best"][1]
    assert report["same"]
    assert report["scores"][0] == report["scores"][1]
