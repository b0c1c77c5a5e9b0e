"""Any input: arrays of every dtype, layout and shape, generated; the result is that of a clean copy, or an error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from cases import Cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastbp

N_IN, N_OUT = 4, 3
WATCHDOG = 300  # seconds; a quiet machine takes two
Array = np.ndarray[Any, Any]

REALS = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g", ">i2", ">i8", ">u4", ">f4", ">f8"]
OTHERS = ["M8[s]", "m8[D]", "O", "U3", "S3", "F", "D", "f4,f4", "V4"]


class Heir(np.ndarray):  # type: ignore[type-arg]
    """A sub-class that has ideas of its own, which are not asked for."""

    def __array_ufunc__(self, *arguments: Any, **options: Any) -> Any:
        raise AssertionError("fastbp computes with a plain array")

    def __array_function__(self, *arguments: Any, **options: Any) -> Any:
        raise AssertionError("fastbp computes with a plain array")


def unaligned(A: Array) -> Array:
    raw = np.empty(A.nbytes + 1, np.uint8)
    copy: Array = np.ndarray(A.shape, A.dtype, raw.data, offset=1)
    copy[...] = A
    return copy


def read_only(A: Array) -> Array:
    copy = A.copy()
    copy.flags.writeable = False
    return copy


def mapped(A: Array) -> Array:
    file = Path(mapped.folder) / f"{len(list(Path(mapped.folder).iterdir()))}"  # type: ignore[attr-defined]
    file.write_bytes(A.tobytes())
    return np.memmap(file, A.dtype, "r", shape=A.shape)


def every_second(A: Array) -> Array:
    wide = np.zeros(tuple(2 * n for n in A.shape), A.dtype)
    wide[tuple(slice(None, None, 2) for _ in A.shape)] = A
    return wide[tuple(slice(None, None, 2) for _ in A.shape)]


LAYOUTS: dict[str, Callable[[Array], Any]] = {
    "C": np.array,
    "F": np.asfortranarray,
    "negative strides": lambda A: np.flip(np.flip(A).copy()),
    "every second": every_second,
    "zero strides": lambda A: np.broadcast_to(A[:1], A.shape),
    "unaligned": unaligned,
    "read-only": read_only,
    "memmap": mapped,
    "masked, nothing hidden": np.ma.array,
    "masked": lambda A: np.ma.array(A, mask=np.arange(A.size).reshape(A.shape) == A.size - 1),
    "sub-class": lambda A: A.view(Heir),
    "list": lambda A: A.tolist(),
}
SHAPES = [(6, N_IN), (1, N_IN), (0, N_IN), (6, 1), (6, N_IN + 1), (N_IN,), (0,), (2, 3, N_IN), (), (6, 0), (1, 1)]


def is_made_of_memory(layout: str, dtype: np.dtype[Any]) -> bool:
    return dtype.kind != "O" or layout not in ("unaligned", "memmap")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mapped")
    mapped.folder = path  # type: ignore[attr-defined]
    return path


def bits(A: Any) -> Any:
    """Return the bits of an argument, or of what a list holds, to see whether they change."""
    if isinstance(A, np.ma.MaskedArray):
        return bits(A.data), bits(A.mask)
    if isinstance(A, np.ndarray):
        base = A.base if isinstance(A.base, np.ndarray) and A.base.dtype != object else A
        contents = [np.asarray(array).tobytes() for array in (A, base)]
        return contents, A.shape, A.strides, A.dtype, A.flags.writeable
    return repr(A)


def results(X: Any, y: Any, dtype: str, n_in: int = N_IN) -> list[bytes]:
    """Return the bits of all that a network makes of X and y, or what it says when their numbers are too large."""
    network = fastbp.Network([n_in, 5, N_OUT], hidden="tanh", output="sigmoid", loss="mse", dtype=dtype, seed=0)
    try:
        history = network.fit(X, y, epochs=2, batch_size=4, verbose=False)
    except FloatingPointError as error:
        return [str(error).encode()]
    numbers = [*network.weights, *network.biases, network.predict(X), *network.gradients(X, y)[0]]
    return [np.asarray(A).tobytes() for A in numbers] + [repr((history.loss, network.loss(X, y))).encode()]


def agrees(X: Any, y: Any, clean: tuple[Array, Array] | None, dtype: str, n_in: int = N_IN) -> None:
    """Check that the results are those of a clean copy, or, where there is none, that the error is a documented one."""
    before = bits(X), bits(y)
    if clean is None:
        with pytest.raises((TypeError, ValueError), match=r"^[Xy]\S* (is|has|cannot be read) ") as refusal:
            results(X, y, dtype, n_in)
        assert type(refusal.value) in (TypeError, ValueError), "not a descendant that something else raised"
    else:
        assert results(X, y, dtype, n_in) == results(*clean, dtype, n_in)
    assert (bits(X), bits(y)) == before


def try_examples(cases: Cases, examples: int, check: Callable[..., None], **strategies: Any) -> None:
    """Check that many examples, each a case."""

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(**strategies)
    def one(**arguments: Any) -> None:
        check(**arguments)
        cases.count(1, 1)

    one()


def clean_copy(A: Any, shape: tuple[int, ...], dtype: str) -> Array | None:
    """Return what an argument stands for, read by way of Python's numbers; None where it stands for nothing."""
    if isinstance(A, np.ndarray) and A.dtype.kind not in "biuf":
        return None
    if isinstance(A, np.ma.MaskedArray):
        if A.mask.any():
            return None
        A = A.data
    plain = np.array(A.tolist() if isinstance(A, np.ndarray) and A.dtype.char != "g" else A)
    if plain.dtype.kind not in "biuf" or plain.ndim != len(shape) or plain.shape != shape or 0 in shape:
        return None
    with np.errstate(over="ignore"):
        result = plain.astype(dtype)
    return result if np.isfinite(result).all() else None


@pytest.mark.hazard("bad input", "X of any dtype, layout and shape: the result of a clean copy, or an error")
def test_any_X(cases: Cases, folder: Path) -> None:
    def check(source: str, layout: str, shape: tuple[int, ...], n_in: int, dtype: str, values: str, seed: int) -> None:
        if n_in == 1 and shape == (6, N_IN):
            shape = 6, 1  # of a single feature, as it is wanted
        rng = np.random.default_rng(seed)
        numbers = rng.integers(0, 2 if source == "?" else 100, shape)
        with np.errstate(all="ignore"):
            A = np.array(numbers).astype(source) if source not in ("f4,f4", "V4") else np.zeros(shape, source)
        if values != "small" and A.dtype.kind == "f" and A.size:
            huge = {"nan": np.nan, "inf": np.inf, "huge": np.finfo(source).max, "tiny": np.finfo(source).tiny}[values]
            A.flat[rng.integers(A.size)] = huge
        if A.ndim == 0 or not is_made_of_memory(layout, A.dtype) or (layout == "memmap" and not A.size):
            layout = "C"
        X = LAYOUTS[layout](A)
        n = len(A) if A.ndim else 1
        y = rng.random((max(n, 1), N_OUT)).astype(dtype)
        clean = clean_copy(X, (n, n_in), dtype)
        agrees(X, y, None if clean is None else (clean, y), dtype, n_in)

    try_examples(
        cases,
        400,
        check,
        source=st.sampled_from(REALS + OTHERS),
        layout=st.sampled_from(sorted(LAYOUTS)),
        shape=st.sampled_from(SHAPES) | st.just((6, N_IN)),
        n_in=st.sampled_from([N_IN, N_IN, N_IN, 1]),
        dtype=st.sampled_from(["float32", "float64"]),
        values=st.sampled_from(["small", "small", "small", "nan", "inf", "huge", "tiny"]),
        seed=st.integers(0, 2**32 - 1),
    )


LABELS = [0, 1, 2, 2, 1, 0]


@pytest.mark.hazard("bad input", "labels of any dtype and layout, negative, 2^63 - 1, floats, strings")
def test_any_labels(cases: Cases, folder: Path) -> None:
    def check(source: str, layout: str, wrong: int | None, at: int, dtype: str) -> None:
        X = np.random.default_rng(at).random((6, N_IN)).astype(dtype)
        labels = np.array(LABELS)
        with np.errstate(all="ignore"):
            A = labels.astype(source) if source not in ("f4,f4", "V4") else np.zeros(6, source)
        right = A.dtype.kind in "iu"
        if wrong is not None and right and np.iinfo(source).min <= wrong <= np.iinfo(source).max:
            A[at] = wrong
        if not is_made_of_memory(layout, A.dtype):
            layout = "C"
        y = LAYOUTS[layout](A)
        plain = np.array(y.tolist() if isinstance(y, np.ndarray) else y)
        right = (right or (layout == "list" and plain.dtype.kind in "iu")) and layout != "masked"
        right = right and all(0 <= label < N_OUT for label in plain.tolist())
        agrees(X, y, (X, plain.astype(np.int64)) if right else None, dtype)

    try_examples(
        cases,
        200,
        check,
        source=st.sampled_from(REALS + OTHERS),
        layout=st.sampled_from(sorted(LAYOUTS)),
        wrong=st.none() | st.sampled_from([-1, N_OUT, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 127, -128, 255, 2**32]),
        at=st.integers(0, 5),
        dtype=st.sampled_from(["float32", "float64"]),
    )


@pytest.mark.hazard("bad input", "X and y changed by another thread during fit: no crash, finite weights")
def test_arrays_changed_meanwhile(cases: Cases, tmp_path: Path) -> None:
    """What comes out is of no use, but it is numbers, or a FloatingPointError; nobody's memory is overwritten."""
    code = """
        import faulthandler, json, sys, threading, time
        import numpy as np
        import fastbp

        faulthandler.enable()
        rng, tried, held = np.random.default_rng(0), 0, 0
        for i in range(16):
            dtype, labels = ["float32", "float64"][i % 2], i // 2 % 2
            X = rng.random((2000, 20)).astype(dtype)
            y = np.arange(2000) % 3 if labels else np.eye(3, dtype=dtype)[np.arange(2000) % 3]
            bad = [np.nan, np.inf, 1e30, -1e30][i % 4]
            worst = [2**62, -(2**40), 10**6, -1][i % 4]
            stop = threading.Event()

            def scribble():
                while not stop.is_set():
                    X[rng.integers(2000)] = bad
                    y[rng.integers(2000)] = worst if labels else bad
                    time.sleep(1e-5)
                    X[:], y[:] = 0.5, 0

            network = fastbp.Network([20, 30, 3], hidden="relu", output="softmax", dtype=dtype, seed=i)
            thread = threading.Thread(target=scribble)
            tried += 1
            try:
                network.fit(X[:10], np.arange(10) % 3, verbose=False)  # compiled before
                X_given, y_given = X.copy(), y.copy()
                thread.start()
                for _ in range(3):
                    X[:], y[:] = X_given, y_given
                    try:
                        network.fit(X, y, epochs=10, batch_size=16, n_threads=1 + i % 3, verbose=False)
                    except (FloatingPointError, ValueError):
                        pass
            finally:
                stop.set()
                thread.join()
            try:
                network.fit(X_given, y_given, verbose=False)
            except FloatingPointError:  # weights that 1e30 made are finite, and too large to go on from
                assert abs(bad) == 1e30
            held += all(np.isfinite(A).all() for A in (*network.weights, *network.biases))

        try:
            from scipy.sparse import random_array
        except ImportError:
            random_array = None
        for i in range(4 if random_array else 0):
            X = random_array((2000, 300), density=0.05, format="csr", dtype=np.float32, rng=0)
            right = X.copy()
            for array in X.indices, X.indptr:
                for worst in 2**31 - 1, -(2**31), 10**6:
                    stop = threading.Event()

                    def scramble():
                        while not stop.is_set():
                            array[::3] = worst
                            time.sleep(1e-4)
                            X.indices[:], X.indptr[:] = right.indices, right.indptr
                            time.sleep(1e-4)

                    network = fastbp.Network([300, 20, 3], output="softmax", seed=0)
                    network.fit(right[:10], np.arange(10) % 3, verbose=False)
                    thread = threading.Thread(target=scramble)
                    thread.start()
                    tried += 1
                    try:
                        network.fit(X, np.arange(2000) % 3, epochs=3, n_threads=1 + i % 2, verbose=False)
                    except ValueError:
                        pass
                    finally:
                        stop.set()
                        thread.join()
                    held += all(np.isfinite(A).all() for A in network.weights)
        print(json.dumps([tried, held]))
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=WATCHDOG, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    cases.count(*json.loads(done.stdout))
