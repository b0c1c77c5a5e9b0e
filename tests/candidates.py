"""Candidates: small trainings of many kinds whose results are compared to the bit, in whatever thread or process."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

import fastbp

KINDS = 24  # candidates from there on are those from 0 on
OPTIMIZERS = [fastbp.SGD(0.05), fastbp.SGD(0.02, 0.9), fastbp.Adam(1e-3)]


def candidate(i: int) -> tuple[fastbp.Network, np.ndarray, np.ndarray, dict]:
    """Return a network, its samples, and the arguments of its training."""
    i %= KINDS
    rng = np.random.default_rng(i)
    n, n_in, n_out = 90 + i, 5 + i, 2 + i % 4
    output = "softmax" if i % 2 else "sigmoid"
    network = fastbp.Network(
        [n_in, 9 + 2 * i, n_out], hidden="tanh", output=output, dtype=["float32", "float64"][i // 2 % 2], seed=i
    )
    X = rng.integers(-8, 9, (n, n_in)) / 8
    y = rng.integers(0, n_out, n) if i % 2 else rng.integers(0, 2, (n, n_out)).astype(float)
    return network, X, y, {"epochs": 2, "batch_size": 7 + i, "optimizer": OPTIMIZERS[i % 3], "verbose": False}


def result(i: int, n_threads: int | None = None) -> str:
    """Train, predict, measure and differentiate; return the digest of all numbers."""
    network, X, y, options = candidate(i)
    history = network.fit(X, y, n_threads=n_threads, **options)
    arrays = [*network.weights, *network.biases, *network.activations(X, n_threads=n_threads)]
    for gradients in network.gradients(X, y, n_threads=n_threads):
        arrays += gradients
    total = sha256(repr((history.loss, network.loss(X, y, n_threads=n_threads))).encode())
    for array in arrays:
        assert np.isfinite(array).all()
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def trained(i: int, n_threads: int | None = None) -> str:
    """Train only: one kernel, where it must be compiled; return the digest of the weights."""
    network, X, y, options = candidate(i)
    network.fit(X, y, n_threads=n_threads, **options)
    return sha256(b"".join(w.tobytes() for w in network.weights)).hexdigest()
