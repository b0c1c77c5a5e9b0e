"""A workload whose results are compared to the bit; run as a program, it prints the digest and what was compiled.

python workload.py [float32] [float64]
"""

from __future__ import annotations

import itertools
import json
import sys
from hashlib import sha256

import numpy as np
from scipy.sparse import csr_array

import fastbp
from fastbp.kernels import _jit
from fastbp.kernels.evaluation import evaluate
from fastbp.kernels.minibatch import train
from fastbp.kernels.narrow import train_narrow
from fastbp.kernels.simd import register_bytes

DTYPES = ["float32", "float64"]
KERNELS = train, train_narrow, evaluate
NETWORKS = [  # sizes, hidden, output, loss, samples, batch size
    ([64, 30, 10], "sigmoid", "softmax", "cross_entropy", 205, 10),
    ([33, 17, 65, 3], "tanh", "sigmoid", "cross_entropy", 130, 32),
    ([5, 41, 9, 1], "relu", "identity", "mse", 1030, 257),
    ([256, 19, 7], "tanh", "tanh", "quadratic", 1300, 1300),
    ([2, 1], [], "sigmoid", "quadratic", 21, 4),
    ([20, 96, 40], "relu", "identity", "quadratic", 70, 16),
    ([300, 100, 3], "relu", "softmax", "cross_entropy", 300, 130),
]
L2 = [0.0, 0.01, 0.0, 0.1, 0.5, 0.0, 0.01]  # of each network
MOSTLY_ZERO = {300}  # inputs of which most are
OPTIMIZERS = [fastbp.SGD(0.05), fastbp.SGD(0.02, 0.9), fastbp.SGD(0.02, 0.9, nesterov=True), fastbp.Adam(1e-3)]


def digest(dtype: str, n_threads: int | None = None) -> str:
    """Train, differentiate and predict with networks of all kinds; return a digest of every number that comes out."""
    total = sha256()
    for (sizes, hidden, output, loss, n, batch_size), l2 in zip(NETWORKS, L2, strict=True):
        rng = np.random.default_rng(sum(sizes))
        X = rng.integers(-8, 9, (n, sizes[0])) / 8  # without rounding, so that no other library's bits are in it
        if sizes[0] in MOSTLY_ZERO:
            X[rng.random(X.shape) < 0.8] = 0
        y = rng.integers(0, 2, (n, sizes[-1])) if output != "softmax" else rng.integers(0, sizes[-1], n)
        init = [
            (rng.integers(-64, 65, (j, k)) / 256, rng.integers(-9, 10, j) / 32) for k, j in itertools.pairwise(sizes)
        ]
        for optimizer in OPTIMIZERS:
            network = fastbp.Network(sizes, hidden=hidden, output=output, loss=loss, dtype=dtype, seed=1, init=init)
            history = network.fit(
                X, y, epochs=2, batch_size=batch_size, optimizer=optimizer, l2=l2, n_threads=n_threads, verbose=False
            )
            results = [*network.weights, *network.biases, *network.activations(X, n_threads=n_threads)]
            for gradients in network.gradients(X, y, n_threads=n_threads):
                results += gradients
            for array in results:
                assert np.isfinite(array).all()
                total.update(np.ascontiguousarray(array).tobytes())
            total.update(repr((history.loss, network.loss(X, y, n_threads=n_threads))).encode())
        if n_threads is None:  # for any number of them there is test_sparse.py
            twin = fastbp.Network(sizes, hidden=hidden, output=output, loss=loss, dtype=dtype, seed=1, init=init)
            twin.fit(csr_array(X), y, epochs=2, batch_size=batch_size, optimizer=OPTIMIZERS[-1], l2=l2, verbose=False)
            for ours, dense in zip((*twin.weights, *twin.biases), results, strict=False):
                assert ours.tobytes() == dense.tobytes(), "a sparse X gives the same bits"
    return total.hexdigest()


def main(dtypes: list[str]) -> None:
    before = {"signatures": sum(len(kernel.signatures) for kernel in KERNELS), "counts": dict(_jit.counts)}
    digests = {dtype: digest(dtype) for dtype in dtypes}
    report = {"before": before, "digests": digests, "counts": _jit.counts, "register_bytes": register_bytes()}
    if _jit.counts["compiled"]:  # Numba does not show the assembly of what it did not compile itself
        texts = [text for kernel in KERNELS for text in kernel.inspect_asm().values()]
        report["assembly"] = {word: sum(text.count(word) for text in texts) for word in ("zmm", "ymm", "vfmadd")}
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1:] or DTYPES)
