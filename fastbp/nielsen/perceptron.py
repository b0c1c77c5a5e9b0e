"""Perceptron: what the book's two networks share, one sample after the other in NumPy.

This is the book's own way. It is taken wherever something is overridden, and for those few samples for which starting
the engine would take longer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Perceptron", "are_own", "gaussian", "originals"]

Floats = NDArray[Any]
Function = Callable[[Any], Any]


class Perceptron(ABC):
    """Weights and biases layer by layer; forward and backward passes.

    Attributes
    ----------
    num_layers : int
        Layers of neurons, the inputs among them.
    sizes : sequence of int
        Neurons of each.
    biases : list of float64 arrays (n_out, 1)
    weights : list of float64 arrays (n_out, n_in)
    """

    num_layers: int
    sizes: Sequence[int]
    biases: list[Floats]
    weights: list[Floats]

    @abstractmethod
    def _functions(self) -> tuple[Function, Function]:
        """Return sigma and sigma' as they stand in the network's own module now, where users may patch them."""

    @abstractmethod
    def _output_delta(self, z: Any, a: Any, y: Any) -> Any:
        """Return delta of the output layer (BP1): `network` by cost_derivative, `network2` by its cost."""

    def feedforward(self, a: Any) -> Any:
        """Return the network's outputs.

        Parameters
        ----------
        a : array (n_in, 1)
            One input, or several side by side, (n_in, m).

        Returns
        -------
        array (n_out, 1) or (n_out, m)
        """
        sigmoid, _ = self._functions()
        for b, w in zip(self.biases, self.weights, strict=False):
            a = sigmoid(np.dot(w, a) + b)
        return a

    def backprop(self, x: Any, y: Any) -> tuple[list[Any], list[Any]]:
        """Return the gradient of the cost of one sample.

        Parameters
        ----------
        x : array (n_in, 1)
        y : array (n_out, 1)

        Returns
        -------
        nabla_b, nabla_w : lists of arrays
            dC/db and dC/dw of each layer, of the shapes of `biases` and `weights`.
        """
        sigmoid, sigmoid_prime = self._functions()
        nabla_b: list[Any] = [np.zeros(b.shape) for b in self.biases]
        nabla_w: list[Any] = [np.zeros(w.shape) for w in self.weights]
        activations, zs = [x], []
        for b, w in zip(self.biases, self.weights, strict=False):
            zs.append(np.dot(w, activations[-1]) + b)
            activations.append(sigmoid(zs[-1]))
        delta = self._output_delta(zs[-1], activations[-1], y)  # BP1
        for l in range(1, self.num_layers):  # counted from the last layer
            if l > 1:
                delta = np.dot(self.weights[1 - l].transpose(), delta) * sigmoid_prime(zs[-l])  # BP2
            nabla_b[-l] = delta  # BP3
            nabla_w[-l] = np.dot(delta, activations[-l - 1].transpose())  # BP4
        return nabla_b, nabla_w

    def _summed_gradient(self, mini_batch: Any) -> tuple[list[Any], list[Any]]:
        """Return `backprop` summed over a mini-batch."""
        nabla_b: list[Any] = [np.zeros(b.shape) for b in self.biases]
        nabla_w: list[Any] = [np.zeros(w.shape) for w in self.weights]
        for x, y in mini_batch:
            more_b, more_w = self.backprop(x, y)
            nabla_b = [sums + more for sums, more in zip(nabla_b, more_b, strict=False)]
            nabla_w = [sums + more for sums, more in zip(nabla_w, more_w, strict=False)]
        return nabla_b, nabla_w


def gaussian(sizes: Sequence[int]) -> tuple[list[Floats], list[Floats]]:
    """Return biases and weights of mean 0 and variance 1, drawn from NumPy's global generator as the book does."""
    randn: Callable[..., Floats] = np.random.randn
    biases = [randn(n_out, 1) for n_out in sizes[1:]]
    return biases, [randn(n_out, n_in) for n_in, n_out in pairwise(sizes)]


def originals(cls: type[Perceptron], *names: str) -> dict[str, Any]:
    """Return methods as they are before anybody overrides them."""
    return {name: getattr(cls, name) for name in names}


def are_own(network: Perceptron, methods: Mapping[str, Any], *names: str) -> bool:
    """Whether calling these methods of a network calls the originals on itself, overridden nowhere."""
    for name in names:
        method: Any = getattr(network, name, None)
        if getattr(method, "__func__", None) is not methods[name] or method.__self__ is not network:
            return False
    return True
