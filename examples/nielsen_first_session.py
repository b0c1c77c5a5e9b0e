"""
The book's first session
========================

What a reader of Nielsen's *Neural Networks and Deep Learning* types first: thirty hidden neurons learn to read digits.
Only the imports differ, and the time: seconds where the book's own code takes minutes. The session needs MNIST: set the
environment variable FASTBP_DATA to a folder with its files, or call `fastbp.datasets.load_mnist(download=True)` once.
"""

# %%
# Random numbers
# --------------
# The book does not seed its generators, so each reader sees other digits go wrong. These lines are here so that this
# example prints the same each time: they seed the same two generators that the book draws from.

import random

import numpy as np

random.seed(1)
np.random.seed(1)  # noqa: NPY002

# %%
# The data
# --------
# Lists of pairs (x, y), 50 000 to train, 10 000 to validate, 10 000 to test.

from fastbp.nielsen import mnist_loader

training_data, validation_data, test_data = mnist_loader.load_data_wrapper()

# %%
# The network
# -----------
# 784 pixels, 30 hidden neurons, 10 digits; all weights and biases start from a normal distribution.

from fastbp.nielsen import network

net = network.Network([784, 30, 10])

# %%
# Training
# --------
# 30 epochs, mini-batches of 10, a learning rate of 3.0; after each epoch, how many of the 10 000 test images are right.

net.SGD(training_data, 30, 10, 3.0, test_data=test_data)

# %%
# Without a hidden layer
# ----------------------
# The book's exercise: how far do the pixels alone carry?

net = network.Network([784, 10])
net.SGD(training_data, 10, 10, 3.0, test_data=test_data)
