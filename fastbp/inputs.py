"""Inputs: the matrix X as a user hands it over, turned into the rows that the kernels read.

Every X ends as one kind of array: base-class ndarray, shape ``(n, n_in)``, C-contiguous, aligned, native byte order,
the network's dtype, finite, read-only. One kind means one compiled specialisation, and read-only means that no kernel
can write into the user's data. An X that already lies so is shared; anything else is converted once, straight into its
final place, so that the peak of extra memory is the result and little more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike, NDArray

__all__ = ["as_array", "read_only", "rows"]

# Entries checked at a time: the mask of a block (64 KiB) stays in the L2 cache.
CHECK_ENTRIES = 65_536
# Entries of a list or a frame converted at a time, unless that made more than MAX_BLOCKS blocks.
CONVERT_ENTRIES = 4096
MAX_BLOCKS = 64

ADVICE = {
    "O": "convert it with {name}.astype(float)",
    "S": "convert numbers in text with {name}.astype(float), and encode categories as numbers",
    "U": "convert numbers in text with {name}.astype(float), and encode categories as numbers",
    "T": "convert numbers in text with {name}.astype(float), and encode categories as numbers",
    "M": "turn times into numbers, for example ({name} - {name}.min()) / np.timedelta64(1, 's')",
    "m": "turn durations into numbers, for example {name} / np.timedelta64(1, 's')",
    "c": "hand over real numbers, for example np.hstack([{name}.real, {name}.imag])",
    "V": "hand over plain numbers, for example numpy.lib.recfunctions.structured_to_unstructured({name})",
}


def rows(X: Any, n_in: int, dtype: DTypeLike, *, name: str = "X") -> NDArray[Any]:
    """Return X as the rows that kernels read.

    Parameters
    ----------
    X : array_like of shape (n, n_in)
        Bools, integers or floats of any width, order, stride and byte order: an ndarray or memmap, nested lists, a
        pandas DataFrame, or anything that NumPy can read as an array (``__array__``, buffers).
    n_in : int
        The number of columns that X must have.
    dtype : float32 or float64
        The network's dtype.
    name : str, default "X"
        How errors call X.

    Returns
    -------
    ndarray of shape (n, n_in)
        Read-only, C-contiguous, aligned, native, finite. It shares memory with X where X already lies so.

    Raises
    ------
    TypeError
        X is sparse, or holds something other than real numbers.
    ValueError
        X is not two-dimensional, has no rows or another number of columns, has masked entries, or an entry that is
        not finite in `dtype`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.inputs import rows
    >>> rows([[1, 2], [3, 4]], 2, np.float32)
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    >>> X = np.ones((3, 2))
    >>> np.shares_memory(rows(X, 2, np.float64), X)
    True
    >>> rows([[1.0, 2.0], [3.0, np.nan]], 2, np.float32)
    Traceback (most recent call last):
        ...
    ValueError: X is nan at row 1, column 1 (counted from 0); every entry must be finite: remove or replace those \
that np.isfinite(X) marks False
    """
    dtype = np.dtype(dtype)
    source = X if _comes_in_blocks(X, dtype) else as_array(X, name)
    if not isinstance(source, np.ndarray):
        result = _convert_in_blocks(source, n_in, dtype, name)
    else:
        _check_shape(source.shape, n_in, name)
        if source.dtype == dtype and source.flags.c_contiguous and source.flags.aligned:
            result = source
        else:
            result = np.empty(source.shape, dtype)
            with np.errstate(all="ignore"):  # an overflow shows as an infinity, which the check below explains
                np.copyto(result, source, casting="unsafe")

    flat = result.reshape(-1)
    for start in range(0, flat.size, CHECK_ENTRIES):
        finite = np.isfinite(flat[start : start + CHECK_ENTRIES])
        if not finite.all():
            i, k = divmod(start + int(finite.argmin()), n_in)
            value = np.asarray(_slice(source, i, i + 1))[0, k]
            raise ValueError(_not_finite(value, i, k, dtype, name))
    return read_only(result, dtype)


def as_array(X: Any, name: str) -> NDArray[Any]:
    """Return X as a base-class ndarray of real numbers, of any shape, sharing its memory where NumPy can.

    Raises
    ------
    TypeError
        X is sparse, or holds something other than bools, integers and floats.
    ValueError
        X has masked entries or is ragged.
    """
    if type(X) is not np.ndarray:
        if callable(getattr(X, "toarray", None)):
            raise TypeError(f"{name} is a sparse {type(X).__name__}; dense rows are needed: hand over {name}.toarray()")
        if isinstance(X, np.ma.MaskedArray) and X.dtype.kind in "biuf" and np.ma.is_masked(X):
            raise ValueError(
                f"{name} has masked entries; every entry must have a value: fill them, for example {name}.filled(0)"
            )
        try:
            X = np.asarray(X)
        except ValueError as error:
            raise ValueError(
                f"{name} cannot be read as an array ({error}); its rows must all have the same number of entries"
            ) from error
        except (TypeError, RuntimeError) as error:
            raise TypeError(
                f"{name} is a {type(X).__name__} that NumPy cannot read ({error}); hand over an array of real numbers"
            ) from error
    array: NDArray[Any] = X
    kind = array.dtype.kind
    if kind not in "biuf":
        if kind == "O" and array.ndim == 0:
            what, advice = f"is {type(array.item()).__name__!r}", "hand over an array, a nested list or a DataFrame"
        else:
            what = f"has dtype {array.dtype}"
            advice = ADVICE.get(kind, ADVICE["O"]).format(name=name)
        raise TypeError(f"{name} {what}; allowed are arrays of bools, integers and floats: {advice}")
    return array


def read_only(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return a read-only view of a C-contiguous array whose strides follow from its shape.

    NumPy leaves the stride of an axis of length 1 arbitrary; a kernel that steps by strides must not meet that.
    """
    view = array.view(dtype)
    strides, step = [], view.itemsize
    for length in reversed(view.shape):
        strides.append(step)
        step *= length
    strides.reverse()
    if view.strides != tuple(strides):
        view = as_strided(view, strides=strides)
    view.flags.writeable = False
    return view


def _comes_in_blocks(X: Any, dtype: np.dtype[Any]) -> bool:
    """Tell whether X is better read by slices of rows than by one np.asarray, which would make an array too many.

    True for lists, frames (whose columns may differ in dtype) and lazy arrays of another dtype (HDF5, Zarr, ...).
    """
    if isinstance(X, np.ndarray) or callable(getattr(X, "toarray", None)):
        return False
    if isinstance(X, (list, tuple)) or hasattr(X, "iloc"):
        return True
    own = getattr(X, "dtype", None)
    return isinstance(own, np.dtype) and own != dtype and len(getattr(X, "shape", ())) > 0 and hasattr(X, "__getitem__")


def _slice(X: Any, start: int, stop: int) -> Any:
    return X.iloc[start:stop] if hasattr(X, "iloc") else X[start:stop]


def _convert_in_blocks(X: Any, n_in: int, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Convert X by slices of rows into one new array of shape (n, n_in)."""
    n = len(X)
    step = max(1, CONVERT_ENTRIES // n_in, n // MAX_BLOCKS)
    result: NDArray[Any] | None = None
    for start in range(0, max(n, 1), step):
        piece = _slice(X, start, start + step)
        if isinstance(X, (list, tuple)):
            _check_list(piece, start, n_in, name)
        block = as_array(piece, name)
        if result is None or block.shape[1:] != (n_in,):
            _check_shape((n, *block.shape[1:]), n_in, name)
            result = np.empty((n, n_in), dtype)
        with np.errstate(all="ignore"):
            result[start : start + step] = block
    assert result is not None
    return result


def _check_list(piece: list[Any] | tuple[Any, ...], start: int, n_in: int, name: str) -> None:
    """Refuse what np.asarray would report without its place (a row too short) or not at all (a mask)."""
    for i, row in enumerate(piece, start):
        if isinstance(row, np.ma.MaskedArray) and np.ma.is_masked(row):
            raise ValueError(f"{name} has masked entries in row {i}; every entry must have a value: fill them first")
        if (isinstance(row, (list, tuple)) or (isinstance(row, np.ndarray) and row.ndim)) and len(row) != n_in:
            raise ValueError(
                f"{name} has {len(row)} entries in row {i} (counted from 0); every row must have {n_in} entries"
            )


def _check_shape(shape: tuple[int, ...], n_in: int, name: str) -> None:
    if shape[:1] == (0,):
        raise ValueError(f"{name} is empty (shape {shape}); it must have at least one row of {n_in} entries")
    if len(shape) == 2 and shape[1] == n_in:
        return
    message = f"{name} has shape {shape}; it must be two-dimensional with shape (n, {n_in})"
    if len(shape) == 1:
        message += f": use np.asarray({name}).reshape(1, -1) for one sample, np.asarray({name}).reshape(-1, 1) for one"
        message += " feature"
    elif len(shape) > 2:
        message += f": use np.asarray({name}).reshape(len({name}), -1) to lay each sample out as one row"
    raise ValueError(message)


def _not_finite(value: Any, i: int, k: int, dtype: np.dtype[Any], name: str) -> str:
    where = f"{name} is {value} at row {i}, column {k} (counted from 0)"
    if not np.isfinite(value):
        return f"{where}; every entry must be finite: remove or replace those that np.isfinite({name}) marks False"
    message = f"{where}, which {dtype} cannot hold (its largest value is {np.finfo(dtype).max:.7g}): rescale {name}"
    return message + (" or make the network with dtype='float64'" if dtype == np.float32 else "")
