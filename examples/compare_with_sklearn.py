"""
scikit-learn's MLP, and one changed line
========================================

``from fastbp.sklearn import MLPClassifier`` in the place of ``from sklearn.neural_network import MLPClassifier``: the
same parameters, the same random draws, the same weights up to rounding, sooner. Here both are fitted to the digits that
scikit-learn ships, with its own defaults and with small mini-batches, and everything that comes out is compared.

The picture goes into the folder given as an argument, by default the current one. scikit-learn and matplotlib come with
`pip install 'fastbp[sklearn,plot]'`.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

import fastbp.sklearn

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# %%
# The data
# --------
# 1797 images of 8 x 8 pixels, scaled to lie between 0 and 1; a quarter is held out.

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.25, random_state=0, stratify=y)
print(f"{len(X_train)} images to train, {len(X_test)} to test")

# %%
# What is compared
# ----------------
# Settings that differ in where the time goes: scikit-learn's defaults, small mini-batches, SGD, and L-BFGS. Twenty
# epochs are not enough to converge, and scikit-learn warns of it; so does fastbp.

SETTINGS = {
    "defaults": {},
    "small batches": {"hidden_layer_sizes": (32, 16), "batch_size": 16, "activation": "tanh"},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.05, "learning_rate": "adaptive", "batch_size": 32},
    "lbfgs": {"solver": "lbfgs", "alpha": 0.1},
}
MODULES = {"scikit-learn": neural_network, "fastbp": fastbp.sklearn}
warnings.simplefilter("ignore", ConvergenceWarning)

# %%
# The times
# ---------
# The best of three fits each, taken in turns; before the clock starts, each has fitted a few images, so that fastbp's
# kernels are compiled or read from their cache, which happens once.

fitted, seconds = {}, {}
for setting, parameters in SETTINGS.items():
    for module in MODULES.values():
        module.MLPClassifier(max_iter=1, **parameters).fit(X_train[:100], y_train[:100])
    for _ in range(3):
        for name, module in MODULES.items():
            estimator = module.MLPClassifier(max_iter=20, random_state=0, **parameters)
            start = time.perf_counter()
            fitted[setting, name] = estimator.fit(X_train, y_train)
            taken = time.perf_counter() - start
            seconds[setting, name] = min(taken, seconds.get((setting, name), np.inf))

# %%
# The results
# -----------
# The largest difference of two coefficients, in units of the layer's largest: after twenty epochs it is still rounding.
# Another order of additions does the same to scikit-learn itself.

for setting in SETTINGS:
    theirs, ours = (fitted[setting, name] for name in MODULES)
    largest = max(
        np.abs(a - b).max() / np.abs(b).max()
        for a, b in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True)
    )
    times = [seconds[setting, name] for name in MODULES]
    accuracies = [estimator.score(X_test, y_test) for estimator in (theirs, ours)]
    print(
        f"{setting:13}  scikit-learn {times[0]:6.3f} s  fastbp {times[1]:6.3f} s ({times[0] / times[1]:4.1f} times)  "
        f"test accuracy {accuracies[0]:.1%} and {accuracies[1]:.1%}  coefficients within {largest:.0e}"
    )

# %%
# The picture
# -----------
# Times as bars, and for the second setting the losses of the epochs: two curves in one place.

figure = Figure(figsize=(9, 3.4), layout="constrained")
left, right = figure.subplots(1, 2)
colors = {"scikit-learn": "0.7", "fastbp": "#d9661f"}
places = np.arange(len(SETTINGS))
for offset, name in zip((-0.2, 0.2), MODULES, strict=True):
    left.barh(places + offset, [seconds[setting, name] for setting in SETTINGS], 0.4, color=colors[name], label=name)
left.set_yticks(places, SETTINGS)
left.invert_yaxis()
left.set(xlabel="seconds")
right.plot(fitted["small batches", "scikit-learn"].loss_curve_, color="0.7", linewidth=6, label="scikit-learn")
right.plot(fitted["small batches", "fastbp"].loss_curve_, color="#d9661f", linewidth=1.5, label="fastbp")
right.set(xlabel="epoch", ylabel="loss, small batches", yscale="log")
for axes in left, right:
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
figure.savefig(folder / "compare_with_sklearn.png", dpi=150)
