"""Functions: every activation and every loss of the reference, one row each in one table.

An activation sigma turns the weighted inputs z of a layer into its activations a. A loss C compares the
activations of the output layer with the targets y. All of them act on the last axis, so the same function
serves one sample, shape (n,), and a mini-batch, shape (m, n).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Activation:
    """What a neuron does with its weighted input.

    Attributes
    ----------
    sigma : callable
        ``sigma(z) -> a``, of the shape and dtype of z.
    sigma_prime : callable
        ``sigma_prime(a) -> sigma'(z)``: each derivative here is known from the activation alone.

    Examples
    --------
    >>> tanh = ACTIVATIONS["tanh"]
    >>> a = tanh.sigma(np.array([0.0, 1e38]))
    >>> a, tanh.sigma_prime(a)
    (array([0., 1.]), array([1., 0.]))
    """

    sigma: Callable[[Array], Array]
    sigma_prime: Callable[[Array], Array]


@dataclass(frozen=True)
class Loss:
    """What a sample costs, and where its backpropagation starts.

    Attributes
    ----------
    cost : callable
        ``cost(z, a, y, output) -> C_x``: one number a sample, always float64; ``output`` is the name of the output
        layer's activation, z and a its weighted inputs and activations.
    delta : callable
        ``delta(a, y, output) -> dC_x/dz`` of the output layer (BP1), of the shape and dtype of a.

    Examples
    --------
    >>> z = np.array([1e38, 0.0])
    >>> print(LOSSES["cross_entropy"].cost(z, ACTIVATIONS["softmax"].sigma(z), np.array([0.0, 1.0]), "softmax"))
    1e+38
    """

    cost: Callable[[Array, Array, Array, str], Array]
    delta: Callable[[Array, Array, str], Array]


def _sigmoid(z: Array) -> Array:
    """a_j = 1 / (1 + exp(-z_j))."""
    a = np.negative(z)
    with np.errstate(over="ignore"):  # exp(-z) may become infinite: 1 / (1 + inf) is the 0 that is wanted
        np.exp(a, out=a)
    a += 1
    np.reciprocal(a, out=a)
    return a


def _softmax(z: Array) -> Array:
    """a_j = exp(z_j) / sum_k exp(z_k); the largest z is taken off first, which changes nothing but the overflow."""
    with np.errstate(over="ignore"):  # a z_j that is less by more than the dtype can hold: exp(-inf) is its 0
        a: Array = z - z.max(axis=-1, keepdims=True)
    np.exp(a, out=a)
    a /= a.sum(axis=-1, keepdims=True)
    return a


def _exp(z: Array) -> Array:
    """a_j = exp(z_j)."""
    with np.errstate(over="ignore"):  # an infinite a is what the loss shows
        a: Array = np.exp(z)
    return a


def _sigmoid_prime(a: Array) -> Array:
    """sigma'(z_j) = a_j (1 - a_j)."""
    prime: Array = 1 - a
    prime *= a
    return prime


def _tanh_prime(a: Array) -> Array:
    """sigma'(z_j) = 1 - a_j^2."""
    prime = np.square(a)
    return np.subtract(1, prime, out=prime)


def _relu_prime(a: Array) -> Array:
    """sigma'(z_j) = 1 where z_j > 0, else 0 (also at 0)."""
    return (a > 0).astype(a.dtype)


def _softmax_prime(a: Array) -> Array:
    """Refuse: each a_j depends on every z_k, so there is no sigma'(z_j)."""
    raise ValueError("softmax has no derivative neuron by neuron: use it at the output, with 'cross_entropy' only")


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(lambda z: z, np.ones_like),
    "sigmoid": Activation(_sigmoid, _sigmoid_prime),
    "tanh": Activation(np.tanh, _tanh_prime),
    "relu": Activation(lambda z: np.maximum(z, 0), _relu_prime),
    "exp": Activation(_exp, lambda a: a),
    "softmax": Activation(_softmax, _softmax_prime),
}


def _squared_error(a: Array, y: Array) -> Array:
    """sum_j (a_j - y_j)^2."""
    error = np.subtract(a, y, dtype=np.float64)
    total: Array = np.vecdot(error, error)
    return total


def _quadratic(z: Array, a: Array, y: Array, output: str) -> Array:
    """C_x = 1/2 sum_j (a_j - y_j)^2."""
    _check_no_exp(output)
    return 0.5 * _squared_error(a, y)


def _quadratic_delta(a: Array, y: Array, output: str) -> Array:
    """delta_j = (a_j - y_j) sigma'(z_j)."""
    _check_no_exp(output)
    delta: Array = a - y
    delta *= ACTIVATIONS[output].sigma_prime(a)
    return delta


def _mse(z: Array, a: Array, y: Array, output: str) -> Array:
    """C_x = 1/n_out sum_j (a_j - y_j)^2."""
    _check_no_exp(output)
    cost: Array = _squared_error(a, y) / a.shape[-1]
    return cost


def _mse_delta(a: Array, y: Array, output: str) -> Array:
    """delta_j = 2/n_out (a_j - y_j) sigma'(z_j)."""
    delta = _quadratic_delta(a, y, output)
    delta *= 2 / a.shape[-1]
    return delta


def _mismatch(output: str) -> ValueError:
    """Say why cross-entropy cannot follow this output."""
    return ValueError(f"cross_entropy needs a softmax or sigmoid output, not {output!r}: change the output or the loss")


def _check_no_exp(output: str) -> None:
    """Refuse squared error after exp, whose loss is poisson."""
    if output == "exp":
        raise ValueError("an exp output goes with the loss 'poisson' only: change the output or the loss")


def _cross_entropy(z: Array, a: Array, y: Array, output: str) -> Array:
    """C_x = -sum_j y_j ln a_j (softmax) or -sum_j y_j ln a_j + (1 - y_j) ln(1 - a_j) (sigmoid), from z.

    softmax: -ln a_j = logsumexp(z) - z_j, whatever is taken off all z; it counts where y_j is other than 0, as it may
    be infinite elsewhere.
    sigmoid: the term is softplus(z_j) - y_j z_j, with softplus(z) = max(z, 0) + ln(1 + exp(-|z|)).
    """
    z = z.astype(np.float64)
    if output == "softmax":
        with np.errstate(over="ignore"):
            z -= z.max(axis=-1, keepdims=True)
        logsumexp = np.log(np.exp(z).sum(axis=-1, keepdims=True))
        terms = np.multiply(y, logsumexp - z, where=y != 0, out=np.zeros_like(z))
    elif output == "sigmoid":
        terms = np.maximum(z, 0) - y * z + np.log1p(np.exp(-np.abs(z)))
    else:
        raise _mismatch(output)
    cost: Array = terms.sum(axis=-1)
    return cost


def _cross_entropy_delta(a: Array, y: Array, output: str) -> Array:
    """delta_j = a_j - y_j: the factors of dC/da_j and sigma'(z_j) cancel (for softmax since sum_j y_j = 1)."""
    if output not in ("softmax", "sigmoid"):
        raise _mismatch(output)
    delta: Array = a - y
    return delta


def _poisson(z: Array, a: Array, y: Array, output: str) -> Array:
    """C_x = sum_j y_j ln(y_j / a_j) - y_j + a_j, where ln a_j = z_j and 0 ln 0 = 0."""
    _check_exp(output)
    z, y = z.astype(np.float64), y.astype(np.float64)
    log_y = np.log(y, out=np.zeros_like(y), where=y > 0)
    cost: Array = (y * (log_y - z) - y + a).sum(axis=-1)
    return cost


def _poisson_delta(a: Array, y: Array, output: str) -> Array:
    """delta_j = a_j - y_j: the derivative of -y_j z_j + exp(z_j)."""
    _check_exp(output)
    delta: Array = a - y
    return delta


def _check_exp(output: str) -> None:
    """Refuse poisson after any other output."""
    if output != "exp":
        raise ValueError(f"poisson needs an exp output, not {output!r}: change the output or the loss")


LOSSES: dict[str, Loss] = {
    "quadratic": Loss(_quadratic, _quadratic_delta),
    "mse": Loss(_mse, _mse_delta),
    "cross_entropy": Loss(_cross_entropy, _cross_entropy_delta),
    "poisson": Loss(_poisson, _poisson_delta),
}


def one_hot(labels: ArrayLike, n: int, dtype: DTypeLike = np.float64) -> Array:
    """Turn class labels into targets: y_ij = 1 where j is the label of sample i, else 0.

    Parameters
    ----------
    labels : array-like of int, shape (m,)
        Classes 0..n-1.
    n : int
        The number of classes.
    dtype : dtype, default float64
        The dtype of the result.

    Returns
    -------
    ndarray, shape (m, n)

    Raises
    ------
    ValueError
        If a label is outside 0..n-1.

    Examples
    --------
    >>> one_hot([2, 0], 3)
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    labels = np.asarray(labels)
    outside = labels[(labels < 0) | (labels >= n)]
    if outside.size:
        raise ValueError(f"label {outside[0]} is not a class 0..{n - 1}: relabel the classes or give more of them")
    y: Array = np.eye(n, dtype=dtype)[labels]
    return y
