"""
Why neurons learn slowly, and how cross-entropy helps
=====================================================

One neuron, one input of 1, and 0 is wanted: chapter 3 of Nielsen's book begins with this toy. People learn fastest when
they are badly wrong. A sigmoid neuron with the quadratic cost does not: badly wrong, it is saturated, its gradient has
the factor sigma'(z), and that is almost 0. Cross-entropy cancels the factor.

The picture goes into the folder given as an argument, by default the current one.
"""

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fastbp.nielsen import network2

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

x, y = np.array([[1.0]]), np.array([[0.0]])
STARTS = {"good start": (0.6, 0.9), "bad start": (2.0, 2.0)}
EPOCHS = 300


def start(cost, w, b):
    """Return the neuron with this weight and bias."""
    net = network2.Network([1, 1], cost=cost)
    net.weights, net.biases = [np.array([[w]])], [np.array([[b]])]
    return net


# %%
# The slope at the start
# ----------------------
# The two starts are wrong by 0.82 and by 0.98. With the quadratic cost the one that is more wrong has the smaller
# gradient: dC/dw = (a - y) sigma'(z) x (BP1 and BP4). With cross-entropy it is (a - y) x.

for name, (w, b) in STARTS.items():
    slopes = [
        start(cost, w, b).backprop(x, y)[1][0].item() for cost in (network2.QuadraticCost, network2.CrossEntropyCost)
    ]
    output = start(network2.QuadraticCost, w, b).feedforward(x).item()
    print(f"{name}: output {output:.2f}, dC/dw {slopes[0]:.3f} (quadratic), {slopes[1]:.3f} (cross-entropy)")

# %%
# Learning
# --------
# The book's learning rates: 0.15 and 0.005. They cannot be compared, but the shapes can.

SETTINGS = {"quadratic cost": (network2.QuadraticCost, 0.15), "cross-entropy": (network2.CrossEntropyCost, 0.005)}
curves = {}
for title, (cost, eta) in SETTINGS.items():
    for name, (w, b) in STARTS.items():
        net = start(cost, w, b)
        with contextlib.redirect_stdout(io.StringIO()):  # the book prints three lines an epoch
            _, _, curves[title, name], _ = net.SGD([(x, y)], EPOCHS, 1, eta, monitor_training_cost=True)
        print(f"{title}, {name}: output {net.feedforward(x).item():.2f} after {EPOCHS} epochs")

# %%
# The picture
# -----------
# With the quadratic cost the bad start stays on a plateau for half of the time. With cross-entropy it falls at once,
# and the steeper the worse it is.

figure = Figure(figsize=(9, 3.3), layout="constrained")
for axes, title in zip(figure.subplots(1, 2), SETTINGS, strict=True):
    for name in STARTS:
        axes.plot(curves[title, name], label=name)
    axes.set(xlabel="epoch", ylabel="cost", title=title, ylim=(0, None))
    axes.grid(alpha=0.25)
    axes.legend()
figure.savefig(folder / "nielsen_slow_learning.png", dpi=150)
