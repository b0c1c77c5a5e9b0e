"""
What the first layer looks for
==============================

Each neuron of the first layer has one weight a pixel, so its weights are an image: where it is red, ink excites the
neuron, where it is blue, ink inhibits it. At the start that image is noise. After the training parts of strokes and
gaps stand out, and the difference can be traced to one equation, dC/dw_jk = a_k delta_j (BP4).

Pictures go into the folder given as an argument, by default the current one.
"""

import sys
from pathlib import Path

import numpy as np

import fastbp
from fastbp import plotting
from fastbp.datasets import load_digits, train_test_split

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# %%
# Before and after
# ----------------
# The book's network: sigmoid neurons, the quadratic cost, plain gradient descent with a learning rate of 3.

X_train, X_test, y_train, y_test = train_test_split(*load_digits(), seed=0)
network = fastbp.Network([64, 30, 10], loss="quadratic", seed=0)
start = network.weights[0]
plotting.first_layer_weights(network).savefig(folder / "first_layer_start.png", dpi=150)

network.fit(X_train, y_train, epochs=30, batch_size=10, optimizer=fastbp.SGD(learning_rate=3.0), verbose=False)
plotting.first_layer_weights(network).savefig(folder / "first_layer_trained.png", dpi=150)
print(f"test accuracy {network.accuracy(X_test, y_test):.1%}")

# %%
# Where the weights moved
# -----------------------
# BP4 multiplies by the pixel's value a_k. A pixel that is blank in every training image therefore leaves all its
# weights exactly where they started, and one that often has ink moves them far.

moved = abs(network.weights[0] - start).mean(axis=0)
ink = X_train.mean(axis=0)
blank = ink == 0
print(f"{blank.sum()} pixels are blank in all training images; their weights moved by {moved[blank].max():.1f}")
for low, high in (0, 0.1), (0.1, 0.3), (0.3, 1.0):
    pixels = (ink > low) & (ink <= high)
    print(f"{pixels.sum()} pixels with a mean ink of {low} to {high}: moved by {moved[pixels].mean():.2f} on average")

# %%
# The picture of this mean movement, pixel by pixel, has the shape of the paper that the digits use.

for row in moved.reshape(8, 8):
    print("  " + " ".join(f"{value:.2f}" for value in row))
print(f"correlation with the mean ink: {np.corrcoef(moved, ink)[0, 1]:.2f}")
