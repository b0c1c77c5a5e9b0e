"""Activations: a_j = sigma(z_j) and sigma'(z_j), on 16 lanes at a time.

An activation is one function of a vector z that returns (a, sigma'), and one row of `ACTIVATIONS`. softmax couples
the neurons of a layer: its row has no function, and `output.py` computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba.extending import intrinsic

from fastbp.kernels._jit import jit
from fastbp.kernels.choice import choose
from fastbp.kernels.elementary import exp, tanh
from fastbp.kernels.simd import where


@jit
def identity(z):
    """a = z, sigma' = 1."""
    return z, where(z != z, z, 1.0)


@jit
def sigmoid(z):
    """a = 1 / (1 + e^-z), sigma' = a (1 - a)."""
    a = 1.0 / (exp(-z) + 1.0)
    return a, a * (1.0 - a)


@jit
def hyperbolic_tangent(z):
    """a = tanh z, sigma' = 1 - a^2."""
    a = tanh(z)
    return a, 1.0 - a * a


@jit
def relu(z):
    """a = max(z, 0), sigma' = 1 where z > 0, else 0; a NaN stays a NaN."""
    # "+ 0.0": a `where` that is stored where one of its arms was loaded becomes a masked store, slow on AMD's cores
    return where(z < 0.0, 0.0, z) + 0.0, where(z > 0.0, 1.0, where(z <= 0.0, 0.0, z))


@jit
def exponential(z):
    """a = e^z, sigma' = a."""
    a = exp(z)
    return a, a


class Activation(NamedTuple):
    """Its code in the kernels, its function (None where it couples the neurons), whether hidden layers may have it."""

    code: int
    function: Callable[..., Any] | None
    hidden: bool


ACTIVATIONS = {
    "identity": Activation(0, identity, hidden=True),
    "sigmoid": Activation(1, sigmoid, hidden=True),
    "tanh": Activation(2, hyperbolic_tangent, hidden=True),
    "relu": Activation(3, relu, hidden=True),
    "exp": Activation(4, exponential, hidden=False),
    "softmax": Activation(5, None, hidden=False),
}
SOFTMAX = ACTIVATIONS["softmax"].code


@intrinsic
def activate(typingctx, code, z):
    """(sigma(z), sigma'(z)) of the activation with that code."""
    return choose(typingctx, [row.function for row in ACTIVATIONS.values() if row.function], (z,))
