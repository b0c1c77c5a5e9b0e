"""mnist_loader: MNIST as the book's programs take it.

It stands in for `src/mnist_loader.py`: 50 000 images to train, 10 000 to validate (the last of the published training
set), 10 000 to test; pixels are divided by 256, as in the book's file `mnist.pkl.gz`.
"""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.datasets import load_mnist
from fastbp.nielsen.network2 import vectorized_result

__all__ = ["load_data", "load_data_wrapper", "vectorized_result"]

Part = tuple[NDArray[np.float32], NDArray[np.int64]]
Pairs = list[tuple[NDArray[Any], Any]]

BOOKS_PLACE = Path("..", "data", "mnist.pkl.gz")
N_VALIDATION = 10_000


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes that a pickle had to write as text."""
    return text.encode(encoding)


# All that a pickle of arrays needs, from Python 2 and 3; one that asks for more is not data, and might run anything.
PICKLED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("_codecs", "encode"): _encode,
}
for _core in "numpy.core", "numpy._core":
    PICKLED[f"{_core}.multiarray", "_reconstruct"] = np.zeros(1).__reduce__()[0]
    PICKLED[f"{_core}.numeric", "_frombuffer"] = np.zeros(1).__reduce_ex__(5)[0]


def load_data(path: str | os.PathLike[str] | None = None) -> tuple[Part, Part, Part]:
    """Read MNIST.

    Parameters
    ----------
    path : path, optional
        The book's `mnist.pkl.gz`, or a folder with MNIST's IDX files. By default the book's file where the book has it
        (``../data/mnist.pkl.gz``), or else IDX files where `fastbp.datasets.load_mnist` finds them.

    Returns
    -------
    training_data, validation_data, test_data : tuples (X, y)
        X (n, 784) float32, between 0 and 255/256; y (n,) int64, the digits. n is 50 000, 10 000, 10 000.

    Raises
    ------
    FileNotFoundError
        There is no MNIST.
    ValueError
        A file is damaged or holds something else.

    Examples
    --------
    >>> from fastbp.nielsen import mnist_loader
    >>> training_data, validation_data, test_data = mnist_loader.load_data()  # doctest: +SKIP
    >>> training_data[0].shape  # doctest: +SKIP
    (50000, 784)
    """
    if path is None and BOOKS_PLACE.is_file():
        path = BOOKS_PLACE
    if path is not None and not Path(path).is_dir():
        return _read_pickle(Path(path))
    X, y, X_test, y_test = load_mnist(path)
    for images in X, X_test:
        images *= 255  # rounds to the bytes of the files, each of the 256
        images /= 256
    split = len(X) - N_VALIDATION
    if split < 1:
        raise ValueError(f"MNIST has 60000 training images, but here are {len(X)}: too few to set 10000 aside")
    return (X[:split], y[:split]), (X[split:], y[split:]), (X_test, y_test)


def load_data_wrapper(path: str | os.PathLike[str] | None = None) -> tuple[Pairs, Pairs, Pairs]:
    """Read MNIST as lists of pairs.

    Parameters
    ----------
    path : path, optional
        As for `load_data`.

    Returns
    -------
    training_data : list of (x, y)
        x (784, 1) float32; y (10, 1) float64, `vectorized_result` of the digit.
    validation_data, test_data : lists of (x, label)
        Labels are int64.

    Examples
    --------
    >>> from fastbp.nielsen import mnist_loader
    >>> training_data, validation_data, test_data = mnist_loader.load_data_wrapper()  # doctest: +SKIP
    >>> len(training_data), len(validation_data), len(test_data)  # doctest: +SKIP
    (50000, 10000, 10000)
    """
    training, validation, test = load_data(path)
    return (
        list(zip(_columns(training[0]), _columns(np.eye(10)[training[1]]), strict=True)),
        list(zip(_columns(validation[0]), validation[1], strict=True)),
        list(zip(_columns(test[0]), test[1], strict=True)),
    )


def _columns(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the rows of a matrix as columns (n, 1), views of it."""
    return list(rows[:, :, np.newaxis])


class _Unpickler(pickle.Unpickler):
    """Reads arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return PICKLED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array") from None


def _read_pickle(path: Path) -> tuple[Part, Part, Part]:
    try:
        with gzip.open(path) as file:
            parts = _Unpickler(file, encoding="latin1").load()
        training, validation, test = (_checked(*part) for part in parts)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(f"{path} is not the book's mnist.pkl.gz, or damaged ({error}): fetch it anew") from error
    return training, validation, test


def _checked(X: Any, y: Any) -> Part:
    if not (isinstance(X, np.ndarray) and isinstance(y, np.ndarray) and X.ndim == 2 and y.shape == X.shape[:1]):
        raise ValueError("it does not hold images and their labels")
    return X, y
