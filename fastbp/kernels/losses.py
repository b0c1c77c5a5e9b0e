"""Losses: C of one sample, the outputs' a and their delta (BP1), on 16 lanes at a time.

A loss is one function of vectors for each output activation that it goes with, and an entry for each of them in
`LOSSES`. It takes (z, a, prime, y, n): z_j or, with softmax, log a_j; a_j; sigma'(z_j); the target y_j; the number n
of outputs as a vector. It returns (the terms of C, delta); C is their sum over j.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.extending import intrinsic

from fastbp.kernels._jit import jit
from fastbp.kernels.activations import ACTIVATIONS
from fastbp.kernels.choice import choose
from fastbp.kernels.elementary import exp, log, log1p
from fastbp.kernels.simd import absolute, where


@jit
def quadratic(z, a, prime, y, n):
    """C = 1/2 sum_j (a_j - y_j)^2, delta_j = (a_j - y_j) sigma'(z_j)."""
    difference = a - y
    return difference * difference * 0.5, difference * prime


@jit
def mse(z, a, prime, y, n):
    """C = 1/n sum_j (a_j - y_j)^2, delta_j = 2/n (a_j - y_j) sigma'(z_j)."""
    difference = a - y
    scaled = difference / n
    return difference * scaled, 2.0 * scaled * prime


@jit
def binary_cross_entropy(z, a, prime, y, n):
    """C = -sum_j y_j log a_j + (1 - y_j) log(1 - a_j) = sum_j log(1 + e^z_j) - y_j z_j, delta_j = a_j - y_j."""
    softplus = where(z > 0.0, z, 0.0) + log1p(exp(-absolute(z)))
    return softplus - y * z, a - y


@jit
def categorical_cross_entropy(z, a, prime, y, n):
    """C = -sum_j y_j log a_j over the y_j other than 0, delta_j = a_j - y_j; z holds log a, the y_j sum to 1."""
    # log a_j may be beyond the dtype, and 0 times infinity is no number
    return where(y != 0.0, -(y * z), 0.0), a - y


@jit
def poisson(z, a, prime, y, n):
    """C = sum_j y_j log(y_j / a_j) - y_j + a_j, delta_j = a_j - y_j; z is log a."""
    return where(y > 0.0, y * (log(y) - z), y) - y + a, a - y


LOSSES = {
    "quadratic": dict.fromkeys(("identity", "sigmoid", "tanh", "relu"), quadratic),
    "mse": dict.fromkeys(("identity", "sigmoid", "tanh", "relu"), mse),
    "cross_entropy": {"sigmoid": binary_cross_entropy, "softmax": categorical_cross_entropy},
    "poisson": {"exp": poisson},
}


def _output(sigma: Callable[..., Any], cost: Callable[..., Any]) -> Callable[..., Any]:
    @jit
    def output(z, y, n):
        a, prime = sigma(z)
        terms, delta = cost(z, a, prime, y, n)
        return a, terms, delta

    return output


# (a_j, the terms of C, delta_j) from (z, y, n), of each loss at each output that does not couple the neurons
OUTPUTS = {
    (loss, name): _output(sigma, cost)
    for loss, costs in LOSSES.items()
    for name, cost in costs.items()
    if (sigma := ACTIVATIONS[name].function) is not None
}


def loss_code(loss: str, output: str) -> int:
    """Return the code of a loss at an output activation; 0 where that couples the neurons."""
    return [*OUTPUTS].index((loss, output)) if (loss, output) in OUTPUTS else 0


@intrinsic
def output_terms(typingctx, code, z, y, n):
    """(a_j, the terms of C, delta_j) of the loss and output with that code."""
    return choose(typingctx, [*OUTPUTS.values()], (z, y, n))
