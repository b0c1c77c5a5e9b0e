"""Sparse inputs: the same bits as the dense rows, whatever the format, without the memory of the dense rows."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from cases import Cases
from pairwise import pairwise
from problems import HEADS, SIZES, Array, Problem, draw
from scipy import sparse
from test_training_steps import RULES

import fastbp
from fastbp.engine.evaluation import Evaluator
from fastbp.engine.memory import aligned_zeros
from fastbp.engine.run import Run
from fastbp.engine.sparse import SparseRows
from fastbp.inputs import source
from fastbp.kernels.layers import BETA_1, BETA_2, EPSILON, ETA, MU, SCALE, STEP_COLUMNS

WATCHDOG = 300  # seconds; a quiet machine takes two
DTYPES = ["float32", "float64"]
FORMATS = ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"]


def thinned(rng: np.random.Generator, problem: Problem, density: float) -> Problem:
    """Set most of the inputs to 0, in place."""
    problem.X[rng.random(problem.X.shape) >= density] = 0
    return problem


def bits(arrays: Any) -> list[bytes]:
    return [np.ascontiguousarray(array).tobytes() for array in arrays]


def everything(problem: Problem, X: Any, batch_size: int, n_threads: int, update: str, l2: float) -> list[Any]:
    """Return all that a network makes of X, to the bit."""
    network, y = problem.network(seed=3), problem.y
    rest: dict[str, Any] = {"sample_weight": problem.weight, "n_threads": n_threads}
    results: list[Any] = [network.loss(X, y, **rest), network.accuracy(X, y, **rest)]
    for by in network.gradients(X, y, **rest):
        results.append(bits(by))
    history = network.fit(
        X, y, epochs=2, batch_size=batch_size, optimizer=RULES[update][0], l2=l2, validation_data=(X, y), verbose=False,
        **rest,
    )  # fmt: skip
    network.partial_fit(X, y, batch_size=batch_size, optimizer=RULES[update][0], l2=l2, **rest)
    results += [history.loss, history.validation_loss, bits(network.weights), bits(network.biases)]
    results += [bits(network.activations(X, n_threads=n_threads)), bits([network.predict_classes(X)])]
    return results


CASES = pairwise(
    {
        "n_in": [*SIZES, 79, 80, 81, 200, 256, 300],
        "n_hidden": [1, 7, 8, 16, 17, 33, 65],
        "m": [1, 10, 255, 256, 257, 600, 1100],
        "batch_size": [3, 255, 256, 257, 1024, 1025, 5000],
        "depth": [1, 2, 3],
        "density": [0.0, 0.05, 0.5, 1.0],
        "head": HEADS,
        "update": list(RULES),
        "n_threads": [1, 2, 3, 4],
        "bias": [True, False, "fixed"],
        "l2": [0.0, 0.01],
        "weighted": [False, True],
        "dtype": DTYPES,
    }
)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
def test_the_bits_of_the_dense_rows(n_threads: int, dtype: str) -> None:
    for case in [case for case in CASES if (case["dtype"], case["n_threads"]) == (dtype, n_threads)]:
        rng = np.random.default_rng(case["n_in"] + case["m"])
        sizes = [case["n_in"], *[case["n_hidden"]] * (case["depth"] - 1), 3]
        batch_size = max(case["batch_size"], case["m"] // 20)  # few steps
        problem = draw(rng, sizes, case["m"], hidden="tanh", head=case["head"], dtype=dtype, bias=case["bias"])
        problem = thinned(rng, problem, case["density"])
        if case["weighted"]:
            object.__setattr__(problem, "weight", rng.exponential(1, case["m"]))
        chosen = batch_size, n_threads, case["update"], case["l2"]
        ours, dense = (everything(problem, X, *chosen) for X in (sparse.csr_array(problem.X), problem.X))
        assert ours == dense, case


def test_nothing_but_the_non_zeros_is_read() -> None:
    """The test above would show it: one value changed changes the bits."""
    rng = np.random.default_rng(61)
    problem = thinned(rng, draw(rng, [50, 9, 3], 40), 0.1)
    X = sparse.csr_array(problem.X)
    before = problem.network().gradients(X, problem.y)[0][0]
    X.data[5] += 0.25
    after = problem.network().gradients(X, problem.y)[0][0]
    assert (before != after).any()


# What is taken


def unsorted(X: Array) -> Any:
    csr = sparse.csr_array(X)
    for begin, end in zip(csr.indptr, csr.indptr[1:], strict=False):
        csr.indices[begin:end] = csr.indices[begin:end][::-1].copy()
        csr.data[begin:end] = csr.data[begin:end][::-1].copy()
    return csr


def duplicated(X: Array) -> Any:
    """Each entry as two halves, which do not stand together."""
    coo = sparse.coo_array(X)
    twice = [np.concatenate([index, index[::-1]]) for index in (coo.row, coo.col)]
    order = np.argsort(twice[0], kind="stable")
    counts = np.bincount(twice[0], minlength=len(X))
    data = np.concatenate([coo.data, coo.data[::-1]])[order] / 2
    return sparse.csr_array((data, twice[1][order], np.append(0, np.cumsum(counts))), shape=X.shape)


def flagged(X: Array) -> Any:
    """Unsorted, though SciPy was told that it is canonical."""
    csr = unsorted(X)
    csr.has_sorted_indices = csr.has_canonical_format = True
    return csr


def wide_indices(X: Array) -> Any:
    csr = sparse.csr_array(X)
    csr.indices, csr.indptr = csr.indices.astype(np.int64), csr.indptr.astype(np.int64)
    return csr


def explicit_zeros(X: Array) -> Any:
    full = sparse.csr_array(np.ones_like(X))
    full.data[:] = X.ravel()
    return full


def slack(X: Array) -> Any:
    """Room behind the last entry, with rubbish in it."""
    csr = sparse.csr_array(X)
    data, indices = np.append(csr.data, [np.nan] * 3), np.append(csr.indices, [-7, 10**6, 0])
    result = sparse.csr_array(X)
    result.data, result.indices = data, indices.astype(np.int32)
    return result


KINDS: dict[str, Callable[[Array], Any]] = {
    **{f"{name}_array": (lambda X, name=name: sparse.csr_array(X).asformat(name)) for name in FORMATS},
    "csr_matrix": sparse.csr_matrix,
    "csc_matrix": sparse.csc_matrix,
    "unsorted": unsorted,
    "duplicated": duplicated,
    "flagged": flagged,
    "int64": wide_indices,
    "explicit zeros": explicit_zeros,
    "slack": slack,
    "rows of a slice": lambda X: sparse.csr_array(np.vstack([X, X]))[: len(X)],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_format(dtype: str, kind: str) -> None:
    """The same bits as its dense rows, and the user's matrix stays as it is."""
    rng = np.random.default_rng(62)
    problem = thinned(rng, draw(rng, [21, 9, 3], 30, dtype=dtype), 0.3)
    problem.X[4] = 0  # an empty row
    problem.X[:, [0, 20]] = 0  # the first and the last column empty
    given = KINDS[kind](problem.X)
    kept = [np.array(part) for part in (given.data, given.indices)] if given.format == "csr" else []
    networks = [problem.network(seed=1) for _ in range(2)]
    for network, X in zip(networks, (given, problem.X), strict=True):
        network.fit(X, problem.y, batch_size=7, verbose=False)
    assert bits(networks[0].weights) == bits(networks[1].weights)
    assert networks[0].predict(given).tobytes() == networks[1].predict(problem.X).tobytes()
    for part, before in zip((given.data, given.indices) if kept else (), kept, strict=True):
        np.testing.assert_array_equal(part, before)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64"])
def test_every_dtype_of_values(dtype: str) -> None:
    X = (np.random.default_rng(63).random((20, 9)) < 0.3).astype(dtype)
    network = fastbp.Network([9, 3], seed=0)
    assert network.predict(sparse.csr_array(X)).tobytes() == network.predict(X).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_fits_is_read_in_place(dtype: str) -> None:
    X = sparse.random_array((20, 9), density=0.3, format="csr", dtype=dtype, rng=np.random.default_rng(64))
    X.indices = X.indices.astype(np.int32)
    rows = source(X, 9, dtype)
    assert isinstance(rows, SparseRows)
    assert np.shares_memory(rows.values, X.data)
    assert np.shares_memory(rows.k, X.indices)
    assert not np.shares_memory(rows.begins, X.indptr), "whoever changes them meanwhile may not harm"
    assert not any(array.flags.writeable for array in (rows.values, rows.k, rows.begins))
    assert X.data.flags.writeable


def test_validation_data_may_be_sparse_alone() -> None:
    rng = np.random.default_rng(65)
    problem = thinned(rng, draw(rng, [21, 3], 30), 0.3)
    dense, mixed = (
        problem.network(seed=0).fit(problem.X, problem.y, validation_data=(X, problem.y), verbose=False)
        for X in (problem.X, sparse.csc_array(problem.X))
    )
    assert dense.validation_loss == mixed.validation_loss


# At the door


def broken(**changes: Any) -> Any:
    """A matrix (3, 4) whose arrays were changed behind SciPy's back."""
    csr = sparse.csr_array(np.eye(3, 4))
    for name, value in changes.items():
        setattr(csr, name, np.array(value, getattr(csr, name).dtype))
    return csr


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "too few columns": (sparse.csr_array(np.eye(3)), ValueError, r"X has shape \(3, 3\); .*\(n, 4\)"),
    "no rows": (sparse.csr_array((0, 4)), ValueError, "X is empty"),
    "one dimension": (sparse.coo_array(np.ones(4)), ValueError, r"X has shape \(4,\)"),
    "complex": (sparse.csr_array(np.eye(3, 4) * 1j), TypeError, "X has dtype complex128"),
    "NaN": (sparse.csr_array([[0, 0, 0, 0], [0, 1, np.nan, 0.0]]), ValueError, "X is nan at row 1, column 2"),
    "infinite": (sparse.csc_array([[0, 0, 0, -np.inf], [0, 1, 0, 0]]), ValueError, "X is -inf at row 0, column 3"),
    "too large": (
        sparse.csr_array([[0, 1e300, 0, 0]]),
        ValueError,
        r"X is 1e\+300 at row 0, column 1.* float32",
    ),
    "a column too far": (broken(indices=[0, 1, 4]), ValueError, "corrupt: it has an entry in column 4"),
    "a column before": (broken(indices=[0, -1, 2]), ValueError, "corrupt: it has an entry in column -1"),
    "rows that fall": (broken(indptr=[0, 3, 1, 3]), ValueError, "corrupt: its indptr"),
    "rows beyond": (broken(indptr=[0, 1, 2, 9]), ValueError, "corrupt: its indptr"),
    "rows from 1": (broken(indptr=[1, 1, 2, 3]), ValueError, "corrupt: its indptr"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("call", ["fit", "predict"])
def test_wrong_matrices(call: str, name: str) -> None:
    X, error, message = WRONG[name]
    network = fastbp.Network([4, 2], seed=0)
    before = bits(network.weights)
    with pytest.raises(error, match=message):
        network.predict(X) if call == "predict" else network.fit(X, np.zeros((3, 2)), verbose=False)
    assert bits(network.weights) == before


def test_targets_are_not_sparse() -> None:
    with pytest.raises(TypeError, match=r"y is a sparse csr_array; .*toarray"):
        fastbp.Network([3, 3], seed=0).fit(sparse.csr_array(np.eye(3)), sparse.csr_array(np.eye(3)), verbose=False)


# Changed by another thread after the door, or between two readings: nothing beyond the parameters is read or written

GUARD = 1 << 21  # bytes on either side


class Guards:
    """Makes the engine's arrays with NaN around them, which must neither be overwritten nor come into what it computes.

    They lie as `aligned_zeros` lays them.
    """

    def __init__(self) -> None:
        self.whole: list[tuple[Array, int, int]] = []

    def zeros(self, n: int, dtype: Any) -> Array:
        guard = GUARD // np.dtype(dtype).itemsize
        raw = aligned_zeros(n + 2 * guard, dtype)
        raw[:guard] = raw[guard + n :] = np.nan
        self.whole.append((raw, guard, guard + n))
        return raw[guard : guard + n]

    def check(self) -> None:
        for raw, begin, end in self.whole:
            assert np.isnan(raw[:begin]).all()
            assert np.isnan(raw[end:]).all()


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> Guards:
    made = Guards()
    for module in fastbp.engine.narrow, fastbp.engine.parameters, fastbp.engine.workspace:
        monkeypatch.setattr(module, "aligned_zeros", made.zeros)
    return made


def test_the_guards_see_what_is_beyond(guards: Guards) -> None:
    for wrong in -1, 40, -(1 << 17), 1 << 17:
        array = guards.zeros(40, np.float64)
        guards.check()
        raw, begin, _ = guards.whole[-1]
        assert raw[begin] == array[0] == 0
        raw[begin + wrong] = 0
        with pytest.raises(AssertionError):
            guards.check()
        guards.whole.clear()


# taken as they are, only the nearest of them would lead into a guard: the others, to a crash
WILD = {
    "one beyond": [41],
    "one before": [-1],
    "the rows of padding and beyond": [*range(41, 80)],
    "far": [41 * 37, 10_000, -10_000],
    "anywhere": [-1, 41, 3000, -3000, 2**31 - 1, -(2**31), 2**30, -(2**30)],
}


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("wild", WILD)
@pytest.mark.parametrize("dtype", DTYPES)
def test_wild_columns_stay_within_the_parameters(guards: Guards, dtype: str, wild: str) -> None:
    """Any of them wrong, in no order: in a forward pass, and in gradients of one and of several blocks."""
    rng = np.random.default_rng(67)
    n, n_in = 700, 41
    for n_hidden, update, batch_size, n_threads in (9, "adam", 50, 1), (37, "sgd", 700, 2), (70, "momentum", 300, 3):
        problem = draw(rng, [n_in, n_hidden, 3], n, hidden="tanh", dtype=dtype)
        X = source(sparse.csr_array(thinned(rng, problem, 0.3).X), n_in, dtype)
        assert isinstance(X, SparseRows)
        k = X.k.copy()
        spoilt = rng.random(len(k)) < 0.3
        k[spoilt] = rng.choice(WILD[wild], spoilt.sum())
        X = SparseRows(X.values, k, X.begins, n_in)
        network = problem.network()
        run = Run(
            network.architecture, problem.weights, problem.biases, X, np.ascontiguousarray(problem.Y, dtype),
            batch_size=batch_size, update=update, n_threads=n_threads,
        )  # fmt: skip
        assert len(guards.whole) > 8
        starts = np.append(np.arange(0, n, batch_size), n)
        steps = np.zeros((len(starts) - 1, STEP_COLUMNS))
        steps[:, [ETA, MU, BETA_1, BETA_2, EPSILON]] = 1e-3, 0.5, 0.9, 0.999, 1e-8
        steps[:, SCALE] = 1 / np.diff(starts)
        run.minibatches(np.arange(n), starts, steps)
        weights, biases = run.canonical()
        guards.check()
        assert all(np.isfinite(array).all() for array in weights + biases), "what was read lies in no guard"
        outputs = np.empty((n, 3), dtype)
        Evaluator(network.architecture).evaluate(run.packed(), X, wanted={1: outputs}, n_threads=n_threads)
        guards.check()
        assert np.isfinite(outputs).all()


@pytest.mark.hazard("bad input", "columns of a CSR X changed by another thread during fit: no crash, finite weights")
def test_columns_changed_meanwhile(cases: Cases, tmp_path: Path) -> None:
    """From the first epoch's end on, so that nothing is refused at the door, and the next fit is as ever."""
    code = """
        import faulthandler, json, threading
        import numpy as np
        from scipy import sparse
        import fastbp

        faulthandler.enable()
        n, n_in, tried, held = 3000, 300, 0, 0
        y = np.arange(n) % 3

        class Begin(fastbp.Callback):
            def on_epoch_end(self, state):
                X.indices[::2] = worst
                scribbles.set()

        def fit(X, dtype, **options):
            network = fastbp.Network([n_in, 40, 3], output="softmax", dtype=dtype, seed=0)
            try:
                network.fit(X, y, epochs=12, verbose=False, **options)
            except FloatingPointError:
                pass
            return network.weights

        for dtype in "float32", "float64":
            right = sparse.random_array((n, n_in), density=0.1, format="csr", dtype=dtype, rng=0)
            right.indices = right.indices.astype(np.int32)
            expected = fit(right, dtype)
            for batch_size, n_threads in (32, 1), (32, 2), (600, 2):
                for worst in 2**31 - 1, -(2**31), -1, n_in, 10**6:
                    X, scribbles, stop = right.copy(), threading.Event(), threading.Event()

                    def scribble():
                        scribbles.wait()
                        rng = np.random.default_rng(0)
                        while not stop.is_set():
                            X.indices[rng.integers(X.nnz) :: 7] = worst
                            X.indices[:] = right.indices

                    thread = threading.Thread(target=scribble)
                    thread.start()
                    tried += 1
                    try:
                        weights = fit(X, dtype, batch_size=batch_size, n_threads=n_threads, callbacks=[Begin()])
                    finally:
                        stop.set()
                        scribbles.set()
                        thread.join()
                    held += all(np.isfinite(array).all() for array in weights)
            assert all((a == b).all() for a, b in zip(fit(right, dtype), expected, strict=True))
        print(json.dumps([tried, held]))
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=WATCHDOG, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    cases.count(*json.loads(done.stdout))


# Memory and work


@pytest.mark.parametrize("format", ["csr", "csc"])
def test_memory(format: str) -> None:
    """A dense copy would take 160 MB; the weights take 1.6 MB, of which a training has some copies, and X 1 MB."""
    n, n_in = 2000, 20_000
    X = sparse.random_array((n, n_in), density=0.002, format=format, dtype=np.float32, rng=np.random.default_rng(66))
    y = np.arange(n) % 3
    network = fastbp.Network([n_in, 20, 3], output="softmax", seed=0)

    def work() -> None:
        network.fit(X, y, batch_size=500, validation_data=(X, y), verbose=False)
        network.gradients(X, y)
        network.predict(X)

    network.fit(X[:10], y[:10], verbose=False)
    gc.collect()
    tracemalloc.start()
    try:
        work()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    weights = 4 * 20 * n_in
    assert peak <= 16 * weights + 4 * 12 * X.nnz + 500_000


def test_what_is_read_in_place_takes_no_memory() -> None:
    """Neither the values nor the columns, 4 MB each, are copied."""
    n, n_in = 5000, 500
    X = sparse.random_array((n, n_in), density=0.4, format="csr", dtype=np.float32, rng=np.random.default_rng(68))
    y = np.arange(n) % 3
    network = fastbp.Network([n_in, 3], output="softmax", seed=0)
    network.fit(X[:10], y[:10], verbose=False)
    gc.collect()
    tracemalloc.start()
    try:
        network.fit(X, y, batch_size=100, verbose=False)
        network.predict(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert X.indices.dtype == np.int32
    assert peak < 2 * X.nnz


def test_one_specialisation() -> None:
    from fastbp.kernels.evaluation import evaluate
    from fastbp.kernels.minibatch import train
    from fastbp.kernels.narrow import train_narrow

    for dtype in DTYPES:
        network = fastbp.Network([4, 2], dtype=dtype, seed=0)
        for X in np.eye(4), sparse.eye_array(4):
            for weight in None, np.ones(4):
                for batch_size in 2, 10:
                    options = {"sample_weight": weight, "l2": 0.1, "batch_size": batch_size, "verbose": False}
                    network.fit(X, np.eye(4, 2), **options)
                network.predict(X)
    assert len(train.signatures) <= 2
    assert len(train_narrow.signatures) <= 2
    assert len(evaluate.signatures) <= 2
