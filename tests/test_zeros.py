"""Dense X of which most entries are zero: the kernels that leave them out make the numbers of those that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pairwise import pairwise
from problems import HEADS, SIZES, draw
from scipy import sparse
from test_sparse import everything, thinned
from test_training_steps import RULES

import fastbp
import fastbp.engine.evaluation
import fastbp.engine.wide
from fastbp.engine.run import Run
from fastbp.engine.sparse import SparseRows, is_mostly_zero
from fastbp.inputs import source
from fastbp.kernels.layers import HALVED, WORDS

DTYPES = ["float32", "float64"]
ADAM = {"update": "adam", "batch_size": 64}
pytestmark = pytest.mark.usefixtures("all_wide")  # narrow networks leave out none


@pytest.fixture
def leave_out(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what makes all later calls leave out zeros, or none."""

    def decide(answer: bool) -> None:
        for module in fastbp.engine.wide, fastbp.engine.evaluation:
            monkeypatch.setattr(module, "is_mostly_zero", lambda X: answer and not isinstance(X, SparseRows))
        monkeypatch.setattr(fastbp.engine.wide, "ROWS_WITHOUT_ZEROS", 1)

    return decide


# The same bits

CASES = pairwise(
    {
        "n_in": [*SIZES, 64, 65, 79, 80, 81, 127, 128, 200, 256, 321, 403],
        "n_hidden": [1, 7, 8, 16, 17, 33, 65, 100, 129],
        "m": [1, 10, 127, 255, 256, 257, 600, 1100],
        "batch_size": [3, 32, 128, 200, 255, 257, 1024, 1025, 5000],
        "depth": [1, 2, 3],
        "density": [0.0, 0.05, 0.3, 1.0],
        "head": HEADS,
        "update": list(RULES),
        "n_threads": [1, 2, 3, 4],
        "bias": [True, False, "fixed"],
        "l2": [0.0, 0.01],
        "weighted": [False, True],
        "layout": ["rows", "columns", "float32"],
        "dtype": DTYPES,
    }
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
def test_the_bits_of_all_products(n_threads: int, dtype: str, leave_out: Any) -> None:
    for case in [case for case in CASES if (case["dtype"], case["n_threads"]) == (dtype, n_threads)]:
        rng = np.random.default_rng(case["n_in"] + case["m"])
        sizes = [case["n_in"], *[case["n_hidden"]] * (case["depth"] - 1), 3]
        batch_size = max(case["batch_size"], case["m"] // 20)  # few steps
        problem = draw(rng, sizes, case["m"], hidden="tanh", head=case["head"], dtype=dtype, bias=case["bias"])
        problem = thinned(rng, problem, case["density"])
        problem.X[:] *= 0.5  # no loss shall overflow
        if case["weighted"]:
            object.__setattr__(problem, "weight", rng.exponential(1, case["m"]))
        X = np.asfortranarray(problem.X) if case["layout"] == "columns" else problem.X
        X = X.astype(np.float32) if case["layout"] == "float32" else X
        results = []
        for answer in True, False:
            leave_out(answer)
            results.append(everything(problem, X, batch_size, n_threads, case["update"], case["l2"]))
        assert results[0] == results[1], case


def run_of(X: NDArray[Any], **options: Any) -> Run:
    problem = draw(np.random.default_rng(0), [X.shape[1], 20, 3], len(X), dtype=X.dtype.name)
    network = problem.network()
    return Run(network.architecture, network.weights, network.biases, X, problem.y, **{**ADAM, **options})


@pytest.mark.parametrize(
    ("density", "batch_size", "leaves_out"),
    [(0.3, 64, True), (0.3, 32, True), (0.3, 31, False), (0.6, 64, False), (1.0, 64, False)],
)
def test_who_leaves_out_zeros(density: float, batch_size: int, leaves_out: bool) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((500, 100)) * (rng.random((500, 100)) < density)
    run = run_of(X, batch_size=batch_size)
    assert (run._layers[:, WORDS] > 0).tolist() == [leaves_out, False]


@pytest.mark.parametrize(
    ("n_in", "in_first", "density", "batch_size", "zeros", "halved"),
    [
        (400, 0.5, 0.3, 64, True, True),
        (400, 0.5, 0.3, 129, True, True),
        (400, 0.8, 0.3, 64, True, False),
        (255, 0.5, 0.3, 64, True, False),
        (400, 0.8, 0.6, 128, False, True),
        (400, 0.8, 0.6, 129, False, False),
        (255, 0.5, 0.6, 64, False, False),
    ],
)
def test_who_divides_the_inputs(
    n_in: int, in_first: float, density: float, batch_size: int, zeros: bool, halved: bool
) -> None:
    rng = np.random.default_rng(3)
    densities = np.where(np.arange(n_in) < n_in // 2, in_first, 1 - in_first) * 2 * density
    X = rng.standard_normal((500, n_in)) * (rng.random((500, n_in)) < densities)
    run = run_of(X, batch_size=batch_size, n_threads=1)
    assert run._layers[:, HALVED].tolist() == [halved, False]
    assert (run._layers[:, WORDS] > 0).tolist() == [zeros, False]


def test_who_has_replicas_divides_nothing() -> None:
    run = run_of(np.ones((500, 400)), batch_size=256, n_threads=2)
    assert run._setup.replicas.n == 2
    assert run._layers[:, HALVED].tolist() == [False, False]


# What is mostly zero


def entries(density: float, shape: tuple[int, int] = (1000, 80)) -> NDArray[Any]:
    rng = np.random.default_rng(2)
    return rng.standard_normal(shape) * (rng.random(shape) < density)


@pytest.mark.parametrize("density", [0.0, 0.2, 0.35])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_few_entries_are_not_zero(density: float, dtype: str, order: Any) -> None:
    assert is_mostly_zero(entries(density).astype(dtype, order=order))


def test_a_few_samples_at_one_end_do_not_decide() -> None:
    X = entries(0.2)
    X[:100] = 1
    assert is_mostly_zero(X)
    X[:] = 1
    X[-100:] = 0
    assert not is_mostly_zero(X)


def test_neither_many_entries_nor_small_matrices_nor_compressed_rows() -> None:
    assert not is_mostly_zero(entries(0.5))
    assert not is_mostly_zero(np.full((1000, 80), np.nan))
    assert not is_mostly_zero(np.zeros((63, 80)))
    assert not is_mostly_zero(np.zeros((1000, 63)))
    rows = source(sparse.csr_array(entries(0.1)), 80, np.dtype("float64"))
    assert isinstance(rows, SparseRows)
    assert not is_mostly_zero(rows)


# Numbers that are not finite


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("k", [0, 63, 64, 99])
def test_they_are_found_among_zeros(k: int, value: float, n_threads: int) -> None:
    X = entries(0.1, (300, 100))
    network = fastbp.Network([100, 20, 1], loss="mse", dtype="float64", seed=0)
    X[217, k] = value
    said = f"X is {value} at row 217, column {k}"
    for call in network.predict, lambda X, **options: network.fit(X, np.ones(300), verbose=False, **options):
        with pytest.raises(ValueError, match=said):
            call(X, n_threads=n_threads)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_a_loss_that_overflows_is_said_where_it_does(n_threads: int, leave_out: Any) -> None:
    X = entries(0.1, (256, 100)) * 1e3
    said = []
    for answer in True, False:
        leave_out(answer)
        network = fastbp.Network([100, 40, 1], hidden="relu", output="identity", loss="mse", dtype="float32", seed=0)
        with pytest.raises(FloatingPointError) as error:
            network.fit(
                X, X[:, :1], epochs=50, batch_size=64, optimizer=fastbp.SGD(10.0), verbose=False, n_threads=n_threads
            )
        said.append((str(error.value), [w.tobytes() for w in network.weights]))
    assert said[0] == said[1]
