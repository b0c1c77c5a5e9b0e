"""
A classifier of handwritten digits
==================================

The shipped digits are 1797 images of 8 x 8 pixels. A network with softmax outputs and cross-entropy learns the
probability of each digit. What it is worth shows on images that it has not seen: a part is held out from the training
and looked at once, at the end; another part, the validation data, is watched on the way.

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
# The data
# --------
# Pixels lie between 0 and 1, labels are the integers 0 to 9; nothing has to be scaled or made one-hot.

X, X_test, y, y_test = train_test_split(*load_digits(), test_fraction=0.2, seed=0)
X_train, X_validation, y_train, y_validation = train_test_split(X, y, test_fraction=0.2, seed=1)
print(f"{len(X_train)} images to train, {len(X_validation)} to validate, {len(X_test)} to test")

# %%
# The network
# -----------
# relu in the hidden layer, started with He's variance, which suits it; the loss of softmax is cross-entropy.

network = fastbp.Network([64, 48, 10], hidden="relu", output="softmax", init="he_normal", seed=0)
print(network.summary())

# %%
# Training
# --------
# Adam with its usual learning rate. Where the validation's loss no longer falls while that of the training does, the
# network begins to learn its images by heart.

history = network.fit(X_train, y_train, epochs=40, batch_size=32, validation_data=(X_validation, y_validation))
print(f"after {history.epochs} epochs: training loss {history.loss[-1]:.3f}, ", end="")
print(f"validation loss {history.validation_loss[-1]:.3f}")
plotting.learning_curve(history).savefig(folder / "digits_learning_curve.png", dpi=150)

# %%
# The test
# --------
# The share of right answers, and which digit is taken for which.

predicted = network.predict_classes(X_test)
print(f"test accuracy {network.accuracy(X_test, y_test):.1%}")
plotting.confusion_matrix(y_test, predicted, 10).savefig(folder / "digits_confusion.png", dpi=150)

# %%
# The outputs are probabilities, so they also say how sure the network is. The errors are mostly among the answers of
# which it is least sure: those could be given to a human.

sure = network.predict(X_test).max(axis=1)
wrong = predicted != y_test
doubtful = np.argsort(sure)[: len(sure) // 20]
print(f"{wrong.sum()} errors, {wrong[doubtful].sum()} of them among the {len(doubtful)} least sure answers")
for i in np.flatnonzero(wrong):
    print(f"  a {y_test[i]} taken for a {predicted[i]} with probability {sure[i]:.2f}")
