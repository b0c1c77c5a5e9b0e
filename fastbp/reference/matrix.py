"""Matrix form: backpropagation for a whole mini-batch at once, as matrix products.

The samples are the rows of X, shape (m, n_in), and of every Z, A and Delta, shape (m, n); weights and biases are those
of `component`, which says the same more slowly: a vector there is a row here, and the sum over samples of BP3 and BP4
is the inner dimension of a product. All of it runs in the dtype of the weights: X and Y are converted to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastbp.reference.functions import ACTIVATIONS, LOSSES, Array


def forward(
    weights: Sequence[Array], biases: Sequence[Array | None], activations: Sequence[str], X: Array
) -> tuple[list[Array], list[Array]]:
    """Send a mini-batch forward.

    Parameters
    ----------
    weights : sequence of ndarray, shapes (n_out, n_in)
        One a layer.
    biases : sequence of (ndarray, shape (n_out,)) or None
        One a layer.
    activations : sequence of str
        Names in `ACTIVATIONS`, one a layer.
    X : ndarray, shape (m, n_in)
        The samples.

    Returns
    -------
    Z : list of ndarray, shapes (m, n_out)
        The weighted inputs of each layer.
    A : list of ndarray
        X, then the activations of each layer, shapes (m, n_out).

    Examples
    --------
    >>> forward([np.array([[2.0, -1.0]])], [None], ("relu",), np.array([[1.0, 4.0], [1.0, 1.0]]))[0]
    [array([[-2.],
           [ 1.]])]
    """
    Z: list[Array] = []
    A = [np.asarray(X, dtype=weights[0].dtype)]
    for w, b, name in zip(weights, biases, activations, strict=True):
        z = A[-1] @ w.T  # Z = A W^T
        if b is not None:
            z += b  # + 1 b^T
        Z.append(z)
        A.append(ACTIVATIONS[name].sigma(z))  # A = sigma(Z)
    return Z, A


def predict(weights: Sequence[Array], biases: Sequence[Array | None], activations: Sequence[str], X: Array) -> Array:
    """Return the activations of the output layer, shape (m, n_out), for samples X of shape (m, n_in).

    Examples
    --------
    >>> predict([np.array([[2.0, -1.0]])], [None], ("relu",), np.array([[1.0, 4.0], [1.0, 1.0]]))
    array([[0.],
           [1.]])
    """
    return forward(weights, biases, activations, X)[1][-1]


def loss(
    weights: Sequence[Array],
    biases: Sequence[Array | None],
    activations: Sequence[str],
    loss: str,
    X: Array,
    Y: Array,
    sample_weight: Array | None = None,
) -> float:
    """Return the cost C = 1/m sum_x C_x of samples X, shape (m, n_in), with targets Y, shape (m, n_out).

    With sample weights, shape (m,), it is the weighted mean.

    Examples
    --------
    >>> loss([np.array([[2.0, -1.0]])], [None], ("identity",), "mse", np.array([[1.0, 4.0]]), np.array([[1.0]]))
    9.0
    """
    Z, A = forward(weights, biases, activations, X)
    Y = np.asarray(Y, dtype=weights[0].dtype)
    return _mean(LOSSES[loss].cost(Z[-1], A[-1], Y, activations[-1]), sample_weight)


def _mean(costs: Array, sample_weight: Array | None) -> float:
    """The mean of costs, shape (m,), with the weights of the samples."""
    if sample_weight is None:
        return float(costs.sum()) / len(costs)
    return float(np.dot(sample_weight, costs) / np.sum(sample_weight))


def loss_and_gradients(
    weights: Sequence[Array],
    biases: Sequence[Array | None],
    activations: Sequence[str],
    loss: str,
    X: Array,
    Y: Array,
    sample_weight: Array | None = None,
) -> tuple[float, list[Array], list[Array | None]]:
    """Send a mini-batch forward and its error back.

    Parameters
    ----------
    weights, biases, activations, X
        As in `forward`.
    loss : str
        A name in `LOSSES`.
    Y : ndarray, shape (m, n_out of the last layer)
        The targets.
    sample_weight : ndarray, shape (m,), optional
        As how many samples each counts: the mean is then sum_x weight_x C_x / sum_x weight_x.

    Returns
    -------
    cost : float
        C = 1/m sum_x C_x.
    dw : list of ndarray, shapes (n_out, n_in)
        dC/dw of each layer.
    db : list of (ndarray, shape (n_out,)) or None
        dC/db of each layer, None where there is no bias.

    Examples
    --------
    >>> X, Y = np.array([[1.0, 4.0], [1.0, 2.0]]), np.array([[-1.0], [-2.0]])
    >>> loss_and_gradients([np.array([[2.0, -1.0]])], [None], ("identity",), "quadratic", X, Y)
    (1.25, [array([[0.5, 0. ]])], [None])
    """
    Z, A = forward(weights, biases, activations, X)
    Y = np.asarray(Y, dtype=weights[0].dtype)
    cost = _mean(LOSSES[loss].cost(Z[-1], A[-1], Y, activations[-1]), sample_weight)  # C = 1/m sum_x C_x
    dw: list[Array] = []
    db: list[Array | None] = []

    delta = LOSSES[loss].delta(A[-1], Y, activations[-1])  # BP1  Delta = dC/dA * sigma'(Z), output layer
    if sample_weight is None:
        delta /= len(Y)  # the mean over the samples, once, here: all that follows is linear in Delta
    else:
        delta *= (sample_weight / np.sum(sample_weight))[:, None]
    for l in range(len(weights) - 1, -1, -1):
        db.append(None if biases[l] is None else delta.sum(axis=0))  # BP3  dC/db = Delta^T 1
        dw.append(delta.T @ A[l])  # BP4  dC/dW = Delta^T A
        if l > 0:
            delta = delta @ weights[l]  # BP2  Delta = (Delta W) * sigma'(Z), hidden layer
            delta *= ACTIVATIONS[activations[l - 1]].sigma_prime(A[l])
    return cost, dw[::-1], db[::-1]


def gradients(
    weights: Sequence[Array],
    biases: Sequence[Array | None],
    activations: Sequence[str],
    loss: str,
    X: Array,
    Y: Array,
    sample_weight: Array | None = None,
) -> tuple[list[Array], list[Array | None]]:
    """Return dC/dw and dC/db of each layer, as `loss_and_gradients` does.

    Examples
    --------
    >>> X, Y = np.array([[1.0, 4.0], [1.0, 2.0]]), np.array([[-1.0], [-2.0]])
    >>> gradients([np.array([[2.0, -1.0]])], [np.array([0.0])], ("identity",), "quadratic", X, Y)
    ([array([[0.5, 0. ]])], [array([0.5])])
    """
    _, dw, db = loss_and_gradients(weights, biases, activations, loss, X, Y, sample_weight)
    return dw, db
