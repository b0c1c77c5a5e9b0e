"""Plotting: each picture shows the numbers that it is given."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import History, Network, plotting

pytest.importorskip("matplotlib")

HISTORY = History(
    loss=[2.0, 0.4, 0.1],
    accuracy=[0.5, 0.75, 1.0],
    validation_loss=[1.0, 0.5, 0.3],
    validation_accuracy=[0.6, 0.7, 0.8],
    seconds=[0.1] * 3,
)


def png(figure: Any) -> bytes:
    """Return the picture, really drawn: any warning on the way is an error."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue()[:8] == b"\x89PNG\r\n\x1a\n"
    return file.getvalue()


def tiles(mosaic: Any, shape: tuple[int, int]) -> np.ndarray:
    """Cut a mosaic into its images, (n, rows, columns), checking that what lies between is blank."""
    values = np.ma.filled(np.ma.masked_invalid(mosaic), np.nan)
    high, wide = shape[0] + 1, shape[1] + 1
    n_rows, n_columns = (values.shape[0] + 1) // high, (values.shape[1] + 1) // wide
    padded = np.full((n_rows * high, n_columns * wide), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    cut = padded.reshape(n_rows, high, n_columns, wide).transpose(0, 2, 1, 3).reshape(-1, high, wide)
    assert np.isnan(cut[:, -1]).all()
    assert np.isnan(cut[:, :, -1]).all()
    return cut[:, :-1, :-1]


def test_learning_curve() -> None:
    figure = plotting.learning_curve(HISTORY)
    loss, accuracy = figure.axes
    curves = [line.get_xydata().tolist() for axes in (loss, accuracy) for line in axes.lines]
    expected = [
        HISTORY.loss,
        HISTORY.validation_loss,
        [100 * a for a in HISTORY.accuracy],
        [100 * a for a in HISTORY.validation_accuracy],
    ]
    assert curves == [[[epoch, value] for epoch, value in enumerate(values, 1)] for values in expected]
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    assert loss.get_legend() is not None
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("log", "linear")
    png(figure)


def test_learning_curve_without_validation_and_classes() -> None:
    figure = plotting.learning_curve(History(loss=[0.4, 0.3]))
    (axes,) = figure.axes
    assert len(axes.lines) == 1
    assert axes.get_legend() is None
    png(figure)


@pytest.mark.parametrize(
    ("loss", "scale"), [([1.0, 0.2], "linear"), ([1.0, 0.05], "log"), ([1.0, 0.0], "linear"), ([0.0], "linear")]
)
def test_scale_of_the_loss(loss: list[float], scale: str) -> None:
    figure = plotting.learning_curve(History(loss=loss))
    assert figure.axes[0].get_yscale() == scale
    png(figure)


def test_a_single_epoch_can_be_seen() -> None:
    figure = plotting.learning_curve(History(loss=[0.5]))
    assert figure.axes[0].lines[0].get_marker() not in ("", "None", None)
    png(figure)


def test_no_epoch() -> None:
    with pytest.raises(ValueError, match="history holds no epoch: fit"):
        plotting.learning_curve(History())


@pytest.mark.parametrize(
    ("n_neurons", "image_shape"), [(30, (8, 8)), (7, (8, 8)), (1, (4, 16)), (2, (64, 1)), (100, (1, 64))]
)
def test_first_layer_weights(n_neurons: int, image_shape: tuple[int, int]) -> None:
    network = Network([64, n_neurons, 3], seed=0)
    figure = plotting.first_layer_weights(network, image_shape)
    (image,) = figure.axes[0].images
    cut = tiles(image.get_array(), image_shape)
    np.testing.assert_array_equal(cut[:n_neurons].reshape(n_neurons, 64), network.weights[0])
    assert np.isnan(cut[n_neurons:]).all()
    low, high = image.get_clim()
    assert -low == high == abs(network.weights[0]).max()  # 0 is white
    png(figure)


def test_square_images_are_the_default() -> None:
    network = Network([64, 5], seed=0)
    assert png(plotting.first_layer_weights(network)) == png(plotting.first_layer_weights(network, (8, 8)))


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (12, 4), (30, 6), (64, 8), (128, 16), (100, 10), (7, 4)])
def test_mosaics_are_full_and_wide(n: int, columns: int) -> None:
    figure = plotting.first_layer_weights(Network([1, n, 1], seed=0))
    assert figure.axes[0].images[0].get_array().shape[1] == 2 * columns - 1


def test_weights_that_are_all_zero() -> None:
    png(plotting.first_layer_weights(Network([4, 3], init="zeros")))


@pytest.mark.parametrize("image_shape", [None, (2, 4), (10,), (0, 10), (-2, -5), (1, 2, 5)])
def test_pixels_fill_no_image(image_shape: Any) -> None:
    with pytest.raises(ValueError, match=r"10 pixels.*|image_shape=\(rows, columns\)"):
        plotting.first_layer_weights(Network([10, 3], seed=0), image_shape)


def test_reconstructions(digits: fastbp.datasets.Digits) -> None:
    originals, reconstructed = digits.X[:7], digits.X[:7] / 2
    figure = plotting.reconstructions(originals, reconstructed)
    for axes, images in zip(figure.axes, (originals, reconstructed), strict=True):
        (image,) = axes.images
        np.testing.assert_array_equal(tiles(image.get_array(), (8, 8)).reshape(7, 64), images)
        assert image.get_clim() == (0, originals.max())
    png(figure)


def test_reconstructions_of_one_and_of_many(digits: fastbp.datasets.Digits) -> None:
    for n in 1, 40:
        png(plotting.reconstructions(digits.X[:n], digits.X[:n]))
    png(plotting.reconstructions(np.zeros((2, 6)), np.zeros((2, 6)), (2, 3)))


@pytest.mark.parametrize(
    ("originals", "reconstructed"), [((3, 4), (2, 4)), ((4,), (4,)), ((0, 4), (0, 4)), ((1, 2, 2), (1, 2, 2))]
)
def test_reconstructions_of_wrong_shapes(originals: tuple[int, ...], reconstructed: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"both must have the same shape \(n, pixels\)"):
        plotting.reconstructions(np.zeros(originals), np.zeros(reconstructed))


def test_confusion_matrix() -> None:
    labels, predicted = [0, 0, 0, 1, 2, 2], [0, 0, 2, 1, 0, 2]
    figure = plotting.confusion_matrix(labels, np.array(predicted, np.uint8), 4)
    axes = figure.axes[0]
    written = {(*map(round, text.get_position()), text.get_text()) for text in axes.texts}
    assert written == {(0, 0, "2"), (2, 0, "1"), (1, 1, "1"), (0, 2, "1"), (2, 2, "1")}  # x: predicted, y: true
    np.testing.assert_allclose(
        axes.images[0].get_array(), [[2 / 3, 0, 1 / 3, 0], [0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 0]]
    )
    png(figure)


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        ([0, 3], [0, 1], "labels must be one-dimensional integers of the classes 0 to 2"),
        ([0, 1], [0, -1], "predicted must be one-dimensional integers of the classes 0 to 2"),
        ([0, 1], [0.0, 1.0], "predicted must be"),
        ([[0, 1]], [0, 1], "labels must be"),
        ([0, 1], [0], "2 labels, but 1 were predicted"),
    ],
)
def test_confusion_matrix_of_wrong_classes(labels: Any, predicted: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plotting.confusion_matrix(labels, predicted, 3)


def test_matplotlib_is_imported_late_and_pyplot_never() -> None:
    program = """if True:
        import io, sys
        from fastbp import History, plotting
        assert "matplotlib" not in sys.modules
        plotting.learning_curve(History(loss=[1.0, 0.5])).savefig(io.BytesIO())
        assert "matplotlib" in sys.modules
        assert "matplotlib.pyplot" not in sys.modules
        """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'fastbp\[plot\]'"):
        plotting.learning_curve(HISTORY)
