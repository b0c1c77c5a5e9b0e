"""
A grid search on a cluster
==========================

scikit-learn's searches train candidates by joblib, and joblib hands them to a dask cluster inside
``joblib.parallel_config("dask")``. With fastbp's estimators nothing else changes. Here the cluster is one of two worker
processes on this machine; with ``Client("tcp://scheduler:8786")`` it is any other.

Needs `pip install 'fastbp[sklearn,dask]'`.
"""

import os
import warnings
from collections import Counter

import joblib
import numpy as np
from distributed import Client, LocalCluster
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, train_test_split

import fastbp
from fastbp.sklearn import MLPClassifier

# %%
# The search
# ----------
# Twelve candidates, three folds each: 36 trainings, and one more of the best. The scorer also tells in which process it
# is and how many threads a training there may take; it runs where the candidate was trained.

GRID = {"hidden_layer_sizes": [(32,), (64,), (32, 16)], "alpha": [1e-4, 1.0], "batch_size": [32, 200]}
FOLDS = 3


def measured(estimator, X, y):
    """Return what the search shall keep of a trained candidate."""
    return {"accuracy": estimator.score(X, y), "process": os.getpid(), "threads": fastbp.get_num_threads()}


def search(X, y):
    """Return the fitted search; that it may run on a cluster does not show here."""
    candidate = MLPClassifier(max_iter=20, random_state=0)
    found = GridSearchCV(candidate, GRID, cv=FOLDS, scoring=measured, refit="accuracy", n_jobs=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # twenty epochs are not enough to converge
        return found.fit(X, y)


def collected(found, name):
    """Return a measurement of every training."""
    return np.array([found.cv_results_[f"split{fold}_test_{name}"] for fold in range(FOLDS)]).ravel()


# %%
# The cluster
# -----------
# Two processes of one thread each. dask sets OMP_NUM_THREADS to 1 in them, which fastbp heeds: as many candidates train
# at a time as there are workers, each on one core. The status page gets any free port: another cluster may have 8787.


def search_on_cluster(X, y):
    """Return the same search, its candidates trained by two worker processes."""
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster), joblib.parallel_config("dask"):
        return search(X, y)


# %%
# Here and there
# --------------
# The same numbers come out, to the bit. The workers start as new processes that import this file, hence the guard at
# its end, as with multiprocessing.


def main():
    """Search here, then on the cluster, and compare."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16, y, random_state=0, stratify=y)
    with joblib.parallel_config("sequential"):
        local = search(X, y)
    distant = search_on_cluster(X, y)

    trainings = Counter(collected(distant, "process").astype(int))
    print(f"{trainings.total()} trainings in {len(trainings)} processes; any in this one: {os.getpid() in trainings}")
    print(f"threads of a training: {int(collected(distant, 'threads').max())}")
    difference = np.abs(collected(distant, "accuracy") - collected(local, "accuracy")).max()
    print(f"largest difference of an accuracy from the local search's: {difference}")
    weights = zip(distant.best_estimator_.coefs_, local.best_estimator_.coefs_, strict=True)
    print(f"the same best weights, to the bit: {all(np.array_equal(a, b) for a, b in weights)}")
    print(f"best: {distant.best_params_}")
    print(f"accuracy on the held-out images: {distant.best_estimator_.score(X_test, y_test):.1%}")


if __name__ == "__main__":
    main()
