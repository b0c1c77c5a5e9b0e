"""mnist_loader: the book's pickle and IDX files give the same lists; nothing but arrays is unpickled."""

from __future__ import annotations

import codecs
import gzip
import os
import pickle
import struct

import numpy as np
import pytest

from fastbp.datasets import read_idx
from fastbp.nielsen import mnist_loader

RNG = np.random.default_rng(0)
N, N_TEST = 10_300, 300


def write_idx(path, array):
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a folder with a small MNIST of 2 x 2 pixels that hold every byte, and its parts as the book has them."""
    folder = tmp_path_factory.mktemp("mnist")
    images = [RNG.integers(256, size=(n, 2, 2), dtype=np.uint8) for n in (N, N_TEST)]
    images[0][:64] = np.arange(256).reshape(64, 2, 2)
    labels = [RNG.integers(10, size=n, dtype=np.uint8) for n in (N, N_TEST)]
    for name, array in zip(("train-images-idx3", "t10k-images-idx3"), images, strict=True):
        write_idx(folder / f"{name}-ubyte", array)
    for name, array in zip(("train-labels-idx1", "t10k-labels-idx1"), labels, strict=True):
        write_idx(folder / f"{name}-ubyte", array)
    X, X_test = ((array.reshape(len(array), 4) / 256).astype(np.float32) for array in images)
    y, y_test = (array.astype(np.int64) for array in labels)
    return folder, ((X[:300], y[:300]), (X[300:], y[300:]), (X_test, y_test))


def write_pickle(path, parts, protocol="of the book"):
    """Write arrays as Python 2 did: their bytes as a latin-1 string, their functions under their old names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb") as file:
        file.write(python2_pickle(parts) if protocol == "of the book" else pickle.dumps(parts, protocol=protocol))


def python2_pickle(parts):
    """Pickle by hand, as Python 2's protocol 2: strings are byte strings (T, U), which latin1 reads."""
    out = [b"\x80\x02"]

    def short(text):
        return b"U" + bytes([len(text)]) + text

    def array(a):
        code = b"f4" if a.dtype == np.float32 else b"i8"
        shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in a.shape) + b"t"
        data = a.astype("<" + code.decode()).tobytes()
        dtype = b"cnumpy\ndtype\n" + short(code) + b"K\x00K\x01\x87R(K\x03" + short(b"<") + b"NNNJ\xff\xff\xff\xff"
        dtype += b"J\xff\xff\xff\xffK\x00tb"
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R"
            b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
        )

    for X, y in parts:
        out += [array(X), array(y), b"\x86"]
    out += [b"\x87."]
    return b"".join(out)


def assert_parts(got, wanted):
    for (X, y), (X_wanted, y_wanted) in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(X, X_wanted, strict=True)
        np.testing.assert_array_equal(y, y_wanted, strict=True)


def test_idx_files(files):
    folder, parts = files
    assert_parts(mnist_loader.load_data(folder), parts)
    assert_parts(mnist_loader.load_data(str(folder)), parts)


def test_where_fastbp_data_says(files, monkeypatch, tmp_path):
    folder, parts = files
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTBP_DATA", str(folder))
    assert_parts(mnist_loader.load_data(), parts)


@pytest.mark.parametrize("protocol", ["of the book", 2, 3, 4, pickle.HIGHEST_PROTOCOL])
def test_the_books_pickle(files, tmp_path, protocol):
    path = tmp_path / "mnist.pkl.gz"
    write_pickle(path, files[1], protocol)
    assert_parts(mnist_loader.load_data(path), files[1])


def test_the_books_place(files, monkeypatch, tmp_path):
    """A reader who works in the book's src/ has the file in ../data/."""
    write_pickle(tmp_path / "data" / "mnist.pkl.gz", files[1])
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    monkeypatch.setenv("FASTBP_DATA", str(tmp_path / "nowhere"))
    assert_parts(mnist_loader.load_data(), files[1])


def test_wrapper(files):
    training, validation, test = mnist_loader.load_data_wrapper(files[0])
    assert [len(training), len(validation), len(test)] == [300, 10_000, 300]
    for pairs, (X, y) in zip((training, validation, test), files[1], strict=True):
        assert type(pairs) is list
        for i in 0, 1, len(pairs) - 1:
            assert type(pairs[i]) is tuple
            x, label = pairs[i]
            np.testing.assert_array_equal(x, X[i].reshape(4, 1), strict=True)
            if pairs is training:
                np.testing.assert_array_equal(label, mnist_loader.vectorized_result(y[i]), strict=True)
            else:
                assert type(label) is np.int64
                assert label == y[i]
    training[0][0][:] = 5.0  # each is writable, and nobody else's
    assert training[1][0].max() < 1
    training[0][1][:] = 5.0
    assert training[1][1].sum() == 1


class Command:
    def __reduce__(self):
        return os.mkdir, ("made",)


@pytest.mark.parametrize("content", [Command(), codecs.encode, [1, 2, 3], ((1, 2), (1, 2), (1, 2)), None])
def test_a_pickle_of_something_else(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with gzip.open("mnist.pkl.gz", "wb") as file:
        pickle.dump(content, file, protocol=2)
    with pytest.raises(ValueError, match=r"mnist\.pkl\.gz is not the book's mnist\.pkl\.gz, or damaged"):
        mnist_loader.load_data("mnist.pkl.gz")
    assert os.listdir() == ["mnist.pkl.gz"]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-200], lambda data: b"no gzip", lambda data: data[:50] + b"?" * 40 + data[90:]]
)
def test_a_damaged_pickle(files, tmp_path, damage):
    path = tmp_path / "mnist.pkl.gz"
    write_pickle(path, files[1])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="or damaged"):
        mnist_loader.load_data(path)


def test_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTBP_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        mnist_loader.load_data("mnist.pkl.gz")
    with pytest.raises(FileNotFoundError, match="were not found"):
        mnist_loader.load_data()


def test_too_few_images(tmp_path):
    for name, n in ("train", 10_000), ("t10k", 1):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte", np.zeros((n, 1, 1), np.uint8))
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte", np.zeros(n, np.uint8))
    with pytest.raises(ValueError, match="here are 10000: too few to set 10000 aside"):
        mnist_loader.load_data(tmp_path)


def test_mnist(monkeypatch, tmp_path):
    """The real one: the books' split, and the bytes of the files over 256."""
    if "FASTBP_DATA" not in os.environ:
        pytest.skip("the environment variable FASTBP_DATA does not name a folder with MNIST")
    monkeypatch.chdir(tmp_path)
    training, validation, test = mnist_loader.load_data()
    assert [X.shape for X, _ in (training, validation, test)] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    assert all(X.dtype == np.float32 and y.dtype == np.int64 for X, y in (training, validation, test))
    assert training[0].max() == 255 / 256
    assert training[1][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test[1][:5].tolist() == [7, 2, 1, 0, 4]
    data = os.environ["FASTBP_DATA"]
    for folder in data, os.path.join(data, "mnist"):
        for ending in "", ".gz":
            path = os.path.join(folder, f"train-images-idx3-ubyte{ending}")
            if os.path.exists(path):
                images = read_idx(path).reshape(60_000, 784)
                np.testing.assert_array_equal(validation[0] * 256, images[50_000:])
                return
    pytest.fail("no training images found")
