"""Sparse rows: a matrix of samples in compressed rows (CSR), as the kernels read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SparseRows"]


@dataclass(frozen=True, eq=False, slots=True)
class SparseRows:
    """The non-zeros of each sample; made and checked by `fastbp.inputs.source`.

    Attributes
    ----------
    values : array (number of non-zeros,) of the network's dtype
        C-contiguous, finite.
    k : int32 array of the same shape
        The input of each; increasing within a sample, between 0 and n_in - 1.
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
