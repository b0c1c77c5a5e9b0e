"""
Overfitting and regularisation, over the book's own curves
==========================================================

Thirty hidden neurons learn the first 1000 images of MNIST by heart: their cost falls to nothing, while the cost of the
test images rises. Chapter 3 of Nielsen's book shows it; its repository has the curves. With the book's seeds and the
shuffle of its Python 2, ours lie on them. Then the same with L2 regularisation.

It needs MNIST: set the environment variable FASTBP_DATA to a folder with its files. The picture goes into the folder
given as an argument, by default the current one.
"""

import contextlib
import io
import json
import random
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fastbp.nielsen import mnist_loader, network2

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

EPOCHS = 200
training_data, _, test_data = mnist_loader.load_data_wrapper()


def train(lmbda):
    """Train as the book's fig/overfitting.py does; return the four curves, costs and accuracies."""
    random.seed(12345678)
    np.random.seed(12345678)  # noqa: NPY002
    net = network2.Network([784, 30, 10], cost=network2.CrossEntropyCost())
    net.large_weight_initializer()
    with contextlib.redirect_stdout(io.StringIO()):
        return net.SGD(
            training_data[:1000], EPOCHS, 10, 0.5, lmbda, test_data,
            monitor_evaluation_cost=True, monitor_evaluation_accuracy=True,
            monitor_training_cost=True, monitor_training_accuracy=True, shuffle="python2",
        )  # fmt: skip


# %%
# Without regularisation
# ----------------------
# The curves that the book published, from its repository (MIT licence), and ours.

path = Path(__file__).resolve().parents[1] / "tests" / "data" / "nielsen_curves" / "overfitting.json"
published = [curve[:EPOCHS] for curve in json.loads(path.read_text())]
overfitted = train(lmbda=0.0)
NAMES = "test cost", "test accuracy", "training cost", "training accuracy"
for name, ours, book in zip(NAMES, overfitted, published, strict=True):
    difference = np.max(np.abs(np.subtract(ours, book)) / np.abs(book))
    print(f"{name}: {ours[-1]:.6g} after {EPOCHS} epochs, largest relative difference from the book's {difference:.0e}")

# %%
# With regularisation
# -------------------
# lmbda / 2n times the sum of all squared weights is added to the cost; for 1000 images the book takes lmbda = 0.1.

regularised = train(lmbda=0.1)
print(f"test accuracy: {max(overfitted[1]) / 100:.2f} % without, {max(regularised[1]) / 100:.2f} % with regularisation")

# %%
# The picture
# -----------
# Overfitting is where the two costs part.

figure = Figure(figsize=(9, 6), layout="constrained")
for axes, name, ours, book, shrunk in zip(
    figure.subplots(2, 2).flat, NAMES, overfitted, published, regularised, strict=True
):
    axes.plot(book, color="0.7", linewidth=5, label="the book's")
    axes.plot(ours, label="lmbda = 0")
    axes.plot(shrunk, label="lmbda = 0.1")
    axes.set(xlabel="epoch", title=name)
    axes.grid(alpha=0.25)
figure.axes[0].legend()
figure.savefig(folder / "nielsen_overfitting.png", dpi=150)
