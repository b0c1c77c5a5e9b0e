"""Networks: small ones with samples, for the tests of what a network does."""

from __future__ import annotations

import numpy as np

from fastbp import SGD, Adam, Callback, Network

DTYPES = ["float32", "float64"]
OPTIMIZERS = {
    "sgd": SGD(0.1),
    "momentum": SGD(0.05, 0.9),
    "nesterov": SGD(0.05, 0.9, nesterov=True),
    "adam": Adam(0.01),
}
RNG = np.random.default_rng(0)
X = RNG.random((53, 6), np.float32)
Y = RNG.integers(0, 4, 53)
REAL = RNG.random((53, 4), np.float32)


def make(sizes=(6, 9, 4), **options):
    options = {"output": "softmax", "seed": 5, **options}
    return Network(sizes, **options)


def fit(network, epochs=3, **options):
    options = {"batch_size": 8, "optimizer": Adam(0.01), "verbose": False, **options}
    return network.fit(X, Y, epochs=epochs, **options)


def bits(network):
    return b"".join(array.tobytes() for array in (*network.weights, *network.biases))


def gradient_bits(network, y):
    dw, db = network.gradients(X, y)
    return b"".join(array.tobytes() for array in (*dw, *db))


def init_of(network):
    return list(zip(network.weights, network.biases, strict=True))


class Calling(Callback):
    """Call a function with the state at the end of each epoch."""

    def __init__(self, function):
        self.on_epoch_end = function
