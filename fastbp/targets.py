"""Targets: what the outputs of a network shall become, as the kernels read it.

The user's y ends either as class labels, one integer a sample, which stand for the one-hot rows without ever making
them, or as a matrix of real values. Both are read-only; values share the memory of y where y already lies so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbp.inputs import as_array, read_only, rows

__all__ = ["Targets", "one_hot", "sample_weights", "targets"]

# How far a row of probabilities may be from 1: a thousand classes rounded to float32 stay well below.
ROW_SUM_TOLERANCE = 1e-5
SUM_ENTRIES = 65_536


@dataclass(frozen=True, eq=False, slots=True)
class Targets:
    """Class labels or values; exactly one of the two is an array.

    Attributes
    ----------
    labels : ndarray of shape (n,), int64, or None
        Class labels 0..n_out-1; label c means a target of 1 at output c and 0 elsewhere.
    values : ndarray of shape (n, n_out), the network's dtype, or None
        Real targets.
    """

    labels: NDArray[np.int64] | None
    values: NDArray[Any] | None

    @property
    def array(self) -> NDArray[Any]:
        """Labels or values, whichever there is."""
        array = self.labels if self.labels is not None else self.values
        assert array is not None
        return array

    @property
    def are_classes(self) -> bool:
        """Whether they are labels, or rows with a 1 and otherwise 0.

        Examples
        --------
        >>> from fastbp.targets import targets
        >>> targets([[0, 1], [1, 0]], 2, 2, "float32", "mse", "sigmoid").are_classes
        True
        >>> targets([[0, 1], [1, 1]], 2, 2, "float32", "mse", "sigmoid").are_classes
        False
        """
        if self.values is None:
            return True
        step = max(1, SUM_ENTRIES // self.values.shape[1])
        blocks = (self.values[start : start + step] for start in range(0, len(self.values), step))
        return all(np.count_nonzero(block) == len(block) and (block == 1).any(axis=1).all() for block in blocks)

    def dense(self, dtype: DTypeLike, n_out: int) -> NDArray[Any]:
        """Return the targets as a matrix of shape (n, n_out), labels as one-hot rows.

        Examples
        --------
        >>> from fastbp.targets import targets
        >>> targets([2, 0], 2, 3, "float32", "cross_entropy", "softmax").dense("float64", 3)
        array([[0., 0., 1.],
               [1., 0., 0.]])
        """
        if self.labels is not None:
            return one_hot(self.labels, n_out, dtype)
        return np.asarray(self.values, dtype=dtype)

    def take(self, rows: NDArray[np.int64]) -> Targets:
        """Return copies of the targets of some samples.

        Examples
        --------
        >>> from fastbp.targets import targets
        >>> targets([2, 0, 1], 3, 3, "float32", "cross_entropy", "softmax").take([2, 0]).labels
        array([1, 2])
        """
        return Targets(
            None if self.labels is None else self.labels[rows], None if self.values is None else self.values[rows]
        )


def one_hot(labels: NDArray[np.integer[Any]], n_out: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return a matrix of shape (n, n_out) with 1 at [i, labels[i]] and 0 elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.targets import one_hot
    >>> one_hot(np.array([1, 0]), 3, np.float32)
    array([[0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """
    matrix = np.zeros((len(labels), n_out), dtype)
    matrix[np.arange(len(labels)), labels] = 1
    return matrix


def targets(y: Any, n: int, n_out: int, dtype: DTypeLike, loss: str, output: str, *, name: str = "y") -> Targets:
    """Check y and lay it out for the kernels.

    Parameters
    ----------
    y : array_like
        With more than one output, of shape (n,): integer class labels 0..n_out-1; of shape (n, n_out): one-hot or
        real targets. With one output, of shape (n,) or (n, 1): real targets.
    n : int
        The number of samples in X.
    n_out : int
        The number of outputs.
    dtype : float32 or float64
        The network's dtype.
    loss : str
        With "cross_entropy" targets are probabilities and must lie in 0..1, with "poisson" they must be at least 0.
    output : str
        The activation of the output; with "softmax" (and cross-entropy) each row of targets must sum to 1.
    name : str, default "y"
        How errors call y.

    Returns
    -------
    Targets
        Labels if y is one-dimensional and there is more than one output, otherwise values.

    Raises
    ------
    TypeError
        y holds something other than real numbers, or one-dimensional labels that are not integers.
    ValueError
        The shape or length is wrong, a label is none of the classes, or a value is not finite or, with
        cross-entropy, no probability, or with poisson negative.

    Examples
    --------
    >>> from fastbp.targets import targets
    >>> targets([0, 2, 1], 3, 3, "float32", "cross_entropy", "softmax").labels
    array([0, 2, 1])
    >>> targets([0, 1, 1], 3, 1, "float32", "cross_entropy", "sigmoid").values
    array([[0.],
           [1.],
           [1.]], dtype=float32)
    >>> targets([0, 3], 2, 3, "float32", "cross_entropy", "softmax")
    Traceback (most recent call last):
        ...
    ValueError: y[1] is 3; class labels must lie in 0..2: np.unique(y, return_inverse=True)[1] numbers classes so
    """
    if _ndim(y) < 2:
        array = as_array(y, name)
        if array.ndim == 0:
            raise ValueError(f"{name} is a single number; it must have one target for each of the {n} samples")
        _check_length(len(array), n, name)
        if n_out > 1:
            return Targets(_labels(array, n_out, name), None)
        y = array[:, np.newaxis]
    shape = tuple(getattr(y, "shape", ()))
    if n_out > 1 and len(shape) == 2 and shape[1] == 1:
        raise ValueError(
            f"{name} has shape {shape}; with {n_out} outputs it must be (n,) for class labels or (n, {n_out}) for "
            f"real targets: use np.ravel({name}) if it holds labels"
        )
    _check_length(shape[0] if shape else len(y), n, name)
    values = rows(y, n_out, dtype, name=name)
    if loss == "cross_entropy":
        _check_probabilities(values, output, name)
    elif loss == "poisson" and values.min() < 0:
        i, k = divmod(int((values < 0).argmax()), n_out)
        raise ValueError(
            f"{name} is {values[i, k]!s} at row {i}, column {k} (counted from 0); with poisson targets are counts or "
            "rates and must be at least 0: shift them, or use another output with loss='quadratic' or 'mse'"
        )
    return Targets(None, values)


def sample_weights(sample_weight: Any, n: int, *, name: str = "sample_weight") -> NDArray[np.float64] | None:
    """Check the weights of samples and lay them out for the kernels; None stays None.

    Parameters
    ----------
    sample_weight : array_like of shape (n,), or None
        As how many samples each counts: finite, at least 0, not all 0.
    n : int
        The number of samples in X.
    name : str, default "sample_weight"
        How errors call it.

    Returns
    -------
    float64 ndarray of shape (n,), read-only, or None

    Raises
    ------
    TypeError
        It holds something other than real numbers.
    ValueError
        Its shape is wrong, a weight is negative or not finite, or the weights sum to 0 or to infinity.

    Examples
    --------
    >>> from fastbp.targets import sample_weights
    >>> sample_weights([1, 0, 2], 3)
    array([1., 0., 2.])
    >>> sample_weights([1, -1, 2], 3)
    Traceback (most recent call last):
        ...
    ValueError: sample_weight[1] is -1.0; weights must be finite and at least 0: a weight of 0 leaves a sample out
    """
    if sample_weight is None:
        return None
    given = as_array(sample_weight, name)
    if given.shape != (n,):
        raise ValueError(
            f"{name} has shape {given.shape}, but there are {n} samples: hand over one weight for each, shape ({n},)"
        )
    with np.errstate(over="ignore"):
        weights = np.require(given, np.float64, ["C", "A"])
        total = float(weights.sum())
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
            f"{name}[{i}] is {weights[i]!s}; weights must be finite and at least 0: a weight of 0 leaves a sample out"
        )
    if not (total > 0 and np.isfinite(total) and np.isfinite(1 / total)):
        raise ValueError(f"{name} sums to {total}; the sum must be positive and finite: rescale it to a mean of 1")
    return read_only(weights, np.float64)


def _ndim(y: Any) -> int:
    """Return how many dimensions y has, judging a list by its first entry (reading it whole might cost a copy)."""
    if isinstance(y, (list, tuple)):
        if not y:
            return 1
        return 2 if isinstance(y[0], (list, tuple)) else 1 + np.ndim(y[0])
    ndim = getattr(y, "ndim", None)
    return ndim if isinstance(ndim, int) else np.ndim(y)


def _check_length(length: int, n: int, name: str) -> None:
    if length != n:
        raise ValueError(f"{name} has {length} targets, but there are {n} samples: hand over one target for each")


def _labels(array: NDArray[Any], n_out: int, name: str) -> NDArray[np.int64]:
    """Check class labels (n,) and return them as int64."""
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; with {n_out} outputs, one-dimensional targets "
            f"are class labels and must be integers: use {name}.astype(int) if these are labels, or hand over real "
            f"targets of shape ({len(array)}, {n_out})"
        )
    labels = array.astype(np.int64)  # a copy: they are places in memory, and the caller's may change after this check
    if labels.min() < 0 or labels.max() >= n_out:  # what is beyond int64 has become negative
        i = int(np.argmax((labels < 0) | (labels >= n_out)))
        raise ValueError(
            f"{name}[{i}] is {array[i]}; class labels must lie in 0..{n_out - 1}: "
            f"np.unique({name}, return_inverse=True)[1] numbers classes so"
        )
    return read_only(labels, np.int64)


def _check_probabilities(values: NDArray[Any], output: str, name: str) -> None:
    """Check that values (n, n_out) are what cross-entropy takes: rows of a distribution, or 0..1 each."""
    softmax = output == "softmax"
    if values.min() < 0 or (values.max() > 1 and not softmax):
        wrong = (values < 0) if softmax else (values < 0) | (values > 1)
        i, k = divmod(int(wrong.argmax()), values.shape[1])
        raise ValueError(
            f"{name} is {values[i, k]!s} at row {i}, column {k} (counted from 0); with cross_entropy targets are "
            "probabilities and must lie in 0..1: rescale them, or use loss='quadratic' or 'mse' for real targets"
        )
    if not softmax:
        return
    step = max(1, SUM_ENTRIES // values.shape[1])
    for start in range(0, len(values), step):
        sums = values[start : start + step].sum(axis=1, dtype=np.float64)
        off = np.abs(sums - 1) > ROW_SUM_TOLERANCE
        if off.any():
            i = int(off.argmax())
            raise ValueError(
                f"{name} sums to {sums[i]:.7g} in row {start + i} (counted from 0); with softmax and cross_entropy "
                f"each row is a distribution and must sum to 1: divide by {name}.sum(axis=1, keepdims=True), or use a "
                "sigmoid output if classes do not exclude each other"
            )
