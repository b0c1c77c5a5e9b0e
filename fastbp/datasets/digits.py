"""Digits: the 1797 small handwritten digits that are shipped with fastbp."""

from __future__ import annotations

import gzip
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Digits", "load_digits"]


class Digits(NamedTuple):
    """Images and their labels.

    Attributes
    ----------
    X : ndarray of shape (1797, 64), float32
        Images of 8 x 8 pixels, row by row, from 0 (paper) to 1 (ink).
    y : ndarray of shape (1797,), int64
        The digits 0..9.
    """

    X: NDArray[np.float32]
    y: NDArray[np.int64]


def load_digits() -> Digits:
    """Load the shipped digits.

    Returns
    -------
    Digits
        The named tuple (X, y).

    References
    ----------
    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits" (its test set), UCI Machine Learning
    Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0.

    Examples
    --------
    >>> from fastbp.datasets import load_digits
    >>> X, y = load_digits()
    >>> X.shape, X.dtype, y[:10]
    ((1797, 64), dtype('float32'), array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
    """
    packed = resources.files("fastbp.datasets").joinpath("digits.csv.gz").read_bytes()
    table = np.loadtxt(gzip.decompress(packed).decode("ascii").splitlines(), dtype=np.uint8, delimiter=",")
    return Digits(np.divide(table[:, :64], 16, dtype=np.float32), table[:, 64].astype(np.int64))
