"""MNIST: 70 000 handwritten digits of 28 x 28 pixels, read from the four IDX files in which they are published.

An IDX file is a big-endian header (two zero bytes, a type code, the number of axes, the length of each axis as uint32)
and then the entries, last axis fastest. Everything the header says is checked against the file.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mnist", "load_mnist", "read_idx"]

# SHA-256 of the files as published, gzipped; archives that were packed anew differ, so only downloads are held to it.
SHA256 = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

UNSIGNED_BYTE = 0x08
OTHER_TYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
MAX_AXES = 8
GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot pack more than 1032 bytes into one.
GZIP_MAX_RATIO = 1032


class Mnist(NamedTuple):
    """Training and test set.

    Attributes
    ----------
    X_train : ndarray of shape (60000, 784), float32
        Images, row by row, from 0 (paper) to 1 (ink).
    y_train : ndarray of shape (60000,), int64
        The digits 0..9.
    X_test : ndarray of shape (10000, 784), float32
        Images of other writers.
    y_test : ndarray of shape (10000,), int64
        Their digits.
    """

    X_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.int64]


def load_mnist(folder: str | os.PathLike[str] | None = None, *, download: bool = False) -> Mnist:
    """Load MNIST, or a set published in its form (Fashion-MNIST, KMNIST), from its IDX files, gzipped or not.

    Parameters
    ----------
    folder : path, optional
        Where the four files lie. By default they are looked for in the folder named by the environment variable
        FASTBP_DATA, in its sub-folder ``mnist``, and in fastbp's cache folder.
    download : bool, default False
        Fetch MNIST if it is not there, into `folder` or else the cache folder. Needs pooch
        (``pip install 'fastbp[data]'``); what arrives is checked against the published files' checksums.

    Returns
    -------
    Mnist
        The named tuple (X_train, y_train, X_test, y_test); the pixels are divided by 255.

    Raises
    ------
    FileNotFoundError
        The files are in none of the places.
    ValueError
        A file is damaged, or images and labels do not belong together.
    ImportError
        `download` is wanted and pooch is not installed.
    OSError
        The download failed.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
    Proceedings of the IEEE 86 (1998).
    """
    if folder is not None:
        places = [Path(folder)]
    else:
        data = os.environ.get("FASTBP_DATA")
        places = [Path(data), Path(data, "mnist")] if data else []
        places.append(_cache_folder())
    found = next((place for place in places if not _missing(place)), None)
    if found is None:
        if not download:
            looked = "; ".join(f"{place} (lacks {', '.join(_missing(place))})" for place in places)
            raise FileNotFoundError(
                f"MNIST's files were not found in {looked}: name the folder that holds them by load_mnist(folder) or "
                "by the environment variable FASTBP_DATA, or fetch them by load_mnist(download=True)"
            )
        found = places[-1]
        _download(found)
    X_train, y_train = _read_pair(found, "train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    X_test, y_test = _read_pair(found, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    if X_train.shape[1] != X_test.shape[1]:
        raise ValueError(
            f"{found}: training images have {X_train.shape[1]} pixels and test images {X_test.shape[1]}; these files "
            "do not belong together"
        )
    return Mnist(X_train, y_train, X_test, y_test)


def read_idx(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not (its content decides, not its name).

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    ndarray of uint8
        Of the shape that the header states.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no IDX file of unsigned bytes, or is damaged: truncated, continued after its end, with a header
        that does not match its size, or not properly compressed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastbp.datasets import read_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as raw:
        packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        if not packed:
            return _read_entries(raw, size, path)
        try:
            with gzip.open(raw) as file:
                return _read_entries(file, size * GZIP_MAX_RATIO, path)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is a damaged gzip file ({error}): fetch or pack it anew") from error


def _read_entries(file: io.BufferedReader | gzip.GzipFile, limit: int, path: Path) -> NDArray[np.uint8]:
    """Read header and entries of an IDX file that cannot hold more than `limit` bytes."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or (magic[2] != UNSIGNED_BYTE and magic[2] not in OTHER_TYPES):
        raise ValueError(
            f"{path} is no IDX file: it starts with {magic!r}; two zero bytes, a type code (8 for unsigned bytes) "
            "and the number of axes belong there"
        )
    if magic[2] != UNSIGNED_BYTE:
        raise ValueError(f"{path} holds {OTHER_TYPES[magic[2]]}; only unsigned bytes (type 0x08) can be read")
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3] or not 1 <= magic[3] <= MAX_AXES:
        raise ValueError(
            f"{path} is damaged: its header announces {magic[3]} axes (allowed are 1 to {MAX_AXES}) and gives the "
            f"lengths of {len(header) // 4}"
        )
    shape = struct.unpack(f">{magic[3]}I", header)
    announced = f"its header announces {' x '.join(map(str, shape))} = {math.prod(shape)} bytes"
    # A header that lies must not make us ask for all the memory there is.
    if math.prod(shape) > limit:
        raise ValueError(f"{path} is damaged: {announced}, but the file is too short for them")
    if 0 in shape:
        raise ValueError(f"{path} holds nothing: {announced}")
    entries = np.empty(math.prod(shape), np.uint8)
    view, filled = entries.data, 0
    while filled < len(view):
        count = file.readinto(view[filled:])
        if not count:
            raise ValueError(f"{path} is damaged: {announced}, but it ends after {filled}")
        filled += count
    if file.read(1):
        raise ValueError(f"{path} is damaged: {announced}, but more follow")
    return entries.reshape(shape)


def _read_pair(folder: Path, images_name: str, labels_name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read images and their labels as X (n, pixels) in 0..1 and y (n,)."""
    images_path, labels_path = _find(folder, images_name), _find(folder, labels_name)
    if images_path is None or labels_path is None:
        raise FileNotFoundError(f"{folder} lost {images_name} or {labels_name} while it was read")
    labels = read_idx(labels_path)
    images = read_idx(images_path)
    if images.ndim != 3 or images.size == 0:
        raise ValueError(f"{images_path} has shape {images.shape}; images must have shape (n, rows, columns), n >= 1")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{labels_path} holds labels of shape {labels.shape}, but {images_path} holds {len(images)} images; there "
            "must be one label for each image"
        )
    X = np.empty((len(images), images[0].size), np.float32)
    np.divide(images.reshape(X.shape), np.float32(255), out=X)
    return X, labels.astype(np.int64)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _missing(folder: Path) -> list[str]:
    return [name for name in SHA256 if _find(folder, name) is None]


def _cache_folder() -> Path:
    """Return the user's cache folder, the one that pooch.os_cache("fastbp") names, whether pooch is there or not."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local", "fastbp", "fastbp", "Cache")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fastbp"
    return Path(os.environ.get("XDG_CACHE_HOME", "").strip() or Path.home() / ".cache", "fastbp")


def _download(folder: Path) -> None:
    """Fetch the four files into a folder, each from the first mirror that has it right."""
    try:
        import pooch
    except ImportError as error:
        raise ImportError("load_mnist(download=True) needs pooch: pip install 'fastbp[data]'") from error
    for name, sha256 in SHA256.items():
        failures: list[Exception] = []
        for mirror in MIRRORS:
            try:
                pooch.retrieve(f"{mirror}{name}.gz", f"sha256:{sha256}", fname=f"{name}.gz", path=folder)
                break
            except (OSError, ValueError) as error:  # no connection, or another file than the published one
                failures.append(error)
        else:
            raise OSError(
                f"{name}.gz could not be fetched ({'; '.join(map(str, failures))}): try again, or put MNIST's files "
                f"into {folder} by hand"
            ) from failures[-1]
