"""Sparse samples: a matrix in compressed rows (CSR), as the kernels read it; and dense ones that are mostly zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SparseRows", "halves_are_alike", "is_mostly_zero"]

# Of the inputs, up to which zeros are looked for; samples that are looked at; samples and inputs of each that repay it
_DENSITY, _LOOKED_AT, _LEAST_SAMPLES, _LEAST_INPUTS = 0.4, 16, 64, 64
_FULLER_HALF = 0.6  # of the non-zeros, at most


@dataclass(frozen=True, eq=False, slots=True)
class SparseRows:
    """The non-zeros of each sample; made and checked by `fastbp.inputs.source`.

    Attributes
    ----------
    values : array (number of non-zeros,) of the network's dtype
        C-contiguous, finite.
    k : int32 array of the same shape
        The input of each; increasing within a sample, between 0 and n_in - 1, unless somebody changes them meanwhile.
    begins : int64 array (n + 1,)
        Those of sample i are begins[i] up to begins[i + 1].
    n_in : int
    """

    values: NDArray[Any]
    k: NDArray[np.int32]
    begins: NDArray[np.int64]
    n_in: int

    def __len__(self) -> int:
        return len(self.begins) - 1

    def __getitem__(self, rows: NDArray[np.int64]) -> SparseRows:
        counts = np.diff(self.begins)[rows]
        begins = np.append(0, np.cumsum(counts))
        places = np.repeat(self.begins[rows] - begins[:-1], counts) + np.arange(begins[-1])
        return SparseRows(self.values[places], self.k[places], begins, self.n_in)

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return int(self.values.itemsize)

    def take(self, rows: NDArray[np.int64]) -> SparseRows:
        """Return copies of some samples.

        Examples
        --------
        >>> begins = np.array([0, 1, 1, 3])
        >>> X = SparseRows(np.array([5.0, 6.0, 7.0]), np.array([2, 0, 1], np.int32), begins, 3)
        >>> X.take(np.array([2, 1])).values, X.take(np.array([2, 1])).begins
        (array([6., 7.]), array([0, 2, 2]))
        """
        counts = np.diff(self.begins)[rows]
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        places = np.repeat(self.begins[:-1][rows] - begins[:-1], counts) + np.arange(begins[-1])
        return SparseRows(self.values[places], self.k[places], begins, self.n_in)


def is_mostly_zero(X: NDArray[Any] | SparseRows) -> bool:
    """Return whether so many of a dense matrix' entries are zero that to leave them out saves time.

    Some samples tell, from all over the matrix; the same for any number of threads.

    Examples
    --------
    >>> is_mostly_zero(np.eye(100)), is_mostly_zero(np.ones((100, 100)))
    (True, False)
    """
    if isinstance(X, SparseRows) or len(X) < _LEAST_SAMPLES or X.shape[1] < _LEAST_INPUTS:
        return False
    some = _non_zeros_of_some(X)
    return bool(np.count_nonzero(some) <= _DENSITY * some.size)


def halves_are_alike(X: NDArray[Any], second: int) -> bool:
    """Return whether two workers have about as much to do: with the inputs k < second of a dense X, and the others.

    Examples
    --------
    >>> halves_are_alike(np.eye(300), 160), halves_are_alike(np.eye(300), 240)
    (True, False)
    """
    some = _non_zeros_of_some(X)
    first, of_all = np.count_nonzero(some[:, :second]), np.count_nonzero(some)
    return bool(max(first, of_all - first) <= _FULLER_HALF * of_all)


def _non_zeros_of_some(X: NDArray[Any]) -> NDArray[np.bool_]:
    return X[:: max(1, len(X) // _LOOKED_AT)].astype(np.bool_)  # by far the fastest way to count
