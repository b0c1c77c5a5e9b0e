"""Accuracy: what fastbp learns in a fixed number of epochs; a faster kernel that learns less is no gain."""

from __future__ import annotations

import os

from asv_runner.benchmarks.mark import SkipNotImplemented

from fastbp import SGD, Network
from fastbp.datasets import load_digits, load_mnist, train_test_split


class Accuracy:
    """Share of the test set classified correctly: the shipped digits and, where FASTBP_DATA is set, MNIST."""

    params = ("digits", "mnist")
    param_names = ("data",)
    timeout = 600
    unit = "%"

    def setup(self, data: str) -> None:
        if data == "digits":
            self.X_train, self.X_test, self.y_train, self.y_test = train_test_split(*load_digits())
        elif "FASTBP_DATA" in os.environ:
            self.X_train, self.y_train, self.X_test, self.y_test = load_mnist()
        else:
            raise SkipNotImplemented("FASTBP_DATA does not name a folder with MNIST")

    def track_test_accuracy(self, data: str) -> float:
        network = Network([self.X_train.shape[1], 30, 10], seed=0)
        epochs = 30 if data == "digits" else 5
        network.fit(
            self.X_train, self.y_train, epochs=epochs, batch_size=10, optimizer=SGD(learning_rate=0.5), verbose=False
        )
        return 100 * float(network.accuracy(self.X_test, self.y_test))
