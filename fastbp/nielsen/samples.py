"""Samples: a list of pairs (x, y), as the book has them, and the same as matrices, as the engine wants them."""

from __future__ import annotations

import random as _random
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHUFFLES", "Samples", "Shuffle"]

Floats = NDArray[Any]
Shuffle = Literal["python3", "python2"]
SHUFFLES: tuple[Shuffle, ...] = ("python3", "python2")


class Samples:
    """Pairs (x, y), and their matrices once somebody asks for them.

    The matrices are made once and stay as they are when the pairs are shuffled: only `order` follows.

    Parameters
    ----------
    given : iterable of (x, y)
        A list is taken as it is, so that its owner sees it shuffled; anything else is listed.

    Attributes
    ----------
    pairs : list of (x, y)
    order : int64 array (n,)
        pairs[i] is row order[i] of the matrices.
    outputs : array (n, n_out) or None
        What a network answers to them, if that is known; in the order of the matrices.
    """

    def __init__(self, given: Iterable[Any]) -> None:
        self.pairs: list[Any] = given if isinstance(given, list) else list(given)
        self.forget()

    def __len__(self) -> int:
        return len(self.pairs)

    def forget(self) -> None:
        """Drop the matrices: the pairs may have changed since."""
        self.order = np.zeros(0, np.int64)
        self.outputs: Floats | None = None
        self._columns: tuple[list[Any], list[Any]] | None = None
        self._matrices: dict[tuple[str, int | None], Floats | None] = {}

    def shuffle(self, random: Any, kind: Shuffle) -> bool:
        """Shuffle the pairs as the book does.

        Parameters
        ----------
        random : module or random.Random
            Whose `shuffle` (Python 3) or `random` (Python 2) makes the draws; it is left as the book would leave it.
        kind : "python3" or "python2"

        Returns
        -------
        bool
            Whether it was the ordinary shuffle: one of the user's own may have done anything.
        """
        if kind == "python3" and getattr(random.shuffle, "__func__", None) is not _random.Random.shuffle:
            random.shuffle(self.pairs)
            self.forget()
            return False
        positions = list(range(len(self)))
        if kind == "python3":
            random.shuffle(positions)
        else:
            _shuffle_python2(positions, random.random)
        self.pairs[:] = [self.pairs[i] for i in positions]
        if self._columns is not None:
            self.order = self.order[positions]
        return True

    def inputs(self, n: int) -> Floats | None:
        """Return the x as rows, float64 (len, n) in C order; None where they are no columns (n, 1) of real numbers."""
        return self._matrix("x", n)

    def targets(self, n: int) -> Floats | None:
        """Return the y likewise."""
        return self._matrix("y", n)

    def labels(self) -> Floats | None:
        """Return the y as an integer array (len,); None where they are no integers."""
        return self._matrix("y", None)

    def _matrix(self, part: Literal["x", "y"], n: int | None) -> Floats | None:
        columns = self._read()[part == "y"]
        if (part, n) not in self._matrices:
            self._matrices[part, n] = _integers(columns) if n is None else _stack(columns, n)
        return self._matrices[part, n]

    def _read(self) -> tuple[list[Any], list[Any]]:
        """Return all x and all y, in the order of the matrices."""
        if self._columns is None:
            self._columns = [x for x, _ in self.pairs], [y for _, y in self.pairs]
            self.order = np.arange(len(self))
        return self._columns


def _shuffle_python2(items: list[int], random: Any) -> None:
    """Shuffle as Python 2 did: each place from the last one down changes with one of those up to it."""
    for i in range(len(items) - 1, 0, -1):
        j = int(random() * (i + 1))
        items[i], items[j] = items[j], items[i]


def _stack(columns: list[Any], n: int) -> Floats | None:
    """Return columns (n, 1) as the rows of a float64 matrix, copied and converted at once."""
    matrix = np.empty((len(columns), n))
    try:
        if set(map(type, columns)) != {np.ndarray} or set(map(len, columns)) != {n}:
            return None
        np.concatenate(columns, out=matrix.reshape(-1, 1), casting="safe")
    except (TypeError, ValueError):  # other shapes; complex, longdouble, objects: NumPy knows what to do with them
        return None
    return matrix


def _integers(labels: list[Any]) -> Floats | None:
    """Return labels as an integer array."""
    try:
        array = np.array(labels)
    except ValueError:  # columns of different lengths
        return None
    return array if array.ndim == 1 and array.dtype.kind in "iu" else None
