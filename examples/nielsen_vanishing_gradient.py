"""
The vanishing gradient, layer by layer
======================================

Why are deep networks hard to train? Chapter 5 of Nielsen's book looks at how fast each hidden layer learns: at the
length of its gradient dC/db, averaged over the training set. On the way down every layer multiplies delta by weights
and by sigma'(z), which is at most 1/4 (BP2), so the first layers learn slowest.

The picture goes into the folder given as an argument, by default the current one.
"""

import contextlib
import io
import random
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fastbp.datasets import load_digits
from fastbp.nielsen import network2

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

EPOCHS = 200
images, labels = load_digits()
training_data = [
    (image.reshape(64, 1), network2.vectorized_result(label))
    for image, label in zip(images[:1000], labels[:1000], strict=True)
]

# %%
# How fast a layer learns
# -----------------------
# Gradient descent on all samples at once, as in the book, so that chance does not blur the curves. One step moves the
# biases by eta dC/db, so the way that they went tells the gradient; regularisation leaves biases alone.

ETA = 0.1


def step(net):
    """Take one step; return the length of dC/db for each hidden layer, as it was before."""
    before = net.biases
    with contextlib.redirect_stdout(io.StringIO()):
        net.SGD(training_data, 1, len(training_data), ETA, lmbda=5.0)
    moved = [old - new for old, new in zip(before, net.biases, strict=True)]
    return [float(np.linalg.norm(way)) / ETA for way in moved[:-1]]


# %%
# Two, three, four hidden layers
# ------------------------------
# With each hidden layer that is added, the first one learns more slowly, at the start and for long after.

random.seed(3)
np.random.seed(3)  # noqa: NPY002
curves = {}
for n_hidden in (2, 3, 4):
    net = network2.Network([64, *[30] * n_hidden, 10])
    curves[n_hidden] = [step(net) for _ in range(EPOCHS)]
    for epoch in 0, EPOCHS - 1:
        lengths = curves[n_hidden][epoch]
        print(f"{n_hidden} hidden layers, epoch {epoch}:", " ".join(f"{length:.1e}" for length in lengths), end="")
        print(f", the last is {lengths[-1] / lengths[0]:.0f} times as fast as the first")

# %%
# The picture
# -----------
# On a logarithmic axis the layers stand above each other: each about a constant factor slower than the next.

figure = Figure(figsize=(11, 3.5), layout="constrained")
for axes, (n_hidden, curve) in zip(figure.subplots(1, 3, sharey=True), curves.items(), strict=True):
    for l, lengths in enumerate(zip(*curve, strict=True), start=1):
        axes.plot(lengths, label=f"hidden layer {l}")
    axes.set(xlabel="epoch", yscale="log", title=f"{n_hidden} hidden layers")
    axes.grid(alpha=0.25)
    axes.legend(fontsize="small")
figure.axes[0].set_ylabel("length of dC/db")
figure.savefig(folder / "nielsen_vanishing_gradient.png", dpi=150)
