"""Datasets: the shipped digits, IDX files good and damaged, where MNIST is looked for, and its download."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

import fastbp.datasets.mnist as mnist_module
from fastbp.datasets import load_digits, load_mnist, read_idx, train_test_split

NAMES = tuple(mnist_module.SHA256)
N = {"train": 5, "t10k": 3}


def idx(A, *, code=8, shape=None):
    """Return an array as the bytes of an IDX file, with a header that may lie."""
    shape = A.shape if shape is None else shape
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape) + A.astype(np.uint8).tobytes()


def tiny(name):
    """Return the images or labels of a very small MNIST."""
    n = N[name.split("-")[0]]
    rng = np.random.default_rng(n)
    return rng.integers(0, 256, (n, 4, 3)) if "images" in name else rng.integers(0, 10, n)


def write(folder, *, packed=True, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        content = idx(tiny(name))
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return folder


def check_tiny(data):
    for part, X, y in (("train", data.X_train, data.y_train), ("t10k", data.X_test, data.y_test)):
        images, labels = tiny(f"{part}-images-idx3-ubyte"), tiny(f"{part}-labels-idx1-ubyte")
        assert X.dtype == np.float32
        assert y.dtype == np.int64
        assert X.flags.c_contiguous
        np.testing.assert_array_equal(X, images.reshape(len(images), 12).astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(y, labels)


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """Neither FASTBP_DATA nor anything in the cache; return the (absent) cache folder."""
    monkeypatch.delenv("FASTBP_DATA", raising=False)
    cache = tmp_path / "cache" / "fastbp"
    monkeypatch.setattr(mnist_module, "_cache_folder", lambda: cache)
    return cache


# ---- digits and splits


def test_digits():
    X, y = digits = load_digits()
    assert digits._fields == ("X", "y")
    assert X.shape == (1797, 64)
    assert y.shape == (1797,)
    assert X.dtype == np.float32
    assert y.dtype == np.int64
    assert X.flags.c_contiguous
    assert X.min() == 0
    assert X.max() == 1
    np.testing.assert_array_equal(X * 16, np.round(X * 16))
    np.testing.assert_array_equal(np.bincount(y), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])


def test_digits_are_those_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    X, y = load_digits()
    np.testing.assert_array_equal(X * 16, theirs.data)
    np.testing.assert_array_equal(y, theirs.target)


def test_the_licence_of_the_digits_is_shipped_with_them():
    notice = (Path(mnist_module.__file__).parent / "LICENSE-digits.txt").read_text(encoding="ascii")
    for word in ("Alpaydin", "Kaynak", "UCI", "1998", "CC BY 4.0"):
        assert word in notice


@pytest.mark.parametrize(("n", "fraction", "n_test"), [(10, 0.2, 2), (1797, 0.2, 359), (2, 0.5, 1), (10, 0.94, 9)])
def test_split_keeps_every_sample_once_and_with_its_target(n, fraction, n_test):
    X, y = np.arange(3 * n).reshape(n, 3), np.arange(n)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_fraction=fraction, seed=1)
    assert len(X_test) == len(y_test) == n_test
    np.testing.assert_array_equal(np.sort(np.concatenate([y_train, y_test])), y)
    np.testing.assert_array_equal(X_train, X[y_train])
    np.testing.assert_array_equal(X_test, X[y_test])


def test_split_is_shuffled_by_its_seed():
    X, y = load_digits()
    first = train_test_split(X, y, seed=1)
    for a, b in zip(first, train_test_split(X, y, seed=1), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[3] != train_test_split(X, y, seed=2)[3]).any()


@pytest.mark.parametrize(
    ("X", "y", "fraction", "message"),
    [
        (np.ones((3, 2)), np.ones(4), 0.5, r"X has shape \(3, 2\) and y \(4,\); .* equally long"),
        (1.0, 2.0, 0.5, r"equally long"),
        (np.ones((3, 2)), np.ones(3), 0.0, r"test_fraction is 0\.0 of 3 samples; it must lie between"),
        (np.ones((3, 2)), np.ones(3), 1.0, r"test_fraction is 1\.0"),
        (np.ones((3, 2)), np.ones(3), float("nan"), r"test_fraction is nan"),
        (np.ones((3, 2)), np.ones(3), 0.1, r"at least one sample to train and one to test"),
        (np.ones((3, 2)), np.ones(3), 0.9, r"at least one sample to train and one to test"),
    ],
)
def test_bad_splits(X, y, fraction, message):
    with pytest.raises(ValueError, match=message):
        train_test_split(X, y, test_fraction=fraction)


# ---- IDX files


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(1,), (300,), (2, 3, 4), (1, 2, 3, 4)])
def test_read_idx(tmp_path, shape, packed):
    A = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / "any name"
    path.write_bytes(gzip.compress(idx(A)) if packed else idx(A))
    for where in (path, str(path)):
        result = read_idx(where)
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, A)


A6 = np.arange(6)
GOOD = idx(A6)
PACKED = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, 5000)), mtime=0)
DAMAGED = {
    # what is wrong: content, what the message must say; True: also when gzipped
    "empty": (b"", r"is no IDX file: it starts with b''", True),
    "text": (b"label,pixel0,pixel1", r"is no IDX file: it starts with b'labe'", True),
    "HTML": (b"<!DOCTYPE html>", r"is no IDX file", True),
    "little-endian": (struct.pack("<I", 2049) + GOOD[4:], r"is no IDX file", True),
    "unknown type": (idx(A6, code=7), r"is no IDX file", True),
    "int32": (idx(A6, code=0x0C), r"holds int32; only unsigned bytes", True),
    "float64": (idx(A6, code=0x0E), r"holds float64; only unsigned bytes", True),
    "no axes": (idx(A6, shape=()), r"announces 0 axes", True),
    "too many axes": (idx(A6, shape=(1,) * 200), r"announces 200 axes", True),
    "header cut": (GOOD[:6], r"announces 1 axes .*gives the lengths of 0", True),
    "truncated": (GOOD[:-1], r"announces 6 = 6 bytes, but it ends after 5", True),
    "only a header": (GOOD[:8], r"announces 6 = 6 bytes, but it ends after 0", True),
    "trailing": (GOOD + b"\0", r"announces 6 = 6 bytes, but more follow", True),
    "too large an axis": (idx(A6, shape=(2**32 - 1,)), r"announces 4294967295 = .* too short", True),
    "far too large": (idx(A6, shape=(2**32 - 1,) * 3), r"too short", True),
    "too small an axis": (idx(A6, shape=(3,)), r"announces 3 = 3 bytes, but more follow", True),
    "axis of 0": (idx(A6, shape=(0, 2**32 - 1)), r"holds nothing", True),
    "gzip cut": (PACKED[:-100], r"damaged gzip file \(Compressed file ended", False),
    "gzip header cut": (PACKED[:5], r"damaged gzip file", False),
    "gzip check sum": (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], r"damaged gzip file \(CRC", False),
    "gzip content": (PACKED[:2000] + b"\xff" * 20 + PACKED[2020:], r"damaged gzip file", False),
    "gzip without deflate": (PACKED[:10] + b"\xff" * 20 + PACKED[30:], r"damaged gzip file \(Error -3", False),
    "gzip trailing": (PACKED + b"garbage", r"damaged gzip file", False),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_idx(tmp_path, case, packed):
    content, message, also_packed = DAMAGED[case]
    if packed and not also_packed:
        message = r"is no IDX file"  # but a gzip file in a gzip file
    path = tmp_path / "damaged"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_read_idx_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "absent")


# ---- MNIST: where it is looked for


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_from_a_folder(tmp_path, packed, nowhere):
    folder = write(tmp_path / "here", packed=packed)
    check_tiny(load_mnist(folder))
    check_tiny(load_mnist(str(folder), download=True))


def test_mnist_from_a_folder_partly_gzipped(tmp_path, nowhere):
    folder = write(tmp_path, names=NAMES[:2], packed=False)
    check_tiny(load_mnist(write(folder, names=NAMES[2:])))


@pytest.mark.parametrize("sub", ["", "mnist"])
def test_mnist_from_the_environment(tmp_path, monkeypatch, nowhere, sub):
    monkeypatch.setenv("FASTBP_DATA", str(tmp_path / "data"))
    write(tmp_path / "data" / sub)
    check_tiny(load_mnist())


def test_mnist_from_the_cache(tmp_path, monkeypatch, nowhere):
    monkeypatch.setenv("FASTBP_DATA", str(tmp_path / "elsewhere"))
    write(nowhere)
    check_tiny(load_mnist())


def test_mnist_not_found_says_where_it_looked_and_what_lacks(tmp_path, monkeypatch, nowhere):
    monkeypatch.setenv("FASTBP_DATA", str(tmp_path / "data"))
    write(tmp_path / "data" / "mnist", names=NAMES[:3])
    with pytest.raises(FileNotFoundError, match=r"FASTBP_DATA.*download=True") as caught:
        load_mnist()
    message = str(caught.value)
    assert f"{tmp_path / 'data'} (lacks {', '.join(NAMES)})" in message
    assert f"{tmp_path / 'data' / 'mnist'} (lacks {NAMES[3]})" in message
    assert f"{nowhere} (lacks" in message


def test_a_folder_that_is_named_is_the_only_place(tmp_path, monkeypatch, nowhere):
    monkeypatch.setenv("FASTBP_DATA", str(write(tmp_path / "data")))
    with pytest.raises(FileNotFoundError) as caught:
        load_mnist(tmp_path / "empty")
    assert str(tmp_path / "data") not in str(caught.value)


def test_the_cache_folder_is_the_one_of_pooch(monkeypatch, tmp_path):
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert mnist_module._cache_folder() == Path(pooch.os_cache("fastbp"))
    if sys.platform not in ("win32", "darwin"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert mnist_module._cache_folder() == tmp_path / "fastbp" == Path(pooch.os_cache("fastbp"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-labels-idx1-ubyte", idx(np.arange(4)), r"labels of shape \(4,\), but .* holds 5 images"),
        ("t10k-labels-idx1-ubyte", idx(np.arange(6)), r"labels of shape \(6,\), but .* holds 3 images"),
        ("train-labels-idx1-ubyte", idx(np.ones((5, 1))), r"labels of shape \(5, 1\)"),
        ("train-images-idx3-ubyte", idx(np.ones(5)), r"shape \(5,\); images must have shape \(n, rows, columns\)"),
        ("t10k-images-idx3-ubyte", idx(np.ones((3, 5, 5))), r"have 12 pixels and test images 25"),
        ("t10k-images-idx3-ubyte", idx(np.ones((3, 2, 2)))[:-1], r"but it ends after 11"),
    ],
)
def test_mnist_of_files_that_do_not_belong_together(tmp_path, name, content, message):
    folder = write(tmp_path, packed=False)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_mnist(folder)
    assert str(folder) in str(caught.value)


# ---- MNIST: the download


@pytest.fixture
def mirrors(monkeypatch, tmp_path, nowhere):
    """Two mirrors made of local folders, both good, with their check sums; pooch itself does all but the transport."""
    pooch = pytest.importorskip("pooch")
    folders = {url: write(tmp_path / f"mirror {i}") for i, url in enumerate(mnist_module.MIRRORS)}
    first = folders[mnist_module.MIRRORS[0]]
    sums = {name: hashlib.sha256((first / f"{name}.gz").read_bytes()).hexdigest() for name in NAMES}
    monkeypatch.setattr(mnist_module, "SHA256", sums)

    def copy(self, url, output_file, pooch, check_only=False):
        mirror, _, name = url.rpartition("/")
        output_file = getattr(output_file, "name", output_file)
        shutil.copyfile(folders[f"{mirror}/"] / name, output_file)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", copy)
    return list(folders.values())


def test_download_into_the_cache(mirrors, nowhere):
    check_tiny(load_mnist(download=True))
    assert sorted(os.listdir(nowhere)) == sorted(f"{name}.gz" for name in NAMES)
    for mirror in mirrors:
        shutil.rmtree(mirror)
    check_tiny(load_mnist(download=True))
    check_tiny(load_mnist())


def test_download_into_a_folder(mirrors, nowhere, tmp_path):
    check_tiny(load_mnist(tmp_path / "here", download=True))
    assert not nowhere.exists()
    check_tiny(load_mnist(tmp_path / "here"))


def test_download_goes_to_the_cache_not_into_the_folder_of_the_environment(mirrors, nowhere, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTBP_DATA", str(tmp_path / "data"))
    check_tiny(load_mnist(download=True))
    assert not (tmp_path / "data").exists()
    assert nowhere.exists()


@pytest.mark.parametrize("failure", ["absent", "another file"])
def test_download_turns_to_the_second_mirror(mirrors, failure):
    path = mirrors[0] / f"{NAMES[1]}.gz"
    if failure == "absent":
        path.unlink()
    else:
        path.write_bytes(gzip.compress(idx(np.arange(5)), mtime=0))
    check_tiny(load_mnist(download=True))


def test_download_that_fails_everywhere_leaves_nothing_half_done(mirrors, nowhere):
    (mirrors[0] / f"{NAMES[1]}.gz").unlink()
    (mirrors[1] / f"{NAMES[1]}.gz").write_bytes(b"another file")
    with pytest.raises(
        OSError, match=rf"{NAMES[1]}\.gz could not be fetched \(.*hash.*\): try again, or put"
    ) as caught:
        load_mnist(download=True)
    assert str(nowhere) in str(caught.value)
    assert os.listdir(nowhere) == [f"{NAMES[0]}.gz"]
    write(mirrors[0])
    check_tiny(load_mnist(download=True))


def test_download_without_pooch(monkeypatch, nowhere):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install 'fastbp\[data\]'"):
        load_mnist(download=True)


def test_what_is_there_needs_no_pooch(monkeypatch, tmp_path, nowhere):
    monkeypatch.setitem(sys.modules, "pooch", None)
    check_tiny(load_mnist(write(tmp_path / "here"), download=True))


# ---- the real one


MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def test_the_real_mnist(mnist):
    X_train, y_train, X_test, y_test = mnist
    for X, y, n, zeros, name in ((X_train, y_train, 60_000, 5923, "train"), (X_test, y_test, 10_000, 980, "t10k")):
        assert X.shape == (n, 784)
        assert y.shape == (n,)
        assert X.min() == 0
        assert X.max() == 1
        assert (y == 0).sum() == zeros
        header = struct.pack(">4I", 2051, n, 28, 28)
        pixels = np.round(X * np.float32(255)).astype(np.uint8)
        digest = hashlib.md5(header + pixels.tobytes(), usedforsecurity=False).hexdigest()
        assert digest == MD5[f"{name}-images-idx3-ubyte"]
        content = struct.pack(">2I", 2049, n) + y.astype(np.uint8).tobytes()
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        assert digest == MD5[f"{name}-labels-idx1-ubyte"]
    assert y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert y_test[:5].tolist() == [7, 2, 1, 0, 4]
