"""
The four equations of backpropagation
=====================================

BP1 to BP4 of chapter 2 of Nielsen's book, each beside the lines that compute it, for one handwritten digit and a
network with two hidden layers. At the end the gradient is compared with the one that `backprop` returns, and with
slopes that know nothing of backpropagation: the cost a little to the left and a little to the right.

Notation: l layer, j neuron of layer l, k neuron of the layer beside it; w_jk leads from k to j; z_j = sum_k w_jk a_k +
b_j, a_j = sigma(z_j); delta_j = dC/dz_j.
"""

import numpy as np

from fastbp.datasets import load_digits
from fastbp.nielsen import network
from fastbp.nielsen.network import sigmoid, sigmoid_prime

np.random.seed(4)  # noqa: NPY002
net = network.Network([64, 12, 8, 10])
images, labels = load_digits()
x = images[0].reshape(64, 1).astype(np.float64)
y = np.zeros((10, 1))
y[labels[0]] = 1.0

# %%
# Forward
# -------
# Everything that the way back needs is kept: z and a of each layer.

activations, zs = [x], []
for w, b in zip(net.weights, net.biases, strict=True):
    zs.append(w @ activations[-1] + b)  # z_j = sum_k w_jk a_k + b_j
    activations.append(sigmoid(zs[-1]))  # a_j = sigma(z_j)
cost = 0.5 * np.sum((activations[-1] - y) ** 2)  # C = 1/2 sum_j (a_j - y_j)^2
print(f"C = {cost:.6f}")

# %%
# BP1: delta of the output layer
# ------------------------------
# delta_j = dC/da_j sigma'(z_j). For the quadratic cost dC/da_j = a_j - y_j.

deltas = [None, None, None]
deltas[2] = (activations[3] - y) * sigmoid_prime(zs[2])
print("BP1  delta of the outputs:", np.array2string(deltas[2].ravel()[:4], precision=5))

# %%
# BP2: delta of a hidden layer from the next one
# ----------------------------------------------
# delta_k = sigma'(z_k) sum_j w_jk delta_j: the errors of the layer above, sent back through its weights.

for l in (1, 0):
    deltas[l] = net.weights[l + 1].T @ deltas[l + 1] * sigmoid_prime(zs[l])
    print(f"BP2  delta of hidden layer {l + 1}:", np.array2string(deltas[l].ravel()[:4], precision=5))

# %%
# BP3: the biases
# ---------------
# dC/db_j = delta_j. There is nothing left to compute.

gradient_b = deltas

# %%
# BP4: the weights
# ----------------
# dC/dw_jk = a_k delta_j: what comes in times the error that goes out, an outer product. A weight whose input is almost
# 0 learns slowly; so does one whose neuron is saturated, through sigma' in BP1 and BP2.

gradient_w = [delta @ a.T for delta, a in zip(deltas, activations, strict=False)]
print("BP4  shapes of dC/dw:", [g.shape for g in gradient_w])

# %%
# The same from `backprop`
# ------------------------

nabla_b, nabla_w = net.backprop(x, y)
largest = max(np.abs(a - b).max() for a, b in zip(gradient_b + gradient_w, nabla_b + nabla_w, strict=True))
print(f"largest difference from backprop: {largest:.1e}")

# %%
# The same from slopes
# --------------------
# (C(w + h) - C(w - h)) / 2h for some weights of each layer. With h = 1e-5 it errs by some 1e-10.


def cost_now():
    """Return C of the network as it is."""
    return 0.5 * np.sum((net.feedforward(x) - y) ** 2)


h, largest = 1e-5, 0.0
for w, g in zip(net.weights, gradient_w, strict=True):
    for j, k in [(0, 2), (3, 5), (7, 4)]:
        here = w[j, k]
        w[j, k] = here + h
        above = cost_now()
        w[j, k] = here - h
        below = cost_now()
        w[j, k] = here
        largest = max(largest, abs((above - below) / (2 * h) - g[j, k]))
print(f"largest difference from slopes: {largest:.1e}")
assert largest < 1e-9
