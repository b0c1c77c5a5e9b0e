"""Datasets: handwritten digits, small ones shipped and MNIST from its files, as arrays ready for a network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp.datasets.digits import Digits, load_digits
from fastbp.datasets.mnist import Mnist, load_mnist, read_idx

__all__ = ["Digits", "Mnist", "load_digits", "load_mnist", "read_idx", "train_test_split"]


def train_test_split(
    X: ArrayLike, y: ArrayLike, *, test_fraction: float = 0.2, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Shuffle samples and set some of them aside for testing.

    Parameters
    ----------
    X : array_like of shape (n, ...)
        Inputs.
    y : array_like of shape (n, ...)
        Targets.
    test_fraction : float, default 0.2
        The share of samples to set aside, rounded to whole samples, between 0 and 1.
    seed : int, default 0
        The same seed gives the same split.

    Returns
    -------
    X_train, X_test, y_train, y_test : ndarray
        Copies, in shuffled order.

    Raises
    ------
    ValueError
        X and y differ in length, or the fraction leaves no sample on one of the sides.

    Examples
    --------
    >>> from fastbp.datasets import load_digits, train_test_split
    >>> X_train, X_test, y_train, y_test = train_test_split(*load_digits())
    >>> X_train.shape, X_test.shape, y_train.shape, y_test.shape
    ((1438, 64), (359, 64), (1438,), (359,))
    """
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim == 0 or y.ndim == 0 or len(X) != len(y):
        raise ValueError(f"X has shape {X.shape} and y {y.shape}; their first axes, the samples, must be equally long")
    n = len(X)
    n_test = round(n * test_fraction) if 0 < test_fraction < 1 else 0
    if not 0 < n_test < n:
        raise ValueError(
            f"test_fraction is {test_fraction} of {n} samples; it must lie between 0 and 1 and leave at least one "
            "sample to train and one to test"
        )
    order = np.random.default_rng(seed).permutation(n)
    test, train = order[:n_test], order[n_test:]
    return X[train], X[test], y[train], y[test]
