"""
Regression: a curve from noisy points
=====================================

With an identity output and the mean squared error a network learns real numbers. Here the true curve and the noise are
known, so it can be said how good the best possible model would be: its mean squared error is the variance of the noise.
A straight line and a cubic, fitted by least squares, show what the hidden layers add.

The picture goes into the folder given as an argument, by default the current one.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import fastbp

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# %%
# The data
# --------
# A swing that quickens. Inputs and targets of the order of 1 are what networks learn best from: scale yours to that.

NOISE = 0.15
rng = np.random.default_rng(0)


def curve(x):
    """Return the truth."""
    return np.sin(1.25 * (x + 2) ** 2) * np.exp(-x / 3) / 2


x_train, x_test = rng.uniform(-2, 2, 1000), rng.uniform(-2, 2, 2000)
y_train, y_test = (curve(x) + rng.normal(0, NOISE, len(x)) for x in (x_train, x_test))

# %%
# The network
# -----------
# Samples are rows, so the inputs have shape (n, 1). With one output the targets may be one-dimensional.

network = fastbp.Network([1, 32, 32, 1], hidden="tanh", output="identity", loss="mse", seed=0)
history = network.fit(
    x_train[:, None], y_train, epochs=800, batch_size=32, optimizer=fastbp.Adam(learning_rate=1e-3), verbose=False
)

# %%
# How good is it?
# ---------------
# On points it has not seen, beside polynomials, and beside what the noise leaves to any model.


def mean_squared_error(predicted):
    """Return it on the test points."""
    return np.mean((predicted - y_test) ** 2)


errors = {
    "straight line": mean_squared_error(np.polynomial.Polynomial.fit(x_train, y_train, 1)(x_test)),
    "cubic": mean_squared_error(np.polynomial.Polynomial.fit(x_train, y_train, 3)(x_test)),
    "network": network.loss(x_test[:, None], y_test),
    "the true curve": mean_squared_error(curve(x_test)),
}
print("mean squared error on 2000 new points")
for name, error in errors.items():
    print(f"  {name:16}{error:8.4f}")

# %%
# The picture
# -----------

x = np.linspace(-2, 2, 500)
figure = Figure(figsize=(7, 3.6), layout="constrained")
axes = figure.subplots()
axes.plot(x_train, y_train, ".", color="0.75", markersize=4, label="training points")
axes.plot(x, curve(x), color="black", linewidth=1, linestyle="--", label="truth")
axes.plot(x, network.predict(x[:, None])[:, 0], color="#d9661f", linewidth=2, label="network")
axes.set(xlabel="x", ylabel="y")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.12))
figure.savefig(folder / "regression.png", dpi=150)
