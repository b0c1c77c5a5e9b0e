"""
A worked example: one step of backpropagation by hand
=====================================================

Two inputs, two hidden neurons, two outputs: small enough to write down every number. The network, its weights and its
numbers are those of M. Mazur, "A Step by Step Backpropagation Example" (2015), with the biases left as they are. Each
product of the chain rule is computed here from the network's weights and activations alone, printed, and compared with
what the network itself says.
"""

import numpy as np

import fastbp

# %%
# The network
# -----------
# ``w[j, k]`` leads from neuron k to neuron j, so each row belongs to the neuron that the weights lead to. A bias that
# is "fixed" takes part in the forward pass and is left alone by the training. float64 gives all the digits.

network = fastbp.Network(
    [2, 2, 2],
    hidden="sigmoid",
    output="sigmoid",
    loss="quadratic",
    bias="fixed",
    dtype="float64",
    init=[
        ([[0.15, 0.20], [0.25, 0.30]], [0.35, 0.35]),
        ([[0.40, 0.45], [0.50, 0.55]], [0.60, 0.60]),
    ],
)
X = np.array([[0.05, 0.10]])
Y = np.array([[0.01, 0.99]])
x, y = X[0], Y[0]
eta = 0.5
LAYERS = "hidden", "output"

# %%
# Forward
# -------
# Each neuron sums what it receives, and squashes the sum.

print("Forward: z_j = sum_k w_jk a_k + b_j, a_j = 1 / (1 + exp(-z_j))")
activations = [x, *(a[0] for a in network.activations(X))]
for l, (w, b) in enumerate(zip(network.weights, network.biases, strict=True)):
    for j in range(2):
        z = w[j] @ activations[l] + b[j]
        terms = " + ".join(f"{w[j, k]:.2f} x {activations[l][k]:.9f}" for k in range(2))
        print(f"  {LAYERS[l]} {j}: z = {terms} + {b[j]:.2f} = {z:.9f}, a = {1 / (1 + np.exp(-z)):.9f}")
        np.testing.assert_allclose(1 / (1 + np.exp(-z)), activations[l + 1][j], rtol=1e-14)
hidden, output = activations[1:]

# %%
# The error
# ---------
# The quadratic cost of one sample, half the squared distance from the targets.

print("\nError: C = 1/2 sum_j (a_j - y_j)^2")
costs = (output - y) ** 2 / 2
print(f"  {costs[0]:.9f} + {costs[1]:.9f} = {costs.sum():.9f}")
print(f"  the network's own: {network.loss(X, Y):.9f}")

# %%
# Back, through the outputs
# -------------------------
# The chain rule: how the error depends on the activation, the activation on its sum z, and z on the weight.

print("\nBack, output layer: dC/dw_jk = dC/da_j x da_j/dz_j x dz_j/dw_jk = (a_j - y_j) x a_j (1 - a_j) x a_k")
gradients, _ = network.gradients(X, Y)
delta_output = (output - y) * output * (1 - output)  # BP1
for j in range(2):
    for k in range(2):
        error, slope = output[j] - y[j], output[j] * (1 - output[j])
        product = error * slope * hidden[k]
        np.testing.assert_allclose(product, gradients[1][j, k], rtol=1e-13)
        print(
            f"  dC/dw_{j}{k} = {error:12.9f} x {slope:.9f} x {hidden[k]:.9f} = {product:12.9f}"
            f"  (network: {gradients[1][j, k]:12.9f})"
        )

# %%
# Back, through the hidden layer
# ------------------------------
# A hidden neuron k reaches the error through both outputs: each sends its delta = dC/dz back along its weight. It takes
# the weights from before the step.

print("\nBack, hidden layer: dC/dw_jk = (sum_i delta_i w_ij) x a_j (1 - a_j) x x_k, delta_i those of the outputs:")
print(f"  delta_0 = {delta_output[0]:.9f}, delta_1 = {delta_output[1]:.9f}")
for j in range(2):
    for k in range(2):
        error = delta_output @ network.weights[1][:, j]  # BP2
        slope = hidden[j] * (1 - hidden[j])
        product = error * slope * x[k]
        np.testing.assert_allclose(product, gradients[0][j, k], rtol=1e-13)
        terms = " + ".join(f"{delta_output[i]:.9f} x {network.weights[1][i, j]:.2f}" for i in range(2))
        print(
            f"  dC/dw_{j}{k} = ({terms}) x {slope:.9f} x {x[k]:.2f} = {product:.9f}"
            f"  (network: {gradients[0][j, k]:.9f})"
        )

# %%
# The step
# --------
# Every weight goes against its gradient, eta times as far. `fit` with one sample and one epoch does just that.

print(f"\nStep: w = w - eta dC/dw, eta = {eta}")
before = network.weights
optimizer = fastbp.SGD(learning_rate=eta)
network.fit(X, Y, epochs=1, batch_size=1, optimizer=optimizer, verbose=False)
for l in range(2):
    for j in range(2):
        for k in range(2):
            stepped = before[l][j, k] - eta * gradients[l][j, k]
            np.testing.assert_allclose(stepped, network.weights[l][j, k], rtol=1e-14)
            print(
                f"  {LAYERS[l]} w_{j}{k}: {before[l][j, k]:.2f} - {eta} x {gradients[l][j, k]:12.9f} = {stepped:.8f}"
                f"  (network: {network.weights[l][j, k]:.8f})"
            )
print(f"  error after 1 step: {network.loss(X, Y):.9f}")

# %%
# And so on
# ---------
# The optimizer, plain gradient descent, remembers nothing, so another `fit` simply goes on.

network.fit(X, Y, epochs=9999, batch_size=1, optimizer=optimizer, verbose=False)
print(f"\nError after 10 000 steps: {network.loss(X, Y):.4e}")
print("Outputs: {:.7f} {:.7f}, targets: {} {}".format(*network.predict(X)[0], *y))
