"""network: the book's first program, stochastic gradient descent on the quadratic cost (chapters 1 and 2).

It stands in for `src/network.py`. `SGD` runs on fastbp's engine as long as it computes what the methods here would;
override any of them, or replace this module's `sigmoid` and `sigmoid_prime`, and what you wrote is called as in the
book.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.nielsen.descent import Rule, checked_shuffle, descend, outputs
from fastbp.nielsen.perceptron import Function, Perceptron, are_own, gaussian, originals
from fastbp.nielsen.samples import Samples, Shuffle

__all__ = ["Network", "sigmoid", "sigmoid_prime"]


def sigmoid(z: Any) -> Any:
    """Return 1 / (1 + e^-z).

    Examples
    --------
    >>> from fastbp.nielsen import network
    >>> float(network.sigmoid(0.0))
    0.5
    """
    return 1.0 / (1.0 + np.exp(-z))


def sigmoid_prime(z: Any) -> Any:
    """Return the derivative of `sigmoid`.

    Examples
    --------
    >>> from fastbp.nielsen import network
    >>> float(network.sigmoid_prime(0.0))
    0.25
    """
    return sigmoid(z) * (1 - sigmoid(z))


class Network(Perceptron):
    """A network of sigmoid neurons; biases and weights start with mean 0 and variance 1.

    Parameters
    ----------
    sizes : sequence of int
        Neurons of each layer, from the inputs to the outputs. All biases, then all weights are drawn by
        `numpy.random.randn`: `numpy.random.seed` repeats them.

    Attributes
    ----------
    num_layers : int
    sizes : sequence of int
    biases : list of float64 arrays (n_out, 1)
    weights : list of float64 arrays (n_out, n_in)
        Replace them or write into them as you like; training binds both to new arrays, as in the book.

    References
    ----------
    M. Nielsen, *Neural Networks and Deep Learning* (2015), chapter 1.

    Examples
    --------
    >>> import random
    >>> import numpy as np
    >>> from fastbp.nielsen import network
    >>> random.seed(0)
    >>> np.random.seed(0)
    >>> inputs = [np.array([[i], [j]]) for i in (0, 1) for j in (0, 1)]
    >>> xor = [(x, np.array([[x.sum() % 2]])) for x in inputs]
    >>> net = network.Network([2, 3, 1])
    >>> net.SGD(xor, 3, 4, 3.0)
    Epoch 0 complete
    Epoch 1 complete
    Epoch 2 complete
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.num_layers = len(sizes)
        self.sizes = sizes
        self.biases, self.weights = gaussian(sizes)

    def SGD(
        self,
        training_data: Iterable[tuple[Any, Any]],
        epochs: int,
        mini_batch_size: int,
        eta: float,
        test_data: Iterable[tuple[Any, Any]] | None = None,
        *,
        shuffle: Shuffle = "python3",
    ) -> None:
        """Train by stochastic gradient descent on mini-batches, and print how far it is after each epoch.

        Parameters
        ----------
        training_data : iterable of (x, y)
            Inputs (n_in, 1) and wanted outputs (n_out, 1). A list is shuffled in place at each epoch, as in the book; a
            zip or a generator is listed first. The engine makes a copy in float64 while it trains.
        epochs : int
        mini_batch_size : int
            The last mini-batch may be shorter; its mean is over its own samples.
        eta : float
            Learning rate.
        test_data : iterable of (x, label), optional
            The network is tested on it after each epoch.
        shuffle : "python3" or "python2", default "python3"
            `random.shuffle` as it is, or as it was in the book's Python 2; both draw from Python's global generator, so
            that `random.seed` repeats them.

        Raises
        ------
        ValueError
            `shuffle` is neither; a pair is no pair; mini_batch_size is 0.

        Notes
        -----
        A loss or weights that are not finite stop nothing, as in the book: see to the learning rate.
        """
        training = Samples(training_data)
        test = Samples(test_data if test_data is not None else [])
        n_test = len(test)

        def look(epoch: int) -> bool:
            if n_test:
                hits = self._hits(test) if are_own(self, _BOOK, "evaluate") else self.evaluate(test.pairs)
                print(f"Epoch {epoch}: {hits} / {n_test}")
            else:
                print(f"Epoch {epoch} complete")
            return False

        descend(
            self,
            training,
            epochs,
            mini_batch_size,
            random=random,
            shuffle=checked_shuffle(shuffle),
            rule=lambda: Rule("quadratic", eta) if self._is_own(*_TRAINING) else None,
            step=lambda mini_batch: self.update_mini_batch(mini_batch, eta),
            look=look,
            measures=(test,) if n_test else (),
            is_own=lambda: self._is_own(*_BOOK),
        )

    def update_mini_batch(self, mini_batch: Any, eta: float) -> None:
        """Take one step of gradient descent.

        Parameters
        ----------
        mini_batch : list of (x, y)
        eta : float
            Learning rate.
        """
        nabla_b, nabla_w = self._summed_gradient(mini_batch)
        m = len(mini_batch)
        self.weights = [w - (eta / m) * nabla for w, nabla in zip(self.weights, nabla_w, strict=False)]
        self.biases = [b - (eta / m) * nabla for b, nabla in zip(self.biases, nabla_b, strict=False)]

    def evaluate(self, test_data: Iterable[tuple[Any, Any]]) -> int:
        """Return how many inputs are classified rightly: the largest output is the label, the first of equals.

        Parameters
        ----------
        test_data : iterable of (x, label)

        Returns
        -------
        int
        """
        return self._hits(Samples(test_data))

    def cost_derivative(self, output_activations: Any, y: Any) -> Any:
        """Return dC/da of the outputs, a - y: C = 1/2 |a - y|^2."""
        return output_activations - y

    def _hits(self, test: Samples) -> int:
        a = outputs(self, test) if self._is_own("feedforward") else None
        labels = None if a is None else test.labels()
        if a is None or labels is None:
            return sum(int(np.argmax(self.feedforward(x)) == y) for x, y in test.pairs)
        return int(np.count_nonzero(a.argmax(axis=1) == labels))

    def _is_own(self, *names: str) -> bool:
        return are_own(self, _BOOK, *names) and self._functions() == _FUNCTIONS

    def _functions(self) -> tuple[Function, Function]:
        return sigmoid, sigmoid_prime

    def _output_delta(self, z: Any, a: NDArray[Any], y: Any) -> Any:
        return self.cost_derivative(a, y) * sigmoid_prime(z)


_FUNCTIONS = sigmoid, sigmoid_prime
_TRAINING = ("update_mini_batch", "backprop", "cost_derivative")
_BOOK = originals(Network, *_TRAINING, "feedforward", "evaluate")
