"""Problems: networks with weights, samples and targets, for the kernels and for what they are compared with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import naive
import numpy as np
from numpy.typing import NDArray

import fastbp
import fastbp.engine.run
from fastbp.reference import component, matrix, one_hot

Array = NDArray[Any]

HEADS = [  # every output with every loss that goes with it
    *((output, loss) for output in ("identity", "sigmoid", "tanh", "relu") for loss in ("quadratic", "mse")),
    ("sigmoid", "cross_entropy"),
    ("softmax", "cross_entropy"),
    ("exp", "poisson"),
]
HIDDEN = ["identity", "sigmoid", "tanh", "relu"]
# around one and two registers of 2, 4, 8 and 16 lanes, and the rows of tiles and strips
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 15, 16, 17, 31, 32, 33, 40, 41, 63, 65]


@dataclass(frozen=True)
class Problem:
    """A network, and samples with targets; y is what a user hands over, Y the same as one row of float64 a sample."""

    weights: list[Array]
    biases: list[Array]
    activations: tuple[str, ...]
    loss: str
    X: Array
    y: Array
    bias: Any = True
    weight: Array | None = None  # of the samples
    Y: Array = field(init=False)

    def __post_init__(self) -> None:
        n_out = len(self.weights[-1])
        labels = self.y.ndim == 1 and n_out > 1
        Y = one_hot(self.y, n_out) if labels else self.y.reshape(-1, n_out).astype(np.float64)
        object.__setattr__(self, "Y", Y)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.weights[0].dtype

    @property
    def sizes(self) -> list[int]:
        return [self.weights[0].shape[1], *(len(w) for w in self.weights)]

    def network(self, **changes: Any) -> fastbp.Network:
        return fastbp.Network(
            self.sizes,
            hidden=list(self.activations[:-1]),
            output=self.activations[-1],
            loss=self.loss,
            init=list(zip(self.weights, self.biases, strict=True)),
            bias=self.bias,
            dtype=self.dtype,
            **changes,
        )

    def wide(self) -> tuple[list[Array], list[Array | None], tuple[str, ...]]:
        """Return weights, biases and activations as the reference takes them, in float64."""
        biases = [b.astype(np.float64) if self.bias is not False else None for b in self.biases]
        return [w.astype(np.float64) for w in self.weights], biases, self.activations

    def expected(self) -> tuple[float, list[Array], list[Array], list[Array]]:
        """Return cost, dw, db and activations by the reference, by sample where that is quick, else in matrix form."""
        X = self.X.astype(np.float64)
        form = component if len(X) * len(self.weights) <= 60 else matrix
        cost, dw, db = form.loss_and_gradients(*self.wide(), self.loss, X, self.Y, self.weight)
        filled = [np.zeros(len(w)) if b is None else b for w, b in zip(dw, db, strict=True)]
        return cost, dw, filled, form.forward(*self.wide(), X)[1][1:]

    def kernel(self, batch_size: int | None = None) -> naive.Arithmetic:
        """Return the arithmetic of the compiled engine for mini-batches of that size, or for one of all samples."""
        narrow = fastbp.engine.run.is_narrow(self.network().architecture, batch_size or len(self.X))
        return replace(naive.KERNEL[self.dtype.name], wide_biases=not narrow)

    def bounds(self, f: naive.Arithmetic) -> naive.Pass:
        return naive.forward_backward(
            naive.parameters(f, self.weights),
            naive.parameters(f, self.biases),
            self.activations,
            self.loss,
            self.X,
            self.Y,
            self.weight,
        )


def draw(
    rng: np.random.Generator,
    sizes: Sequence[int],
    m: int,
    *,
    hidden: str | Sequence[str] = "sigmoid",
    head: tuple[str, str] = ("sigmoid", "cross_entropy"),
    dtype: str = "float32",
    bias: Any = True,
    labels: bool = False,
) -> Problem:
    """Draw weights, samples and targets of a network with these sizes.

    With many layers a bound of errors that assumes the worst at each would say nothing: it grows like the product of
    sum_k |w_jk|. There each neuron has one input with a weight of 1, and all others with little.
    """
    output, loss = head
    n_layers = len(sizes) - 1
    weights, biases = [], []
    for n_in, n_out in itertools.pairwise(sizes):
        w = rng.standard_normal((n_out, n_in)) * 0.7 / np.sqrt(n_in)
        if n_layers > 3:
            w = 0.1 * w / np.sqrt(n_in)
            w[np.arange(n_out), np.arange(n_out) % n_in] += 1
        weights.append(w.astype(dtype))
        biases.append(rng.normal(0, 0.1, n_out).astype(dtype) if bias is not False else np.zeros(n_out, dtype))
    X = rng.uniform(-1, 1, (m, sizes[0])).astype(dtype)
    n_out = sizes[-1]
    if labels and n_out > 1:
        y: Array = rng.integers(0, n_out, m)
    elif output == "softmax":
        y = rng.dirichlet(np.ones(n_out), m).astype(dtype)
    else:
        y = rng.uniform(0, 1, (m, n_out)).astype(dtype)
    activations = ((hidden,) * (n_layers - 1) if isinstance(hidden, str) else tuple(hidden)) + (output,)
    return Problem(weights, biases, activations, loss, X, y, bias)


def draw_exact(
    rng: np.random.Generator, sizes: Sequence[int], m: int, *, hidden: str, dtype: str, bias: Any = True
) -> Problem:
    """Draw small integers, so few and so small that no sum of a pass rounds in any order: one result is right.

    Each neuron has three inputs with weights of 1 or -1; outputs are linear, with squared error.
    """
    weights, biases = [], []
    for n_in, n_out in itertools.pairwise(sizes):
        w = np.zeros((n_out, n_in), dtype)
        for row in w:
            row[rng.integers(0, n_in, 3)] = rng.choice([-1, 1], 3)
        weights.append(w)
        biases.append((rng.integers(-2, 3, n_out) * (bias is not False)).astype(dtype))
    X = rng.integers(-1, 2, (m, sizes[0])).astype(dtype)
    y = rng.integers(-2, 3, (m, sizes[-1])).astype(dtype)
    return Problem(weights, biases, (hidden,) * (len(sizes) - 2) + ("identity",), "quadratic", X, y, bias)
