"""Component form: backpropagation for one sample at a time, each line beside the equation that it is.

This is the specification. `w[j, k]` is the weight from neuron k to neuron j of the next layer, so `weights[l]` has
shape (n_out, n_in); `biases[l]` has shape (n_out,) or is None. `feedforward` and `backprop` take one sample; the
other functions take a mini-batch, go through it row by row, and have the same meaning as those of `matrix`.
All of it runs in the dtype of the weights: X and Y are converted to it.

The equations are those of M. Nielsen, *Neural Networks and Deep Learning*, chapter 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastbp.reference.functions import ACTIVATIONS, LOSSES, Array


def feedforward(
    weights: Sequence[Array], biases: Sequence[Array | None], activations: Sequence[str], x: Array
) -> tuple[list[Array], list[Array]]:
    """Send one sample forward.

    Parameters
    ----------
    weights : sequence of ndarray, shapes (n_out, n_in)
        One a layer.
    biases : sequence of (ndarray, shape (n_out,)) or None
        One a layer.
    activations : sequence of str
        Names in `ACTIVATIONS`, one a layer.
    x : ndarray, shape (n_in,)
        The sample.

    Returns
    -------
    zs : list of ndarray
        The weighted inputs of each layer.
    a : list of ndarray
        x, then the activations of each layer.

    Examples
    --------
    >>> feedforward([np.array([[2.0, -1.0]])], [np.array([0.5])], ("relu",), np.array([1.0, 4.0]))
    ([array([-1.5])], [array([1., 4.]), array([0.])])
    """
    zs: list[Array] = []
    a = [x]
    for w, b, name in zip(weights, biases, activations, strict=True):
        z = w @ a[-1]  # z_j = sum_k w_jk a_k
        if b is not None:
            z += b  # + b_j
        zs.append(z)
        a.append(ACTIVATIONS[name].sigma(z))  # a_j = sigma(z_j)
    return zs, a


def backprop(
    weights: Sequence[Array], activations: Sequence[str], loss: str, a: Sequence[Array], y: Array
) -> list[Array]:
    """Send the error of one sample back.

    Parameters
    ----------
    weights, activations
        As in `feedforward`.
    loss : str
        A name in `LOSSES`.
    a : sequence of ndarray
        The activations that `feedforward` returned.
    y : ndarray, shape (n_out of the last layer,)
        The target.

    Returns
    -------
    list of ndarray, shapes (n_out,)
        delta = dC_x/dz of each layer.

    Examples
    --------
    >>> weights = [np.ones((2, 1)), np.array([[2.0, 4.0]])]
    >>> a = [np.array([1.0]), np.array([0.5, -0.5]), np.array([-1.0])]
    >>> backprop(weights, ("tanh", "identity"), "quadratic", a, np.array([0.0]))
    [array([-1.5, -3. ]), array([-1.])]
    """
    delta = LOSSES[loss].delta(a[-1], y, activations[-1])  # BP1  delta_j = dC/da_j sigma'(z_j), output layer
    deltas = [delta]
    for l in range(len(weights) - 1, 0, -1):
        delta = weights[l].T @ delta  # BP2  delta_j = sum_k w_kj delta_k ...
        delta *= ACTIVATIONS[activations[l - 1]].sigma_prime(a[l])  # ... times sigma'(z_j), hidden layer
        deltas.append(delta)
    return deltas[::-1]


def forward(
    weights: Sequence[Array], biases: Sequence[Array | None], activations: Sequence[str], X: Array
) -> tuple[list[Array], list[Array]]:
    """Send each sample of a mini-batch forward; the results of `feedforward`, stacked to shapes (m, n).

    Examples
    --------
    >>> forward([np.array([[2.0, -1.0]])], [None], ("relu",), np.array([[1.0, 4.0], [1.0, 1.0]]))[0]
    [array([[-2.],
           [ 1.]])]
    """
    samples = [feedforward(weights, biases, activations, x) for x in np.asarray(X, dtype=weights[0].dtype)]
    zs, a = zip(*samples, strict=True)
    return [np.stack(layer) for layer in zip(*zs, strict=True)], [np.stack(layer) for layer in zip(*a, strict=True)]


def predict(weights: Sequence[Array], biases: Sequence[Array | None], activations: Sequence[str], X: Array) -> Array:
    """Return the activations of the output layer, shape (m, n_out), for samples X of shape (m, n_in).

    Examples
    --------
    >>> predict([np.array([[2.0, -1.0]])], [None], ("relu",), np.array([[1.0, 4.0], [1.0, 1.0]]))
    array([[0.],
           [1.]])
    """
    X = np.asarray(X, dtype=weights[0].dtype)
    return np.stack([feedforward(weights, biases, activations, x)[1][-1] for x in X])


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
    X, Y = np.asarray(X, dtype=weights[0].dtype), np.asarray(Y, dtype=weights[0].dtype)
    counts = _counts(X, sample_weight)
    total = 0.0
    for x, y, count in zip(X, Y, counts, strict=True):
        zs, a = feedforward(weights, biases, activations, x)
        total += count * float(LOSSES[loss].cost(zs[-1], a[-1], y, activations[-1]))  # C_x
    return total / sum(counts)


def _counts(X: Array, sample_weight: Array | None) -> list[float]:
    """As how many samples each one counts."""
    return [1.0] * len(X) if sample_weight is None else [float(weight) for weight in sample_weight]


def loss_and_gradients(
    weights: Sequence[Array],
    biases: Sequence[Array | None],
    activations: Sequence[str],
    loss: str,
    X: Array,
    Y: Array,
    sample_weight: Array | None = None,
) -> tuple[float, list[Array], list[Array | None]]:
    """Go forward and back with one sample after another; sum what each contributes, then take the mean.

    Parameters
    ----------
    weights, biases, activations
        As in `feedforward`.
    loss : str
        A name in `LOSSES`.
    X : ndarray, shape (m, n_in)
        The samples.
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
    X, Y = np.asarray(X, dtype=weights[0].dtype), np.asarray(Y, dtype=weights[0].dtype)
    cost = 0.0
    dw = [np.zeros_like(w) for w in weights]
    db = [None if b is None else np.zeros_like(b) for b in biases]
    counts = _counts(X, sample_weight)
    for x, y, count in zip(X, Y, counts, strict=True):
        zs, a = feedforward(weights, biases, activations, x)
        cost += count * float(LOSSES[loss].cost(zs[-1], a[-1], y, activations[-1]))  # C = sum_x C_x
        for l, delta in enumerate(backprop(weights, activations, loss, a, y)):
            if (db_l := db[l]) is not None:
                db_l += count * delta  # BP3  dC/db_j = delta_j
            dw[l] += count * np.dot(delta[:, None], a[l][None, :])  # BP4  dC/dw_jk = a_k delta_j
    m = sum(counts)
    return cost / m, [w / m for w in dw], [None if b is None else b / m for b in db]


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
