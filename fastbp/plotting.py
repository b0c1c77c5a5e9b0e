"""Plotting: pictures of trainings and networks, as matplotlib figures.

Each function returns a new `matplotlib.figure.Figure`, which ``figure.savefig("name.png")`` writes; pyplot and its
global state are not touched. matplotlib is imported when the first picture is made; ``pip install 'fastbp[plot]'``
brings it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fastbp.history import History
    from fastbp.network import Network

__all__ = ["confusion_matrix", "first_layer_weights", "learning_curve", "reconstructions"]

TRAINING, VALIDATION = "#1f5fa8", "#d9661f"
MARKED_EPOCHS = 40  # more of them are a line without points
DECADE = 10  # a loss that falls further is drawn on a logarithmic axis


def learning_curve(history: History) -> Figure:
    """Draw the loss of each epoch, and beside it the accuracy where the targets are classes.

    The training's values are means over an epoch as it ran, the validation's are measured at its end, so at first the
    validation may well look better.

    Parameters
    ----------
    history : History
        What `Network.fit` returned. A loss that falls by more than a factor of ten gets a logarithmic axis.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        The history holds no epoch.
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> from fastbp import History
    >>> from fastbp.plotting import learning_curve
    >>> figure = learning_curve(History(loss=[0.9, 0.4, 0.3], accuracy=[0.6, 0.8, 0.9]))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'accuracy (%)']
    """
    if history.epochs == 0:
        raise ValueError("history holds no epoch: fit the network for at least one")
    curves = {"loss": (history.loss, history.validation_loss)}
    if history.accuracy:
        curves["accuracy (%)"] = (
            [100 * share for share in history.accuracy],
            [100 * share for share in history.validation_accuracy],
        )
    figure = _figure(4.4 * len(curves), 3.3)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (label, (training, validation)) in zip(panels, curves.items(), strict=True):
        _draw_curve(axes, training, "training", TRAINING)
        if validation:
            _draw_curve(axes, validation, "validation", VALIDATION)
        values = training + validation
        if label == "loss" and 0 < DECADE * min(values) < max(values):
            axes.set_yscale("log")
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if history.validation_loss:
        panels[0].legend(frameon=False)
    return figure


def first_layer_weights(network: Network, image_shape: tuple[int, int] | None = None) -> Figure:
    """Draw the weights of each neuron in the first layer as an image: what the neuron looks for.

    Parameters
    ----------
    network : Network
        One whose inputs are pixels, row by row.
    image_shape : (rows, columns), optional
        Shape of the images; None takes a square.

    Returns
    -------
    matplotlib.figure.Figure
        Neuron 0 at the top left, row by row. All share one scale: red excites, blue inhibits, white does neither.

    Raises
    ------
    ValueError
        The inputs do not fill such an image.
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> import fastbp
    >>> from fastbp.plotting import first_layer_weights
    >>> figure = first_layer_weights(fastbp.Network([64, 30, 10], seed=0))
    >>> figure.axes[0].get_title(loc="left")
    'first-layer weights, one image a neuron'
    """
    w = network.weights[0]
    n_out, n_in = w.shape
    mosaic = _mosaic(w.reshape(n_out, *_image_shape(image_shape, n_in)), columns=_wide(n_out))
    limit = float(abs(w).max()) or 1.0
    figure = _figure(*_fitting(mosaic, width=7.0, beside=1.0, above=0.5))
    axes = figure.subplots()
    image = axes.imshow(mosaic, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title("first-layer weights, one image a neuron", fontsize="medium", loc="left")
    figure.colorbar(image, cax=axes.inset_axes((1.02, 0, 0.02, 1)), label="weight")
    return figure


def reconstructions(
    originals: ArrayLike, reconstructed: ArrayLike, image_shape: tuple[int, int] | None = None
) -> Figure:
    """Draw images in one row, and below each what an autoencoder makes of it.

    Parameters
    ----------
    originals : array_like of shape (n, pixels)
        Samples, 0 is drawn white and the largest value black.
    reconstructed : array_like of shape (n, pixels)
        The network's outputs for them, drawn on the same scale.
    image_shape : (rows, columns), optional
        Shape of the images; None takes a square.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        The arrays differ in shape, are empty, or their rows do not fill such an image.
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> from fastbp.datasets import load_digits
    >>> from fastbp.plotting import reconstructions
    >>> X, _ = load_digits()
    >>> figure = reconstructions(X[:10], X[:10] / 2)
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['originals', 'reconstructed']
    """
    rows = {"originals": np.asarray(originals), "reconstructed": np.asarray(reconstructed)}
    shape = rows["originals"].shape
    if len(shape) != 2 or 0 in shape or rows["reconstructed"].shape != shape:
        raise ValueError(
            f"originals has shape {shape} and reconstructed {rows['reconstructed'].shape}, but both must have the same "
            "shape (n, pixels)"
        )
    mosaics = {
        title: _mosaic(images.reshape(shape[0], *_image_shape(image_shape, shape[1])), columns=shape[0])
        for title, images in rows.items()
    }
    width, height = _fitting(mosaics["originals"], width=max(2.0, min(0.8 * shape[0], 12.0)), beside=0.0, above=0.35)
    figure = _figure(width, 2 * height)
    darkest = float(rows["originals"].max()) or 1.0
    for axes, (title, mosaic) in zip(figure.subplots(2, 1), mosaics.items(), strict=True):
        axes.imshow(mosaic, cmap="gray_r", vmin=0, vmax=darkest, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(title, fontsize="medium", loc="left")
    return figure


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, n_classes: int) -> Figure:
    """Draw how many samples of each class, a row, were taken for each class, a column.

    Parameters
    ----------
    labels : array_like of int, shape (n,)
        The true classes, 0..n_classes-1.
    predicted : array_like of int, shape (n,)
        What `Network.predict_classes` said.
    n_classes : int
        How many classes there are.

    Returns
    -------
    matplotlib.figure.Figure
        A square's colour is its share of its row, its number counts samples; those off the diagonal are errors.

    Raises
    ------
    ValueError
        The arrays differ in length, or hold something else than those classes.
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> from fastbp.plotting import confusion_matrix
    >>> figure = confusion_matrix([0, 0, 1, 2], [0, 1, 1, 2], 3)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1', '1', '1', '1']
    """
    counts = np.zeros((n_classes, n_classes), np.int64)
    classes = {"labels": np.asarray(labels), "predicted": np.asarray(predicted)}
    for name, array in classes.items():
        if array.ndim != 1 or array.dtype.kind not in "iu" or ((array < 0) | (array >= n_classes)).any():
            raise ValueError(f"{name} must be one-dimensional integers of the classes 0 to {n_classes - 1}")
    if len(classes["labels"]) != len(classes["predicted"]):
        raise ValueError(f"there are {len(classes['labels'])} labels, but {len(classes['predicted'])} were predicted")
    np.add.at(counts, (classes["labels"], classes["predicted"]), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.2 + 0.38 * n_classes
    figure = _figure(side, side)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        axes.text(
            column, row, str(counts[row, column]), ha="center", va="center", fontsize="small",
            color="white" if shares[row, column] > 0.5 else "black",
        )  # fmt: skip
    axes.set(xlabel="predicted", ylabel="true", xticks=range(n_classes), yticks=range(n_classes))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("fastbp.plotting needs matplotlib: pip install 'fastbp[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _draw_curve(axes: Axes, values: Sequence[float], label: str, color: str) -> None:
    marker = "." if len(values) <= MARKED_EPOCHS else ""
    axes.plot(range(1, len(values) + 1), values, label=label, color=color, marker=marker)


def _image_shape(given: Sequence[int] | None, pixels: int) -> tuple[int, int]:
    """Return (rows, columns) of images of so many pixels."""
    if given is None:
        side = math.isqrt(pixels)
        if side * side != pixels:
            raise ValueError(f"{pixels} pixels make no square: give image_shape=(rows, columns)")
        return side, side
    if len(given) != 2 or min(given) < 1 or math.prod(given) != pixels:
        raise ValueError(f"image_shape is {given}, but must be (rows, columns) with rows x columns = {pixels} pixels")
    return given[0], given[1]


def _wide(n: int) -> int:
    """Return the columns of a mosaic of n images: somewhat more than rows, and all rows full where that can be."""
    ideal = math.sqrt(1.6 * n)
    full = [c for c in range(math.isqrt(n), math.ceil(2.5 * math.sqrt(n))) if n % c == 0]
    return min(full, key=lambda c: abs(c - ideal), default=math.ceil(ideal))


def _mosaic(images: NDArray[Any], columns: int) -> NDArray[np.float64]:
    """Lay images out in rows, with a line of NaN, which stays blank, between neighbours."""
    n, height, width = images.shape
    mosaic = np.full((math.ceil(n / columns) * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for i, image in enumerate(images):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        mosaic[top : top + height, left : left + width] = image
    return mosaic


def _fitting(mosaic: NDArray[Any], width: float, beside: float, above: float) -> tuple[float, float]:
    """Return the size of a figure, in inches, that a mosaic fills but for the room beside and above it."""
    rows, columns = mosaic.shape
    return width, (width - beside) * rows / columns + above
