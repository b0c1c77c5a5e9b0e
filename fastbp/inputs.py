"""Inputs: the matrix X as a user hands it over, turned into the rows that the kernels read.

Every dense X ends as one kind of array: base-class ndarray, shape ``(n, n_in)``, C-contiguous, aligned, native byte
order, the network's dtype, finite, read-only. One kind means one compiled specialisation, and read-only means that no
kernel can write into the user's data. An X that already lies so is shared; anything else is converted once, straight
into its final place, so that the peak of extra memory is the result and little more. A sparse X of SciPy ends as
compressed rows with increasing columns and no duplicates, and is never made dense.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike, NDArray

from fastbp.engine.sparse import SparseRows

__all__ = ["as_array", "check_finite", "check_trusted", "read_only", "readable", "rows", "source"]

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


def rows(X: Any, n_in: int, dtype: DTypeLike, *, name: str = "X", trusted: bool = False) -> NDArray[Any]:
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
    trusted : bool, default False
        Leave it to the caller to find that an X which is shared is not finite (`check_finite`): a pass over all of it.

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

    if not (trusted and result is source):
        check_finite(result, source, name)
    return read_only(result, dtype)


def check_finite(X: NDArray[Any], source: Any = None, name: str = "X") -> None:
    """Raise ValueError where the rows X, made from `source` if that is given, have an entry that is not finite."""
    n_in, dtype = X.shape[1], X.dtype
    flat = X.reshape(-1)
    for start in range(0, flat.size, CHECK_ENTRIES):
        finite = np.isfinite(flat[start : start + CHECK_ENTRIES])
        if not finite.all():
            i, k = divmod(start + int(finite.argmin()), n_in)
            value = np.asarray(_slice(X if source is None else source, i, i + 1))[0, k]
            raise ValueError(_not_finite(value, i, k, dtype, name))


def check_trusted(samples: NDArray[Any] | SparseRows) -> None:
    """Raise ValueError where dense samples, trusted so far, are not finite; what is sparse was checked at the door."""
    if not isinstance(samples, SparseRows):
        check_finite(samples)


def source(X: Any, n_in: int, dtype: DTypeLike, *, name: str = "X", trusted: bool = False) -> NDArray[Any] | SparseRows:
    """Return X as the kernels read it: dense as by `rows`, or what is sparse as compressed rows.

    Parameters
    ----------
    X : array_like or sparse matrix or array of shape (n, n_in)
        As for `rows`; or anything with a method ``tocsr`` that gives compressed rows as SciPy does. CSR whose columns
        increase without duplicates is read in place, apart from a conversion to `dtype` and int32, and from where its
        rows begin. Who changes it meanwhile makes results useless, but makes no kernel leave its arrays.
    n_in, dtype, name
        As for `rows`.

    Returns
    -------
    ndarray of shape (n, n_in), or SparseRows

    Raises
    ------
    TypeError, ValueError
        As for `rows`; and where the structure of a sparse X is corrupt.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csc_array
    >>> from fastbp.inputs import source
    >>> X = source(csc_array([[0, 0, 5], [7, 0, 6]]), 3, np.float32)
    >>> X.values, X.k, X.begins
    (array([5., 7., 6.], dtype=float32), array([2, 0, 2], dtype=int32), array([0, 1, 3]))
    """
    if not callable(getattr(X, "tocsr", None)):
        return rows(X, n_in, dtype, name=name, trusted=trusted)
    dtype = np.dtype(dtype)
    _check_shape(tuple(X.shape), n_in, name)
    if X.dtype.kind not in "biuf":
        advice = ADVICE.get(X.dtype.kind, ADVICE["O"]).format(name=name)
        raise TypeError(f"{name} has dtype {X.dtype}; allowed are bools, integers and floats: {advice}")
    csr = X.tocsr()
    # whoever changes them meanwhile: kernels bound each column where they read it, but not where a row begins
    data, k, begins = csr.data, csr.indices, np.array(csr.indptr, np.int64)
    _check_structure(len(data), k, begins, csr.shape[0], n_in, name)
    if not _increasing(k, begins):
        csr = type(csr)((data, k, begins), shape=csr.shape, copy=True)
        csr.sum_duplicates()
        data, k, begins = csr.data, csr.indices, np.array(csr.indptr, np.int64)
    n_values = int(begins[-1])
    with np.errstate(all="ignore"):  # an overflow shows as an infinity
        values = np.require(data[:n_values], dtype, ["C", "A"])
    for start in range(0, n_values, CHECK_ENTRIES):
        finite = np.isfinite(values[start : start + CHECK_ENTRIES])
        if not finite.all():
            q = start + int(finite.argmin())
            i = int(np.searchsorted(begins, q, side="right")) - 1
            raise ValueError(_not_finite(data[q], i, int(k[q]), dtype, name))
    k = np.require(k[:n_values], np.int32, ["C", "A"])
    return SparseRows(read_only(values, dtype), read_only(k, np.int32), read_only(begins, np.int64), n_in)


def _check_structure(n_values: int, k: NDArray[Any], begins: NDArray[np.int64], n: int, n_in: int, name: str) -> None:
    """Refuse arrays that are no compressed rows: SciPy checks little of it, and they may have been changed."""
    n_values = min(n_values, len(k))
    if len(begins) != n + 1 or begins[0] != 0 or begins[-1] > n_values or (begins[1:] < begins[:-1]).any():
        raise ValueError(f"{name} is corrupt: its indptr does not cut {n_values} entries into {n} rows")
    k = k[: begins[-1]]
    if len(k) and (k.min() < 0 or k.max() >= n_in):
        wrong = k.min() if k.min() < 0 else k.max()
        raise ValueError(f"{name} is corrupt: it has an entry in column {wrong}, but columns are 0..{n_in - 1}")


def _increasing(k: NDArray[Any], begins: NDArray[np.int64]) -> bool:
    """Whether the columns increase in every row; SciPy's flag may be out of date."""
    k = k[: begins[-1]]
    for start in range(0, len(k) - 1, CHECK_ENTRIES):
        here = k[start : start + CHECK_ENTRIES + 1]
        falls = start + 1 + np.flatnonzero(here[1:] <= here[:-1])  # only where a row begins
        places = np.searchsorted(begins, falls)
        if (begins[np.minimum(places, len(begins) - 1)] != falls).any():
            return False
    return True


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


def readable(X: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return numbers as a training reads them, which copies the rows of a mini-batch: where they lie, if that can be.

    Parameters
    ----------
    X : array of float32 or float64, shape (n, n_in)
        Its numbers are not checked.
    dtype : float32 or float64
        The network's dtype; X has no more digits.

    Returns
    -------
    ndarray of shape (n, n_in)
        Read-only; native and aligned, of that dtype or of float32, in any order.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.inputs import readable
    >>> X = np.ones((3, 4), np.float32, order="F")
    >>> np.shares_memory(readable(X[:, ::-2], np.float64), X)
    True
    """
    dtype = np.dtype(dtype)
    X = np.asarray(X)
    if X.flags.c_contiguous or not (
        X.dtype.isnative
        and X.dtype in (dtype, np.float32)
        and X.flags.aligned
        and all(stride % X.itemsize == 0 for stride in X.strides)
    ):
        kept = X.dtype if X.dtype.isnative and X.dtype in (dtype, np.float32) else dtype
        return read_only(np.require(X, kept, ["C", "A"]), kept)
    view = X.view()
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
