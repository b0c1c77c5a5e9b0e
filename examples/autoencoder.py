"""
An autoencoder: digits through eight numbers
============================================

An autoencoder learns to output its own input: input = target. In between lies a narrow layer, here of eight neurons,
through which everything must pass. So the network has to find eight numbers that say what a digit of 64 pixels looks
like. The best that straight lines can do with eight numbers is principal component analysis; curves do better.

The picture goes into the folder given as an argument, by default the current one.
"""

import sys
from pathlib import Path

import numpy as np

import fastbp
from fastbp import plotting
from fastbp.datasets import load_digits, train_test_split

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# %%
# Input = target
# --------------
# The labels are only used to pick one image of each digit for the picture.

X_train, X_test, _, y_test = train_test_split(*load_digits(), seed=0)
CODE = 8
network = fastbp.Network(
    [64, 96, 32, CODE, 32, 96, 64], hidden="tanh", output="sigmoid", loss="mse", init="glorot_uniform", seed=0
)
history = network.fit(
    X_train, X_train, epochs=400, batch_size=32, optimizer=fastbp.Adam(learning_rate=1e-3), verbose=False
)
print(f"mean squared error a pixel: {history.loss[0]:.4f} in the first epoch, {history.loss[-1]:.4f} in the last")

# %%
# Beside principal components
# ---------------------------
# Their reconstruction is the projection on the eight directions in which the training images vary most.

mean = X_train.mean(axis=0)
_, _, directions = np.linalg.svd(X_train - mean, full_matrices=False)
projected = mean + (X_test - mean) @ directions[:CODE].T @ directions[:CODE]
print(f"on {len(X_test)} images that neither has seen, with {CODE} numbers an image:")
print(f"  mean image alone      {np.mean((mean - X_test) ** 2):.4f}")
print(f"  principal components  {np.mean((projected - X_test) ** 2):.4f}")
print(f"  autoencoder           {network.loss(X_test, X_test):.4f}")

# %%
# The picture
# -----------
# One test image of each digit, and what comes out at the other end. The code itself is one of the activations.

chosen = [np.flatnonzero(y_test == digit)[0] for digit in range(10)]
reconstructed = network.predict(X_test[chosen])
plotting.reconstructions(X_test[chosen], reconstructed).savefig(folder / "autoencoder.png", dpi=150)
print("the code of the first 0:", np.array2string(network.activations(X_test[chosen])[2][0], precision=2))
