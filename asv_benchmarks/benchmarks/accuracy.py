"""Accuracy: what is learned in a fixed number of epochs; a faster kernel that learns less is no gain."""

from __future__ import annotations

import os

import numpy as np
from asv_runner.benchmarks.mark import SkipNotImplemented

from fastbp import SGD, Network
from fastbp.datasets import load_digits, load_mnist, train_test_split
from fastbp.reference import matrix, minibatches, one_hot, train

from .common import IMPLEMENTATIONS, Array

EPOCHS = {"digits": 30, "mnist": 5}
RATE, BATCH = 0.5, 10


class Accuracy:
    """Share of the test set classified correctly: the shipped digits and, where FASTBP_DATA is set, MNIST."""

    params = (IMPLEMENTATIONS, tuple(EPOCHS))
    param_names = ("implementation", "data")
    timeout = 600
    unit = "%"

    def setup(self, implementation: str, data: str) -> None:
        if data == "digits":
            self.X_train, self.X_test, self.y_train, self.y_test = train_test_split(*load_digits())
        elif "FASTBP_DATA" in os.environ:
            self.X_train, self.y_train, self.X_test, self.y_test = load_mnist()
        else:
            raise SkipNotImplemented("FASTBP_DATA does not name a folder with MNIST")
        self.network = Network([self.X_train.shape[1], 30, 10], seed=0)

    def track_test_accuracy(self, implementation: str, data: str) -> float:
        if implementation == "fastbp":
            self.network.fit(
                self.X_train, self.y_train, epochs=EPOCHS[data], batch_size=BATCH,
                optimizer=SGD(learning_rate=RATE), verbose=False,
            )  # fmt: skip
            return 100 * float(self.network.accuracy(self.X_test, self.y_test))
        return 100 * float(np.mean(self.learned_by_numpy(EPOCHS[data]) == self.y_test))

    def learned_by_numpy(self, epochs: int) -> Array:
        """Return the classes that the reference predicts after as many epochs."""
        network, X, rng = self.network, self.X_train.astype(np.float32), np.random.default_rng(0)
        batches = [b for _ in range(epochs) for b in minibatches(len(X), BATCH, rng.permutation(len(X)))]
        activations = ("sigmoid", "sigmoid")
        weights, biases, _ = train(
            network.weights, network.biases, activations, network.architecture.loss, X,
            one_hot(self.y_train, 10, np.float32), hyper={"learning_rate": RATE}, batches=batches,
        )  # fmt: skip
        return matrix.predict(weights, biases, activations, self.X_test.astype(np.float32)).argmax(axis=1)
