"""Initializers: how the weights and biases of a layer start.

Each initializer takes a generator and the layer's two sizes, and returns ``w`` of shape ``(n_out, n_in)`` and ``b``
of shape ``(n_out,)``, both float64. `INITIALIZERS` is the table of their names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["INITIALIZERS", "Initializer"]

Layer: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
Initializer: TypeAlias = Callable[[np.random.Generator, int, int], Layer]


def scaled_gaussian(rng: np.random.Generator, n_in: int, n_out: int) -> Layer:
    """Draw w from N(0, 1/n_in) and b from N(0, 1).

    Keeps z = w a + b of the order of 1 however many inputs there are, so that sigmoid neurons do not start saturated.

    References
    ----------
    M. Nielsen, *Neural Networks and Deep Learning* (2015), chapter 3, "Weight initialization".
    """
    w = rng.standard_normal((n_out, n_in))
    w /= np.sqrt(n_in)
    return w, rng.standard_normal(n_out)


def gaussian(rng: np.random.Generator, n_in: int, n_out: int) -> Layer:
    """Draw w and b from N(0, 1).

    References
    ----------
    M. Nielsen, *Neural Networks and Deep Learning* (2015), chapter 1 (chapter 3 calls it the "large" start).
    """
    return rng.standard_normal((n_out, n_in)), rng.standard_normal(n_out)


def glorot_uniform(rng: np.random.Generator, n_in: int, n_out: int) -> Layer:
    """Draw w uniformly from +-sqrt(6 / (n_in + n_out)); b = 0.

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010, equation 16.
    """
    limit = np.sqrt(6.0 / (n_in + n_out))
    return rng.uniform(-limit, limit, (n_out, n_in)), np.zeros(n_out)


def glorot_normal(rng: np.random.Generator, n_in: int, n_out: int) -> Layer:
    """Draw w from N(0, 2 / (n_in + n_out)), not truncated; b = 0.

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010, equation 12.
    """
    w = rng.standard_normal((n_out, n_in))
    w *= np.sqrt(2.0 / (n_in + n_out))
    return w, np.zeros(n_out)


def he_uniform(rng: np.random.Generator, n_in: int, n_out: int) -> Layer:
    """Draw w uniformly from +-sqrt(6 / n_in), the variance 2 / n_in that suits relu; b = 0.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers: surpassing human-level performance on ImageNet
    classification", ICCV 2015, equation 10.
    """
    limit = np.sqrt(6.0 / n_in)
    return rng.uniform(-limit, limit, (n_out, n_in)), np.zeros(n_out)


def he_normal(rng: np.random.Generator, n_in: int, n_out: int) -> Layer:
    """Draw w from N(0, 2 / n_in), not truncated, which suits relu; b = 0.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers: surpassing human-level performance on ImageNet
    classification", ICCV 2015, equation 10.
    """
    w = rng.standard_normal((n_out, n_in))
    w *= np.sqrt(2.0 / n_in)
    return w, np.zeros(n_out)


def lecun_normal(rng: np.random.Generator, n_in: int, n_out: int) -> Layer:
    """Draw w from N(0, 1 / n_in), not truncated; b = 0.

    References
    ----------
    Y. LeCun, L. Bottou, G. Orr, K.-R. Mueller, "Efficient BackProp", in *Neural Networks: Tricks of the Trade*
    (1998), section 4.6, equation 16.
    """
    w = rng.standard_normal((n_out, n_in))
    w /= np.sqrt(n_in)
    return w, np.zeros(n_out)


def zeros(rng: np.random.Generator, n_in: int, n_out: int) -> Layer:
    """Set w and b to 0 (draws nothing).

    Right for a net without hidden layers; with them every neuron of a layer stays the twin of the others.
    """
    del rng
    return np.zeros((n_out, n_in)), np.zeros(n_out)


INITIALIZERS: dict[str, Initializer] = {
    "scaled_gaussian": scaled_gaussian,
    "gaussian": gaussian,
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "lecun_normal": lecun_normal,
    "zeros": zeros,
}
