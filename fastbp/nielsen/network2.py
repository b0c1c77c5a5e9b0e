"""network2: the book's second program: cross-entropy, L2 regularisation, better starting weights (chapter 3).

It stands in for `src/network2.py`. `SGD` runs on fastbp's engine as long as it computes what the methods here would;
override any of them, pass a cost of your own, or replace this module's `sigmoid`, `sigmoid_prime` or
`vectorized_result`, and what you wrote is called as in the book.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.nielsen.descent import Rule, checked_shuffle, descend, outputs
from fastbp.nielsen.perceptron import Function, Perceptron, are_own, gaussian, originals
from fastbp.nielsen.samples import Samples, Shuffle

__all__ = ["CrossEntropyCost", "Network", "QuadraticCost", "load", "sigmoid", "sigmoid_prime", "vectorized_result"]

Monitored = tuple[list[float], list[int], list[float], list[int]]


def sigmoid(z: Any) -> Any:
    """Return 1 / (1 + e^-z).

    Examples
    --------
    >>> from fastbp.nielsen import network2
    >>> float(network2.sigmoid(0.0))
    0.5
    """
    return 1.0 / (1.0 + np.exp(-z))


def sigmoid_prime(z: Any) -> Any:
    """Return the derivative of `sigmoid`.

    Examples
    --------
    >>> from fastbp.nielsen import network2
    >>> float(network2.sigmoid_prime(0.0))
    0.25
    """
    return sigmoid(z) * (1 - sigmoid(z))


def vectorized_result(j: int) -> NDArray[np.float64]:
    """Return the wanted outputs for a digit: a column (10, 1) with 1 at place j.

    Examples
    --------
    >>> from fastbp.nielsen import network2
    >>> network2.vectorized_result(3).ravel()
    array([0., 0., 0., 1., 0., 0., 0., 0., 0., 0.])
    """
    e = np.zeros((10, 1))
    e[j] = 1.0
    return e


class QuadraticCost:
    """C = 1/2 |a - y|^2 of a sample.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.nielsen import network2
    >>> float(network2.QuadraticCost.fn(np.array([[0.5], [1.0]]), np.array([[0.0], [1.0]])))
    0.125
    """

    @staticmethod
    def fn(a: Any, y: Any) -> Any:
        """Return the cost of outputs a where y is wanted."""
        return 0.5 * np.linalg.norm(a - y) ** 2

    @staticmethod
    def delta(z: Any, a: Any, y: Any) -> Any:
        """Return delta of the output layer (BP1), (a - y) sigma'(z)."""
        return (a - y) * sigmoid_prime(z)


class CrossEntropyCost:
    """C = -sum_j y_j log a_j + (1 - y_j) log(1 - a_j) of a sample.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.nielsen import network2
    >>> round(float(network2.CrossEntropyCost.fn(np.array([[0.5], [0.5]]), np.array([[0.0], [1.0]]))), 6)
    1.386294
    """

    @staticmethod
    def fn(a: Any, y: Any) -> Any:
        """Return the cost of outputs a where y is wanted; 0 log 0 is 0, an infinite term the largest float."""
        return np.sum(_entropy_terms(a, y))

    @staticmethod
    def delta(z: Any, a: Any, y: Any) -> Any:
        """Return delta of the output layer (BP1), a - y."""
        return a - y


def _entropy_terms(a: Any, y: Any) -> Any:
    return np.nan_to_num(-y * np.log(a) - (1 - y) * np.log(1 - a))


class Network(Perceptron):
    """A network of sigmoid neurons, with a cost of choice.

    Parameters
    ----------
    sizes : sequence of int
        Neurons of each layer, from the inputs to the outputs.
    cost : class or instance, default CrossEntropyCost
        `CrossEntropyCost`, `QuadraticCost`, or anything with ``fn(a, y)`` and ``delta(z, a, y)``.

    Attributes
    ----------
    num_layers : int
    sizes : sequence of int
    biases : list of float64 arrays (n_out, 1)
    weights : list of float64 arrays (n_out, n_in)
        Replace them or write into them as you like; training binds both to new arrays, as in the book.
    cost : class or instance

    References
    ----------
    M. Nielsen, *Neural Networks and Deep Learning* (2015), chapter 3.

    Examples
    --------
    >>> import random
    >>> import numpy as np
    >>> from fastbp.datasets import load_digits
    >>> from fastbp.nielsen import network2
    >>> random.seed(0)
    >>> np.random.seed(0)
    >>> X, y = load_digits()
    >>> data = [(x.reshape(64, 1), network2.vectorized_result(label)) for x, label in zip(X, y)]
    >>> net = network2.Network([64, 30, 10])
    >>> monitored = net.SGD(data[:1500], 2, 10, 0.5, lmbda=0.1, monitor_training_accuracy=True)
    Epoch 0 training complete
    Accuracy on training data: 1227 / 1500
    <BLANKLINE>
    Epoch 1 training complete
    Accuracy on training data: 1397 / 1500
    <BLANKLINE>
    >>> monitored
    ([], [], [], [1227, 1397])
    """

    def __init__(self, sizes: Sequence[int], cost: Any = CrossEntropyCost) -> None:
        self.num_layers = len(sizes)
        self.sizes = sizes
        self.default_weight_initializer()
        self.cost = cost

    def default_weight_initializer(self) -> None:
        """Draw biases of variance 1, and weights of variance 1 / n_in, so that no neuron starts saturated."""
        self.biases, weights = gaussian(self.sizes)
        self.weights = [w / np.sqrt(w.shape[1]) for w in weights]

    def large_weight_initializer(self) -> None:
        """Draw biases and weights of variance 1, as in chapter 1.

        The constructor has drawn from `numpy.random.randn` before: this draws a second time.
        """
        self.biases, self.weights = gaussian(self.sizes)

    def SGD(
        self,
        training_data: Iterable[tuple[Any, Any]],
        epochs: int,
        mini_batch_size: int,
        eta: float,
        lmbda: float = 0.0,
        evaluation_data: Iterable[tuple[Any, Any]] | None = None,
        monitor_evaluation_cost: bool = False,
        monitor_evaluation_accuracy: bool = False,
        monitor_training_cost: bool = False,
        monitor_training_accuracy: bool = False,
        early_stopping_n: int = 0,
        *,
        shuffle: Shuffle = "python3",
    ) -> Monitored:
        """Train by stochastic gradient descent on mini-batches; print and return what is monitored.

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
        lmbda : float, default 0.0
            L2 regularisation: the cost has lmbda / 2n times the sum of all squared weights, n samples.
        evaluation_data : iterable of (x, label), optional
        monitor_evaluation_cost, monitor_evaluation_accuracy : bool, default False
        monitor_training_cost, monitor_training_accuracy : bool, default False
            What to measure at the end of each epoch.
        early_stopping_n : int, default 0
            Stop when the accuracy (on the evaluation data if monitored, else on the training data) has not risen for so
            many epochs; 0 never stops. An addition of the book's ports to Python 3.
        shuffle : "python3" or "python2", default "python3"
            `random.shuffle` as it is, or as it was in the book's Python 2; both draw from Python's global generator, so
            that `random.seed` repeats them.

        Returns
        -------
        evaluation_cost, evaluation_accuracy, training_cost, training_accuracy : lists
            One value an epoch, accuracies as numbers of samples; empty where not monitored.

        Raises
        ------
        ValueError
            `evaluation_data` or an accuracy is needed and missing; `shuffle` is neither; a pair is no pair;
            mini_batch_size is 0.

        Notes
        -----
        A loss or weights that are not finite stop nothing, as in the book: see to the learning rate.
        """
        training = Samples(training_data)
        evaluation = Samples(evaluation_data if evaluation_data is not None else [])
        n, n_evaluation = len(training), len(evaluation)
        if (monitor_evaluation_cost or monitor_evaluation_accuracy) and not n_evaluation:
            raise ValueError("the evaluation is monitored, but evaluation_data is missing or empty: pass some")
        if early_stopping_n > 0 and not (monitor_evaluation_accuracy or monitor_training_accuracy):
            raise ValueError(
                f"early_stopping_n is {early_stopping_n}, but no accuracy is monitored: pass "
                "monitor_evaluation_accuracy=True or monitor_training_accuracy=True"
            )
        evaluation_cost: list[float] = []
        evaluation_accuracy: list[int] = []
        training_cost: list[float] = []
        training_accuracy: list[int] = []
        monitored = evaluation_cost, evaluation_accuracy, training_cost, training_accuracy

        def cost_of(data: Samples, convert: bool) -> float:
            if self._is_own("total_cost"):
                return self._cost(data, lmbda, convert)
            # the book leaves out what is False
            return self.total_cost(data.pairs, lmbda, **({"convert": True} if convert else {}))

        def hits_of(data: Samples, convert: bool) -> int:
            if self._is_own("accuracy"):
                return self._hits(data, convert)
            return self.accuracy(data.pairs, **({"convert": True} if convert else {}))

        def look(epoch: int) -> bool:
            print(f"Epoch {epoch} training complete")
            if monitor_training_cost:
                training_cost.append(cost_of(training, False))
                print(f"Cost on training data: {training_cost[-1]}")
            if monitor_training_accuracy:
                training_accuracy.append(hits_of(training, True))
                print(f"Accuracy on training data: {training_accuracy[-1]} / {n}")
            if monitor_evaluation_cost:
                evaluation_cost.append(cost_of(evaluation, True))
                print(f"Cost on evaluation data: {evaluation_cost[-1]}")
            if monitor_evaluation_accuracy:
                evaluation_accuracy.append(hits_of(evaluation, False))
                # the book asks a second time for what it prints
                print(f"Accuracy on evaluation data: {hits_of(evaluation, False)} / {n_evaluation}")
            print()
            return early_stopping_n > 0 and _stalled(evaluation_accuracy or training_accuracy, early_stopping_n)

        descend(
            self,
            training,
            epochs,
            mini_batch_size,
            random=random,
            shuffle=checked_shuffle(shuffle),
            rule=lambda: self._rule(eta, lmbda, n),
            step=lambda mini_batch: self.update_mini_batch(mini_batch, eta, lmbda, n),
            look=look,
            measures=[
                data
                for data, measured in (
                    (training, monitor_training_cost or monitor_training_accuracy),
                    (evaluation, monitor_evaluation_cost or monitor_evaluation_accuracy),
                )
                if measured
            ],
            is_own=lambda: self._is_own(*_BOOK) and self._own_cost() is not None,
        )
        return monitored

    def update_mini_batch(self, mini_batch: Any, eta: float, lmbda: float, n: int) -> None:
        """Take one step of gradient descent.

        Parameters
        ----------
        mini_batch : list of (x, y)
        eta : float
            Learning rate.
        lmbda : float
            L2 regularisation.
        n : int
            Samples of the whole training set.
        """
        nabla_b, nabla_w = self._summed_gradient(mini_batch)
        m = len(mini_batch)
        self.weights = [
            (1 - eta * (lmbda / n)) * w - (eta / m) * nabla for w, nabla in zip(self.weights, nabla_w, strict=False)
        ]
        self.biases = [b - (eta / m) * nabla for b, nabla in zip(self.biases, nabla_b, strict=False)]

    def accuracy(self, data: Iterable[tuple[Any, Any]], convert: bool = False) -> int:
        """Return how many inputs are classified rightly: the largest output is the label, the first of equals.

        Parameters
        ----------
        data : iterable of (x, label), or of (x, y)
        convert : bool, default False
            Whether it holds wanted outputs y instead of labels, as training data do.

        Returns
        -------
        int
        """
        return self._hits(Samples(data), convert)

    def total_cost(self, data: Iterable[tuple[Any, Any]], lmbda: float, convert: bool = False) -> float:
        """Return the mean cost of samples, and the L2 term.

        Parameters
        ----------
        data : iterable of (x, y), or of (x, label)
        lmbda : float
            The L2 term is lmbda / 2n times the sum of all squared weights, n the number of these samples.
        convert : bool, default False
            Whether it holds labels 0 to 9 instead of wanted outputs y, as evaluation data do.

        Returns
        -------
        float
        """
        return self._cost(Samples(data), lmbda, convert)

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the network as JSON, which `load` reads: sizes, weights, biases and the cost's name.

        Parameters
        ----------
        filename : path
        """
        cost = getattr(self.cost, "__name__", type(self.cost).__name__)
        data = {
            "sizes": self.sizes,
            "weights": [w.tolist() for w in self.weights],
            "biases": [b.tolist() for b in self.biases],
            "cost": str(cost),
        }
        text = json.dumps(data)  # before an old file is overwritten
        Path(filename).write_text(text, encoding="utf-8")

    def _rule(self, eta: float, lmbda: float, n: int) -> Rule | None:
        cost = self._own_cost("delta")
        if cost is None or not self._is_own("update_mini_batch", "backprop"):
            return None
        return Rule("quadratic" if cost is QuadraticCost else "cross_entropy", eta, lmbda / n)

    def _outputs(self, data: Samples) -> NDArray[Any] | None:
        return outputs(self, data) if self._is_own("feedforward") else None

    def _hits(self, data: Samples, convert: bool) -> int:
        a = self._outputs(data)
        wanted = None if a is None else _classes(data, a.shape[1]) if convert else data.labels()
        if a is None or wanted is None:
            answers = ((np.argmax(self.feedforward(x)), np.argmax(y) if convert else y) for x, y in data.pairs)
            return sum(int(answer == y) for answer, y in answers)
        return int(np.count_nonzero(a.argmax(axis=1) == wanted))

    def _cost(self, data: Samples, lmbda: float, convert: bool) -> float:
        n = len(data)
        costs = self._costs(data, convert)
        total: Any = 0.0
        if costs is None:
            for x, y in data.pairs:
                a = self.feedforward(x)
                total += self.cost.fn(a, vectorized_result(y) if convert else y) / n
        else:
            total += np.cumsum(costs[data.order] / n)[-1]  # one after the other, as the book adds
        total += 0.5 * (lmbda / n) * sum(np.linalg.norm(w) ** 2 for w in self.weights)
        return total  # type: ignore[no-any-return]

    def _costs(self, data: Samples, convert: bool) -> NDArray[Any] | None:
        """Return the cost of each sample, in the order of their matrices; None where only `cost.fn` can."""
        cost = self._own_cost("fn")
        a = None if cost is None else self._outputs(data)
        y = None if a is None else _one_hot(data, a.shape[1]) if convert else data.targets(a.shape[1])
        if a is None or y is None:
            return None
        if cost is QuadraticCost:
            return 0.5 * np.linalg.norm(a - y, axis=1) ** 2  # type: ignore[no-any-return]
        return np.sum(_entropy_terms(a, y), axis=1)  # type: ignore[no-any-return]

    def _own_cost(self, *names: str) -> type | None:
        """Return which of the two costs of this module these functions of the cost are; None for anything else."""
        for own, functions in _COSTS.items():
            if all(getattr(self.cost, name, None) is functions[name] for name in names or functions):
                return own
        return None

    def _is_own(self, *names: str) -> bool:
        now = sigmoid, sigmoid_prime, vectorized_result
        return are_own(self, _BOOK, *names) and now == _FUNCTIONS

    def _functions(self) -> tuple[Function, Function]:
        return sigmoid, sigmoid_prime

    def _output_delta(self, z: Any, a: Any, y: Any) -> Any:
        return self.cost.delta(z, a, y)


def load(filename: str | os.PathLike[str]) -> Network:
    """Read a network that `Network.save` wrote, here or in the book.

    Parameters
    ----------
    filename : path

    Returns
    -------
    Network
        Its cost is the class of that name in this module. As in the book, its constructor draws random weights first.

    Raises
    ------
    AttributeError
        This module has no cost of that name.

    Examples
    --------
    >>> from fastbp.nielsen import network2
    >>> network2.Network([2, 3, 1], cost=network2.QuadraticCost).save("net.json")
    >>> network2.load("net.json").cost.__name__
    'QuadraticCost'
    """
    data = json.loads(Path(filename).read_text(encoding="utf-8"))
    module = sys.modules[__name__]
    if not hasattr(module, data["cost"]):
        raise AttributeError(
            f"{filename} names the cost {data['cost']!r}, which fastbp.nielsen.network2 does not have: set "
            f"fastbp.nielsen.network2.{data['cost']} to your class, and load again"
        )
    net = Network(data["sizes"], cost=getattr(module, data["cost"]))
    net.weights = [np.array(w) for w in data["weights"]]
    net.biases = [np.array(b) for b in data["biases"]]
    return net


def _classes(data: Samples, n_out: int) -> NDArray[Any] | None:
    y = data.targets(n_out)
    return None if y is None else y.argmax(axis=1)


def _one_hot(data: Samples, n_out: int) -> NDArray[Any] | None:
    """Return `vectorized_result` of all labels as rows; None where they are no integers or the outputs are not ten."""
    labels = data.labels()
    return np.eye(10)[labels] if labels is not None and n_out == 10 else None


def _stalled(accuracies: list[int], n: int) -> bool:
    """Whether none of the last n values is above the best of those before (and above 0)."""
    return len(accuracies) >= n and max(accuracies[-n:]) <= max([0, *accuracies[:-n]])


_FUNCTIONS = sigmoid, sigmoid_prime, vectorized_result
_COSTS: dict[type, dict[str, Any]] = {
    cost: {"fn": cost.fn, "delta": cost.delta} for cost in (QuadraticCost, CrossEntropyCost)
}
_BOOK = originals(Network, "update_mini_batch", "backprop", "feedforward", "accuracy", "total_cost")
