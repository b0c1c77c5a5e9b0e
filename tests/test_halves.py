"""Halves: two workers divide the inputs of the first layer, and have replicas of small layers above it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pairwise import pairwise
from problems import HEADS, draw
from test_sparse import everything
from test_training_steps import RULES

from fastbp.engine.run import Run
from fastbp.kernels.layers import CHAINS, HALVED

DTYPES = ["float32", "float64"]
pytestmark = pytest.mark.usefixtures("all_wide")  # narrow networks divide samples only


def run_of(X: NDArray[Any], sizes: list[int], batch_size: int, n_threads: int = 2) -> Run:
    problem = draw(np.random.default_rng(0), sizes, len(X), dtype=X.dtype.name)
    network = problem.network()
    return Run(
        network.architecture, network.weights, network.biases, X, problem.y,
        batch_size=batch_size, update="sgd", n_threads=n_threads,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "batch_size", "halved", "replicas"),
    [
        ([300, 30, 10], 10, True, CHAINS),
        ([300, 30, 10], 50, True, CHAINS),
        ([300, 30, 10], 51, True, 0),  # to compute the layers above twice takes longer than to meet
        ([300, 32, 500], 1, True, 0),
        ([300, 10], 128, True, CHAINS),
        ([300, 33, 10], 10, False, 0),
        ([255, 30, 10], 10, False, 0),
        ([384, 30, 10], 10, True, 0),  # rows of X are copied side by side
    ],
)
def test_who_has_replicas_of_the_layers_above(sizes: list[int], batch_size: int, halved: bool, replicas: int) -> None:
    run = run_of(np.ones((200, sizes[0]), np.float32), sizes, batch_size)
    assert run._layers[0, HALVED] == halved
    assert run._setup.replicas.n == replicas


@pytest.mark.parametrize(("n_threads", "replicas"), [(1, 0), (2, CHAINS), (3, 0), (4, 0)])
def test_two_workers_have_replicas(n_threads: int, replicas: int) -> None:
    run = run_of(np.ones((200, 300), np.float32), [300, 30, 10], 10, n_threads)
    assert run._setup.replicas.n == replicas


def test_mini_batches_of_several_blocks_are_shared() -> None:
    """Zeros of both halves are left out; however little there is above, no block of a gradient may be longer."""
    for batch_size, replicas in (128, CHAINS), (129, 0), (600, 0):
        run = run_of(np.eye(600, dtype=np.float32), [600, 40], batch_size)
        assert run._layers[0, HALVED]
        assert run._setup.replicas.n == replicas
    problem = draw(np.random.default_rng(1), [600, 40], 600)
    one, two = (everything(problem, np.eye(600, dtype=np.float32), 300, n, "adam", 0.01) for n in (1, 2))
    assert one == two


CASES = pairwise(
    {
        "n_in": [256, 300, 401, 784],
        "n_hidden": [1, 8, 17, 30, 32],
        "depth": [1, 2, 3],
        "m": [1, 10, 63, 200],
        "batch_size": [1, 3, 10, 13],
        "head": HEADS,
        "update": list(RULES),
        "bias": [True, False, "fixed"],
        "l2": [0.0, 0.01],
        "weighted": [False, True],
        "density": [0.3, 1.0],
        "dtype": DTYPES,
    }
)


@pytest.mark.parametrize("case", CASES)
def test_two_workers_make_the_bits_of_one(case: dict[str, Any]) -> None:
    """Again and again: whoever is ahead computes the next mini-batch while the other reads."""
    rng = np.random.default_rng(case["n_in"] + case["m"])
    sizes = [case["n_in"], *[case["n_hidden"]] * (case["depth"] - 1), 4]
    problem = draw(rng, sizes, case["m"], hidden="tanh", head=case["head"], dtype=case["dtype"], bias=case["bias"])
    problem.X[:] *= 0.1 * (rng.random(problem.X.shape) < case["density"])  # no loss shall overflow
    if case["weighted"]:
        object.__setattr__(problem, "weight", rng.exponential(1, case["m"]))
    rest = case["update"], case["l2"]
    one = everything(problem, problem.X, case["batch_size"], 1, *rest)
    for _ in range(5):
        assert everything(problem, problem.X, case["batch_size"], 2, *rest) == one


@pytest.mark.parametrize("n_hidden", [17, 30])
@pytest.mark.parametrize("dtype", DTYPES)
def test_who_is_ahead_changes_nothing_that_the_other_reads(n_hidden: int, dtype: str) -> None:
    """Many short mini-batches of many inputs, with one panel of neurons or two."""
    rng = np.random.default_rng(0)
    problem = draw(rng, [784, n_hidden, 10], 400, dtype=dtype)
    problem.X[:] *= 0.1
    one = everything(problem, problem.X, 10, 1, "sgd", 0.0)
    for _ in range(20):
        assert everything(problem, problem.X, 10, 2, "sgd", 0.0) == one
