"""Updates: what a gradient does to the parameters, a register at a time.

An update is one function and one row of `UPDATES`. It takes (w, g, s1, s2, h): pointers to the parameters, the
gradient as a vector, pointers to the optimizer's state (as many as the row says, otherwise not to be touched), and the
`Hyper` parameters of this step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba.extending import intrinsic

from fastbp.kernels._jit import jit, outline
from fastbp.kernels.choice import choose
from fastbp.kernels.pointers import value_of
from fastbp.kernels.simd import fma, lanes, load, sqrt, store


class Hyper(NamedTuple):
    """What one step is: the code of its update, and its numbers in float64, a row of the table of steps."""

    code: int
    scale: float  # 1 / number of samples, or 1 / sum of their weights
    eta: float
    mu: float
    beta_1: float
    beta_2: float
    epsilon: float
    penalty: float  # of the L2 term penalty/2 sum w^2, whose gradient is penalty w


@jit
def keep(w, g, s1, s2, h):
    """s1 = g: the gradient itself is wanted."""
    store(s1, g)


@jit
def sgd(w, g, s1, s2, h):
    """w = w - eta g."""
    store(w, fma(g, -h.eta, load(w)))


@jit
def momentum(w, g, s1, s2, h):
    """v = mu v - eta g, w = w + v (Polyak 1964)."""
    v = fma(g, -h.eta, load(s1) * h.mu)
    store(s1, v)
    store(w, load(w) + v)


@jit
def nesterov(w, g, s1, s2, h):
    """v = mu v - eta g, w = w + mu v - eta g (Sutskever et al. 2013)."""
    v = fma(g, -h.eta, load(s1) * h.mu)
    store(s1, v)
    store(w, load(w) + fma(g, -h.eta, v * h.mu))


@jit
def adam(w, g, s1, s2, h):
    """m = beta_1 m + (1 - beta_1) g, v = beta_2 v + (1 - beta_2) g^2, w = w - eta m / (sqrt(v) + epsilon).

    With eta and epsilon of the step holding both bias corrections, this is algorithm 1 of Kingma and Ba (2015).
    """
    m = fma(g, 1.0 - h.beta_1, load(s1) * h.beta_1)
    v = fma(g * g, 1.0 - h.beta_2, load(s2) * h.beta_2)
    store(s1, m)
    store(s2, v)
    store(w, load(w) - m * h.eta / (sqrt(v) + h.epsilon))


class Update(NamedTuple):
    """Its code in the kernels, its function, and how many values of state it keeps for each parameter."""

    code: int
    function: Callable[..., Any]
    slots: int


UPDATES = {
    "sgd": Update(1, sgd, slots=0),
    "momentum": Update(2, momentum, slots=1),
    "nesterov": Update(3, nesterov, slots=1),
    "adam": Update(4, adam, slots=2),
}
KEEP = 0


@jit
def sweep(function, w, g, s1, s2, n, penalty, h):
    """Update n parameters, whose gradient is scale g + penalty w, g summed over the mini-batch."""
    for q in range(0, n, lanes(w)):
        function(w + q, fma(load(w + q), penalty, load(g + q) * h.scale), s1 + q, s2 + q, h)


@intrinsic
def _update(typingctx, code, w, g, s1, s2, n, penalty, h):
    """Update by the function with that code."""
    functions = [keep, *(row.function for row in UPDATES.values())]
    return choose(typingctx, functions, (w, g, s1, s2, n, penalty, h), through=sweep)


@jit
def update(code, w, g, s1, s2, n, penalty, h):
    """Update n parameters by the rule with that code; g points to their summed gradient."""
    outline()
    _update(code, w, g, s1, s2, n, penalty, value_of(h))
